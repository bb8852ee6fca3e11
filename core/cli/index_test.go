package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
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

// The index in a PostgreSQL: searched beside a gateway and without one, made anew, and refused where it is another archive's.
func TestIndexInPostgres(t *testing.T) {
	server, err := postgrestest.Start(t.Context(), postgrestest.Options{Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	if _, err := server.Psql(t.Context(), "postgres", "CREATE ROLE indexer LOGIN PASSWORD 'kestrel'; CREATE DATABASE weir OWNER indexer"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("WEIR_TEST_INDEX", "kestrel")
	configured := fmt.Sprintf("index: {postgres: {address: %q, database: weir, user: indexer, password: \"${env:WEIR_TEST_INDEX}\", tls: require}}\npolicies:", server.Addr())
	p := newPlace(t)
	p.replace("policies:", configured)
	p.must("check")
	r := p.serve()
	token := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff"))
	conn, _ := r.talk(t, token, "read shop.pots")
	_ = conn.Close()
	look := func(when string) {
		t.Helper()
		eventually(t, when, func() bool { s := p.list("--resource", "pots"); return len(s) == 1 && s[0]["end"] == "closed" })
		if s := p.list("--grep", "SHOP.po"); len(s) != 1 || s[0]["identity"] != "ada" {
			t.Errorf("%s: %v", when, s)
		}
		if text := p.must("find", "--resource", "pots"); !strings.Contains(text, "ada at one: read shop.pots") {
			t.Errorf("%s: %s", when, text)
		}
	}
	look("as archived")
	p.must("index", "rebuild")
	look("rebuilt beside the gateway")
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if _, err := server.Psql(t.Context(), "weir", "DROP SCHEMA weir_index CASCADE"); err != nil {
		t.Fatal(err)
	}
	if code, _, text := p.weir("sessions"); code == 0 || !strings.Contains(text, "weir index rebuild") {
		t.Errorf("without tables: %d %s", code, text)
	}
	p.must("index", "rebuild")
	look("made anew without a gateway")
	if _, err := os.Stat(filepath.Join(p.dir, "data", "index.db")); err == nil {
		t.Error("there is a file index.db as well")
	}
	if got := holding(t, p.dir, "kestrel"); len(got) > 0 || strings.Contains(r.log.String(), "kestrel") {
		t.Errorf("the password is in %q, or in the log", got)
	}

	other := newPlace(t)
	other.replace("policies:", configured)
	if code, _, text := other.weir("serve"); code != exitUnreachable || !strings.Contains(text, "give each archive a schema of its own") {
		t.Errorf("another archive: %d %s", code, text)
	}
	t.Setenv("WEIR_TEST_INDEX", "")
	if code, _, text := p.weir("check"); code != exitUse || !strings.Contains(text, "index.postgres.password") {
		t.Errorf("no password: %d %s", code, text)
	}
}
