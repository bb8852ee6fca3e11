package cli

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-gateway/weir/core/archive/retention"
	"github.com/weir-gateway/weir/core/config"
)

// upkeep is what goes on beside the archive's worker: an index that is not whole is filled, what is over its time is
// removed, and `weir hold`, `release` and `purge` are served.
type upkeep struct {
	config atomic.Pointer[config.Config]
	keeper *retention.Keeper
	log    *slog.Logger
	now    func() time.Time
	server *http.Server
	stop   context.CancelFunc
	wg     sync.WaitGroup
}

// purgeEvery is how often the gateway looks for what is over its time, and firstPurge how long after its start.
const (
	purgeEvery = time.Hour
	firstPurge = time.Minute
)

// byGateway is who did what nobody asked for.
const byGateway = "gateway"

// clock is time.Now, but for tests.
var clock = time.Now

func (e *evidence) startUpkeep(c *config.Config, log *slog.Logger) error {
	ctx, stop := context.WithCancel(context.Background())
	u := &upkeep{log: log, stop: stop, now: clock}
	u.config.Store(c)
	u.keeper = e.keeper(func(target string) retention.Term { return termOf(u.config.Load(), target) })
	if err := u.serve(ctx, c.Data); err != nil {
		stop()
		return err
	}
	u.wg.Go(func() {
		e.reindex(ctx, log)
		u.run(ctx)
	})
	e.upkeep = u
	return nil
}

// keeper is what holds, releases and removes in these stores.
func (e *evidence) keeper(term func(string) retention.Term) *retention.Keeper {
	rc := retention.Config{Index: e.index, Ledger: e.ledger, Keys: e.keys, Term: term, Recipients: e.recipients}
	for _, s := range e.stores {
		rc.Stores = append(rc.Stores, retention.Store{Name: s.Name, Store: s.Store})
	}
	return retention.New(rc)
}

func termOf(c *config.Config, target string) retention.Term {
	class, keep := c.Kept(target)
	return retention.Term{Class: class, Keep: keep}
}

// use goes on with another configuration.
func (u *upkeep) use(c *config.Config) {
	if u != nil {
		u.config.Store(c)
	}
}

// run purges until ctx ends.
func (u *upkeep) run(ctx context.Context) {
	t := time.NewTimer(firstPurge)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		t.Reset(purgeEvery)
		// Also where nothing is over its time any more: an earlier purge may have been cut short.
		r, err := u.keeper.Purge(ctx, byGateway, u.now(), false)
		if ctx.Err() != nil {
			return
		}
		u.tell(r, err)
	}
}

func (u *upkeep) tell(r retention.Report, err error) {
	if len(r.Removed) > 0 {
		u.log.Info("cli: retention has removed sessions", "sessions", len(r.Removed), "held", len(r.Held))
	}
	for _, l := range r.Locked {
		u.log.Info("cli: retention: a store keeps what it has locked", "store", l.Store, "objects", l.Parts, "until", l.Until)
	}
	if err != nil {
		u.log.Error("cli: retention: not everything that is over its time is removed; the next purge goes on", "error", err)
	}
}

func (u *upkeep) close() {
	if u == nil {
		return
	}
	u.stop() // also what is done for somebody who asked
	ctx, cancel := context.WithTimeout(context.Background(), stopTime/2)
	defer cancel()
	if u.server.Shutdown(ctx) != nil {
		_ = u.server.Close()
	}
	u.wg.Wait()
}
