package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// cosigner signs as a witness does.
type cosigner struct {
	*Witness
	secret ed25519.PrivateKey
}

func newCosigner(t *testing.T, name string) cosigner {
	t.Helper()
	public, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	typed := append([]byte{algCosignature}, public...)
	w, err := ParseWitness(fmt.Sprintf("%s+%08x+%s\n", name, keyHash(name, typed), base64.StdEncoding.EncodeToString(typed)))
	if err != nil {
		t.Fatal(err)
	}
	return cosigner{w, secret}
}

func (c cosigner) line(signed []byte, at time.Time) []byte {
	text, _, _ := bytes.Cut(signed, []byte("\n\n"))
	sig := ed25519.Sign(c.secret, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s\n", at.Unix(), text))
	b := binary.BigEndian.AppendUint32(nil, c.hash)
	b = append(binary.BigEndian.AppendUint64(b, uint64(at.Unix())), sig...)
	return fmt.Appendf(nil, "— %s %s\n", c.name, base64.StdEncoding.EncodeToString(b))
}

func (c cosigner) cosign(t *testing.T, l *Ledger, at time.Time) {
	t.Helper()
	signed := l.Checkpoint()
	if _, err := l.Cosign(c.Witness, signed, c.line(signed, at)); err != nil {
		t.Fatal(err)
	}
}

// noSessions is a store without any: here the log is what is looked at.
type noSessions struct{ core.Store }

func (noSessions) Sessions(context.Context, func(string) error) error { return nil }
func (noSessions) Blocks(context.Context, string, func(core.Block) error) error {
	return core.ErrNoSession
}

// logProblems returns what is wrong with the log as a whole: its sessions are in no store here.
func logProblems(t *testing.T, dir, key string, enough int, witnesses ...*Witness) (Report, string) {
	t.Helper()
	r, err := Verify(t.Context(), VerifyConfig{
		Store: noSessions{}, LedgerDir: filepath.Join(dir, "ledger"), PublicKey: key, Witnesses: witnesses, Enough: enough, Grace: time.Nanosecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, p := range r.Problems {
		if p.Session == "" {
			text = append(text, p.Text)
		}
	}
	return r, strings.Join(text, "\n")
}

func heads(t *testing.T, l *Ledger, from, n int) {
	t.Helper()
	for i := range n {
		if err := l.Append(leaf(from + i)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRewritten: whoever has the log's key writes it anew and signs it. Without a witness that holds; with one it does not.
func TestRewritten(t *testing.T) {
	at := time.Unix(1_700_000_000, 0).UTC()
	one, two := newCosigner(t, "witness.example/one"), newCosigner(t, "witness.example/two")
	for name, c := range map[string]struct {
		leaves int                                                 // of the forged log
		carry  func(t *testing.T, was, dir string, forged *Ledger) // what the forger does about what was cosigned
		want   string
	}{
		"what was cosigned stays":        {30, copyCosigned(one), "witness.example/one cosigned 20 leaves at 2023-11-14T22:13:20Z, and the log's first 20 are others: the log was written anew"},
		"with fewer leaves":              {10, copyCosigned(one), "witness.example/one cosigned 20 leaves at 2023-11-14T22:13:20Z, the log has 10"},
		"what was cosigned is gone":      {30, func(*testing.T, string, string, *Ledger) {}, "there is no checkpoint that witness.example/one has cosigned"},
		"its line behind the forged one": {30, splice(one), "is not cosigned by witness.example/one"},
		"cosigned by somebody else": {30, func(t *testing.T, _, dir string, l *Ledger) {
			newCosigner(t, "witness.example/one").cosign(t, l, at)
		}, "there is no checkpoint that witness.example/one has cosigned"},
		"by somebody else, in its place": {30, func(t *testing.T, _, dir string, l *Ledger) {
			other := newCosigner(t, "witness.example/one")
			if err := os.WriteFile(filepath.Join(dir, "ledger", one.file()), append(l.Checkpoint(), other.line(l.Checkpoint(), at)...), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "is not cosigned by witness.example/one"},
		"a giant": {30, func(t *testing.T, _, dir string, l *Ledger) {
			if err := os.WriteFile(filepath.Join(dir, "ledger", one.file()), append(l.Checkpoint(), make([]byte, maxSigned)...), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLedger(t, dir)
			defer l.Close()
			heads(t, l, 0, 20)
			one.cosign(t, l, at)
			heads(t, l, 20, 5)
			if r, text := logProblems(t, dir, l.PublicKey(), 0, one.Witness); text != "" || len(r.Witnessed) != 1 || r.Leaves != 25 ||
				r.Witnessed[0] != (Witnessed{"witness.example/one", 20, at}) {
				t.Fatalf("%+v %s", r.Witnessed, text)
			}

			forged := t.TempDir()
			if err := os.CopyFS(filepath.Join(forged, "keys"), os.DirFS(filepath.Join(dir, "keys"))); err != nil {
				t.Fatal(err)
			}
			for _, f := range []string{"ledger.key"} {
				if err := os.Chmod(filepath.Join(forged, "keys", f), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			f := openLedger(t, forged) // with the log's own key
			defer f.Close()
			heads(t, f, 100, c.leaves)
			c.carry(t, dir, forged, f)
			if _, text := logProblems(t, forged, l.PublicKey(), 0); text != "" {
				t.Fatalf("the control: without a witness it is not seen, but %s", text)
			}
			r, text := logProblems(t, forged, l.PublicKey(), 0, one.Witness)
			if !strings.Contains(text, c.want) || len(r.Witnessed) != 0 {
				t.Errorf("%s", text)
			}
		})
	}

	t.Run("how many", func(t *testing.T) {
		dir := t.TempDir()
		l := openLedger(t, dir)
		defer l.Close()
		heads(t, l, 0, 3)
		one.cosign(t, l, at)
		for _, c := range []struct {
			enough int
			want   string
		}{{0, "there is no checkpoint that witness.example/two has cosigned"}, {2, "there is no checkpoint that witness.example/two has cosigned"}, {1, ""}} {
			if _, text := logProblems(t, dir, l.PublicKey(), c.enough, one.Witness, two.Witness); (c.want == "") != (text == "") || !strings.Contains(text, c.want) {
				t.Errorf("%d: %s", c.enough, text)
			}
		}
		old := l.PublicKey() // who trusts the old key, or the new one, goes on to trust what was cosigned with either
		if _, err := l.Rotate(); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{old, l.PublicKey()} {
			if _, text := logProblems(t, dir, key, 0, one.Witness); text != "" {
				t.Error(text)
			}
		}
		two.cosign(t, l, at)
		if r, text := logProblems(t, dir, old, 0, one.Witness, two.Witness); text != "" || len(r.Witnessed) != 2 || r.Witnessed[1].Leaves != 4 {
			t.Error(r.Witnessed, text)
		}
		// What is kept never goes back.
		if err := os.WriteFile(filepath.Join(dir, "ledger", one.file()), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		was := l.Checkpoint()
		heads(t, l, 3, 3)
		one.cosign(t, l, at)
		if c, err := l.Cosign(one.Witness, was, one.line(was, at)); err != nil || c.Size != 7 {
			t.Error(c.Size, err)
		}
		if c, err := l.Cosigned(one.Witness); err != nil || c.Size != 7 {
			t.Error(c.Size, err)
		}
	})
}

func copyCosigned(c cosigner) func(*testing.T, string, string, *Ledger) {
	return func(t *testing.T, was, dir string, _ *Ledger) {
		b, err := os.ReadFile(filepath.Join(was, "ledger", c.file()))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "ledger", c.file()), b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// splice puts the witness's line for the true log behind the forged checkpoint.
func splice(c cosigner) func(*testing.T, string, string, *Ledger) {
	return func(t *testing.T, was, dir string, l *Ledger) {
		b, err := os.ReadFile(filepath.Join(was, "ledger", c.file()))
		if err != nil {
			t.Fatal(err)
		}
		i := bytes.LastIndex(b, []byte("— "))
		if err := os.WriteFile(filepath.Join(dir, "ledger", c.file()), append(l.Checkpoint(), b[i:]...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzWitness: garbage in a key or in what is kept is an error.
func FuzzWitness(f *testing.F) {
	f.Add("witness.example+01020304+BAAA", []byte("a\n1\n\n— a b\n"))
	f.Fuzz(func(t *testing.T, key string, signed []byte) {
		w, err := ParseWitness(key)
		if err == nil && (w.Name() == "" || strings.Contains(w.Name(), "\n")) {
			t.Errorf("%q", w.Name())
		}
		_, secret, _ := ed25519.GenerateKey(bytes.NewReader(make([]byte, 64)))
		w = &Witness{name: "w", hash: 1, key: secret.Public().(ed25519.PublicKey)}
		if _, err := w.Open(signed, "log+00000000+AAAA"); err == nil {
			t.Error("opened")
		}
		w.Verify(signed, signed)
	})
}
