package credential

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
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

func (v *Vault) transit(ctx context.Context, do, key string, body, into any) error {
	mount, name, ok := strings.Cut(key, "/")
	if v == nil || !ok {
		return errors.New("credential: vault: there is none, or the key is not MOUNT/NAME")
	}
	return v.call(ctx, http.MethodPost, mount+"/"+do+"/"+name, body, into)
}
