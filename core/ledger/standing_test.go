package ledger

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestDeeds(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir)
	seal := leaf(1)
	now := time.Unix(1_700_000_000, 5).UTC()
	var log []Leaf
	deed := func(k LeafKind, want error) {
		t.Helper()
		d := seal.Done(k, "counsel -", "case 4711: ä\n& b+c", now)
		if err := l.Append(d); !errors.Is(err, want) || (want == nil) != (err == nil) {
			t.Fatalf("%s: %v, want %v", k, err, want)
		} else if err == nil {
			log = append(log, d)
		}
	}
	if err := l.Append(seal); err != nil {
		t.Fatal(err)
	}
	deed(LeafRelease, ErrStanding)
	deed(LeafHold, nil)
	deed(LeafHold, ErrStanding)
	deed(LeafGone, ErrHeld)
	if err := l.AppendAll([]Leaf{seal.Done(LeafRelease, "a", "", now), seal.Done(LeafHold, "a", "", now), seal.Done(LeafGone, "a", "", now)}); !errors.Is(err, ErrHeld) {
		t.Fatalf("at once: %v", err)
	}
	l.Close()
	l = openLedger(t, dir) // a restart knows what is held
	deed(LeafGone, ErrHeld)
	deed(LeafRelease, nil)
	deed(LeafGone, nil)
	if err := l.Append(seal.Done(LeafGone, "again", "", now)); err != nil { // passed over
		t.Fatal(err)
	}
	deed(LeafHold, ErrStanding)
	l.Close()
	l = openLedger(t, dir)
	if held, gone := l.Standing(seal.Session); held || !gone {
		t.Errorf("held %v, gone %v", held, gone)
	}
	n := -1
	if err := l.Each(func(got Leaf) error {
		if n++; n > 0 && !reflect.DeepEqual(got, log[n-1]) {
			t.Errorf("leaf %d is %+v, want %+v", n, got, log[n-1])
		}
		return nil
	}); err != nil || n != len(log) {
		t.Fatalf("%d leaves, %v", n, err)
	}
	p, err := Prove(filepath.Join(dir, "ledger"), l.PublicKey(), seal.Session)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := p.Check(l.PublicKey()); err != nil || got.Kind != LeafSeal {
		t.Errorf("the proof is of %+v, %v", got, err)
	}
	good := string(log[0].appendLine(nil))
	for _, bad := range []string{
		strings.Replace(good, "case+4711", "case%204711", 1), strings.Replace(good, " counsel", "  counsel", 1), good + " more",
		good[:strings.LastIndexByte(good, ' ')], strings.Replace(good, "hold", "seal", 1), strings.Replace(good, "hold", "burn", 1),
		strings.Replace(good, "counsel", strings.Repeat("x", MaxWhy), 1), strings.NewReplacer("hold", "gone", "closed", "-").Replace(good),
	} {
		if _, err := parseLeaf(bad); err == nil {
			t.Errorf("taken: %s", bad)
		}
	}
}
