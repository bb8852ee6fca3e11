package gateway

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-gateway/weir/core"
)

// Revocations knows which tokens and subjects are good no longer. Check and Revoked are asked often and do no I/O.
type Revocations interface {
	// Check says why an identity may not open a session; nil: it may.
	Check(id core.Identity) *core.Denial
	// Revoked finds what revokes the token that an identity was recognised by.
	Revoked(id core.Identity) (core.Revocation, bool)
	// Changed is sent to when what Revoked knows has changed.
	Changed() <-chan struct{}
	List(ctx context.Context) ([]core.Revocation, error)
	Revoke(ctx context.Context, r core.Revocation) error
	Restore(ctx context.Context, r core.Revocation) error
}

// Causes of a client's end that are about its token.
var (
	// ErrRevoked is the cause when the token of one of its sessions was revoked.
	ErrRevoked = errors.New("the session's token was revoked")
	// ErrExpired is the cause when it expired and the target's on_expiry is close, or its time to drain is over.
	ErrExpired = errors.New("the session's token has expired: connect again with a new one")
)

// standing is the chain of an open session, and what its token is still good for.
type standing struct {
	chain   core.Plugin // may be nil
	refuses time.Time   // when commands are refused; zero: never
	cut     atomic.Bool // the token was revoked
	drain   chan struct{}
	once    sync.Once
	timers  [2]*time.Timer
	expired atomic.Bool
	stop    func() bool // the watch over the gateway's own drain
}

// stand puts what id's token is good for before the chain of a session. end ends the client.
func (g *Gateway) stand(chain core.Plugin, id *core.Identity, t *core.Target, end func(error)) *standing {
	x := &standing{chain: chain}
	if id.Expires.IsZero() {
		return x
	}
	over := id.Expires.Add(expiryGrace)
	switch t.OnExpiry {
	case core.ExpiryKeep:
		id.Expires = time.Time{} // nor does a parked command end by it
	case core.ExpiryClose:
		x.refuses = over
		x.timers[0] = time.AfterFunc(time.Until(over), func() { end(ErrExpired) })
	case core.ExpiryDrain:
		x.drain = make(chan struct{})
		leave := func() { x.once.Do(func() { close(x.drain) }) }
		x.timers[0] = time.AfterFunc(time.Until(over), func() { x.expired.Store(true); leave() })
		x.timers[1] = time.AfterFunc(time.Until(over.Add(t.Limits.Drain)), func() { end(ErrExpired) })
		x.stop = context.AfterFunc(g.leaving, leave)
	default:
		x.refuses = over
	}
	return x
}

// draining is closed when the session should end at its next quiet moment.
func (x *standing) draining(g *Gateway) <-chan struct{} {
	if x.drain != nil {
		return x.drain
	}
	return g.draining
}

// why says why the session should end then; empty: because the gateway stops.
func (x *standing) why() string {
	if x.expired.Load() {
		return ErrExpired.Error()
	}
	return ""
}

// release stops what waits for the token's end.
func (x *standing) release() {
	for _, t := range x.timers {
		if t != nil {
			t.Stop()
		}
	}
	if x.stop != nil {
		x.stop()
	}
}

// Inspect implements core.Plugin.
func (x *standing) Inspect(ctx context.Context, e *core.Event) (core.Verdict, error) {
	if e.Kind == core.KindCommand {
		switch {
		case x.cut.Load():
			return refused(&core.Denial{Rule: "token-revoked", Reason: "the session's token was revoked", Hint: "connect again with a new token"})
		case !x.refuses.IsZero() && time.Now().After(x.refuses):
			at := x.refuses.Add(-expiryGrace).UTC().Format(time.RFC3339)
			return refused(&core.Denial{Rule: "token-expired", Reason: "the session's token expired at " + at, Hint: "connect again with a new token"})
		}
	}
	if x.chain == nil {
		return core.Verdict{}, nil
	}
	return x.chain.Inspect(ctx, e)
}

func refused(d *core.Denial) (core.Verdict, error) {
	d.Step = "weir"
	return core.Verdict{Deny: d, Decisions: []core.Decision{{Step: d.Step, Action: "deny", Rule: d.Rule, Detail: d.Reason}}}, nil
}

// Subscription implements core.Subscriber: the chain's own, and commands.
func (x *standing) Subscription() core.Subscription {
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
func (x *standing) Forget(s *core.Session) {
	if c, ok := x.chain.(core.Closer); ok {
		c.Forget(s)
	}
}

var (
	_ core.Subscriber = (*standing)(nil)
	_ core.Closer     = (*standing)(nil)
)

// watchRevocations ends the sessions whose tokens are revoked, until ctx ends.
func (g *Gateway) watchRevocations(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.Revocations.Changed():
			for _, c := range g.live.clientList() {
				c.cutRevoked()
			}
		}
	}
}

// cutRevoked ends the client if the token of one of its sessions was revoked. Nothing more is let pass from that moment.
func (c *client) cutRevoked() {
	if c.g.Revocations == nil {
		return
	}
	c.mu.Lock()
	sessions := make(map[*core.Session]*standing, len(c.sessions))
	for s, o := range c.sessions {
		sessions[s] = o.standing
	}
	c.mu.Unlock()
	for s, x := range sessions {
		r, ok := c.g.Revocations.Revoked(s.Identity)
		if !ok || x.cut.Swap(true) {
			continue
		}
		c.g.metrics.revoked.Inc()
		c.g.Log.Warn("gateway: session ended", "session", s.ID, "identity", s.Identity.Subject, "target", s.Target.Name, "reason", ErrRevoked, "token", r.Token, "by", r.By, "why", r.Reason)
		c.stop(ErrRevoked)
	}
}
