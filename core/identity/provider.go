package identity

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/weir-gateway/weir/core"
)

// Provider is one OpenID Connect issuer, for ID tokens and for JWT access tokens (RFC 9068).
type Provider struct {
	Name        string
	Issuer      string   // exactly as in iss
	Audience    string   // what aud must hold
	GroupsClaim string   // default groups; a.b looks inside a, where there is no claim of the whole name
	Algorithms  []string // default RS256, PS256, ES256, ES384, EdDSA
	// Clients are the parties (azp, client_id) beside Audience that a token may have been issued to. None: any, for a token
	// that is for Audience alone.
	Clients      []string
	SubjectClaim string            // default sub
	Require      map[string]string // claims that a token must have, and their values
	Kinds        []KindRule        // the first that fits says what an identity is
	RunClaim     string            // holds the id of the run; none: tokens name no run
}

var usual = []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"}

type provider struct {
	Provider
	keys     *keySet
	verifier *oidc.IDTokenVerifier
	log      *slog.Logger
}

func newProvider(p Provider, c Config, now func() time.Time) *provider {
	if p.GroupsClaim == "" {
		p.GroupsClaim = "groups"
	}
	if len(p.Algorithms) == 0 {
		p.Algorithms = usual
	}
	x := &provider{Provider: p, log: c.Log, keys: &keySet{issuer: p.Issuer, client: c.HTTP, now: now, log: c.Log}}
	x.verifier = oidc.NewVerifier(p.Issuer, x.keys, &oidc.Config{
		ClientID: p.Audience, SupportedSigningAlgs: p.Algorithms, Now: now,
		SkipExpiryCheck: true, // claims.check has the tighter one
	})
	return x
}

func (p *provider) verify(ctx context.Context, t *token, now time.Time) (core.Identity, error) {
	if !slices.Contains(p.Algorithms, string(t.alg)) {
		return core.Identity{}, refuse("algorithm", "the token is not signed with an accepted algorithm")
	}
	if t.kid == "" {
		return core.Identity{}, refuse("key", "the token does not name its key (kid)")
	}
	payload, err := p.keys.verify(ctx, t.jws, t.kid, t.alg)
	if err != nil {
		return core.Identity{}, err
	}
	c, err := read(payload)
	if err == nil {
		err = c.check(p.Issuer, p.Audience, now)
	}
	if err != nil {
		return core.Identity{}, err
	}
	// The library has the last word: it sees the same token from its own side.
	if _, err := p.verifier.Verify(ctx, t.raw); err != nil {
		var r *Refusal
		if errors.As(err, &r) {
			return core.Identity{}, r
		}
		return core.Identity{}, refuse("invalid", "the token is not valid for this gateway")
	}
	for _, check := range []func(*claims) error{func(c *claims) error { return fits(t, c) }, p.party, p.required} {
		if err := check(c); err != nil {
			return core.Identity{}, err
		}
	}
	return p.identity(c)
}

// groups reads the groups claim. A provider that says "too many, look elsewhere" (_claim_names) leaves us without
// facts that policies rely on, so the token is refused rather than taken as one without groups.
func (p *provider) groups(c *claims) ([]string, error) {
	x, ok := lookup(c.all, p.GroupsClaim)
	elsewhere, _ := c.all["_claim_names"].(map[string]any) // the library has refused what is no such thing
	_, left := elsewhere[p.GroupsClaim]
	if more, _ := c.all["hasgroups"].(bool); left || more && !ok { // OpenID Connect Core section 5.6.2; Entra's shorter word for it
		return nil, refuse("groups", "the provider left the groups out of the token: there are too many; have it send only those that matter here")
	}
	if !ok || x == nil {
		return []string{}, nil
	}
	groups, ok := texts(x)
	switch {
	case !ok:
		return nil, refuse("groups", "the token's claim %s is not a list of texts", p.GroupsClaim)
	case len(groups) > maxGroups:
		return nil, refuse("groups", "the token names more than %d groups", maxGroups)
	}
	return groups, nil
}

func lookup(m map[string]any, name string) (any, bool) {
	if x, ok := m[name]; ok {
		return x, true
	}
	head, tail, ok := strings.Cut(name, ".")
	if !ok {
		return nil, false
	}
	inner, ok := m[head].(map[string]any)
	if !ok {
		return nil, false
	}
	return lookup(inner, tail)
}

// Interface guard.
var _ oidc.KeySet = (*keySet)(nil)

// VerifySignature implements oidc.KeySet.
func (k *keySet) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(raw, allowed)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, refuse("malformed", "that is not a signed token (JWT)")
	}
	h := jws.Signatures[0].Protected
	return k.verify(ctx, jws, h.KeyID, jose.SignatureAlgorithm(h.Algorithm))
}
