package journal

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

func TestLateBlockCluster(t *testing.T) {
	for _, tt := range []struct {
		name string
		has  int // records in the late block
	}{{"some", 3}, {"all", 10}} {
		t.Run(tt.name, func(t *testing.T) {
			cl := startCluster(t)
			c := small(t.TempDir())
			c.NATS = NATS{URL: cl.url(), Replicas: 3}
			j := mustOpen(t, c)
			stall(j)
			id := core.NewID(time.Now())
			r := mustRecorder(t, j, id)
			recs := make([]*core.Record, 10)
			for n := range recs {
				if err := settled(t, r, uint64(n), fmt.Sprint("record ", n)); err != nil {
					t.Fatal(err)
				}
			}
			if err := j.release(); err != nil { // as a kill would
				t.Fatal(err)
			}

			var raw []byte
			var prior ledger.Prior
			for n := range tt.has {
				raw = ledger.AppendPiece(raw, ledger.AppendRecord(nil, record(uint64(n), fmt.Sprint("record ", n)), 0, &prior), false)
			}
			b, err := ledger.NewEncoder().Encode(core.BlockHeader{Session: id, LastSeq: uint64(tt.has) - 1}, 0, raw)
			if err != nil {
				t.Fatal(err)
			}
			var once sync.Once
			c.Archive = late{arrive: func() {
				once.Do(func() {
					conn, js, err := dial(c)
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					if _, err := js.Publish(context.Background(), Subject(j.shard(id), id), b.Bytes, jetstream.WithMsgID(id+".0")); err != nil {
						t.Error(err)
					}
				})
			}}
			j = mustOpen(t, c)
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			if err := j.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			got, seal := read(t, blocksIn(t, j.JetStream(), c.Shards, id))
			if len(got) != len(recs) || seal == nil || seal.End != core.EndCrash {
				t.Fatalf("%d records of %d, seal %+v", len(got), len(recs), seal)
			}
			for n, g := range got {
				if g.Seq != uint64(n) || string(g.Wire) != fmt.Sprint("record ", n) {
					t.Fatalf("record %d: seq %d, %q", n, g.Seq, g.Wire)
				}
			}
			mustClose(t, j)
		})
	}
}
