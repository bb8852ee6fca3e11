package gateway

import (
	"sync"
	"time"

	"github.com/weir-gateway/weir/core"
)

// What is kept of runs: a loop that comes back within runTime goes on with the counts that it had.
const (
	runTime  = 24 * time.Hour // after its last session
	mostRuns = 10_000
)

// runs finds the account of a run. It lives as long as this process.
type runs struct {
	mu    sync.Mutex
	byID  map[string]*counted
	most  int
	doubt time.Time // until then a run that seems to be new may be one that was forgotten before its time
}

type counted struct {
	*core.Run
	last time.Time // when a session of it began or ended
}

func newRuns() *runs { return &runs{byID: map[string]*counted{}, most: mostRuns} }

// of returns a run's account, and begins it when there is none; nil for the empty id.
func (r *runs) of(id string, now time.Time) *core.Run {
	if id == "" {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.byID[id]; c != nil {
		c.last = now
		return c.Run
	}
	if len(r.byID) >= r.most {
		r.forget(now)
	}
	c := &counted{core.NewRun(id, !now.Before(r.doubt)), now}
	r.byID[id] = c
	return c.Run
}

// forget makes room: by the runs whose time is over, else by the one that has been idle for longest. Open ones stay,
// as the gateway bounds their sessions.
func (r *runs) forget(now time.Time) {
	var oldest *counted
	for id, c := range r.byID {
		since, idle := c.Idle()
		if since.After(c.last) {
			c.last = since
		}
		switch {
		case !idle:
		case now.Sub(c.last) >= runTime:
			delete(r.byID, id)
		case oldest == nil || c.last.Before(oldest.last):
			oldest = c
		}
	}
	if len(r.byID) >= r.most && oldest != nil {
		delete(r.byID, oldest.ID)
		r.doubt = now.Add(runTime)
	}
}
