package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core"
)

// Bounds of identity.revocations.max_age: below the first the gateway would refuse everybody whenever JetStream elects
// a leader.
const (
	minRevocationAge = 15 * time.Second
	maxRevocationAge = 24 * time.Hour
)

// algorithms that a token may be signed with. None is symmetric: a verifier must not be able to sign.
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

func (k *checker) identity() {
	id := &k.Identity
	k.saml()
	k.certificates()
	if !id.ServiceTokens.On() && len(id.OIDC) == 0 && len(id.SAML) == 0 && len(id.Certificates) == 0 {
		k.problem("identity", "add identity.oidc, or enable service_tokens", "nobody could sign in")
	}
	if !id.ServiceTokens.On() && k.set("identity.service_tokens.max_ttl") {
		k.problem("identity.service_tokens.max_ttl", "", "would do nothing: service_tokens is not enabled")
	}
	if !id.ServiceTokens.On() && k.set("identity.service_tokens.run_ttl") {
		k.problem("identity.service_tokens.run_ttl", "", "would do nothing: service_tokens is not enabled")
	}
	if t := id.ServiceTokens; t.RunTTL > t.MaxTTL {
		k.problem("identity.service_tokens.run_ttl", "", "is longer than max_ttl (%s)", t.MaxTTL)
	}
	if d := id.Revocations.MaxAge; k.set("identity.revocations.max_age") && (d < minRevocationAge || d > maxRevocationAge) {
		k.problem("identity.revocations.max_age", "such as 5m", "must be from %s to 24h", minRevocationAge)
	}
	seen, issuers := map[string]bool{}, map[string]bool{}
	for i, o := range id.OIDC {
		at := fmt.Sprintf("identity.oidc[%d]", i)
		k.name(at, o.Name, seen)
		u, err := url.Parse(o.Issuer)
		switch {
		case o.Issuer == "":
			k.problem(at, "", "has no issuer")
		case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
			k.problem(at+".issuer", "", "%q is not an https URL", o.Issuer)
		case u.Scheme == "http" && !loopback(u.Hostname()):
			k.problem(at+".issuer", "use https", "%q: keys fetched without TLS can be forged", o.Issuer)
		case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
			k.problem(at+".issuer", "", "an issuer has no query, fragment or user")
		case issuers[o.Issuer]:
			k.problem(at+".issuer", "", "stands twice")
		}
		issuers[o.Issuer] = true
		if o.Login.Invite && slices.ContainsFunc(id.OIDC[:i], func(o OIDC) bool { return o.Login.Invite }) {
			k.problem(at+".login.invite", "", "another issuer has it: a client can be shown one page")
		}
		if o.Audience == "" {
			k.problem(at, "the client or resource id that your provider puts into aud", "has no audience")
		}
		for j, r := range o.Kinds {
			at := fmt.Sprintf("%s.kinds[%d]", at, j)
			if words := []string{"human", "service", "agent"}; !slices.Contains(words, r.Kind) {
				k.problem(at, hintNearest(r.Kind, words), "the kind %q is not human, service or agent", r.Kind)
			}
			if r.Claim == "" {
				k.problem(at, "claim: client_id, for instance", "names no claim")
			}
		}
		for j, a := range o.Algorithms {
			if !slices.Contains(algorithms, a) {
				k.problem(fmt.Sprintf("%s.algorithms[%d]", at, j), "one of "+strings.Join(algorithms, ", "), "%q is not allowed", a)
			}
		}
	}
}

// expiry checks what becomes of a target's open sessions when their tokens expire.
func (k *checker) expiry(t *Target) {
	words := []string{string(core.ExpiryRefuse), string(core.ExpiryDrain), string(core.ExpiryClose), string(core.ExpiryKeep)}
	switch at := t.At("on_expiry"); {
	case !k.set(at):
	case !slices.Contains(words, string(t.OnExpiry)):
		k.problem(at, hintNearest(string(t.OnExpiry), words), "%q is not refuse, drain, close or keep", t.OnExpiry)
	case t.OnExpiry == core.ExpiryKeep:
		k.warn(at, "use drain", "a session outlives its token for as long as it is kept open; only a revocation ends it")
	}
}
