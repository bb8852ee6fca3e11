// Package plugins holds the shipped guests: a folder each, built by `make plugins` to NAME/NAME.wasm, and packed beside it.
// builtin:NAME in the configuration reads from it.
package plugins

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// The packed guests, and the sources and READMEs, so that the pattern always matches. A guest is there if it was built before this
// program was.
//
//go:embed */*.[gm]*
var files embed.FS

// FS has NAME/NAME.wasm of each guest that was built, and what else is in the folders. A Go guest has 2 MB, and a third of
// that packed: it is unpacked when it is opened.
var FS fs.FS = packed{files}

const (
	module = ".wasm"
	suffix = ".gz"
	// most bounds an unpacked guest: there are a few lines between this and whoever builds the program.
	most = 64 << 20
)

type packed struct{ embed.FS }

// Open opens a module unpacked, and everything else as it is.
func (p packed) Open(name string) (fs.File, error) {
	if !strings.HasSuffix(name, module) {
		return p.FS.Open(name)
	}
	b, err := p.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return &unpacked{*bytes.NewReader(b), name[strings.LastIndexByte(name, '/')+1:]}, nil
}

// ReadFile reads a module unpacked, and everything else as it is.
func (p packed) ReadFile(name string) ([]byte, error) {
	if !strings.HasSuffix(name, module) {
		return p.FS.ReadFile(name)
	}
	b, err := p.FS.ReadFile(name + suffix)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("plugins: %s: %w", name, err)
	}
	out, err := io.ReadAll(io.LimitReader(z, most))
	if err != nil {
		return nil, fmt.Errorf("plugins: %s: %w", name, err)
	}
	return out, nil
}

// unpacked is a module, open.
type unpacked struct {
	bytes.Reader
	name string
}

func (u *unpacked) Stat() (fs.FileInfo, error) { return u, nil }
func (u *unpacked) Close() error               { return nil }
func (u *unpacked) Name() string               { return u.name }
func (u *unpacked) Mode() fs.FileMode          { return 0o444 }
func (u *unpacked) ModTime() time.Time         { return time.Time{} }
func (u *unpacked) IsDir() bool                { return false }
func (u *unpacked) Sys() any                   { return nil }
