package opa

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
)

//go:embed input.schema.json
var inputSchema []byte

// Finding is something in a policy that does not do what it seems to.
type Finding struct {
	File  string `json:"file"`
	Line  int    `json:"line"`
	Check string `json:"check"` // one of the names of Checks
	Text  string `json:"text"`
}

// The checks of Lint.
const (
	CheckCompile  = "compile"  // it cannot be loaded at all
	CheckField    = "field"    // a field of the input that does not exist, or a comparison with another type
	CheckNever    = "never"    // a condition that cannot hold, so that the rule never fires
	CheckData     = "data"     // a document that is neither in the data nor a rule
	CheckNegation = "negation" // "not" over something that may be absent, which is then true
	CheckUnasked  = "unasked"  // a package whose answers nobody asks for
	CheckComplete = "complete" // what was touched is asked about, and not whether that is all
)

// Lint reads a policy as Load does and reports what in it does nothing, or not what it seems to. protocols are the names
// of the objects that protocols put under input.event. Its error says why the files cannot be read.
func Lint(ctx context.Context, where string, fsys fs.FS, protocols []string) ([]Finding, error) {
	src, err := read(ctx, where, fsys, nil, 0)
	if err != nil {
		return nil, fmt.Errorf("opa: %w", err)
	}
	l := &linter{src: src, protocols: append(slices.Clone(protocols), adminDetail)}
	l.schema()
	c := newCompiler().WithPathConflictsCheck(func(path []string) (bool, error) { return src.has(path), nil })
	modules := map[string]*ast.Module{}
	for name, m := range src.modules {
		modules[name] = m.Copy()
	}
	if c.Compile(modules); c.Failed() {
		l.errors(CheckCompile, c.Errors)
		return l.done(), nil
	}
	packages, err := choose(src, nil)
	if err != nil {
		l.add(nil, CheckUnasked, err.Error())
	}
	for _, p := range packages {
		for _, err := range checkAnswers(c, p) {
			l.add(nil, CheckCompile, err.Error())
		}
	}
	for _, m := range c.Modules {
		for _, r := range m.Rules {
			l.rule(c, m, r)
		}
	}
	l.complete()
	return l.done(), nil
}

type linter struct {
	src       *source
	protocols []string
	found     []Finding
}

func (l *linter) add(at *ast.Location, check, text string) {
	f := Finding{Check: check, Text: text}
	if at != nil {
		f.File, f.Line = at.File, at.Row
	}
	if !slices.Contains(l.found, f) {
		l.found = append(l.found, f)
	}
}

func (l *linter) done() []Finding {
	slices.SortFunc(l.found, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), strings.Compare(a.Check, b.Check), strings.Compare(a.Text, b.Text))
	})
	return l.found
}

// complete finds policies that take the tables of a session or a run for all that there are.
func (l *linter) complete() {
	lists, asks := map[string]*ast.Location{}, map[string]bool{}
	for _, m := range l.src.modules {
		ast.WalkTerms(m, func(t *ast.Term) bool {
			r, ok := t.Value.(ast.Ref)
			if !ok || !r.HasPrefix(ast.InputRootRef) {
				return false
			}
			of, field, _ := strings.Cut(constantPath(r), ".")
			switch {
			case of != "" && of != "session" && of != "run":
			case of == "", field == "", field == "tables_complete":
				asks[of] = true
			case field == "tables_read", field == "tables_written":
				if at := lists[of]; at == nil || t.Location != nil && (t.Location.File < at.File || t.Location.File == at.File && t.Location.Row < at.Row) {
					lists[of] = t.Location
				}
			}
			return false
		})
	}
	for of, at := range lists {
		if !asks[of] && !asks[""] {
			l.add(at, CheckComplete, fmt.Sprintf("input.%s.tables_… may lack some: ask for input.%s.tables_complete, too, and refuse when it is false", of, of))
		}
	}
}

// schema compiles the modules once more, knowing what the input holds.
func (l *linter) schema() {
	s := schemaObject()
	event := s["properties"].(map[string]any)["event"].(map[string]any)["properties"].(map[string]any)
	for _, p := range l.protocols {
		event[p] = map[string]any{"type": "object", "additionalProperties": true}
	}
	set := ast.NewSchemaSet()
	set.Put(ast.SchemaRootRef, s)
	c := newCompiler().WithSchemas(set)
	modules := map[string]*ast.Module{}
	for name, m := range l.src.modules {
		modules[name] = m.Copy()
	}
	if c.Compile(modules); !c.Failed() {
		return
	}
	var ours ast.Errors
	for _, e := range c.Errors {
		if e.Code == ast.TypeErr {
			ours = append(ours, e)
		}
	}
	l.errors(CheckField, ours)
}

func (l *linter) errors(check string, list ast.Errors) {
	for _, e := range list {
		text := firstLine(e.Message)
		var ref *ast.RefErrInvalidDetail
		if d, ok := e.Details.(*ast.RefErrInvalidDetail); ok {
			ref = d
		}
		if ref != nil && len(ref.OneOf) > 0 {
			var names []string
			for _, v := range ref.OneOf {
				if s, ok := v.(ast.String); ok {
					names = append(names, string(s))
				}
			}
			text += " (there are: " + strings.Join(names, ", ") + ")"
		} else if d, ok := e.Details.(*ast.UnificationErrDetail); ok {
			text = fmt.Sprintf("`%s` compares %s with %s", firstLine(string(e.Location.Text)), d.Left, d.Right)
		} else if h := hintFor(e); h != "" {
			text += " (" + h + ")"
		}
		l.add(e.Location, check, text)
	}
}

// schemaObject returns a copy of the input's schema.
func schemaObject() (s map[string]any) {
	if err := json.Unmarshal(inputSchema, &s); err != nil {
		panic(err) // it is part of this build
	}
	return s
}

// closed returns the parts of the input that hold one of a few words.
var closed = sync.OnceValue(func() map[string][]string {
	m := map[string][]string{}
	var walk func(path string, s map[string]any)
	walk = func(path string, s map[string]any) {
		if list, ok := s["enum"].([]any); ok {
			for _, v := range list {
				m[path] = append(m[path], v.(string))
			}
		}
		if items, ok := s["items"].(map[string]any); ok {
			walk(path, items)
		}
		for name, p := range properties(s) {
			walk(strings.TrimPrefix(path+"."+name, "."), p)
		}
	}
	walk("", schemaObject())
	return m
})

func properties(s map[string]any) map[string]map[string]any {
	out := map[string]map[string]any{}
	if all, ok := s["properties"].(map[string]any); ok {
		for name, p := range all {
			out[name] = p.(map[string]any)
		}
	}
	return out
}

// mayMiss reports whether a part of the input may be absent where guardrails are asked.
func (l *linter) mayMiss(path string) bool {
	for _, p := range []string{"event.columns", "event.stage", "event.command.params", "identity.claims.", "target.labels.", "session.run"} {
		if path == p || strings.HasPrefix(path, strings.TrimSuffix(p, ".")+".") {
			return path != strings.TrimSuffix(p, ".") || !strings.HasSuffix(p, ".")
		}
	}
	name, ok := strings.CutPrefix(path, "event.")
	name, _, _ = strings.Cut(name, ".")
	return ok && slices.Contains(l.protocols, name)
}

// rule checks the bodies of one rule.
func (l *linter) rule(c *ast.Compiler, m *ast.Module, r *ast.Rule) {
	pkg := strings.TrimPrefix(m.Package.Path.String(), "data.")
	for x := r; x != nil; x = x.Else {
		l.body(c, pkg, x.Body)
	}
}

func (l *linter) body(c *ast.Compiler, pkg string, body ast.Body) {
	aliases := map[ast.Var]string{} // variables that stand for a part of the input
	said := map[string]bool{}       // parts that a condition demands
	for _, e := range body {
		if e.Negated {
			continue
		}
		if a, b, ok := equated(e); ok {
			for _, p := range [][2]*ast.Term{{a, b}, {b, a}} {
				if v, isVar := p[0].Value.(ast.Var); isVar {
					if path, whole := l.path(p[1], aliases); path != "" && whole {
						aliases[v] = path
					}
				}
			}
		}
		for _, path := range l.paths(e, aliases) {
			said[path] = true
		}
	}
	for _, e := range body {
		if a, b, ok := equated(e); ok && !e.Negated {
			l.constant(e, a, b, aliases)
			l.constant(e, b, a, aliases)
		}
		if a, b, ok := member(e); ok && !e.Negated { // a in b
			l.constant(e, a, b, aliases)
		}
		l.access(e, pkg, aliases)
		l.documents(c, e)
		if !e.Negated {
			continue
		}
		for _, path := range l.paths(e, aliases) {
			if l.mayMiss(path) && !said[path] {
				l.add(e.Location, CheckNegation, fmt.Sprintf("`%s` holds also when input.%s is absent (demand it first, for instance with `input.%s`, or use object.get with a default)",
					firstLine(string(e.Location.Text)), path, path))
			}
		}
	}
	ast.WalkBodies(body, func(inner ast.Body) bool { // of comprehensions and every
		if !inner.Equal(body) {
			for _, e := range inner {
				l.access(e, pkg, aliases)
				l.documents(c, e)
				if a, b, ok := equated(e); ok && !e.Negated {
					l.constant(e, a, b, aliases)
					l.constant(e, b, a, aliases)
				}
			}
		}
		return false
	})
}

// equated returns the two sides of an equality.
func equated(e *ast.Expr) (a, b *ast.Term, ok bool) {
	terms, isCall := e.Terms.([]*ast.Term)
	if !isCall || len(terms) != 3 || !e.IsEquality() && e.Operator().String() != ast.Equal.Name {
		return nil, nil, false
	}
	return terms[1], terms[2], true
}

// member returns x and the collection of `x in collection`.
func member(e *ast.Expr) (x, in *ast.Term, ok bool) {
	terms, isCall := e.Terms.([]*ast.Term)
	if !isCall || len(terms) < 3 || e.Operator().String() != ast.Member.Name {
		return nil, nil, false
	}
	return terms[1], terms[2], true
}

// constant reports a comparison of a closed part of the input with a word that it never is.
func (l *linter) constant(e *ast.Expr, word, ref *ast.Term, aliases map[ast.Var]string) {
	s, ok := word.Value.(ast.String)
	if !ok {
		return
	}
	path, _ := l.path(ref, aliases)
	words := closed()[path]
	if words == nil || slices.Contains(words, string(s)) {
		return
	}
	l.add(e.Location, CheckNever, fmt.Sprintf("input.%s is never %q (it is one of: %s)", path, string(s), strings.Join(words, ", ")))
}

// path returns which part of the input a term is, and whether the reference ends there.
func (l *linter) path(t *ast.Term, aliases map[ast.Var]string) (path string, whole bool) {
	switch v := t.Value.(type) {
	case ast.Var:
		p, ok := aliases[v]
		return p, ok
	case ast.Ref:
		head := ""
		switch {
		case v.HasPrefix(ast.InputRootRef):
		default:
			alias, ok := v[0].Value.(ast.Var)
			if !ok {
				return "", false
			}
			if head, ok = aliases[alias]; !ok {
				return "", false
			}
		}
		parts := []string{}
		if head != "" {
			parts = append(parts, head)
		}
		for _, x := range v[1:] {
			s, ok := x.Value.(ast.String)
			if !ok { // an element of a list stands for the list
				continue
			}
			parts = append(parts, string(s))
		}
		return strings.Join(parts, "."), true
	}
	return "", false
}

// paths are the parts of the input that an expression names.
func (l *linter) paths(e *ast.Expr, aliases map[ast.Var]string) (out []string) {
	ast.WalkTerms(e, func(t *ast.Term) bool {
		if _, ok := t.Value.(ast.Ref); ok {
			if p, _ := l.path(t, aliases); p != "" {
				out = append(out, p)
			}
		}
		return false
	})
	return out
}

// access reports what a package asked at Open demands that is not there then, and the other way round.
func (l *linter) access(e *ast.Expr, pkg string, aliases map[ast.Var]string) {
	if e.Negated {
		return
	}
	for _, path := range l.paths(e, aliases) {
		if isAccess(pkg) && (strings.HasPrefix(path, "event.command") || strings.HasPrefix(path, "event.columns") || strings.HasPrefix(path, "event.stage")) {
			l.add(e.Location, CheckNever, "a package called access is asked when a session opens, and input."+path+" is not there then (put the rule into weir.guardrails)")
		}
	}
	a, b, ok := equated(e)
	if !ok {
		return
	}
	for _, p := range [][2]*ast.Term{{a, b}, {b, a}} {
		s, isText := p[0].Value.(ast.String)
		path, _ := l.path(p[1], aliases)
		if !isText || path != "event.kind" || pkg == "" || !strings.HasPrefix(pkg, "weir.") {
			continue
		}
		if isAccess(pkg) && s != "open" || !isAccess(pkg) && s == "open" {
			l.add(e.Location, CheckNever, fmt.Sprintf("package %s is never asked at %q", pkg, string(s)))
		}
	}
}

// documents reports references to data that is not there.
func (l *linter) documents(c *ast.Compiler, e *ast.Expr) {
	ast.WalkRefs(e, func(r ast.Ref) bool {
		if !r.HasPrefix(ast.DefaultRootRef) || len(r) < 2 {
			return false
		}
		if len(c.GetRulesDynamicWithOpts(r, ast.RulesOptions{IncludeHiddenModules: true})) > 0 {
			return false
		}
		var path []string
		for _, t := range r[1:] {
			s, ok := t.Value.(ast.String)
			if !ok {
				break
			}
			path = append(path, string(s))
		}
		if len(path) > 0 && !l.src.has(path) {
			what := "this condition never holds"
			if e.Negated {
				what = "this condition always holds"
			}
			l.add(e.Location, CheckData, "data."+strings.Join(path, ".")+" is neither a rule of these files nor in their data: "+what)
		}
		return false
	})
}

// InputMarkdown is the page that describes the input, made of the schema that Lint checks with.
func InputMarkdown() ([]byte, error) {
	d := json.NewDecoder(strings.NewReader(string(inputSchema)))
	var b strings.Builder
	b.WriteString("# What a policy is asked about\n\nWritten by `make docs` from the schema that `weir policy lint` checks with. The protocol of the target may add one object\nunder its own name to `input.event`.\n\n| field of `input` | type | |\n|---|---|---|\n")
	if err := describe(&b, d, ""); err != nil {
		return nil, err
	}
	return []byte(b.String()), nil
}

// describe writes one schema object, in the order in which its file has it.
func describe(b *strings.Builder, d *json.Decoder, path string) error {
	var raw struct {
		Type        string          `json:"type"`
		Description string          `json:"description"`
		Enum        []string        `json:"enum"`
		Items       json.RawMessage `json:"items"`
		Properties  json.RawMessage `json:"properties"`
		More        json.RawMessage `json:"additionalProperties"`
	}
	if err := d.Decode(&raw); err != nil {
		return err
	}
	row := func(kind string) {
		if len(raw.Enum) > 0 {
			kind = "one of `" + strings.Join(raw.Enum, "` `") + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", path, kind, strings.ReplaceAll(raw.Description, "|", "\\|"))
	}
	inner := raw.Properties
	switch {
	case raw.Type == "array":
		var items struct {
			Type       string          `json:"type"`
			Enum       []string        `json:"enum"`
			Properties json.RawMessage `json:"properties"`
		}
		if err := json.Unmarshal(raw.Items, &items); err != nil {
			return err
		}
		kind := "list"
		if items.Type != "" {
			kind += " of " + items.Type + "s"
		}
		if len(items.Enum) > 0 {
			kind = "list of `" + strings.Join(items.Enum, "` `") + "`"
		}
		row(kind)
		path += "[]"
		inner = items.Properties
	case path != "":
		row(raw.Type)
	}
	if inner == nil {
		return nil
	}
	list := json.NewDecoder(strings.NewReader(string(inner)))
	if _, err := list.Token(); err != nil {
		return err
	}
	for list.More() {
		name, err := list.Token()
		if err != nil {
			return err
		}
		key, ok := name.(string)
		if !ok {
			return errors.New("opa: the schema's properties have no names")
		}
		if err := describe(b, list, strings.TrimPrefix(path+"."+key, ".")); err != nil {
			return err
		}
	}
	return nil
}
