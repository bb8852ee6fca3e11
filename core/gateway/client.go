package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weir-gateway/weir/core"
)

// client is one connection, and the Gate that its protocol sees.
type client struct {
	g        *Gateway
	served   *served
	conn     net.Conn
	listener *listener
	source   string
	local    bool
	accepted time.Time
	handed   bool     // by a listed proxy, which has to say for whom
	proxy    net.Addr // that did

	cancel context.CancelCauseFunc
	signIn *time.Timer

	mu       sync.Mutex
	moved    net.Conn // what the client's connection has become; nil: it is conn
	signedIn bool
	last     *core.Session // the one opened last
	// leaveInvited gives up its place among those whose sign-in waits for a person; nil: it has none.
	leaveInvited func()
	sessions     map[*core.Session]opened
}

// opened is what the client keeps of an open session: the rules that it follows, and what its token is good for.
type opened struct {
	*following
	standing *standing
}

var (
	_ core.Gate  = (*client)(nil)
	_ core.Mover = (*client)(nil)
)

// Moved implements core.Mover.
func (c *client) Moved(to net.Conn) {
	c.mu.Lock()
	c.moved = to
	c.mu.Unlock()
}

func (c *client) close() {
	c.mu.Lock()
	moved, conn := c.moved, c.conn
	c.mu.Unlock()
	if moved != nil {
		_ = moved.Close()
	}
	_ = conn.Close()
}

// carry serves the client until it is gone.
func (c *client) carry() {
	g := c.g
	ctx, cancel := context.WithCancelCause(g.killing)
	c.mu.Lock()
	c.cancel = cancel
	c.mu.Unlock()
	if g.stopping() { // drain may have listed the clients before this one could be cancelled
		cancel(ErrStopping)
	}
	c.signIn = time.AfterFunc(c.served.signIn, func() { cancel(ErrSignInTime) })
	// A protocol that does not heed its context loses its connection a little later.
	stop := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(killGrace, c.close)
		g.live.onGone(c, func() { t.Stop() })
	})
	defer func() {
		panicked := recover()
		if panicked != nil {
			g.metrics.panics.Inc()
			g.Log.Error("gateway: a client's protocol panicked; this client only is gone", "panic", panicked, "protocol", c.served.protocol, "client", c.conn.RemoteAddr(), "stack", string(debug.Stack()))
		}
		c.signIn.Stop()
		c.uninvite()
		stop()
		c.close()
		c.closeSessions(panicked != nil)
		if errors.Is(context.Cause(ctx), ErrSignInTime) && !c.hasSignedIn() {
			g.metrics.refused.WithLabelValues("sign-in-time").Inc()
		}
		cancel(errGone)
		g.live.remove(c)
		c.served.release()
		g.clients.Done()
	}()
	if c.handed && !c.introduced(ctx) {
		return
	}
	if err := c.served.handler.Serve(ctx, c.conn, c); err != nil && !errors.Is(err, core.ErrUnauthenticated) {
		c.ended(err)
	}
}

// ended logs why a client is gone. What the operator has to see to is a warning, though not for each of many clients.
func (c *client) ended(err error) {
	c.mu.Lock()
	s := c.last
	c.mu.Unlock()
	if s == nil {
		c.g.Log.Debug("gateway: client ended", "protocol", c.served.protocol, "client", c.conn.RemoteAddr(), "error", err)
		return
	}
	level := slog.LevelDebug
	if errors.Is(err, core.ErrUpstream) && c.g.throttle.tell("target "+s.Target.Name, "upstream") {
		level = slog.LevelWarn
	}
	c.g.Log.Log(context.Background(), level, "gateway: client ended", "session", s.ID, "target", s.Target.Name, "client", c.conn.RemoteAddr(), "error", err)
}

// closeSessions closes what the protocol left open.
func (c *client) closeSessions(panicked bool) {
	c.mu.Lock()
	var left []*core.Session
	for s := range c.sessions {
		left = append(left, s)
	}
	c.mu.Unlock()
	for _, s := range left {
		why := "the protocol left the session open"
		if panicked {
			why = "internal error"
		}
		if err := s.Close(core.EndError, why); err != nil {
			c.g.Log.Error("gateway: session could not be sealed", "session", s.ID, "error", err)
		}
	}
}

func (c *client) hasSignedIn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.signedIn
}

// drainTime is how long the client may go on when the gateway stops.
func (c *client) drainTime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := time.Duration(0)
	for s := range c.sessions {
		d = max(d, s.Target.Limits.Drain)
	}
	return d
}

// stop ends the client's context, if it has one yet.
func (c *client) stop(cause error) {
	c.mu.Lock()
	cancel := c.cancel
	c.mu.Unlock()
	if cancel != nil {
		cancel(cause)
	}
}

// TLS implements core.Gate.
func (c *client) TLS() *tls.Config { return c.served.clientLeg }

// Target implements core.Gate.
func (c *client) Target(name string) (*core.Target, bool) {
	t := c.served.targets[name]
	if name == "" {
		t = c.served.only
	}
	if t == nil {
		return nil, false
	}
	return t.Target, true
}

// Open implements core.Gate.
func (c *client) Open(ctx context.Context, h core.Hello) (*core.Session, error) {
	g := c.g
	if h.Target == nil || c.served.targets[h.Target.Name] == nil || c.served.targets[h.Target.Name].Target != h.Target {
		return nil, errors.New("gateway: the protocol opened a target that is not its listener's")
	}
	target := c.served.targets[h.Target.Name]
	token := h.Token
	h.Token = ""
	if h.Client == nil {
		h.Client = c.conn.RemoteAddr()
	}
	if c.proxy != nil {
		h.Details = with(h.Details, "proxy", c.proxy.String())
	}
	if g.stopping() {
		return nil, c.refuse(ctx, h, core.Identity{}, "stopping", &core.Denial{Rule: "stopping", Reason: "the gateway is stopping", Hint: "connect again in a moment"})
	}
	if !h.TLS && !c.local {
		return nil, c.refuse(ctx, h, core.Identity{}, "clear-text", &core.Denial{
			Rule: "tls-required", Reason: "a token was sent in clear over a network: treat it as stolen", Hint: "connect with TLS, and get a new token",
		})
	}
	if !c.local && g.lockout.locked(c.source) {
		return nil, c.unauthenticated(ctx, h, &errLocked{g.lockout.hold})
	}
	id, err := c.recognise(ctx, &h, target, token)
	h.Peer = nil
	if err != nil {
		return nil, c.unauthenticated(ctx, h, err)
	}
	if c.g.Revocations != nil {
		if d := c.g.Revocations.Check(id); d != nil {
			return nil, c.refuse(ctx, h, id, d.Rule, d)
		}
	}
	if len(id.Targets) > 0 && !slices.Contains(id.Targets, target.Name) {
		return nil, c.refuse(ctx, h, id, "token-target", &core.Denial{
			Rule: "token-target", Reason: "the token was not made for target " + target.Name, Hint: "use a token for this target",
		})
	}
	full, release := g.live.reserve(target.Target, &id, g.Limits.SessionsPerIdentity)
	if full != nil {
		return nil, c.refuse(ctx, h, id, strings.TrimPrefix(full.Rule, "limit-"), full)
	}
	return c.open(ctx, h, id, target, release)
}

// open begins the session, and asks the chain whether it may go on.
func (c *client) open(ctx context.Context, h core.Hello, id core.Identity, target *Target, release func()) (*core.Session, error) {
	g := c.g
	if target.User != nil {
		if user := target.User(ctx, id); user != "" {
			h.Details = with(h.Details, "upstream_user", user)
		}
	}
	f := g.follow(c.served, target)
	x := g.stand(f, &id, target.Target, c.stop)
	s, err := c.session(h, id, x, func(s *core.Session, end core.End) {
		release()
		x.release()
		c.mu.Lock()
		delete(c.sessions, s)
		c.mu.Unlock()
		g.live.closed(s, end)
		g.Log.Debug("gateway: session over", "session", s.ID, "target", s.Target.Name, "end", end)
	})
	if err != nil {
		release()
		x.release()
		f.drop()
		return nil, c.lost(err)
	}
	kept := false
	defer func() { // a step that panics leaves neither a session without an end nor a place that is taken
		if !kept { // closing again does nothing
			_ = s.Close(core.EndError, "internal error")
		}
	}()
	v := s.Check(ctx, &core.Event{Kind: core.KindOpen, Direction: core.FromClient})
	if v.Deny != nil {
		reason, end := "access", core.EndRefused
		if v.Deny.Rule == "journal-lost" && v.Deny.Step == "weir" {
			reason, end = "journal-lost", core.EndJournalLost
		}
		g.metrics.refused.WithLabelValues(reason).Inc()
		g.Log.Info("gateway: refused", "session", s.ID, "identity", id.Subject, "target", target.Name, "client", h.Client, "rule", v.Deny.Rule)
		if err := s.Close(end, v.Deny.Rule); err != nil {
			return nil, c.lost(err)
		}
		return nil, v.Deny
	}
	if err := s.Settle(ctx, v.Mark); err != nil { // nobody is let in whose opening is not kept
		_ = s.Close(core.EndJournalLost, "its opening could not be kept")
		return nil, c.lost(err)
	}
	c.mu.Lock()
	if c.sessions == nil {
		c.sessions = map[*core.Session]opened{}
	}
	c.sessions[s] = opened{f, x}
	kept = true // closeSessions finds it
	first := !c.signedIn
	c.signedIn, c.last = true, s
	c.mu.Unlock()
	c.signIn.Stop()
	c.follow() // a reload since the opening was judged has not found this session
	c.cutRevoked()
	g.live.opened(c, s, first)
	g.metrics.signIn.Observe(time.Since(c.accepted).Seconds())
	g.Log.Debug("gateway: session open", "session", s.ID, "identity", id.Subject, "target", target.Name, "client", h.Client)
	return s, nil
}

// with returns a copy of the details with one more.
func with(details map[string]string, key, value string) map[string]string {
	details = maps.Clone(details)
	if details == nil {
		details = map[string]string{}
	}
	details[key] = value
	return details
}

// session makes a session and its record.
func (c *client) session(h core.Hello, id core.Identity, chain core.Plugin, closed func(*core.Session, core.End)) (*core.Session, error) {
	now := time.Now()
	if id.Groups == nil {
		id.Groups = []string{}
	}
	s := &core.Session{
		ID: core.NewID(now), Run: id.Run, Protocol: h.Target.Protocol, Identity: id, Target: h.Target, Started: now,
		Hello: h, Gateway: c.g.Name, Boot: c.g.Boot,
	}
	r, err := c.g.Journal.Open(s)
	if err != nil {
		return nil, err
	}
	rec := &recorder{Recorder: r}
	begin := core.SessionConfig{Chain: chain, Recorder: rec, Draining: c.g.draining, Closed: func(s *core.Session) { closed(s, rec.end()) }}
	if x, ok := chain.(*standing); ok { // and not a refusal
		begin.Draining, begin.Leaving = x.draining(c.g), x.why
		begin.Run, begin.Tables = c.g.runs.of(id.Run, now), c.served.tables
		begin.Approvals = c.g.Approvals
	}
	s.Begin(begin)
	return s, nil
}

// unauthenticated counts, records and answers a failed sign-in. After too many of one source they are neither
// recorded nor logged one by one, and the answer is slow.
func (c *client) unauthenticated(ctx context.Context, h core.Hello, err error) error {
	reason := "identity"
	var r interface{ Reason() string }
	if errors.As(err, &r) {
		reason = r.Reason()
	}
	if !errors.Is(err, core.ErrUnauthenticated) { // its text may not be safe to show
		c.g.Log.Error("gateway: sign-in failed", "error", err)
		err = fmt.Errorf("gateway: %w", core.ErrUnauthenticated)
	}
	tell, delay := c.g.throttle.failed(c.source, h.User)
	if !c.local && reason != "locked" && c.g.lockout.failed(c.source) {
		c.g.metrics.locks.Inc()
		c.g.Log.Warn("gateway: an address is locked out: too many of its sign-ins have failed", "source", c.source, "for", c.g.lockout.hold)
	}
	if tell {
		c.g.Log.Warn("gateway: sign-in refused", "client", h.Client, "target", h.Target.Name, "error", err)
		if lost := c.record(ctx, h, core.Identity{}, &core.Denial{Step: "weir", Rule: "not-signed-in", Reason: err.Error()}); lost != nil {
			return c.lost(lost)
		}
	}
	c.g.metrics.refused.WithLabelValues(reason).Inc()
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return err
}

// refuse counts, records and answers what the gateway itself refuses.
func (c *client) refuse(ctx context.Context, h core.Hello, id core.Identity, reason string, d *core.Denial) error {
	d.Step = "weir"
	c.g.metrics.refused.WithLabelValues(reason).Inc()
	if c.g.throttle.tell(c.source, reason) {
		c.g.Log.Warn("gateway: refused", "client", h.Client, "identity", id.Subject, "target", h.Target.Name, "rule", d.Rule)
		if lost := c.record(ctx, h, id, d); lost != nil {
			return c.lost(lost)
		}
	}
	return d
}

// record keeps a session that never opened: its opening, refused, and its end.
func (c *client) record(ctx context.Context, h core.Hello, id core.Identity, d *core.Denial) error {
	s, err := c.session(h, id, refusal{d}, func(s *core.Session, end core.End) { c.g.live.closed(s, end) })
	if err != nil {
		return err
	}
	s.Check(ctx, &core.Event{Kind: core.KindOpen, Direction: core.FromClient})
	return s.Close(core.EndRefused, d.Rule)
}

// lost says that there is no journal; the cause goes into the log, not to the client.
func (c *client) lost(err error) error {
	c.g.metrics.refused.WithLabelValues("journal-lost").Inc()
	if c.g.throttle.tell("gateway", "journal-lost") {
		c.g.Log.Error("gateway: nothing can be recorded, so no session opens", "error", err)
	}
	return fmt.Errorf("gateway: %w", core.ErrJournalLost)
}
