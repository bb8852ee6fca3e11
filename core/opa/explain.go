package opa

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/weir-gateway/weir/core"
)

// Explanation is why a policy says what it says about one event.
type Explanation struct {
	Policy   string       `json:"policy"`
	Revision string       `json:"revision"`
	Verdict  core.Verdict `json:"verdict"`
	Error    string       `json:"error,omitempty"` // the evaluation failed, which denies
	Rules    []Tried      `json:"rules"`           // those that fired first, then the nearest to firing
	// Facts are the parts of the input that the policy reads: its paths, and their values. A path without a value was
	// not there.
	Facts []Fact `json:"facts"`
}

// Tried is one rule that was tried.
type Tried struct {
	Package string `json:"package"`
	Answer  string `json:"answer"`         // deny, mask …
	Rule    string `json:"rule,omitempty"` // the name that the rule gives in its answer, where it is written there
	File    string `json:"file"`
	Line    int    `json:"line"`
	Fired   bool   `json:"fired"`
	// Of a rule that did not fire: how many of its conditions held in a row, how many it has, and the first that did not.
	Held       int    `json:"held"`
	Conditions int    `json:"conditions"`
	Stopped    string `json:"stopped,omitempty"`
	StoppedAt  int    `json:"stopped_at,omitempty"` // its line
}

// Fact is one part of the input.
type Fact struct {
	Path  string          `json:"path"`
	Value json.RawMessage `json:"value,omitempty"`
}

// Explain asks the policy about an event, and says why. It reports false when the policy is not asked about such events.
func (p *Policy) Explain(ctx context.Context, e *core.Event) (x Explanation, asked bool) {
	q := p.guard
	if e.Kind == core.KindOpen {
		q = p.open
	}
	if q == nil || !p.Subscription().Kinds.Has(e.Kind) {
		return x, false
	}
	x = Explanation{Policy: p.name, Revision: p.revision}
	part := p.newSessionPart(e.Session)
	st := part.state(&q.footprint, e.Session)
	input := p.input(q, e, part, &st)
	t := &trace{rules: map[uint64]*Tried{}, firsts: map[*ast.Rule]*Tried{}, bodies: map[*Tried]ast.Body{}, packages: q.packages}
	most := max(p.timeout, defaultTimeout)
	packages, err := q.eval(ctx, input, &deadline{ctx: ctx, at: time.Now().Add(most)}, most, t)
	if err == nil {
		x.Verdict, err = p.decode(q, packages)
	}
	if err != nil {
		x.Error = err.Error()
	}
	x.Rules = t.tried()
	for _, path := range q.footprint.paths {
		x.Facts = append(x.Facts, Fact{path, at(input, path)})
	}
	return x, true
}

// at returns the value at a path of the input as JSON, or nil.
func at(input ast.Value, path string) json.RawMessage {
	v := input
	if path != "" {
		for part := range strings.SplitSeq(path, ".") {
			o, ok := v.(ast.Object)
			if !ok {
				return nil
			}
			t := o.Get(ast.StringTerm(part))
			if t == nil {
				return nil
			}
			v = t.Value
		}
	}
	j, err := ast.JSON(v)
	if err != nil {
		return nil
	}
	b, err := json.Marshal(j)
	if err != nil {
		return nil
	}
	return b
}

// trace listens to an evaluation.
type trace struct {
	packages []string
	rules    map[uint64]*Tried // by the query that evaluates the rule's body
	firsts   map[*ast.Rule]*Tried
	bodies   map[*Tried]ast.Body
	order    []*ast.Rule
}

// Enabled implements topdown.QueryTracer.
func (t *trace) Enabled() bool { return true }

// Config implements topdown.QueryTracer.
func (t *trace) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent implements topdown.QueryTracer.
func (t *trace) TraceEvent(e topdown.Event) {
	switch node := e.Node.(type) {
	case *ast.Rule:
		switch e.Op {
		case topdown.EnterOp:
			if r := t.enter(node); r != nil {
				t.rules[e.QueryID] = r
			}
		case topdown.ExitOp:
			if r := t.rules[e.QueryID]; r != nil {
				r.Fired = true
				r.Stopped, r.StoppedAt, r.Held = "", 0, r.Conditions
			}
		}
	case *ast.Expr:
		r := t.rules[e.QueryID]
		if e.Op != topdown.FailOp || r == nil || r.Fired {
			return
		}
		held := said(t.bodies[r], node.Index)
		if held < r.Held && r.Stopped != "" {
			return
		}
		r.Held = held
		if node.Location != nil {
			r.Stopped, r.StoppedAt = firstLine(string(node.Location.Text)), node.Location.Row
		}
	}
}

// enter returns the account of a rule that answers for a package; nil for helpers.
func (t *trace) enter(rule *ast.Rule) *Tried {
	if r := t.firsts[rule]; r != nil {
		return r
	}
	pkg := strings.TrimPrefix(rule.Module.Package.Path.String(), "data.")
	name := strings.Trim(rule.Head.Ref()[0].String(), `"`)
	if !slices.Contains(t.packages, pkg) || !slices.Contains(askedOf(pkg), name) || rule.Default {
		return nil
	}
	r := &Tried{Package: pkg, Answer: name, Rule: named(rule), Conditions: said(rule.Body, len(rule.Body))}
	if rule.Location != nil {
		r.File, r.Line = rule.Location.File, rule.Location.Row
	}
	t.firsts[rule], t.bodies[r] = r, rule.Body
	t.order = append(t.order, rule)
	return r
}

// said counts the first n conditions of a body as they were written: those that the compiler added do not count.
func said(body ast.Body, n int) (count int) {
	for i, e := range body {
		if i < n && !e.Generated {
			count++
		}
	}
	return count
}

// named is the name in a rule's head, such as no-ddl in deny contains {"rule": "no-ddl"}.
func named(rule *ast.Rule) string {
	head := rule.Head.Key
	if head == nil {
		return ""
	}
	o, ok := head.Value.(ast.Object)
	if !ok { // the compiler has moved it into the body
		for _, e := range rule.Body {
			if terms, isCall := e.Terms.([]*ast.Term); isCall && len(terms) == 3 && e.IsEquality() {
				for i := range 2 {
					if x, isObject := terms[1+i].Value.(ast.Object); isObject && terms[2-i].Equal(head) {
						o, ok = x, true
					}
				}
			}
		}
	}
	if !ok {
		return ""
	}
	for _, key := range []string{"rule", "column"} {
		if t := o.Get(ast.StringTerm(key)); t != nil {
			if s, isText := t.Value.(ast.String); isText {
				return string(s)
			}
		}
	}
	return ""
}

func (t *trace) tried() []Tried {
	out := make([]Tried, 0, len(t.order))
	for _, rule := range t.order {
		out = append(out, *t.firsts[rule])
	}
	share := func(r *Tried) float64 { return float64(r.Held) / float64(max(1, r.Conditions)) }
	slices.SortStableFunc(out, func(a, b Tried) int {
		switch {
		case a.Fired != b.Fired && a.Fired:
			return -1
		case a.Fired != b.Fired:
			return 1
		}
		return cmp.Or(cmp.Compare(share(&b), share(&a)), strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return out
}

func firstLine(s string) string {
	line, _, more := strings.Cut(strings.TrimSpace(s), "\n")
	if more {
		line += " …"
	}
	return line
}
