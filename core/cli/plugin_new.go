package cli

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// language is one that plugins can be written in: how a project of it begins.
type language struct {
	name, title, source string
	// library is where the project keeps the SDK, and from where in the SDK's folder its files come.
	library string
	files   map[string]string // in the SDK: a folder, or a file; in the project
}

var languages = []language{
	{"go", "Go", "`main.go` and `mask/mask.go`", "`weir`", map[string]string{"go": "weir/sdk/go"}},
	{"rust", "Rust", "`src/lib.rs`", "`weir`", map[string]string{"rust/Cargo.toml": "weir/Cargo.toml", "rust/src": "weir/src"}},
	{"c", "C", "`plugin.c`", "`weir.h`", map[string]string{"c/weir.h": "weir.h"}},
	{"assemblyscript", "AssemblyScript", "`assembly/index.ts`", "`assembly/weir`", map[string]string{
		"assemblyscript/assembly": "assembly/weir", "assemblyscript/package-lock.json": "package-lock.json",
	}},
}

func languageNames() []string {
	var names []string
	for _, l := range languages {
		names = append(names, l.name)
	}
	return names
}

func (a *app) pluginNew() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "new DIR --lang LANGUAGE",
		Short: "Begin a plugin: a project that builds, and passes its test, as it is",
		Long: "Write the project of a new plugin into DIR, which must not be there yet. The plugin's name is the folder's. The library is\n" +
			"in the project, so that it builds without a network (AssemblyScript's compiler comes from npm).",
		Example: "  weir plugin new ticket-guard --lang go\n  weir plugin build ticket-guard",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := args[0]
			l, err := languageOf(name)
			if err != nil {
				return use(err)
			}
			if err := l.begin(a.SDK, dir); err != nil {
				return use(fmt.Errorf("plugin new: %w", err))
			}
			fmt.Fprintf(a.out, "%s: a plugin in %s; build it with: weir plugin build %s\n", dir, l.title, dir)
			return nil
		},
	}
	c.Flags().StringVar(&name, "lang", "", "`language`: "+strings.Join(languageNames(), ", "))
	_ = c.MarkFlagRequired("lang")
	_ = c.RegisterFlagCompletionFunc("lang", cobra.FixedCompletions(languageNames(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

func languageOf(name string) (*language, error) {
	for i := range languages {
		if languages[i].name == name {
			return &languages[i], nil
		}
	}
	return nil, fmt.Errorf("--lang is one of %s, not %q", strings.Join(languageNames(), ", "), name)
}

// pluginName is what a plugin may be called: it is a Go module, a crate and an npm package as well.
var pluginName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// begin writes a project. When it fails it leaves nothing.
func (l *language) begin(sdk fs.FS, dir string) (err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	name := filepath.Base(abs)
	if !pluginName.MatchString(name) || len(name) > 64 || name == "weir" || name == "mask" {
		return fmt.Errorf("a plugin cannot be called %q: lower-case letters and digits in words joined by -, at most 64, and not weir or mask", name)
	}
	if sdk == nil {
		return fmt.Errorf("this build of Weir carries no SDK")
	}
	if err := os.MkdirAll(filepath.Dir(abs), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(abs, 0o755); err != nil {
		if os.IsExist(err) {
			return fmt.Errorf("%s is there already: name a folder that is not", dir)
		}
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(abs)
		}
	}()
	w := &projectWriter{sdk: sdk, dir: abs, words: strings.NewReplacer(
		"__NAME__", name, "__LANGUAGE__", l.title, "__SOURCE__", l.source, "__LIBRARY__", l.library, `"weir-plugin"`, `"`+name+`"`,
	)}
	for _, t := range []string{"project/README.md.tmpl", "project/gitignore.tmpl", "project/tests.json.tmpl", "project/" + l.name} {
		to := ""
		if strings.HasSuffix(t, ".tmpl") {
			to = path.Base(t)
		}
		if err := w.copy(t, to); err != nil {
			return err
		}
	}
	for from, to := range l.files {
		if err := w.copy(from, to); err != nil {
			return err
		}
	}
	return nil
}

// renamed are the templates whose names would mean something to the tools that see this repository.
var renamed = map[string]string{"gitignore": ".gitignore", "weir-go.mod": "weir/go.mod"}

type projectWriter struct {
	sdk   fs.FS
	dir   string
	words *strings.Replacer
}

// copy writes a file of the SDK, or all of a folder, without its tests.
func (w *projectWriter) copy(from, to string) error {
	return fs.WalkDir(w.sdk, from, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if p != from && from == "go" { // its examples
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(p, "_test.go") {
			return nil
		}
		b, err := fs.ReadFile(w.sdk, p)
		if err != nil {
			return err
		}
		target := path.Join(to, strings.TrimPrefix(strings.TrimPrefix(p, from), "/"))
		template := strings.HasSuffix(target, ".tmpl")
		if target = strings.TrimSuffix(target, ".tmpl"); renamed[target] != "" {
			target = renamed[target]
		}
		if template || target == "package-lock.json" {
			b = []byte(w.words.Replace(string(b)))
		}
		if bytes.Contains(b, []byte("__NAME__")) {
			return fmt.Errorf("%s: a word was left", target)
		}
		file := filepath.Join(w.dir, filepath.FromSlash(target))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		return os.WriteFile(file, b, 0o644)
	})
}
