package gateway

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sort"
	"time"

	"github.com/weir-gateway/weir/core"
)

// Reachable is a target as somebody may use it.
type Reachable struct {
	Name     string            `json:"name"`
	Protocol string            `json:"protocol"`
	Labels   map[string]string `json:"labels,omitempty"`
	Address  string            `json:"address"`
	Access   string            `json:"access"` // open, approval or denied
	Rule     string            `json:"rule,omitempty"`
	Reason   string            `json:"reason,omitempty"`
	Hint     string            `json:"hint,omitempty"`
	Connect  string            `json:"connect,omitempty"`  // a line to copy
	HostKey  string            `json:"host_key,omitempty"` // that clients see, where the protocol has such keys
	Notes    []Note            `json:"notes,omitempty"`
	Env      map[string]string `json:"env,omitempty"` // for clients; with a token in the answer of a new run only
}

// Note is what a step of a target's chain may do, as far as that can be told beforehand.
type Note struct {
	Step   string `json:"step"`
	Does   string `json:"does"` // mask, hold or deny
	What   string `json:"what"` // the column, or the rule
	Detail string `json:"detail,omitempty"`
}

// Runs is a Verifier that makes tokens for runs: who shows one may do what the shown token allows, and not longer.
type Runs interface {
	// Run makes a token for a run of who. Its targets are those named, and it is over with limit at the latest.
	Run(who core.Identity, run string, targets []string, ttl time.Duration) (token string, expires time.Time, err error)
}

// NewRun is what the API answers to a request for a run.
type NewRun struct {
	Run     string      `json:"run"`
	Expires time.Time   `json:"expires"`
	Targets []Reachable `json:"targets"`
}

// runOf is what a run is begun with.
type runOf struct {
	Run     string   `json:"run"`     // its id; none: a new one
	Targets []string `json:"targets"` // none: all that the caller may open
	TTL     string   `json:"ttl"`     // such as 30m
}

func runAbout(c *call) (string, map[string]any) {
	b := c.body.(*runOf)
	d := map[string]any{}
	if len(b.Targets) > 0 {
		d["targets"] = b.Targets
	}
	if b.TTL != "" {
		d["ttl"] = b.TTL
	}
	return b.Run, d
}

// newRun makes the token of a run, and says how its targets are reached with it.
func (a *api) newRun(ctx context.Context, c *call) (any, error) {
	who, body := c.who, *c.body.(*runOf)
	var ttl time.Duration
	if body.TTL != "" {
		var err error
		if ttl, err = time.ParseDuration(body.TTL); err != nil || ttl <= 0 {
			return nil, &apiError{http.StatusBadRequest, "ttl is a duration, such as 30m"}
		}
	}
	maker, ok := a.verifier().(Runs)
	if !ok {
		return nil, &apiError{http.StatusForbidden, "this gateway makes no tokens"}
	}
	var open []string
	for _, t := range a.g.reachable(ctx, who, "") {
		if t.Access != "denied" {
			open = append(open, t.Name)
		}
	}
	for _, t := range body.Targets {
		if !slices.Contains(open, t) {
			return nil, &apiError{http.StatusForbidden, "there is no target " + t + " that you may open"}
		}
	}
	if len(body.Targets) == 0 {
		body.Targets = open
	}
	if len(body.Targets) == 0 {
		return nil, &apiError{http.StatusForbidden, "there is no target that you may open"}
	}
	token, expires, err := maker.Run(who, body.Run, body.Targets, ttl)
	if err != nil {
		return nil, err
	}
	made, err := a.client(ctx, token)
	if err != nil {
		return nil, err
	}
	a.g.Log.Info("gateway: a run begins", "run", made.Run, "identity", who.Subject, "issuer", who.Issuer, "targets", body.Targets, "token", made.Token, "until", expires)
	c.note = "run " + made.Run + ", token " + made.Token + ", until " + expires.UTC().Format(time.RFC3339)
	out := NewRun{Run: made.Run, Expires: expires}
	for _, t := range a.g.reachable(ctx, made, token) {
		if slices.Contains(body.Targets, t.Name) {
			out.Targets = append(out.Targets, t)
		}
	}
	return out, nil
}

// reachable says which targets an identity may open now, as the rules see it. Nothing is opened, counted or recorded. With
// a token, what a client needs to be told is in the environment of each.
func (g *Gateway) reachable(ctx context.Context, who core.Identity, token string) []Reachable {
	g.mu.RLock()
	now := g.now
	now.refs.Add(1)
	type place struct {
		target  *Target
		address string
	}
	var places []place
	for name, t := range now.targets {
		var addresses []string
		for at, s := range now.served {
			if l := g.up[at]; l != nil && s.targets[name] != nil {
				addresses = append(addresses, contactable(l.Addr()))
			}
		}
		if sort.Strings(addresses); len(addresses) > 0 {
			places = append(places, place{t, addresses[0]})
		}
	}
	g.mu.RUnlock()
	defer now.release()
	sort.Slice(places, func(i, j int) bool { return places[i].target.Name < places[j].target.Name })
	out := []Reachable{}
	for _, p := range places {
		t := p.target
		x := Reachable{Name: t.Name, Protocol: t.Protocol, Labels: t.Labels, Address: p.address, Access: "open", Notes: t.Notes}
		if d, hold := g.wouldOpen(ctx, who, t); d != nil {
			x.Access, x.Rule, x.Reason, x.Hint = "denied", d.Rule, d.Reason, d.Hint
		} else if hold != nil {
			x.Access, x.Rule, x.Reason = "approval", hold.Rule, hold.Reason
		}
		if x.Access == "denied" {
			x.Notes = nil
		} else if c := g.connector(t.Protocol); c != nil {
			var env map[string]string
			x.Connect, env = c.Connect(t.Target, core.Contact{Address: p.address, CA: now.CA, User: who.Subject, Token: token, Key: keyholder{g, t.Protocol}})
			if keyed, ok := c.(core.Keyed); ok {
				x.HostKey = keyed.HostKey(t.Target, keyholder{g, t.Protocol})
			}
			if token != "" {
				x.Env = env
			}
		}
		out = append(out, x)
	}
	return out
}

func (g *Gateway) connector(protocol string) core.Connector {
	for _, p := range g.Protocols {
		if p.Name() == protocol {
			c, _ := p.(core.Connector)
			return c
		}
	}
	return nil
}

// wouldOpen asks a target's chain what it would say to an identity that opens it.
func (g *Gateway) wouldOpen(ctx context.Context, who core.Identity, t *Target) (*core.Denial, *core.Hold) {
	if len(who.Targets) > 0 && !slices.Contains(who.Targets, t.Name) {
		return &core.Denial{Rule: "token-target", Reason: "the token was not made for target " + t.Name, Hint: "use a token for this target"}, nil
	}
	if t.Chain == nil {
		return nil, nil
	}
	now := time.Now()
	s := &core.Session{ID: core.NewID(now), Run: who.Run, Protocol: t.Protocol, Identity: who, Target: t.Target, Started: now, Hello: core.Hello{Target: t.Target}, Gateway: g.Name, Boot: g.Boot}
	s.Begin(core.SessionConfig{Chain: t.Chain})
	v := s.Ask(ctx, &core.Event{Kind: core.KindOpen, Direction: core.FromClient})
	if c, ok := t.Chain.(core.Closer); ok {
		c.Forget(s)
	}
	return v.Deny, v.Hold
}

// contactable is an address that a client on this machine can dial.
func contactable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return a.String()
}
