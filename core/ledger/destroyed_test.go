package ledger

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What was destroyed stays so over a start, a torn line is dropped, and a line that is none is refused.
func TestDestroyed(t *testing.T) {
	dir := t.TempDir()
	start := func() (*Ledger, error) { return Open(filepath.Join(dir, "ledger"), filepath.Join(dir, "keys")) }
	l, err := start()
	if err != nil {
		t.Fatal(err)
	}
	a, b := NewRecordingKey().ID, NewRecordingKey().ID
	at := time.Unix(1, 2).UTC()
	if l.AnyDestroyed() || (*Ledger)(nil).AnyDestroyed() {
		t.Error("something is destroyed at first")
	}
	if err := l.Destroy("dpo", "request 17, two words", at, a); err != nil {
		t.Fatal(err)
	}
	if err := l.Destroy("somebody else", "", at.Add(time.Hour), a); err != nil {
		t.Fatal(err)
	}
	l.Close()
	path := filepath.Join(dir, "ledger", destroyedFile)
	text, err := os.ReadFile(path)
	if err != nil || strings.Count(string(text), "\n") != 1 {
		t.Fatalf("%q, %v", text, err)
	}
	if err := os.WriteFile(path, append(text, b.String()...), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err = start(); err != nil {
		t.Fatal(err)
	}
	if d, ok := l.Destroyed(a); !ok || d != (Destroyed{at, "dpo", "request 17, two words"}) {
		t.Errorf("%+v, %v", d, ok)
	}
	if _, ok := l.Destroyed(b); ok {
		t.Error("a torn line counts")
	}
	if err := l.Destroy("dpo", "", at, b); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if l, err = start(); err != nil {
		t.Fatal(err)
	}
	if _, ok := l.Destroyed(b); !ok {
		t.Error("a key behind the torn line is forgotten")
	}
	l.Close()
	for _, bad := range []string{"x", "x 1 a b", a.String() + " y a b", a.String() + " 1 %zz b"} {
		if err := os.WriteFile(path, []byte(bad+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := start(); err == nil || !strings.Contains(err.Error(), "restore the file") {
			t.Errorf("%q: %v, %v", bad, l, err)
		}
	}
}
