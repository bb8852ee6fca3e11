package ledger

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Names of the key's files inside the key directory.
const (
	// keyFile is the signing key, mode 0600, in the form of golang.org/x/mod/sumdb/note; or, of a key that stays in a Vault,
	// "vault", its path and its version.
	keyFile = "ledger.key"
	pubFile = "ledger.pub" // the verifier key: what an auditor needs
	// nextFile ends the names of the files of a key that is about to take the place of these.
	nextFile = ".next"
)

// Remote signs with keys that do not leave where they are, as Vault's transit engine does. Keys are Ed25519.
type Remote interface {
	// Public returns the public half of a version of a key; version 0 is the newest. It says which one it is.
	Public(ctx context.Context, key string, version int) (ed25519.PublicKey, int, error)
	Sign(ctx context.Context, key string, version int, message []byte) ([]byte, error)
}

// KeyConfig says where the signing key is.
type KeyConfig struct {
	Dir string // of its files
	// Name is a Remote's key that a log which is made, or whose key is rotated, is signed with. Empty: one that is made in Dir.
	Name   string
	Remote Remote // nil: there is none
}

const remoteTime = 10 * time.Second

// signingKey is a key of the log.
type signingKey struct {
	note.Signer
	public string // the verifier key
	stored string // what its file holds
}

// open reads the signing key, and makes one at the first start.
func (c *KeyConfig) open() (*signingKey, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("ledger: key directory: %w", err)
	}
	k, err := c.read("")
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand crashes the process instead
	if k, err = c.make("weir-ledger-" + hex.EncodeToString(b[:])); err != nil {
		return nil, err
	}
	return k, c.write(k, "")
}

// read reads the key whose files end so.
func (c *KeyConfig) read(end string) (*signingKey, error) {
	path := filepath.Join(c.Dir, keyFile+end)
	secret, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ledger: signing key: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("ledger: signing key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("ledger: signing key %s can be read by others (mode %o): chmod 600 it, and make a new key if others may have", path, info.Mode().Perm())
	}
	public, err := os.ReadFile(filepath.Join(c.Dir, pubFile+end))
	if err != nil {
		return nil, fmt.Errorf("ledger: verifier key: %v", err) // not "does not exist": there is a signing key
	}
	k := &signingKey{public: strings.TrimSpace(string(public)), stored: strings.TrimSpace(string(secret))}
	v, err := note.NewVerifier(k.public)
	if err != nil {
		return nil, fmt.Errorf("ledger: %s does not hold a verifier key: restore it from a backup", filepath.Join(c.Dir, pubFile+end))
	}
	if words := strings.Fields(k.stored); len(words) == 3 && words[0] == "vault" {
		version, err := strconv.Atoi(words[2])
		if err != nil || version < 1 {
			return nil, fmt.Errorf("ledger: %s does not say where the signing key is: restore it from a backup", path)
		}
		if c.Remote == nil {
			return nil, fmt.Errorf("ledger: the signing key is %s in a Vault, and the configuration names none: set vault.address", words[1])
		}
		k.Signer = &remoteSigner{v, c.Remote, words[1], version}
		return k, nil
	}
	if k.Signer, err = note.NewSigner(k.stored); err != nil {
		return nil, fmt.Errorf("ledger: %s does not hold a signing key: restore it from a backup", path)
	}
	if v.Name() != k.Name() || v.KeyHash() != k.KeyHash() {
		return nil, fmt.Errorf("ledger: %s does not belong to %s: restore both from the same backup", pubFile+end, path)
	}
	return k, nil
}

// make makes a key of a name.
func (c *KeyConfig) make(name string) (*signingKey, error) {
	if c.Name == "" {
		secret, public, err := note.GenerateKey(rand.Reader, name)
		if err != nil {
			return nil, fmt.Errorf("ledger: new key: %w", err)
		}
		signer, err := note.NewSigner(secret)
		if err != nil {
			return nil, fmt.Errorf("ledger: new key: %w", err)
		}
		return &signingKey{signer, public, secret}, nil
	}
	if c.Remote == nil {
		return nil, fmt.Errorf("ledger: the signing key is to be %s in a Vault, and there is none", c.Name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), remoteTime)
	defer cancel()
	key, version, err := c.Remote.Public(ctx, c.Name, 0)
	if err != nil {
		return nil, fmt.Errorf("ledger: signing key: %w", err)
	}
	public, err := note.NewEd25519VerifierKey(name, key)
	if err != nil {
		return nil, fmt.Errorf("ledger: signing key %s: %w", c.Name, err)
	}
	v, err := note.NewVerifier(public)
	if err != nil {
		return nil, fmt.Errorf("ledger: signing key %s: %w", c.Name, err)
	}
	return &signingKey{&remoteSigner{v, c.Remote, c.Name, version}, public, fmt.Sprintf("vault %s %d", c.Name, version)}, nil
}

// write writes a key's files. The public key first: a signing key is never without its verifier key.
func (c *KeyConfig) write(k *signingKey, end string) error {
	if err := writeFile(filepath.Join(c.Dir, pubFile+end), []byte(k.public+"\n"), 0o644); err != nil {
		return fmt.Errorf("ledger: new key: %w", err)
	}
	if err := writeFile(filepath.Join(c.Dir, keyFile+end), []byte(k.stored+"\n"), 0o600); err != nil {
		return fmt.Errorf("ledger: new key: %w", err)
	}
	return nil
}

// settle ends a rotation that was cut short: the next key takes its place if it is the log's newest, and else it never was.
func (c *KeyConfig) settle(newest string) error {
	next, err := c.read(nextFile)
	if err == nil && next.public == newest {
		return c.adopt(next)
	}
	var left []error
	for _, name := range []string{keyFile, pubFile} {
		if err := os.Remove(filepath.Join(c.Dir, name+nextFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			left = append(left, err)
		}
	}
	return errors.Join(left...)
}

// adopt makes the next key the present one. The old public key stays, under its hash.
func (c *KeyConfig) adopt(next *signingKey) error {
	if old, err := os.ReadFile(filepath.Join(c.Dir, pubFile)); err == nil && strings.TrimSpace(string(old)) != next.public {
		v, err := note.NewVerifier(strings.TrimSpace(string(old)))
		if err == nil {
			err = writeFile(filepath.Join(c.Dir, fmt.Sprintf("ledger-%08x.pub", v.KeyHash())), old, 0o644)
		}
		if err != nil {
			return fmt.Errorf("ledger: the old public key: %w", err)
		}
	}
	if err := c.write(next, ""); err != nil {
		return err
	}
	for _, name := range []string{keyFile, pubFile} {
		if err := os.Remove(filepath.Join(c.Dir, name+nextFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("ledger: %w", err)
		}
	}
	return nil
}

// remoteSigner signs with a key that is elsewhere.
type remoteSigner struct {
	note.Verifier
	by      Remote
	key     string
	version int
}

// Sign implements note.Signer.
func (s *remoteSigner) Sign(message []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), remoteTime)
	defer cancel()
	sig, err := s.by.Sign(ctx, s.key, s.version, message)
	if err == nil && !s.Verify(message, sig) {
		err = fmt.Errorf("ledger: the key %s in the Vault is not the one that %s is of", s.key, pubFile)
	}
	return sig, err
}

// A rotation is a leaf that the old key has signed: weir1 key OLD NEW TIME SIGNATURE.

// keyMessage is what the old key signs.
func (l *Leaf) keyMessage(b []byte) []byte {
	b = append(b, leafVersion+" "...)
	b = append(append(b, l.Kind...), ' ')
	b = append(append(b, l.OldKey...), ' ')
	b = append(append(b, l.NewKey...), ' ')
	return strconv.AppendInt(b, l.Time.UnixNano(), 10)
}

// parseKeyLeaf reads the words of a rotation, and checks the signature.
func parseKeyLeaf(f []string) (l Leaf, err error) {
	if len(f) != 6 {
		return l, fmt.Errorf("a leaf of kind %s has %d words, not 6", LeafKey, len(f))
	}
	l = Leaf{Kind: LeafKey, OldKey: f[2], NewKey: f[3]}
	ns, err := strconv.ParseInt(f[4], 10, 64)
	if err != nil {
		return l, errors.New("a number is malformed")
	}
	l.Time = time.Unix(0, ns).UTC()
	if l.Signature, err = base64.StdEncoding.DecodeString(f[5]); err != nil {
		return l, errors.New("the signature is malformed")
	}
	old, err := note.NewVerifier(l.OldKey)
	if err != nil {
		return l, errors.New("the old key is malformed")
	}
	if fresh, err := note.NewVerifier(l.NewKey); err != nil || fresh.Name() != old.Name() {
		return l, errors.New("the new key is malformed, or of another log")
	}
	if !old.Verify(l.keyMessage(nil), l.Signature) {
		return l, errors.New("the old key has not signed the new one")
	}
	return l, nil
}

// keysOf returns the keys that a log may be signed with for somebody who has one of them: each signs its successor. What came
// before it is not among them: anybody can write that a key of theirs was followed by this one.
func keysOf(publicKey string, rotations []Leaf) []string {
	out := []string{strings.TrimSpace(publicKey)}
	for _, l := range rotations {
		if l.OldKey == out[len(out)-1] {
			out = append(out, l.NewKey)
		}
	}
	return out
}

// earlier returns the public keys that were in the place of the present one.
func (c *KeyConfig) earlier() (out []string, err error) {
	names, err := filepath.Glob(filepath.Join(c.Dir, "ledger-*.pub"))
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("ledger: %w", err)
		}
		out = append(out, strings.TrimSpace(string(b)))
	}
	return out, nil
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
