package revocation

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// follow keeps what is known up to date.
func (l *List) follow(ctx context.Context) {
	look, sweep := time.NewTicker(l.c.every), time.NewTicker(sweepEvery)
	defer look.Stop()
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			l.refresh(ctx)
		case <-sweep.C:
			l.sweep(ctx)
		}
	}
}

// refresh brings what is known up to date, and reports whether it is.
func (l *List) refresh(ctx context.Context) bool {
	l.loading.Lock()
	defer l.loading.Unlock()
	began := l.c.Now()
	next, err := l.read(ctx)
	if err != nil {
		l.kv = nil
		if !l.down && ctx.Err() == nil {
			l.down = true
			l.c.Log.Warn("revocation: the bucket cannot be read: what was known last counts until it is too old", "bucket", Bucket, "max_age", l.c.MaxAge, "error", err)
		}
		return false
	}
	if l.down {
		l.down = false
		l.c.Log.Info("revocation: the bucket can be read again", "bucket", Bucket)
	}
	l.fresh.Store(began.UnixNano())
	if next != l.now.Load() {
		l.now.Store(next)
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}
	return true
}

// read returns the present state: the one that is known, unless the bucket's sequence has moved.
func (l *List) read(ctx context.Context) (*state, error) {
	call, cancel := context.WithTimeout(ctx, l.c.call)
	defer cancel()
	if l.kv == nil {
		kv, err := l.c.JetStream.CreateOrUpdateKeyValue(call, jetstream.KeyValueConfig{
			Bucket: Bucket, Description: "Weir: tokens and subjects that are good no longer", History: 1,
			MaxBytes: maxBucket, MaxValueSize: 16 << 10, Storage: jetstream.FileStorage, Replicas: l.c.Replicas,
		})
		if err != nil {
			return nil, err
		}
		l.kv = kv
	}
	known := l.now.Load()
	sequence, err := l.sequence(call)
	if err != nil {
		return nil, err
	}
	if known.entries != nil && sequence == known.sequence {
		return known, nil
	}
	if known.entries != nil && sequence < known.sequence {
		l.c.Log.Error("revocation: the bucket was made anew: what is known here is put back", "bucket", Bucket, "entries", len(known.entries))
		for w, e := range known.entries {
			b, err := json.Marshal(e.Revocation)
			if err == nil {
				_, err = l.kv.Create(call, w.key(), b)
			}
			if err != nil && !errors.Is(err, jetstream.ErrKeyExists) {
				return nil, err
			}
		}
		if sequence, err = l.sequence(call); err != nil {
			return nil, err
		}
	}
	return l.load(ctx, sequence)
}

// sequence is the number of the bucket's last change. The leader is asked, which knows.
func (l *List) sequence(ctx context.Context) (uint64, error) {
	s, err := l.kv.Status(ctx)
	if err != nil {
		return 0, err
	}
	b, ok := s.(*jetstream.KeyValueBucketStatus)
	if !ok {
		return 0, errors.New("the bucket has no sequence")
	}
	return b.StreamInfo().State.LastSeq, nil
}

// load reads the whole bucket. It is small, and changes seldom.
func (l *List) load(ctx context.Context, sequence uint64) (*state, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTime)
	defer cancel()
	w, err := l.kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.Stop() }()
	s := &state{sequence: sequence, entries: map[what]entry{}}
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case e, ok := <-w.Updates():
			if !ok {
				return nil, errors.New("the bucket's messages have ended")
			}
			if e == nil { // that was all
				return s, nil
			}
			var x entry
			if err := json.Unmarshal(e.Value(), &x.Revocation); err != nil || of(&x.Revocation).key() != e.Key() {
				l.c.Log.Error("revocation: an entry cannot be read", "key", e.Key())
				return nil, errors.New("an entry cannot be read: " + e.Key())
			}
			x.revision = e.Revision()
			s.entries[of(&x.Revocation)] = x
		}
	}
}

// sweep removes what is about tokens that are over anyway. Another gateway may do so at the same time.
func (l *List) sweep(ctx context.Context) {
	now := l.c.Now()
	for w, e := range l.now.Load().entries {
		if e.Until.IsZero() || now.Before(e.Until.Add(keptAfter)) {
			continue
		}
		l.loading.Lock()
		if l.kv != nil {
			call, cancel := context.WithTimeout(ctx, l.c.call)
			_ = l.kv.Purge(call, w.key(), jetstream.LastRevision(e.revision)) // the next sweep tries again
			cancel()
		}
		l.loading.Unlock()
	}
}
