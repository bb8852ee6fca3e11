package gateway

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"time"

	"github.com/weir-gateway/weir/core"
)

// route is one address of the admin API. The table of them is all there is: the server and the OpenAPI document are both
// made of it.
type route struct {
	method, path string
	summary      string
	// raw serves what is no part of the API proper; none of what follows counts then but media and out.
	raw   http.HandlerFunc
	media string // of a raw answer
	// action is what weir.admin is asked about. Without a policy it is for operators, and approvals are for clients.
	action  string
	open    bool // without a policy nobody has to say who they are
	own     bool // about the caller's own: for every client, and weir.admin is not asked
	changes bool
	anyway  bool // see Act
	in      func() any
	out     any // a value of the answer's type
	// about says what a call is about, for weir.admin and for the record; nil: nothing in particular.
	about func(c *call) (object string, detail map[string]any)
	do    func(ctx context.Context, c *call) (any, error)
}

// call is one request by somebody who was recognised.
type call struct {
	*http.Request
	who  core.Identity
	body any    // what in made, read
	note string // set by do, for the record
}

// body makes what a request's body is read into.
func body[T any]() func() any { return func() any { return new(T) } }

// id is about the object that the path names.
func id(c *call) (string, map[string]any) { return c.PathValue("id"), nil }

// reason is what somebody gives for an act.
type reason struct {
	Reason string `json:"reason"`
}

func (r *reason) detail() map[string]any {
	if r.Reason == "" {
		return nil
	}
	return map[string]any{"reason": r.Reason}
}

// because is about the object that the path names, for a reason.
func because(c *call) (string, map[string]any) { return c.PathValue("id"), c.body.(*reason).detail() }

// routes is the table.
func (a *api) routes() []route {
	g := a.g
	return []route{
		{method: "GET", path: "/healthz", summary: "Whether the process is alive", raw: a.health, media: "text/plain"},
		{method: "GET", path: "/readyz", summary: "Whether the gateway takes clients; 503 says why not", raw: a.ready, media: "text/plain"},
		{method: "GET", path: "/metrics", summary: "Metrics for Prometheus", raw: a.metrics(), media: "text/plain"},
		{method: "GET", path: "/openapi.json", summary: "This document", raw: a.document, media: "application/json"},
		{method: "GET", path: "/.well-known/jwks.json", summary: "The public key of the gateway's own tokens", raw: a.keySet, media: "application/jwk-set+json"},

		{method: "GET", path: "/api/v1/status", summary: "How the gateway is", action: "status.show", out: Status{}, do: a.status},
		{method: "POST", path: "/api/v1/reload", summary: "Read the configuration again", action: "reload", changes: true, anyway: true, out: Done{}, do: a.reload},

		{method: "GET", path: "/api/v1/sessions", summary: "List the open sessions of this gateway", action: "sessions.list", open: true, out: []Live{}, do: a.sessions},
		{method: "GET", path: "/api/v1/sessions/{id}", summary: "Show an open session of this gateway", action: "sessions.show", about: id, out: Live{}, do: a.session},
		{method: "POST", path: "/api/v1/sessions/{id}/end", summary: "End an open session of this gateway", action: "sessions.end", changes: true, anyway: true, in: body[reason](), about: because, out: Live{}, do: a.end},

		{method: "GET", path: "/api/v1/approvals", summary: "List the held commands that the caller has asked for or may answer", action: "approvals.list", out: []core.Approval{}, do: a.listApprovals},
		{method: "GET", path: "/api/v1/approvals/{id}", summary: "Show a held command", action: "approvals.show", about: id, out: core.Approval{}, do: a.showApproval},
		{method: "POST", path: "/api/v1/approvals/{id}/approve", summary: "Let a held command run, once", action: "approvals.approve", changes: true, in: body[reason](), about: because, out: core.Approval{}, do: a.decide(true)},
		{method: "POST", path: "/api/v1/approvals/{id}/deny", summary: "Refuse a held command", action: "approvals.deny", changes: true, in: body[reason](), about: because, out: core.Approval{}, do: a.decide(false)},

		{method: "GET", path: "/api/v1/tokens", summary: "List the tokens that the gateway has made and that are not over", action: "tokens.list", out: []Token{}, do: a.listTokens},
		{method: "POST", path: "/api/v1/tokens", summary: "Make a token", action: "tokens.issue", changes: true, in: body[Grant](), about: grantOf, out: NewToken{}, do: a.issue},
		{method: "GET", path: "/api/v1/revocations", summary: "List the tokens and subjects that are revoked", action: "tokens.list", out: []core.Revocation{}, do: a.listRevocations},
		{method: "POST", path: "/api/v1/revocations/revoke", summary: "Revoke a token, or all of a subject, and end their sessions", action: "tokens.revoke", changes: true, in: body[core.Revocation](), about: revocationOf, out: core.Revocation{}, do: a.revoke(true)},
		{method: "POST", path: "/api/v1/revocations/restore", summary: "Take a revocation back", action: "tokens.restore", changes: true, in: body[core.Revocation](), about: revocationOf, out: core.Revocation{}, do: a.revoke(false)},

		{method: "GET", path: "/api/v1/holds", summary: "List the sessions under legal hold", action: "holds.list", out: []Held{}, do: a.listHolds},
		{method: "POST", path: "/api/v1/holds/hold", summary: "Put sessions under legal hold", action: "holds.hold", changes: true, in: body[holding](), about: holdingOf, out: Done{}, do: a.hold(true)},
		{method: "POST", path: "/api/v1/holds/release", summary: "End the legal hold of sessions", action: "holds.release", changes: true, in: body[holding](), about: holdingOf, out: Done{}, do: a.hold(false)},

		{method: "POST", path: "/api/v1/recordings/read", summary: "Be let read recordings, and have it on record", action: actRead, changes: true, in: body[Reading](), about: a.readingOf, out: Done{}, do: func(context.Context, *call) (any, error) {
			return Done{true}, nil
		}},

		{method: "GET", path: "/api/v1/locks", summary: "List the addresses that are locked out of this gateway", action: "locks.list", out: []Locked{}, do: func(context.Context, *call) (any, error) {
			return g.lockout.list(), nil
		}},
		{method: "POST", path: "/api/v1/locks/release", summary: "End the lock of an address", action: "locks.release", changes: true, in: body[lockOf](), about: func(c *call) (string, map[string]any) { return c.body.(*lockOf).Source, nil }, out: Done{}, do: a.unlock},

		{method: "GET", path: "/api/v1/identity", summary: "Who the caller is", own: true, out: core.Identity{}, do: func(_ context.Context, c *call) (any, error) { return c.who, nil }},
		{method: "GET", path: "/api/v1/targets", summary: "What the caller may reach, and how", own: true, out: []Reachable{}, do: func(ctx context.Context, c *call) (any, error) {
			return g.reachable(ctx, c.who, ""), nil
		}},
		{method: "POST", path: "/api/v1/runs", summary: "Begin a run: a token for it, and how its targets are reached with it", action: "runs.start", own: true, changes: true, in: body[runOf](), about: runAbout, out: NewRun{}, do: a.newRun},
	}
}

// serve makes the handler of a route.
func (a *api) serve(r *route) http.HandlerFunc {
	if r.raw != nil {
		return r.raw
	}
	return func(w http.ResponseWriter, req *http.Request) {
		ctx, cancel := context.WithTimeout(req.Context(), 20*time.Second)
		defer cancel()
		out, err := a.answer(ctx, r, req)
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			e := a.said(err)
			if e.status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="weir"`)
			}
			w.WriteHeader(e.status)
			out = Refused{e.text}
		}
		_ = json.NewEncoder(w).Encode(out)
	}
}

// Refused is the answer to what is not done.
type Refused struct {
	Error string `json:"error"`
}

// Done is the answer to what has nothing to tell.
type Done struct {
	Done bool `json:"done"`
}

func (a *api) answer(ctx context.Context, r *route, req *http.Request) (any, error) {
	if r.open && req.Header.Get("Authorization") == "" && !a.judged(r.action) {
		return r.do(ctx, &call{Request: req})
	}
	who, operator, err := a.who(req, r)
	if err != nil {
		return nil, err
	}
	c := &call{Request: req, who: who}
	if r.in != nil {
		c.body = r.in()
		if err := readBody(req, c.body, example(r)); err != nil {
			return nil, err
		}
	}
	if r.action == "" {
		return r.do(ctx, c)
	}
	act := Act{Action: r.action, Who: who, Operator: operator, Changes: r.changes, Anyway: r.anyway, Unasked: r.own}
	if from, err := net.ResolveTCPAddr("tcp", req.RemoteAddr); err == nil {
		act.Client = from
	}
	if r.about != nil {
		act.Object, act.Detail = r.about(c)
	}
	if len(act.Object) > maxObject {
		return nil, &apiError{http.StatusBadRequest, "that name is too long"}
	}
	var out any
	err = a.g.Do(ctx, act, func(ctx context.Context) (_ string, err error) {
		out, err = r.do(ctx, c)
		return c.note, err
	})
	if err != nil && !operator && act.forOperators() && !r.own && !a.judged(r.action) {
		return nil, a.notGood() // as if it were nobody's: where no policy says otherwise, this takes the gateway's own key
	}
	return out, err
}

// maxObject bounds the name of what an act is about, in bytes.
const maxObject = 1000

// judged reports whether there is a policy for an act.
func (a *api) judged(action string) bool {
	a.g.mu.RLock()
	defer a.g.mu.RUnlock()
	if action == actRead {
		return a.g.now.Replay != nil
	}
	return a.g.now.Admin != nil
}
