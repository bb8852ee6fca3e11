package journal

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// total returns a counter's value.
func total(t *testing.T, name string) float64 {
	t.Helper()
	all, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// say records a little in many sessions, and hands it over.
func say(t *testing.T, j *Journal, n int) (ids []string) {
	t.Helper()
	release := stall(j) // so that all of it is due at once
	for i := range n {
		id := core.NewID(time.Now())
		ids = append(ids, id)
		r := mustRecorder(t, j, id)
		for k := range 3 {
			if _, err := r.Record(context.Background(), record(uint64(k), fmt.Sprint("session ", i, " record ", k))); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Seal(core.EndClosed); err != nil {
			t.Fatal(err)
		}
	}
	release()
	return ids
}

func whole(t *testing.T, j *Journal, ids []string) {
	t.Helper()
	for _, id := range ids {
		records, seal := read(t, blocksIn(t, j.JetStream(), j.c.Shards, id))
		if len(records) != 3 || seal == nil {
			t.Errorf("session %s: %d records, seal %v", id, len(records), seal)
		}
	}
}

// What many sessions have to say is stored with few acknowledgements, and each block stays a message of its own.
func TestTogether(t *testing.T) {
	j := mustOpen(t, small(t.TempDir()))
	defer mustClose(t, j)
	before, blocks := total(t, "weir_journal_batches_total"), total(t, "weir_journal_blocks_total")
	ids := say(t, j, 200)
	if err := j.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	whole(t, j, ids)
	batches := total(t, "weir_journal_batches_total") - before
	if n := total(t, "weir_journal_blocks_total") - blocks; batches < 1 || batches > n/togetherLeast {
		t.Errorf("%v blocks in %v batches", n, batches)
	}
}

// A stream that takes no batches is given block by block.
func TestWithoutBatches(t *testing.T) {
	c := small(t.TempDir())
	j := mustOpen(t, c)
	defer mustClose(t, j)
	for i := range c.Shards {
		s, err := j.JetStream().Stream(t.Context(), streamName(uint8(i)))
		if err != nil {
			t.Fatal(err)
		}
		config := s.CachedInfo().Config
		config.AllowAtomicPublish = false
		if _, err := j.JetStream().UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
	}
	before := total(t, "weir_journal_batches_total")
	ids := say(t, j, 40)
	if err := j.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	whole(t, j, ids)
	if n := total(t, "weir_journal_batches_total") - before; n != 0 {
		t.Errorf("%v batches", n)
	}
}

// One session that somebody else has written to does not hold up those that would have gone with it.
func TestOneOfABatchIsRefused(t *testing.T) {
	c := small(t.TempDir())
	c.Shards = 1
	j := mustOpen(t, c)
	defer mustClose(t, j)
	errs, forks := total(t, "weir_journal_batch_errors_total"), total(t, "weir_journal_forks_total")
	release := stall(j)
	var ids []string
	for range 20 {
		id := core.NewID(time.Now())
		ids = append(ids, id)
		r := mustRecorder(t, j, id)
		for k := range 3 {
			if _, err := r.Record(context.Background(), record(uint64(k), "x")); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Seal(core.EndClosed); err != nil {
			t.Fatal(err)
		}
	}
	other := foreign(t, ids[7])
	m := nats.NewMsg(Subject(0, ids[7]))
	m.Data = other
	if _, err := j.JetStream().PublishMsg(t.Context(), m, jetstream.WithExpectLastSequencePerSubject(0)); err != nil {
		t.Fatal(err)
	}
	release()
	if err := j.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	whole(t, j, append(ids[:7:7], ids[8:]...))
	if got := blocksIn(t, j.JetStream(), 1, ids[7]); len(got) != 1 {
		t.Errorf("%d blocks of the session that was forked", len(got))
	}
	if total(t, "weir_journal_batch_errors_total") == errs || total(t, "weir_journal_forks_total") == forks {
		t.Error("it went without a word")
	}
}

// foreign is the only block of a session, as another process would have made it.
func foreign(t *testing.T, id string) []byte {
	t.Helper()
	b, err := ledger.NewEncoder().Encode(core.BlockHeader{Session: id, Seal: true, LastSeq: 1<<64 - 1}, 0,
		ledger.AppendSeal(nil, ledger.Seal{End: core.EndClosed, Blocks: 1, Time: time.Unix(1, 0)}))
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes
}
