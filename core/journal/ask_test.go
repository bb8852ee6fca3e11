package journal

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// holds is an archive that has one block.
type holds struct {
	core.Store
	block  core.Block
	broken atomic.Bool
}

func (h *holds) Last(_ context.Context, id string) (core.Block, error) {
	switch {
	case h.broken.Load():
		return core.Block{}, errors.New("the disk is gone")
	case id != h.block.Header.Session:
		return core.Block{}, core.ErrNoSession
	}
	return h.block, nil
}

// TestAsk: a gateway without an archive took a crash. The streams have been purged of what the archive has, so only the
// archive's worker knows how far the sessions got. Until it answers, nothing of them is published, and what is
// recorded meanwhile waits in the log; then they go on where the archive ends.
func TestAsk(t *testing.T) {
	t.Parallel()
	s := natsServer(t, t.TempDir(), -1)
	defer stopServer(s)
	c := small(t.TempDir())
	c.NATS.URL, c.AskArchive = s.ClientURL(), true
	j := mustOpen(t, c)
	stall(j)
	known, unknown := core.NewID(time.Now()), core.NewID(time.Now())
	for _, id := range []string{known, unknown} {
		r := mustRecorder(t, j, id)
		for n := range 10 {
			if err := settled(t, r, uint64(n), fmt.Sprint("record ", n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := j.release(); err != nil { // as a kill would
		t.Fatal(err)
	}
	var raw []byte
	var prior ledger.Prior
	for n := range 3 {
		raw = ledger.AppendPiece(raw, ledger.AppendRecord(nil, record(uint64(n), fmt.Sprint("record ", n)), 0, &prior), false)
	}
	stored, err := ledger.NewEncoder().Encode(core.BlockHeader{Session: known, LastSeq: 2}, 0, raw)
	if err != nil {
		t.Fatal(err)
	}

	j = mustOpen(t, c)
	later := mustRecorder(t, j, core.NewID(time.Now()))
	if err := settled(t, later, 0, "it records meanwhile"); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := j.Flush(short); err == nil {
		t.Fatal("sessions are published although nobody said how far the archive has them")
	}
	conn, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answering, stop := context.WithCancel(context.Background())
	defer stop()
	archive := &holds{block: stored}
	archive.broken.Store(true)
	if err := AnswerLast(answering, conn, archive, c.Log); err != nil {
		t.Fatal(err)
	}
	short, cancel = context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := j.Flush(short); err == nil {
		t.Fatal("an archive that cannot be read counts as one that has nothing")
	}
	archive.broken.Store(false)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := j.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	blocks := append([]core.Block{stored}, blocksIn(t, j.JetStream(), c.Shards, known)...)
	for name, got := range map[string][]core.Block{"known": blocks, "unknown": blocksIn(t, j.JetStream(), c.Shards, unknown)} {
		records, seal := read(t, got) // which demands that they follow each other
		if len(records) != 10 || seal == nil || seal.End != core.EndCrash {
			t.Errorf("%s: %d records, seal %+v", name, len(records), seal)
		}
	}
	mustClose(t, j)
}

// slow is an archive far away that has nothing.
type slow struct{ core.Store }

func (slow) Last(context.Context, string) (core.Block, error) {
	time.Sleep(20 * time.Millisecond)
	return core.Block{}, core.ErrNoSession
}

// TestManyLeftOpen: a crash leaves many sessions open; looking them up one by one would take longer than the 30 s within which
// each has its seal.
func TestManyLeftOpen(t *testing.T) {
	t.Parallel()
	c := small(t.TempDir())
	j := mustOpen(t, c)
	stall(j)
	var ids []string
	for i := range 400 {
		id := fmt.Sprintf("%s-%d", core.NewID(time.Now()), i)
		r := mustRecorder(t, j, id)
		if _, err := r.Record(context.Background(), record(0, "left")); err != nil {
			t.Fatal(err)
		}
		if i == 399 {
			if err := settled(t, r, 1, "all of them are in the log"); err != nil {
				t.Fatal(err)
			}
		}
		ids = append(ids, id)
	}
	if err := j.release(); err != nil { // as a kill would
		t.Fatal(err)
	}
	c.Archive = slow{}
	begin := time.Now()
	j = mustOpen(t, c)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := j.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 4*time.Second { // one by one: 8 s
		t.Errorf("%d sessions took %v", len(ids), took)
	}
	for _, i := range []int{0, 200, 399} {
		got, seal := read(t, blocksIn(t, j.JetStream(), c.Shards, ids[i]))
		if len(got) == 0 || seal == nil || seal.End != core.EndCrash {
			t.Errorf("session %d: %d records, seal %+v", i, len(got), seal)
		}
	}
	mustClose(t, j)
}
