package gateway

import (
	"fmt"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// TestRuns: what is kept of runs is bounded, and a run that may have been forgotten says so.
func TestRuns(t *testing.T) {
	r, now := newRuns(), time.Unix(1e9, 0)
	r.most = 3
	if r.of("", now) != nil {
		t.Error("sessions without a run are counted together")
	}
	a := r.of("a", now)
	open := &core.Session{Target: &core.Target{}}
	open.Begin(core.SessionConfig{Run: a})
	if r.of("a", now) != a || !a.Tables().Complete {
		t.Error("another account, or one in doubt")
	}
	r.of("b", now.Add(time.Minute))
	r.of("c", now.Add(2*time.Minute))
	d := r.of("d", now.Add(3*time.Minute)) // b makes room: a is open
	if len(r.byID) != 3 || r.byID["b"] != nil || r.of("a", now) != a {
		t.Errorf("%v", r.byID)
	}
	if d.Tables().Complete {
		t.Error("d may be one that was forgotten")
	}
	later := now.Add(3*time.Minute + runTime)
	if e := r.of("e", later); !e.Tables().Complete || len(r.byID) != 2 { // c and d have had their time
		t.Errorf("%v", r.byID)
	}
	for i := range 10 {
		r.of(fmt.Sprint(i), later)
	}
	if len(r.byID) > 3 || r.byID["a"] == nil {
		t.Errorf("%d runs are kept", len(r.byID))
	}
}
