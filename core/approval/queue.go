// Package approval keeps the queue of held commands in a JetStream key-value bucket that all gateways of a cluster share,
// and says who may answer. Each change is made against the revision that was read, so that of two gateways that want to
// use an approval one does.
package approval

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
)

// Bucket is the name of the key-value bucket.
const Bucket = "WEIR_APPROVALS"

// Bounds of the queue.
const (
	maxOpen         = 1000 // requests that wait or are approved, of all gateways
	maxPerIdentity  = 16   // of one identity
	maxBucket       = 128 << 20
	maxValue        = 1 << 20
	keptFor         = 72 * time.Hour // of what no gateway is left to remove
	shownFor        = time.Hour      // of what was used
	sweepEvery      = 30 * time.Second
	callTime        = 3 * time.Second // of one call to JetStream
	openAgainAfter  = time.Second
	attempts        = 5 // at a change that others make as well
	keptTextOfUsed  = 256
	maxReason       = 1000 // bytes of what an approver says
	keySharedPrefix = "shared."
	keyParkedPrefix = "parked."
)

// Errors whose texts clients see.
var (
	errUnreachable = errors.New("the queue of approvals cannot be reached")
	errFull        = fmt.Errorf("%d commands wait for approvals already, which is the most", maxOpen)
	errTooMany     = fmt.Errorf("%d commands of this identity wait for approvals already, which is the most", maxPerIdentity)
)

// Config of a Queue.
type Config struct {
	JetStream jetstream.JetStream
	Replicas  int // of the bucket; default 1
	Log       *slog.Logger
	Metrics   prometheus.Registerer // nil: none
	Now       func() time.Time      // nil: time.Now
}

// Queue implements core.Approvals. It is safe for concurrent use.
type Queue struct {
	c       Config
	log     *slog.Logger
	metrics *metrics
	run     context.Context
	stop    context.CancelFunc
	wg      sync.WaitGroup

	opening sync.Mutex // held while the bucket is opened

	mu       sync.Mutex
	kv       jetstream.KeyValue // nil: not open
	failed   time.Time          // when it last could not be opened
	all      map[string]entry   // by key: what JetStream has told
	keys     map[string]string  // by id
	making   map[string]int     // by identity: requests on their way to JetStream
	watchers map[string]map[chan struct{}]struct{}
}

// entry is a request as it was last told.
type entry struct {
	core.Approval
	revision uint64
}

// stored is a request as it is kept. What people do not see of it is added.
type stored struct {
	core.Approval
	Valid time.Duration `json:"valid"`
}

var _ core.Approvals = (*Queue)(nil)

// New returns a queue. It opens the bucket in the background: while that cannot be reached, everything held is refused.
func New(c Config) *Queue {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	q := &Queue{
		c: c, log: c.Log, all: map[string]entry{}, keys: map[string]string{}, making: map[string]int{},
		watchers: map[string]map[chan struct{}]struct{}{},
	}
	q.metrics = newMetrics(c.Metrics, q)
	q.run, q.stop = context.WithCancel(context.Background())
	q.wg.Go(q.sweeper)
	return q
}

// Close ends what runs in the background. What is in the bucket stays.
func (q *Queue) Close() {
	q.stop()
	q.wg.Wait()
}

// open returns the bucket, with all that it holds known.
func (q *Queue) open(ctx context.Context) (jetstream.KeyValue, error) {
	q.mu.Lock()
	kv := q.kv
	q.mu.Unlock()
	if kv != nil {
		return kv, nil
	}
	q.opening.Lock()
	defer q.opening.Unlock()
	q.mu.Lock()
	kv, failed := q.kv, q.failed
	q.mu.Unlock()
	switch {
	case kv != nil:
		return kv, nil
	case time.Since(failed) < openAgainAfter:
		return nil, errUnreachable
	case q.run.Err() != nil:
		return nil, errUnreachable
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	kv, err := q.c.JetStream.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: Bucket, Description: "Weir: commands that wait for approvals", History: 1, TTL: keptFor,
		MaxBytes: maxBucket, MaxValueSize: maxValue, Storage: jetstream.FileStorage, Replicas: q.c.Replicas,
	})
	var w jetstream.KeyWatcher
	if err == nil {
		w, err = kv.WatchAll(q.run)
	}
	if err == nil {
		err = q.learn(ctx, w)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		q.failed = time.Now()
		q.log.Warn("approval: the bucket cannot be opened: what is held is refused", "bucket", Bucket, "error", err)
		return nil, errUnreachable
	}
	q.kv = kv
	q.wg.Go(func() { q.follow(w) })
	return kv, nil
}

// learn takes in what the bucket holds.
func (q *Queue) learn(ctx context.Context, w jetstream.KeyWatcher) error {
	for {
		select {
		case <-ctx.Done():
			_ = w.Stop()
			return ctx.Err()
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return errUnreachable
			case e == nil: // that was all
				return nil
			}
			q.told(e)
		}
	}
}

// follow takes in what changes.
func (q *Queue) follow(w jetstream.KeyWatcher) {
	for e := range w.Updates() {
		if e != nil {
			q.told(e)
		}
	}
	q.mu.Lock()
	q.kv = nil // the next to ask opens it anew
	q.mu.Unlock()
}

// told takes in one change.
func (q *Queue) told(e jetstream.KeyValueEntry) {
	if e.Operation() != jetstream.KeyValuePut {
		q.mu.Lock()
		if had, ok := q.all[e.Key()]; ok && had.revision < e.Revision() {
			q.forget(e.Key())
		}
		q.mu.Unlock()
		return
	}
	a, err := decode(e.Value())
	if err != nil {
		q.log.Error("approval: a request in the bucket cannot be read", "key", e.Key(), "error", err)
		return
	}
	q.know(e.Key(), a, e.Revision())
}

// know takes in a request, unless something newer is known.
func (q *Queue) know(key string, a core.Approval, revision uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if had, ok := q.all[key]; ok {
		if had.revision >= revision {
			return
		}
		if had.ID != a.ID {
			q.forget(key)
		}
	}
	q.all[key] = entry{a, revision}
	q.keys[a.ID] = key
	q.wake(a.ID)
}

// forget drops a request; q is locked.
func (q *Queue) forget(key string) {
	id := q.all[key].ID
	delete(q.all, key)
	delete(q.keys, id)
	q.wake(id)
}

// wake tells those who wait for a change; q is locked.
func (q *Queue) wake(id string) {
	for ch := range q.watchers[id] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// Watch implements core.Approvals.
func (q *Queue) Watch(id string) (changed <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.watchers[id] == nil {
		q.watchers[id] = map[chan struct{}]struct{}{}
	}
	q.watchers[id][ch] = struct{}{}
	return ch, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if delete(q.watchers[id], ch); len(q.watchers[id]) == 0 {
			delete(q.watchers, id)
		}
	}
}

// Get implements core.Approvals.
func (q *Queue) Get(id string) (core.Approval, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e, ok := q.all[q.keys[id]]
	if !ok {
		return core.Approval{}, false
	}
	e.State = e.StateAt(q.c.Now())
	return e.Approval, true
}

// sweeper opens the bucket, and then removes what is over.
func (q *Queue) sweeper() {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		if kv, err := q.open(q.run); err == nil {
			q.sweep(kv)
		}
		select {
		case <-q.run.Done():
			return
		case <-t.C:
		}
	}
}

// sweep removes what is over. Another gateway may do so at the same time: what it was quicker with is left alone.
func (q *Queue) sweep(kv jetstream.KeyValue) {
	now := q.c.Now()
	over := map[string]entry{}
	q.mu.Lock()
	for key, e := range q.all {
		switch e.StateAt(now) {
		case core.ApprovalExpired:
			over[key] = e
		case core.ApprovalUsed:
			if e.Used == nil || now.Sub(*e.Used) > shownFor {
				over[key] = e
			}
		}
	}
	q.mu.Unlock()
	for key, e := range over {
		ctx, cancel := context.WithTimeout(q.run, callTime)
		err := kv.Purge(ctx, key, jetstream.LastRevision(e.revision))
		cancel()
		switch {
		case errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		case err != nil:
			return // the next sweep tries again
		case e.State == core.ApprovalWaiting || e.State == core.ApprovalApproved:
			q.metrics.count("expired")
			q.log.Info("approval: expired", "approval", e.ID, "identity", e.Identity, "target", e.Target, "rule", e.Rule())
		}
	}
}

const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// newID makes an id that can be read out and not be guessed: 60 random bits in groups of four characters.
func newID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand crashes the process instead
	out := make([]byte, 0, 14)
	for i, x := range b {
		if i > 0 && i%4 == 0 {
			out = append(out, '-')
		}
		out = append(out, alphabet[x&31])
	}
	return string(out)
}

func encode(a *core.Approval) ([]byte, error) { return json.Marshal(stored{*a, a.Valid}) }

func decode(b []byte) (core.Approval, error) {
	var s stored
	if err := json.Unmarshal(b, &s); err != nil {
		return core.Approval{}, err
	}
	s.Approval.Valid = s.Valid
	return s.Approval, nil
}
