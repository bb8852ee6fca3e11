package ssh

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// A certificate of a user is a token that only the holder of a key can show. The token is inside, sealed so that nobody
// but the gateway can read it: a client offers its certificates to every server that it talks to. So whatever ends the token,
// its time or a revocation, ends the certificate.

const (
	extension      = "token@weir-gateway"
	principal      = "weir"
	maxCertificate = 12 * time.Hour
	clockSkew      = time.Minute
	maxPublicKey   = 16 << 10
)

// ownKeys are the gateway's: the host key that clients see, the authority of user certificates, and what seals tokens.
type ownKeys struct {
	host, authority ssh.Signer
	seal            cipher.AEAD
}

// ownKeys makes them out of what the gateway keeps.
func (h *handler) ownKeys(g core.Gate) (*ownKeys, error) {
	k, ok := g.(core.Keyholder)
	if !ok {
		return nil, errors.New("ssh: the gateway has no keys for it")
	}
	own, err := keysOf(k.Key)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hostKey != nil {
		own.host = h.hostKey
	}
	return own, nil
}

func keysOf(key func(purpose string) ([]byte, error)) (*ownKeys, error) {
	own := &ownKeys{}
	for purpose, to := range map[string]*ssh.Signer{"host key": &own.host, "user certificates": &own.authority} {
		seed, err := key(purpose)
		if err != nil {
			return nil, fmt.Errorf("ssh: %w", err)
		}
		if *to, err = ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed)); err != nil {
			return nil, fmt.Errorf("ssh: %w", err)
		}
	}
	secret, err := key("tokens in certificates")
	if err != nil {
		return nil, fmt.Errorf("ssh: %w", err)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("ssh: %w", err)
	}
	own.seal, err = cipher.NewGCM(block)
	return own, err
}

// issue makes a certificate for a key out of a token. It is good as long as the token is, and no longer than half a day.
func (o *ownKeys) issue(key ssh.PublicKey, id *core.Identity, token string, now time.Time) (*ssh.Certificate, error) {
	if _, is := key.(*ssh.Certificate); is || key.Type() == "ssh-dss" {
		return nil, fmt.Errorf("a key of type %s is not taken", key.Type())
	}
	until := now.Add(maxCertificate)
	if !id.Expires.IsZero() && id.Expires.Before(until) {
		until = id.Expires
	}
	if !until.After(now) {
		return nil, errors.New("the token has expired")
	}
	var serial [8]byte
	nonce := make([]byte, o.seal.NonceSize())
	_, _ = rand.Read(serial[:])
	_, _ = rand.Read(nonce)
	c := &ssh.Certificate{
		Key: key, Serial: binary.BigEndian.Uint64(serial[:]), CertType: ssh.UserCert, KeyId: line(id.Subject), ValidPrincipals: []string{principal},
		ValidAfter: uint64(now.Add(-clockSkew).Unix()), ValidBefore: uint64(until.Unix()),
		Permissions: ssh.Permissions{Extensions: map[string]string{
			extension: string(o.seal.Seal(nonce, nonce, []byte(token), key.Marshal())),
		}},
	}
	if err := c.SignCert(rand.Reader, o.authority); err != nil {
		return nil, fmt.Errorf("it cannot be signed: %w", err)
	}
	return c, nil
}

var errNoCertificate = errors.New("ssh: only a certificate that the gateway has made is taken in the place of a token")

// open returns the token in a certificate, and what else it restricts.
func (o *ownKeys) open(key ssh.PublicKey) (token string, options map[string]string, err error) {
	c, ok := key.(*ssh.Certificate)
	if !ok {
		return "", nil, errNoCertificate
	}
	_, nested := c.Key.(*ssh.Certificate)
	_, chained := c.SignatureKey.(*ssh.Certificate)
	if nested || chained || c.CertType != ssh.UserCert || string(c.SignatureKey.Marshal()) != string(o.authority.PublicKey().Marshal()) {
		return "", nil, errNoCertificate
	}
	checker := ssh.CertChecker{SupportedCriticalOptions: []string{"source-address"}}
	if err := checker.CheckCert(principal, c); err != nil {
		return "", nil, err
	}
	sealed, n := []byte(c.Extensions[extension]), o.seal.NonceSize()
	if len(c.ValidPrincipals) == 0 || len(sealed) < n {
		return "", nil, errNoCertificate
	}
	b, err := o.seal.Open(nil, sealed[:n], sealed[n:], c.Key.Marshal())
	if err != nil {
		return "", nil, errNoCertificate
	}
	return string(b), c.CriticalOptions, nil
}
