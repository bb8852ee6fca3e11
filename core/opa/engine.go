package opa

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/tetratelabs/wazero"

	"github.com/weir-gateway/weir/core"
)

// Two engines answer a question: OPA's topdown, and the same policy compiled by OPA to WebAssembly, which is faster.
// Topdown is the reference. Where the compiled policy traps it has no answer, and topdown is asked: so what a guest
// cannot do costs time and never changes a verdict.

// Engine says what evaluates a policy.
type Engine string

// The engines. Auto is WASM where the policy can be compiled and is likely to be faster.
const (
	Auto    Engine = "auto"
	Topdown Engine = "topdown"
	WASM    Engine = "wasm"
)

// Engines are the names that a configuration may use.
var Engines = []Engine{Auto, Topdown, WASM}

const (
	maxGuestData  = 1 << 20 // bytes of the documents as JSON: each instance has them, at thirteen times the size
	maxGuestCode  = 1000    // rules in all: a load has to be fast
	maxGuestRules = 48      // of one name: beyond them topdown's index of rules is faster than trying each
)

// Engine returns what evaluates the policy, and why it is topdown where that is not what was asked for.
func (p *Policy) Engine() (e Engine, why string) {
	if p.guest != nil {
		return WASM, ""
	}
	return Topdown, p.why
}

// engine compiles the policy for the engine that is wanted.
func (p *Policy) engine(ctx context.Context, want Engine, modules map[string]*ast.Module, data map[string]any, c *ast.Compiler) error {
	switch want {
	case Topdown:
		p.why = "its configuration says so"
		return nil
	case "", Auto:
		switch name, n, all := most(c); {
		case n > maxGuestRules:
			p.why = fmt.Sprintf("it has %d rules %s, and topdown finds those that can hold by an index", n, name)
			return nil
		case all > maxGuestCode:
			p.why = fmt.Sprintf("it has %d rules, which would take long to compile", all)
			return nil
		}
	case WASM:
	default:
		return fmt.Errorf("there is no engine %q: say auto, topdown or wasm", want)
	}
	g, err := p.compiled(ctx, modules, data, c)
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n") // others are where in a guest's code
		err = errors.New(first)
	}
	switch {
	case err == nil:
		p.guest = g
		runtime.AddCleanup(p, func(r wazero.Runtime) { _ = r.Close(context.Background()) }, g.runtime)
	case ctx.Err() != nil:
		return ctx.Err()
	case want == WASM:
		return fmt.Errorf("the engine wasm cannot run it: %w (say engine: auto)", err)
	default:
		p.why = "it cannot be compiled: " + err.Error()
	}
	return nil
}

// most returns the name that most rules have, how many they are, and how many there are in all.
func most(c *ast.Compiler) (name string, n, all int) {
	count := map[string]int{}
	for _, m := range c.Modules {
		for _, r := range m.Rules {
			count[r.Ref().GroundPrefix().String()]++
			all++
		}
	}
	for _, s := range slices.Sorted(maps.Keys(count)) {
		if count[s] > n {
			name, n = s, count[s]
		}
	}
	return name, n, all
}

func (p *Policy) compiled(ctx context.Context, modules map[string]*ast.Module, data map[string]any, c *ast.Compiler) (*guest, error) {
	text, ok := appendDocument(nil, data, 0, maxGuestData)
	if !ok {
		return nil, fmt.Errorf("its data has more than %d MiB of JSON, is nested deeper than %d, or holds a text that is no UTF-8 or a whole number such as 1.0", maxGuestData>>20, maxDepth)
	}
	questions := map[string]string{}
	for _, q := range []*question{p.open, p.guard} {
		if q != nil {
			questions[q.name], _ = questionText(c, q.packages)
		}
	}
	module, err := buildGuest(ctx, c, modules, questions, rewriting{trap: true, count: true})
	if err != nil {
		return nil, err
	}
	return newGuest(ctx, module, text)
}

// eval asks the engine.
func (p *Policy) eval(ctx context.Context, q *question, e *core.Event, part *sessionPart, st *state) (core.Verdict, error) {
	defer runtime.KeepAlive(p) // with it the guest would go
	over := deadline{ctx: ctx, at: time.Now().Add(p.timeout)}
	var packages map[string]any
	err := errStumbled
	if p.guest != nil {
		err = p.guest.ask(ctx, q.name, over, func(b []byte) ([]byte, bool) { return p.inputText(b, q, e, part, st) }, func(r *valueReader, at uint32) {
			packages, _ = r.plain(at, 0).(map[string]any)
		})
	}
	switch {
	case errors.Is(err, errStumbled):
		if packages, err = q.eval(ctx, p.input(q, e, part, st), &over, p.timeout, nil); err != nil {
			return core.Verdict{}, err
		}
	case err != nil:
		return core.Verdict{}, late(ctx, err, p.timeout)
	}
	return p.decode(q, packages)
}
