package opa

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/util"
)

// Limits of what is read as a policy.
const (
	maxRego    = 4 << 20   // bytes of one .rego file
	maxFolder  = 128 << 20 // bytes of all files of a folder, unless Config.MaxBytes says otherwise
	maxBundle  = 64 << 20  // bytes of a bundle unpacked, unless Config.MaxBytes says otherwise
	maxFetched = 64 << 20  // bytes of a bundle as it comes from a server
	maxFiles   = 4096
)

// source is what was read: modules and data, parsed but not compiled.
type source struct {
	modules  map[string]*ast.Module // by the name shown in errors
	tests    map[string]*ast.Module // the _test.rego files
	data     map[string]any
	revision string // the SHA-256 of all of it
	manifest manifest
}

// manifest is what a bundle says of itself.
type manifest struct {
	revision string
	sequence int64 // 0: none
}

// read loads a directory, a .rego file, a bundle, or fsys, of at most so many bytes; 0: the default. Every problem is
// in the error.
func read(ctx context.Context, where string, fsys fs.FS, key *Key, most int64) (*source, error) {
	folder, unpacked := most, most
	if most <= 0 {
		folder, unpacked = maxFolder, maxBundle
	}
	bundled := strings.HasSuffix(where, ".tar.gz") || strings.HasSuffix(where, ".tgz")
	switch {
	case key != nil && (fsys != nil || !bundled):
		return nil, errors.New("a key checks the signature of a bundle .tar.gz, and this is none")
	case fsys != nil:
		return readFS(ctx, fsys, where, folder)
	case where == "":
		return nil, errors.New("no path: name a directory, a .rego file or a bundle .tar.gz")
	}
	info, err := os.Stat(where)
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		return readFS(ctx, os.DirFS(where), where, folder)
	case bundled:
		return readBundle(where, key, unpacked)
	case strings.HasSuffix(where, ".rego"):
		dir, name := filepath.Split(where)
		s := newSource()
		sum := sha256.New()
		b, err := readFile(os.DirFS(filepath.Clean(dir+".")), name, maxRego)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(b), b)
		s.revision = hex.EncodeToString(sum.Sum(nil))
		return s, s.module(where, b)
	}
	return nil, fmt.Errorf("%s is neither a directory, a .rego file nor a bundle .tar.gz", where)
}

func newSource() *source {
	return &source{modules: map[string]*ast.Module{}, tests: map[string]*ast.Module{}, data: map[string]any{}}
}

func readFile(fsys fs.FS, name string, most int64) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, fmt.Errorf("%s has %d bytes: at most %d are read%s", name, info.Size(), most, larger(most))
	}
	return fs.ReadFile(fsys, name)
}

// readFS reads the *.rego, data.json and data.yaml files of a tree. A data file's content stands under the path of
// its folder, as OPA has it. Names that begin with a dot are passed over.
func readFS(ctx context.Context, fsys fs.FS, base string, most int64) (*source, error) {
	s := newSource()
	var problems []error
	sum, total, files := sha256.New(), int64(0), 0
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if strings.HasPrefix(d.Name(), ".") && name != "." {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		rego, data := strings.HasSuffix(name, ".rego"), slices.Contains([]string{"data.json", "data.yaml", "data.yml"}, d.Name())
		if d.IsDir() || !rego && !data {
			return nil
		}
		left := most - total
		if rego {
			left = min(left, maxRego)
		}
		b, err := readFile(fsys, name, left)
		if err != nil {
			problems = append(problems, err)
			return nil
		}
		if files, total = files+1, total+int64(len(b)); files > maxFiles {
			return fmt.Errorf("more than %d files", maxFiles)
		}
		shown := filepath.ToSlash(filepath.Join(base, name))
		if !strings.HasSuffix(name, "_test.rego") {
			fmt.Fprintf(sum, "%s %d\n%s", name, len(b), b)
		}
		if rego {
			err = s.module(shown, b)
		} else {
			err = s.document(shown, path.Dir(name), b)
		}
		if err != nil {
			problems = append(problems, err)
		}
		return nil
	})
	if err != nil {
		problems = append(problems, err)
	}
	if len(problems) == 0 && len(s.modules)+len(s.tests) == 0 {
		problems = append(problems, fmt.Errorf("%s: no .rego file in it", base))
	}
	s.revision = hex.EncodeToString(sum.Sum(nil))
	return s, errors.Join(problems...)
}

func (s *source) module(name string, text []byte) error {
	m, err := ast.ParseModuleWithOpts(name, string(text), parserOptions)
	if err != nil {
		return explain(err)
	}
	called(m)
	if strings.HasSuffix(name, "_test.rego") {
		s.tests[name] = m
	} else {
		s.modules[name] = m
	}
	return nil
}

var parserOptions = ast.ParserOptions{RegoVersion: ast.RegoV1, ProcessAnnotation: true, Capabilities: capabilities}

// document puts a data file's content under its folder's path.
func (s *source) document(name, dir string, text []byte) error {
	var content any
	if err := util.Unmarshal(text, &content); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	object, ok := content.(map[string]any)
	if !ok {
		return fmt.Errorf("%s: the top of a data file is an object", name)
	}
	at := s.data
	if dir != "." {
		for part := range strings.SplitSeq(dir, "/") {
			next, ok := at[part].(map[string]any)
			if !ok {
				if _, taken := at[part]; taken {
					return fmt.Errorf("%s: %q is already a value of another data file", name, part)
				}
				next = map[string]any{}
				at[part] = next
			}
			at = next
		}
	}
	return merge(name, at, object)
}

// merge adds src to dst; the same key twice is an error, whichever file would win.
func merge(name string, dst, src map[string]any) error {
	for k, v := range src {
		have, taken := dst[k]
		if !taken {
			dst[k] = v
			continue
		}
		a, ok1 := have.(map[string]any)
		b, ok2 := v.(map[string]any)
		if !ok1 || !ok2 {
			return fmt.Errorf("%s: %q is already in another data file", name, k)
		}
		if err := merge(name, a, b); err != nil {
			return err
		}
	}
	return nil
}

// Key checks the signatures of bundles.
type Key struct {
	PEM       string // the public key
	Algorithm string // of the signature, as in RFC 7518: ES256, RS256 …
}

// larger says how more can be read, where that can be said.
func larger(most int64) string {
	if most == maxRego {
		return ""
	}
	return ": max_size sets how much a policy may have"
}

// readBundle reads an OPA bundle. With a key one that is not signed by it is refused; without, one that is signed is.
func readBundle(file string, key *Key, most int64) (*source, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, fmt.Errorf("%s has %d bytes: at most %d are read%s", file, info.Size(), most, larger(most))
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if err := measure(raw, most); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	reader := bundle.NewCustomReader(bundle.NewTarballLoaderWithBaseURL(bytes.NewReader(raw), "")).
		WithRegoVersion(ast.RegoV1).WithProcessAnnotations(true).WithCapabilities(capabilities).
		WithSizeLimitBytes(most).WithBundleName(filepath.Base(file))
	if key != nil {
		const id = "weir"
		reader = reader.WithBundleVerificationConfig(bundle.NewVerificationConfig(map[string]*bundle.KeyConfig{id: {Key: key.PEM, Algorithm: key.Algorithm}}, id, "", nil))
	}
	b, err := reader.Read()
	if err != nil {
		return nil, explain(err)
	}
	if len(b.WasmModules) > 0 || len(b.PlanModules) > 0 {
		return nil, fmt.Errorf("%s holds compiled policies: build it without -t wasm or -t plan", file)
	}
	if b.Type() == bundle.DeltaBundleType {
		return nil, fmt.Errorf("%s holds changes only: a bundle is whole, so that it can be signed", file)
	}
	s := newSource()
	for _, m := range b.Modules {
		called(m.Parsed)
		name := file + ":" + strings.TrimPrefix(m.Path, "/")
		if strings.HasSuffix(name, "_test.rego") {
			s.tests[name] = m.Parsed
		} else {
			s.modules[name] = m.Parsed
		}
	}
	if b.Data != nil {
		s.data = b.Data
	}
	sum := sha256.Sum256(raw)
	s.revision = hex.EncodeToString(sum[:])
	if s.manifest, err = manifestOf(&b.Manifest); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// measure unpacks a bundle without keeping anything: a small file can hold a very large one.
func measure(raw []byte, most int64) error {
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("it is no .tar.gz: %w", err)
	}
	n := &counter{left: most}
	files := tar.NewReader(io.TeeReader(z, n))
	for count := 0; ; count++ {
		h, err := files.Next()
		switch {
		case n.left < 0:
			return fmt.Errorf("unpacked it has more than %d bytes%s", most, larger(most))
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("it is no .tar.gz: %w", err)
		case count >= maxFiles:
			return fmt.Errorf("more than %d files", maxFiles)
		case strings.HasSuffix(h.Name, ".rego") && h.Size > maxRego:
			return fmt.Errorf("%s has %d bytes: at most %d are read", h.Name, h.Size, maxRego)
		}
		if _, err := io.Copy(io.Discard, files); err != nil && n.left >= 0 {
			return fmt.Errorf("it is no .tar.gz: %w", err)
		}
	}
}

// counter fails when more is written than is left.
type counter struct{ left int64 }

func (c *counter) Write(b []byte) (int, error) {
	if c.left -= int64(len(b)); c.left < 0 {
		return 0, errors.New("too long")
	}
	return len(b), nil
}

// manifestOf reads what a bundle says of itself. Its metadata may have a sequence: a number that only grows.
func manifestOf(m *bundle.Manifest) (out manifest, err error) {
	out.revision = m.Revision
	switch n := m.Metadata["sequence"].(type) {
	case nil:
	case json.Number:
		out.sequence, err = n.Int64()
	case float64:
		out.sequence = int64(n)
		if float64(out.sequence) != n {
			err = errors.New("no whole number")
		}
	default:
		err = errors.New("no number")
	}
	if err != nil || out.sequence < 0 {
		return out, errors.New("metadata.sequence of its manifest is no whole number from 1")
	}
	return out, nil
}

// has reports whether the data holds a value at path: a rule there would be hidden by it, or hide it.
func (s *source) has(path []string) bool {
	var at any = s.data
	for _, part := range path {
		m, ok := at.(map[string]any)
		if !ok {
			return false
		}
		if at, ok = m[part]; !ok {
			return false
		}
	}
	return true
}
