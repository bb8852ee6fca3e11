package gateway

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/weir-gateway/weir/core"
)

// refusal is the chain of a session that the gateway refuses.
type refusal struct{ denial *core.Denial }

// Inspect implements core.Plugin.
func (r refusal) Inspect(_ context.Context, e *core.Event) (core.Verdict, error) {
	if e.Kind != core.KindOpen {
		return core.Verdict{}, nil
	}
	return core.Verdict{Deny: r.denial, Decisions: []core.Decision{{Step: r.denial.Step, Action: "deny", Rule: r.denial.Rule, Detail: r.denial.Reason}}}, nil
}

// expiry is a chain that lets no command pass once the session's token has expired.
type expiry struct {
	chain core.Plugin // may be nil
	at    time.Time
}

// expiring puts an expiry before chain. A token that never expires needs none.
func expiring(chain core.Plugin, at time.Time) core.Plugin {
	if at.IsZero() {
		return chain
	}
	return &expiry{chain, at}
}

// Inspect implements core.Plugin.
func (x *expiry) Inspect(ctx context.Context, e *core.Event) (core.Verdict, error) {
	if e.Kind == core.KindCommand && time.Now().After(x.at.Add(expiryGrace)) {
		d := &core.Denial{Step: "weir", Rule: "token-expired", Reason: "the session's token expired at " + x.at.UTC().Format(time.RFC3339), Hint: "connect again with a new token"}
		return core.Verdict{Deny: d, Decisions: []core.Decision{{Step: d.Step, Action: "deny", Rule: d.Rule, Detail: d.Reason}}}, nil
	}
	if x.chain == nil {
		return core.Verdict{}, nil
	}
	return x.chain.Inspect(ctx, e)
}

// Subscription implements core.Subscriber: the chain's own, and commands.
func (x *expiry) Subscription() core.Subscription {
	if x.chain == nil {
		return core.Subscription{Kinds: core.KindSet(core.KindCommand)}
	}
	var s core.Subscription
	if sub, ok := x.chain.(core.Subscriber); ok {
		s = sub.Subscription()
	}
	if s.Kinds != 0 {
		s.Kinds |= core.KindSet(core.KindCommand)
	}
	return s
}

// Forget implements core.Closer.
func (x *expiry) Forget(s *core.Session) {
	if c, ok := x.chain.(core.Closer); ok {
		c.Forget(s)
	}
}

var (
	_ core.Subscriber = (*expiry)(nil)
	_ core.Closer     = (*expiry)(nil)
)

// recorder remembers how the session was sealed.
type recorder struct {
	core.Recorder
	sealed atomic.Value // core.End
}

// Seal implements core.Recorder.
func (r *recorder) Seal(end core.End) error {
	r.sealed.Store(end)
	return r.Recorder.Seal(end)
}

func (r *recorder) end() core.End {
	end, _ := r.sealed.Load().(core.End)
	return end
}
