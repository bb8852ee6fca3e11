// Package fetch gets a plugin's module from where its reference says, and lets only that module pass which the
// operator meant: by its digest, by the lock file, and by its signature.
package fetch

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core/download"
)

// The words that a reference begins with when it is no file.
const (
	Builtin = "builtin:"
	OCI     = "oci://"
	HTTPS   = "https://"
	HTTP    = "http://"
)

// maxModule bounds a module, in bytes, before anything looks at it.
const maxModule = 32 << 20

// downloadTime bounds getting one module over the network.
const downloadTime = 2 * time.Minute

// Source says which module is meant.
type Source struct {
	Ref       string // a file, builtin:NAME, https://…, http://… on loopback, or oci://HOST/REPO[:TAG]@sha256:…
	SHA256    string // of the module, in hex; needed for http and https
	Signature string // a file or URL; empty: beside the module
	// Keys are the public keys of which one must have signed the module; none: no signature is asked for. A builtin
	// module is part of the program and is not asked.
	Keys []ed25519.PublicKey
	// User and Password are for the server that the module is on.
	User, Password string
}

// Module is a module that is what its Source says.
type Module struct {
	Ref    string // pinned: with an OCI reference, the manifest's digest is in it
	SHA256 string // in hex
	Signer string // the public key that signed it, in base64; empty when none was asked for
	Bytes  []byte
}

// Fetcher gets modules.
type Fetcher struct {
	Builtin fs.FS  // builtin:NAME reads NAME/NAME.wasm
	Dir     string // where downloads are kept, by digest; empty: nowhere
	// ReadOnly leaves Dir as it is.
	ReadOnly bool
	// Unpinned lets a reference name something whose digest is not known yet, to find it out. Nothing is then taken
	// from Dir.
	Unpinned bool
}

// Error is a problem with one part of a source: "wasm", "sha256", "signature", or "public_keys".
type Error struct {
	Part string
	Hint string
	Err  error
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap implements errors.Unwrap.
func (e *Error) Unwrap() error { return e.Err }

func bad(part, hint, format string, args ...any) error {
	return &Error{Part: part, Hint: hint, Err: fmt.Errorf(format, args...)}
}

var digestShape = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Remote reports whether a reference leads over the network.
func Remote(ref string) bool { return strings.Contains(ref, "://") }

// Get returns the module that s means.
func (f *Fetcher) Get(ctx context.Context, s Source) (*Module, error) {
	s.SHA256 = strings.TrimPrefix(strings.ToLower(s.SHA256), "sha256:")
	if s.SHA256 != "" && !digestShape.MatchString(s.SHA256) {
		return nil, bad("sha256", "sha256sum FILE prints it", "is not a SHA-256 in 64 hexadecimal digits")
	}
	ctx, cancel := context.WithTimeout(ctx, downloadTime)
	defer cancel()
	m := &Module{Ref: s.Ref}
	var signature []byte // that came with the module
	var err error
	switch {
	case strings.HasPrefix(s.Ref, Builtin):
		if m.Bytes, err = f.builtin(strings.TrimPrefix(s.Ref, Builtin)); err != nil {
			return nil, err
		}
		s.Keys = nil
	case strings.HasPrefix(s.Ref, OCI):
		signature, err = f.oci(ctx, &s, m)
	case strings.HasPrefix(s.Ref, HTTPS), strings.HasPrefix(s.Ref, HTTP):
		err = f.download(ctx, &s, m)
	case Remote(s.Ref):
		return nil, bad("wasm", "use https:// or oci://, or name a file", "%q: this build cannot fetch that", s.Ref)
	default:
		m.Bytes, err = readFile(s.Ref, maxModule)
	}
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			return nil, err
		}
		return nil, &Error{Part: "wasm", Err: err}
	}
	m.SHA256 = sumOf(m.Bytes)
	if s.SHA256 != "" && m.SHA256 != s.SHA256 {
		return nil, bad("sha256", "somebody changed the module, or the digest is of another one", "%s has the SHA-256 %s, not %s", s.Ref, m.SHA256, s.SHA256)
	}
	if len(s.Keys) == 0 {
		return m, nil
	}
	return m, f.verify(ctx, &s, m, signature)
}

func (f *Fetcher) builtin(name string) ([]byte, error) {
	if f.Builtin != nil && fs.ValidPath(name) && name != "." && !strings.Contains(name, "/") {
		if b, err := fs.ReadFile(f.Builtin, name+"/"+name+".wasm"); err == nil {
			return b, nil
		}
	}
	return nil, bad("wasm", hintBuiltin(f.Builtin), "there is no builtin plugin %q in this build", name)
}

func hintBuiltin(f fs.FS) string {
	if f == nil {
		return ""
	}
	var names []string
	entries, _ := fs.ReadDir(f, ".")
	for _, e := range entries {
		if _, err := fs.Stat(f, e.Name()+"/"+e.Name()+".wasm"); err == nil {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return "make plugins builds them, before the program is built"
	}
	return "builtin plugins are: " + strings.Join(names, ", ")
}

func readFile(path string, most int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	return download.ReadAll(file, path, most)
}

func sumOf(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// safe refuses a URL whose answer somebody else could change or read along.
func safe(u *url.URL) error {
	switch {
	case u.Host == "":
		return fmt.Errorf("%q names no host", u.Redacted())
	case u.User != nil:
		return errors.New("a reference holds no password: give the plugin a credential")
	}
	return download.Safe(u)
}
