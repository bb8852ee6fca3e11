//go:build linux

package faults_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSecretsAreNowhere plants secrets where Weir has to have them (the target's password, a client's token, the keys), and
// where a client may put them by mistake (as a token, as a password in a statement). Then everything goes wrong that can,
// with the log at its most talkative, and the secrets are looked for in every form in all that the gateway says, shows,
// keeps and hands to its rules.
func TestSecretsAreNowhere(t *testing.T) {
	t.Parallel()
	g := prepare(t, setup{
		args:  []string{"--log-level", "debug"},
		chain: "[guardrails, pii]", plugins: "plugins:\n  - {name: pii, wasm: \"builtin:pii\", config: {entities: [EMAIL]}}\n",
	})
	g.write("policies/tell.rego", `package weir.guardrails

# Whoever asks for it is told all that the rules are told.
deny contains {"rule": "tell", "reason": json.marshal(input), "hint": "-"} if contains(input.event.command.text, "tell me")
`)
	g.serve()
	var said strings.Builder // everything that a client or an operator is told
	note := func(what string, v ...any) { fmt.Fprintln(&said, append([]any{what}, v...)...) }

	mistaken, inStatement := "hunter2-"+random(12), "statement-"+random(12)
	g.tokens = append(g.tokens, mistaken, inStatement)
	good := g.token("ada")
	_, err := g.dial("mistaken", mistaken)
	note("a password for a token", err)
	_, err = g.dial("in the name", good, "user", mistaken)
	note("sent twice", err)
	c, err := g.dial("ada", good)
	must(t, err)
	told, err := c.query("select 'tell me'")
	must(t, err)
	if told.err == nil || !strings.Contains(told.err.Error(), `\"subject\":\"ada\"`) && !strings.Contains(told.err.Error(), `"subject":"ada"`) {
		t.Fatalf("the rules' input is not told: %+v", told.err)
	}
	note("input", told.err)
	for _, sql := range []string{
		"alter role nobody password '" + inStatement + "'", "create user mapping for app server s options (password '" + inStatement + "')", "select nonsense from nowhere",
		"select current_setting('primary_conninfo', true)", "select * from pg_hba_file_rules", "select usename, passwd from pg_shadow", "select rolpassword from pg_authid",
		"select inet_server_addr(), inet_client_addr()", "select datname, application_name, query from pg_stat_activity", "show all", "select email from customers",
	} {
		a, err := c.query(sql)
		must(t, err)
		note("rows", a.rows, a.beside)
		if a.err != nil {
			note("error", a.err)
		}
	}
	out, errs, _ := g.run("token", "--subject", "made", "--group", "agents", "-o", "json")
	var made struct{ ID, Token string }
	must(t, json.Unmarshal([]byte(out), &made))
	g.tokens = append(g.tokens, made.Token[strings.LastIndexByte(made.Token, '.')+1:])
	note("messages of weir token", errs)
	open, err := g.dial("made", made.Token)
	must(t, err)
	out, errs, _ = g.run("token", "revoke", made.ID)
	note("revoke", out, errs, open.gone())
	g.write("mine", good+"\n")
	for _, args := range [][]string{
		{"token", "list"},
		{"token", "list", "-o", "json"},
		{"targets", "--token-file", filepath.Join(g.dir, "mine")},
		{"targets", "-o", "json", "--token-file", filepath.Join(g.dir, "mine")},
		{"whoami", "--token-file", filepath.Join(g.dir, "mine")},
		{"check"},
		{"approvals", "--token-file", filepath.Join(g.dir, "mine")},
		{"run", "-c", g.config, "--token-file", filepath.Join(g.dir, "mine"), "--", "true"},
	} {
		out, errs, _ := g.run(args...)
		note(strings.Join(args, " "), out, errs)
	}
	for _, path := range []string{"/metrics", "/api/v1/sessions", "/readyz", "/.well-known/jwks.json", "/api/v1/revocations", "/api/v1/approvals", "/debug/pprof/heap", "/debug/vars"} {
		res, err := http.Get("http://" + g.admin + path)
		must(t, err)
		b, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		note(path, string(b))
	}
	// The gateway's own password for the target stops working, and it is reloaded as well.
	g.signal(syscall.SIGHUP)
	c.bye()
	g.sealed("ada")
	for _, args := range [][]string{{"sessions", "-o", "json"}, {"verify", "--all"}} {
		out, errs, _ := g.run(args...)
		note(strings.Join(args, " "), out, errs)
	}
	for _, s := range g.sessions() {
		for _, args := range [][]string{{"show", s.ID}, {"replay", s.ID}, {"replay", s.ID, "--format", "json"}} {
			out, errs, _ := g.run(args...)
			note(strings.Join(args, " "), out, errs)
		}
	}
	time.Sleep(100 * time.Millisecond)
	g.stop()
	note("log", g.process.out.String())

	seed := g.key().Seed()
	secrets := append([]string{password}, g.tokens...)
	for _, s := range append(secrets, string(seed), hex.EncodeToString(seed)) {
		for _, form := range forms(s) {
			if i := strings.Index(said.String(), form); i >= 0 {
				t.Errorf("a secret (%.8s…) is shown: …%.300q", s, said.String()[max(0, i-200):])
			}
		}
	}
	for _, place := range []string{"journal", "jetstream", "archive", "ledger", "index.db", "cache", "tls"} {
		for _, found := range scan(t, filepath.Join(g.data, place), append(secrets, string(seed))...) {
			t.Errorf("a secret is in %s", found)
		}
	}
	for _, found := range scan(t, g.data, secrets...) { // the keys' folder too: it holds keys, not tokens
		t.Errorf("a secret is in %s", found)
	}
	if said.Len() < 20_000 {
		t.Errorf("only %d bytes were looked at", said.Len())
	}
	// The control: each form of a secret is found where it is.
	dir := t.TempDir()
	for i, form := range forms(password) {
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("before "+form+" after"), 0o600))
	}
	if n := len(scan(t, dir, password)); n < len(forms(password)) || n < 8 {
		t.Errorf("%d of %d forms are found", n, len(forms(password)))
	}
	if !shows(told.err.Error()+string(seed), string(seed)) {
		t.Error("the keys are not looked for")
	}
}
