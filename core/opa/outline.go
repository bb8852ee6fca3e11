package opa

import (
	"cmp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Outline is something that a policy may do to a command or an answer, as far as its text tells it.
type Outline struct {
	Does   string // mask or hold
	What   string // the column or the rule; empty: it is worked out
	Detail string // the transform, or who may approve
}

// Outline lists what the policy may mask and hold, each once. Whether it does depends on who asks, and for what.
func (p *Policy) Outline() []Outline {
	if p.guard == nil {
		return nil
	}
	var out []Outline
	for _, pkg := range p.guard.packages {
		rules := rulesOf(p.guard.compiler, pkg)
		for _, does := range []string{"mask", "hold"} {
			for _, r := range rules[does] {
				if o := outlineOf(does, r); !slices.Contains(out, o) {
					out = append(out, o)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b Outline) int { // masks first
		return cmp.Or(strings.Compare(b.Does, a.Does), strings.Compare(a.What, b.What), strings.Compare(a.Detail, b.Detail))
	})
	return out
}

// outlineOf reads the object that a rule contains. The compiler may have moved it from the head to the body.
func outlineOf(does string, r *ast.Rule) Outline {
	key, detail := "column", "with"
	if does == "hold" {
		key, detail = "rule", "approvers"
	}
	o := Outline{Does: does}
	ast.WalkTerms(r, func(t *ast.Term) bool {
		object, ok := t.Value.(ast.Object)
		if !ok || object.Get(ast.StringTerm(key)) == nil || o.What != "" {
			return false
		}
		o.What, o.Detail = constant(object.Get(ast.StringTerm(key))), constant(object.Get(ast.StringTerm(detail)))
		return false
	})
	return o
}

// constant is a term's text, or the texts of an array; empty where it is worked out.
func constant(t *ast.Term) string {
	if t == nil {
		return ""
	}
	switch v := t.Value.(type) {
	case ast.String:
		return string(v)
	case *ast.Array:
		var parts []string
		v.Foreach(func(e *ast.Term) {
			if s := constant(e); s != "" {
				parts = append(parts, s)
			}
		})
		return strings.Join(parts, " or ")
	}
	return ""
}
