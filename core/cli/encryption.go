package cli

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
)

// recordings is how what is recorded is encrypted and read.
type recordings struct {
	to   []age.Recipient
	with []age.Identity
}

// openRecordings reads the keys. With makes the local one is made where it is missing.
func openRecordings(c *config.Config, makes bool, log *slog.Logger) (*recordings, error) {
	r := &recordings{}
	vault, err := vaultOf(c, log)
	if err != nil {
		return nil, err
	}
	for _, name := range c.Encryption.Recipients {
		if key, ok := config.TransitKey(name); ok {
			t := &keyring.InTransit{By: vault, Key: key}
			r.to, r.with = append(r.to, t), append(r.with, t)
			continue
		}
		if name != config.RecipientLocal {
			to, err := keyring.ParseRecipient(name)
			if err != nil {
				return nil, err
			}
			r.to = append(r.to, to)
			continue
		}
		if !makes {
			continue
		}
		local, err := keyring.Local(keysDir(c))
		if err != nil {
			return nil, err
		}
		r.to = append(r.to, local[0].Recipient())
	}
	files := c.Encryption.Identities
	local := filepath.Join(keysDir(c), keyring.LocalFile)
	if _, err := os.Stat(local); err == nil { // also when it is not a recipient any more
		files = append(files[:len(files):len(files)], local)
	}
	for _, path := range files {
		ids, err := keyring.ReadIdentities(path)
		if err != nil {
			return nil, err
		}
		r.with = append(r.with, ids...)
	}
	return r, nil
}

// recordingKeys makes recording keys for a journal; nil where nothing is encrypted. Whom they are wrapped for is read each
// time, so that a local key that was rotated counts at once.
func recordingKeys(c *config.Config, gateway string, log *slog.Logger) func(subject, issuer, session string) (*ledger.RecordingKey, []byte, error) {
	if !c.Encryption.On() {
		return nil
	}
	return func(subject, issuer, session string) (*ledger.RecordingKey, []byte, error) {
		r, err := openRecordings(c, true, log)
		if err != nil {
			return nil, nil, err
		}
		return keyring.Make(keyring.Record{Subject: subject, Issuer: issuer, Session: session, Gateway: gateway, Created: time.Now()}, r.to...)
	}
}

// openReading opens an archive to read some sessions, encrypted ones as far as keys are at hand: that of the configuration, if
// one may, or the copy that where names.
func (a *app) openReading(ctx context.Context, path, where string, r gateway.Reading) (keyring.Reader, error) {
	if where == "" {
		c, err := load(path)
		if err == nil {
			err = a.reads(ctx, c, r)
		}
		if err != nil {
			return keyring.Reader{}, err
		}
		return a.openReadingOf(ctx, c)
	}
	return a.openCopy(ctx, where)
}

// openCopy opens an archive without a configuration.
func (a *app) openCopy(ctx context.Context, where string) (keyring.Reader, error) {
	s, err := openStore(ctx, where)
	if err != nil {
		return keyring.Reader{}, err
	}
	return a.readingOf(nil, s)
}

// openReadingOf opens a configuration's first store, for who may.
func (a *app) openReadingOf(ctx context.Context, c *config.Config) (keyring.Reader, error) {
	s, err := openConfigured(ctx, c, &c.Archive[0], true)
	if err != nil {
		return keyring.Reader{}, err
	}
	return a.readingOf(c, s)
}

func (a *app) readingOf(c *config.Config, s stored) (keyring.Reader, error) {
	ring, err := a.ringOf(c, s)
	if err != nil {
		return keyring.Reader{}, errors.Join(err, s.Close())
	}
	return keyring.Reader{Store: s, Ring: ring}, nil
}

// ringOf opens the recording keys of a store with what a configuration, which may be nil, and --identity name.
func (a *app) ringOf(c *config.Config, s stored) (*keyring.Ring, error) {
	r := &recordings{}
	if c != nil {
		var err error
		if r, err = openRecordings(c, false, slog.New(slog.DiscardHandler)); err != nil {
			return nil, unreachable(err)
		}
	}
	if a.identity != "" {
		ids, err := keyring.ReadIdentities(a.identity)
		if err != nil {
			return nil, use(err)
		}
		r.with = append(r.with, ids...)
	}
	return keyring.New(s, r.with...), nil
}

// identityFlag is that of commands that read what was recorded.
func (a *app) identityFlag(c *cobra.Command) {
	c.Flags().StringVar(&a.identity, "identity", "", "`file` of a private key of age that opens encrypted sessions (default: the configuration's)")
}
