package opa

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/weir-gateway/weir/core"
)

// question is one prepared query for all rules that some packages define.
type question struct {
	packages  []string
	footprint footprint

	body     ast.Body
	compiled ast.QueryCompiler
	compiler *ast.Compiler
	store    storage.Store
	txn      storage.Transaction // for good: the store is never written
}

const answerVar = ast.Var("answer")

// ask prepares one query for all rules that the packages define.
func ask(ctx context.Context, c *ast.Compiler, store storage.Store, packages []string) (*question, error) {
	if len(packages) == 0 {
		return nil, nil
	}
	var b strings.Builder
	var refs []ast.Ref
	b.WriteString(string(answerVar) + " = {")
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
			// A comprehension, so that a rule without an answer does not make the others undefined.
			b.WriteString(strconv.Quote(name) + ": [x | x = " + ref.String() + "]")
		}
		b.WriteString("}")
	}
	b.WriteString("}")
	parsed, err := ast.ParseBodyWithOpts(b.String(), parserOptions)
	if err != nil {
		return nil, explain(err)
	}
	q := &question{packages: packages, footprint: footprintOf(c, refs), compiled: c.QueryCompiler(), compiler: c, store: store}
	if q.body, err = q.compiled.Compile(parsed); err != nil {
		return nil, explain(err)
	}
	q.txn, err = store.NewTransaction(ctx)
	return q, err
}

// eval asks about an input, within a time.
func (q *question) eval(ctx context.Context, input ast.Value, most time.Duration, tracer topdown.QueryTracer) (packages map[string]any, err error) {
	over := &deadline{ctx: ctx, at: time.Now().Add(most)}
	query := topdown.NewQuery(q.body).WithQueryCompiler(q.compiled).WithCompiler(q.compiler).WithStore(q.store).WithTransaction(q.txn).
		WithInput(ast.NewTerm(input)).WithStrictBuiltinErrors(true).WithMetrics(metrics.NoOp()).WithCancel(over).
		WithIndexing(tracer == nil).WithEarlyExit(tracer == nil)
	if tracer != nil {
		query = query.WithQueryTracer(tracer)
	}
	var answer ast.Value
	n := 0
	err = query.Iter(ctx, func(r topdown.QueryResult) error {
		if t := r[answerVar]; t != nil {
			answer = t.Value
		}
		n++
		return nil
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("not evaluated: %w", ctx.Err())
	case err != nil && over.reached:
		return nil, fmt.Errorf("not evaluated within %v: %w", most, context.DeadlineExceeded)
	case err != nil:
		return nil, withoutValues(err)
	case n != 1 || answer == nil:
		return nil, errors.New("no answer")
	}
	j, err := ast.JSON(answer)
	if err != nil {
		return nil, errors.New("the answer is no JSON")
	}
	packages, ok := j.(map[string]any)
	if !ok {
		return nil, errors.New("no answer")
	}
	return packages, nil
}

// deadline ends an evaluation. It is asked at each step, which is cheaper than a timer and a goroutine for each
// question.
type deadline struct {
	ctx     context.Context
	at      time.Time
	asked   uint
	reached bool
}

// Cancel implements topdown.Cancel.
func (d *deadline) Cancel() { d.reached = true }

// Cancelled implements topdown.Cancel. The evaluation asks from one goroutine.
func (d *deadline) Cancelled() bool {
	if d.asked++; d.asked%64 == 0 && !d.reached {
		d.reached = d.ctx.Err() != nil || time.Now().After(d.at)
	}
	return d.reached
}

// withoutValues says where an evaluation failed, but not with which values: they may be what must be hidden.
func withoutValues(err error) error {
	var t *topdown.Error
	if !errors.As(err, &t) {
		return errors.New("the evaluation failed")
	}
	if t.Location == nil {
		return fmt.Errorf("the evaluation failed: %s", t.Code)
	}
	return fmt.Errorf("%s:%d: the evaluation failed: %s", t.Location.File, t.Location.Row, t.Code)
}

// eval asks OPA.
func (p *Policy) eval(ctx context.Context, q *question, e *core.Event, part *sessionPart, st *state) (core.Verdict, error) {
	packages, err := q.eval(ctx, p.input(q, e, part, st), p.timeout, nil)
	if err != nil {
		return core.Verdict{}, err
	}
	return p.decode(q, packages)
}
