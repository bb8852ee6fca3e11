package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weir-gateway/weir/core"
)

func (*api) health(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }

func (a *api) ready(w http.ResponseWriter, _ *http.Request) {
	if why := a.g.notReady(); len(why) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(strings.Join(why, "\n") + "\n"))
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}

func (a *api) metrics() http.HandlerFunc {
	all := prometheus.Gatherers{a.g.Registry}
	if a.g.Registry != prometheus.DefaultGatherer { // where the other packages and the Go runtime report
		all = append(all, prometheus.DefaultGatherer)
	}
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{MaxRequestsInFlight: 4, ErrorHandling: promhttp.ContinueOnError}).ServeHTTP
}

// Status is how a gateway is.
type Status struct {
	Gateway     string       `json:"gateway"`
	Boot        string       `json:"boot"`
	Version     string       `json:"version,omitempty"`
	Started     time.Time    `json:"started"`
	Ready       bool         `json:"ready"`
	Why         []string     `json:"why,omitempty"` // it is not
	Reloads     uint64       `json:"reloads"`       // since it started
	Connections int          `json:"connections"`
	Sessions    int          `json:"sessions"`
	Listeners   []StatusPort `json:"listeners"`
	Locked      []Locked     `json:"locked"`       // addresses that are locked out
	AdminPolicy bool         `json:"admin_policy"` // weir.admin is asked who may do what here
}

// StatusPort is a listener.
type StatusPort struct {
	Address  string   `json:"address"`
	Protocol string   `json:"protocol"`
	Targets  []string `json:"targets"`
}

func (a *api) status(context.Context, *call) (any, error) {
	g := a.g
	why := g.notReady()
	s := Status{
		Gateway: g.Name, Boot: g.Boot, Version: g.Version, Started: g.start.UTC(), Ready: len(why) == 0, Why: why,
		Connections: len(g.live.clientList()), Sessions: len(g.live.list()), Listeners: []StatusPort{}, Locked: g.lockout.list(), AdminPolicy: a.judged(""),
	}
	g.mu.RLock()
	s.Reloads = g.now.number
	g.mu.RUnlock()
	for _, l := range g.Listeners() {
		s.Listeners = append(s.Listeners, StatusPort{l.Address.String(), l.Protocol, l.Targets})
	}
	return s, nil
}

func (a *api) reload(ctx context.Context, _ *call) (any, error) {
	if a.g.Reread == nil {
		return nil, &apiError{http.StatusNotFound, "this gateway cannot read its configuration again"}
	}
	if err := a.g.Reread(ctx); err != nil {
		return nil, &apiError{http.StatusConflict, "nothing has changed: " + err.Error()}
	}
	return Done{true}, nil
}

func (a *api) sessions(_ context.Context, c *call) (any, error) {
	list := a.g.Sessions()
	for i := range list {
		if c.who.Subject == "" { // nobody in particular: where people are is not for everybody on this machine
			list[i].Client = ""
		}
	}
	return list, nil
}

func (a *api) session(_ context.Context, c *call) (any, error) {
	if s := a.g.live.session(c.PathValue("id")); s != nil {
		return liveOf(s), nil
	}
	return nil, errNotOpen
}

var errNotOpen = &apiError{http.StatusNotFound, "no such session is open at this gateway"}

func (a *api) end(_ context.Context, c *call) (any, error) {
	l, ok := a.g.EndSession(c.PathValue("id"), blot(c.body.(*reason).Reason))
	if !ok {
		return nil, errNotOpen
	}
	c.note = "of " + l.Identity + " at " + l.Target
	return l, nil
}

// ErrEnded is the cause when an operator ended a session.
var ErrEnded = errors.New("an operator has ended the session")

// EndSession ends an open session at once, and says which it was. Its client is told, and why.
func (g *Gateway) EndSession(id, why string) (Live, bool) {
	s := g.live.session(id)
	if s == nil {
		return Live{}, false
	}
	cause := ErrEnded
	if why = oneLine(why); why != "" {
		cause = fmt.Errorf("%w: %s", ErrEnded, why)
	}
	for _, c := range g.live.clientList() {
		c.mu.Lock()
		_, has := c.sessions[s]
		c.mu.Unlock()
		if has {
			c.stop(cause)
			return liveOf(s), true
		}
	}
	return Live{}, false
}

// oneLine is a text without control characters, of a length that every protocol can carry.
func oneLine(s string) string {
	const most = 200
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "")), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// lockOf names an address that is locked out.
type lockOf struct {
	Source string `json:"source"`
}

func (a *api) unlock(_ context.Context, c *call) (any, error) {
	if !a.g.lockout.release(c.body.(*lockOf).Source) {
		return nil, &apiError{http.StatusNotFound, "no such address is locked"}
	}
	return Done{true}, nil
}

// Held is a session under legal hold.
type Held struct {
	Session string    `json:"session"`
	Since   time.Time `json:"since"`
	By      string    `json:"by"`
	Why     string    `json:"why"`
}

// Holds puts sessions under legal hold. What it may not do is a core.Refusal.
type Holds interface {
	Held(ctx context.Context) ([]Held, error)
	Hold(ctx context.Context, by, why string, sessions ...string) error
	Release(ctx context.Context, by, why string, sessions ...string) error
}

// holding names sessions and a reason.
type holding struct {
	Sessions []string `json:"sessions"`
	Reason   string   `json:"reason"`
}

func holdingOf(c *call) (string, map[string]any) {
	h := c.body.(*holding)
	d := (&reason{h.Reason}).detail()
	return strings.Join(h.Sessions, " "), d
}

var errNoArchive = &apiError{http.StatusNotFound, "this process keeps no archive: ask where the archive worker runs (weir hold)"}

func (a *api) listHolds(ctx context.Context, _ *call) (any, error) {
	if a.g.Holds == nil {
		return nil, errNoArchive
	}
	return a.g.Holds.Held(ctx)
}

func (a *api) hold(hold bool) func(context.Context, *call) (any, error) {
	return func(ctx context.Context, c *call) (any, error) {
		h := c.body.(*holding)
		switch {
		case a.g.Holds == nil:
			return nil, errNoArchive
		case len(h.Sessions) == 0 || len(h.Sessions) > 30:
			return nil, &apiError{http.StatusBadRequest, "name from 1 to 30 sessions"}
		}
		do := a.g.Holds.Release
		if hold {
			do = a.g.Holds.Hold
		}
		if err := do(ctx, c.who.Subject, blot(h.Reason), h.Sessions...); err != nil {
			return nil, err
		}
		return Done{true}, nil
	}
}

// Grant is what a token is made for.
type Grant struct {
	Subject string   `json:"subject"`
	Groups  []string `json:"groups"`
	Kind    string   `json:"kind"`    // service (default), agent or human
	Run     string   `json:"run"`     // that its sessions belong to
	Targets []string `json:"targets"` // the only ones that it is good for; none: all
	TTL     string   `json:"ttl"`     // such as 30m; default: 1h
}

// Token is a token that was made, without its text.
type Token struct {
	ID      string    `json:"id"`
	Subject string    `json:"subject"`
	Groups  []string  `json:"groups,omitempty"`
	Kind    string    `json:"kind"`
	Run     string    `json:"run,omitempty"`
	Targets []string  `json:"targets,omitempty"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
}

// NewToken is a token, which nothing else shows again.
type NewToken struct {
	Token   string    `json:"token"`
	ID      string    `json:"id"`
	Subject string    `json:"subject"`
	Expires time.Time `json:"expires"`
}

func (t *NewToken) note() string {
	return "token " + t.ID + ", until " + t.Expires.UTC().Format(time.RFC3339)
}

// Tokens makes tokens. What a grant may not ask for is a core.Refusal.
type Tokens interface {
	Issue(ctx context.Context, g Grant) (NewToken, error)
	Issued(ctx context.Context) ([]Token, error)
}

func grantOf(c *call) (string, map[string]any) {
	g := c.body.(*Grant)
	d := map[string]any{}
	for _, x := range []struct {
		key string
		v   any
		set bool
	}{{"groups", g.Groups, len(g.Groups) > 0}, {"kind", g.Kind, g.Kind != ""}, {"run", g.Run, g.Run != ""}, {"targets", g.Targets, len(g.Targets) > 0}, {"ttl", g.TTL, g.TTL != ""}} {
		if x.set {
			d[x.key] = x.v
		}
	}
	return g.Subject, d
}

func (a *api) tokens() (Tokens, error) {
	a.g.mu.RLock()
	defer a.g.mu.RUnlock()
	if a.g.now.Tokens == nil {
		return nil, &apiError{http.StatusForbidden, "this gateway makes no tokens (identity.service_tokens.enabled)"}
	}
	return a.g.now.Tokens, nil
}

func (a *api) listTokens(ctx context.Context, _ *call) (any, error) {
	t, err := a.tokens()
	if err != nil {
		return nil, err
	}
	return t.Issued(ctx)
}

func (a *api) issue(ctx context.Context, c *call) (any, error) {
	t, err := a.tokens()
	if err != nil {
		return nil, err
	}
	made, err := t.Issue(ctx, *c.body.(*Grant))
	var no core.Refusal
	if errors.As(err, &no) {
		return nil, &apiError{http.StatusBadRequest, string(no)}
	}
	if err == nil {
		c.note = made.note()
	}
	return made, err
}
