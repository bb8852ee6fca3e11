// Package archive carries blocks from JetStream into the stores: durable consumers, one set for each store, whose
// messages are acknowledged only when the store is durable. What every store has is purged from the streams.
package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/journal"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
)

// Named is a store and the word it has in the configuration. The word names the store's consumers, so a store that is
// renamed is given everything that the streams still hold once more.
type Named struct {
	Name string
	core.Store
	// Gather is how long blocks are waited for after the first one of a batch. Zero is right where a Put is cheap.
	Gather time.Duration
}

// GatherObjects is the Gather of a store that makes an object of each Put: fewer and larger ones.
const GatherObjects = 2 * time.Second

// Config of a worker.
type Config struct {
	Stores []Named // at least one; the first is the one that the index and the ledger follow
	Index  *index.Index
	Ledger *ledger.Ledger
	Keys   *keyring.Ring // opens what the index takes in; nil: it lists encrypted sessions without their contents
	Log    *slog.Logger
	// PurgeEvery is how often the streams are relieved of what every store has, where little comes. Default 2 s.
	PurgeEvery time.Duration
	// HeadEvery is how often an open session that goes on gets a signed head at most. Default 5 s.
	HeadEvery time.Duration
	// Cluster says that the streams are those of a JetStream that other processes use as well: the worker claims them
	// for its ledger, and answers gateways that ask how far a session got.
	Cluster  bool
	Replicas int // of the claim's stream; default 1
}

// purgeBytes is how much the stores take before the streams are relieved without waiting for PurgeEvery. An embedded JetStream keeps its
// files of 8 MiB in memory for ten seconds after they were read, unless they are purged.
const purgeBytes = 16 << 20

// Worker is the running consumers.
type Worker struct {
	taken   atomic.Int64  // bytes that stores have taken since the last purge
	relieve chan struct{} // has something when that is much
	c       Config
	log     *slog.Logger
	streams []jetstream.Stream
	feeds   [][]*feed // by store, by stream
	claim   *claim
	hurried chan struct{} // closed when what is gathered has to be stored now
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

// feed is one store's consumer on one stream.
type feed struct {
	stream jetstream.Stream
	name   string // of the stream
	store  Named

	mu       sync.Mutex
	consumer jetstream.Consumer
}

func (f *feed) info(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	f.mu.Lock()
	cons := f.consumer
	f.mu.Unlock()
	return cons.Info(ctx)
}

const (
	batchBlocks = 256
	batchBytes  = 16 << 20
	// ackWait is after how long a message comes again: a worker that died is replaced within this time. A store that
	// gathers, and that is far away, has longer.
	ackWait    = 3 * time.Second
	ackWaitFar = 30 * time.Second
	pullExpiry = 5 * time.Second
	// startTime bounds how long a worker waits for an answer that it needs to start, startTry one try.
	startTime = 30 * time.Second
	startTry  = 3 * time.Second
)

// Start makes the consumers where they are missing, and begins.
func Start(ctx context.Context, js jetstream.JetStream, c Config) (*Worker, error) {
	if len(c.Stores) == 0 {
		return nil, errors.New("archive: no store given")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.PurgeEvery == 0 {
		c.PurgeEvery = 2 * time.Second
	}
	if c.HeadEvery == 0 {
		c.HeadEvery = 5 * time.Second
	}
	w := &Worker{c: c, log: c.Log, feeds: make([][]*feed, len(c.Stores)), hurried: make(chan struct{}), relieve: make(chan struct{}, 1)}
	err := persist(ctx, func(ctx context.Context) (err error) {
		w.streams, err = streams(ctx, js)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(w.streams) == 0 {
		return nil, errors.New("archive: there are no journal streams: open the journal first")
	}
	if c.Cluster {
		if c.Ledger == nil {
			return nil, errors.New("archive: a cluster's worker takes a ledger")
		}
		if w.claim, err = newClaim(ctx, js, c.Ledger, c.Replicas); err != nil {
			return nil, err
		}
	}
	for i, store := range c.Stores {
		if !ledger.ValidSession(store.Name) {
			return nil, fmt.Errorf("archive: %q cannot name a store: letters, digits, - and _", store.Name)
		}
		for _, s := range w.streams {
			var cons jetstream.Consumer
			err := persist(ctx, func(ctx context.Context) (err error) {
				cons, err = consumer(ctx, s, store, c.Log)
				return err
			})
			if err != nil {
				return nil, fmt.Errorf("archive: consumer of %s on %s: %w", store.Name, s.CachedInfo().Config.Name, err)
			}
			w.feeds[i] = append(w.feeds[i], &feed{stream: s, name: s.CachedInfo().Config.Name, store: store, consumer: cons})
		}
	}
	run, stop := context.WithCancel(context.Background())
	w.stop = stop
	if w.claim != nil {
		if err := errors.Join(w.claim.answer(run), journal.AnswerLast(run, js.Conn(), owned{c.Stores[0].Store, w.claim}, c.Log)); err != nil {
			stop()
			return nil, err
		}
	}
	for i := range c.Stores {
		in := make(chan jetstream.Msg, batchBlocks)
		for _, f := range w.feeds[i] {
			m, err := f.consumer.Messages(jetstream.PullMaxMessages(batchBlocks), jetstream.PullExpiry(pullExpiry))
			if err != nil {
				stop()
				return nil, fmt.Errorf("archive: consumer of %s: %w", c.Stores[i].Name, err)
			}
			w.wg.Go(func() { w.pull(run, f, m, in) })
		}
		k := &keeper{w: w, store: c.Stores[i], first: i == 0, fresh: true, open: map[string]*openHead{}}
		w.wg.Go(func() { k.run(run, in) })
	}
	w.wg.Go(func() { w.purger(run) })
	for _, s := range c.Stores { // a rate over what has never happened takes a zero to begin with
		for _, v := range []*prometheus.CounterVec{storedTotal, storeErrors, badTotal} {
			v.WithLabelValues(s.Name)
		}
	}
	working.Set(1)
	return w, nil
}

// streams finds the journal's streams.
func streams(ctx context.Context, js jetstream.JetStream) (all []jetstream.Stream, err error) {
	names := js.StreamNames(ctx, jetstream.WithStreamListSubject(journal.SubjectPrefix+">"))
	for name := range names.Name() {
		if !strings.HasPrefix(name, journal.StreamPrefix) {
			continue
		}
		s, err := js.Stream(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("archive: stream %s: %w", name, err)
		}
		all = append(all, s)
	}
	if err := names.Err(); err != nil {
		return nil, fmt.Errorf("archive: streams: %w", err)
	}
	return all, nil
}

// persist asks again while nobody answers: what is asked of a cluster that has no leader just now is never answered.
func persist(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		try, end := context.WithTimeout(ctx, startTry)
		err := ask(try)
		end()
		var api *jetstream.APIError
		silent := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) ||
			errors.Is(err, jetstream.ErrNoStreamResponse) || errors.As(err, &api) && (api.Code >= 500 || api.ErrorCode == noPeers)
		if err == nil || !silent || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// consumer makes a store's consumer on a stream. One that is ahead of its stream, because an operator made the stream
// anew, would pass over messages: it begins again, and the store drops what it has.
func consumer(ctx context.Context, s jetstream.Stream, store Named, log *slog.Logger) (jetstream.Consumer, error) {
	wait := ackWait
	if store.Gather > 0 {
		wait = ackWaitFar
	}
	want := jetstream.ConsumerConfig{
		Durable:       "archive-" + store.Name,
		Description:   "Weir: the archive store " + store.Name,
		DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       wait,
		MaxAckPending: 4 * batchBlocks,
	}
	cons, err := s.CreateOrUpdateConsumer(ctx, want)
	if err != nil {
		return nil, err
	}
	info, err := s.Info(ctx)
	if err != nil {
		return nil, err
	}
	if floor, last := cons.CachedInfo().AckFloor.Stream, info.State.LastSeq; floor > last {
		log.Error("archive: a stream is behind its consumer; it is read from the start", "stream", info.Config.Name, "store", store.Name, "acknowledged", floor, "last", last)
		if err := s.DeleteConsumer(ctx, want.Durable); err != nil {
			return nil, err
		}
		return s.CreateOrUpdateConsumer(ctx, want)
	}
	return cons, nil
}

// noPeers is the servers' code for too few of them: those that come up may be seen in a moment.
const noPeers = jetstream.ErrorCode(10005)

// pull hands one consumer's messages on. A consumer that is gone, because an operator deleted it or its stream, is made
// anew: what it had not acknowledged comes again, and the store drops what it has.
func (w *Worker) pull(ctx context.Context, f *feed, m jetstream.MessagesContext, in chan<- jetstream.Msg) {
	defer func() { m.Stop() }()
	for {
		msg, err := m.Next(jetstream.NextContext(ctx))
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			select {
			case in <- msg:
			case <-ctx.Done():
				return
			}
			continue
		}
		w.log.Warn("archive: reading from JetStream", "stream", f.name, "store", f.store.Name, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(250 * time.Millisecond):
		}
		if !errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			continue // the next call says whether it was the end
		}
		if again, err := f.again(ctx, w.log); err == nil {
			m = again
		} else if ctx.Err() == nil {
			w.log.Warn("archive: making a consumer anew", "stream", f.name, "store", f.store.Name, "error", err)
		}
	}
}

// again makes the feed's consumer where it is missing.
func (f *feed) again(ctx context.Context, log *slog.Logger) (jetstream.MessagesContext, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cons, err := consumer(ctx, f.stream, f.store, log)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.consumer = cons
	f.mu.Unlock()
	return cons.Messages(jetstream.PullMaxMessages(batchBlocks), jetstream.PullExpiry(pullExpiry))
}

// purger relieves the streams of what every store has acknowledged.
func (w *Worker) purger(ctx context.Context) {
	t := time.NewTicker(w.c.PurgeEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-w.relieve:
		}
		w.taken.Store(0)
		if err := w.purge(ctx); err != nil && ctx.Err() == nil {
			w.log.Warn("archive: purging the streams", "error", err)
			lagSeconds.Add(w.c.PurgeEvery.Seconds()) // nobody can say: it has not become less
		}
	}
}

// took counts what a store has taken.
func (w *Worker) took(bytes int) {
	if w.taken.Add(int64(bytes)) >= purgeBytes {
		select {
		case w.relieve <- struct{}{}:
		default:
		}
	}
}

// purge relieves each stream, and tells how far behind the slowest store is.
func (w *Worker) purge(ctx context.Context) error {
	behind := make([]uint64, len(w.c.Stores))
	var oldest time.Time
	for i, s := range w.streams {
		floor := uint64(1<<64 - 1)
		stores := make([]uint64, len(w.c.Stores))
		for k := range w.c.Stores {
			info, err := w.feeds[k][i].info(ctx)
			if err != nil {
				return err
			}
			stores[k] = info.AckFloor.Stream
			floor = min(floor, stores[k])
		}
		state, err := s.Info(ctx)
		if err != nil {
			return err
		}
		last := state.State.LastSeq
		for k := range stores {
			behind[k] += last - min(last, stores[k])
		}
		// The newest message stays: a stream emptied by a purge that a crash cuts short could come back with its
		// numbering set back, and consumers would pass over what is published then.
		if upTo := min(floor+1, last); state.State.FirstSeq < upTo {
			if err := s.Purge(ctx, jetstream.WithPurgeSequence(upTo)); err != nil {
				return err
			}
			if floor < last {
				if state, err = s.Info(ctx); err != nil {
					return err
				}
			}
		}
		// What is left begins with the first message that a store lacks.
		if first := state.State.FirstTime; floor < last && (oldest.IsZero() || first.Before(oldest)) {
			oldest = first
		}
	}
	lagMessages.Set(float64(slices.Max(behind)))
	age := 0.0
	if !oldest.IsZero() {
		age = max(0, time.Since(oldest).Seconds())
	}
	lagSeconds.Set(age)
	return nil
}

// Lag returns how many messages the slowest store has yet to store: those behind the last that it has acknowledged. What a
// consumer says of pending ones is not asked: a publisher is told that a message is there before it is counted.
func (w *Worker) Lag() (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	behind := make([]uint64, len(w.c.Stores))
	for i, s := range w.streams {
		state, err := s.Info(ctx)
		if err != nil {
			return 0, fmt.Errorf("archive: %w", err)
		}
		for k := range w.c.Stores {
			info, err := w.feeds[k][i].info(ctx)
			if err != nil {
				return 0, fmt.Errorf("archive: %w", err)
			}
			behind[k] += state.State.LastSeq - min(state.State.LastSeq, info.AckFloor.Stream)
		}
	}
	most := slices.Max(behind)
	lagMessages.Set(float64(most))
	return most, nil
}

// Err says why the worker stores nothing any more: another process has taken its place. Nil: it works.
func (w *Worker) Err() error { return w.claim.err() }

// Checkpoint returns the ledger's newest signed checkpoint that may be shown to others: in a cluster the one that the bus has
// taken, since until then another process may have taken this one's place.
func (w *Worker) Checkpoint() ([]byte, error) {
	if w.claim == nil {
		return w.c.Ledger.Checkpoint(), nil
	}
	return w.claim.taken()
}

// Drain returns when every store has what is in the streams now.
func (w *Worker) Drain(ctx context.Context) error {
	for {
		n, err := w.Lag()
		if err = errors.Join(err, w.Err()); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("archive: %d messages are not stored yet; they stay in JetStream: %w", n, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Close drains what is in the streams, within ctx, and stops. The stores, the index and the ledger stay open. It is called
// once.
func (w *Worker) Close(ctx context.Context) error {
	close(w.hurried)
	defer working.Set(0)
	err := w.Drain(ctx)
	w.stop()
	w.wg.Wait()
	return err
}
