package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/weir-gateway/weir/core/archive/segment"
)

// keysDir is where the records of recording keys lie, a file each.
const keysDir = "keys"

func (s *Store) keyPath(name string) (string, error) {
	if !segment.ValidKey(name) {
		return "", fmt.Errorf("archive: %q names no recording key", name)
	}
	return filepath.Join(s.dir, keysDir, segment.KeyName(name)), nil
}

// PutKey keeps the record of a recording key; when it returns nil it is durable.
func (s *Store) PutKey(_ context.Context, name string, record []byte) error {
	path, err := s.keyPath(name)
	if err != nil {
		return err
	}
	if s.o.ReadOnly {
		return errors.New("archive: the store is open for reading only")
	}
	dir := filepath.Dir(path)
	if err := os.Mkdir(dir, 0o700); err == nil {
		err = syncDir(s.dir)
		if err != nil {
			return fmt.Errorf("archive: %w", err)
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("archive: %w", err)
	}
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	_, err = f.Write(record)
	if err == nil {
		err = s.sync(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("archive: key %s: %w", name, err), removeIfThere(f.Name()))
	}
	return nil
}

// Key returns the record of a recording key, or an error that wraps fs.ErrNotExist.
func (s *Store) Key(_ context.Context, name string) ([]byte, error) {
	path, err := s.keyPath(name)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("archive: key %s: %w", name, err)
	}
	return b, nil
}

// Keys calls f with the name of each recording key that has a record.
func (s *Store) Keys(ctx context.Context, f func(name string) error) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, keysDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("archive: %w", err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := segment.Key(e.Name()); ok {
			names = append(names, name)
		}
	}
	return segment.Each(ctx, names, f)
}

// DropKey removes the record of a recording key for good.
func (s *Store) DropKey(_ context.Context, name string) error {
	path, err := s.keyPath(name)
	if err != nil {
		return err
	}
	if s.o.ReadOnly {
		return errors.New("archive: the store is open for reading only")
	}
	if err := removeIfThere(path); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("archive: %w", err)
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
