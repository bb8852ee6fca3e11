package journal

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// TestRecordBeyondTheBudget: a record that is longer than what the packer may hold reaches JetStream, and so does what
// comes behind it; two of them at a time do.
func TestRecordBeyondTheBudget(t *testing.T) {
	c := small(t.TempDir())
	c.MaxPending, c.SegmentSize, c.MaxWAL = 4<<20, 4<<20, 96<<20
	j := mustOpen(t, c)
	defer mustClose(t, j)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	giant := string(bytes.Repeat([]byte("0123456789abcdef"), 12<<16)) // 12 MiB
	ids := []string{core.NewID(time.Now()), core.NewID(time.Now())}
	done := make(chan error, len(ids))
	for _, id := range ids {
		go func() {
			r, err := j.Open(&core.Session{ID: id, Target: &core.Target{Promise: core.PromiseStrict}})
			for i, w := range []string{"before", giant, "behind"} {
				if err == nil {
					var m core.Mark
					if m, err = r.Record(ctx, record(uint64(i), w)); err == nil {
						err = r.Settle(ctx, m)
					}
				}
			}
			if err == nil {
				err = r.Seal(core.EndClosed)
			}
			done <- err
		}()
	}
	for range ids {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		got, seal := read(t, blocksIn(t, j.JetStream(), c.Shards, id))
		if len(got) != 3 || string(got[1].Wire) != giant || string(got[2].Wire) != "behind" || seal == nil {
			t.Fatalf("%d records, seal %+v", len(got), seal)
		}
	}
}
