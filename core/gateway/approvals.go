package gateway

import (
	"context"
	"net/http"

	"github.com/weir-gateway/weir/core"
)

// Approvals is the queue of held commands, and who may answer. An identity sees its own requests and those that it may
// answer; of all others it is told core.ErrNoApproval. What it may not do is a core.Refusal.
type Approvals interface {
	core.Approvals
	List(ctx context.Context, who core.Identity) ([]core.Approval, error)
	Show(ctx context.Context, who core.Identity, id string) (core.Approval, error)
	Decide(ctx context.Context, who core.Identity, id string, approve bool, reason string) (core.Approval, error)
}

// serveApprovals adds the API of approvals.
func (a *api) serveApprovals(mux *http.ServeMux) {
	g := a.g
	mux.HandleFunc("GET /api/v1/approvals", a.signedIn(func(ctx context.Context, who core.Identity, _ *http.Request) (any, error) {
		return g.Approvals.List(ctx, who)
	}))
	mux.HandleFunc("GET /api/v1/approvals/{id}", a.signedIn(func(ctx context.Context, who core.Identity, r *http.Request) (any, error) {
		return g.Approvals.Show(ctx, who, r.PathValue("id"))
	}))
	for word, approve := range map[string]bool{"approve": true, "deny": false} {
		mux.HandleFunc("POST /api/v1/approvals/{id}/"+word, a.signedIn(func(ctx context.Context, who core.Identity, r *http.Request) (any, error) {
			var body struct {
				Reason string `json:"reason"`
			}
			if err := readBody(r, &body, `{"reason": "…"}`); err != nil {
				return nil, err
			}
			return g.Approvals.Decide(ctx, who, r.PathValue("id"), approve, body.Reason)
		}))
	}
}
