//go:build linux

package faults_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"time"
)

// TestWrongTokens: each is refused in words that say why, without the token; that somebody tried is recorded; the
// session that is open does not notice.
func TestWrongTokens(t *testing.T) {
	t.Parallel()
	g := start(t, setup{
		more: "  - name: reports\n    protocol: postgres\n    upstream: {address: \"" + upstream.Addr() + "\", database: postgres, tls: disable}\n" +
			"    credential: {user: app, password: \"${env:UPSTREAM_PASSWORD}\"}\n",
	})
	other := g.open("other")
	_, foreign, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	now := time.Now()
	claims := func(kv ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i].(string)] = kv[i+1]
		}
		return m
	}
	only, errs, code := g.run("token", "--subject", "reporter", "--group", "agents", "--target", "reports")
	if code != 0 {
		t.Fatalf("weir token: %s", errs)
	}
	only = strings.TrimSpace(only)
	g.tokens = append(g.tokens, only)
	good := g.token("mallory")
	for i, c := range []struct {
		name, token string
		params      []string
		code        string
		want        []string
		rule        string // of the recorded refusal
	}{
		{name: "expired", token: g.forge(g.key(), claims("iat", now.Add(-2*time.Hour).Unix(), "exp", now.Add(-time.Hour).Unix())), code: "28P01", want: []string{"sign-in failed", "expired at"}, rule: "not-signed-in"},
		{name: "not yet valid", token: g.forge(g.key(), claims("nbf", now.Add(time.Hour).Unix())), code: "28P01", want: []string{"not valid before"}, rule: "not-signed-in"},
		{name: "for longer than is allowed", token: g.forge(g.key(), claims("exp", now.Add(1000*time.Hour).Unix())), code: "28P01", want: []string{"valid for longer than this gateway allows"}, rule: "not-signed-in"},
		{name: "signed by another key", token: g.forge(foreign, nil), code: "28P01", want: []string{"not signed by this gateway"}, rule: "not-signed-in"},
		{name: "of another audience", token: g.forge(g.key(), claims("aud", "elsewhere")), code: "28P01", want: []string{`the token is for "elsewhere", not for "weir"`}, rule: "not-signed-in"},
		{name: "of another issuer", token: g.forge(g.key(), claims("iss", "https://idp.example")), code: "28P01", want: []string{"issuer \"https://idp.example\" is not configured"}, rule: "not-signed-in"},
		{name: "empty", token: "", code: "28P01", want: []string{"no token was given"}, rule: "not-signed-in"},
		{name: "garbage", token: "\x01\xff\xfe garbage", code: "28P01", want: []string{"not a signed token"}, rule: "not-signed-in"},
		{name: "a password", token: "hunter2-hunter2", code: "28P01", want: []string{"not a signed token"}, rule: "not-signed-in"},
		{name: "changed", token: good[:len(good)-20] + "AAAAAAAAAAAAAAAAAAAA", code: "28P01", want: []string{"not signed by this gateway"}, rule: "not-signed-in"},
		{name: "for another target", token: only, code: "42501", want: []string{"not made for target orders", "rule token-target", "use a token for this target"}, rule: "token-target"},
		{name: "of nobody who may", token: g.token("stranger", "tourists"), code: "42501", want: []string{"rule "}, rule: "access"},
	} {
		name := "wrong-" + strings.ReplaceAll(c.name, " ", "-")
		_, err := g.dial(name, c.token)
		e := refused(t, err, c.code, c.want...)
		if c.token != "" && strings.Contains(e.Error(), c.token) {
			t.Errorf("%s: the token is in the answer", c.name)
		}
		if c.token != good && len(c.token) > 10 {
			g.tokens = append(g.tokens, c.token)
		}
		var found *recording
		eventually(t, 5*time.Second, c.name+" is in the record", func() bool {
			for _, s := range g.sessions("--limit", "2") {
				if s.End == "" { // open, so it may not be in the archive yet
					continue
				}
				if r := g.replay(s.ID); r.name == name {
					found = r
				}
			}
			return found != nil && found.end != ""
		}, nothing)
		if found.end != "refused" || found.records[0].Facts.Denied == nil || !strings.Contains(found.records[0].Facts.Denied.Rule, c.rule) {
			t.Errorf("%s is recorded with the end %q and %+v", c.name, found.end, found.records[0].Facts.Denied)
		}
		other.must(t, "select "+string(rune('0'+i%10)))
	}
	// The same token is good where it was made for.
	c, err := g.dial("reporter", only, "database", "reports")
	if err == nil {
		t.Error("a startup packet with a repeated parameter passed")
		_ = c.Close()
	}
	c, err = g.connect()
	must(t, err)
	if err := c.signIn(only, "user", "agent", "database", "reports", "application_name", "reporter"); err != nil {
		t.Errorf("a token for the target reports does not open it: %v", err)
	}
	c.bye()
	contains(t, "the log", g.log("token-target"), "sign-in refused", "expired at", "not signed by this gateway")
}

// TestNoPasswordMessage: a client that sends no password, or something else in its place, is told so.
func TestNoPasswordMessage(t *testing.T) {
	t.Parallel()
	g := start(t, setup{})
	for name, message := range map[string][]byte{
		"a query":           frame('Q', []byte("select 1\x00")),
		"no string at all":  frame('p', nil),
		"a string unended":  frame('p', []byte("abc")),
		"two strings":       frame('p', []byte("a\x00b\x00")),
		"a length of a lie": {'p', 0xff, 0xff, 0xff, 0xff},
		"a length of a GB":  {'p', 0x40, 0, 0, 0},
	} {
		c, err := g.connect()
		must(t, err)
		packet := append([]byte{0, 0, 0, 0, 0, 3, 0, 0}, "user\x00agent\x00database\x00orders\x00\x00"...)
		binary.BigEndian.PutUint32(packet, uint32(len(packet)))
		_, err = c.Write(packet)
		must(t, err)
		if typ, _, err := c.read(); err != nil || typ != 'R' {
			t.Fatalf("%s: %c %v", name, typ, err)
		}
		_, err = c.Write(message)
		must(t, err)
		if e := c.gone(); e == nil || e.code != "08P01" || e.severity != "FATAL" {
			t.Errorf("%s: %v", name, e)
		}
		_ = c.Close()
	}
	// And one who says nothing is let go when the time to sign in is over.
	quick := start(t, setup{limits: "sign_in: 300ms"})
	c, err := quick.connect()
	must(t, err)
	begin := time.Now()
	_ = c.SetReadDeadline(begin.Add(20 * time.Second))
	_, _ = io.ReadAll(c)
	if took := time.Since(begin); took > 12*time.Second {
		t.Errorf("a silent client was kept for %v", took)
	}
	_ = c.Close()
}

// TestTokenExpiresInSession: when its token expires an open session may ask nothing more, and is told what to do. The
// grace for clocks is a minute, so the token is made to have expired already, just within it.
func TestTokenExpiresInSession(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the end of a token's grace")
	}
	t.Parallel()
	g := start(t, setup{})
	warm := g.open("warm")
	warm.must(t, "select 1") // the grammar is loaded: what follows has few seconds
	warm.bye()
	expires := time.Now().Add(-54 * time.Second)
	c, err := g.dial("late", g.forge(g.key(), map[string]any{"sub": "late", "iat": expires.Add(-time.Minute).Unix(), "exp": expires.Unix()}))
	must(t, err)
	defer c.Close()
	c.must(t, "select 1")
	time.Sleep(time.Until(expires.Add(61500 * time.Millisecond)))
	a, err := c.query("select 2")
	must(t, err)
	if a.err == nil || a.err.code != "42501" || a.status != 'I' {
		t.Fatalf("after the token's end: %+v", a)
	}
	contains(t, "the refusal", a.err.Error(), "rule token-expired", "connect again with a new token")
}
