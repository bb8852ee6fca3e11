package ledger

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Names of the key's files inside the key directory.
const (
	keyFile = "ledger.key" // the signing key, mode 0600, in the form of golang.org/x/mod/sumdb/note
	pubFile = "ledger.pub" // the verifier key: what an auditor needs
)

// openKey reads the signing key of dir, and makes one at the first start.
func openKey(dir string) (note.Signer, string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", fmt.Errorf("ledger: key directory: %w", err)
	}
	path := filepath.Join(dir, keyFile)
	secret, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(dir)
	}
	if err != nil {
		return nil, "", fmt.Errorf("ledger: signing key: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", fmt.Errorf("ledger: signing key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, "", fmt.Errorf("ledger: signing key %s can be read by others (mode %o): chmod 600 it, and make a new key if others may have", path, info.Mode().Perm())
	}
	signer, err := note.NewSigner(strings.TrimSpace(string(secret)))
	if err != nil {
		return nil, "", fmt.Errorf("ledger: %s does not hold a signing key: restore it from a backup", path)
	}
	public, err := os.ReadFile(filepath.Join(dir, pubFile))
	if err != nil {
		return nil, "", fmt.Errorf("ledger: verifier key: %w", err)
	}
	v, err := note.NewVerifier(strings.TrimSpace(string(public)))
	if err != nil || v.Name() != signer.Name() || v.KeyHash() != signer.KeyHash() {
		return nil, "", fmt.Errorf("ledger: %s does not belong to %s: restore both from the same backup", pubFile, path)
	}
	return signer, strings.TrimSpace(string(public)), nil
}

func makeKey(dir string) (note.Signer, string, error) {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand crashes the process instead
	secret, public, err := note.GenerateKey(rand.Reader, "weir-ledger-"+hex.EncodeToString(b[:]))
	if err != nil {
		return nil, "", fmt.Errorf("ledger: new key: %w", err)
	}
	// The public key first: a signing key is never without its verifier key.
	if err := writeFile(filepath.Join(dir, pubFile), []byte(public+"\n"), 0o644); err != nil {
		return nil, "", fmt.Errorf("ledger: new key: %w", err)
	}
	if err := writeFile(filepath.Join(dir, keyFile), []byte(secret+"\n"), 0o600); err != nil {
		return nil, "", fmt.Errorf("ledger: new key: %w", err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, "", fmt.Errorf("ledger: new key: %w", err)
	}
	return signer, public, nil
}

// writeFile replaces a file in one step, durably.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
