package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The index can be lost and made anew, beside a gateway and without one; what it answers is who touched what, and what
// came back.
func TestIndexAndFind(t *testing.T) {
	p := newPlace(t)
	r := p.serve()
	token := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff"))
	for _, lines := range [][]string{{"read shop.cups", "read shop.pots"}, {"read shop.cups"}} {
		conn, got := r.talk(t, append([]string{token}, lines...)...)
		if got[1] != lines[0] {
			t.Fatalf("%q", got)
		}
		_ = conn.Close()
	}
	eventually(t, "archived", func() bool {
		s := p.list()
		return len(s) == 2 && s[0]["end"] == "closed" && s[1]["end"] == "closed"
	})
	second := p.list()[1]["id"].(string)
	look := func(when string) {
		t.Helper()
		if s := p.list("--resource", "pots"); len(s) != 1 || s[0]["id"] == second {
			t.Errorf("%s: pots: %v", when, s)
		}
		if s := p.list("--resource", "shop.cups", "--use", "write"); len(s) != 0 {
			t.Errorf("%s: written cups: %v", when, s)
		}
		var found []map[string]any
		if err := json.Unmarshal([]byte(p.must("find", "--resource", "cups", "--use", "read", "--limit", "1", "-o", "json")), &found); err != nil ||
			len(found) != 1 || found[0]["session"] != second || found[0]["text"] != "read shop.cups" || found[0]["result"] != "ok" || found[0]["identity"] != "ada" {
			t.Errorf("%s: %v %v", when, found, err)
		}
		if text := p.must("find", "--resource", "pots"); !strings.Contains(text, "ada at one: read shop.pots") || !strings.Contains(text, "came back  ok (record") {
			t.Errorf("%s: %s", when, text)
		}
	}
	look("as archived")
	// Two, and the making of the token.
	if out := p.must("index", "rebuild"); !strings.HasPrefix(out, "indexed: ") {
		t.Error(out)
	}
	look("rebuilt beside the gateway")
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	path := filepath.Join(p.dir, "data", "index.db")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if out := p.must("index", "rebuild"); !strings.HasPrefix(out, "indexed: ") {
		t.Error(out)
	}
	look("made anew without a gateway")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	p.serve()
	eventually(t, "made anew by the gateway", func() bool { return len(p.list()) == 2 })
	look("made anew by the gateway")
}
