package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/file"
	"github.com/weir-gateway/weir/core/ledger"
	"github.com/weir-gateway/weir/core/opa"
	"github.com/weir-gateway/weir/core/replay"
)

// reload measures how long an evaluation is held up, at most, while a large document is loaded beside it.
func reload(ctx context.Context, megabytes int) ([]line, error) {
	dir, err := os.MkdirTemp("", "weir-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var b strings.Builder
	b.WriteString(`{"large":{`)
	for i := 0; b.Len() < megabytes<<20; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"entry-%08d":{"team":"team-%d","open":["read","write"],"personal":["email","phone"],"note":"%032x","rows":%d}`, i, i%50, i, i)
	}
	b.WriteString("}}")
	const rego = `package weir.guardrails
deny contains {"rule": "of-others"} if {
	some r in input.event.command.resources
	data.large[r.name].team != "team-1"
}`
	for name, text := range map[string]string{"p.rego": rego, "data.json": b.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	b.Reset()
	load := func() (*opa.Policy, error) {
		return opa.Load(ctx, opa.Config{Name: "large", Path: dir, MaxBytes: int64(megabytes+1) << 20, CacheEntries: -1})
	}
	before := kept()
	first, err := load()
	if err != nil {
		return nil, err
	}
	keeps := kept() - before
	var now atomic.Pointer[opa.Policy]
	now.Store(first)
	s := session()
	e := statement(s, "select", core.EffectRead, true, "", 1)
	e.Exchange.Command.Resources[0].Name = "entry-00000002"
	watch := func(d func() bool) (worst, p999 float64, err error) {
		var all []float64
		for d() {
			start := time.Now()
			if _, err := now.Load().Inspect(ctx, e); err != nil {
				return 0, 0, err
			}
			all = append(all, float64(time.Since(start).Nanoseconds())/1e6)
			time.Sleep(100 * time.Microsecond) // as between statements
		}
		slices.Sort(all)
		return all[len(all)-1], all[len(all)*999/1000], nil
	}
	end := time.Now().Add(3 * time.Second)
	calm, _, err := watch(func() bool { return time.Now().Before(end) })
	if err != nil {
		return nil, err
	}
	var took time.Duration
	var failed error
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		defer done.Store(true)
		for range 3 {
			start := time.Now()
			next, err := load()
			if err != nil {
				failed = err
				return
			}
			took = max(took, time.Since(start))
			now.Store(next)
		}
	})
	worst, p999, err := watch(func() bool { return !done.Load() })
	wg.Wait()
	if failed != nil {
		err = failed
	}
	return []line{
		{what: fmt.Sprintf("a %d MB document is reloaded 3 times: the longest question beside it", megabytes), unit: "ms", median: worst, least: worst, target: 50, note: fmt.Sprintf("(99.9 %%: %s ms; without a reload the longest is %s ms)", number(p999), number(calm))},
		{what: "memory that it keeps; a reload needs it twice, and room to work", unit: "MB", median: keeps, least: keeps},
		{what: "the longest of these reloads", unit: "s", median: took.Seconds(), least: took.Seconds()},
	}, err
}

// kept is the memory in use, in MB.
func kept() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// backtest measures how fast recorded commands are judged again, from an archive of files.
func backtest(ctx context.Context, rounds, commands int) ([]line, error) {
	dir, err := os.MkdirTemp("", "weir-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	store, err := file.Open(dir, file.Options{})
	if err != nil {
		return nil, err
	}
	defer store.Close()
	var ids []string
	const each = 1000
	for n := 0; n < commands; n += each {
		id := core.NewID(time.Unix(1e9+int64(n), 0))
		if err := record(ctx, store, id, each); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	policy := files("p.rego", realistic, "data.json", load1000())
	var lines []line
	for _, how := range []struct {
		what    string
		entries int
		target  float64
	}{{"backtest", 0, 20_000}, {"backtest of a policy whose verdicts cannot be kept", -1, 0}} {
		var all []float64
		for range rounds {
			p, err := opa.Load(ctx, opa.Config{Name: "candidate", FS: policy, CacheEntries: how.entries})
			if err != nil {
				return nil, err
			}
			b := opa.NewBacktest(p)
			start := processed()
			if err := rejudge(ctx, store, b, ids); err != nil {
				return nil, err
			}
			count, _ := b.Result()
			if count.Commands != int64(len(ids)*each) {
				return nil, fmt.Errorf("%d commands were judged, not %d", count.Commands, len(ids)*each)
			}
			all = append(all, float64(count.Commands)*float64(runtime.NumCPU())/(processed()-start).Seconds())
		}
		slices.Sort(all)
		lines = append(lines, line{what: fmt.Sprintf("%s, commands a second on %d cores, with their answers", how.what, runtime.NumCPU()), median: all[len(all)/2], least: all[len(all)-1], target: how.target, most: true})
	}
	return lines, nil
}

func rejudge(ctx context.Context, store *file.Store, b *opa.Backtest, ids []string) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make(chan error, runtime.GOMAXPROCS(0))
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(ids) {
					return
				}
				if err := one(ctx, store, b, ids[i]); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func one(ctx context.Context, store *file.Store, b *opa.Backtest, id string) error {
	s := b.Session()
	defer s.Close()
	var r replay.Rerun
	for rec, err := range replay.Records(ctx, store, id) {
		if err != nil {
			return err
		}
		e, past, err := r.Event(rec)
		if err != nil {
			return err
		}
		if e != nil {
			s.Event(ctx, e, past.Denied, past.Decisions)
		}
	}
	return nil
}

// record puts a session of n commands into the store, each with the columns, rows and result of an answer.
func record(ctx context.Context, store *file.Store, id string, n int) error {
	k := &keeper{store: store, id: id, encoder: ledger.NewEncoder()}
	s := session()
	s.ID, s.Target.Record = id, core.LevelFull
	s.Begin(core.SessionConfig{Recorder: k})
	at := time.Unix(1e9, 0)
	pass := func(e *core.Event) {
		at = at.Add(time.Millisecond)
		e.Time = at
		s.Check(ctx, e)
	}
	pass(&core.Event{Kind: core.KindOpen, Direction: core.FromClient})
	for i := range n {
		e := mixed(s, i)
		x := e.Exchange
		x.Columns = []core.Column{{Name: "id", Type: "int4"}, {Name: "email", Type: "text", Origin: &core.Origin{Table: "shop.t001", Column: "email"}}}
		pass(e)
		pass(&core.Event{Kind: core.KindColumns, Direction: core.FromUpstream, Exchange: x, Columns: x.Columns, Wire: make([]byte, 60)})
		pass(&core.Event{Kind: core.KindRows, Direction: core.FromUpstream, Exchange: x, Rows: &core.Batch{Rows: 3}, Wire: make([]byte, 200)})
		pass(&core.Event{Kind: core.KindResult, Direction: core.FromUpstream, Exchange: x, Result: &core.Result{Status: "ok", Tag: "SELECT 3"}, Wire: make([]byte, 14)})
	}
	if err := s.Close(core.EndClosed, ""); err != nil {
		return err
	}
	return k.err
}

// keeper is a recorder that writes blocks as the journal does.
type keeper struct {
	store   *file.Store
	id      string
	encoder *ledger.Encoder
	payload []byte
	header  core.BlockHeader
	next    uint64
	err     error
}

// Record implements core.Recorder.
func (k *keeper) Record(ctx context.Context, r *core.Record) (core.Mark, error) {
	k.payload = ledger.AppendPiece(k.payload, ledger.AppendRecord(nil, r, 0, nil), false)
	k.next = r.Seq + 1
	if len(k.payload) > 256<<10 {
		return 0, k.put(ctx)
	}
	return 0, nil
}

func (k *keeper) put(ctx context.Context) error {
	k.header.Session, k.header.LastSeq = k.id, k.next-1
	b, err := k.encoder.Encode(k.header, 0, k.payload)
	if err == nil {
		err = k.store.Put(ctx, []core.Block{b})
	}
	k.header.Number, k.header.Prev, k.header.FirstSeq = k.header.Number+1, b.Hash, k.next
	k.payload = k.payload[:0]
	if k.err == nil {
		k.err = err
	}
	return err
}

// Settle implements core.Recorder.
func (k *keeper) Settle(context.Context, core.Mark) error { return k.err }

// Settled implements core.Recorder.
func (k *keeper) Settled(core.Mark, func()) bool { return true }

// Seal implements core.Recorder.
func (k *keeper) Seal(end core.End) error {
	k.payload = ledger.AppendSeal(k.payload, ledger.Seal{End: end, Records: k.next, Blocks: k.header.Number + 1, Root: k.header.Prev, Time: time.Unix(2e9, 0)})
	k.header.Seal = true
	return k.put(context.Background())
}
