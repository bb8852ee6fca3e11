package postgres

import (
	"sync"
	"testing"

	"github.com/weir-gateway/weir/core"
)

// TestInTransaction: at each command the recording says what the session said then.
func TestInTransaction(t *testing.T) {
	t.Parallel()
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var live []bool
			g := startGate(t, withChain(guard{deny: func(e *core.Event) *core.Denial {
				if e.Kind == core.KindCommand {
					mu.Lock()
					live = append(live, e.Session.InTransaction())
					mu.Unlock()
				}
				return nil
			}}))
			c := g.connect(mode)
			for _, sql := range []string{"select 1", "begin", "select 2", "select 1/0", "rollback", "select generate_series(1, 5000)", "begin", "commit", "select 3"} {
				rows, err := c.Query(t.Context(), sql)
				if err == nil {
					rows.Close()
				}
			}
			_ = c.Close(t.Context())
			mu.Lock()
			defer mu.Unlock()
			var found []bool
			in, n := false, 0
			for _, r := range g.journal.all() {
				if r.Kind == core.KindCommand {
					found = append(found, in)
					if in {
						n++
					}
				}
				if open, known := protocol.InTransaction(&r); known {
					in = open
				}
			}
			if len(found) != len(live) || n == 0 || n == len(found) {
				t.Fatalf("%v, %v", live, found)
			}
			for i := range found {
				if found[i] != live[i] {
					t.Fatalf("command %d: %v, then %v", i, live, found)
				}
			}
		})
	}
	for _, wire := range []string{"", "Z", "Z\x00\x00\x00\x05", "Z\xff\xff\xff\xffI", "Z\x00\x00\x00\x00I", "D\x00\x00\x00\x10", "Z\x00\x00\x00\x06IT"} {
		if _, known := protocol.InTransaction(&core.Record{Direction: core.FromUpstream, Wire: []byte(wire)}); known {
			t.Errorf("%q says something", wire)
		}
	}
}
