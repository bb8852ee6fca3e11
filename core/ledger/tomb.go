package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"

	"github.com/weir-gateway/weir/core"
)

// sessionOrTomb is session, but for one that was removed: it may be there as a whole, in part or not at all.
func (v *verifier) sessionOrTomb(ctx context.Context, id string) {
	tomb, ok := v.log.tombs[id]
	before := v.r
	seals := len(v.seals)
	v.session(ctx, id)
	if !ok || !tomb.covered || len(v.r.Problems) == len(before.Problems) || ctx.Err() != nil {
		return
	}
	v.r, v.seals = before, v.seals[:seals]
	v.tomb(ctx, tomb.Leaf)
}

// tomb compares a tombstone with the seal in the log, and looks at the blocks that are left. A store that cannot lose
// them yet, or a removal that was cut short, leaves some.
func (v *verifier) tomb(ctx context.Context, tomb Leaf) {
	id := tomb.Session
	seal, ok := v.log.seals[id]
	if !ok || seal.Hash != tomb.Hash || seal.Blocks != tomb.Blocks || seal.Records != tomb.Records || seal.End != tomb.End {
		v.problem(id, -1, -1, "the session's tombstone is not of the seal in the log")
		return
	}
	left := 0
	err := v.c.Store.Blocks(ctx, id, func(b core.Block) error {
		v.r.Blocks++
		v.r.Bytes += int64(len(b.Bytes))
		left++
		hash := sha256.Sum256(b.Bytes)
		if h, err := ParseBlock(b.Bytes); err != nil || hash != b.Hash || h.Session != id || h.Number >= tomb.Blocks || h.Number == tomb.Blocks-1 && hash != tomb.Hash {
			v.problem(id, int64(b.Header.Number), -1, "the session was removed, and a block that is left of it is not what was stored")
			return errBad
		}
		return nil
	})
	if err != nil && !errors.Is(err, errBad) && !errors.Is(err, core.ErrNoSession) {
		v.problem(id, -1, -1, "the session was removed, and what is left of it cannot be read: %v", err)
	}
	v.r.Removed = append(v.r.Removed, Removed{Session: id, Time: tomb.Time, By: tomb.By, Why: tomb.Why, Blocks: tomb.Blocks, Records: tomb.Records, Left: left})
}

// meanwhile looks at the log once more: what was removed while the store was read is not missing.
func (v *verifier) meanwhile(ctx context.Context) error {
	bad := map[string]bool{}
	for _, p := range v.r.Problems {
		if p.Session != "" {
			bad[p.Session] = true
		}
	}
	if len(bad) == 0 {
		return nil
	}
	was := v.log
	if err := v.readLog(); err != nil {
		return err
	}
	for id := range bad {
		tomb, ok := v.log.tombs[id]
		if _, known := was.tombs[id]; known || !ok || !tomb.covered {
			continue
		}
		v.r.Problems = slices.DeleteFunc(v.r.Problems, func(p Problem) bool { return p.Session == id })
		v.tomb(ctx, tomb.Leaf)
	}
	return ctx.Err()
}
