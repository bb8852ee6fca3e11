package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/weir-gateway/weir/core"
)

// strict is a provider with every setting that a token has to meet.
func strict(s *idp) Provider {
	return Provider{
		Name: "strict", Issuer: s.URL, Audience: "weir", Clients: []string{"cli"}, SubjectClaim: "email", RunClaim: "run", GroupsClaim: "realm.roles",
		Require: map[string]string{"tid": "t-1", "acr": "2"},
		Kinds:   []KindRule{{Kind: "agent", Claim: "loop"}, {Kind: "service", Claim: "azp", Values: []string{"cli"}}, {Kind: "human", Claim: "amr", Values: []string{"otp"}}},
	}
}

// TestClaims: each token is refused for the reason given, and its twin, which differs in that only, is taken.
func TestClaims(t *testing.T) {
	s := newIDP(t)
	now := time.Now()
	plain := map[string]any{
		"iss": s.URL, "sub": "u-7", "aud": "weir", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "jti": "j", "client_id": "web", "azp": "web",
		"email": "ada@example.org", "email_verified": true, "tid": "t-1", "acr": "2", "run": "run-1", "realm": map[string]any{"roles": []string{"dba"}},
	}
	with := func(kv ...any) string {
		c := maps.Clone(plain)
		for i := 0; i < len(kv); i += 2 {
			if c[kv[i].(string)] = kv[i+1]; kv[i+1] == nil {
				delete(c, kv[i].(string))
			}
		}
		return object2(c)
	}
	typed := func(typ, payload string) string {
		return forge(`{"alg":"RS256","kid":"rsa","typ":`+typ+`}`, payload, rs256(rsaKey()))
	}
	token := func(kv ...any) string { return typed(`"JWT"`, with(kv...)) }
	verify := func(p Provider) func(string) (core.Identity, error) {
		c := client()
		t.Cleanup(func() { c.Transport.(bounded).next.(*http.Transport).CloseIdleConnections() })
		v, err := New(t.Context(), Config{Providers: []Provider{p}, HTTP: c})
		if err != nil {
			t.Fatal(err)
		}
		return func(token string) (core.Identity, error) { return v.Verify(t.Context(), token) }
	}
	loose := verify(Provider{Name: "loose", Issuer: s.URL, Audience: "weir"})
	narrow := verify(strict(s))
	cli := []any{"azp", "cli"}
	and := func(kv ...any) []any { return append(append([]any{}, cli...), kv...) }
	groups, src := map[string]any{"groups": "src1"}, map[string]any{"src1": map[string]any{"endpoint": "https://x.example"}}
	for _, tc := range []struct {
		name         string
		verify       func(string) (core.Identity, error)
		token, twin  string
		reason, says string
	}{
		{"logout token by its type", loose, typed(`"logout+jwt"`, with()), token(), "type", "logout+jwt"},
		{"DPoP proof", loose, typed(`"dpop+jwt"`, with()), token(), "type", ""},
		{"security event", loose, typed(`"secevent+jwt"`, with()), token(), "type", ""},
		{"client's own assertion", loose, typed(`"client-authentication+jwt"`, with()), token(), "type", ""},
		{"type with its media type", loose, typed(`"application/logout+jwt"`, with()), typed(`"application/at+jwt"`, with()), "type", ""},
		{"type a number", loose, typed(`7`, with()), typed(`"jwt"`, with()), "malformed", ""},
		{"logout token without its type", loose, token("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}), token(), "type", "events"},
		{"refresh token", loose, token("typ", "Refresh"), token("typ", "Bearer"), "type", "Refresh"},
		{"offline token", loose, token("typ", "Offline"), token("typ", "ID"), "type", ""},
		{"access token without a client", loose, typed(`"at+jwt"`, with("client_id", nil)), typed(`"at+jwt"`, with()), "type", "client_id"},
		{"access token without an id", loose, typed(`"at+jwt"`, with("jti", nil)), typed(`"JWT"`, with("jti", nil)), "type", ""},
		{"access token without its time", loose, typed(`"at+jwt"`, with("iat", nil)), typed(`"at+jwt"`, with()), "type", ""},
		{"DPoP-bound", loose, token("cnf", map[string]any{"jkt": "x"}), token(), "bound", "DPoP"},
		{"certificate-bound", loose, token("cnf", map[string]any{"x5t#S256": "x"}), token(), "bound", ""},
		{"several audiences and no party", loose, token("aud", []string{"weir", "x"}, "azp", nil, "client_id", nil), token("aud", []string{"weir"}, "azp", nil, "client_id", nil), "party", ""},
		{"several audiences, foreign party", loose, token("aud", []string{"weir", "x"}), token("aud", []string{"weir", "x"}, "azp", "weir"), "party", `"web"`},
		{"the party is the resource of another", loose, token("aud", []string{"weir", "x"}, "azp", nil, "client_id", "x"), token("aud", []string{"weir", "x"}, "azp", nil, "client_id", "weir"), "party", ""},
		{"party that is not listed", narrow, token(), token(cli...), "party", ""},
		{"no party, and parties are listed", narrow, token("azp", nil, "client_id", nil), token(cli...), "party", ""},
		{"party a list", narrow, token("azp", []string{"cli"}), token(cli...), "party", ""},
		{"other tenant", narrow, token(and("tid", "t-2")...), token(cli...), "claim", "tid"},
		{"no tenant", narrow, token(and("tid", nil)...), token(cli...), "claim", ""},
		{"tenant in another case", narrow, token(and("tid", "T-1")...), token(cli...), "claim", ""},
		{"tenant within a list of lists", narrow, token(and("tid", []any{[]any{"t-1"}})...), token(and("tid", []any{"t-1"})...), "claim", ""},
		{"tenant an object", narrow, token(and("tid", map[string]any{"t-1": true})...), token(cli...), "claim", ""},
		{"signed in with less", narrow, token(and("acr", 1)...), token(and("acr", 2)...), "claim", "acr"},
		{"email not verified", narrow, token(and("email_verified", false)...), token(cli...), "subject", "not verified"},
		{"email verified in words", narrow, token(and("email_verified", "true")...), token(cli...), "subject", ""},
		{"email without a word about it", narrow, token(and("email_verified", nil)...), token(cli...), "subject", ""},
		{"no email", narrow, token(and("email", nil)...), token(cli...), "subject", ""},
		{"email a list", narrow, token(and("email", []string{"ada@example.org"})...), token(cli...), "subject", ""},
		{"run with a blank", narrow, token(and("run", "a b")...), token(and("run", "a-b")...), "run", ""},
		{"run a number", narrow, token(and("run", 7)...), token(and("run", nil)...), "run", ""},
		{"groups elsewhere", loose, token("_claim_names", groups, "_claim_sources", src), token("_claim_names", map[string]any{"address": "src1"}, "_claim_sources", src), "groups", "too many"},
		{"some groups here and some elsewhere", loose, token("_claim_names", groups, "_claim_sources", src, "groups", []string{"a"}), token("groups", []string{"a"}), "groups", "too many"},
		{"claim names that cannot be read", loose, token("_claim_names", "groups"), token(), "invalid", ""},
		{"groups said to be left out", loose, token("hasgroups", true), token("hasgroups", true, "groups", []string{"a"}), "groups", "too many"},
		{"groups a list within a list", loose, token("groups", []any{[]any{"a"}}), token("groups", []any{"a"}), "groups", ""},
		{"roles a number", narrow, token(and("realm", map[string]any{"roles": 7})...), token(and("realm", map[string]any{"roles": "dba"})...), "groups", "realm.roles"},
		{"jti a number", loose, token("jti", 7), token("jti", "7"), "malformed", "jti"},
		{"jti too long", loose, token("jti", strings.Repeat("j", 513)), token("jti", strings.Repeat("j", 512)), "malformed", "jti"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id, err := tc.verify(tc.token)
			var r *Refusal
			if !errors.As(err, &r) || r.Reason() != tc.reason || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %+v, %v, want %s", id, err, tc.reason)
			}
			if _, err := tc.verify(tc.twin); err != nil {
				t.Errorf("the twin is refused as well: %v", err)
			}
		})
	}

	t.Run("mapping", func(t *testing.T) {
		id, err := narrow(token(cli...))
		if err != nil || id.Subject != "ada@example.org" || id.Run != "run-1" || fmt.Sprint(id.Groups) != "[dba]" || id.Token != "j" {
			t.Fatalf("%+v, %v", id, err)
		}
		for _, tc := range []struct {
			name, token, kind string
			verify            func(string) (core.Identity, error)
		}{
			{"a rule", token(cli...), "service", narrow},
			{"the first rule that fits", token(and("loop", true)...), "agent", narrow},
			{"a claim that is null", token(and("loop", []any(nil))...), "service", narrow},
			{"a rule about a list", token("azp", "weir", "amr", []string{"pwd", "otp"}, "act", map[string]any{"sub": "x"}), "human", narrow},
			{"person", token(), "human", loose},
			{"client credentials (RFC 9068)", typed(`"at+jwt"`, with("sub", "web")), "service", loose},
			{"client credentials (Entra)", token("idtyp", "app"), "service", loose},
			{"client credentials (Auth0)", token("sub", "x@clients", "gty", "client-credentials"), "service", loose},
			{"token exchange: somebody acts for ada", token("act", map[string]any{"sub": "loop"}), "agent", loose},
		} {
			if id, err := tc.verify(tc.token); err != nil || id.Kind != tc.kind {
				t.Errorf("%s: %q, %v, want %q", tc.name, id.Kind, err, tc.kind)
			}
		}
	})
}

// TestMixUp: two issuers on one host. A key counts only for the issuer that publishes it, whatever a token says.
func TestMixUp(t *testing.T) {
	a, b := newIDP(t), newIDP(t)
	b.set(func() { b.keys = []jose.JSONWebKey{{Key: otherRSA().Public(), KeyID: "b"}} })
	c := client()
	t.Cleanup(func() { c.Transport.(bounded).next.(*http.Transport).CloseIdleConnections() })
	v, err := New(t.Context(), Config{HTTP: c, Providers: []Provider{
		{Name: "a", Issuer: a.URL, Audience: "weir"}, {Name: "b", Issuer: b.URL, Audience: "weir"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ofA, ofB := object2(a.claims(now)), object2(b.claims(now))
	for _, tc := range []struct{ name, token, reason string }{
		{"b's claims, a's key", forge(good, ofB, rs256(rsaKey())), "key"},
		{"a's claims, b's key", forge(`{"alg":"RS256","kid":"b"}`, ofA, rs256(otherRSA())), "key"},
		{"a's claims, b's key under a's id", forge(good, ofA, rs256(otherRSA())), "signature"},
	} {
		var r *Refusal
		if id, err := v.Verify(t.Context(), tc.token); !errors.As(err, &r) || r.Reason() != tc.reason {
			t.Errorf("%s: %+v, %v", tc.name, id, err)
		}
	}
	for name, token := range map[string]string{"a": forge(good, ofA, rs256(rsaKey())), "b": forge(`{"alg":"RS256","kid":"b"}`, ofB, rs256(otherRSA()))} {
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Errorf("%s itself: %v", name, err)
		}
	}
}

// TestClockOff: a gateway whose clock is an hour off takes no token for what it is not.
func TestClockOff(t *testing.T) {
	s := newIDP(t)
	token := forge(good, object2(s.claims(time.Now())), rs256(rsaKey())) // for an hour
	for off, reason := range map[time.Duration]string{-time.Hour: "early", 0: "", time.Hour + 2*Skew: "expired"} {
		v := verifier(t, s, func() time.Time { return time.Now().Add(off) })
		_, err := v.Verify(t.Context(), token)
		var r *Refusal
		if reason == "" && err != nil || reason != "" && (!errors.As(err, &r) || r.Reason() != reason) {
			t.Errorf("%v off: %v", off, err)
		}
	}
}

// TestStrangerAsProvider: an issuer with a certificate that nobody vouches for is not believed. The same keys are, once
// somebody does.
func TestStrangerAsProvider(t *testing.T) {
	s := newIDP(t)
	secure := s.secure(t)
	claims := s.claims(time.Now())
	claims["iss"] = secure.URL
	token := forge(good, object2(claims), rs256(rsaKey()))
	for _, trusted := range []bool{false, true} {
		c := client()
		transport := c.Transport.(bounded).next.(*http.Transport)
		if trusted {
			roots := x509.NewCertPool()
			roots.AddCert(secure.Certificate())
			transport.TLSClientConfig = &tls.Config{RootCAs: roots}
		}
		t.Cleanup(transport.CloseIdleConnections)
		v, err := New(t.Context(), Config{HTTP: c, Providers: []Provider{{Name: "x", Issuer: secure.URL, Audience: "weir"}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(t.Context(), token); (err == nil) != trusted {
			t.Errorf("trusted %v: %v", trusted, err)
		}
	}
}
