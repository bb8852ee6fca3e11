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

var errNoQueue = &apiError{http.StatusNotFound, "this gateway has no queue of approvals"}

func (a *api) listApprovals(ctx context.Context, c *call) (any, error) {
	if a.g.Approvals == nil {
		return nil, errNoQueue
	}
	return a.g.Approvals.List(ctx, c.who)
}

func (a *api) showApproval(ctx context.Context, c *call) (any, error) {
	if a.g.Approvals == nil {
		return nil, errNoQueue
	}
	return a.g.Approvals.Show(ctx, c.who, c.PathValue("id"))
}

func (a *api) decide(approve bool) func(context.Context, *call) (any, error) {
	return func(ctx context.Context, c *call) (any, error) {
		if a.g.Approvals == nil {
			return nil, errNoQueue
		}
		x, err := a.g.Approvals.Decide(ctx, c.who, c.PathValue("id"), approve, blot(c.body.(*reason).Reason))
		if err == nil {
			c.note = string(x.State) + ": " + x.Rule() + " of " + x.Identity + " at " + x.Target + ", session " + x.Session
		}
		return x, err
	}
}
