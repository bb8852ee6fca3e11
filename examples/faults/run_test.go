//go:build linux

package faults_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRun: an ordinary psql, told nothing, reaches its target through the gateway: over TLS that it verifies, with a token
// of its own, as an agent in somebody's name; all its sessions are of one run. What it is not to have it does not get.
func TestRun(t *testing.T) {
	t.Parallel()
	g := start(t, setup{})
	token := g.token("dana", "agents")
	must(t, os.WriteFile(filepath.Join(g.dir, "token"), []byte(token+"\n"), 0o600))
	out, errs, code := g.run("targets", "--token-file", filepath.Join(g.dir, "token"))
	if code != 0 {
		t.Fatal(errs)
	}
	contains(t, "weir targets", out, "orders (postgres)", "connect  psql 'host=127.0.0.1 port=", "dbname=orders user=dana sslmode=verify-full", "mask     email (partial), by guardrails")
	var list []struct{ Name, Access, Connect string }
	out, _, _ = g.run("targets", "-o", "json", "--token-file", filepath.Join(g.dir, "token"))
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 || list[0].Access != "open" || strings.Contains(out, token) {
		t.Errorf("%v\n%s", err, out)
	}
	t.Run("psql", func(t *testing.T) {
		cmd := g.weir("run", "-c", g.config, "--token-file", filepath.Join(g.dir, "token"), "--ttl", "5m", "--", "sh", "-c",
			`echo "run=$WEIR_RUN token=$WEIR_TOKEN service=$PGSERVICE"; psql -Atc "select 6*7"; psql -Atc "select ssl from pg_stat_ssl limit 0"; psql -Atc "drop table orders"; exit 7`)
		cmd.Env = append(cmd.Environ(), "WEIR_TOKEN=somebody-elses", "PGSERVICE=elsewhere", "PGHOST=192.0.2.1", "PGHOSTADDR=192.0.2.1", "PGSSLMODE=disable")
		b, err := cmd.CombinedOutput()
		text := string(b)
		if err == nil || cmd.ProcessState.ExitCode() != 7 {
			t.Fatalf("the program's own end is lost: %v\n%s", err, text)
		}
		contains(t, "what it says", text, "weir: run ", "\n42\n", "schema changes go through migrations", "token= service=\n")
	})
	var ids map[string]bool
	eventually(t, 20*time.Second, "its sessions are of one run", func() bool {
		ids = map[string]bool{}
		n := 0
		for _, s := range g.sessions("--identity", "dana") {
			if r := g.replay(s.ID); s.End != "" && len(r.records) > 0 {
				ids[s.Run] = true
				n++
			}
		}
		return n == 3 && len(ids) == 1 && !ids[""]
	}, nothing)
	if out, _, code := g.run("run", "-c", g.config, "--token-file", filepath.Join(g.dir, "token"), "--target", "none", "--", "true"); code != 1 {
		t.Errorf("a target that is not there: %d %s", code, out)
	}
	if _, errs, code := g.run("run", "-c", g.config, "--token-file", filepath.Join(g.dir, "token"), "--", "no-such-program"); code != 2 || !strings.Contains(errs, "no-such-program") {
		t.Errorf("no program: %d %s", code, errs)
	}
	if _, errs, code := g.run("run", "-c", g.config, "--token-file", filepath.Join(g.dir, "token"), "--ttl", "20h", "--", "true"); code != 1 || !strings.Contains(errs, "longer than this run may last") {
		t.Errorf("too long: %d %s", code, errs)
	}
}
