package fetch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Lock is what a lock file says: which modules were meant when it was written. Builtin ones are not in it: they change
// with the program.
type Lock struct {
	Version int      `json:"version"`
	Plugins []Locked `json:"plugins"`
}

// Locked is one plugin of a lock.
type Locked struct {
	Name   string `json:"name"`
	Ref    string `json:"ref"` // as it stands in the configuration
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

const maxLock = 4 << 20

// LockFile is where the lock of a configuration is: weir.lock beside weir.yaml.
func LockFile(config string) string {
	return strings.TrimSuffix(config, filepath.Ext(config)) + ".lock"
}

// ReadLock reads a lock file; nil when there is none.
func ReadLock(path string) (*Lock, error) {
	b, err := readFile(path, maxLock)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	l := &Lock{}
	if err := d.Decode(l); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if d.More() || l.Version != 1 {
		return nil, fmt.Errorf("%s is not a lock of version 1", path)
	}
	seen := map[string]bool{}
	for _, p := range l.Plugins {
		if p.Name == "" || seen[p.Name] || !digestShape.MatchString(p.SHA256) {
			return nil, fmt.Errorf("%s: plugin %q stands twice, or has no digest", path, p.Name)
		}
		seen[p.Name] = true
	}
	return l, nil
}

// Write replaces the file at path.
func (l *Lock) Write(path string) error {
	slices.SortFunc(l.Plugins, func(a, b Locked) int { return strings.Compare(a.Name, b.Name) })
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".lock-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(b, '\n'))
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}

// Lock makes the entry of a plugin.
func (m *Module) Lock(name, ref string) Locked {
	return Locked{Name: name, Ref: ref, SHA256: m.SHA256, Size: int64(len(m.Bytes))}
}

// relock is what to do about a lock that does not fit.
const relock = "if the change is meant: weir plugin lock"

// Check refuses a module that is not the one that was locked. A nil lock has no opinion.
func (l *Lock) Check(name, ref string, m *Module) error {
	if l == nil || strings.HasPrefix(ref, Builtin) {
		return nil
	}
	i := slices.IndexFunc(l.Plugins, func(p Locked) bool { return p.Name == name })
	if i < 0 {
		return bad("wasm", relock, "%q is not in the lock file", name)
	}
	switch p := l.Plugins[i]; {
	case p.Ref != ref:
		return bad("wasm", relock, "the lock file has %s for %q", p.Ref, name)
	case p.SHA256 != m.SHA256 || p.Size != int64(len(m.Bytes)):
		return bad("wasm", relock, "%s has the SHA-256 %s, and the lock file has %s", ref, m.SHA256, p.SHA256)
	}
	return nil
}

// Unused returns the locked plugins that are not among names.
func (l *Lock) Unused(names []string) (unused []string) {
	if l == nil {
		return nil
	}
	for _, p := range l.Plugins {
		if !slices.Contains(names, p.Name) {
			unused = append(unused, p.Name)
		}
	}
	return unused
}
