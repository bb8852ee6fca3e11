package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"github.com/weir-gateway/weir/core"
)

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := core.Record{
			Seq: rapid.Uint64().Draw(t, "seq"), Time: time.Unix(0, rapid.Int64().Draw(t, "time")).UTC(),
			Kind: core.Kind(rapid.IntRange(1, 9).Draw(t, "kind")), Direction: core.Direction(rapid.IntRange(1, 3).Draw(t, "direction")),
			Facts: rapid.SliceOf(rapid.Byte()).Draw(t, "facts"), Wire: rapid.SliceOf(rapid.Byte()).Draw(t, "wire"),
		}
		for range rapid.IntRange(0, 3).Draw(t, "decisions") {
			r.Decisions = append(r.Decisions, core.Decision{Step: rapid.String().Draw(t, "s"), Action: rapid.String().Draw(t, "a"), Rule: rapid.String().Draw(t, "r"), Detail: rapid.String().Draw(t, "d")})
		}
		elapsed := time.Duration(rapid.Int64Range(0, 1<<60).Draw(t, "elapsed"))
		b := AppendRecord(nil, &r, elapsed, nil)
		if n, err := RecordSize(&r); err != nil || n < len(b) {
			t.Fatalf("size %d for %d bytes, %v", n, len(b), err)
		}
		var got core.Record
		e, err := DecodeRecord(b, &got, nil)
		if err != nil || e != elapsed {
			t.Fatal(e, err)
		}
		if again := AppendRecord(nil, &got, e, nil); !bytes.Equal(b, again) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func TestBlockRoundTrip(t *testing.T) {
	enc := NewEncoder()
	for _, n := range []int{0, 1, 255, 256, 5000, 300_000} {
		for _, fill := range []func(i int) byte{func(int) byte { return 'x' }, func(i int) byte { return byte(i * i >> 3 * 7) }} {
			p := make([]byte, n)
			for i := range p {
				p[i] = fill(i)
			}
			h := core.BlockHeader{Session: "s-1", Number: 7, FirstSeq: 40, LastSeq: 39, Prev: [32]byte{1, 2}, Seal: n%2 == 0}
			b, err := enc.Encode(h, 5, p)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseBlock(b.Bytes)
			if err != nil || got.BlockHeader != h || got.Carry != 5 {
				t.Fatalf("%+v, %v", got, err)
			}
			q, err := got.Payload(nil)
			if err != nil || !bytes.Equal(p, q) {
				t.Fatalf("%d bytes became %d, %v", len(p), len(q), err)
			}
			if n == 300_000 && fill(1) == 'x' && len(b.Bytes) > 10_000 {
				t.Errorf("it was not compressed: %d bytes", len(b.Bytes))
			}
		}
	}
	for _, bad := range []string{"", "a.b", "a b", strings.Repeat("a", 65), "ä"} {
		if _, err := enc.Encode(core.BlockHeader{Session: bad}, 0, nil); err == nil {
			t.Errorf("%q names a session", bad)
		}
	}
}

// A small block that unpacks to more than the limit is refused without unpacking it all.
func TestDecompressionBomb(t *testing.T) {
	enc := NewEncoder()
	b, err := enc.Encode(core.BlockHeader{Session: "a", LastSeq: 1<<64 - 1}, 0, make([]byte, MaxPayload))
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Bytes) > 64<<10 {
		t.Fatalf("%d bytes", len(b.Bytes))
	}
	h, err := ParseBlock(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	h.Raw = 1000 // the header lies
	if _, err := h.Payload(nil); err == nil {
		t.Fatal("a payload longer than announced was accepted")
	}
	if _, err := enc.Encode(core.BlockHeader{Session: "a"}, 0, make([]byte, MaxPayload+1)); err == nil {
		t.Fatal("an oversize payload was encoded")
	}
}

func leaf(i int) Leaf {
	return Leaf{Kind: LeafSeal, Session: fmt.Sprint("s", i), Blocks: 3, Records: 9, End: core.EndClosed, Hash: [32]byte{byte(i), byte(i >> 8)}, Time: time.Unix(1, int64(i))}
}

func openLedger(t *testing.T, dir string) *Ledger {
	t.Helper()
	l, err := Open(filepath.Join(dir, "ledger"), filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLedger(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir)
	if _, err := Open(filepath.Join(dir, "ledger"), filepath.Join(dir, "keys")); err == nil {
		t.Fatal("two writers")
	}
	var kept [][]byte
	for i := range 40 {
		if err := l.Append(leaf(i)); err != nil {
			t.Fatal(err)
		}
		if err := l.Append(leaf(i / 2)); err != nil { // known: nothing happens
			t.Fatal(err)
		}
		kept = append(kept, l.Checkpoint())
		if i%7 == 0 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = openLedger(t, dir)
		}
	}
	other := leaf(3)
	other.Hash[31] ^= 1
	if err := l.Append(other); !errors.Is(err, core.ErrFork) {
		t.Fatalf("a second seal: %v", err)
	}
	c, err := OpenCheckpoint(l.Checkpoint(), l.PublicKey())
	if err != nil || c.Size != 40 {
		t.Fatalf("%+v, %v", c, err)
	}
	// Every checkpoint ever signed is one of a prefix: its root is that of the first leaves.
	for i, k := range kept {
		c, err := OpenCheckpoint(k, l.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		root, err := l.root(c.Size)
		if err != nil || root != c.Root || c.Size != int64(i+1) {
			t.Fatalf("checkpoint %d: size %d, root %v, want %v, %v", i, c.Size, c.Root, root, err)
		}
	}
	l.Close()
	info, err := os.Stat(filepath.Join(dir, "keys", keyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("key: %v, %v", info.Mode(), err)
	}
	_, stranger, _ := note.GenerateKey(nil2{}, "stranger")
	if _, err := OpenCheckpoint(kept[0], stranger); err == nil {
		t.Fatal("another key verifies the checkpoint")
	}
}

type nil2 struct{}

func (nil2) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestLedgerAfterACrash(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir)
	for i := range 5 {
		if err := l.Append(leaf(i)); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	path := filepath.Join(dir, "ledger", leavesFile)
	whole, _ := os.ReadFile(path)
	// A torn line is dropped, the inner hashes are made anew.
	os.WriteFile(path, append(bytes.Clone(whole), "weir1 seal s9 3"...), 0o600)
	os.WriteFile(filepath.Join(dir, "ledger", hashesFile), []byte("garbage"), 0o600)
	l = openLedger(t, dir)
	if err := l.Append(leaf(5)); err != nil {
		t.Fatal(err)
	}
	if c, err := OpenCheckpoint(l.Checkpoint(), l.PublicKey()); err != nil || c.Size != 6 {
		t.Fatalf("%+v, %v", c, err)
	}
	l.Close()
	whole, _ = os.ReadFile(path)
	// A leaf without its checkpoint: the process ended in between.
	extra := leaf(6)
	os.WriteFile(path, append(append(bytes.Clone(whole), extra.appendLine(nil)...), '\n'), 0o600)
	l = openLedger(t, dir)
	if c, err := OpenCheckpoint(l.Checkpoint(), l.PublicKey()); err != nil || c.Size != 7 {
		t.Fatalf("%+v, %v", c, err)
	}
	l.Close()
	// Leaves cut off or changed: refused, not signed anew.
	for name, b := range map[string][]byte{
		"cut":     whole[:len(whole)/2],
		"changed": bytes.Replace(whole, []byte(" s3 "), []byte(" s8 "), 1),
	} {
		os.WriteFile(path, b, 0o600)
		if l, err := Open(filepath.Join(dir, "ledger"), filepath.Join(dir, "keys")); err == nil {
			l.Close()
			t.Errorf("%s: opened", name)
		}
	}
	os.Chmod(filepath.Join(dir, "keys", keyFile), 0o644)
	if _, err := Open(t.TempDir(), filepath.Join(dir, "keys")); err == nil || strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("a key that others can read: %v", err)
	}
}

func FuzzDecodeBlock(f *testing.F) {
	enc := NewEncoder()
	r := core.Record{Kind: core.KindCommand, Direction: core.FromClient, Facts: []byte(`{"command":{}}`), Wire: bytes.Repeat([]byte("select "), 100), Decisions: []core.Decision{{Step: "a"}}}
	p := AppendPiece(nil, AppendRecord(nil, &r, 1, nil), false)
	p = AppendSeal(p, Seal{End: core.EndClosed, Records: 1, Blocks: 1})
	b, err := enc.Encode(core.BlockHeader{Session: "a", Seal: true}, 0, p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes)
	p = AppendPiece(nil, AppendRecord(nil, &r, 1, nil)[:50], true)
	b, _ = enc.Encode(core.BlockHeader{Session: "a"}, 0, p)
	f.Add(b.Bytes)
	f.Add([]byte(magic))
	var prior Prior
	r.Facts = bytes.Repeat([]byte("f"), 64)
	p = AppendPiece(nil, AppendRecord(nil, &r, 1, &prior), false)
	r.Seq, r.Facts = 1, append(r.Facts, "and more"...)
	p = AppendPiece(p, AppendRecord(nil, &r, 1, &prior), false)
	b, _ = enc.Encode(core.BlockHeader{Session: "a", LastSeq: 1}, 0, p)
	f.Add(b.Bytes)
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := ParseBlock(data)
		if err != nil {
			return
		}
		var d Decoder
		var facts [][]byte
		err = d.Decode(&h, func(r *core.Record, _ time.Duration) error { facts = append(facts, r.Facts); return nil })
		passing, n := Decoder{Passing: true}, 0
		err2 := passing.Decode(&h, func(r *core.Record, _ time.Duration) error {
			if !bytes.Equal(r.Facts, facts[n]) {
				t.Fatalf("record %d reads in passing as %q, and else as %q", n, r.Facts, facts[n])
			}
			n++
			return nil
		})
		if (err == nil) != (err2 == nil) || n != len(facts) {
			t.Fatalf("%v, in passing %v", err, err2)
		}
		_, _ = h.Tail()
		_, _ = h.ReadSeal()
	})
}

func FuzzDecodeRecord(f *testing.F) {
	r := core.Record{Kind: core.KindCommand, Direction: core.FromClient, Time: time.Unix(1, 2), Facts: []byte(`{}`), Wire: []byte("x"), Decisions: []core.Decision{{Step: "a"}}}
	f.Add(AppendRecord(nil, &r, 1, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r core.Record
		e, err := DecodeRecord(data, &r, nil)
		if err != nil {
			return
		}
		if again := AppendRecord(nil, &r, e, nil); !bytes.Equal(again, data) {
			t.Fatalf("two encodings of one record: %x, %x", data, again)
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	skey, vkey, err := note.GenerateKey(nil2{}, "weir")
	if err != nil {
		f.Fatal(err)
	}
	s, _ := note.NewSigner(skey)
	good, _ := Checkpoint{Origin: "weir", Size: 3}.sign(s)
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := OpenCheckpoint(data, vkey); err == nil && (c.Origin != "weir" || c.Size != 3) {
			t.Fatalf("a forged checkpoint verifies: %+v", c)
		}
	})
}

func FuzzLeaf(f *testing.F) {
	l := leaf(1)
	f.Add(string(l.appendLine(nil)))
	for _, k := range []LeafKind{LeafHold, LeafRelease, LeafGone} {
		d := l.Done(k, "me", "a & b", time.Unix(2, 0))
		f.Add(string(d.appendLine(nil)))
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := parseLeaf(s)
		if err == nil && string(l.appendLine(nil)) != s {
			t.Fatalf("%q", s)
		}
	})
}

// garbage is a store of whatever.
type garbage map[string][][]byte

func (g garbage) Put(context.Context, []core.Block) error { return nil }
func (g garbage) Close() error                            { return nil }

func (g garbage) Sessions(_ context.Context, f func(string) error) error {
	for id := range g {
		if err := f(id); err != nil {
			return err
		}
	}
	return nil
}

func (g garbage) Blocks(_ context.Context, id string, f func(core.Block) error) error {
	if g[id] == nil {
		return core.ErrNoSession
	}
	for _, b := range g[id] {
		blk, _ := DecodeBlock(b)
		blk.Bytes = b
		if err := f(blk); err != nil {
			return err
		}
	}
	return nil
}

// FuzzVerify feeds the verifier garbage in all places: it reports, and never crashes.
func FuzzVerify(f *testing.F) {
	enc := NewEncoder()
	b, _ := enc.Encode(core.BlockHeader{Session: "a", LastSeq: 1<<64 - 1}, 0, nil)
	l := leaf(1)
	f.Add(b.Bytes, []byte{}, l.appendLine(nil), []byte("x"), "key")
	f.Fuzz(func(t *testing.T, b1, b2, leaves, checkpoint []byte, key string) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, leavesFile), leaves, 0o600)
		os.WriteFile(filepath.Join(dir, checkpointFile), checkpoint, 0o600)
		r, err := Verify(context.Background(), VerifyConfig{Store: garbage{"a": {b1, b2}}, LedgerDir: dir, PublicKey: key, Checkpoint: checkpoint, Grace: time.Nanosecond})
		if err == nil && r.OK() {
			t.Fatal("garbage holds")
		}
	})
}
