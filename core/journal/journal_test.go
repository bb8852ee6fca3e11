package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func small(dir string) Config {
	return Config{
		Dir: dir, Shards: 2, Gateway: "gw", Boot: "boot", SegmentSize: 1 << 20, MaxWAL: 8 << 20,
		BlockAge: 20 * time.Millisecond, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}
}

func mustOpen(t testing.TB, c Config) *Journal {
	t.Helper()
	j, err := Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func mustClose(t testing.TB, j *Journal) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := j.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func record(seq uint64, wire string) *core.Record {
	return &core.Record{
		Seq: seq, Time: time.Now(), Kind: core.KindBytes, Direction: core.FromClient,
		Facts: []byte(`{"bytes":1}`), Wire: []byte(wire), Decisions: []core.Decision{{Step: "s", Action: "mask", Rule: "r"}},
	}
}

// blocksIn returns the blocks that the streams hold of a session, in order.
func blocksIn(t testing.TB, js jetstream.JetStream, shards int, id string) []core.Block {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var out []core.Block
	for i := range shards {
		s, err := js.Stream(ctx, streamName(uint8(i)))
		if err != nil {
			t.Fatal(err)
		}
		st := s.CachedInfo().State
		for seq := max(st.FirstSeq, 1); seq <= st.LastSeq; seq++ {
			m, err := s.GetMsg(ctx, seq)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if m.Subject != Subject(uint8(i), id) {
				continue
			}
			b, err := ledger.DecodeBlock(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, b)
		}
	}
	return out
}

// read verifies the chain of blocks and returns the records and the seal.
func read(t testing.TB, blocks []core.Block) ([]*core.Record, *ledger.Seal) {
	t.Helper()
	var (
		dec  ledger.Decoder
		prev [32]byte
		out  []*core.Record
	)
	for i, b := range blocks {
		h, err := ledger.ParseBlock(b.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if h.Number != uint64(i) || h.Prev != prev {
			t.Fatalf("block %d: number %d, prev %x, want %x", i, h.Number, h.Prev[:4], prev[:4])
		}
		prev = b.Hash
		if err := dec.Decode(&h, func(r *core.Record, _ time.Duration) error { out = append(out, r); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return out, dec.Seal()
}

func TestRecordsArriveChainedAndSealed(t *testing.T) {
	for _, promise := range []core.Promise{core.PromiseStrict, core.PromiseBounded, core.PromiseOff} {
		t.Run(string(promise), func(t *testing.T) {
			c := small(t.TempDir())
			j := mustOpen(t, c)
			defer mustClose(t, j)
			ctx := context.Background()
			id := core.NewID(time.Now())
			r, err := j.Open(&core.Session{ID: id, Target: &core.Target{Promise: promise}})
			if err != nil {
				t.Fatal(err)
			}
			big := string(bytes.Repeat([]byte("0123456789abcdef"), 3<<16)) // 3 MiB: several entries, several blocks
			want := []string{"a", "", big, "b"}
			for i := range 500 {
				want = append(want, fmt.Sprint("record ", i))
			}
			for i, w := range want {
				m, err := r.Record(ctx, record(uint64(i), w))
				if err != nil {
					t.Fatal(err)
				}
				if err := r.Settle(ctx, m); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.Seal(core.EndClosed); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Record(ctx, record(uint64(len(want)), "late")); err == nil {
				t.Fatal("a record after the seal was taken")
			}
			if err := j.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			got, seal := read(t, blocksIn(t, j.JetStream(), c.Shards, id))
			if len(got) != len(want) {
				t.Fatalf("%d records, want %d", len(got), len(want))
			}
			for i, g := range got {
				if g.Seq != uint64(i) || string(g.Wire) != want[i] || string(g.Facts) != `{"bytes":1}` || len(g.Decisions) != 1 {
					t.Fatalf("record %d is not what was recorded: seq %d, %d wire bytes", i, g.Seq, len(g.Wire))
				}
			}
			if seal == nil || seal.End != core.EndClosed || seal.Records != uint64(len(want)) {
				t.Fatalf("seal: %+v", seal)
			}
		})
	}
}

func TestManySessionsAtOnce(t *testing.T) {
	c := small(t.TempDir())
	j := mustOpen(t, c)
	defer mustClose(t, j)
	const sessions, records = 20, 200
	var wg sync.WaitGroup
	for s := range sessions {
		wg.Go(func() {
			r, err := j.recorder(fmt.Sprint("s", s), core.PromiseStrict)
			if err != nil {
				t.Error(err)
				return
			}
			for i := range records {
				m, err := r.Record(context.Background(), record(uint64(i), fmt.Sprint(s, " ", i)))
				if err == nil {
					err = r.Settle(context.Background(), m)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
			r.Seal(core.EndClosed)
		})
	}
	wg.Wait()
	if err := j.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	for s := range sessions {
		got, seal := read(t, blocksIn(t, j.JetStream(), c.Shards, fmt.Sprint("s", s)))
		if len(got) != records || seal == nil {
			t.Fatalf("session %d: %d records, seal %v", s, len(got), seal)
		}
	}
}

// Much more than the log holds goes through it, at full speed: the log is back-pressure, not a reason to fail. A session
// that is idle meanwhile stays known.
func TestSegmentsAreUsedAgain(t *testing.T) {
	for _, promise := range []core.Promise{core.PromiseStrict, core.PromiseBounded, core.PromiseOff} {
		t.Run(string(promise), func(t *testing.T) {
			c := small(t.TempDir())
			c.MaxWAL = 4 << 20
			j := mustOpen(t, c)
			defer mustClose(t, j)
			idle := mustRecorder(t, j, "idle")
			if err := settled(t, idle, 0, "x"); err != nil {
				t.Fatal(err)
			}
			r, err := j.recorder("busy", promise)
			if err != nil {
				t.Fatal(err)
			}
			wire := noise(32<<10, 1)
			for i := range 1500 {
				if err := settled(t, r, uint64(i), wire); err != nil {
					t.Fatal(i, err)
				}
			}
			files, _ := filepath.Glob(filepath.Join(c.Dir, "journal", "*.wal"))
			if len(files) > 6 {
				t.Fatalf("%d segments", len(files))
			}
			r.Seal(core.EndClosed)
			idle.Seal(core.EndClosed)
			if err := j.Flush(context.Background()); err != nil {
				t.Fatal(err)
			}
			for id, n := range map[string]int{"busy": 1500, "idle": 1} {
				got, seal := read(t, blocksIn(t, j.JetStream(), c.Shards, id))
				if len(got) != n || seal == nil || seal.End != core.EndClosed {
					t.Fatalf("%s: %d records, seal %+v", id, len(got), seal)
				}
			}
		})
	}
}

func TestModes(t *testing.T) {
	c := small(t.TempDir())
	j := mustOpen(t, c)
	defer mustClose(t, j)
	err := filepath.Walk(c.Dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && path != c.Dir && info.Mode().Perm()&0o077 != 0 && filepath.Dir(path) == c.Dir {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if j.server.Addr() != nil {
		t.Errorf("the embedded server listens on %v", j.server.Addr())
	}
	if _, err := Open(context.Background(), c); err == nil {
		t.Error("a second process could open the journal")
	}
}

func TestSettleHonoursItsContext(t *testing.T) {
	c := small(t.TempDir())
	slow := &faultyDisk{}
	c.disk = slow
	j := mustOpen(t, c)
	defer mustClose(t, j)
	a, _ := j.recorder("a", core.PromiseStrict)
	b, _ := j.recorder("b", core.PromiseStrict)
	release := slow.hold()
	first := make(chan error, 1)
	go func() {
		m, _ := a.Record(context.Background(), record(0, "x"))
		first <- a.Settle(context.Background(), m)
	}()
	slow.waitHeld()
	m, err := b.Record(context.Background(), record(0, "y"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := b.Settle(ctx, m); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Settle: %v", err)
	}
	release()
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if err := b.Settle(context.Background(), m); err != nil {
		t.Fatal(err)
	}
}

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"no directory":  {},
		"shards":        {Dir: "x", Shards: 101},
		"segment":       {Dir: "x", SegmentSize: 1000},
		"log too small": {Dir: "x", SegmentSize: 1 << 20, MaxWAL: 1 << 20},
	} {
		if _, err := Open(context.Background(), c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
