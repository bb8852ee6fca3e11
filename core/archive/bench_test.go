package archive_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive"
	"github.com/weir-gateway/weir/core/archive/file"
	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/journal"
	"github.com/weir-gateway/weir/core/ledger"
)

// rows is what an answer looks like: 8 KiB that zstd makes a third of.
func rows(seed int) []byte {
	var b strings.Builder
	for i := 0; b.Len() < 8<<10; i++ {
		fmt.Fprintf(&b, "%d|customer %d|c%d@example.com|%d.%02d|2026-11-%02d 10:%02d:%02d\n", seed*1000+i, i*7919%10007, (seed+i)*104729%1000003, i*31%977, i%100, i%28+1, i%60, seed%60)
	}
	return []byte(b.String())
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for another who only
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkArchive measures records on their whole way: log, blocks, JetStream, a store in files, index and ledger, of 8
// sessions with the promise bounded.
func BenchmarkArchive(b *testing.B) {
	dir := b.TempDir()
	ctx := context.Background()
	store, err := file.Open(filepath.Join(dir, "archive"), file.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	x, err := index.Open(filepath.Join(dir, "index.db"), false)
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	l, err := ledger.Open(filepath.Join(dir, "ledger"), filepath.Join(dir, "keys"))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	log := slog.New(slog.DiscardHandler)
	j, err := journal.Open(ctx, journal.Config{Dir: dir, Gateway: "bench", Boot: "b", Log: log, Archive: store})
	if err != nil {
		b.Fatal(err)
	}
	w, err := archive.Start(ctx, j.JetStream(), archive.Config{Stores: []archive.Named{{Name: "file", Store: store}}, Index: x, Ledger: l, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	wire := make([][]byte, 64)
	for i := range wire {
		wire[i] = rows(i)
	}
	b.SetBytes(int64(len(wire[0])))
	began := cpu()
	b.ResetTimer()
	var wg sync.WaitGroup
	const sessions = 8
	for g := range sessions {
		wg.Go(func() {
			r, err := j.Open(&core.Session{ID: core.NewID(time.Now()), Target: &core.Target{Promise: core.PromiseBounded}})
			if err != nil {
				b.Error(err)
				return
			}
			rec := core.Record{Kind: core.KindRows, Direction: core.FromUpstream, Facts: []byte(`{"rows":120}`)}
			for i := g; i < b.N; i += sessions {
				rec.Time, rec.Wire = time.Now(), wire[i%len(wire)]
				m, err := r.Record(ctx, &rec)
				if err == nil {
					err = r.Settle(ctx, m)
				}
				if err != nil {
					b.Error(err)
					return
				}
				rec.Seq++
			}
			if err := r.Seal(core.EndClosed); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	if err := j.Flush(ctx); err != nil {
		b.Error(err)
	}
	if err := w.Close(ctx); err != nil {
		b.Error(err)
	}
	b.StopTimer()
	b.ReportMetric((cpu()-began).Seconds()/b.Elapsed().Seconds(), "cores")
	if err := j.Close(ctx); err != nil {
		b.Error(err)
	}
}

// BenchmarkVerify measures a whole verification, on one core, over an archive of sessions of 1 MiB.
func BenchmarkVerify(b *testing.B) {
	dir := b.TempDir()
	ctx := context.Background()
	store, err := file.Open(filepath.Join(dir, "archive"), file.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	l, err := ledger.Open(filepath.Join(dir, "ledger"), filepath.Join(dir, "keys"))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	enc := ledger.NewEncoder()
	var leaves []ledger.Leaf
	records, stored := int64(0), int64(0)
	for s := range 64 {
		id := core.NewID(time.Now())
		var prev [32]byte
		var blocks []core.Block
		seq := uint64(0)
		for n := range uint64(8) {
			h := core.BlockHeader{Session: id, Number: n, FirstSeq: seq, Prev: prev, Seal: n == 7}
			var payload []byte
			for range 16 {
				r := core.Record{Seq: seq, Time: time.Now(), Kind: core.KindRows, Direction: core.FromUpstream, Facts: []byte(`{"rows":120}`), Wire: rows(int(seq) + s)}
				e := ledger.AppendRecord(nil, &r, 0, nil)
				records += int64(len(e))
				payload = ledger.AppendPiece(payload, e, false)
				seq++
			}
			h.LastSeq = seq - 1
			if h.Seal {
				payload = ledger.AppendSeal(payload, ledger.Seal{End: core.EndClosed, Records: seq, Blocks: 8, Root: prev, Time: time.Now()})
			}
			k, err := enc.Encode(h, 0, payload)
			if err != nil {
				b.Fatal(err)
			}
			prev = k.Hash
			stored += int64(len(k.Bytes))
			blocks = append(blocks, k)
		}
		if err := store.Put(ctx, blocks); err != nil {
			b.Fatal(err)
		}
		leaves = append(leaves, ledger.LeafOf(blocks[7], core.EndClosed, time.Now()))
	}
	if err := l.AppendAll(leaves); err != nil {
		b.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	b.SetBytes(records)
	b.ResetTimer()
	for range b.N {
		r, err := ledger.Verify(ctx, ledger.VerifyConfig{Store: store, LedgerDir: filepath.Join(dir, "ledger"), PublicKey: l.PublicKey()})
		if err != nil || !r.OK() || r.Sessions != 64 {
			b.Fatalf("%+v, %v", r, err)
		}
	}
	b.ReportMetric(float64(stored)*float64(b.N)/1e6/b.Elapsed().Seconds(), "stored-MB/s")
}
