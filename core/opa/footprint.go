package opa

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// footprint is what of the input some rules can read, found in the compiled modules: whatever they can reach is
// followed, so it may be too large but never too small.
type footprint struct {
	paths []string // such as "event.command.effects"; sorted, without those under another
	// volatile are the paths that forbid to keep a verdict: they change without the key changing.
	volatile []string
	params   bool // the parameters' values may be read: a verdict on a command that has some is not kept
	columns  bool
	command  fields
	identity fields
	target   bool
}

// fields is a set of the named parts of a command or an identity.
type fields uint16

var (
	commandFields  = []string{"action", "text", "fingerprint", "effects", "resources", "where", "status", "reason"}
	identityFields = []string{"subject", "issuer", "groups", "kind", "claims"}
)

func (f *fields) add(names []string, name string) {
	if i := slices.Index(names, name); i >= 0 {
		*f |= 1 << i
	}
}

func (f fields) has(i int) bool { return f&(1<<i) != 0 }

// footprintOf follows the rules behind refs.
func footprintOf(c *ast.Compiler, refs []ast.Ref) footprint {
	seen := map[*ast.Rule]bool{}
	paths := map[string]bool{}
	var queue []*ast.Rule
	reach := func(r ast.Ref) {
		for _, rule := range c.GetRulesDynamicWithOpts(r, ast.RulesOptions{IncludeHiddenModules: true}) {
			if !seen[rule] {
				seen[rule] = true
				queue = append(queue, rule)
			}
		}
	}
	var visit *ast.GenericVisitor
	visit = ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case ast.Ref:
			switch {
			case x.HasPrefix(ast.InputRootRef):
				paths[constantPath(x)] = true
			case x.HasPrefix(ast.DefaultRootRef):
				reach(x)
			default:
				visit.Walk(x[0])
			}
			for _, t := range x[1:] {
				visit.Walk(t)
			}
			return true
		case ast.Var:
			switch {
			case x.Equal(ast.InputRootDocument.Value):
				paths[""] = true
			case x.Equal(ast.DefaultRootDocument.Value):
				reach(ast.DefaultRootRef)
			}
		}
		return false
	})
	for _, r := range refs {
		reach(r)
	}
	for len(queue) > 0 {
		rule := queue[0]
		queue = queue[1:]
		visit.Walk(rule)
	}
	return newFootprint(paths)
}

// constantPath returns the parts of an input reference up to the first that is only known when it is evaluated.
func constantPath(r ast.Ref) string {
	var parts []string
	for _, t := range r[1:] {
		s, ok := t.Value.(ast.String)
		if !ok || strings.Contains(string(s), ".") {
			break
		}
		parts = append(parts, string(s))
	}
	return strings.Join(parts, ".")
}

func newFootprint(paths map[string]bool) (f footprint) {
	for p := range paths {
		covered := false
		for q := range paths {
			covered = covered || q != p && (q == "" || strings.HasPrefix(p, q+"."))
		}
		if !covered {
			f.paths = append(f.paths, p)
		}
	}
	slices.Sort(f.paths)
	for _, p := range f.paths {
		parts := strings.Split(p, ".")
		at := func(i int) string {
			if i < len(parts) {
				return parts[i]
			}
			return ""
		}
		switch {
		case p == "", p == "event", at(0) == "session", at(0) == "time":
			f.volatile = append(f.volatile, p)
		case at(0) == "identity" && at(1) == "":
			f.identity = ^fields(0)
		case at(0) == "identity":
			f.identity.add(identityFields, at(1))
		case at(0) == "target":
			f.target = true
		case p == "event.command":
			f.command, f.params = ^fields(0), true
		case at(1) == "command" && at(2) == "params":
			f.params = true
		case at(1) == "command":
			f.command.add(commandFields, at(2))
		case at(1) == "columns":
			f.columns = true
		case p == "event.kind", p == "event.direction", p == "event.stage":
			// always part of the key
		case at(0) == "event": // result, the protocol's own object
			f.volatile = append(f.volatile, p)
		}
	}
	return f
}

// reads reports whether some rule may read the input at path or below it.
func (f *footprint) reads(path string) bool {
	for _, p := range f.paths {
		if p == "" || p == path || strings.HasPrefix(p, path+".") || strings.HasPrefix(path, p+".") {
			return true
		}
	}
	return false
}

// cacheable reports whether verdicts may be kept at all.
func (f *footprint) cacheable() bool { return len(f.volatile) == 0 }
