package ledger

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// far is a Remote.
type far struct {
	keys []ed25519.PrivateKey // by version, from 1
	down bool
}

func (f *far) rotate() {
	_, k, _ := ed25519.GenerateKey(rand.Reader)
	f.keys = append(f.keys, k)
}

func (f *far) Public(_ context.Context, key string, version int) (ed25519.PublicKey, int, error) {
	if version == 0 {
		version = len(f.keys)
	}
	if f.down || key != "transit/log" {
		return nil, 0, errors.New("vault is down")
	}
	return f.keys[version-1].Public().(ed25519.PublicKey), version, nil
}

func (f *far) Sign(_ context.Context, _ string, version int, message []byte) ([]byte, error) {
	if f.down {
		return nil, errors.New("vault is down")
	}
	return ed25519.Sign(f.keys[version-1], message), nil
}

func (f *far) config(dir, name string) KeyConfig {
	return KeyConfig{Dir: filepath.Join(dir, "keys"), Name: name, Remote: f}
}

// checked is what somebody with a public key finds in a log; problems about the store, which is empty, do not count.
func checked(t *testing.T, dir, public string) (problems []string) {
	t.Helper()
	v := &verifier{c: VerifyConfig{LedgerDir: filepath.Join(dir, "ledger"), PublicKey: public}}
	if err := v.readLog(); err != nil {
		t.Fatal(err)
	}
	for _, p := range v.log.problems {
		problems = append(problems, p.Text)
	}
	return problems
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	f := &far{}
	f.rotate()
	open := func(name string) *Ledger {
		t.Helper()
		l, err := OpenWith(filepath.Join(dir, "ledger"), f.config(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open("")
	add := func(i int) {
		t.Helper()
		if err := l.Append(leaf(i)); err != nil {
			t.Fatal(err)
		}
	}
	add(1)
	keys := []string{l.PublicKey()}
	kept := l.Checkpoint()
	turn := func() {
		t.Helper()
		public, err := l.Rotate()
		if err != nil || public != l.PublicKey() || public == keys[len(keys)-1] {
			t.Fatal(public, err)
		}
		keys = append(keys, public)
	}
	turn() // local to local
	add(2)
	l.Close()
	l = open("transit/log") // the configuration alone changes nothing
	if l.PublicKey() != keys[1] {
		t.Fatal("another key without a rotation")
	}
	turn() // to the Vault
	add(3)
	if b, err := os.ReadFile(filepath.Join(dir, "keys", keyFile)); err != nil || string(b) != "vault transit/log 1\n" {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := l.Rotate(); err == nil || !strings.Contains(err.Error(), "rotate it there first") {
		t.Errorf("the same version again: %v", err)
	}
	f.rotate()
	turn()
	add(4)
	l.Close()
	if _, err := Open(filepath.Join(dir, "ledger"), filepath.Join(dir, "keys")); err == nil || !strings.Contains(err.Error(), "in a Vault") {
		t.Errorf("without a Vault: %v", err)
	}
	l = open("transit/log")
	if err := l.Holds(kept); err != nil {
		t.Errorf("a checkpoint of the first key: %v", err)
	}
	for i, k := range keys {
		if p := checked(t, dir, k); len(p) > 0 {
			t.Errorf("key %d: %q", i, p)
		}
		p, err := Prove(filepath.Join(dir, "ledger"), k, leaf(1).Session)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := p.Check(k); err != nil || got.Session != leaf(1).Session {
			t.Errorf("key %d: the proof: %v", i, err)
		}
	}
	stranger, err := Open(filepath.Join(dir, "other"), filepath.Join(dir, "otherkeys"))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if p := checked(t, dir, stranger.PublicKey()); len(p) == 0 {
		t.Error("verified with a stranger's key")
	}
	turn2 := func() error { _, err := l.Rotate(); return err }
	f.down = true // the Vault is away: what is stored is stored, and is signed when it is back
	if err := l.Append(leaf(5)); err == nil || turn2() == nil {
		t.Fatal("signed by a Vault that is down")
	}
	f.down = false
	if err := l.Append(leaf(5)); err != nil {
		t.Fatal(err)
	}
	l.Close()
	n := 0
	if err := Each(filepath.Join(dir, "ledger"), func(x Leaf) error {
		if x.Session == leaf(5).Session {
			n++
		}
		return nil
	}); err != nil || n != 1 {
		t.Errorf("the seal stands there %d times, %v", n, err)
	}
	if p := checked(t, dir, keys[0]); len(p) > 0 {
		t.Errorf("in the end: %q", p)
	}
}

// Nobody becomes a log's earlier key by saying so.
func TestNoEarlierKeyByItself(t *testing.T) {
	dir := t.TempDir()
	l := openLedger(t, dir)
	if err := l.Append(leaf(1)); err != nil {
		t.Fatal(err)
	}
	trusted := l.PublicKey()
	v, _ := note.NewVerifier(trusted)
	l.Close()
	evil := KeyConfig{Dir: filepath.Join(dir, "evil")}
	k, err := evil.make(v.Name())
	if err != nil {
		t.Fatal(err)
	}
	forge := func(turn Leaf) {
		t.Helper()
		if turn.Signature, err = k.Sign(turn.keyMessage(nil)); err != nil {
			t.Fatal(err)
		}
		lines := append(turn.appendLine(nil), '\n')
		made := leaf(9)
		lines = append(append(lines, made.appendLine(nil)...), '\n')
		if err := os.WriteFile(filepath.Join(dir, "ledger", leavesFile), lines, 0o600); err != nil {
			t.Fatal(err)
		}
		var tree memory
		for i, line := range strings.Split(strings.TrimSuffix(string(lines), "\n"), "\n") {
			if err := tree.add(int64(i), []byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		root, _ := tree.root(2)
		signed, err := Checkpoint{Origin: k.Name(), Size: 2, Root: root}.sign(k)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "ledger", checkpointFile), signed, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// With his own key as the log's, the forged log is whole: the control.
	forge(Leaf{Kind: LeafKey, OldKey: k.public, NewKey: trusted, Time: time.Unix(1, 0).UTC()})
	if p := checked(t, dir, k.public); len(p) > 0 {
		t.Fatalf("the control: %q", p)
	}
	if p := checked(t, dir, trusted); len(p) == 0 {
		t.Error("a made-up predecessor is believed")
	}
	if _, err := Open(filepath.Join(dir, "ledger"), filepath.Join(dir, "keys")); err == nil {
		t.Error("a gateway goes on with a made-up log")
	}
	// Nor the successor, without the old key's signature.
	forge(Leaf{Kind: LeafKey, OldKey: trusted, NewKey: k.public, Time: time.Unix(1, 0).UTC()})
	if p := checked(t, dir, trusted); len(p) == 0 {
		t.Error("a made-up successor is believed")
	}
}

// A rotation that is cut short is ended by the next start, or never was.
func TestRotationCutShort(t *testing.T) {
	for name, cut := range map[string]func(t *testing.T, l *Ledger, next *signingKey){
		"the key's files": func(*testing.T, *Ledger, *signingKey) {},
		"the leaf": func(t *testing.T, l *Ledger, next *signingKey) {
			x := Leaf{Kind: LeafKey, OldKey: l.key.public, NewKey: next.public, Time: time.Unix(1, 0).UTC()}
			x.Signature, _ = l.key.Sign(x.keyMessage(nil))
			line := x.appendLine(nil)
			if err := l.write(append(line[:len(line):len(line)], '\n'), [][]byte{line}); err != nil {
				t.Fatal(err)
			}
		},
		"the key taken over": func(t *testing.T, l *Ledger, next *signingKey) {
			x := Leaf{Kind: LeafKey, OldKey: l.key.public, NewKey: next.public, Time: time.Unix(1, 0).UTC()}
			x.Signature, _ = l.key.Sign(x.keyMessage(nil))
			line := x.appendLine(nil)
			if err := l.add(append(line[:len(line):len(line)], '\n'), [][]byte{line}); err != nil {
				t.Fatal(err)
			}
			if err := l.keys.adopt(next); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLedger(t, dir)
			if err := l.Append(leaf(1)); err != nil {
				t.Fatal(err)
			}
			old := l.PublicKey()
			next, err := l.keys.make(l.key.Name())
			if err != nil {
				t.Fatal(err)
			}
			if err := l.keys.write(next, nextFile); err != nil {
				t.Fatal(err)
			}
			cut(t, l, next)
			l.Close()
			l = openLedger(t, dir)
			if err := l.Append(leaf(2)); err != nil {
				t.Fatal(err)
			}
			want := old
			if name != "the key's files" {
				want = next.public
			}
			if l.PublicKey() != want {
				t.Error("it goes on with the wrong key")
			}
			if p := checked(t, dir, old); len(p) > 0 {
				t.Errorf("%q", p)
			}
			if _, err := os.Stat(filepath.Join(dir, "keys", keyFile+nextFile)); !errors.Is(err, fs.ErrNotExist) {
				t.Error("the next key's file is there still")
			}
		})
	}
}
