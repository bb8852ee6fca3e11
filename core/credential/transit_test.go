package credential

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
)

// What a transit key has encrypted it decrypts; a key is where it is named, and nothing else is asked for.
func TestTransit(t *testing.T) {
	s, v, _ := vault(t)
	secret := []byte("\x00a file key\xff")
	sealed, err := v.Encrypt(t.Context(), "transit/weir", secret)
	if err != nil || strings.Contains(sealed, "file key") {
		t.Fatal(sealed, err)
	}
	if got, err := v.Decrypt(t.Context(), "transit/weir", sealed); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("%q, %v", got, err)
	}
	for name, f := range map[string]func() error{
		"another key's":   func() error { _, err := v.Decrypt(t.Context(), "transit/other", sealed); return err },
		"changed":         func() error { _, err := v.Decrypt(t.Context(), "transit/weir", sealed+"x"); return err },
		"an unknown key":  func() error { _, err := v.Encrypt(t.Context(), "transit/nobody", secret); return err },
		"no mount":        func() error { _, err := v.Encrypt(t.Context(), "weir", secret); return err },
		"no Vault at all": func() error { var none *Vault; _, err := none.Encrypt(t.Context(), "transit/weir", secret); return err },
	} {
		if err := f(); err == nil || strings.Contains(err.Error(), sealed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.set(func() { s.down = true })
	if _, err := v.Encrypt(t.Context(), "transit/weir", secret); err == nil {
		t.Error("encrypted by a Vault that is down")
	}
}

// What a Vault signs is verified with the public half that it gives, of the version that was asked for.
func TestTransitSigns(t *testing.T) {
	s, v, _ := vault(t)
	public, version, err := v.Public(t.Context(), "transit/log", 0)
	if err != nil || version != 2 {
		t.Fatal(version, err)
	}
	sig, err := v.Sign(t.Context(), "transit/log", 2, []byte("a checkpoint"))
	if err != nil || !ed25519.Verify(public, []byte("a checkpoint"), sig) {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"a key that encrypts":     func() error { _, _, err := v.Public(t.Context(), "transit/weir", 0); return err },
		"a malformed public half": func() error { _, _, err := v.Public(t.Context(), "transit/log", 1); return err },
		"no such version":         func() error { _, _, err := v.Public(t.Context(), "transit/log", 3); return err },
		"another version signs":   func() error { _, err := v.Sign(t.Context(), "transit/log", 1, nil); return err },
		"no mount":                func() error { _, _, err := v.Public(t.Context(), "log", 0); return err },
		"no Vault at all":         func() error { var none *Vault; _, err := none.Sign(t.Context(), "transit/log", 2, nil); return err },
	} {
		if f() == nil {
			t.Error(name)
		}
	}
	s.set(func() { s.down = true })
	if _, err := v.Sign(t.Context(), "transit/log", 2, nil); err == nil {
		t.Error("signed by a Vault that is down")
	}
}
