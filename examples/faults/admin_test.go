//go:build linux

package faults_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// administered is a gateway with the shipped policy for its admin address.
func administered(t *testing.T) *gateway {
	t.Helper()
	return prepare(t, setup{
		more: "admin: {chain: [admins]}\n",
		edit: func(config string) string {
			return strings.Replace(config, "policies:\n", "policies:\n  - {name: admins, path: \"builtin:admin\"}\n", 1)
		},
	})
}

// issue makes a token by the command, and has it looked for wherever it must not be.
func (g *gateway) issue(args ...string) (token, file string) {
	g.t.Helper()
	out, errs, code := g.run(append([]string{"token", "--subject"}, args...)...)
	if code != 0 {
		g.t.Fatalf("weir token: %d %s", code, errs)
	}
	token = strings.TrimSpace(out)
	g.tokens = append(g.tokens, token, token[strings.LastIndex(token, ".")+1:])
	file = filepath.Join(g.t.TempDir(), "token")
	must(g.t, os.WriteFile(file, []byte(token), 0o600))
	return token, file
}

// acts waits until as many acts as wanted with a text in them are archived, and returns what weir show says of the last.
func (g *gateway) acts(text string, want int) (last session, shown string) {
	g.t.Helper()
	var list []session
	eventually(g.t, 20*time.Second, "the act "+text+" is archived", func() bool {
		list = g.sessions("--protocol", "admin", "--grep", text)
		return len(list) == want && list[want-1].End != ""
	}, func() string {
		all, _ := json.Marshal(g.sessions("--protocol", "admin"))
		return string(all)
	})
	last = list[want-1]
	shown, errs, code := g.run("show", last.ID)
	if code != 0 {
		g.t.Fatal(errs)
	}
	return last, shown
}

// TestAdmin: who did what to a gateway, from where and with what outcome, is a sealed session like any other: what was done
// while no gateway ran, what was refused, and what a signal did. The policy decides who may, and there is no token in any of it.
func TestAdmin(t *testing.T) {
	t.Parallel()
	g := administered(t)
	token, _ := g.issue("loop", "--group", "agents") // nobody is there to record it
	g.serve()
	if act, shown := g.acts("tokens.issue loop", 1); !strings.Contains(act.Identity, "@") || act.End != "closed" {
		t.Errorf("what was done before the gateway ran: %+v\n%s", act, shown)
	} else {
		contains(t, "the record of a token that was made beside the gateway", shown, `"beside":"no gateway was asked"`, `"groups":["agents"]`, "client    local")
	}
	if info, err := os.Stat(filepath.Join(g.data, "admin.pending")); err != nil || info.Size() != 0 {
		t.Errorf("what was recorded is kept: %v", err)
	}
	_, viewer := g.issue("val", "--group", "weir-viewers", "--kind", "human")
	_, operator := g.issue("ola", "--group", "weir-operators", "--kind", "human")
	_, shown := g.acts("tokens.issue val", 1)
	contains(t, "the record of a token", shown, "client    127.0.0.1:", "until", "[admin] tokens.issue val", "weir-viewers")

	c, err := g.dial("loop", token)
	must(t, err)
	var live []session
	out, errs, code := g.run("sessions", "--live", "-o", "json")
	if err := json.Unmarshal([]byte(out), &live); err != nil || code != 0 || len(live) != 1 || live[0].Identity != "loop" {
		t.Fatalf("weir sessions --live: %d %s%s", code, out, errs)
	}
	id := live[0].ID
	if out, errs, code := g.run("sessions", "end", id, "--token-file", viewer); code != 1 || out != "" || !strings.Contains(errs, "refused by rule access") {
		t.Errorf("a viewer ends a session: %d %s%s", code, out, errs)
	}
	c.must(t, "select 1")
	if act, shown := g.acts("sessions.end "+id, 1); act.Identity != "val" || act.End != "refused" || act.Denied != 1 || !strings.Contains(shown, "DENIED [admin] sessions.end "+id) {
		t.Errorf("the refusal: %+v\n%s", act, shown)
	}
	if out, errs, code := g.run("status", "--token-file", viewer); code != 0 || !strings.Contains(out, "sessions     1") {
		t.Errorf("a viewer looks: %d %s%s", code, out, errs)
	}
	if out, errs, code := g.run("sessions", "end", id, "--token-file", operator, "--reason", "it runs in circles"); code != 0 || !strings.Contains(out, "ended: "+id) {
		t.Errorf("an operator ends a session: %d %s%s", code, out, errs)
	}
	if e := c.gone(); e == nil || e.code != "57P01" || e.message != "terminating connection: an operator has ended the session: it runs in circles" {
		t.Errorf("its client hears %+v", e)
	}
	if s := g.sealed("loop"); s.End != "killed" {
		t.Errorf("it is sealed as %s", s.End)
	}
	if act, shown := g.acts("sessions.end "+id, 2); act.Identity != "ola" || act.End != "closed" || !strings.Contains(shown, "it runs in circles") || !strings.Contains(shown, "of loop at orders") {
		t.Errorf("the end: %+v\n%s", act, shown)
	}
	if _, errs, code := g.run("sessions", "end", id, "--token-file", operator); code != 1 || !strings.Contains(errs, "no such session is open") {
		t.Errorf("ended twice: %d %s", code, errs)
	}

	// A reload by an operator, by a signal, and one that cannot be done.
	if out, errs, code := g.run("reload", "--token-file", operator); code != 0 || out != "reloaded\n" {
		t.Errorf("weir reload: %d %s%s", code, out, errs)
	}
	g.signal(syscall.SIGHUP)
	if act, _ := g.acts("reload", 2); act.Identity != "SIGHUP" || act.End != "closed" {
		t.Errorf("the signal: %+v", act)
	}
	whole, err := os.ReadFile(g.config)
	must(t, err)
	must(t, os.WriteFile(g.config, append(whole, "nonsense: 1\n"...), 0o644))
	res, err := post(t, g, "reload", operator)
	must(t, err)
	if res != http.StatusConflict {
		t.Errorf("a reload of nonsense: %d", res)
	}
	must(t, os.WriteFile(g.config, whole, 0o644))
	if act, shown := g.acts("reload", 3); act.Identity != "ola" || !strings.Contains(shown, "nothing has changed") || !strings.Contains(shown, "nonsense") {
		t.Errorf("the reload that failed: %+v\n%s", act, shown)
	}

	// Who may make tokens may not make more of themselves.
	if _, errs, code := g.run("token", "--subject", "x"); code != 0 { // by the gateway's own key
		t.Error(errs)
	}
	if code, err := post(t, g, "tokens", operator, `{"subject":"x","groups":["dba"]}`); err != nil || code != http.StatusForbidden {
		t.Errorf("a group that is not one's own: %d %v", code, err)
	}
	g.acts("tokens.issue x", 2)

	// Sessions of clients are listed as before; and all of it can be proved.
	for _, s := range g.sessions() {
		if s.Target != "orders" {
			t.Errorf("listed among the sessions of clients: %+v", s)
		}
	}
	all := len(g.sessions("--protocol", "admin"))
	eventually(t, 20*time.Second, "all of it is proved", func() bool {
		r := g.verify()
		return r.OK && r.Sessions >= all+1
	}, nothing)
}

// post asks for something at the admin address, in the name of whose token is in a file.
func post(t *testing.T, g *gateway, what, file string, body ...string) (int, error) {
	t.Helper()
	token, err := os.ReadFile(file)
	must(t, err)
	req, err := http.NewRequest(http.MethodPost, "http://"+g.admin+"/api/v1/"+what, strings.NewReader(strings.Join(body, "")))
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+string(token))
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// TestSessionsPerIdentity: one more than an identity, or a run, may have is refused in PostgreSQL's own words, and there is
// room again when one has gone.
func TestSessionsPerIdentity(t *testing.T) {
	t.Parallel()
	g := start(t, setup{limits: "sessions_per_identity: 2, sessions_per_run: 1"})
	ada := g.token("ada")
	first, err := g.dial("first", ada)
	must(t, err)
	_, err = g.dial("second", ada)
	must(t, err)
	_, err = g.dial("third", ada)
	refused(t, err, "53300", "ada has 2 sessions open with target orders at this gateway, the limit of one identity", "rule limit-sessions-identity", "close idle connections")
	bob := g.forge(g.key(), map[string]any{"sub": "bob", "run": "r1"})
	_, err = g.dial("of the run", bob)
	must(t, err)
	_, err = g.dial("of the run, too", bob)
	refused(t, err, "53300", "run r1 has 1 sessions open", "rule limit-sessions-run")
	if out, err := psql(t, g.listen, ada, "select 1"); err == nil || !strings.Contains(out, "ada has 2 sessions open") {
		t.Errorf("psql: %v %s", err, out)
	}
	first.bye()
	eventually(t, 10*time.Second, "there is room", func() bool {
		c, err := g.dial("later", ada)
		if err == nil {
			c.bye()
		}
		return err == nil
	}, nothing)
}
