package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/weir-gateway/weir/core"
)

// Approvals is the queue of held commands, and who may answer. An identity sees its own requests and those that it may
// answer; of all others it is told core.ErrNoApproval. An error with a method Refused() bool is a no with a reason that
// may be shown.
type Approvals interface {
	core.Approvals
	List(ctx context.Context, who core.Identity) ([]core.Approval, error)
	Show(ctx context.Context, who core.Identity, id string) (core.Approval, error)
	Decide(ctx context.Context, who core.Identity, id string, approve bool, reason string) (core.Approval, error)
}

// Bounds of the API of approvals.
const (
	maxAnswer   = 4 << 10 // bytes of a request's body
	maxAPIToken = 64 << 10
	apiRate     = 50 // requests a second of all callers
	apiBurst    = 100
)

// approvalsAPI serves the queue to people. Each request carries a token; without a good one nothing is told.
type approvalsAPI struct {
	g    *Gateway
	rate bucket
}

// bucket is a token bucket.
type bucket struct {
	mu   sync.Mutex
	left float64
	last time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last.IsZero() {
		b.left = apiBurst
	} else {
		b.left = min(apiBurst, b.left+now.Sub(b.last).Seconds()*apiRate)
	}
	b.last = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// serveApprovals adds the API of approvals.
func (g *Gateway) serveApprovals(mux *http.ServeMux) {
	a := &approvalsAPI{g: g}
	mux.HandleFunc("GET /api/v1/approvals", a.signedIn(func(ctx context.Context, who core.Identity, _ *http.Request) (any, error) {
		return g.Approvals.List(ctx, who)
	}))
	mux.HandleFunc("GET /api/v1/approvals/{id}", a.signedIn(func(ctx context.Context, who core.Identity, r *http.Request) (any, error) {
		return g.Approvals.Show(ctx, who, r.PathValue("id"))
	}))
	for word, approve := range map[string]bool{"approve": true, "deny": false} {
		mux.HandleFunc("POST /api/v1/approvals/{id}/"+word, a.signedIn(func(ctx context.Context, who core.Identity, r *http.Request) (any, error) {
			reason, err := readReason(r)
			if err != nil {
				return nil, err
			}
			return g.Approvals.Decide(ctx, who, r.PathValue("id"), approve, reason)
		}))
	}
}

// apiError is an answer that is no.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

// signedIn answers those who can say who they are.
func (a *approvalsAPI) signedIn(f func(context.Context, core.Identity, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var out any
		who, err := a.who(r)
		if err == nil {
			ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
			defer cancel()
			out, err = f(ctx, who, r)
		}
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			e := a.said(err)
			if e.status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="weir"`)
			}
			w.WriteHeader(e.status)
			out = map[string]string{"error": e.text}
		}
		_ = json.NewEncoder(w).Encode(out)
	}
}

// who recognises the caller.
func (a *approvalsAPI) who(r *http.Request) (core.Identity, error) {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); r.TLS == nil && (err != nil || !loopbackHost(host)) {
		return core.Identity{}, &apiError{http.StatusForbidden, "a token was sent in clear over a network: treat it as stolen"}
	}
	if !a.rate.take(time.Now()) {
		return core.Identity{}, &apiError{http.StatusTooManyRequests, "too many requests: try again in a moment"}
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxAPIToken {
		return core.Identity{}, &apiError{http.StatusUnauthorized, "this takes a token: Authorization: Bearer …"}
	}
	a.g.mu.RLock()
	verifier := a.g.now.Verifier
	a.g.mu.RUnlock()
	who, err := verifier.Verify(r.Context(), strings.TrimSpace(token))
	if err != nil {
		tell, delay := a.g.throttle.failed("the admin address")
		if tell {
			a.g.Log.Warn("gateway: sign-in at the admin address refused", "error", err)
		}
		if delay > 0 {
			t := time.NewTimer(delay)
			defer t.Stop()
			select {
			case <-t.C:
			case <-r.Context().Done():
			}
		}
		return core.Identity{}, &apiError{http.StatusUnauthorized, "the token is not good here"}
	}
	return who, nil
}

// said is what a caller is told of an error.
func (a *approvalsAPI) said(err error) *apiError {
	var e *apiError
	var no interface{ Refused() bool }
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, core.ErrNoApproval):
		return &apiError{http.StatusNotFound, "there is no such request for you to see"}
	case errors.As(err, &no) && no.Refused():
		return &apiError{http.StatusForbidden, err.Error()}
	}
	if a.g.throttle.tell("gateway", "approvals") {
		a.g.Log.Warn("gateway: approvals", "error", err)
	}
	return &apiError{http.StatusServiceUnavailable, "the queue of approvals cannot be reached"}
}

// readReason reads the body of an answer: {"reason": "…"}, or nothing.
func readReason(r *http.Request) (string, error) {
	bad := &apiError{http.StatusBadRequest, `the body is to be JSON, such as {"reason": "…"}`}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer+1))
	switch {
	case err != nil:
		return "", bad
	case len(b) > maxAnswer:
		return "", &apiError{http.StatusRequestEntityTooLarge, "the body is too large"}
	case len(b) == 0:
		return "", nil
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return "", bad
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	var body struct {
		Reason string `json:"reason"`
	}
	if d.Decode(&body) != nil || d.More() {
		return "", bad
	}
	return body.Reason, nil
}
