package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weir-gateway/weir/core"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 4 << 20

// Defaults of the file.
const (
	DefaultAdmin  = "127.0.0.1:8480"
	DefaultMaxTTL = 24 * time.Hour
	DefaultLock   = 15 * time.Minute
	defaultData   = "weir-data"
)

// Load reads and checks the file at path. When anything is wrong the error is a Problems with everything that is;
// the Config is then not nil either if the file could be read as YAML at all, so that checks made elsewhere can go on
// and report in the same run. Such a Config must not be used for anything else.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, Problems{{File: path, Text: "there is no such file", Hint: "name it with -c or $WEIR_CONFIG"}}
		}
		return nil, Problems{{File: path, Text: "cannot be read: " + err.Error()}}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, Problems{{File: path, Text: "cannot be read: " + err.Error()}}
	}
	if len(text) > maxFile {
		return nil, Problems{{File: path, Text: fmt.Sprintf("is larger than %d MiB", maxFile>>20)}}
	}
	return Parse(path, text)
}

// Parse is Load for a text that is already in memory. Relative paths are relative to the folder of path.
func Parse(path string, text []byte) (*Config, error) {
	root, problems := tree(path, text)
	if problems != nil {
		return nil, problems
	}
	c := &Config{File: path, Dir: filepath.Dir(path), lines: map[string]int{"": root.Line}}
	d := &decoder{file: path, lines: c.lines}
	d.value(root, reflect.ValueOf(c).Elem(), "", 0, "")
	c.complete()
	check(c, d)
	if len(d.problems) > 0 {
		d.problems.Sort()
		return c, d.problems
	}
	return c, nil
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// tree parses the text and returns its only document.
func tree(path string, text []byte) (n *yaml.Node, problems Problems) {
	defer func() { // the parser is not ours, and the text may be anything
		if r := recover(); r != nil {
			n, problems = nil, Problems{{File: path, Text: fmt.Sprintf("is not YAML: %v", r)}}
		}
	}()
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, Problems{{File: path, Text: "is empty"}}
		}
		return nil, Problems{syntax(path, err)}
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		return nil, Problems{{File: path, Line: more.Line, Text: "has a second document", Hint: "one file, one document: remove the line ---"}}
	case !errors.Is(err, io.EOF):
		return nil, Problems{syntax(path, err)}
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, Problems{{File: path, Text: "is empty"}}
	}
	return doc.Content[0], nil
}

func syntax(path string, err error) Problem {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	p := Problem{File: path, Text: text}
	if m := yamlLine.FindStringSubmatchIndex(text); m != nil {
		p.Line, _ = strconv.Atoi(text[m[2]:m[3]])
		p.Text = text[:m[0]] + text[m[1]:]
	}
	p.Text = "is not YAML: " + p.Text
	return p
}

// complete fills in the defaults and makes the paths independent of where the file is.
func (c *Config) complete() {
	if c.Data == "" {
		c.Data = defaultData
	}
	c.Data = c.Path(c.Data)
	if c.Listen.Admin == "" {
		c.Listen.Admin = DefaultAdmin
	}
	c.Listen.TLS.Cert, c.Listen.TLS.Key = c.Path(c.Listen.TLS.Cert), c.Path(c.Listen.TLS.Key)
	c.Vault.CA = c.Path(c.Vault.CA)
	if c.lines["listen.lock"] == 0 {
		c.Listen.Lock = DefaultLock
	}
	if c.Identity.ServiceTokens.MaxTTL == 0 {
		c.Identity.ServiceTokens.MaxTTL = DefaultMaxTTL
	}
	c.completeIdentity()
	for i := range c.Identity.OIDC {
		if o := &c.Identity.OIDC[i]; o.GroupsClaim == "" {
			o.GroupsClaim = "groups"
		}
	}
	if c.Journal.Promise == "" {
		c.Journal.Promise = core.PromiseStrict
	}
	c.Journal.NATS.Creds = c.Path(c.Journal.NATS.Creds)
	for i := range c.Archive {
		if a := &c.Archive[i]; a.Path != "" {
			a.Path = c.Path(a.Path)
		}
	}
	if c.lines["archive"] == 0 {
		c.Archive = []Archive{{Kind: "file", Path: filepath.Join(c.Data, "archive")}}
	}
	for i := range c.Policies {
		p := &c.Policies[i]
		p.Path, p.Key = c.Path(p.Path), c.Path(p.Key)
		if p.Poll == 0 {
			p.Poll = time.Minute
		}
	}
	for i := range c.Plugins {
		p := &c.Plugins[i]
		p.Written, p.WASM, p.Signature = p.WASM, c.Path(p.WASM), c.Path(p.Signature)
	}
	if p := &c.Index.Postgres; p.TLS == "" {
		p.TLS = core.TLSVerifyFull
	}
	c.Index.Postgres.CA = c.Path(c.Index.Postgres.CA)
	for i := range c.Targets {
		t := &c.Targets[i]
		t.index, t.from = i, c
		if t.Record == "" {
			t.Record = core.LevelFull.String()
		}
		if t.Promise == "" {
			t.Promise = c.Journal.Promise
		}
		u := &t.Upstream
		u.CA, u.Cert, u.Key = c.Path(u.CA), c.Path(u.Cert), c.Path(u.Key)
		if u.TLS == "" {
			u.TLS = core.TLSVerifyFull
			if strings.HasPrefix(u.Address, "/") {
				u.TLS = core.TLSDisable
			}
		}
	}
}

// Builtin is the prefix of a policy or plugin that comes with Weir.
const Builtin = "builtin:"

// Path makes a path of the file relative to the file's folder. What is no path (empty, builtin:NAME, a URL) stays.
func (c *Config) Path(p string) string {
	if p == "" || filepath.IsAbs(p) || strings.HasPrefix(p, Builtin) || strings.Contains(p, "://") {
		return p
	}
	return filepath.Join(c.Dir, p)
}

// decodeNode reads "embedded" or a mapping.
func (s *NATS) decodeNode(d *decoder, n *yaml.Node, path string, depth int) {
	if n.Kind == yaml.ScalarNode && n.Value == "embedded" {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.problem(n.Line, path, "", "must be embedded, or a mapping with url")
		return
	}
	d.mapping(n, reflect.ValueOf(s).Elem(), path, depth)
	if s.URL == "" {
		d.problem(n.Line, path, "for the embedded server write nats: embedded", "has no url")
	}
}

// Steps returns the names of the target's chain.
func (t *Target) Steps() []string {
	if t.Chain != nil {
		return *t.Chain
	}
	if t.from != nil {
		return t.from.Chain
	}
	return nil
}

// At is the path of the target, or of one of its keys, within the file.
func (t *Target) At(key string) string {
	at := fmt.Sprintf("targets[%d]", t.index)
	if key == "" {
		return at
	}
	return at + "." + key
}
