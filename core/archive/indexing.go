package archive

import (
	"context"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
)

// The index is derived, so it never holds up what is evidence: what it does not take is read anew from the store later.
const (
	indexTime = 30 * time.Second // of one batch
	// maxMissed bounds the sessions that are remembered; beyond that the index takes a rebuild.
	maxMissed    = 100_000
	mostMendWait = time.Minute
	// compareEvery is how often the index is held against the ledger, over what began within compareBack.
	compareEvery = 15 * time.Second
	compareBack  = 24 * time.Hour
	compareMost  = 1000
)

// index tells the index what has been stored.
func (k *keeper) index(ctx context.Context, blocks []core.Block) error {
	x := k.w.c.Index
	if x == nil {
		return nil
	}
	if len(k.missed) == 0 {
		try, cancel := context.WithTimeout(ctx, indexTime)
		err := x.Add(try, keyring.Reader{Store: k.store, Ring: k.w.c.Keys, Closed: true}, k.clear(ctx, blocks))
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err // they come again
		}
		indexErrors.Inc()
		k.w.log.Error("archive: the index does not take blocks; it is given them later", "error", err)
		k.wait = time.Second
		k.mendAt = time.Now().Add(k.wait)
	}
	if k.missed == nil {
		k.missed = map[string]struct{}{}
	}
	for i := range blocks {
		if len(k.missed) >= maxMissed {
			k.w.log.Error("archive: the index lacks too much to be mended; when it is back, run: weir index rebuild", "session", blocks[i].Header.Session)
			break
		}
		k.missed[blocks[i].Header.Session] = struct{}{}
	}
	return nil
}

// mend gives the index what it lacks.
func (k *keeper) mend(ctx context.Context) {
	if len(k.missed) == 0 || time.Now().Before(k.mendAt) {
		return
	}
	ids := make([]string, 0, min(len(k.missed), 64))
	for id := range k.missed {
		if ids = append(ids, id); len(ids) == cap(ids) {
			break
		}
	}
	try, cancel := context.WithTimeout(ctx, indexTime)
	defer cancel()
	if err := k.w.c.Index.Again(try, keyring.Reader{Store: k.store, Ring: k.w.c.Keys, Closed: true}, ids...); err != nil {
		k.wait = min(2*k.wait, mostMendWait)
		k.mendAt = time.Now().Add(k.wait)
		return
	}
	for _, id := range ids {
		delete(k.missed, id)
	}
	if len(k.missed) == 0 {
		k.w.log.Info("archive: the index is whole again")
	}
}

// compare has the index read anew what it lists as open and the ledger has the seal of: whatever has kept it from hearing of a
// session's end, an earlier process that was killed included. The same goes for what it could not read, and now can.
func (k *keeper) compare(ctx context.Context) {
	if !k.first || k.w.c.Index == nil || k.w.c.Ledger == nil || len(k.missed) > 0 || time.Since(k.looked) < compareEvery {
		return
	}
	now := time.Now()
	k.looked = now
	try, cancel := context.WithTimeout(ctx, indexTime)
	defer cancel()
	if !k.whole {
		if err := k.absent(try, now.Add(-compareBack)); err != nil {
			if ctx.Err() == nil {
				k.w.log.Warn("archive: the index cannot be compared with the ledger", "error", err)
			}
			return
		}
		if k.whole = true; len(k.missed) > 0 {
			return // they are read first
		}
	}
	open, err := k.w.c.Index.Open(try, now.Add(-compareBack), now, compareMost)
	var behind []string
	for _, id := range open {
		if k.w.c.Ledger.Sealed(id) {
			behind = append(behind, id)
		}
	}
	if k.fresh && err == nil { // a block that is delivered once more can come before its key, though it was sent after it
		var unread []string
		if unread, err = k.w.c.Index.Unread(try, now.Add(-compareBack), now, compareMost); err == nil {
			k.fresh = false
		}
		for _, id := range unread {
			keys, err := k.keysOf(try, id, 1)
			if err != nil || len(keys) == 0 {
				continue
			}
			if _, err := k.w.c.Keys.DataKey(try, keys[0], id); err == nil {
				behind = append(behind, id)
			}
		}
	}
	if len(behind) > 0 && err == nil {
		err = k.w.c.Index.Again(try, keyring.Reader{Store: k.store, Ring: k.w.c.Keys, Closed: true}, behind...)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		k.w.log.Warn("archive: the index cannot be compared with the ledger", "error", err)
	case len(behind) > 0:
		k.w.log.Warn("archive: the index had sessions as open that are sealed, or could not read them before their key came; they are read anew", "sessions", len(behind), "first", behind[0])
	}
}

// absent finds the sessions that were sealed since a time and that the index does not list at all: a worker that was killed has taken
// with it what it knew to be missing. Once after a start is enough.
func (k *keeper) absent(ctx context.Context, since time.Time) error {
	var ids []string
	look := func() error {
		lacks, err := k.w.c.Index.Lacks(ctx, ids)
		ids = ids[:0]
		for _, id := range lacks {
			if _, gone := k.w.c.Ledger.Standing(id); gone || len(k.missed) >= maxMissed {
				continue
			}
			if k.missed == nil {
				k.missed = map[string]struct{}{}
			}
			k.missed[id] = struct{}{}
		}
		return err
	}
	err := k.w.c.Ledger.Each(func(l ledger.Leaf) error {
		if l.Kind == ledger.LeafSeal && l.Time.After(since) {
			ids = append(ids, l.Session)
		}
		if len(ids) < 500 {
			return nil
		}
		return look()
	})
	if err == nil && len(ids) > 0 {
		err = look()
	}
	if err == nil && len(k.missed) > 0 {
		k.w.log.Warn("archive: the index lacks sessions that are archived; it is given them", "sessions", len(k.missed))
	}
	return err
}
