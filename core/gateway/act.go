package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core"
)

// AdminProtocol is the protocol of the sessions that hold what was done to the gateway itself: one act each.
const AdminProtocol = "admin"

// Act is something that somebody does to the gateway, or asks of it.
type Act struct {
	Action string // what weir.admin is asked about: "sessions.end", "tokens.issue" …
	Object string // what it is done to: an id, a subject; may be empty
	Who    core.Identity
	// Operator says that Who holds the gateway's own key.
	Operator bool
	Client   net.Addr // where Who asks from; nil: on this machine, without a connection
	// Detail is more to judge by, and to record. No secret is in it.
	Detail map[string]any
	// Changes says that it changes something: it is always recorded, and durably so before it is done.
	Changes bool
	// Anyway has it done although nothing can be recorded. Only what makes the gateway do less may say so, and a reload,
	// which may be what mends it.
	Anyway bool
	// Unasked acts are not for weir.admin to judge: who can do them need not ask, or does them to nobody else.
	Unasked bool
}

// errUnrecorded is the answer to an act that cannot be recorded.
var errUnrecorded = errors.New("nothing can be recorded now, so nothing is changed: see the gateway's log and /readyz")

// anywayTime is how long an act that is done anyway waits for its record.
const anywayTime = 3 * time.Second

// maxActText bounds what is recorded of an act's outcome, in bytes.
const maxActText = 2000

// adminTarget is what acts are done to, in their records.
var adminTarget = &core.Target{Name: AdminProtocol, Protocol: AdminProtocol, Record: core.LevelFull, Promise: core.PromiseStrict}

// Do does what an act says, by f, if it may be done. Acts that change something are kept as a session of the protocol
// admin: who, from where, what, whether it was refused, and what came of it. The same of others is kept once a minute,
// and refusals of one identity ten times. What f returns beside its error stands in the record: the id of what was made,
// say. The error of a refusal is a *core.Denial.
func (g *Gateway) Do(ctx context.Context, a Act, f func(context.Context) (string, error)) error {
	now := time.Now()
	if a.Who.Groups == nil {
		a.Who.Groups = []string{}
	}
	client := a.Client
	if client == nil {
		client = nowhereNear{}
	}
	s := &core.Session{
		ID: core.NewID(now), Run: a.Who.Run, Protocol: AdminProtocol, Identity: a.Who, Target: adminTarget, Started: now,
		Hello: core.Hello{Target: adminTarget, Client: client, User: a.Who.Subject}, Gateway: g.Name, Boot: g.Boot,
	}
	v := g.judge(ctx, s, &a)
	key := "act " + a.Who.Issuer + " " + a.Who.Subject + " " + a.Action
	recorded := a.Changes
	switch {
	case v.Deny != nil:
		recorded = g.throttle.tell(key, "refused")
		g.Log.Warn("gateway: admin: refused", "action", a.Action, "object", blot(a.Object), "identity", a.Who.Subject, "rule", v.Deny.Rule)
	case !a.Changes:
		recorded = g.throttle.first(key + " " + a.Object)
	}
	var lost error
	if recorded {
		begin, cancel := ctx, func() {}
		if a.Anyway {
			begin, cancel = context.WithTimeout(ctx, anywayTime)
		}
		lost = g.begin(begin, s, &a, v)
		cancel()
	} else {
		s.Begin(core.SessionConfig{})
	}
	switch {
	case v.Deny != nil:
		g.metrics.acts.WithLabelValues(a.Action, "refused").Inc()
		_ = s.Close(core.EndRefused, v.Deny.Rule)
		return v.Deny
	case lost != nil && a.Changes && !a.Anyway:
		g.metrics.acts.WithLabelValues(a.Action, "unrecorded").Inc()
		_ = s.Close(core.EndJournalLost, "it could not be kept")
		return errUnrecorded
	case lost != nil && g.throttle.tell("gateway", "act-unrecorded"):
		g.Log.Error("gateway: admin: an act is not recorded", "action", a.Action, "object", blot(a.Object), "identity", a.Who.Subject, "error", lost)
	}
	note, err := f(ctx)
	g.finish(s, &a, note, err)
	return err
}

// begin opens the act's record and puts into it what is to be done, durably.
func (g *Gateway) begin(ctx context.Context, s *core.Session, a *Act, v core.Verdict) error {
	r, err := g.Journal.Open(s)
	if err != nil {
		s.Begin(core.SessionConfig{})
		return err
	}
	s.Begin(core.SessionConfig{Chain: verdict(v), Recorder: r})
	first := s.Check(ctx, &core.Event{Kind: core.KindOpen, Direction: core.FromClient})
	said := s.Check(ctx, &core.Event{Kind: core.KindCommand, Direction: core.FromClient, Exchange: &core.Exchange{Command: a.command()}})
	for _, v := range []core.Verdict{first, said} {
		if v.Deny != nil && errors.Is(v.Deny, core.ErrJournalLost) {
			return v.Deny
		}
	}
	return s.Settle(ctx, said.Mark)
}

// finish records what came of an act, and ends its session.
func (g *Gateway) finish(s *core.Session, a *Act, note string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	result, outcome := &core.Result{Status: "ok", Message: blot(note)}, "done"
	if err != nil {
		text := blot(err.Error())
		if len(text) > maxActText {
			text = strings.ToValidUTF8(text[:maxActText], "") + "…"
		}
		result, outcome = &core.Result{Status: "error", Message: text}, "failed"
	}
	g.metrics.acts.WithLabelValues(a.Action, outcome).Inc()
	s.Check(ctx, &core.Event{Kind: core.KindResult, Direction: core.FromGateway, Result: result})
	if err := s.Close(core.EndClosed, outcome); err != nil && g.throttle.tell("gateway", "act-unrecorded") {
		g.Log.Error("gateway: admin: the outcome of an act is not recorded", "action", a.Action, "object", blot(a.Object), "identity", a.Who.Subject, "error", err)
	}
	if a.Changes {
		g.Log.Info("gateway: admin", "action", a.Action, "object", blot(a.Object), "identity", a.Who.Subject, "outcome", outcome, "session", s.ID)
	}
}

// judge says whether an act may be done. The rules are those that are in force now.
func (g *Gateway) judge(ctx context.Context, s *core.Session, a *Act) core.Verdict {
	refuse := func(rule, reason, hint string) core.Verdict {
		v, _ := refused(&core.Denial{Rule: rule, Reason: reason, Hint: hint})
		return v
	}
	switch {
	case a.Unasked:
		return core.Verdict{}
	case !a.Operator && a.forOperators() && (len(a.Who.Targets) > 0 || a.Who.Parent != ""):
		return refuse("token-target", "the token was made for a run or for targets, not for "+a.Action, "use a token of your own")
	}
	g.mu.RLock()
	now := g.now
	now.refs.Add(1)
	g.mu.RUnlock()
	defer now.release()
	by := now.Admin
	if a.Action == actRead {
		by = now.Replay
	}
	if by == nil {
		if a.Operator || !a.forOperators() {
			return core.Verdict{}
		}
		return refuse("access", "it takes the gateway's own key, as there is no policy that lets others", "configure "+map[bool]string{false: "admin.chain", true: "admin.recordings"}[a.Action == actRead])
	}
	from := ""
	if a.Client != nil {
		from = a.Client.String()
	}
	ask := &core.Session{
		ID: s.ID, Run: s.Run, Protocol: AdminProtocol, Identity: s.Identity, Target: adminTarget, Started: s.Started, Hello: s.Hello, Gateway: s.Gateway, Boot: s.Boot,
	}
	ask.Begin(core.SessionConfig{Chain: by})
	v := ask.Ask(ctx, &core.Event{Kind: core.KindOpen, Direction: core.FromClient, Detail: map[string]any{
		"action": a.Action, "object": a.Object, "operator": a.Operator, "changes": a.Changes, "client": from, "detail": plain(a.Detail),
	}})
	if c, ok := by.(core.Closer); ok {
		c.Forget(ask)
	}
	if v.Hold != nil && v.Deny == nil { // nobody would be asked
		return refuse("hold", "a rule of weir.admin holds this, and an act cannot wait", "")
	}
	v.Record, v.Masks, v.Limit = core.LevelUnset, nil, core.Limit{}
	return v
}

// forOperators reports whether an act is for who holds the gateway's key where no policy says otherwise. Approvals have
// rules of their own, which name who may answer.
func (a *Act) forOperators() bool { return !strings.HasPrefix(a.Action, "approvals.") }

// plain makes JSON's own types of what a policy is shown.
func plain(m map[string]any) map[string]any {
	out := map[string]any{}
	if b, err := json.Marshal(m); err == nil && len(m) > 0 {
		_ = json.Unmarshal(b, &out)
	}
	return out
}

// command is the act as its record has it.
func (a *Act) command() *core.Command {
	noun, _, _ := strings.Cut(a.Action, ".")
	text := a.Action
	if a.Object != "" {
		text += " " + a.Object
	}
	if len(a.Detail) > 0 {
		if b, err := json.Marshal(a.Detail); err == nil {
			text += " " + string(b)
		}
	}
	c := &core.Command{Action: a.Action, Text: blot(text), Effects: []core.Effect{core.EffectRead}, Status: core.StatusKnown}
	use := "read"
	if a.Changes {
		c.Effects, use = []core.Effect{core.EffectAdmin}, "write"
	}
	if a.Object != "" {
		c.Resources = []core.Resource{{Kind: noun, Name: blot(a.Object), Use: []string{use}}}
	}
	return c
}

// tokenShape is what a signed token looks like. Where somebody put one in the place of an id or into a reason, it is not
// to be recorded.
var tokenShape = regexp.MustCompile(`[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}`)

func blot(s string) string { return tokenShape.ReplaceAllString(s, "(a token)") }

// verdict is the chain of an act: what was said of it before, at its command.
type verdict core.Verdict

// Inspect implements core.Plugin.
func (v verdict) Inspect(_ context.Context, e *core.Event) (core.Verdict, error) {
	if e.Kind != core.KindCommand {
		return core.Verdict{}, nil
	}
	return core.Verdict(v), nil
}

// nowhereNear is the address of who asks without a connection: by a signal, or in the gateway's own process.
type nowhereNear struct{}

func (nowhereNear) Network() string { return "local" }
func (nowhereNear) String() string  { return "local" }

// Local is who did something on this machine beside the admin address: by a signal, say.
func Local(subject string) core.Identity {
	return core.Identity{Subject: subject, Issuer: "local", Kind: "service", Groups: []string{}}
}

// saidOf is what a caller is told of an act that was not done.
func saidOf(err error) (*apiError, bool) {
	var d *core.Denial
	switch {
	case errors.As(err, &d):
		text := fmt.Sprintf("refused by rule %s", d.Rule)
		for _, more := range []string{d.Reason, d.Hint} {
			if more != "" {
				text += ": " + more
			}
		}
		return &apiError{403, text}, true
	case errors.Is(err, errUnrecorded):
		return &apiError{503, err.Error()}, true
	}
	return nil, false
}
