package journal

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// BenchmarkRecordSettleStrict measures durable commits with n sessions that each wait for their own record.
func BenchmarkRecordSettleStrict(b *testing.B) {
	for _, n := range []int{1, 8, 32, 128} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			j := mustOpen(b, Config{Dir: b.TempDir(), Log: slog.New(slog.DiscardHandler)})
			defer mustClose(b, j)
			wire := make([]byte, 120)
			took := make([][]time.Duration, n)
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for g := range n {
				wg.Go(func() {
					r, err := j.recorder(fmt.Sprintf("bench%d-%d", n, g), core.PromiseStrict)
					if err != nil {
						b.Error(err)
						return
					}
					rec := record(0, "")
					rec.Wire = wire
					took[g] = make([]time.Duration, 0, b.N/n+1)
					for i := g; i < b.N; i += n {
						start := time.Now()
						rec.Time = start
						m, err := r.Record(context.Background(), rec)
						if err == nil {
							err = r.Settle(context.Background(), m)
						}
						if err != nil {
							b.Error(err)
							return
						}
						rec.Seq++
						took[g] = append(took[g], time.Since(start))
					}
					_ = r.Seal(core.EndClosed)
				})
			}
			wg.Wait()
			b.StopTimer()
			all := slices.Concat(took...)
			slices.Sort(all)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// BenchmarkRecordBulk measures how fast one bounded session's 64 KiB records get to JetStream.
func BenchmarkRecordBulk(b *testing.B) {
	j := mustOpen(b, Config{Dir: b.TempDir(), Log: slog.New(slog.DiscardHandler)})
	defer mustClose(b, j)
	r, err := j.recorder("bulk", core.PromiseBounded)
	if err != nil {
		b.Fatal(err)
	}
	rec := record(0, noise(64<<10, 1))
	b.SetBytes(int64(len(rec.Wire)))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		m, err := r.Record(context.Background(), rec)
		if err == nil {
			err = r.Settle(context.Background(), m)
		}
		if err != nil {
			b.Fatal(err)
		}
		rec.Seq++
	}
	if err := j.Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
}
