//go:build linux

package faults_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestRevoke: a revoked token's open session is cut within ten seconds, in the middle of a statement too, in clear words,
// and is sealed as killed; the token opens nothing more, also after a restart; others go on.
func TestRevoke(t *testing.T) {
	t.Parallel()
	g := start(t, setup{})
	made := func(args ...string) (id, token string) {
		t.Helper()
		out, errs, code := g.run(append([]string{"token", "-o", "json", "--group", "agents", "--subject"}, args...)...)
		var v struct{ ID, Token string }
		if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 {
			t.Fatalf("weir token: %v %s", err, errs)
		}
		g.tokens = append(g.tokens, v.Token)
		return v.ID, v.Token
	}
	id, token := made("leaky")
	_, other := made("other")
	idle, err := g.dial("idle", token)
	must(t, err)
	busy, err := g.dial("busy", token)
	must(t, err)
	bystander, err := g.dial("bystander", other)
	must(t, err)
	_, err = busy.Write(frame('Q', []byte("select pg_sleep(60)\x00")))
	must(t, err)
	eventually(t, 20*time.Second, "the statement runs", func() bool { // one that is still to be judged would be refused, and no more
		out, err := upstream.Psql(context.Background(), "postgres", "select count(*) from pg_stat_activity where state = 'active' and query like 'select pg_sleep(60)%'")
		return err == nil && strings.TrimSpace(out) == "1"
	}, nothing)
	if out, _, _ := g.run("token", "list"); strings.Count(out, " good ") != 2 || !strings.Contains(out, id) {
		t.Errorf("weir token list:\n%s", out)
	}
	begin := time.Now()
	out, errs, code := g.run("token", "revoke", id, "--reason", "in a public repository")
	if code != 0 || !strings.Contains(out, "revoked: token "+id) {
		t.Fatalf("weir token revoke: %d %s", code, errs)
	}
	for _, c := range []*client{idle, busy} {
		_ = c.SetReadDeadline(begin.Add(10 * time.Second))
		if e := c.gone(); e == nil || e.code != "57P01" || e.message != "terminating connection: the session's token was revoked" {
			t.Errorf("%s hears %+v after %v", c.name, e, time.Since(begin))
		}
	}
	bystander.must(t, "select 1")
	_, err = g.dial("again", token)
	refused(t, err, "42501", "the token was revoked", "rule token-revoked")
	if out, _, _ := g.run("token", "list"); !strings.Contains(out, "revoked") {
		t.Errorf("weir token list:\n%s", out)
	}
	eventually(t, 20*time.Second, "both sessions are sealed as killed, and the attempt as refused", func() bool {
		ends := map[string]int{}
		for _, s := range g.sessions("--identity", "leaky") {
			ends[s.End]++
		}
		return ends["killed"] == 2 && ends["refused"] == 1
	}, nothing)

	// A denied subject: what it has, and what it will be given.
	if _, errs, code := g.run("token", "revoke", "--subject", "other"); code != 0 {
		t.Fatal(errs)
	}
	_ = bystander.SetReadDeadline(time.Now().Add(30 * time.Second))
	if e := bystander.gone(); e == nil || !strings.Contains(e.message, "revoked") {
		t.Errorf("the denied subject hears %+v", e)
	}
	_, fresh := made("other")
	_, err = g.dial("fresh", fresh)
	refused(t, err, "42501", "the subject is denied")
	g.stop()
	if _, errs, code := g.run("token", "revoke", id); code != 3 || !strings.Contains(errs, "no gateway answers") {
		t.Errorf("revoked without a gateway: %d %s", code, errs)
	}
	if out, errs, code := g.run("token", "list"); code != 0 || !strings.Contains(out, " ? ") || !strings.Contains(errs, "is not known") {
		t.Errorf("listed without a gateway: %d %s%s", code, out, errs)
	}
	g.serve()
	_, err = g.dial("after the restart", token)
	refused(t, err, "42501", "the token was revoked")
	if _, errs, code := g.run("token", "restore", "--subject", "other"); code != 0 {
		t.Fatal(errs)
	}
	c, err := g.dial("restored", fresh)
	must(t, err)
	c.must(t, "select 1")
	c.bye()
	for what, args := range map[string][]string{"a token": {token}, "nothing": nil, "both": {id, "--subject", "x"}} {
		if _, _, code := g.run(append([]string{"token", "revoke"}, args...)...); code != 2 {
			t.Errorf("revoking %s ends with %d", what, code)
		}
	}
	// A client's token is no operator's.
	req, err := http.NewRequest(http.MethodPost, "http://"+g.admin+"/api/v1/revocations/revoke", strings.NewReader(`{"subject":"ada"}`))
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+fresh)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	b, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a client revokes: %d %s", res.StatusCode, b)
	}
}

// TestOnExpiry: what a client of each kind of target sees when its token expires. The grace for clocks is a minute, so the
// tokens are made to have expired already, just within it.
func TestOnExpiry(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the end of a token's grace")
	}
	t.Parallel()
	for mode, check := range map[string]func(t *testing.T, c *client, over time.Time){
		"close": func(t *testing.T, c *client, over time.Time) {
			_ = c.SetReadDeadline(over.Add(5 * time.Second))
			if e := c.gone(); e == nil || !strings.Contains(e.message, "the session's token has expired") {
				t.Errorf("hears %+v", e)
			}
		},
		"drain": func(t *testing.T, c *client, over time.Time) {
			c.must(t, "begin")
			time.Sleep(time.Until(over.Add(300 * time.Millisecond)))
			c.must(t, "select 2") // its transaction may be finished
			c.must(t, "commit")
			if e := c.gone(); e == nil || e.code != "57P01" || !strings.Contains(e.message, "the session's token has expired") {
				t.Errorf("hears %+v", e)
			}
		},
		"keep": func(t *testing.T, c *client, over time.Time) {
			time.Sleep(time.Until(over.Add(300 * time.Millisecond)))
			c.must(t, "select 2")
			c.bye()
		},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			g := start(t, setup{target: "    on_expiry: " + mode + "\n"})
			warm := g.open("warm")
			warm.must(t, "select 1") // the grammar is loaded: what follows has few seconds
			warm.bye()
			expires := time.Now().Add(-54 * time.Second)
			c, err := g.dial("late", g.forge(g.key(), map[string]any{"sub": "late", "iat": expires.Add(-time.Minute).Unix(), "exp": expires.Unix()}))
			must(t, err)
			defer c.Close()
			c.must(t, "select 1")
			check(t, c, expires.Add(time.Minute))
		})
	}
}
