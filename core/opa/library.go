package opa

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// LibraryMarkdown is the page that lists what each policy of a library does, made of the annotations in its files. A
// policy is a folder of fsys.
func LibraryMarkdown(ctx context.Context, fsys fs.FS) ([]byte, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("opa: %w", err)
	}
	var b strings.Builder
	b.WriteString("# What each policy does\n\nWritten by `make docs` from the annotations in the files. [README.md](README.md) says how to choose.\n")
	for _, d := range entries {
		if !d.IsDir() {
			continue
		}
		sub, err := fs.Sub(fsys, d.Name())
		if err != nil {
			return nil, fmt.Errorf("opa: %w", err)
		}
		src, err := readFS(ctx, sub, d.Name(), maxFolder)
		if err != nil {
			return nil, fmt.Errorf("opa: %w", err)
		}
		describePolicy(&b, d.Name(), src)
	}
	return []byte(b.String()), nil
}

func describePolicy(b *strings.Builder, name string, src *source) {
	var all []*ast.Annotations
	for _, m := range src.modules {
		all = append(all, m.Annotations...)
	}
	slices.SortFunc(all, func(x, y *ast.Annotations) int {
		return cmp.Or(strings.Compare(x.Location.File, y.Location.File), cmp.Compare(x.Location.Row, y.Location.Row))
	})
	rules := false
	for _, a := range all {
		text := strings.Join(strings.Fields(a.Description), " ")
		switch a.Scope {
		case "package":
			fmt.Fprintf(b, "\n## `builtin:%s`: %s\n\n%s\n", name, a.Title, text)
		case "rule", "document":
			if !rules {
				b.WriteString("\n| answer | rule | |\n|---|---|---|\n")
				rules = true
			}
			answer := ""
			if path := a.GetTargetPath(); len(path) > 0 {
				answer = strings.Trim(path[len(path)-1].String(), `"`)
			}
			rule := ""
			if s, ok := a.Custom["rule"].(string); ok {
				rule = "`" + strings.ReplaceAll(s, ", ", "` `") + "`"
			}
			what := a.Title
			if text != "" {
				what += ". " + text
			}
			fmt.Fprintf(b, "| %s | %s | %s |\n", answer, rule, strings.ReplaceAll(what, "|", "\\|"))
		}
	}
}
