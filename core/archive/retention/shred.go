package retention

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/segment"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
)

// Shredding destroys the recording keys of a subject: what was recorded stays where it is, is proved as before, and nobody
// can read it. It begins with a leaf in the log for each session, so that a key that is gone is proved to have been
// destroyed by somebody; what a crash cuts short, the same call ends.

// Shredded is what Shred did, or would do.
type Shredded struct {
	Keys     int       `json:"keys"`
	Sessions []string  `json:"sessions"`
	Waits    []Waiting `json:"waits"`  // keys that are in use still
	Locked   []Stays   `json:"locked"` // keys that a store cannot let go of yet
	DryRun   bool      `json:"dry_run"`
}

// Waiting is a recording key that cannot be destroyed yet, and why.
type Waiting struct {
	Key   string    `json:"key"`
	Until time.Time `json:"until"` // zero: until its sessions end
	Open  []string  `json:"open"`  // sessions that are not sealed
}

// ErrNoSubject says that there is no recording key of a subject.
var ErrNoSubject = errors.New("there is no recording key of this subject: nothing of it is encrypted, or all of it is shredded")

// Shred destroys the recording keys of a subject, as an issuer names it; without an issuer of every such subject. A key that
// may be in use is left, and said to be. A session under legal hold is an error that wraps ledger.ErrHeld, and nothing is
// done.
func (k *Keeper) Shred(ctx context.Context, by, why, subject, issuer string, now time.Time, period time.Duration, dry bool) (Shredded, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := Shredded{Sessions: []string{}, Waits: []Waiting{}, Locked: []Stays{}, DryRun: dry}
	if subject == "" || len(by) > ledger.MaxWhy || len(why) > ledger.MaxWhy {
		return out, fmt.Errorf("retention: it does not say whose sessions, or a name or a reason has more than %d bytes", ledger.MaxWhy)
	}
	keys, err := k.keysOf(ctx, func(r *keyring.Record) bool {
		return r.Session == "" && r.Subject == subject && (issuer == "" || r.Issuer == issuer)
	})
	if err != nil {
		return out, err
	}
	if len(keys) == 0 && !dry { // what is left of an earlier time is destroyed all the same
		err = k.finish(ctx, &out)
	}
	if err != nil {
		return out, err
	}
	if len(keys) == 0 {
		return out, fmt.Errorf("retention: %q: %w", subject, ErrNoSubject)
	}
	sessions, err := k.encrypted(ctx, keys)
	if err != nil {
		return out, err
	}
	rests, err := k.keysOf(ctx, func(r *keyring.Record) bool { _, ok := sessions[r.Session]; return ok })
	if err != nil {
		return out, err
	}
	leaves := map[ledger.KeyID][]ledger.Leaf{}
	waits := map[ledger.KeyID]*Waiting{}
	for id, r := range keys {
		if until := r.Created.Add(period); until.After(now) {
			waits[id] = &Waiting{Key: id.String(), Until: until, Open: []string{}}
		}
	}
	for id, key := range sessions {
		if isHeld, isGone := k.c.Ledger.Standing(id); isHeld {
			return out, fmt.Errorf("retention: session %s: %w", id, ledger.ErrHeld)
		} else if isGone {
			continue
		}
		leaf, err := k.last(ctx, id)
		if err != nil {
			return out, err
		}
		if leaf.Kind != ledger.LeafSeal {
			w := waits[key]
			if w == nil {
				w = &Waiting{Key: key.String(), Open: []string{}}
				waits[key] = w
			}
			w.Open = append(w.Open, id)
			continue
		}
		leaves[key] = append(leaves[key], leaf.Done(ledger.LeafShred, by, why, now))
	}
	var drop []ledger.KeyID
	var all []ledger.Leaf
	for id := range keys {
		if w := waits[id]; w != nil {
			out.Waits = append(out.Waits, *w)
			continue
		}
		drop, all = append(drop, id), append(all, leaves[id]...)
	}
	for _, l := range all {
		out.Sessions = append(out.Sessions, l.Session)
	}
	for id, r := range rests {
		if waits[sessions[r.Session]] == nil {
			drop = append(drop, id)
		}
	}
	if out.Keys = len(drop); dry || len(drop) == 0 {
		return out, nil
	}
	for rest := all; len(rest) > 0; {
		n := min(len(rest), atOnce)
		if err := k.c.Ledger.AppendAll(rest[:n]); err != nil {
			return out, err
		}
		rest = rest[n:]
	}
	if err := k.c.Ledger.Destroy(by, why, now, drop...); err != nil {
		return out, err
	}
	return out, k.finish(ctx, &out)
}

// Rewrapped is what Rewrap did.
type Rewrapped struct {
	Keys   int `json:"keys"`
	Locked int `json:"locked"` // that could not be opened here, and stay as they are
}

// Rewrap wraps every recording key anew, for the present recipients: after one was added, taken away or changed.
func (k *Keeper) Rewrap(ctx context.Context) (Rewrapped, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out Rewrapped
	to, err := k.c.Recipients()
	if err == nil && len(to) == 0 {
		err = errors.New("retention: recordings are not encrypted: there is nobody to wrap their keys for")
	}
	if err != nil {
		return out, err
	}
	for _, s := range k.c.Stores {
		keys, ok := s.Store.(keyring.Store)
		if !ok {
			continue
		}
		done, locked, err := k.c.Keys.In(keys).Rewrap(ctx, to...)
		out.Keys, out.Locked = max(out.Keys, done), max(out.Locked, locked)
		if err != nil {
			return out, fmt.Errorf("retention: store %s: %w", s.Name, err)
		}
	}
	return out, nil
}

// RotateLedger has the log of seals signed with another key from now on, and returns its public half.
func (k *Keeper) RotateLedger() (publicKey string, err error) { return k.c.Ledger.Rotate() }

// keysOf returns the recording keys of all stores that fit.
func (k *Keeper) keysOf(ctx context.Context, fits func(*keyring.Record) bool) (map[ledger.KeyID]*keyring.Record, error) {
	out, looked := map[ledger.KeyID]*keyring.Record{}, map[ledger.KeyID]bool{}
	for _, s := range k.c.Stores {
		keys, ok := s.Store.(keyring.Store)
		if !ok {
			continue
		}
		var names []string
		if err := keys.Keys(ctx, func(name string) error { names = append(names, name); return nil }); err != nil {
			return nil, fmt.Errorf("retention: store %s: %w", s.Name, err)
		}
		for _, name := range names {
			id, err := ledger.ParseKeyID(name)
			if err != nil {
				return nil, fmt.Errorf("retention: store %s: %w", s.Name, err)
			}
			if looked[id] { // another store, which may be nearer, has the same
				continue
			}
			looked[id] = true
			r, err := keyring.Get(ctx, keys, id)
			if err != nil {
				return nil, fmt.Errorf("retention: store %s: %w", s.Name, err)
			}
			if fits(r) {
				out[id] = r
			}
		}
	}
	return out, nil
}

// encrypted returns the sessions that begin with one of the keys, and with which.
func (k *Keeper) encrypted(ctx context.Context, keys map[ledger.KeyID]*keyring.Record) (map[string]ledger.KeyID, error) {
	out, looked := map[string]ledger.KeyID{}, map[string]bool{}
	for _, s := range k.c.Stores {
		var ids []string
		fresh := func(id string) error {
			if !looked[id] { // else another store, which may be nearer, has the same
				ids = append(ids, id)
			}
			return nil
		}
		if err := s.Sessions(ctx, fresh); err != nil {
			return nil, fmt.Errorf("retention: store %s: %w", s.Name, err)
		}
		for _, id := range ids {
			err := s.Blocks(ctx, id, func(b core.Block) error {
				h, err := ledger.ParseBlock(b.Bytes)
				if err != nil {
					return err
				}
				looked[id] = true
				if h.Secret && keys[h.Key] != nil {
					out[id] = h.Key
				}
				return errEnough
			})
			if err != nil && !errors.Is(err, errEnough) && !errors.Is(err, core.ErrNoSession) {
				return nil, fmt.Errorf("retention: session %s in %s: its key cannot be told, so nothing is shredded: %w", id, s.Name, err)
			}
		}
	}
	return out, nil
}

// finish destroys the keys that are noted as destroyed and that a store still has: first what the index knows of their
// sessions, so that whoever does it again after a crash finds them by the keys. Records that are on the bus still are dropped
// when they get to a store, and go with the next purge of the streams: a purge of their subjects alone would, in nats-server,
// take what consumers have not acknowledged from them.
func (k *Keeper) finish(ctx context.Context, out *Shredded) error {
	if !k.c.Ledger.AnyDestroyed() {
		return nil
	}
	keys, err := k.keysOf(ctx, func(r *keyring.Record) bool { _, ok := k.c.Ledger.Destroyed(r.ID); return ok })
	if err != nil {
		return err
	}
	for id := range keys {
		k.c.Keys.Forget(id)
	}
	if len(keys) > 0 && k.c.Index != nil {
		of, err := k.encrypted(ctx, keys)
		if err != nil {
			return err
		}
		var sessions []string
		for id := range of {
			sessions = append(sessions, id)
		}
		if err := k.c.Index.Forget(ctx, sessions...); err != nil {
			return err
		}
		closed := keyring.Reader{Store: k.c.Stores[0].Store, Closed: true} // they are listed as sessions that cannot be read
		if err := k.c.Index.Again(ctx, closed, sessions...); err != nil {
			return err
		}
	}
	var drop []ledger.KeyID
	for id, r := range keys {
		if r.Session != "" { // before that of the session's begin, by which it is found
			drop = append([]ledger.KeyID{id}, drop...)
			continue
		}
		drop = append(drop, id)
	}
	return k.drop(ctx, drop, out)
}

// drop drops keys from every store.
func (k *Keeper) drop(ctx context.Context, drop []ledger.KeyID, out *Shredded) error {
	var errs []error
	for _, s := range k.c.Stores {
		keys, ok := s.Store.(keyring.Store)
		if !ok {
			continue
		}
		var locked segment.Locked
		for _, id := range drop {
			err := keys.DropKey(ctx, id.String())
			var l *segment.Locked
			if errors.As(err, &l) {
				if locked.Parts++; l.Until.After(locked.Until) {
					locked.Until = l.Until
				}
			} else if err != nil { // what is behind it stays, so that it is found again
				errs = append(errs, fmt.Errorf("retention: store %s: %w; do it again", s.Name, err))
				break
			}
		}
		if locked.Parts > 0 && out != nil {
			out.Locked = append(out.Locked, Stays{Store: s.Name, Parts: locked.Parts, Until: locked.Until})
		}
	}
	return errors.Join(errs...)
}
