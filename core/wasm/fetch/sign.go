package fetch

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
)

// A signature is Ed25519 over the module's bytes, as
//
//	openssl pkeyutl -sign -rawin -inkey key.pem -in plugin.wasm -out plugin.wasm.sig
//
// writes it: 64 bytes, or the same in base64.

const (
	maxSignature = 4 << 10
	maxKeyFile   = 64 << 10
)

// ParseKeys reads Ed25519 public keys: PEM as `openssl pkey -pubout` writes it, that PEM's one line, or the 32 bytes in
// base64.
func ParseKeys(text string) ([]ed25519.PublicKey, error) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "-----BEGIN ") {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, errors.New("is no public key: neither PEM nor base64")
		}
		if len(b) == ed25519.PublicKeySize {
			return []ed25519.PublicKey{b}, nil
		}
		k, err := publicKey(b)
		return []ed25519.PublicKey{k}, err
	}
	var keys []ed25519.PublicKey
	for rest := []byte(text); len(bytes.TrimSpace(rest)) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("is no public key: its PEM is broken")
		}
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("holds a %s, not a PUBLIC KEY", strings.ToLower(block.Type))
		}
		k, err := publicKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// ReadKeys is ParseKeys for a key in clear or the file that it is in.
func ReadKeys(text string, path func(string) string) ([]ed25519.PublicKey, error) {
	keys, err := ParseKeys(text)
	if err == nil {
		return keys, nil
	}
	b, fileErr := readFile(path(text), maxKeyFile)
	switch {
	case fileErr == nil:
		return ParseKeys(string(b))
	case errors.Is(fileErr, os.ErrNotExist):
		return nil, fmt.Errorf("is no Ed25519 public key in base64, and there is no file %s", path(text))
	}
	return nil, fileErr
}

func publicKey(der []byte) (ed25519.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("is no public key that can be read")
	}
	ed, ok := k.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("is a key of type %T: Ed25519 is needed (openssl genpkey -algorithm ed25519)", k)
	}
	return ed, nil
}

// signedBy returns which of the keys made the signature.
func signedBy(keys []ed25519.PublicKey, module, signature []byte) (string, bool) {
	if len(signature) != ed25519.SignatureSize {
		b, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(signature)))
		if err != nil || len(b) != ed25519.SignatureSize {
			return "", false
		}
		signature = b
	}
	for _, k := range keys {
		if ed25519.Verify(k, module, signature) {
			return base64.StdEncoding.EncodeToString(k), true
		}
	}
	return "", false
}

// verify finds the module's signature and checks it. A signature that is kept needs no protection: it proves itself.
func (f *Fetcher) verify(ctx context.Context, s *Source, m *Module, came []byte) error {
	kept := f.file(m.SHA256) + ".sig"
	if Remote(s.Ref) && f.Dir != "" {
		if b, err := readFile(kept, maxSignature); err == nil {
			if by, ok := signedBy(s.Keys, m.Bytes, b); ok {
				m.Signer = by
				return nil
			}
		}
	}
	where, b := s.Signature, came
	if where == "" && strings.HasPrefix(s.Ref, OCI) {
		if b == nil {
			return bad("public_keys", "push it beside the module, as a layer of type "+SignatureType, "%s is not signed, and public_keys ask for a signature", s.Ref)
		}
		where = s.Ref
	} else {
		var err error
		if where, b, err = signatureAt(ctx, s); err != nil {
			return bad("public_keys", "sign the module: openssl pkeyutl -sign -rawin -inkey key.pem -in FILE -out FILE.sig", "public_keys ask for a signature: %w", err)
		}
	}
	by, ok := signedBy(s.Keys, m.Bytes, b)
	if !ok {
		return bad("public_keys", "", "the signature at %s is of another module, or by another key than those of public_keys", where)
	}
	m.Signer = by
	if Remote(s.Ref) && f.Dir != "" && !f.ReadOnly && !f.Unpinned {
		return f.write(kept, b)
	}
	return nil
}

// signatureAt reads the signature from where the source says, or from beside the module.
func signatureAt(ctx context.Context, s *Source) (where string, b []byte, err error) {
	where = s.Signature
	if where == "" {
		where = s.Ref + ".sig"
	}
	if !Remote(where) {
		b, err = readFile(where, maxSignature)
		return where, b, err
	}
	u, err := url.Parse(where)
	if err != nil {
		return where, nil, fmt.Errorf("%q is no URL", where)
	}
	if s.Signature == "" { // before a query, not after it
		if u, err = url.Parse(s.Ref); err != nil {
			return where, nil, err
		}
		u.Path += ".sig"
		where = u.Redacted()
	}
	if err := safe(u); err != nil {
		return where, nil, err
	}
	from := *s
	if at, err := url.Parse(s.Ref); err != nil || at.Host != u.Host { // a credential is for one server
		from.User, from.Password = "", ""
	}
	b, err = get(ctx, u, &from, maxSignature)
	return where, b, err
}
