package keyring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
)

// LocalFile is the name of the identity that is made at the first start, in the form of age-keygen. Its first key wraps;
// all of them unwrap, so that it can be changed.
const LocalFile = "recordings.key"

// Local reads the identity in dir, and makes it where there is none.
func Local(dir string) ([]*age.X25519Identity, error) {
	path := filepath.Join(dir, LocalFile)
	ids, err := ReadIdentities(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeLocal(dir, nil)
	}
	if err != nil {
		return nil, err
	}
	return own(path, ids)
}

func own(path string, ids []age.Identity) ([]*age.X25519Identity, error) {
	var out []*age.X25519Identity
	for _, id := range ids {
		x, ok := id.(*age.X25519Identity)
		if !ok {
			return nil, fmt.Errorf("keyring: %s holds a key that age-keygen does not make", path)
		}
		out = append(out, x)
	}
	return out, nil
}

// RotateLocal puts a new key before those of the identity in dir: recording keys are wrapped for it from the next start on,
// or by Rewrap.
func RotateLocal(dir string) (*age.X25519Identity, error) {
	old, err := Local(dir)
	if err != nil {
		return nil, err
	}
	all, err := makeLocal(dir, old)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

func makeLocal(dir string, behind []*age.X25519Identity) ([]*age.X25519Identity, error) {
	fresh, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	all := append([]*age.X25519Identity{fresh}, behind...)
	var b strings.Builder
	fmt.Fprintf(&b, "# Opens what Weir recorded. Written %s; the first key wraps new recordings.\n", time.Now().UTC().Format(time.RFC3339))
	for _, id := range all {
		fmt.Fprintf(&b, "# public key: %s\n%s\n", id.Recipient(), id)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	f, err := os.CreateTemp(dir, ".recordings-*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	_, err = f.WriteString(b.String())
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil && behind == nil {
		err = os.Link(f.Name(), filepath.Join(dir, LocalFile)) // two first starts: the second goes on with the first one's
		_ = os.Remove(f.Name())
		if errors.Is(err, fs.ErrExist) {
			return Local(dir)
		}
	} else if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, LocalFile))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return nil, fmt.Errorf("keyring: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	return all, errors.Join(d.Sync(), d.Close())
}

// ReadIdentities reads a file of identities, in the form of age-keygen. Others must not be able to read it.
func ReadIdentities(path string) ([]age.Identity, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("keyring: %s can be read by others (mode %o): chmod 600 it, and make a new key if others may have", path, info.Mode().Perm())
	}
	ids, err := age.ParseIdentities(f)
	if err != nil { // its own error may quote the line
		return nil, fmt.Errorf("keyring: %s holds no identity of age (a line AGE-SECRET-KEY-1…)", path)
	}
	return ids, nil
}

// ParseRecipient reads the public key of somebody who may read recordings: age1….
func ParseRecipient(s string) (age.Recipient, error) {
	list, err := age.ParseRecipients(strings.NewReader(s))
	if err != nil || len(list) != 1 {
		return nil, errors.New("keyring: it is no public key of age (age1…)") // somebody may have given the private one
	}
	return list[0], nil
}

// Transit encrypts and decrypts with a key that does not leave where it is, as Vault's transit engine does.
type Transit interface {
	Encrypt(ctx context.Context, key string, plain []byte) (string, error)
	Decrypt(ctx context.Context, key, sealed string) ([]byte, error)
}

// transitStanza is the type of a stanza (age-encryption.org/v1, "Recipient stanza") whose body is what a Transit returned.
const transitStanza = "weir-transit"

// transitTime bounds one call.
const transitTime = 10 * time.Second

// InTransit is a recipient and an identity: a key that stays in a Vault.
type InTransit struct {
	By  Transit
	Key string // as the Vault's path has it: MOUNT/NAME
}

// Wrap implements age.Recipient.
func (t *InTransit) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	ctx, cancel := context.WithTimeout(context.Background(), transitTime)
	defer cancel()
	sealed, err := t.By.Encrypt(ctx, t.Key, fileKey)
	if err != nil {
		return nil, err
	}
	return []*age.Stanza{{Type: transitStanza, Args: []string{t.Key}, Body: []byte(sealed)}}, nil
}

// Unwrap implements age.Identity.
func (t *InTransit) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, s := range stanzas {
		if s.Type != transitStanza || len(s.Args) != 1 || s.Args[0] != t.Key {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), transitTime)
		defer cancel()
		return t.By.Decrypt(ctx, t.Key, string(s.Body))
	}
	return nil, age.ErrIncorrectIdentity
}

var (
	_ age.Recipient = (*InTransit)(nil)
	_ age.Identity  = (*InTransit)(nil)
)
