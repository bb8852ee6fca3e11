package fetch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

func (f *Fetcher) file(sum string) string { return filepath.Join(f.Dir, "sha256-"+sum) }

// cached returns what is kept under a digest, or nil. A file that is not what its name says is none: it is fetched
// again.
func (f *Fetcher) cached(sum string) []byte {
	if f.Dir == "" || sum == "" || f.Unpinned {
		return nil
	}
	b, err := readFile(f.file(sum), maxModule)
	if err != nil || sumOf(b) != sum {
		return nil
	}
	return b
}

// keep writes b under its digest.
func (f *Fetcher) keep(sum string, b []byte) error {
	if f.Dir == "" || f.ReadOnly {
		return nil
	}
	return f.write(f.file(sum), b)
}

func (f *Fetcher) write(path string, b []byte) error {
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return fmt.Errorf("plugins cannot be kept: %w", err)
	}
	if info, err := os.Stat(f.Dir); err != nil {
		return err
	} else if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s has mode %v, and what is in it is run: chmod 700 it", f.Dir, info.Mode().Perm())
	}
	tmp, err := os.CreateTemp(f.Dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}
