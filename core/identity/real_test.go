package identity

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core/identity/idptest"
)

// TestRealProvider: discovery, a service's own token, and rotation, with a provider that is not ours.
func TestRealProvider(t *testing.T) {
	p, err := idptest.Start(t.Context(), time.Hour)
	if errors.Is(err, idptest.ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	defer http.DefaultClient.CloseIdleConnections()
	var c clock
	c.at.Store(time.Now().UnixNano())
	h := client()
	defer h.Transport.(bounded).next.(*http.Transport).CloseIdleConnections()
	v, err := New(t.Context(), Config{HTTP: h, Now: c.now, Providers: []Provider{{Name: "real", Issuer: p.URL, Audience: "weir"}}})
	if err != nil {
		t.Fatal(err)
	}
	token := func(audience string) string {
		t.Helper()
		s, err := p.ClientToken(audience)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(step, token, reason string) {
		t.Helper()
		id, err := v.Verify(t.Context(), token)
		var r *Refusal
		switch {
		case reason == "" && (err != nil || id.Subject != "loop" || id.Kind != "service" || id.Token == "" || id.Issuer != p.URL):
			t.Errorf("%s: %+v, %v", step, id, err)
		case reason != "" && (!errors.As(err, &r) || r.Reason() != reason):
			t.Errorf("%s: %v, want %s", step, err, reason)
		}
	}
	first := token("weir")
	want("a service's token", first, "")
	want("for another audience", token("elsewhere"), "audience")
	must(p.Rotate(false))
	second := token("weir")
	want("a new key, at once after a fetch", second, "key")
	c.advance(fetchEvery + time.Second)
	want("a new key", second, "")
	want("the old key, still published", first, "")
	must(p.Rotate(true))
	third := token("weir")
	c.advance(fetchEvery + time.Second)
	want("another key", third, "")
	want("a key that was taken away", second, "key")
	must(p.Down())
	c.advance(removedBy + time.Second)
	want("the provider is down", third, "")
	want("an unknown key meanwhile", first, "key")
	must(p.Up())
	c.advance(removedBy + time.Second)
	want("it is back", third, "")
	c.advance(2 * time.Hour)
	want("expired", third, "expired")
}
