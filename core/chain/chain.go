// Package chain passes an event through the steps in order and merges what they answer. There is no "next": no step
// can skip, reorder or repeat another, and each sees the event as the one before it left it.
package chain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/mask"
)

// Step is one plugin in its place.
type Step struct {
	Name   string // named in denials, decisions and logs
	Plugin core.Plugin
	// OnError is what an error of the plugin means: "deny" (the default) or "pass", which lets the event go on and
	// notes the error among the decisions.
	OnError string
}

// Options are what a chain takes besides its steps. The zero value is usable.
type Options struct {
	// MaskKey is the key of hashes and tokens; nil makes one for the life of the process.
	MaskKey *mask.Key
	// Log gets the errors of the steps; nil is slog.Default.
	Log *slog.Logger
}

// Chain is a list of steps. It is safe for use by several goroutines.
type Chain struct {
	steps []step
	union core.Subscription
	asks  bool // some step can name masks or wants rows, so that rows without a known shape must not pass
	opts  []mask.Option
	log   *slog.Logger
}

type step struct {
	Step
	sub   core.Subscription
	kinds core.Kinds
	pass  bool
	limit *atomic.Pointer[limited] // the last one that it named: it is nearly always the same
}

// limited is a limit as the record has it.
type limited struct {
	limit core.Limit
	text  string
}

var (
	_ core.Plugin     = (*Chain)(nil)
	_ core.Subscriber = (*Chain)(nil)
	_ core.Closer     = (*Chain)(nil)
)

// The kinds whose steps can name masks, and the kinds that the chain itself then needs to apply them.
var (
	naming   = core.KindSet(core.KindCommand, core.KindColumns)
	applying = core.KindSet(core.KindCommand, core.KindColumns, core.KindRows)
	all      = core.KindSet(core.KindOpen, core.KindCommand, core.KindColumns, core.KindRows, core.KindBytes, core.KindResult, core.KindNotice, core.KindClose, core.KindOpaque)
)

// New returns a chain of the steps in the order given. It reports every problem of the steps in one error.
func New(steps ...Step) (*Chain, error) { return Options{}.New(steps...) }

// New returns a chain with these options.
func (o Options) New(steps ...Step) (*Chain, error) {
	c := &Chain{log: o.Log}
	if c.log == nil {
		c.log = slog.Default()
	}
	if o.MaskKey != nil {
		c.opts = append(c.opts, mask.WithKey(o.MaskKey))
	}
	var problems []error
	names := map[string]bool{}
	for i, s := range steps {
		st := step{Step: s, kinds: all, limit: new(atomic.Pointer[limited])}
		switch {
		case s.Name == "":
			problems = append(problems, fmt.Errorf("chain: step %d has no name", i+1))
		case names[s.Name]:
			problems = append(problems, fmt.Errorf("chain: two steps are called %q: remove one", s.Name))
		}
		names[s.Name] = true
		if s.Plugin == nil {
			problems = append(problems, fmt.Errorf("chain: step %q has no plugin", s.Name))
			continue
		}
		switch s.OnError {
		case "", "deny":
		case "pass":
			st.pass = true
		default:
			problems = append(problems, fmt.Errorf("chain: step %q: on_error is %q: say deny or pass", s.Name, s.OnError))
		}
		if sub, ok := s.Plugin.(core.Subscriber); ok {
			st.sub = sub.Subscription()
			if u := st.sub.Unknown(); u != "" {
				problems = append(problems, fmt.Errorf("chain: step %q subscribes to columns %q, which is no class of types", s.Name, u))
			}
			if st.sub.Kinds != 0 {
				st.kinds = st.sub.Kinds
			}
		}
		c.steps = append(c.steps, st)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	c.union = union(c.steps)
	c.asks = c.union.Kinds&applying != 0
	return c, nil
}

// union is what the chain has to see so that every step sees what it asked for. A step that can name masks makes
// the chain want columns and rows, because the chain is what applies them.
func union(steps []step) (u core.Subscription) {
	everywhere := false
	for _, s := range steps {
		k := s.kinds
		if k&naming != 0 {
			k |= applying
		}
		if k.Has(core.KindRows) { // rows are read by the columns announced before them
			k |= core.KindSet(core.KindColumns)
		}
		u.Kinds |= k
		everywhere = everywhere || len(s.sub.Protocols) == 0
		u.Tables = u.Tables || s.sub.Tables
		u.Protocols = append(u.Protocols, s.sub.Protocols...)
		u.Columns = append(u.Columns, s.sub.Columns...)
	}
	slices.Sort(u.Protocols)
	slices.Sort(u.Columns)
	u.Protocols, u.Columns = slices.Compact(u.Protocols), slices.Compact(u.Columns)
	if everywhere {
		u.Protocols = nil
	}
	if len(steps) == 0 {
		u.Kinds = core.KindSet() | 1 // no kind has bit 0: nothing is wanted
	}
	return u
}

// Subscription returns what the steps want together.
func (c *Chain) Subscription() core.Subscription { return c.union }

// Asks reports whether some step looks at events of a kind. A chain in which no step is asked at Open lets every
// recognised identity in.
func (c *Chain) Asks(k core.Kind) bool {
	return slices.ContainsFunc(c.steps, func(s step) bool { return s.kinds.Has(k) })
}

// Forget tells the steps that a session is over.
func (c *Chain) Forget(s *core.Session) {
	for i := range c.steps {
		if f, ok := c.steps[i].Plugin.(core.Closer); ok {
			f.Forget(s)
		}
	}
}

// Inspect asks the steps in order. The first deny ends it. Its error is always nil: a step that fails is a denial,
// or noted and passed over, as the step says.
func (c *Chain) Inspect(ctx context.Context, e *core.Event) (v core.Verdict, err error) {
	var b *bound
	if e.Kind == core.KindRows {
		var d *core.Denial
		if b, d = c.boundFor(e); d != nil {
			deny(&v, d)
			return v, nil
		}
	}
	for i := range c.steps {
		st := &c.steps[i]
		if !st.kinds.Has(e.Kind) || !st.sub.WantsProtocol(e.Session.Protocol) {
			continue
		}
		if b != nil && !b.steps[i] {
			continue
		}
		a, err := inspect(ctx, st, e)
		if err != nil {
			c.failed(st, e, err)
			if st.pass {
				v.Decisions = append(v.Decisions, core.Decision{Step: st.Name, Action: "error", Rule: "step-error", Detail: cause(err)})
				continue
			}
			deny(&v, &core.Denial{Step: st.Name, Rule: "step-error", Reason: "a step of the chain failed", Hint: "ask the operator; the gateway's log says why"})
			if why := cause(err); why != "" {
				v.Decisions[len(v.Decisions)-1].Detail += ": " + why
			}
			return v, nil
		}
		if zero(&a) {
			continue
		}
		c.merge(&v, st, &a)
		if v.Deny != nil {
			return v, nil
		}
	}
	switch e.Kind {
	case core.KindCommand:
		c.keepMasks(e, &v)
	case core.KindColumns:
		c.bind(e, &v)
	case core.KindRows:
		c.hide(e, b, &v)
	}
	return v, nil
}

// cause is what a step says of its error in one word, for the record; the client is not told.
func cause(err error) string {
	var c interface{ Cause() string }
	if errors.As(err, &c) {
		return c.Cause()
	}
	return ""
}

// Versions says of each step that knows it which version of it judges, as decisions for the record.
func (c *Chain) Versions() (list []core.Decision) {
	for i := range c.steps {
		if p, ok := c.steps[i].Plugin.(interface {
			Version() (version, digest string)
		}); ok {
			version, digest := p.Version()
			list = append(list, core.Decision{Step: c.steps[i].Name, Action: "version", Rule: digest, Detail: version})
		}
	}
	return list
}

// inspect runs one step and turns a panic into an error.
func inspect(ctx context.Context, st *step, e *core.Event) (v core.Verdict, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{value: r, stack: debug.Stack()}
		}
	}()
	return st.Plugin.Inspect(ctx, e)
}

type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

func (c *Chain) failed(st *step, e *core.Event, err error) {
	args := []any{"step", st.Name, "kind", e.Kind.String(), "session", e.Session.ID, "error", err, "passed", st.pass}
	var p *panicError
	if errors.As(err, &p) {
		args = append(args, "stack", string(p.stack))
	}
	c.log.Error("chain: a step failed", args...)
}

func zero(v *core.Verdict) bool {
	return v.Deny == nil && v.Hold == nil && v.Masks == nil && v.Limit == (core.Limit{}) && v.Record == core.LevelUnset && v.Decisions == nil && !v.Changed
}

// merge folds one step's answer into the chain's, under the step's name. Answers may be shared (a policy caches its
// own), so nothing of a is changed.
func (c *Chain) merge(v *core.Verdict, st *step, a *core.Verdict) {
	for _, d := range a.Decisions {
		d.Step = st.Name
		v.Decisions = append(v.Decisions, d)
	}
	note := func(action, rule, detail string) {
		if !slices.ContainsFunc(a.Decisions, func(d core.Decision) bool { return d.Action == action }) {
			v.Decisions = append(v.Decisions, core.Decision{Step: st.Name, Action: action, Rule: rule, Detail: detail})
		}
	}
	if a.Deny != nil {
		d := *a.Deny
		d.Step = st.Name
		v.Deny = &d
		note("deny", d.Rule, d.Reason)
	}
	if a.Hold != nil {
		v.Hold = v.Hold.With(a.Hold) // each of them has to be approved
		note("hold", a.Hold.Rule, a.Hold.Reason)
	}
	for _, m := range a.Masks {
		m.Step = st.Name
		if err := mask.Check(m); err != nil { // said now, not when the rows are on their way
			c.log.Error("chain: a step names a mask that does not exist", "step", st.Name, "error", err)
			deny(v, unmaskable(m))
			return
		}
		v.Masks = append(v.Masks, m)
	}
	if a.Limit != (core.Limit{}) {
		v.Limit = v.Limit.Merge(a.Limit)
		note("limit", "", st.limitText(a.Limit))
	}
	if a.Record != core.LevelUnset {
		v.Record = max(v.Record, a.Record)
		note("record", "", a.Record.String())
	}
	v.Changed = v.Changed || a.Changed
}

func unmaskable(m core.Mask) *core.Denial {
	rule := m.Rule
	if rule == "" {
		rule = "mask-error"
	}
	return &core.Denial{Step: m.Step, Rule: rule, Reason: "a value that must be hidden cannot be", Hint: "ask the operator; the gateway's log says why"}
}

func deny(v *core.Verdict, d *core.Denial) {
	if d.Step == "" {
		d.Step = "chain"
	}
	v.Deny = d
	v.Decisions = append(v.Decisions, core.Decision{Step: d.Step, Action: "deny", Rule: d.Rule, Detail: d.Reason})
}

func (st *step) limitText(l core.Limit) string {
	if last := st.limit.Load(); last != nil && last.limit == l {
		return last.text
	}
	text := limitText(l)
	st.limit.Store(&limited{l, text})
	return text
}

func limitText(l core.Limit) string {
	var b []byte
	add := func(name, value string) {
		if len(b) > 0 {
			b = append(b, ' ')
		}
		b = append(append(append(b, name...), '='), value...)
	}
	if l.Rows > 0 {
		add("rows", strconv.FormatInt(l.Rows, 10))
	}
	if l.Bytes > 0 {
		add("bytes", strconv.FormatInt(l.Bytes, 10))
	}
	if l.Time > 0 {
		add("time", l.Time.String())
	}
	return string(b)
}
