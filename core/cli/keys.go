package cli

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/weir-gateway/weir/core/config"
)

// The folders and files inside data.
func keysDir(c *config.Config) string   { return filepath.Join(c.Data, "keys") }
func tlsDir(c *config.Config) string    { return filepath.Join(c.Data, "tls") }
func ledgerDir(c *config.Config) string { return filepath.Join(c.Data, "ledger") }
func indexPath(c *config.Config) string { return filepath.Join(c.Data, "index.db") }

// policiesDir keeps the bundles that were fetched.
func policiesDir(c *config.Config) string { return filepath.Join(c.Data, "policies") }

func cacheDir(c *config.Config) string { return filepath.Join(c.Data, "cache") }

func pluginsDir(c *config.Config) string { return filepath.Join(c.Data, "plugins") }

const secretSize = 32

// maskKey reads the key that masks hash with: the same value must give the same token after a restart.
func maskKey(dir string) ([]byte, error) { return secret(dir, "mask.key") }

// protocolsKey reads the key that the keys of protocols are made from.
func protocolsKey(dir string) ([]byte, error) { return secret(dir, "protocols.key") }

// secret reads a key, and makes it at first use.
func secret(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	for {
		key, err := os.ReadFile(path)
		if err == nil {
			if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
				return nil, fmt.Errorf("%s can be read by others (mode %04o): chmod 600 it, and think about who has read it", path, info.Mode().Perm())
			}
			if len(key) != secretSize {
				return nil, fmt.Errorf("%s is not a key of %d bytes", path, secretSize)
			}
			return key, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		f, err := os.CreateTemp(dir, ".key-*") // mode 0600
		if err != nil {
			return nil, err
		}
		fresh := make([]byte, secretSize)
		_, _ = rand.Read(fresh)
		_, err = f.Write(fresh)
		err = errors.Join(err, f.Sync(), f.Close())
		if err == nil {
			err = os.Link(f.Name(), path)
		}
		_ = os.Remove(f.Name())
		if err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
}
