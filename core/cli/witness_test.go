package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core/ledger/witness/witnesstest"
)

// TestWitness: a gateway has its log cosigned. Another archive, signed with the same key, verifies; held against what the
// witness has cosigned it does not.
func TestWitness(t *testing.T) {
	p := newPlace(t)
	said := func(p *place, what string) {
		t.Helper()
		r := p.serve()
		conn, _ := r.talk(t, strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff")), what)
		_ = conn.Close()
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	said(p, "hello")
	data := filepath.Join(p.dir, "data")
	pub := filepath.Join(data, "keys", "ledger.pub")
	key, err := os.ReadFile(pub)
	if err != nil {
		t.Fatal(err)
	}
	w, away := witnesstest.Start(t, "witness.example/w", strings.TrimSpace(string(key))), witnesstest.Start(t, "witness.example/away", "")
	p.replace("policies:", fmt.Sprintf("ledger:\n  witnesses:\n    - {name: w, url: %q, key: %q}\n    - {name: away, url: %q, key: %q}\n  quorum: 1\npolicies:", w.URL, w.Key(), away.URL, away.Key()))
	p.must("check")
	file := filepath.Join(data, "ledger", fmt.Sprintf("cosigned-%08x", w.Parsed(t).KeyHash()))
	r := p.serve()
	eventually(t, "it is cosigned", func() bool { _, err := os.Stat(file); return err == nil })
	eventually(t, "status says it", func() bool {
		_, out, _ := p.weir("status")
		return strings.Contains(out, "cosigned     by enough witnesses; 1 of 2 FAIL\n")
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.log.String(), "the witness does not know this log") {
		t.Error(r.log.String())
	}
	if size, _ := w.Seen(); size == 0 {
		t.Error("the witness has seen nothing")
	}

	verify := func(code int, want string, args ...string) {
		t.Helper()
		got, out, text := p.weir(append([]string{"verify", "--all"}, args...)...)
		if got != code || !strings.Contains(out+text, want) {
			t.Errorf("%v: exit %d, want %d with %q:\n%s%s", args, got, code, want, out, text)
		}
	}
	verify(exitDone, " leaves, by witness.example/w at 20", "--witness", w.Key())
	verify(exitDone, `"witness": "witness.example/w"`, "--witness", w.Key(), "-o", "json")
	verify(exitDone, `"witnessed": []`, "-o", "json")
	verify(exitNo, "there is no checkpoint that witness.example/away has cosigned", "--witness", w.Key(), "--witness", away.Key())
	verify(exitDone, "cosigned: ", "--witness", w.Key(), "--witness", away.Key(), "--witnesses", "1")
	verify(exitUse, "from 1 to 1", "--witness", w.Key(), "--witnesses", "2")
	verify(exitUse, "from 1 to 0", "--witnesses", "0")
	verify(exitUse, "is given twice", "--witness", w.Key(), "--witness", w.Key())
	verify(exitUse, "it is the key of a log", "--witness", strings.TrimSpace(string(key)))

	// Somebody who has the log's key makes another archive with it, and puts beside it what was cosigned.
	q := newPlace(t)
	forged := filepath.Join(q.dir, "data")
	if err := os.MkdirAll(filepath.Join(forged, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ledger.key", "ledger.pub"} {
		b, err := os.ReadFile(filepath.Join(data, "keys", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(forged, "keys", name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		said(q, "goodbye")
	}
	b, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(filepath.Join(forged, "ledger", filepath.Base(file)), b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	there := []string{"--archive", filepath.Join(forged, "archive"), "--key", pub}
	verify(exitDone, "verified: ", there...) // the control: the key alone does not show it
	verify(exitNo, "are others: the log was written anew", append(there, "--witness", w.Key())...)

	// Such a gateway is told by the witness.
	q.replace("policies:", fmt.Sprintf("ledger: {witnesses: [{name: w, url: %q, key: %q}]}\npolicies:", w.URL, w.Key()))
	if err := os.Remove(filepath.Join(forged, "ledger", filepath.Base(file))); err != nil {
		t.Fatal(err)
	}
	r = q.serve()
	eventually(t, "status says it", func() bool {
		code, out, _ := q.weir("status")
		return code == exitNo && strings.Contains(out, "1 of 1 witnesses have cosigned another log than this")
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
}
