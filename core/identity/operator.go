package identity

import (
	"context"
	"encoding/json"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/weir-gateway/weir/core"
)

// Whoever can read the signing key can be anybody, so the admin address takes a token that only such a one can make: of
// another audience than clients' tokens, so that neither is good in the other's place.
const (
	operatorAudience = "weir-admin"
	operatorTTL      = time.Minute
)

// Operator signs a token for one call to the admin address; name is who is said to call.
func (i *Issuer) Operator(name string) (string, error) {
	if name == "" || len(name) > maxSubject {
		name = "operator"
	}
	now := time.Now().Truncate(time.Second)
	return i.sign(claimSet{
		Issuer: ServiceIssuer, Subject: name, Audience: operatorAudience, Kind: "human", Issued: now.Unix(), Expires: now.Add(operatorTTL).Unix(), ID: core.NewID(now),
	})
}

// VerifyOperator recognises who may change what the gateway does, by a token that Issuer.Operator made.
func (v *Verifier) VerifyOperator(_ context.Context, token string) (core.Identity, error) {
	t, err := parse(token)
	if err != nil {
		return core.Identity{}, err
	}
	if v.operators == nil || t.issuer != ServiceIssuer {
		return core.Identity{}, refuse("issuer", "this takes a token made with the gateway's own key")
	}
	c, err := v.operators.claims(t, operatorAudience, v.now())
	if err != nil {
		return core.Identity{}, err
	}
	if !c.hasIssued || c.expires.Sub(c.issued) > operatorTTL {
		return core.Identity{}, refuse("ttl", "the token is valid for longer than %s", operatorTTL)
	}
	return core.Identity{Subject: c.subject, Issuer: ServiceIssuer, Kind: "human", Groups: []string{}, Expires: c.expires}, nil
}

// KeySet is the public key of the gateway's own tokens as a JSON key set (RFC 7517), for others who are shown them.
// Nil: there are no such tokens.
func (v *Verifier) KeySet() []byte {
	if v.service == nil {
		return nil
	}
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{
		Key: v.service.key.Public(), KeyID: v.service.kid, Algorithm: string(jose.EdDSA), Use: "sig",
	}}})
	if err != nil {
		return nil
	}
	return b
}
