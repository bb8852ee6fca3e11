package opa

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// question is one prepared query for all rules that some packages define.
type question struct {
	name      string // open or guard
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
func ask(ctx context.Context, c *ast.Compiler, store storage.Store, name string, packages []string) (*question, error) {
	if len(packages) == 0 {
		return nil, nil
	}
	text, refs := questionText(c, packages)
	parsed, err := ast.ParseBodyWithOpts(string(answerVar)+" = "+text, parserOptions)
	if err != nil {
		return nil, explain(err)
	}
	q := &question{name: name, packages: packages, footprint: footprintOf(c, refs), compiled: c.QueryCompiler(), compiler: c, store: store}
	if q.body, err = q.compiled.Compile(parsed); err != nil {
		return nil, explain(err)
	}
	q.txn, err = store.NewTransaction(ctx)
	return q, err
}

// eval asks topdown about an input, within a time.
func (q *question) eval(ctx context.Context, input ast.Value, over *deadline, most time.Duration, tracer topdown.QueryTracer) (packages map[string]any, err error) {
	answer, err := q.answer(ctx, input, over, most, tracer)
	if err != nil {
		return nil, err
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

// answer evaluates the query. A built-in function that panics has failed: bits.lsh does for a distance that no memory has.
func (q *question) answer(ctx context.Context, input ast.Value, over *deadline, most time.Duration, tracer topdown.QueryTracer) (answer ast.Value, err error) {
	defer func() {
		if r := recover(); r != nil {
			answer, err = nil, errors.New("the evaluation failed: it panicked")
		}
	}()
	query := topdown.NewQuery(q.body).WithQueryCompiler(q.compiled).WithCompiler(q.compiler).WithStore(q.store).WithTransaction(q.txn).
		WithInput(ast.NewTerm(input)).WithStrictBuiltinErrors(true).WithMetrics(metrics.NoOp()).WithCancel(over).
		WithIndexing(tracer == nil).WithEarlyExit(tracer == nil)
	if tracer != nil {
		query = query.WithQueryTracer(tracer)
	}
	n := 0
	err = query.Iter(ctx, func(r topdown.QueryResult) error {
		if t := r[answerVar]; t != nil {
			answer = t.Value
		}
		n++
		return nil
	})
	switch {
	case err != nil && (ctx.Err() != nil || over.reached):
		return nil, late(ctx, context.DeadlineExceeded, most)
	case err != nil:
		return nil, withoutValues(err)
	case n != 1 || answer == nil:
		return nil, errors.New("no answer")
	}
	return answer, nil
}

// late says that there was no time left.
func late(ctx context.Context, err error, most time.Duration) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("not evaluated: %w", ctx.Err())
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("not evaluated within %v: %w", most, err)
	}
	return err
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
