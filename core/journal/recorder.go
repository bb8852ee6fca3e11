package journal

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// recorder appends one session's records to the log.
type recorder struct {
	j       *Journal
	id      string
	shard   uint8
	epoch   uint64 // of the log when the session began: a loss in between ends the session
	promise core.Promise
	first   time.Time // of the first record, with the monotonic clock
	prior   ledger.Prior
	sealed  atomic.Bool
}

func (j *Journal) recorder(id string, promise core.Promise) (*recorder, error) {
	if !ledger.ValidSession(id) {
		return nil, fmt.Errorf("journal: %q cannot name a session: up to %d letters, digits, - and _", id, ledger.MaxSession)
	}
	switch promise {
	case core.PromiseStrict, core.PromiseBounded, core.PromiseOff:
	default:
		return nil, fmt.Errorf("journal: promise %q is unknown: strict, bounded or off", promise)
	}
	r := &recorder{j: j, id: id, shard: j.shard(id), promise: promise}
	r.epoch = j.wal.epoch.Load()
	if err := j.Lost(); err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil, errors.New("journal: closed")
	}
	j.open[r] = struct{}{}
	return r, nil
}

// Record implements core.Recorder.
func (r *recorder) Record(ctx context.Context, rec *core.Record) (core.Mark, error) {
	if r.sealed.Load() {
		return 0, errors.New("journal: the session is sealed")
	}
	size, err := ledger.RecordSize(rec)
	if err != nil {
		return 0, err
	}
	if r.first.IsZero() {
		r.first = rec.Time
	}
	elapsed := rec.Time.Sub(r.first)
	l := r.j.wal
	recordsTotal.Inc()
	if size > l.piece() {
		mark, err := l.append(ctx, r.epoch, entryRecord, r.shard, r.id, ledger.AppendRecordHead(nil, rec, elapsed, nil), rec.Wire)
		if err == nil {
			r.prior.Wrote(rec) // and not before: what failed is not there for the next to refer to
		}
		return core.Mark(mark), err
	}
	if err := l.admit(ctx, r.epoch); err != nil {
		return 0, err
	}
	p := l.reserve(entryHead + len(r.id) + size)
	start := len(p.b)
	p.b = beginEntry(p.b, l.next, entryRecord, r.shard, r.id)
	p.b = ledger.AppendRecord(p.b, rec, elapsed, &r.prior)
	mark := l.finishEntry(p, start)
	l.mu.Unlock()
	return core.Mark(mark), nil
}

// Settle implements core.Recorder.
func (r *recorder) Settle(ctx context.Context, m core.Mark) error {
	if r.free() {
		return nil
	}
	return r.j.wal.settle(ctx, uint64(m), r.epoch)
}

// Settled implements core.Recorder.
func (r *recorder) Settled(m core.Mark, then func()) bool {
	return r.free() || r.j.wal.settled(uint64(m), r.epoch, then)
}

// free reports whether the promise lets everything pass now.
func (r *recorder) free() bool {
	switch r.promise {
	case core.PromiseOff:
		return true
	case core.PromiseBounded:
		l := r.j.wal
		return l.epoch.Load() == r.epoch && !l.behind(r.j.c.BoundedTime, r.j.c.BoundedBytes)
	default:
		return false
	}
}

// Seal implements core.Recorder. It does not wait: nothing is delivered after it.
func (r *recorder) Seal(end core.End) error {
	if r.sealed.Swap(true) {
		return nil
	}
	r.j.mu.Lock()
	delete(r.j.open, r)
	r.j.mu.Unlock()
	if !ledger.ValidSession(string(end)) || len(end) > 32 {
		end = core.EndError
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := r.j.wal.append(ctx, r.epoch, entrySeal, r.shard, r.id, []byte(end), nil)
	return err
}
