package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/segment"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
)

var (
	storedTotal = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_archive_blocks_total", Help: "Blocks stored."}, []string{"store"})
	storeErrors = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_archive_store_errors_total", Help: "Writes to a store that failed and are tried again."}, []string{"store"})
	badTotal    = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_archive_refused_total", Help: "Messages that are no block, or another block than the stored one: somebody else writes to the streams."}, []string{"store"})
	indexErrors = prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_archive_index_errors_total", Help: "Batches that the index could not take; it is given them later."})
	lagMessages = prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_archive_lag_messages", Help: "Messages in JetStream that the slowest store has not stored."})
	lagSeconds  = prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_archive_lag_seconds", Help: "Age of the oldest of these messages."})
	working     = prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_archive_worker", Help: "1 in the process that writes the archive."})
)

func init() {
	prometheus.MustRegister(storedTotal, storeErrors, badTotal, indexErrors, lagMessages, lagSeconds, working)
}

// keeper writes to one store.
type keeper struct {
	w      *Worker
	store  Named
	first  bool
	broken bool // the last write failed
	open   map[string]*openHead
	missed map[string]struct{} // sessions of which the index lacks something
	mendAt time.Time           // no try before
	wait   time.Duration
	looked time.Time // when the index was compared with the ledger last
	fresh  bool      // keys have come since
	whole  bool      // what the index does not list at all has been looked for
}

// openHead is the newest block of a session that is open, for the ledger.
type openHead struct {
	block core.Block // without its bytes
	dirty bool       // the ledger does not know it
	since time.Time  // when the ledger was told last, or the session was first seen
}

// item is a message: a block, or the record of a recording key.
type item struct {
	msg   jetstream.Msg
	block core.Block
	key   string // the name of the key
}

func (k *keeper) run(ctx context.Context, in <-chan jetstream.Msg) {
	tick := time.NewTicker(k.w.c.HeadEvery / 5)
	defer tick.Stop()
	for {
		var batch []item
		select {
		case <-ctx.Done():
			return
		case m := <-in:
			batch = k.add(batch, m)
		case <-tick.C:
			k.heads(ctx)
			k.mend(ctx)
			k.compare(ctx)
			continue
		}
		batch = k.gather(ctx, batch, in)
		if !k.keep(ctx, batch) {
			return
		}
	}
}

// gather adds what else there is to a batch, and what comes within the store's time for that.
func (k *keeper) gather(ctx context.Context, batch []item, in <-chan jetstream.Msg) []item {
	var over <-chan time.Time
	if k.store.Gather > 0 {
		t := time.NewTimer(k.store.Gather)
		defer t.Stop()
		over = t.C
	}
	for size := 0; len(batch) < batchBlocks && size < batchBytes; {
		select {
		case m := <-in:
			size += len(m.Data())
			batch = k.add(batch, m)
			continue
		default:
		}
		if over == nil {
			return batch
		}
		select {
		case m := <-in:
			size += len(m.Data())
			batch = k.add(batch, m)
		case <-over:
			return batch
		case <-k.w.hurried:
			over = nil
		case <-ctx.Done():
			return batch
		}
	}
	return batch
}

// add decodes a message. What is no block of the subject's session was not sent by a journal; it is refused for good,
// and loudly.
func (k *keeper) add(batch []item, m jetstream.Msg) []item {
	if keyring.Is(m.Data()) {
		key, err := keyring.Parse(m.Data())
		if err == nil && !strings.HasSuffix(m.Subject(), ".="+key.ID.String()) {
			err = fmt.Errorf("it holds key %s", key.ID)
		}
		if err != nil {
			k.refuse(m, err)
			return batch
		}
		return append(batch, item{msg: m, key: key.ID.String()})
	}
	b, err := ledger.DecodeBlock(m.Data())
	if err == nil && !strings.HasSuffix(m.Subject(), "."+b.Header.Session) {
		err = fmt.Errorf("it holds a block of session %s", b.Header.Session)
	}
	if err != nil {
		k.refuse(m, err)
		return batch
	}
	return append(batch, item{msg: m, block: b})
}

func (k *keeper) refuse(m jetstream.Msg, err error) {
	badTotal.WithLabelValues(k.store.Name).Inc()
	k.w.log.Error("archive: a message is refused", "store", k.store.Name, "subject", m.Subject(), "error", err)
	_ = m.Term() // at worst it comes again
}

// keep stores a batch, and tries until it is stored: the messages stay unacknowledged, in order, as long as it takes.
func (k *keeper) keep(ctx context.Context, batch []item) bool {
	for wait := 100 * time.Millisecond; len(batch) > 0; {
		blocks := make([]core.Block, 0, len(batch))
		for i := range batch {
			if batch[i].key == "" {
				blocks = append(blocks, batch[i].block)
			}
		}
		err := k.putKeys(ctx, batch) // first: a block can be read when it is there
		if err == nil {
			err = k.store.Put(ctx, blocks)
		}
		if errors.Is(err, core.ErrFork) {
			batch = k.single(ctx, batch)
			continue
		}
		if err == nil && k.first {
			err = k.follow(ctx, blocks)
		}
		if err == nil {
			if k.broken {
				k.w.log.Info("archive: the store takes blocks again", "store", k.store.Name)
			}
			k.broken = false
			storedTotal.WithLabelValues(k.store.Name).Add(float64(len(blocks)))
			bytes := 0
			for _, m := range batch {
				_ = m.msg.Ack() // at worst it comes again, and changes nothing
				bytes += len(m.msg.Data())
			}
			k.w.took(bytes)
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		storeErrors.WithLabelValues(k.store.Name).Inc()
		if !k.broken {
			k.w.log.Error("archive: the store does not take blocks; they stay in JetStream", "store", k.store.Name, "error", err)
		}
		k.broken = true
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
		wait = min(2*wait, ackWait/2)
		for _, m := range batch {
			_ = m.msg.InProgress()
		}
	}
	return true
}

// putKeys stores the recording keys of a batch.
func (k *keeper) putKeys(ctx context.Context, batch []item) error {
	for _, m := range batch {
		if m.key == "" {
			continue
		}
		keys, ok := k.store.Store.(keyring.Store)
		if !ok {
			return errors.New("archive: this kind of store keeps no recording keys, and what is recorded is encrypted")
		}
		_, err := keys.Key(ctx, m.key) // what is there may have been wrapped for others since
		if errors.Is(err, fs.ErrNotExist) && !k.destroyed(m.key) {
			err = keys.PutKey(ctx, m.key, m.msg.Data())
			k.fresh = true
		}
		if k.destroyed(m.key) { // before, or just now: a shredding does not see what is on its way here
			err = keys.DropKey(ctx, m.key)
			if locked := (*segment.Locked)(nil); errors.As(err, &locked) {
				err = nil // retention tries again
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// destroyed reports whether a recording key was destroyed.
func (k *keeper) destroyed(name string) bool {
	id, err := ledger.ParseKeyID(name)
	if err != nil {
		return false
	}
	_, ok := k.w.c.Ledger.Destroyed(id)
	return ok
}

// single finds the blocks that differ from what is stored, and returns the batch without them.
func (k *keeper) single(ctx context.Context, batch []item) []item {
	var good []item
	for _, m := range batch {
		if m.key != "" {
			good = append(good, m)
			continue
		}
		if err := k.store.Put(ctx, []core.Block{m.block}); errors.Is(err, core.ErrFork) {
			k.refuse(m.msg, err)
			continue
		}
		good = append(good, m)
	}
	return good
}

// follow tells the ledger and the index what has been stored. The ledger is evidence: its failure holds the batch up.
func (k *keeper) follow(ctx context.Context, blocks []core.Block) error {
	if err := k.seal(blocks); err != nil {
		return err
	}
	if err := k.late(ctx, blocks); err != nil {
		return err
	}
	if err := k.w.claim.tell(ctx); err != nil {
		return err
	}
	return k.index(ctx, blocks)
}

// clear returns blocks as they can be read, those whose key is not at hand as they are.
func (k *keeper) clear(ctx context.Context, blocks []core.Block) []core.Block {
	out := slices.Clone(blocks)
	for i := range out {
		if b, err := k.w.c.Keys.Clear(ctx, out[i]); err == nil {
			out[i] = b
		}
	}
	return out
}

func (k *keeper) seal(blocks []core.Block) error {
	if k.w.c.Ledger == nil {
		return nil
	}
	now := time.Now()
	var leaves []ledger.Leaf
	for i := range blocks {
		b := &blocks[i]
		id := b.Header.Session
		if !b.Header.Seal {
			h := k.open[id]
			if h == nil {
				h = &openHead{since: now}
				k.open[id] = h
			}
			if !h.dirty || h.block.Header.Number < b.Header.Number {
				h.block, h.dirty = core.Block{Header: b.Header, Hash: b.Hash}, true
			}
			continue
		}
		delete(k.open, id)
		h, err := ledger.ParseBlock(b.Bytes)
		if err != nil {
			return err
		}
		s, err := h.ReadSeal()
		if err != nil {
			k.w.log.Error("archive: a seal cannot be read", "session", id, "error", err)
			continue
		}
		leaves = append(leaves, ledger.LeafOf(*b, s.End, now))
	}
	if len(leaves) == 0 {
		return nil
	}
	err := k.w.c.Ledger.AppendAll(leaves)
	if !errors.Is(err, core.ErrFork) {
		return err
	}
	for _, l := range leaves { // the ledger keeps the first seal; verification reports the other
		if err := k.w.c.Ledger.Append(l); errors.Is(err, core.ErrFork) {
			badTotal.WithLabelValues(k.store.Name).Inc()
			k.w.log.Error("archive: a second, different seal", "error", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// late sees to sessions that came when their key had been destroyed: they were on their way for longer than a shredding
// waits. That it was destroyed is said of them as well, so that they are proved.
func (k *keeper) late(ctx context.Context, blocks []core.Block) error {
	if !k.w.c.Ledger.AnyDestroyed() {
		return nil
	}
	for _, b := range blocks {
		if !b.Header.Seal {
			continue
		}
		first, err := k.keysOf(ctx, b.Header.Session, 1)
		if err != nil {
			return err
		}
		var by ledger.Destroyed
		is := false
		for _, id := range first {
			by, is = k.w.c.Ledger.Destroyed(id)
		}
		if !is {
			continue
		}
		h, err := ledger.ParseBlock(b.Bytes)
		if err != nil {
			return err
		}
		seal, err := h.ReadSeal()
		if err != nil {
			continue // seal has told
		}
		err = k.w.c.Ledger.Append(ledger.LeafOf(b, seal.End, time.Time{}).Done(ledger.LeafShred, by.By, by.Why, time.Now()))
		if errors.Is(err, ledger.ErrStanding) { // held, or removed: what was destroyed stays so
			k.w.log.Warn("archive: the key of a session was destroyed before the session came", "session", b.Header.Session, "error", err)
			continue
		}
		var all []ledger.KeyID
		if err == nil { // what an earlier process left of it has a key of its own
			all, err = k.keysOf(ctx, b.Header.Session, 1<<62)
		}
		if err == nil {
			err = k.w.c.Ledger.Destroy(by.By, by.Why, time.Now(), all...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keysOf returns the recording keys of a session's first blocks.
func (k *keeper) keysOf(ctx context.Context, id string, blocks int) (keys []ledger.KeyID, err error) {
	err = k.store.Blocks(ctx, id, func(b core.Block) error {
		if h, err := ledger.ParseBlock(b.Bytes); err == nil && h.Secret && !slices.Contains(keys, h.Key) {
			keys = append(keys, h.Key)
		}
		if blocks--; blocks == 0 {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) || errors.Is(err, core.ErrNoSession) {
		err = nil
	}
	return keys, err
}

var errEnough = errors.New("enough")

// heads signs how far the open sessions have got, so that a cut end shows before there is a seal.
func (k *keeper) heads(ctx context.Context) {
	if k.w.c.Ledger == nil || !k.first {
		return
	}
	now := time.Now()
	var leaves []ledger.Leaf
	for id, h := range k.open {
		if !h.dirty && now.Sub(h.since) > 10*time.Minute {
			delete(k.open, id) // its next block brings it back
		}
		if h.dirty && now.Sub(h.since) >= k.w.c.HeadEvery {
			leaves = append(leaves, ledger.LeafOf(h.block, "", now))
			h.dirty, h.since = false, now
		}
	}
	if len(leaves) == 0 {
		return
	}
	err := k.w.c.Ledger.AppendAll(leaves)
	if err == nil {
		err = k.w.claim.tell(ctx)
	}
	if err != nil && ctx.Err() == nil {
		k.w.log.Error("archive: signed heads", "error", err)
	}
}
