package identity

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// KindRule says what an identity is by one of its claims.
type KindRule struct {
	Kind   string   // human, service or agent
	Claim  string   // a.b looks inside a
	Values []string // one of which it must have, or hold; none: that it is there is enough
}

// fits reports whether a token may be presented here at all: that it is an ID token or an access token, and one that
// whoever shows it may use. Header and claims are verified.
func fits(t *token, c *claims) error {
	typ := strings.TrimPrefix(strings.ToLower(t.typ), "application/")
	own, _ := c.all["typ"].(string) // Keycloak's name for it
	switch {
	case typ != "" && typ != "jwt" && typ != "at+jwt": // RFC 8725 section 3.11
		return refuse("type", "tokens of the type %s are not for signing in", quote(t.typ))
	case slices.Contains([]string{"refresh", "offline", "logout"}, strings.ToLower(own)):
		return refuse("type", "tokens of the type %s are not for signing in", quote(own))
	case c.all["events"] != nil: // a logout or security event token without its type
		return refuse("type", "a token about events is not for signing in")
	case c.all["cnf"] != nil: // RFC 7800: DPoP, mTLS
		return refuse("bound", "the token is bound to a key (DPoP or a TLS certificate), which cannot be shown here: ask for one that is not")
	}
	if _, ok := c.all["client_id"].(string); typ == "at+jwt" && (!ok || !c.hasIssued || c.id == "") { // RFC 9068 section 2.2
		return refuse("type", "the access token lacks client_id, iat or jti")
	}
	return nil
}

// party holds a token against the clients that it may have been issued to.
func (p *provider) party(c *claims) error {
	party, ok := c.all["azp"].(string)
	if !ok {
		party, ok = c.all["client_id"].(string)
	}
	switch {
	case !ok && (len(c.audience) > 1 || len(p.Clients) > 0):
		return refuse("party", "the token does not say which client it was issued to (azp, client_id)")
	case ok && (len(c.audience) > 1 || len(p.Clients) > 0) && party != p.Audience && !slices.Contains(p.Clients, party):
		return refuse("party", "the token was issued to %s, which is not an accepted client", quote(party))
	}
	return nil
}

// required holds a token against the claims that the operator demands, such as the tenant of an issuer that many share.
func (p *provider) required(c *claims) error {
	for name, want := range p.Require {
		x, _ := lookup(c.all, name)
		if !holds(x, []string{want}) {
			return refuse("claim", "the token's claim %s is not what this gateway requires", quote(name))
		}
	}
	return nil
}

// holds reports whether a claim is one of the values, or a list with one of them.
func holds(x any, values []string) bool {
	switch x := x.(type) {
	case string:
		return slices.Contains(values, x)
	case bool:
		return slices.Contains(values, fmt.Sprint(x))
	case float64:
		b, err := json.Marshal(x)
		return err == nil && slices.Contains(values, string(b))
	case []any:
		return slices.ContainsFunc(x, func(e any) bool { _, list := e.([]any); return !list && holds(e, values) })
	}
	return false
}

// subject is the name by which policies and records know the identity.
func (p *provider) subject(c *claims) (string, error) {
	if p.SubjectClaim == "" || p.SubjectClaim == "sub" {
		return c.subject, nil
	}
	x, _ := lookup(c.all, p.SubjectClaim)
	s, ok := x.(string)
	switch {
	case !ok || s == "" || len(s) > maxSubject:
		return "", refuse("subject", "the token's claim %s is not a name that can be used", p.SubjectClaim)
	case p.SubjectClaim == "email" && c.all["email_verified"] != true: // anybody could have entered it
		return "", refuse("subject", "the provider has not verified the token's email address")
	}
	return s, nil
}

// kind is what the identity is: what the operator's first fitting rule says; else a service when a client acts for itself,
// an agent when somebody else acts for the subject, and a human.
func (p *provider) kind(c *claims) string {
	for _, r := range p.Kinds {
		if x, ok := lookup(c.all, r.Claim); ok && x != nil && (len(r.Values) == 0 || holds(x, r.Values)) {
			return r.Kind
		}
	}
	for _, name := range []string{"client_id", "azp"} { // RFC 9068 section 5
		if client, _ := c.all[name].(string); client == c.subject {
			return "service"
		}
	}
	switch {
	case c.all["idtyp"] == "app", c.all["gty"] == "client-credentials": // Entra's and Auth0's words for it
		return "service"
	case c.all["act"] != nil: // token exchange, RFC 8693 section 4.1
		return "agent"
	}
	return "human"
}

// run is the run that the token was made for.
func (p *provider) run(c *claims) (string, error) {
	if p.RunClaim == "" {
		return "", nil
	}
	x, ok := lookup(c.all, p.RunClaim)
	if !ok || x == nil {
		return "", nil
	}
	run, ok := x.(string)
	if !ok || !runShape.MatchString(run) {
		return "", refuse("run", "the token's claim %s is not the id of a run", p.RunClaim)
	}
	return run, nil
}

// identity makes the identity of verified claims.
func (p *provider) identity(c *claims) (id core.Identity, err error) {
	id = core.Identity{Issuer: p.Issuer, Token: c.id, Expires: c.expires, Kind: p.kind(c), Claims: c.rest(p.GroupsClaim)}
	if id.Subject, err = p.subject(c); err != nil {
		return core.Identity{}, err
	}
	if id.Run, err = p.run(c); err != nil {
		return core.Identity{}, err
	}
	if id.Groups, err = p.groups(c); err != nil {
		return core.Identity{}, err
	}
	return id, nil
}
