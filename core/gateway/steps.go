package gateway

import (
	"context"
	"sync/atomic"

	"github.com/weir-gateway/weir/core"
)

// refusal is the chain of a session that the gateway refuses.
type refusal struct{ denial *core.Denial }

// Inspect implements core.Plugin.
func (r refusal) Inspect(_ context.Context, e *core.Event) (core.Verdict, error) {
	if e.Kind != core.KindOpen {
		return core.Verdict{}, nil
	}
	return core.Verdict{Deny: r.denial, Decisions: []core.Decision{{Step: r.denial.Step, Action: "deny", Rule: r.denial.Rule, Detail: r.denial.Reason}}}, nil
}

// recorder remembers how the session was sealed.
type recorder struct {
	core.Recorder
	sealed atomic.Value // core.End
}

// Seal implements core.Recorder.
func (r *recorder) Seal(end core.End) error {
	r.sealed.Store(end)
	return r.Recorder.Seal(end)
}

func (r *recorder) end() core.End {
	end, _ := r.sealed.Load().(core.End)
	return end
}
