package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"time"
)

// SignedIn makes a token for somebody whom another issuer has signed in, by other means than a token: policies and records
// see that issuer.
func (i *Issuer) SignedIn(g Grant, issuer string) (Issued, error) {
	if issuer == "" || issuer == ServiceIssuer {
		return Issued{}, fmt.Errorf("identity: %q cannot have signed anybody in", issuer)
	}
	t, err := i.make(g, time.Now(), &actingFor{Issuer: issuer})
	if err != nil {
		return Issued{}, err
	}
	if err := i.enter(&t); err != nil {
		return Issued{}, fmt.Errorf("identity: the token cannot be entered into the list of tokens: %w", err)
	}
	return t, nil
}

// Secret is a secret for a purpose, the same at every gateway that has this key.
func (i *Issuer) Secret(purpose string) []byte {
	m := hmac.New(sha256.New, i.key.Seed())
	m.Write([]byte("weir " + purpose))
	return m.Sum(nil)
}
