package opa

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	opac "github.com/open-policy-agent/opa/v1/compile"
)

// hostPrefix is put before the name of a built-in function that is called back to the host.
const hostPrefix = "weir.host."

// asking is the package of the rules that stand for the questions.
const asking = "weir_asks"

// guestCapabilities are what a policy may use that is compiled to WebAssembly: the same, with other names for what OPA's
// runtime has itself and is not trusted with.
var guestCapabilities = func() *ast.Capabilities {
	c := *capabilities
	for _, b := range capabilities.Builtins {
		if hosted(b.Name) {
			h := *b
			h.Name, h.Infix = hostPrefix+b.Name, ""
			c.Builtins = append(slices.Clip(c.Builtins), &h)
		}
	}
	return &c
}()

// hosted reports whether a built-in function is called back to the host. The compiler knows some by name, and those stay as
// they are.
func hosted(name string) bool {
	switch {
	case trusted[name] != "", name == "eq", name == "assign", name == "print", name == "walk":
		return false
	}
	return !strings.HasPrefix(name, "internal.") && !strings.HasPrefix(name, "rego.")
}

// builtinNames are the built-in functions that a policy may call.
var builtinNames = func() map[string]bool {
	m := map[string]bool{}
	for _, b := range capabilities.Builtins {
		m[b.Name] = true
	}
	return m
}()

// buildGuest compiles modules to WebAssembly. bodies are the questions, each one a rule of the module.
func buildGuest(ctx context.Context, c *ast.Compiler, modules map[string]*ast.Module, questions map[string]string, how rewriting) ([]byte, error) {
	b := &bundle.Bundle{Data: map[string]any{}}
	b.Manifest.Init()
	add := func(name string, m *ast.Module) {
		b.Modules = append(b.Modules, bundle.ModuleFile{URL: name, Path: "/" + name, Parsed: m})
	}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		m := modules[name].Copy()
		if strings.HasPrefix(m.Package.Path.String()+".", "data."+asking+".") {
			return nil, fmt.Errorf("it has a package %s", asking)
		}
		if err := rename(c, m); err != nil {
			return nil, err
		}
		add(name, m)
	}
	text := "package " + asking + "\n"
	var entries []string
	for _, name := range slices.Sorted(maps.Keys(questions)) {
		text += name + " := " + questions[name] + "\n"
		entries = append(entries, asking+"/"+name)
	}
	m, err := ast.ParseModuleWithOpts(asking, text, parserOptions)
	if err != nil {
		return nil, explain(err)
	}
	add(asking, m)
	build := opac.New().WithTarget(opac.TargetWasm).WithBundle(b).WithEntrypoints(entries...).
		WithCapabilities(guestCapabilities).WithRegoVersion(ast.RegoV1)
	if err := build.Build(ctx); err != nil {
		return nil, explain(err)
	}
	out := build.Bundle().WasmModules
	if len(out) != 1 {
		return nil, errors.New("it makes no module")
	}
	return rewrite(out[0].Raw, how)
}

// rename gives the built-in functions of a module that are called back to the host their names, and refuses what the
// two engines could take for different things.
func rename(c *ast.Compiler, m *ast.Module) (err error) {
	taken := map[string]bool{}
	for _, r := range m.Rules {
		if v, ok := r.Head.Ref()[0].Value.(ast.Var); ok {
			taken[string(v)] = true
		}
	}
	for _, i := range m.Imports {
		taken[string(i.Name())] = true
	}
	refuse := func(l *ast.Location, format string, args ...any) {
		if err == nil {
			err = fmt.Errorf("%s:%d: %s", l.File, l.Row, fmt.Sprintf(format, args...))
		}
	}
	operator := func(t *ast.Term, at *ast.Location) {
		ref, ok := t.Value.(ast.Ref)
		if !ok {
			return
		}
		name := ref.String()
		if !builtinNames[name] {
			return
		}
		if first, _, _ := strings.Cut(name, "."); taken[first] {
			refuse(at, "%s is the name of a built-in function and of something of its own", first)
		}
		if hosted(name) {
			t.Value = builtinRef(hostPrefix + name)
		}
	}
	ast.WalkExprs(m, func(e *ast.Expr) bool {
		if terms, ok := e.Terms.([]*ast.Term); ok {
			operator(terms[0], e.Location)
		}
		for _, w := range e.With {
			if target, ok := w.Target.Value.(ast.Ref); !ok || !target.HasPrefix(ast.InputRootRef) && !target.HasPrefix(ast.DefaultRootRef) {
				refuse(e.Location, "it replaces %s using `with`", w.Target)
			} else if rules := c.GetRulesExact(target); len(rules) > 0 && len(rules[0].Head.Args) > 0 {
				refuse(e.Location, "it replaces the function %s using `with`", w.Target)
			}
		}
		return false
	})
	ast.WalkTerms(m, func(t *ast.Term) bool {
		switch v := t.Value.(type) {
		case ast.Call:
			operator(v[0], t.Location)
		case ast.Number:
			if !same(string(v)) {
				refuse(t.Location, "it writes a whole number as %s", v)
			}
		}
		return false
	})
	return err
}

func builtinRef(name string) ast.Ref { return (&ast.Builtin{Name: name}).Ref() }

// questionText is the object that holds what some packages answer, by package and rule. Each is a comprehension, so that
// a rule without an answer does not make the others undefined.
func questionText(c *ast.Compiler, packages []string) (text string, refs []ast.Ref) {
	var b strings.Builder
	b.WriteString("{")
	for i, pkg := range packages {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(pkg) + ": {")
		rules, first := rulesOf(c, pkg), true
		for _, name := range askedOf(pkg) {
			if len(rules[name]) == 0 {
				continue
			}
			if !first {
				b.WriteString(", ")
			}
			first = false
			ref := append(packageRef(pkg), ast.StringTerm(name))
			refs = append(refs, ref)
			b.WriteString(strconv.Quote(name) + ": [x | x = " + ref.String() + "]")
		}
		b.WriteString("}")
	}
	b.WriteString("}")
	return b.String(), refs
}
