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
	Clients     []string // further parties that azp may name when a token has several audiences
	Algorithms  []string // default RS256, PS256, ES256, ES384, EdDSA
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
	if azp, ok := c.all["azp"].(string); len(c.audience) > 1 && ok && azp != p.Audience && !slices.Contains(p.Clients, azp) {
		return core.Identity{}, refuse("party", "the token was issued to %s, which is not an accepted client", quote(azp))
	}
	groups, err := p.groups(c)
	if err != nil {
		return core.Identity{}, err
	}
	id := core.Identity{Subject: c.subject, Issuer: p.Issuer, Groups: groups, Kind: "human", Expires: c.expires, Claims: c.rest(p.GroupsClaim)}
	for _, name := range []string{"client_id", "azp"} { // a client that acts for itself is its own subject: RFC 9068 section 5
		if client, _ := c.all[name].(string); client == c.subject {
			id.Kind = "service"
		}
	}
	return id, nil
}

// groups reads the groups claim. A provider that says "too many, look elsewhere" (_claim_names) leaves us without
// facts that policies rely on, so the token is refused rather than taken as one without groups.
func (p *provider) groups(c *claims) ([]string, error) {
	x, ok := lookup(c.all, p.GroupsClaim)
	if !ok || x == nil {
		if elsewhere, _ := c.all["_claim_names"].(map[string]any); elsewhere != nil {
			if _, is := elsewhere[p.GroupsClaim]; is {
				return nil, refuse("groups", "the provider left the groups out of the token: there are too many")
			}
		}
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
