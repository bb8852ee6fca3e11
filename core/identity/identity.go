// Package identity answers one question: who is this? It takes the token a client showed and returns the identity
// that some configured issuer vouches for, or a refusal that is safe to show. A token is never part of an error, a
// log line or a record.
package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/weir-gateway/weir/core"
)

// Bounds of what a client may show and a provider may claim.
const (
	MaxToken   = 64 << 10         // bytes; larger tokens are refused, never cut
	Skew       = 60 * time.Second // how far the clocks of issuer and gateway may differ
	maxGroups  = 1000
	maxSubject = 512 // bytes
)

// Config is whose word counts.
type Config struct {
	Providers []Provider
	Service   *Issuer          // the gateway's own tokens; nil: none are accepted
	RunTTL    time.Duration    // for how long a run's token may be good although the one that it was made out of is over
	Operators *Issuer          // whose tokens the admin address takes; nil: none
	HTTP      *http.Client     // to reach providers; nil: one with timeouts, no redirects and bounded answers
	Log       *slog.Logger     // nil: nothing is logged
	Now       func() time.Time // nil: time.Now
}

// Verifier recognises clients by their tokens. It is safe for concurrent use.
type Verifier struct {
	service   *Issuer
	operators *Issuer
	runTTL    time.Duration
	providers map[string]*provider // by issuer
	now       func() time.Time
}

// New checks the configuration and reaches for nothing: a provider that is down must not keep the gateway from
// starting. Keys are fetched when the first token asks for them.
func New(_ context.Context, c Config) (*Verifier, error) {
	v := &Verifier{service: c.Service, operators: c.Operators, runTTL: c.RunTTL, providers: map[string]*provider{}, now: c.Now}
	if v.now == nil {
		v.now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if c.HTTP == nil {
		c.HTTP = client()
	}
	for _, p := range c.Providers {
		switch {
		case p.Issuer == "" || p.Audience == "":
			return nil, fmt.Errorf("identity: provider %q needs an issuer and an audience", p.Name)
		case p.Issuer == ServiceIssuer || v.providers[p.Issuer] != nil:
			return nil, fmt.Errorf("identity: issuer %q stands twice", p.Issuer)
		}
		v.providers[p.Issuer] = newProvider(p, c, v.now)
	}
	if v.service == nil && len(v.providers) == 0 {
		return nil, errors.New("identity: there is no issuer: nobody could sign in")
	}
	return v, nil
}

// Verify returns who the token was issued to. Every error wraps core.ErrUnauthenticated, is safe to show to the
// client, and has a Reason method with a word for counting.
func (v *Verifier) Verify(ctx context.Context, token string) (core.Identity, error) {
	t, err := parse(token)
	if err != nil {
		return core.Identity{}, err
	}
	// The issuer is read before the signature was checked. It only selects who checks.
	if t.issuer == ServiceIssuer && v.service != nil {
		return v.service.verify(t, v.now())
	}
	if p := v.providers[t.issuer]; p != nil {
		return p.verify(ctx, t, v.now())
	}
	return core.Identity{}, refuse("issuer", "issuer %s is not configured", quote(t.issuer))
}

// Refusal says why nobody was recognised.
type Refusal struct {
	reason string
	text   string
}

func refuse(reason, format string, args ...any) error {
	return &Refusal{reason, fmt.Sprintf(format, args...)}
}

// Error is safe to show to the client.
func (r *Refusal) Error() string { return "identity: " + r.text }

// Reason is one word of a small set, for metrics.
func (r *Refusal) Reason() string { return r.reason }

// Is makes a Refusal a core.ErrUnauthenticated.
func (r *Refusal) Is(target error) bool { return target == core.ErrUnauthenticated }

// quote shows a claimed text with a bound and without control characters.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%q", s)
}
