package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// allowed are the algorithms that a token may be signed with at all. None is symmetric.
var allowed = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// token is a JWT in compact form, taken apart and not yet believed.
type token struct {
	raw    string
	jws    *jose.JSONWebSignature
	alg    jose.SignatureAlgorithm
	kid    string
	typ    string
	issuer string
}

// parse takes a token apart. Headers that bring a key along, or that ask for semantics we do not have, are refused
// here: RFC 7515 sections 4.1.2 to 4.1.6 and 4.1.11.
func parse(raw string) (*token, error) {
	switch {
	case raw == "":
		return nil, refuse("no-token", "no token was given")
	case len(raw) > MaxToken:
		return nil, refuse("too-large", "the token is larger than %d KiB", MaxToken>>10)
	case strings.Count(raw, ".") != 2:
		return nil, refuse("malformed", "that is not a signed token (JWT)")
	}
	head, rest, _ := strings.Cut(raw, ".")
	body, _, _ := strings.Cut(rest, ".")
	header, err := part(head)
	if err != nil {
		return nil, refuse("malformed", "that is not a signed token (JWT)")
	}
	for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip"} {
		if _, ok := header[name]; ok {
			return nil, refuse("header", "tokens with the header %s are not accepted", name)
		}
	}
	jws, err := jose.ParseSignedCompact(raw, allowed)
	if err != nil || len(jws.Signatures) != 1 {
		return nil, refuse("algorithm", "the token is not signed with an accepted algorithm")
	}
	payload, err := part(body)
	if err != nil {
		return nil, refuse("malformed", "the token's claims cannot be read")
	}
	t := &token{raw: raw, jws: jws, alg: jose.SignatureAlgorithm(jws.Signatures[0].Protected.Algorithm), kid: jws.Signatures[0].Protected.KeyID}
	if typ, ok := header["typ"]; ok {
		if err := json.Unmarshal(typ, &t.typ); err != nil {
			return nil, refuse("malformed", "that is not a signed token (JWT)")
		}
	}
	if err := json.Unmarshal(payload["iss"], &t.issuer); err != nil || t.issuer == "" {
		return nil, refuse("issuer", "the token names no issuer")
	}
	return t, nil
}

func part(s string) (map[string]json.RawMessage, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, err
	}
	return object(b)
}

var errJSON = errors.New("not one JSON object with each key once")

// object decodes one JSON object in which no key stands twice: two readers of a token must not see two tokens.
func object(b []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errJSON
	}
	m := map[string]json.RawMessage{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, ok := key.(string)
		if _, twice := m[name]; !ok || twice {
			return nil, errJSON
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		m[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errJSON
	}
	return m, nil
}

// claims are the verified payload of a token: RFC 7519 section 4.1.
type claims struct {
	issuer, subject string
	audience        []string
	expires, issued time.Time
	notBefore       time.Time
	hasIssued       bool
	id              string // jti
	all             map[string]any
}

// read decodes a payload whose signature was checked.
func read(payload []byte) (*claims, error) {
	raw, err := object(payload)
	if err != nil {
		return nil, refuse("malformed", "the token's claims cannot be read")
	}
	c := &claims{all: make(map[string]any, len(raw))}
	for k, v := range raw {
		var x any
		if err := json.Unmarshal(v, &x); err != nil {
			return nil, refuse("malformed", "the token's claims cannot be read")
		}
		c.all[k] = x
	}
	c.issuer, _ = c.all["iss"].(string)
	c.subject, _ = c.all["sub"].(string)
	if c.subject == "" || len(c.subject) > maxSubject {
		return nil, refuse("subject", "the token names no subject that can be used")
	}
	var ok bool
	if c.audience, ok = texts(c.all["aud"]); !ok || len(c.audience) == 0 {
		return nil, refuse("audience", "the token names no audience")
	}
	if c.expires, ok = instant(c.all["exp"]); !ok {
		return nil, refuse("expiry", "the token does not say when it expires")
	}
	for name, at := range map[string]*time.Time{"iat": &c.issued, "nbf": &c.notBefore} {
		if x, is := c.all[name]; is {
			if *at, ok = instant(x); !ok {
				return nil, refuse("malformed", "the token's claim %s is not a time", name)
			}
		}
	}
	_, c.hasIssued = c.all["iat"]
	if id, is := c.all["jti"]; is {
		if c.id, ok = id.(string); !ok || len(c.id) > maxSubject {
			return nil, refuse("malformed", "the token's claim jti is not a text that can be used")
		}
	}
	return c, nil
}

// check holds the claims against issuer, audience and clock.
func (c *claims) check(issuer, audience string, now time.Time) error {
	switch {
	case c.issuer != issuer:
		return refuse("issuer", "the token is from another issuer")
	case !slices.Contains(c.audience, audience):
		return refuse("audience", "the token is for %s, not for %s", quote(strings.Join(c.audience, " ")), quote(audience))
	case now.After(c.expires.Add(Skew)):
		return refuse("expired", "the token expired at %s", c.expires.UTC().Format(time.RFC3339))
	case c.notBefore.After(now.Add(Skew)):
		return refuse("early", "the token is not valid before %s", c.notBefore.UTC().Format(time.RFC3339))
	case c.issued.After(now.Add(Skew)):
		return refuse("early", "the token was issued in the future: the clocks differ")
	}
	return nil
}

// rest returns the claims that are not part of the token's own mechanics.
func (c *claims) rest(without ...string) map[string]any {
	m := map[string]any{}
	for k, v := range c.all {
		switch k {
		case "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "nonce", "at_hash", "c_hash", "s_hash", "sid", "sub_jwk", "cnf":
			continue
		}
		if !slices.Contains(without, k) {
			m[k] = v
		}
	}
	if len(m) == 0 {
		return nil
	}
	return m
}

// instant reads a NumericDate. Times beyond the year 3000 are mistakes (milliseconds, most often).
func instant(x any) (time.Time, bool) {
	f, ok := x.(float64)
	if !ok || math.IsNaN(f) || f < 0 || f > 32_503_680_000 {
		return time.Time{}, false
	}
	whole, fraction := math.Modf(f)
	return time.Unix(int64(whole), int64(fraction*1e9)), true
}

// texts reads a text or a list of texts.
func texts(x any) ([]string, bool) {
	switch x := x.(type) {
	case string:
		return []string{x}, true
	case []any:
		out := make([]string, 0, len(x))
		for _, e := range x {
			s, ok := e.(string)
			if !ok {
				return nil, false
			}
			out = append(out, s)
		}
		return out, true
	}
	return nil, false
}
