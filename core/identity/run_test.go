package identity

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// TestRunTokens: a run's token is its owner's identity as an agent, within the bounds of what was shown.
func TestRunTokens(t *testing.T) {
	i := issuer(t, 24*time.Hour)
	now := time.Now()
	verifier := func(runTTL time.Duration) *Verifier {
		v, err := New(t.Context(), Config{Service: i, RunTTL: runTTL})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := verifier(0)
	ada := core.Identity{
		Subject: "ada", Issuer: "https://idp.example", Groups: []string{"dba"}, Kind: "human", Token: "t-1", Claims: map[string]any{"email": "ada@example.org"},
		Expires: now.Add(10 * time.Minute),
	}
	token, expires, err := v.Run(ada, "", []string{"orders"}, 0)
	if err != nil || expires.After(ada.Expires) {
		t.Fatal(expires, err)
	}
	id, err := v.Verify(t.Context(), token)
	if err != nil || id.Subject != "ada" || id.Issuer != ada.Issuer || fmt.Sprint(id.Groups, id.Targets, id.Claims) != "[dba] [orders] map[email:ada@example.org]" || id.Run == "" {
		t.Fatalf("%+v, %v", id, err)
	}
	if id.Kind != "agent" {
		t.Error("a run can approve what it asks for")
	}
	for _, r := range []core.Revocation{{Token: "t-1"}, {Token: id.Token}, {Subject: "ada"}, {Subject: "ada", Issuer: ada.Issuer}} {
		if !r.Covers(&id) {
			t.Errorf("%+v does not end the run", r)
		}
	}
	if (&core.Revocation{Token: "t-2"}).Covers(&id) {
		t.Error("another token's revocation ends the run")
	}
	if list, err := i.List(); err != nil || len(list) != 1 || list[0].ID != id.Token {
		t.Errorf("listed: %v, %v", list, err)
	}
	named, _, err := v.Run(ada, "nightly-7", nil, time.Minute)
	if id, _ := v.Verify(t.Context(), named); err != nil || id.Run != "nightly-7" || time.Until(id.Expires) > time.Minute {
		t.Errorf("%+v, %v", id, err)
	}
	bound := id
	over := ada
	over.Expires = now.Add(100 * time.Millisecond)
	none, _ := New(t.Context(), Config{Providers: []Provider{{Name: "x", Issuer: "https://x.example", Audience: "w"}}})
	for name, tc := range map[string]struct {
		v    *Verifier
		who  core.Identity
		run  string
		ttl  time.Duration
		want string
	}{
		"longer than what was shown": {v, ada, "", time.Hour, "longer than this run may last"},
		"longer than the most":       {verifier(24 * time.Hour), ada, "", 25 * time.Hour, "longer than this run may last"},
		"a run within a run":         {v, bound, "", 0, "of a run already"},
		"a token that names a run":   {v, core.Identity{Subject: "x", Run: "r", Expires: now.Add(time.Hour)}, "", 0, "of a run already"},
		"a strange run":              {v, ada, "a b", 0, "a run is"},
		"about to expire":            {v, over, "", 0, "about to expire"},
		"no issuer":                  {none, ada, "", 0, "makes no tokens"},
	} {
		token, _, err := tc.v.Run(tc.who, tc.run, nil, tc.ttl)
		var no core.Refusal
		if err == nil || token != "" || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		} else if !errors.As(err, &no) {
			t.Errorf("%s is no refusal: %v", name, err)
		}
	}
	if _, expires, err := verifier(2*time.Hour).Run(ada, "", nil, time.Hour); err != nil || time.Until(expires) < 50*time.Minute {
		t.Errorf("with run_ttl: %v, %v", expires, err)
	}
}
