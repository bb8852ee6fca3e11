package opa

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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
	maxFile   = 4 << 20  // bytes of one file
	maxSource = 64 << 20 // bytes of all files, and of a bundle unpacked
	maxFiles  = 4096
)

// source is what was read: modules and data, parsed but not compiled.
type source struct {
	modules  map[string]*ast.Module // by the name shown in errors
	tests    map[string]*ast.Module // the _test.rego files
	data     map[string]any
	revision string
}

// read loads a directory, a .rego file, a bundle, or fsys. Every problem is in the error.
func read(ctx context.Context, where string, fsys fs.FS, key *Key) (*source, error) {
	bundled := strings.HasSuffix(where, ".tar.gz") || strings.HasSuffix(where, ".tgz")
	switch {
	case key != nil && (fsys != nil || !bundled):
		return nil, errors.New("a key checks the signature of a bundle .tar.gz, and this is none")
	case fsys != nil:
		return readFS(ctx, fsys, where)
	case where == "":
		return nil, errors.New("no path: name a directory, a .rego file or a bundle .tar.gz")
	}
	info, err := os.Stat(where)
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		return readFS(ctx, os.DirFS(where), where)
	case bundled:
		return readBundle(where, key)
	case strings.HasSuffix(where, ".rego"):
		dir, name := filepath.Split(where)
		s := newSource()
		sum := sha256.New()
		b, err := readFile(os.DirFS(filepath.Clean(dir+".")), name)
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

func readFile(fsys fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes: at most %d are read", name, info.Size(), maxFile)
	}
	return fs.ReadFile(fsys, name)
}

// readFS reads the *.rego, data.json and data.yaml files of a tree. A data file's content stands under the path of
// its folder, as OPA has it. Names that begin with a dot are passed over.
func readFS(ctx context.Context, fsys fs.FS, base string) (*source, error) {
	s := newSource()
	var problems []error
	sum, total, files := sha256.New(), 0, 0
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
		b, err := readFile(fsys, name)
		if err != nil {
			problems = append(problems, err)
			return nil
		}
		if files, total = files+1, total+len(b); files > maxFiles || total > maxSource {
			return fmt.Errorf("more than %d files or %d bytes", maxFiles, maxSource)
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

// readBundle reads an OPA bundle. With a key one that is not signed by it is refused; without, one that is signed is.
func readBundle(file string, key *Key) (*source, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSource {
		return nil, fmt.Errorf("%s has %d bytes: at most %d are read", file, info.Size(), maxSource)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	reader := bundle.NewCustomReader(bundle.NewTarballLoaderWithBaseURL(bytes.NewReader(raw), "")).
		WithRegoVersion(ast.RegoV1).WithProcessAnnotations(true).WithCapabilities(capabilities).
		WithSizeLimitBytes(maxFile).WithBundleName(filepath.Base(file))
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
	s := newSource()
	for _, m := range b.Modules {
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
	return s, nil
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
