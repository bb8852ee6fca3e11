package core

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/weir-gateway/weir/"

// arrows says which packages of this module a folder may import. The longest folder that matches counts. Why:
//
//   - core: the nouns. Everything hangs on them, so they hang on nothing, not even on a library.
//   - core/gateway: takes a core.Plugin and a core.Journal. It does not know which chain, engine or stream is behind.
//   - core/cli: the only place that wires the parts together.
//   - core/opa/bench, core/journal/bench: measure; nothing imports them.
//   - protocols: a protocol knows events, not who judges or keeps them. Adding one touches nothing else.
//   - plugins, sdk: a guest sees events and nothing else of the gateway. secrets and pii have one detector.
//   - plugins/pii/native: a step of the gateway itself, so it knows core's nouns, and nothing of the rest.
var arrows = map[string][]string{
	"core":                            {},
	"core/gateway":                    {"core"},
	"core/reactor":                    {},
	"core/mask":                       {"core"},
	"core/chain":                      {"core", "core/mask"},
	"core/wasm":                       {"core"},
	"core/wasm/fetch":                 {"core/download"},
	"core/opa":                        {"core", "core/download"},
	"core/journal/bench":              {},
	"core/opa/bench":                  {"core", "core/opa", "core/archive/file", "core/ledger", "core/replay"},
	"core/identity":                   {"core", "core/download"},
	"core/identity/idptest":           {},
	"core/identity/revocation":        {"core"},
	"core/identity/saml":              {"core", "core/download", "core/identity"},
	"core/identity/saml/samltest":     {},
	"core/identity/signin":            {"core/download"},
	"core/download":                   {},
	"core/credential":                 {"core", "core/download"},
	"core/config":                     {"core", "core/credential", "core/download", "core/keyring", "core/ledger"},
	"core/ledger":                     {"core"},
	"core/ledger/witness":             {"core/ledger", "core/download"},
	"core/ledger/witness/witnesstest": {"core/ledger"},
	"core/keyring":                    {"core", "core/ledger"},
	"core/journal":                    {"core", "core/ledger"},
	"core/approval":                   {"core"},
	"core/archive":                    {"core", "core/ledger", "core/archive/index", "core/archive/segment", "core/journal", "core/keyring"},
	"core/archive/bundle":             {"core", "core/ledger", "core/archive/segment"},
	"core/archive/retention":          {"core", "core/ledger", "core/keyring", "core/archive/index", "core/archive/segment"},
	"core/archive/segment":            {"core", "core/ledger"},
	"core/archive/storetest":          {"core", "core/ledger", "core/archive/segment"},
	"core/archive/file":               {"core", "core/ledger", "core/archive/segment"},
	"core/archive/s3":                 {"core", "core/ledger", "core/archive/segment", "core/download"},
	"core/archive/index":              {"core", "core/ledger"},
	"core/replay":                     {"core", "core/ledger"},
	"core/console":                    {"core"},
	"core/cli":                        {"core/*", "core", "plugins", "policies"},
	"protocols":                       {"core", "core/reactor", "."},
	"plugins":                         {"sdk/go", "."},
	"plugins/secrets":                 {"sdk/go", ".", "plugins/pii/detect"},
	"policies":                        {},
	"sdk":                             {"."},
	"examples":                        {"protocols/*", "sdk/go", "."},
	"examples/alerts":                 {"examples/cluster/loopback"},
	"examples/cluster/loopback":       {"protocols/*", "core/archive/s3/s3test"},
	".":                               {"core/cli", "protocols/*", "core", "plugins", "plugins/pii/native", "policies", "sdk"},
	"plugins/pii/native":              {"core", "plugins/pii/detect"},
}

// testsMay are further packages of this module that test files of a folder may import.
var testsMay = map[string][]string{
	"core":                      {"core", "core/*"},
	"core/archive":              {"core/*", "protocols/postgres/postgrestest"},
	"core/archive/file":         {"core/*"},
	"core/archive/s3":           {"core/*"},
	"core/archive/index":        {"core/*", "protocols/postgres/postgrestest"},
	"core/opa":                  {"policies", "core/chain"},
	"core/wasm":                 {"sdk/go", "plugins", "plugins/pii/native", "core/chain"},
	"core/cli":                  {"protocols/*", "sdk", "plugins/pii/native"},
	"core/identity":             {"core/identity/idptest"},
	"core/identity/saml":        {"core/identity/saml/samltest"},
	"core/identity/certificate": {"core/identity/certificate/certtest"},
	"core/identity/signin":      {"core/identity/idptest"},
	"core/journal":              {"core/*"},
	"core/approval":             {"core/*"},
	"core/replay":               {"core/*"},
	"core/ledger":               {"core/*"},
	"core/ledger/witness":       {"core", "core/ledger/witness/witnesstest"},
	"core/gateway":              {"core/*"},
	"core/chain":                {"core/*"},
	"protocols":                 {"core/*"},
	".":                         {"protocols/*", "core/*"},
}

func TestArrows(t *testing.T) {
	walk(t, func(file, folder string, imports []string) {
		rule, allowed := ruleFor(arrows, folder)
		if strings.HasSuffix(file, "_test.go") {
			_, more := ruleFor(testsMay, folder)
			allowed = append(append([]string{folder}, allowed...), more...)
		}
		for _, imp := range imports {
			in, ours := strings.CutPrefix(imp, module)
			switch {
			case ours && !permits(allowed, rule, folder, in):
				t.Errorf("%s imports %s: %s may import %s of this module only", file, in, rule, words(allowed))
			case !ours && folder == "core" && !strings.HasSuffix(file, "_test.go") && strings.Contains(strings.Split(imp, "/")[0], "."):
				t.Errorf("%s imports %s: core holds nouns and imports the standard library only", file, imp)
			}
		}
	})
}

// TestCoreNamesNoProtocol keeps the names of protocols out of the gateway: only a protocol's own folder and main.go
// say it. If core has to change to add one, a noun is missing something.
func TestCoreNamesNoProtocol(t *testing.T) {
	folders, err := os.ReadDir("../protocols")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range folders {
		if f.IsDir() {
			names = append(names, f.Name())
		}
	}
	database := []string{"core/config/index.go", "core/journal/bench/main.go"} // the index may be in one of these, too
	word := regexp.MustCompile(`"(` + strings.Join(names, "|") + `)"|protocols/(` + strings.Join(names, "|") + `)`)
	walk(t, func(file, folder string, _ []string) {
		if folder != "core" && !strings.HasPrefix(folder, "core/") || strings.HasSuffix(file, "_test.go") {
			return
		}
		b, err := os.ReadFile(filepath.Join("..", file))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(b), "\n") {
			if code, _, _ := strings.Cut(line, "//"); word.MatchString(code) && !slices.Contains(database, file) {
				t.Errorf("%s:%d names a protocol: %s", file, i+1, strings.TrimSpace(line))
			}
		}
	})
}

// TestArrowsBite is the control: the rules above refuse what they are there to refuse.
func TestArrowsBite(t *testing.T) {
	for _, c := range []struct{ folder, imp string }{
		{"core/gateway", "core/chain"},
		{"core/gateway", "core/journal"},
		{"core", "core/cli"},
		{"protocols/x", "core/opa"},
		{"protocols/x", "protocols/y"},
		{"plugins/x", "core"},
		{"plugins/pii/native", "core/wasm"},
		{"core/cli", "plugins/pii/native"},
		{"core/opa", "core/wasm"},
		{"core/unheard-of", "core/chain"},
	} {
		rule, allowed := ruleFor(arrows, c.folder)
		if permits(allowed, rule, c.folder, c.imp) {
			t.Errorf("%s may import %s", c.folder, c.imp)
		}
	}
}

func ruleFor(rules map[string][]string, folder string) (string, []string) {
	for f := folder; ; f = path.Dir(f) {
		if r, ok := rules[f]; ok && (f != "core" || folder == "core") {
			return f, r
		}
		if f == "." {
			return "a folder without a rule in core/imports_test.go", nil
		}
	}
}

// permits reports whether a rule lets folder import imp. "." stands for what lies in the same folder below the rule's:
// protocols/x may import protocols/x/y.
func permits(allowed []string, rule, folder, imp string) bool {
	for _, a := range allowed {
		base, deep := strings.CutSuffix(a, "/*")
		switch {
		case a == ".":
			rest, ok := strings.CutPrefix(folder, rule+"/")
			if ok && within(imp, rule+"/"+strings.Split(rest, "/")[0]) {
				return true
			}
		case deep && strings.HasPrefix(imp, base+"/"), imp == a:
			return true
		}
	}
	return false
}

func within(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

func words(list []string) string {
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, ", ")
}

// walk calls f for each Go file of the module, with its folder and imports.
func walk(t *testing.T, f func(file, folder string, imports []string)) {
	t.Helper()
	files := 0
	err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && p != ".." && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "testdata" || name == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		var imports []string
		for _, i := range parsed.Imports {
			s, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			imports = append(imports, s)
		}
		rel := filepath.ToSlash(strings.TrimPrefix(p, ".."+string(filepath.Separator)))
		files++
		f(rel, path.Dir(rel), imports)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Fatalf("only %d files found: the test looks in the wrong place", files)
	}
}
