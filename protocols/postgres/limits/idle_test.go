//go:build linux

package limits

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestIdleSessions: what a session costs that does nothing: from the start, and after it has asked something. It is the
// first of the tests, in a process that has no memory left over from others.
func TestIdleSessions(t *testing.T) {
	first := connect(t, "many")
	if err := ask(first, "select 1"); err != nil {
		t.Fatal(err)
	}
	before, err := gateway.Steady(20 * time.Second)
	if err != nil {
		t.Log(err)
	}
	conns := make([]*pgconn.PgConn, *sessions)
	each := func(do func(i int) error) int64 {
		t.Helper()
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := w; i < len(conns); i += 8 {
					if err := do(i); err != nil {
						t.Errorf("session %d: %v", i, err)
						return
					}
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
		after, err := gateway.Steady(20 * time.Second)
		if err != nil {
			t.Log(err)
		}
		return (after - before) / int64(len(conns))
	}
	idle := each(func(i int) (err error) {
		conns[i], err = pgconn.Connect(context.Background(), address(listen["many"], "many", token))
		return err
	})
	used := each(func(i int) error { return ask(conns[i], "select 1") })
	t.Logf("%d idle sessions take %d KiB each, and %d KiB when each has asked something", len(conns), idle>>10, used>>10)
	if idle > 96<<10 || used > 160<<10 { // of few sessions, a good part is garbage that is not collected yet
		t.Errorf("an idle session takes %d KiB, and later %d KiB", idle>>10, used>>10)
	}
	begin := time.Now()
	for range 20 {
		alive(t, first)
	}
	if took := time.Since(begin) / 20; took > 500*time.Millisecond {
		t.Errorf("a statement among them takes %v", took)
	}
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() { _ = c.Close(context.Background()) })
	}
	wg.Wait()
}
