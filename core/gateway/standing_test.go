package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// revoked is a list of revocations in memory.
type revoked struct {
	mu      sync.Mutex
	list    []core.Revocation
	unknown bool
	changed chan struct{}
}

func (l *revoked) Check(id core.Identity) *core.Denial {
	if _, ok := l.Revoked(id); ok {
		return &core.Denial{Rule: "token-revoked", Reason: "the token was revoked"}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unknown {
		return &core.Denial{Rule: "revocations-unknown"}
	}
	return nil
}

func (l *revoked) Revoked(id core.Identity) (core.Revocation, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.list {
		if r.Covers(&id) {
			return r, true
		}
	}
	return core.Revocation{}, false
}

func (l *revoked) Changed() <-chan struct{} { return l.changed }

func (l *revoked) List(context.Context) ([]core.Revocation, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]core.Revocation{}, l.list...), nil
}

func (l *revoked) Revoke(_ context.Context, r core.Revocation) error {
	if r.Subject == "" {
		return core.Refusal("no")
	}
	l.mu.Lock()
	l.list = append(l.list, r)
	l.mu.Unlock()
	l.changed <- struct{}{}
	return nil
}

func (l *revoked) Restore(context.Context, core.Revocation) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = nil
	return nil
}

// TestRevokedSessions: the open sessions of who is revoked end, as killed; others go on; nobody gets in with the token.
func TestRevokedSessions(t *testing.T) {
	l := &revoked{changed: make(chan struct{}, 1)}
	r := start(t, func(c *Config, _ *Settings) { c.Revocations = l })
	eve, ada := r.dial(), r.dial()
	eve.want("one good-eve", "ok")
	ada.want("one good-ada", "ok")
	if err := l.Revoke(t.Context(), core.Revocation{Subject: "good-eve", Reason: "left the company"}); err != nil {
		t.Fatal(err)
	}
	if got := eve.hear(); got != "gone" {
		t.Errorf("a revoked session hears %q", got)
	}
	ada.want("select", "select")
	eventually(t, "the session is sealed as killed", func() bool { return slices.Contains(r.journal.ends(), core.EndKilled) })
	again := r.dial()
	again.want("one good-eve", "no: ")
	if last := r.journal.last(); last.end != core.EndRefused || !strings.Contains(string(last.records[0].Facts), "token-revoked") {
		t.Errorf("the refusal is recorded as %s, %s", last.end, last.records[0].Facts)
	}
	l.mu.Lock()
	l.unknown = true
	l.mu.Unlock()
	r.dial().want("one good-bob", "no: ")
	ada.want("select", "select") // what is open is not cut by an outage
	if code, text := r.get("/metrics"); code != http.StatusOK || !strings.Contains(text, "weir_gateway_revoked_total 1") {
		t.Error("the cut session is not counted")
	}
	if !strings.Contains(r.log.String(), "left the company") {
		t.Error("the log does not say why")
	}
}

// TestRevokedWhileOpening: a revocation that comes between the sign-in and the session's being listed is not missed.
func TestRevokedWhileOpening(t *testing.T) {
	l := &revoked{changed: make(chan struct{}, 1)}
	opening := make(chan struct{})
	r := start(t, func(c *Config, s *Settings) {
		c.Revocations = l
		s.Targets[0].Chain = slow{opening}
	})
	k := r.dial()
	go func() {
		<-opening
		_ = l.Revoke(context.Background(), core.Revocation{Subject: "good-eve"})
		opening <- struct{}{}
	}()
	if got := k.say("one good-eve"); strings.HasPrefix(got, "ok") { // it may have been told so before it was cut
		got = k.say("select")
		if got != "gone" && got != "denied token-revoked" {
			t.Errorf("got %q", got)
		}
	}
}

// slow lets a test act while a session is opened.
type slow struct{ opening chan struct{} }

func (s slow) Inspect(_ context.Context, e *core.Event) (core.Verdict, error) {
	if e.Kind == core.KindOpen {
		s.opening <- struct{}{}
		<-s.opening
	}
	return core.Verdict{}, nil
}

// expiring is a verifier whose tokens say when their time, grace included, is over.
type expiring struct{}

func (expiring) Verify(_ context.Context, token string) (core.Identity, error) {
	d, err := time.ParseDuration(token)
	if err != nil {
		return core.Identity{}, core.ErrUnauthenticated
	}
	return core.Identity{Subject: "late", Token: "t", Expires: time.Now().Add(d - expiryGrace)}, nil
}

// TestOnExpiry: what becomes of an open session whose token expires.
func TestOnExpiry(t *testing.T) {
	for mode, want := range map[core.Expiry]string{
		"": "denied token-expired", core.ExpiryRefuse: "denied token-expired", core.ExpiryClose: "gone", core.ExpiryKeep: "select",
	} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			r := start(t, func(_ *Config, s *Settings) { s.Verifier, s.Targets[0].Target.OnExpiry = expiring{}, mode })
			k := r.dial()
			k.want("one 300ms", "ok")
			k.want("select", "select")
			time.Sleep(400 * time.Millisecond)
			if got := k.say("select"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if mode == core.ExpiryClose {
				eventually(t, "it ends as killed", func() bool { return slices.Contains(r.journal.ends(), core.EndKilled) })
			}
		})
	}
}

// TestDrainOnExpiry: the session is asked to leave when its token expires, and ended when it does not; and when the gateway
// stops it is asked as all are.
func TestDrainOnExpiry(t *testing.T) {
	g, err := New(Config{Journal: &memory{}}, Settings{Verifier: names{}})
	if err != nil {
		t.Fatal(err)
	}
	target := &core.Target{OnExpiry: core.ExpiryDrain, Limits: core.Limits{Drain: 100 * time.Millisecond}}
	ended := make(chan error, 1)
	id := core.Identity{Expires: time.Now().Add(50*time.Millisecond - expiryGrace)}
	x := g.stand(nil, &id, target, func(err error) { ended <- err })
	<-x.draining(g)
	if x.why() != ErrExpired.Error() {
		t.Errorf("it leaves because %q", x.why())
	}
	e := &core.Event{Kind: core.KindCommand}
	if v, _ := x.Inspect(t.Context(), e); v.Deny != nil {
		t.Error("its transaction may not be finished")
	}
	if err := <-ended; !errors.Is(err, ErrExpired) {
		t.Errorf("ended by %v", err)
	}
	x.release()
	id.Expires = time.Now().Add(time.Hour)
	x = g.stand(nil, &id, target, nil)
	select {
	case <-x.draining(g):
		t.Error("it leaves too early")
	default:
	}
	g.leave()
	<-x.draining(g)
	if x.why() != "" {
		t.Error("it takes the gateway's end for its own")
	}
	x.release()
}

// operators recognises one token of whoever holds the key.
type operators struct{ names }

func (operators) VerifyOperator(_ context.Context, token string) (core.Identity, error) {
	if token != "key" {
		return core.Identity{}, core.ErrUnauthenticated
	}
	return core.Identity{Subject: "root@host"}, nil
}

func (operators) KeySet() []byte { return []byte(`{"keys":[]}`) }

func TestRevocationsAPI(t *testing.T) {
	l := &revoked{changed: make(chan struct{}, 10)}
	r := start(t, func(c *Config, s *Settings) { c.Revocations, s.Verifier = l, operators{} })
	ask := func(method, path, token, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.AdminAddr().String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer http.DefaultClient.CloseIdleConnections()
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	for _, tc := range []struct {
		method, path, token, body string
		code                      int
		want                      string
	}{
		{"GET", "/api/v1/revocations", "", "", 401, "takes a token"},
		{"GET", "/api/v1/revocations", "good-client", "", 401, "not good here"}, // a client's token is not an operator's
		{"POST", "/api/v1/revocations/revoke", "good-client", `{"subject":"ada"}`, 401, "not good here"},
		{"POST", "/api/v1/revocations/revoke", "key", `{"subject":"ada","by":"somebody else"}`, 200, "root@host"},
		{"POST", "/api/v1/revocations/revoke", "key", `{"subjekt":"ada"}`, 400, "such as"},
		{"POST", "/api/v1/revocations/revoke", "key", `{"token":"x"}`, 403, ""},
		{"GET", "/api/v1/revocations", "key", "", 200, `"subject":"ada"`},
		{"POST", "/api/v1/revocations/restore", "key", `{"subject":"ada"}`, 200, ""},
		{"GET", "/api/v1/revocations", "key", "", 200, "[]"},
		{"GET", "/.well-known/jwks.json", "", "", 200, `"keys"`},
	} {
		if code, text := ask(tc.method, tc.path, tc.token, tc.body); code != tc.code || !strings.Contains(text, tc.want) {
			t.Errorf("%s %s as %q: %d %s", tc.method, tc.path, tc.token, code, text)
		}
	}
}
