// Package retention removes sessions that are older than they are to be kept, and keeps those that are under legal hold.
//
// A removal begins with a tombstone in the ledger, so that what is missing then is proved to have been removed. What a
// crash cuts short, the next purge ends. Nothing here rests on the index: a session's age is that of its signed seal, and
// its target stands in its own first record.
package retention

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"filippo.io/age"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/archive/segment"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
)

var (
	removedTotal = prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_retention_removed_total", Help: "Sessions given a tombstone."})
	heldGauge    = prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_retention_held_sessions", Help: "Sessions that are over their time and kept by a legal hold, at the last purge."})
	purgeErrors  = prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_retention_errors_total", Help: "Purges that did not remove all that they were to."})
)

func init() { prometheus.MustRegister(removedTotal, heldGauge, purgeErrors) }

// Remover is a store that can remove sessions.
type Remover interface {
	// Remove removes the sessions that it knows of those. What it cannot remove yet, though nothing is wrong, it says
	// with an error that wraps a *segment.Locked, and removes the rest.
	Remove(ctx context.Context, sessions []string) error
}

// Term is for how long sessions are kept, and the word for it. A zero Keep is for good.
type Term struct {
	Class string
	Keep  time.Duration
}

// Store is an archive store and its name in the configuration.
type Store struct {
	Name string
	core.Store
}

// Config of a Keeper.
type Config struct {
	Stores []Store
	Index  *index.Index // nil: none
	Ledger *ledger.Ledger
	Keys   *keyring.Ring // opens what is encrypted; nil: nothing is
	// Recipients are whom recording keys are wrapped for.
	Recipients func() ([]age.Recipient, error)
	// Term says for how long the sessions of a target are kept.
	Term func(target string) Term
	Log  *slog.Logger
}

// Keeper holds, releases and removes. Safe for concurrent use.
type Keeper struct {
	c  Config
	mu sync.Mutex // one purge at a time
}

// New makes a Keeper.
func New(c Config) *Keeper {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{c: c}
}

// Hold puts sessions under legal hold: nothing removes them until they are released. All of them or none.
func (k *Keeper) Hold(ctx context.Context, by, why string, sessions ...string) error {
	return k.deed(ctx, ledger.LeafHold, by, why, sessions)
}

// Release ends the legal hold of sessions. All of them or none.
func (k *Keeper) Release(ctx context.Context, by, why string, sessions ...string) error {
	return k.deed(ctx, ledger.LeafRelease, by, why, sessions)
}

func (k *Keeper) deed(ctx context.Context, kind ledger.LeafKind, by, why string, sessions []string) error {
	if len(by) > ledger.MaxWhy || len(why) > ledger.MaxWhy {
		return fmt.Errorf("retention: a name or a reason has more than %d bytes", ledger.MaxWhy)
	}
	now := time.Now()
	leaves := make([]ledger.Leaf, len(sessions))
	for i, id := range sessions {
		last, err := k.last(ctx, id)
		if err != nil {
			return err
		}
		leaves[i] = last.Done(kind, by, why, now)
	}
	return k.c.Ledger.AppendAll(leaves)
}

// laster is a store that finds the newest block of a session without reading the others.
type laster interface {
	Last(ctx context.Context, id string) (core.Block, error)
}

// last is the leaf that a session's newest stored block would give.
func (k *Keeper) last(ctx context.Context, id string) (ledger.Leaf, error) {
	var leaf ledger.Leaf
	found := false
	for _, s := range k.c.Stores {
		look := func(b core.Block) error {
			end := core.End("")
			if b.Header.Seal {
				h, err := ledger.ParseBlock(b.Bytes)
				if err != nil {
					return err
				}
				seal, err := h.ReadSeal()
				if err != nil {
					return err
				}
				end = seal.End
			}
			leaf, found = ledger.LeafOf(b, end, time.Time{}), true
			return nil
		}
		var err error
		if l, ok := s.Store.(laster); ok {
			var b core.Block
			if b, err = l.Last(ctx, id); err == nil {
				err = look(b)
			}
		} else {
			err = s.Blocks(ctx, id, look)
		}
		if err != nil && !errors.Is(err, core.ErrNoSession) {
			return leaf, fmt.Errorf("retention: session %s in %s: %w", id, s.Name, err)
		}
		if found {
			return leaf, nil
		}
	}
	return leaf, fmt.Errorf("retention: session %s: %w", id, core.ErrNoSession)
}

// Report is what a purge did, or would do.
type Report struct {
	Removed []Session `json:"removed"`
	Held    []Session `json:"held"`   // over their time, and under legal hold
	Locked  []Stays   `json:"locked"` // removed, but for stores that cannot let go of them yet
	DryRun  bool      `json:"dry_run"`
}

// Session is one that is over its time.
type Session struct {
	ID     string    `json:"id"`
	Target string    `json:"target"`
	Class  string    `json:"class"`
	Sealed time.Time `json:"sealed"`
	leaf   ledger.Leaf
}

// Stays says what stays in a store until when.
type Stays struct {
	Store string    `json:"store"`
	Parts int       `json:"parts"`
	Until time.Time `json:"until"`
}

// atOnce is how many sessions get their tombstones together.
const atOnce = 1000

// Purge removes what is over its time at now, and what an earlier purge left. With dry it only says what it would remove.
func (k *Keeper) Purge(ctx context.Context, by string, now time.Time, dry bool) (Report, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r, err := k.purge(ctx, by, now, dry)
	if err != nil && ctx.Err() == nil {
		purgeErrors.Inc()
	}
	return r, err
}

func (k *Keeper) purge(ctx context.Context, by string, now time.Time, dry bool) (Report, error) {
	r := Report{Removed: []Session{}, Held: []Session{}, Locked: []Stays{}, DryRun: dry}
	due, tombs, unread := k.due(ctx, now)
	if unread != nil && tombs == nil && due == nil {
		return r, unread
	}
	if !dry { // what an earlier shredding was to destroy, and a crash or a store that was away has left
		if err := k.finish(ctx, nil); err != nil {
			unread = errors.Join(unread, err)
		}
	}
	var leave []Session
	for _, s := range due {
		if held, gone := k.c.Ledger.Standing(s.ID); held {
			r.Held = append(r.Held, s)
		} else if !gone {
			leave = append(leave, s)
		}
	}
	if heldGauge.Set(float64(len(r.Held))); dry {
		r.Removed = append(r.Removed, leave...)
		return r, unread
	}
	for rest := leave; len(rest) > 0; {
		n := min(len(rest), atOnce)
		if err := k.entomb(rest[:n], by, now, &r); err != nil {
			return r, err
		}
		rest = rest[n:]
	}
	for _, s := range r.Removed {
		tombs = append(tombs, s.ID)
	}
	return r, errors.Join(k.remove(ctx, tombs, &r), unread)
}

// entomb writes tombstones, with one checkpoint for all of them unless one was put under hold since it was looked at.
func (k *Keeper) entomb(list []Session, by string, now time.Time, r *Report) error {
	leaves := make([]ledger.Leaf, len(list))
	for i := range list {
		leaves[i] = list[i].leaf.Done(ledger.LeafGone, by, "retention: "+list[i].why(k.c.Term(list[i].Target)), now)
	}
	err := k.c.Ledger.AppendAll(leaves)
	if errors.Is(err, ledger.ErrHeld) && len(list) > 1 {
		for i := range list {
			if err := k.entomb(list[i:i+1], by, now, r); err != nil {
				return err
			}
		}
		return nil
	}
	if errors.Is(err, ledger.ErrHeld) {
		r.Held = append(r.Held, list...)
		return nil
	}
	if err == nil {
		removedTotal.Add(float64(len(list)))
		r.Removed = append(r.Removed, list...)
	}
	return err
}

func (s *Session) why(t Term) string { return "class " + t.Class + ", kept for " + t.Keep.String() }

// due returns the sealed sessions that are over their time, and those that have a tombstone. An error that comes with them
// is about sessions that are left out.
func (k *Keeper) due(ctx context.Context, now time.Time) (due []Session, tombs []string, err error) {
	seals := map[string]ledger.Leaf{}
	var order []string
	err = k.c.Ledger.Each(func(l ledger.Leaf) error {
		switch l.Kind {
		case ledger.LeafSeal:
			if _, ok := seals[l.Session]; !ok {
				order = append(order, l.Session)
			}
			seals[l.Session] = l
		case ledger.LeafGone:
			delete(seals, l.Session)
			tombs = append(tombs, l.Session)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	targets, err := k.targets(ctx)
	if err != nil {
		return nil, nil, err
	}
	var unread []error
	for _, id := range order {
		l, ok := seals[id]
		if !ok {
			continue
		}
		if target, known := targets[id]; known && !over(k.c.Term(target), l, now) { // a hint, which is followed in one direction only
			continue
		}
		target, err := k.target(ctx, id)
		if errors.Is(err, core.ErrNoSession) {
			continue // verification tells
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil, nil, ctx.Err()
			}
			unread = append(unread, err)
			continue
		}
		if t := k.c.Term(target); over(t, l, now) {
			due = append(due, Session{ID: id, Target: target, Class: t.Class, Sealed: l.Time, leaf: l})
		}
	}
	return due, tombs, errors.Join(unread...)
}

func over(t Term, l ledger.Leaf, now time.Time) bool { return t.Keep > 0 && now.Sub(l.Time) > t.Keep }

// targets is what the index says: it saves the reading of sessions that are not due.
func (k *Keeper) targets(ctx context.Context) (map[string]string, error) {
	if k.c.Index == nil {
		return nil, nil
	}
	return k.c.Index.Targets(ctx)
}

var errEnough = errors.New("enough")

// target reads a session's target from its first record.
func (k *Keeper) target(ctx context.Context, id string) (target string, err error) {
	err = fmt.Errorf("retention: session %s: %w", id, core.ErrNoSession)
	for _, s := range k.c.Stores {
		read := false
		serr := s.Blocks(ctx, id, func(b core.Block) error {
			b, err := k.c.Keys.Clear(ctx, b)
			if errors.Is(err, ledger.ErrNoKey) || errors.Is(err, ledger.ErrLocked) { // the default holds
				read = true
				return errEnough
			}
			if err != nil {
				return err
			}
			h, err := ledger.ParseBlock(b.Bytes)
			if err != nil {
				return err
			}
			var dec ledger.Decoder
			err = dec.Decode(&h, func(r *core.Record, _ time.Duration) error {
				var open struct {
					Target string `json:"target"`
				}
				if err := json.Unmarshal(r.Facts, &open); err != nil {
					return err
				}
				target, read = open.Target, true
				return errEnough
			})
			if err == nil {
				err = errEnough // a first block without a whole record: it has no target, so the default holds
				read = true
			}
			return err
		})
		if read {
			return target, nil
		}
		if serr != nil && !errors.Is(serr, core.ErrNoSession) {
			err = fmt.Errorf("retention: session %s in %s: its target cannot be read, so it is kept: %w", id, s.Name, serr)
		}
	}
	return "", err
}

// remove removes what has a tombstone from every store that still has it, and from the index.
func (k *Keeper) remove(ctx context.Context, tombs []string, r *Report) error {
	if len(tombs) == 0 {
		return nil
	}
	gone := make(map[string]bool, len(tombs))
	for _, id := range tombs {
		gone[id] = true
	}
	var errs []error
	for _, s := range k.c.Stores {
		var there []string
		err := s.Sessions(ctx, func(id string) error {
			if gone[id] {
				there = append(there, id)
			}
			return nil
		})
		remover, ok := s.Store.(Remover)
		if err == nil && len(there) > 0 {
			if !ok {
				err = errors.New("this kind of store cannot remove anything")
			} else {
				err = remover.Remove(ctx, there)
			}
		}
		var locked *segment.Locked
		if errors.As(err, &locked) {
			r.Locked = append(r.Locked, Stays{Store: s.Name, Parts: locked.Parts, Until: locked.Until})
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("retention: store %s: %w; the next purge goes on", s.Name, err))
		}
	}
	if k.c.Index != nil {
		targets, err := k.targets(ctx)
		var listed []string
		for id := range targets {
			if gone[id] {
				listed = append(listed, id)
			}
		}
		if err == nil {
			err = k.c.Index.Forget(ctx, listed...)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
