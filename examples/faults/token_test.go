//go:build linux

package faults_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"time"
)

// key is the gateway's own signing key.
func (g *gateway) key() ed25519.PrivateKey {
	g.t.Helper()
	b, err := os.ReadFile(filepath.Join(g.data, "keys", "tokens.key"))
	if err != nil {
		g.t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		g.t.Fatal("tokens.key is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		g.t.Fatal(err)
	}
	return key.(ed25519.PrivateKey)
}

// token is a good one, made as weir token makes it.
func (g *gateway) token(subject string, groups ...string) string {
	g.t.Helper()
	if len(groups) == 0 {
		groups = []string{"agents"}
	}
	return g.forge(g.key(), map[string]any{"sub": subject, "groups": groups})
}

// forge signs a token with any key; claims replace those of a good one.
func (g *gateway) forge(key ed25519.PrivateKey, claims map[string]any) string {
	g.t.Helper()
	now := time.Now()
	all := map[string]any{
		"iss": "weir", "sub": "nobody", "aud": "weir", "kind": "agent", "groups": []string{"agents"},
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "jti": random(8),
	}
	for k, v := range claims {
		all[k] = v
	}
	own := sha256.Sum256(g.key().Public().(ed25519.PublicKey)) // a forger knows the key's name
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			g.t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := part(map[string]any{"alg": "EdDSA", "typ": "JWT", "kid": base64.RawURLEncoding.EncodeToString(own[:12])}) + "." + part(all)
	signature := base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(signed)))
	g.tokens = append(g.tokens, signature) // the part that makes it a secret
	return signed + "." + signature
}
