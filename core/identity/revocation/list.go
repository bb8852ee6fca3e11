// Package revocation keeps which tokens and subjects are good no longer, in a JetStream key-value bucket that all gateways
// of a cluster share. Each gateway holds all of it in memory and looks every second whether something has changed: one
// small question, which shows at the same time that what is known is still the whole truth.
package revocation

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
)

// Bucket is the name of the key-value bucket.
const Bucket = "WEIR_REVOKED"

// DefaultMaxAge is for how long the last known state counts while the bucket cannot be reached.
const DefaultMaxAge = 5 * time.Minute

// Bounds of the list.
const (
	maxEntries = 10_000
	maxBucket  = 32 << 20
	maxText    = 1024 // bytes of one text of an entry
	lookEvery  = time.Second
	sweepEvery = time.Minute
	keptAfter  = time.Hour       // for which an entry outlives its token, as for clocks that differ
	callTime   = 3 * time.Second // of one call to JetStream
	loadTime   = 10 * time.Second
)

// Config of a List.
type Config struct {
	JetStream jetstream.JetStream
	Replicas  int           // of the bucket; default 1
	MaxAge    time.Duration // default DefaultMaxAge
	Log       *slog.Logger
	Metrics   prometheus.Registerer // nil: none
	Now       func() time.Time      // nil: time.Now

	every, call time.Duration // of tests; 0: lookEvery and callTime
}

// List knows what has been revoked. It is safe for concurrent use; Check does no I/O.
type List struct {
	c       Config
	now     atomic.Pointer[state]
	fresh   atomic.Int64 // when now was last known to be all there is, in Unix nanoseconds; 0: never
	changed chan struct{}
	stop    context.CancelFunc
	wg      sync.WaitGroup

	loading sync.Mutex // held by who asks the bucket
	kv      jetstream.KeyValue
	down    bool
}

// state is all that was revoked at one time. It is not changed.
type state struct {
	sequence uint64
	entries  map[what]entry
}

type entry struct {
	core.Revocation
	revision uint64
}

// what is revoked; of token and subject one is empty.
type what struct{ issuer, token, subject string }

func of(r *core.Revocation) what { return what{r.Issuer, r.Token, r.Subject} }

// key is the entry's name in the bucket, where only few characters may be.
func (w what) key() string {
	kind, text := "token.", w.token
	if w.token == "" {
		kind, text = "subject.", w.subject
	}
	sum := sha256.Sum256([]byte(w.issuer + "\x00" + text))
	return kind + base64.RawURLEncoding.EncodeToString(sum[:])
}

// Open returns the list, and tries once to fill it. Until that has succeeded, which goes on in the background, Check
// refuses everybody.
func Open(ctx context.Context, c Config) *List {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.every == 0 {
		c.every, c.call = lookEvery, callTime
	}
	if c.MaxAge <= 0 {
		c.MaxAge = DefaultMaxAge
	}
	l := &List{c: c, changed: make(chan struct{}, 1)}
	l.now.Store(&state{})
	if c.Metrics != nil {
		c.Metrics.MustRegister(
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "weir_revocation_entries", Help: "Tokens and subjects that are revoked."}, func() float64 { return float64(len(l.now.Load().entries)) }),
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "weir_revocation_age_seconds", Help: "How old what is known of revocations is; -1: nothing is known yet."}, func() float64 {
				if l.fresh.Load() == 0 {
					return -1
				}
				return l.age().Seconds()
			}),
		)
	}
	l.refresh(ctx)
	run, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.wg.Go(func() { l.follow(run) })
	return l
}

// Close ends what runs in the background. What is in the bucket stays.
func (l *List) Close() {
	l.stop()
	l.wg.Wait()
}

func (l *List) age() time.Duration {
	return l.c.Now().Sub(time.Unix(0, l.fresh.Load()))
}

// Check says why an identity may not open a session now; nil: it may.
func (l *List) Check(id core.Identity) *core.Denial {
	if r, ok := l.Revoked(id); ok {
		d := &core.Denial{Rule: "token-revoked", Reason: "the token was revoked", Hint: "sign in anew, or ask for another token"}
		if r.Token == "" {
			d.Reason, d.Hint = "the subject is denied", "ask the operator"
		}
		return d
	}
	if l.fresh.Load() == 0 || l.age() > l.c.MaxAge {
		return &core.Denial{Rule: "revocations-unknown", Reason: "which tokens have been revoked is not known at present", Hint: "try again later; the operator finds the reason in the gateway's log"}
	}
	return nil
}

// Revoked finds what revokes the token that an identity was recognised by, as far as is known.
func (l *List) Revoked(id core.Identity) (core.Revocation, bool) {
	entries := l.now.Load().entries
	if len(entries) == 0 {
		return core.Revocation{}, false
	}
	for _, w := range [...]what{{id.Issuer, id.Token, ""}, {"", id.Token, ""}, {id.Issuer, id.Parent, ""}, {"", id.Parent, ""}, {id.Issuer, "", id.Subject}, {"", "", id.Subject}} {
		if e, ok := entries[w]; ok && e.Covers(&id) {
			return e.Revocation, true
		}
	}
	return core.Revocation{}, false
}

// Changed is sent to after what Revoked knows has changed. It has one reader.
func (l *List) Changed() <-chan struct{} { return l.changed }

// errUnreachable is all that whoever asked is told; the log has the cause.
var errUnreachable = errors.New("revocation: the list of revocations cannot be reached")

// List returns what is revoked, the newest first.
func (l *List) List(ctx context.Context) ([]core.Revocation, error) {
	if !l.refresh(ctx) {
		return nil, errUnreachable
	}
	out := []core.Revocation{}
	for _, e := range l.now.Load().entries {
		out = append(out, e.Revocation)
	}
	slices.SortFunc(out, func(a, b core.Revocation) int {
		if c := b.At.Compare(a.At); c != 0 {
			return c
		}
		return strings.Compare(a.Token+a.Subject, b.Token+b.Subject)
	})
	return out, nil
}

// Revoke adds r. When it returns without an error the bucket has it, and this gateway knows.
func (l *List) Revoke(ctx context.Context, r core.Revocation) error {
	if err := l.valid(&r); err != nil {
		return err
	}
	if len(l.now.Load().entries) >= maxEntries {
		return core.Refusal(fmt.Sprintf("%d tokens and subjects are revoked already, which is the most: restore some", maxEntries))
	}
	r.At = l.c.Now().UTC().Truncate(time.Second)
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return l.change(ctx, func(ctx context.Context, kv jetstream.KeyValue) error {
		_, err := kv.Put(ctx, of(&r).key(), b)
		return err
	})
}

// Restore takes a revocation back. One that is not there is refused: a name that was mistyped must not look like done.
func (l *List) Restore(ctx context.Context, r core.Revocation) error {
	if err := l.valid(&r); err != nil {
		return err
	}
	if !l.refresh(ctx) {
		return errUnreachable
	}
	if _, ok := l.now.Load().entries[of(&r)]; !ok {
		return core.Refusal("that is not revoked")
	}
	return l.change(ctx, func(ctx context.Context, kv jetstream.KeyValue) error { return kv.Purge(ctx, of(&r).key()) })
}

func (l *List) valid(r *core.Revocation) error {
	switch {
	case (r.Token == "") == (r.Subject == ""):
		return core.Refusal("it takes the id of a token, or a subject")
	case len(r.Token) > maxText || len(r.Subject) > maxText || len(r.Issuer) > maxText || len(r.Reason) > maxText || len(r.By) > maxText:
		return core.Refusal(fmt.Sprintf("each text has at most %d bytes", maxText))
	}
	return nil
}

// change makes a change, and has it known here before it returns.
func (l *List) change(ctx context.Context, do func(context.Context, jetstream.KeyValue) error) error {
	if !l.refresh(ctx) {
		return errUnreachable
	}
	l.loading.Lock()
	call, cancel := context.WithTimeout(ctx, l.c.call)
	err := do(call, l.kv)
	cancel()
	l.loading.Unlock()
	if err == nil && l.refresh(ctx) {
		return nil
	}
	if err != nil {
		l.c.Log.Warn("revocation: the bucket does not answer as it should", "bucket", Bucket, "error", err)
	}
	return errUnreachable
}
