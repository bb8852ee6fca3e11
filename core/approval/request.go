package approval

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core"
)

// Ask implements core.Approvals.
func (q *Queue) Ask(ctx context.Context, a core.Approval) (core.Approval, error) {
	kv, err := q.open(ctx)
	if err != nil {
		q.metrics.count("error")
		return a, err
	}
	a.ID = newID()
	if a.Mode == core.HoldWait { // each parked command has a request of its own
		return q.make(ctx, kv, keyParkedPrefix+a.ID, a, 0)
	}
	key := keySharedPrefix + a.Digest
	for range attempts {
		there, revision, err := q.read(ctx, kv, key)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
			revision = 0
		case err != nil:
			return a, q.lost(err)
		default:
			switch there.StateAt(q.c.Now()) {
			case core.ApprovalWaiting, core.ApprovalApproved, core.ApprovalDenied:
				if there.Digest == a.Digest {
					return there, nil
				}
			}
		}
		made, err := q.make(ctx, kv, key, a, revision)
		if !conflict(err) {
			return made, err
		}
	}
	return a, q.lost(errors.New("too many change the request at a time"))
}

// make puts a new request into the bucket, in the place of what has the revision.
func (q *Queue) make(ctx context.Context, kv jetstream.KeyValue, key string, a core.Approval, revision uint64) (core.Approval, error) {
	who := a.Issuer + "\x00" + a.Identity
	if err := q.room(who); err != nil {
		q.metrics.count("refused")
		q.log.Warn("approval: not asked for", "identity", a.Identity, "target", a.Target, "rule", a.Rule(), "error", err)
		return a, err
	}
	defer func() {
		q.mu.Lock()
		if q.making[who]--; q.making[who] <= 0 {
			delete(q.making, who)
		}
		q.mu.Unlock()
	}()
	revision, err := q.write(ctx, kv, key, &a, revision)
	if err != nil {
		if !conflict(err) {
			err = q.lost(err)
		}
		return a, err
	}
	q.know(key, a, revision)
	q.metrics.count("asked")
	q.log.Info("approval: asked for", "approval", a.ID, "identity", a.Identity, "target", a.Target, "rule", a.Rule(), "session", a.Session)
	return a, nil
}

// room reserves a place in the queue for an identity.
func (q *Queue) room(who string) error {
	now := q.c.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	open, own := 0, q.making[who]
	for _, n := range q.making {
		open += n
	}
	for _, e := range q.all {
		switch e.StateAt(now) {
		case core.ApprovalWaiting, core.ApprovalApproved:
			open++
			if e.Issuer+"\x00"+e.Identity == who {
				own++
			}
		}
	}
	switch {
	case own >= maxPerIdentity:
		return errTooMany
	case open >= maxOpen:
		return errFull
	}
	q.making[who]++
	return nil
}

// read reads a request as it is now.
func (q *Queue) read(ctx context.Context, kv jetstream.KeyValue, key string) (core.Approval, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	e, err := kv.Get(ctx, key)
	if err != nil {
		return core.Approval{}, 0, err
	}
	a, err := decode(e.Value())
	return a, e.Revision(), err
}

// write writes a request over the revision given; 0: there is none.
func (q *Queue) write(ctx context.Context, kv jetstream.KeyValue, key string, a *core.Approval, revision uint64) (uint64, error) {
	b, err := encode(a)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if revision == 0 {
		return kv.Create(ctx, key, b)
	}
	return kv.Update(ctx, key, b, revision)
}

func conflict(err error) bool {
	return errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch)
}

// lost logs what went wrong with the bucket; whoever asked is told only that it did.
func (q *Queue) lost(err error) error {
	q.metrics.count("error")
	q.log.Warn("approval: the bucket does not answer as it should", "bucket", Bucket, "error", err)
	return errUnreachable
}

// change changes a request by f, over and over while others change it. The change is made once, or there is an error.
func (q *Queue) change(ctx context.Context, id string, f func(a *core.Approval) error) (core.Approval, error) {
	kv, err := q.open(ctx)
	if err != nil {
		return core.Approval{}, err
	}
	q.mu.Lock()
	key, ok := q.keys[id]
	q.mu.Unlock()
	if !ok {
		return core.Approval{}, core.ErrNoApproval
	}
	for range attempts {
		a, revision, err := q.read(ctx, kv, key)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
			return a, core.ErrNoApproval
		case err != nil:
			return a, q.lost(err)
		}
		q.mu.Lock() // a replica may be behind what was told already
		if e, ok := q.all[key]; ok && e.revision > revision {
			b, _ := encode(&e.Approval)
			if newer, err := decode(b); err == nil { // its own copy: f changes it
				a, revision = newer, e.revision
			}
		}
		q.mu.Unlock()
		if a.ID != id {
			return a, core.ErrNoApproval
		}
		if err := f(&a); err != nil {
			return a, err
		}
		revision, err = q.write(ctx, kv, key, &a, revision)
		switch {
		case err == nil:
			q.know(key, a, revision)
			return a, nil
		case !conflict(err):
			return a, q.lost(err)
		}
	}
	return core.Approval{}, q.lost(errors.New("too many change the request at a time"))
}

// Use implements core.Approvals.
func (q *Queue) Use(ctx context.Context, id, digest string) (core.Approval, error) {
	a, err := q.change(ctx, id, func(a *core.Approval) error {
		now := q.c.Now().UTC()
		if a.StateAt(now) != core.ApprovalApproved || a.Digest != digest || digest == "" {
			return core.ErrNoApproval
		}
		for i := range a.Holds { // all of them, whatever the state says
			if a.Holds[i].Approved == nil {
				return core.ErrNoApproval
			}
		}
		a.State, a.Used = core.ApprovalUsed, &now
		if len(a.Text) > keptTextOfUsed { // it is in the session's record
			a.Text, a.Cut = a.Text[:keptTextOfUsed]+" …", true
		}
		a.Params = nil
		return nil
	})
	if err != nil {
		return a, err
	}
	q.metrics.count("used")
	q.log.Info("approval: used", "approval", id, "identity", a.Identity, "target", a.Target, "rule", a.Rule(), "session", a.Session)
	return a, nil
}

// Withdraw implements core.Approvals.
func (q *Queue) Withdraw(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	kv, err := q.open(ctx)
	if err != nil {
		return // it expires
	}
	q.mu.Lock()
	key, ok := q.keys[id]
	q.mu.Unlock()
	for range attempts {
		if !ok {
			return
		}
		a, revision, err := q.read(ctx, kv, key)
		if err != nil || a.ID != id || a.State != core.ApprovalWaiting && a.State != core.ApprovalApproved {
			return
		}
		expired := a.StateAt(q.c.Now()) == core.ApprovalExpired
		err = kv.Purge(ctx, key, jetstream.LastRevision(revision))
		switch {
		case err == nil:
			q.mu.Lock()
			if e, ok := q.all[key]; ok && e.ID == id {
				q.forget(key)
			}
			q.mu.Unlock()
			result := "withdrawn"
			if expired {
				result = "expired"
			}
			q.metrics.count(result)
			q.log.Info("approval: "+result, "approval", id, "identity", a.Identity, "target", a.Target, "rule", a.Rule(), "waited", time.Since(a.Created).Round(time.Millisecond))
			return
		case !conflict(err):
			_ = q.lost(err)
			return
		}
	}
}
