package credential

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// What follows uses keys that do not leave a Vault (its transit engine). A key is named MOUNT/NAME.

// Encrypt returns what Vault makes of the bytes with a key.
func (v *Vault) Encrypt(ctx context.Context, key string, plain []byte) (string, error) {
	var answer struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	err := v.transit(ctx, "encrypt", key, map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)}, &answer)
	if err == nil && answer.Data.Ciphertext == "" {
		err = fmt.Errorf("credential: vault: the key %s has encrypted nothing", key)
	}
	return answer.Data.Ciphertext, err
}

// Decrypt returns the bytes that Encrypt was given.
func (v *Vault) Decrypt(ctx context.Context, key, sealed string) ([]byte, error) {
	var answer struct {
		Data struct {
			Plaintext string `json:"plaintext"`
		} `json:"data"`
	}
	if err := v.transit(ctx, "decrypt", key, map[string]any{"ciphertext": sealed}, &answer); err != nil {
		return nil, err
	}
	plain, err := base64.StdEncoding.DecodeString(answer.Data.Plaintext)
	if err != nil {
		return nil, fmt.Errorf("credential: vault: what the key %s has decrypted cannot be read", key)
	}
	return plain, nil
}

// Public returns the public half of a version of an Ed25519 key; version 0 is the newest. It says which one it is.
func (v *Vault) Public(ctx context.Context, key string, version int) (ed25519.PublicKey, int, error) {
	mount, name, ok := strings.Cut(key, "/")
	if v == nil || !ok {
		return nil, 0, errNoTransit
	}
	var answer struct {
		Data struct {
			Type   string `json:"type"`
			Latest int    `json:"latest_version"`
			Keys   map[string]struct {
				Public string `json:"public_key"`
			} `json:"keys"`
		} `json:"data"`
	}
	if err := v.call(ctx, http.MethodGet, mount+"/keys/"+name, nil, &answer); err != nil {
		return nil, 0, err
	}
	if version == 0 {
		version = answer.Data.Latest
	}
	public, err := base64.StdEncoding.DecodeString(answer.Data.Keys[strconv.Itoa(version)].Public)
	if err != nil || answer.Data.Type != "ed25519" || len(public) != ed25519.PublicKeySize {
		return nil, 0, fmt.Errorf("credential: vault: the key %s has no version %d that signs with Ed25519: make one of the type ed25519", key, version)
	}
	return public, version, nil
}

// Sign signs with a version of an Ed25519 key.
func (v *Vault) Sign(ctx context.Context, key string, version int, message []byte) ([]byte, error) {
	var answer struct {
		Data struct {
			Signature string `json:"signature"`
		} `json:"data"`
	}
	body := map[string]any{"input": base64.StdEncoding.EncodeToString(message), "key_version": version}
	if err := v.transit(ctx, "sign", key, body, &answer); err != nil {
		return nil, err
	}
	parts := strings.Split(answer.Data.Signature, ":") // vault:vN:BASE64
	sig, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(parts) != 3 || len(sig) != ed25519.SignatureSize {
		return nil, fmt.Errorf("credential: vault: what the key %s has signed cannot be read", key)
	}
	return sig, nil
}

var errNoTransit = errors.New("credential: vault: there is none, or the key is not MOUNT/NAME")

func (v *Vault) transit(ctx context.Context, do, key string, body, into any) error {
	mount, name, ok := strings.Cut(key, "/")
	if v == nil || !ok {
		return errNoTransit
	}
	return v.call(ctx, http.MethodPost, mount+"/"+do+"/"+name, body, into)
}
