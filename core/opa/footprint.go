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
	asks     asks
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
	documents := map[*ast.Expr]ast.Ref{} // of the conditions that read one field of a document
	var visit *ast.GenericVisitor
	visit = ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Rule:
			for e, from := range fieldsRead(x) {
				documents[e] = from
			}
		case *ast.Expr:
			from, ok := documents[x]
			if !ok {
				return false
			}
			if !from.HasPrefix(ast.InputRootRef) {
				of, n := alias(c, from)
				if of == nil {
					return false
				}
				from = of.Concat(from[n:])
			}
			if operands := x.Operands(); !x.IsEquality() {
				paths[constantPath(append(slices.Clone(from), operands[1]))] = true
				for _, t := range operands[2:] {
					visit.Walk(t)
				}
			}
			return true
		case ast.Ref:
			switch {
			case x.HasPrefix(ast.InputRootRef):
				paths[constantPath(x)] = true
			case x.HasPrefix(ast.DefaultRootRef):
				if of, n := alias(c, x); of != nil {
					paths[constantPath(of.Concat(x[n:]))] = true
				} else {
					reach(x)
				}
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

// fieldsRead finds the conditions of a rule that read one known field of a document, by object.get(from, "key", …), and
// those that do nothing but name that document for them: the compiler writes v = from; object.get(v, "key", …).
func fieldsRead(rule *ast.Rule) map[*ast.Expr]ast.Ref {
	found := map[*ast.Expr]ast.Ref{}
	for _, e := range rule.Body {
		a, b, ok := equated(e)
		if !ok || e.Negated || len(e.With) > 0 {
			continue
		}
		if _, isVar := a.Value.(ast.Var); !isVar {
			a, b = b, a
		}
		name, isVar := a.Value.(ast.Var)
		from, isRef := b.Value.(ast.Ref)
		if !isVar || !isRef || !from.IsGround() {
			continue
		}
		uses := 0
		ast.WalkVars(rule, func(v ast.Var) bool {
			if v.Equal(name) {
				uses++
			}
			return false
		})
		var readers []*ast.Expr
		for _, r := range rule.Body {
			if !r.IsCall() || r.Operator().String() != ast.ObjectGet.Name || len(r.With) > 0 {
				continue
			}
			if _, constant := r.Operand(1).Value.(ast.String); constant && r.Operand(0).Value.Compare(name) == 0 {
				readers = append(readers, r)
			}
		}
		if len(readers) > 0 && uses == 1+len(readers) {
			found[e] = from
			for _, r := range readers {
				found[r] = from
			}
		}
	}
	return found
}

// alias resolves a reference that begins with a rule which is another name for a part of the input, such as
// command := input.event.command. It returns that part, and how many terms of r name the rule.
func alias(c *ast.Compiler, r ast.Ref) (of ast.Ref, n int) {
	for n = 2; n <= len(r); n++ {
		if _, ok := r[n-1].Value.(ast.String); !ok {
			return nil, 0
		}
		rules := c.GetRulesExact(r[:n])
		if len(rules) == 0 {
			continue
		}
		if len(rules) > 1 || rules[0].Default || rules[0].Else != nil || rules[0].Head.RuleKind() != ast.SingleValue || len(rules[0].Head.Args) > 0 || !r[:n].Equal(rules[0].Ref()) {
			return nil, 0
		}
		return partOf(rules[0]), n
	}
	return nil, 0
}

// partOf returns the part of the input that a rule is, without a condition; nil when it is anything else.
func partOf(rule *ast.Rule) ast.Ref {
	value := rule.Head.Value
	var of ast.Ref
	for _, e := range rule.Body {
		if t, ok := e.Terms.(*ast.Term); ok && t.Equal(ast.BooleanTerm(true)) && !e.Negated {
			continue
		}
		a, b, ok := equated(e)
		if !ok || e.Negated || len(e.With) > 0 || of != nil { // the compiler puts a reference of the head there
			return nil
		}
		if b.Equal(value) {
			a, b = b, a
		}
		ref, isRef := b.Value.(ast.Ref)
		if _, isVar := value.Value.(ast.Var); !isVar || !a.Equal(value) || !isRef {
			return nil
		}
		of = ref
	}
	if of == nil {
		of, _ = value.Value.(ast.Ref)
	}
	if of == nil || !of.HasPrefix(ast.InputRootRef) || len(of) < 2 || !of.IsGround() {
		return nil
	}
	return of
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
		case p == "":
			f.asks = askAll
			f.volatile = append(f.volatile, p)
		case p == "event", at(0) == "time":
			f.volatile = append(f.volatile, p)
		case at(0) == "session", at(0) == "run":
			kept, all := sessionAsks[at(1)], askSession|askTransaction|askTables
			if at(0) == "run" {
				kept, all = runAsks[at(1)], askRunID|askRunTables|askRun
			}
			if kept == 0 { // a count, or all of it
				kept = all
				f.volatile = append(f.volatile, p)
			}
			f.asks |= kept
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
