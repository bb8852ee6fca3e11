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

// Operators is a Verifier that recognises who may change what the gateway does: whoever holds its own key.
type Operators interface {
	VerifyOperator(ctx context.Context, token string) (core.Identity, error)
}

// Bounds of the API.
const (
	maxAnswer   = 4 << 10 // bytes of a request's body
	maxAPIToken = 64 << 10
	apiRate     = 50 // requests a second of all callers
	apiBurst    = 100
)

// api serves those who show a token. Without a good one nothing is told.
type api struct {
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

// apiError is an answer that is no.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

// who recognises the caller: a client by its token, an operator by one that was made with the gateway's own key.
func (a *api) who(r *http.Request, to *route) (who core.Identity, operator bool, err error) {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); r.TLS == nil && (err != nil || !loopbackHost(host)) {
		return who, false, &apiError{http.StatusForbidden, "a token was sent in clear over a network: treat it as stolen"}
	}
	if !a.rate.take(time.Now()) {
		return who, false, &apiError{http.StatusTooManyRequests, "too many requests: try again in a moment"}
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxAPIToken {
		return who, false, &apiError{http.StatusUnauthorized, "this takes a token: Authorization: Bearer …"}
	}
	token = strings.TrimSpace(token)
	if !to.own && !strings.HasPrefix(to.action, "approvals.") { // those are asked in a person's own name
		if who, err = a.operator(r.Context(), token); err == nil {
			return who, true, nil
		}
	}
	if who, err = a.client(r.Context(), token); err == nil {
		return who, false, nil
	}
	tell, delay := a.g.throttle.failed("the admin address", "")
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
	return core.Identity{}, false, a.notGood()
}

func (*api) notGood() *apiError {
	return &apiError{http.StatusUnauthorized, "the token is not good here"}
}

func (a *api) verifier() Verifier {
	a.g.mu.RLock()
	defer a.g.mu.RUnlock()
	return a.g.now.Verifier
}

// client recognises a client's token, unless it was revoked.
func (a *api) client(ctx context.Context, token string) (core.Identity, error) {
	who, err := a.verifier().Verify(ctx, token)
	if err == nil && a.g.Revocations != nil {
		if d := a.g.Revocations.Check(who); d != nil {
			return core.Identity{}, d
		}
	}
	return who, err
}

// operator recognises who holds the gateway's own key.
func (a *api) operator(ctx context.Context, token string) (core.Identity, error) {
	v, ok := a.verifier().(Operators)
	if !ok {
		return core.Identity{}, core.ErrUnauthenticated
	}
	return v.VerifyOperator(ctx, token)
}

// said is what a caller is told of an error.
func (a *api) said(err error) *apiError {
	var e *apiError
	var no core.Refusal
	if e, ok := saidOf(err); ok {
		return e
	}
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, core.ErrNoApproval):
		return &apiError{http.StatusNotFound, "there is no such request for you to see"}
	case errors.As(err, &no):
		return &apiError{http.StatusForbidden, err.Error()}
	}
	if a.g.throttle.tell("gateway", "api") {
		a.g.Log.Warn("gateway: a request to the admin address failed", "error", err)
	}
	return &apiError{http.StatusServiceUnavailable, "that cannot be reached at present; the gateway's log says why"}
}

// readBody reads the body of a request strictly; none at all leaves into as it is.
func readBody(r *http.Request, into any, such string) error {
	bad := &apiError{http.StatusBadRequest, "the body is to be JSON, such as " + such}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer+1))
	switch {
	case err != nil:
		return bad
	case len(b) > maxAnswer:
		return &apiError{http.StatusRequestEntityTooLarge, "the body is too large"}
	case len(b) == 0:
		return nil
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return bad
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if d.Decode(into) != nil || d.More() {
		return bad
	}
	return nil
}
