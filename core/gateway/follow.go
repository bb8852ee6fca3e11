package gateway

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-gateway/weir/core"
)

// ErrRules is the cause when a reload brings rules about kinds of events that a session was opened without: its
// protocol may pass such events unread, so only a new session can follow.
var ErrRules = errors.New("the rules have changed in a way that an open session cannot follow: connect again")

// following is the chain of an open session: its target's chain as the settings have it now. A reload changes it
// between two events. The rows of an answer are judged by the chain that saw their columns.
type following struct {
	kinds core.Kinds // that the session was opened for
	now   atomic.Pointer[lease]
	told  atomic.Pointer[lease] // whose versions are in the record

	mu   sync.Mutex
	held []*lease // oldest first: the present one, and those before it whose answers may still be under way
	over bool
}

// lease is a chain, and the hold on the settings that keeps its steps working.
type lease struct {
	generation *generation
	chain      core.Plugin // may be nil
	left       time.Time   // when the session went on with another; of following.mu
}

// What is held of the chains that a session has left. An answer that outlasts it is refused by those of its steps that
// need what is gone.
const (
	keptLeases = 2 // at least: the present one and the one before
	mostLeases = 16
)

// answerTime is how long the answers of a chain that has been left may go on when there are more than keptLeases.
var answerTime = time.Minute

// tied is what the chain keeps in a Plan, with the chain that keeps it.
type tied struct {
	lease *lease
	bound any
}

var (
	_ core.Plugin     = (*following)(nil)
	_ core.Subscriber = (*following)(nil)
	_ core.Closer     = (*following)(nil)
)

// follow makes the chain of a session with a target of s.
func (g *Gateway) follow(s *served, t *Target) *following {
	l := g.lease(t)
	if l == nil { // the settings have lost the target since the client came: those it came by are in force for it
		s.refs.Add(1)
		l = &lease{generation: s.generation, chain: t.Chain}
	}
	f := &following{kinds: kindsOf(l.chain), held: []*lease{l}}
	f.now.Store(l)
	return f
}

// lease takes hold of a target's present chain; nil when there is no such target now.
func (g *Gateway) lease(t *Target) *lease {
	g.mu.RLock()
	defer g.mu.RUnlock()
	now := g.now.targets[t.Name]
	if now == nil || now.Protocol != t.Protocol {
		return nil
	}
	g.now.refs.Add(1) // it is the present one, so it has not been let go
	return &lease{generation: g.now, chain: now.Chain}
}

// move goes on with l, if that is newer, and reports whether the session can. It takes over l's hold.
func (f *following) move(l *lease) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if last := f.now.Load().generation; f.over || l.generation.number <= last.number {
		l.generation.release()
		return true
	}
	able := kindsOf(l.chain)&^f.kinds == 0
	f.held[len(f.held)-1].left = time.Now()
	f.held = append(f.held, l)
	f.now.Store(l)
	return able
}

// leave lets go of the chains whose answers have had their time.
func (f *following) leave(s *core.Session) {
	f.mu.Lock()
	n := 0
	for len(f.held)-n > keptLeases && (len(f.held)-n > mostLeases || time.Since(f.held[n].left) >= answerTime) {
		n++
	}
	gone := slices.Clone(f.held[:n])
	f.held = slices.Delete(f.held, 0, n)
	f.mu.Unlock()
	forget(s, gone)
}

func forget(s *core.Session, leases []*lease) {
	for _, l := range leases {
		if c, ok := l.chain.(core.Closer); ok {
			c.Forget(s)
		}
		l.generation.release()
	}
}

// Forget implements core.Closer.
func (f *following) Forget(s *core.Session) { forget(s, f.take()) }

// drop lets go of what a session that never began would have followed.
func (f *following) drop() {
	for _, l := range f.take() {
		l.generation.release()
	}
}

// take ends the following and returns what is held.
func (f *following) take() []*lease {
	f.mu.Lock()
	defer f.mu.Unlock()
	held := f.held
	f.held, f.over = nil, true
	return held
}

// Subscription implements core.Subscriber.
func (f *following) Subscription() core.Subscription {
	chain := f.now.Load().chain
	if chain == nil {
		return core.Subscription{Kinds: nothing}
	}
	if sub, ok := chain.(core.Subscriber); ok {
		return sub.Subscription()
	}
	return core.Subscription{}
}

// Inspect implements core.Plugin.
func (f *following) Inspect(ctx context.Context, e *core.Event) (core.Verdict, error) {
	l, x := f.now.Load(), e.Exchange
	if x != nil && e.Kind == core.KindRows {
		if t, ok := x.Plan.Bound.(*tied); ok {
			l, x.Plan.Bound = t.lease, t.bound
			defer func() { x.Plan.Bound = t }()
		}
	}
	if l.chain == nil {
		return core.Verdict{}, nil
	}
	v, err := l.chain.Inspect(ctx, e)
	if x != nil && e.Kind == core.KindColumns {
		if _, ok := x.Plan.Bound.(*tied); !ok {
			x.Plan.Bound = &tied{l, x.Plan.Bound}
		}
	}
	if e.Kind != core.KindColumns { // which may be asked about without being recorded: see Session.Ask
		f.tell(l, &v)
	}
	return v, err
}

// tell puts which versions judge into the record of the first event that a chain judges: the opening, and the one after
// a reload. The rows of an answer that an earlier chain goes on with are not the first of anything.
func (f *following) tell(l *lease, v *core.Verdict) {
	last := f.told.Load()
	if last == l || last != nil && last.generation.number >= l.generation.number || !f.told.CompareAndSwap(last, l) {
		return
	}
	if c, ok := l.chain.(interface{ Versions() []core.Decision }); ok {
		v.Decisions = append(c.Versions(), v.Decisions...)
	}
}

// nothing is a set of kinds that holds none, and is not the zero that stands for all.
const nothing core.Kinds = 1

// kindsOf is the set of kinds that a chain is asked about.
func kindsOf(chain core.Plugin) core.Kinds {
	if chain == nil {
		return nothing
	}
	if sub, ok := chain.(core.Subscriber); ok {
		if k := sub.Subscription().Kinds; k != 0 {
			return k | nothing
		}
	}
	return ^core.Kinds(0)
}

// follow brings the client's sessions to the present rules.
func (c *client) follow() {
	c.mu.Lock()
	sessions := make(map[*core.Session]*following, len(c.sessions))
	for s, o := range c.sessions {
		sessions[s] = o.following
	}
	c.mu.Unlock()
	for s, f := range sessions {
		t := c.served.targets[s.Target.Name]
		if t == nil {
			continue
		}
		l := c.g.lease(t)
		if l == nil { // the target is gone: what is open goes on as it was
			continue
		}
		if !f.move(l) {
			c.g.Log.Info("gateway: session ended", "session", s.ID, "target", s.Target.Name, "reason", ErrRules)
			c.stop(ErrRules)
		}
		f.leave(s)
	}
}
