package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/weir-gateway/weir/core"
)

// queue is one request in memory, which only "good-dba" may see, and everybody once is asked for.
type queue struct {
	mu      sync.Mutex
	request core.Approval
	asked   int
	decided []string
	fails   error
}

func (q *queue) Ask(_ context.Context, a core.Approval) (core.Approval, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.request.ID == "" || q.request.State == core.ApprovalUsed {
		q.asked++
		a.ID = fmt.Sprint("id-", q.asked)
		q.request = a
	}
	return q.request, nil
}

func (q *queue) Get(string) (core.Approval, bool)       { return q.request, true }
func (q *queue) Watch(string) (<-chan struct{}, func()) { return nil, func() {} }
func (q *queue) Withdraw(context.Context, string)       {}
func (q *queue) Use(_ context.Context, _, digest string) (core.Approval, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.request.State != core.ApprovalApproved || q.request.Digest != digest {
		return core.Approval{}, core.ErrNoApproval
	}
	q.request.State = core.ApprovalUsed
	return q.request, nil
}

func (q *queue) List(_ context.Context, who core.Identity) ([]core.Approval, error) {
	if who.Subject != "good-dba" {
		return []core.Approval{}, nil
	}
	return []core.Approval{q.request}, q.fails
}

func (q *queue) Show(_ context.Context, who core.Identity, id string) (core.Approval, error) {
	if who.Subject != "good-dba" || id != q.request.ID {
		return core.Approval{}, core.ErrNoApproval
	}
	return q.request, q.fails
}

func (q *queue) Decide(_ context.Context, who core.Identity, id string, approve bool, reason string) (core.Approval, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.fails != nil:
		return core.Approval{}, q.fails
	case id != q.request.ID:
		return core.Approval{}, core.ErrNoApproval
	case who.Subject != "good-dba":
		return core.Approval{}, core.Refusal("not you")
	}
	q.decided = append(q.decided, fmt.Sprint(approve, " ", reason))
	if q.request.State = core.ApprovalDenied; approve {
		q.request.State = core.ApprovalApproved
	}
	return q.request, nil
}

// TestApprovalsAPI: who cannot say who they are is told nothing, and the answers to all others are of a few kinds.
func TestApprovalsAPI(t *testing.T) {
	q := &queue{request: core.Approval{ID: "id-1", State: core.ApprovalWaiting, Text: "DELETE FROM secrets"}}
	r := start(t, func(c *Config, _ *Settings) { c.Approvals = q })
	api := r.AdminHandler()
	const list, one = "/api/v1/approvals", "/api/v1/approvals/id-1"
	reset := func(*http.Request) {}
	for _, c := range []struct {
		name         string
		method, path string
		token, body  string
		change       func(*http.Request)
		status       int
		want         string
	}{
		{"no token", "GET", list, "", "", reset, 401, "this takes a token"},
		{"no token, and no request", "GET", list + "/none", "", "", reset, 401, "this takes a token"},
		{"no token to approve", "POST", one + "/approve", "", "", reset, 401, "this takes a token"},
		{"a bad token", "GET", list, "bad", "", reset, 401, "the token is not good here"},
		{"a bad token for a request", "POST", one + "/approve", "bad", "", reset, 401, "the token is not good here"},
		{"another scheme", "GET", list, "", "", func(r *http.Request) { r.SetBasicAuth("good-dba", "x") }, 401, "this takes a token"},
		{"a token in the query", "GET", list + "?access_token=good-dba", "", "", reset, 401, "this takes a token"},
		{"a huge token", "GET", list, strings.Repeat("x", maxAPIToken+1), "", reset, 401, "this takes a token"},
		{"from another machine", "GET", list, "good-dba", "", func(r *http.Request) { r.RemoteAddr = "192.0.2.7:999" }, 403, "in clear over a network"},
		{"another name for loopback", "GET", list, "good-dba", "", func(r *http.Request) { r.Host = "evil.example" }, 403, "this machine only"},
		{"a web page", "POST", one + "/approve", "good-dba", "", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403, "this machine only"},
		{"list", "GET", list, "good-dba", "", reset, 200, "DELETE FROM secrets"},
		{"list of somebody else", "GET", list, "good-eve", "", reset, 200, "[]"},
		{"show", "GET", one, "good-dba", "", reset, 200, "DELETE FROM secrets"},
		{"show to somebody else", "GET", one, "good-eve", "", reset, 404, "no such request for you"},
		{"show nothing", "GET", list + "/id-9", "good-dba", "", reset, 404, "no such request for you"},
		{"approve nothing", "POST", list + "/id-9/approve", "good-dba", "", reset, 404, "no such request for you"},
		{"approve as somebody else", "POST", one + "/approve", "good-eve", "", reset, 403, "not you"},
		{"approve by GET", "GET", one + "/approve", "good-dba", "", reset, 405, ""},
		{"too much", "POST", one + "/approve", "good-dba", `{"reason": "` + strings.Repeat("x", maxAnswer) + `"}`, reset, 413, "too large"},
		{"an unknown key", "POST", one + "/approve", "good-dba", `{"approver": "me"}`, reset, 400, "the body is to be JSON"},
		{"two bodies", "POST", one + "/approve", "good-dba", `{} {}`, reset, 400, "the body is to be JSON"},
		{"a form", "POST", one + "/approve", "good-dba", `{}`, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, 400, "the body is to be JSON"},
		{"deny", "POST", one + "/deny", "good-dba", `{"reason": "no"}`, reset, 200, "denied"},
		{"approve", "POST", one + "/approve", "good-dba", "", reset, 200, "approved"},
	} {
		req := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		req.RemoteAddr, req.Host = "127.0.0.1:999", "127.0.0.1:8480"
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		req.Header.Set("Content-Type", "application/json")
		c.change(req)
		w := httptest.NewRecorder()
		api.ServeHTTP(w, req)
		if text := w.Body.String(); w.Code != c.status || !strings.Contains(text, c.want) || c.status != 200 && strings.Contains(text, "DELETE") {
			t.Errorf("%s: %d %s, want %d %s", c.name, w.Code, text, c.status, c.want)
		}
		if c.status == 401 && w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no WWW-Authenticate", c.name)
		}
	}
	if got := fmt.Sprint(q.decided); got != "[false no true ]" {
		t.Errorf("decided: %s", got)
	}
	q.fails = errors.New("nats: secret detail")
	ask := func() *httptest.ResponseRecorder {
		req := httptest.NewRequest("GET", list, nil)
		req.RemoteAddr, req.Host = "127.0.0.1:999", "127.0.0.1:8480"
		req.Header.Set("Authorization", "Bearer good-dba")
		w := httptest.NewRecorder()
		api.ServeHTTP(w, req)
		return w
	}
	if w := ask(); w.Code != 503 || strings.Contains(w.Body.String(), "secret detail") {
		t.Errorf("the queue fails: %d %s", w.Code, w.Body)
	}
	limited := false
	for range 2 * apiBurst {
		limited = limited || ask().Code == 429
	}
	if !limited {
		t.Error("there is no limit")
	}
}

// TestApprovalToOpen: a rule may hold the opening of a target. It is refused with an id, whatever the mode, and opens
// once when the client comes again after it was approved.
func TestApprovalToOpen(t *testing.T) {
	q := &queue{}
	r := start(t, func(c *Config, s *Settings) {
		c.Approvals = q
		s.Targets[0].Hold.Mode = core.HoldWait
	})
	r.dial().want("one good-with-approval", "no: refused by rule ask: this needs an approval")
	if q.request.Identity != "good-with-approval" || q.request.Action != "open" || q.request.Mode != core.HoldRefuse {
		t.Errorf("asked: %+v", q.request)
	}
	q.request.State = core.ApprovalApproved
	for i := range q.request.Holds {
		q.request.Holds[i].Approved = &core.Word{Subject: "dana"}
	}
	r.dial().want("one good-with-approval", "ok")
	r.dial().want("one good-with-approval", "no: refused by rule ask: this needs an approval")
	if q.asked != 2 {
		t.Errorf("asked %d times", q.asked)
	}
}
