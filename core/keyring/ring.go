package keyring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"filippo.io/age"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// Store keeps the records of recording keys, beside the blocks: an archive store that also has these methods.
type Store interface {
	// PutKey keeps a record; when it returns nil it is durable. What was kept under the same name is replaced.
	PutKey(ctx context.Context, name string, record []byte) error
	// Key returns a record; an error that wraps fs.ErrNotExist says that there is none.
	Key(ctx context.Context, name string) ([]byte, error)
	// Keys calls f with the name of each record, until f fails.
	Keys(ctx context.Context, f func(name string) error) error
	// DropKey removes a record for good. One that is not there is removed already.
	DropKey(ctx context.Context, name string) error
}

// Ring opens recording keys. Safe for concurrent use. A nil Ring opens none.
type Ring struct {
	from Store
	// Reload, unless it is nil, reads what unwraps anew, where what is at hand opens nothing.
	Reload func() ([]age.Identity, error)
	// Gone, unless it is nil, names keys that count as destroyed though a record of them may be there still.
	Gone func(ledger.KeyID) bool

	mu   sync.Mutex
	with []age.Identity
	open map[ledger.KeyID]opened
}

type opened struct {
	key *ledger.RecordingKey
	at  time.Time
}

const (
	maxOpen  = 4096
	openTime = time.Minute // after that the record is looked at anew: it may have been destroyed
)

// New makes a Ring of the records in a store and of what unwraps them.
func New(from Store, with ...age.Identity) *Ring {
	return &Ring{from: from, with: with, open: map[ledger.KeyID]opened{}}
}

// In returns a Ring of another store's records, opened with the same.
func (r *Ring) In(from Store) *Ring {
	other := New(from, r.identities()...)
	other.Reload, other.Gone = r.Reload, r.Gone
	return other
}

func (r *Ring) identities() []age.Identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.with
}

// unwrap opens a record.
func (r *Ring) unwrap(rec *Record) (*ledger.RecordingKey, error) {
	key, err := rec.Open(r.identities()...)
	if !errors.Is(err, ledger.ErrLocked) || r.Reload == nil {
		return key, err
	}
	with, err := r.Reload()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.with = with
	r.mu.Unlock()
	return rec.Open(with...)
}

// DataKey implements ledger.Keys.
func (r *Ring) DataKey(ctx context.Context, id ledger.KeyID, session string) (*ledger.DataKey, error) {
	if r == nil {
		return nil, ledger.ErrLocked
	}
	key, err := r.key(ctx, id)
	if err != nil {
		return nil, err
	}
	return key.Session(session), nil
}

func (r *Ring) key(ctx context.Context, id ledger.KeyID) (*ledger.RecordingKey, error) {
	if r.Gone != nil && r.Gone(id) {
		return nil, fmt.Errorf("keyring: key %s: %w", id, ledger.ErrNoKey)
	}
	r.mu.Lock()
	o, ok := r.open[id]
	r.mu.Unlock()
	if ok && time.Since(o.at) < openTime {
		return o.key, nil
	}
	rec, err := Get(ctx, r.from, id)
	if err != nil {
		return nil, err
	}
	key, err := r.unwrap(rec)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	if len(r.open) >= maxOpen {
		clear(r.open)
	}
	r.open[id] = opened{key, time.Now()}
	r.mu.Unlock()
	return key, nil
}

// Forget drops what is known of a key that was destroyed.
func (r *Ring) Forget(id ledger.KeyID) {
	if r == nil {
		return
	}
	r.mu.Lock()
	delete(r.open, id)
	r.mu.Unlock()
}

// Get reads a record. An error that wraps ledger.ErrNoKey says that it is not there.
func Get(ctx context.Context, from Store, id ledger.KeyID) (*Record, error) {
	b, err := from.Key(ctx, id.String())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("keyring: key %s: %w", id, ledger.ErrNoKey)
	}
	if err != nil {
		return nil, err
	}
	rec, err := Parse(b)
	if err == nil && rec.ID != id {
		err = fmt.Errorf("keyring: the record of key %s is that of %s", id, rec.ID)
	}
	return rec, err
}

// Rewrap wraps every recording key anew for these recipients, and returns how many it could open. Those that it cannot
// open stay as they are.
func (r *Ring) Rewrap(ctx context.Context, to ...age.Recipient) (done, locked int, err error) {
	var names []string
	if err := r.from.Keys(ctx, func(name string) error { names = append(names, name); return nil }); err != nil {
		return 0, 0, err
	}
	for _, name := range names {
		id, err := ledger.ParseKeyID(name)
		if err != nil {
			return done, locked, err
		}
		rec, err := Get(ctx, r.from, id)
		if errors.Is(err, ledger.ErrNoKey) {
			continue
		}
		if err != nil {
			return done, locked, err
		}
		key, err := r.unwrap(rec)
		if errors.Is(err, ledger.ErrLocked) {
			locked++
			continue
		}
		if err == nil {
			err = rec.wrap(key, to)
		}
		var b []byte
		if err == nil {
			b, err = rec.Encode()
		}
		if err == nil {
			err = r.from.PutKey(ctx, name, b)
		}
		if err != nil {
			return done, locked, err
		}
		done++
	}
	return done, locked, nil
}

// Clear opens a block. One that is not encrypted is returned as it is.
func (r *Ring) Clear(ctx context.Context, b core.Block) (core.Block, error) {
	h, err := ledger.ParseBlock(b.Bytes)
	if err != nil || !h.Secret {
		return b, nil // what is no block is the reader's to tell
	}
	key, err := r.DataKey(ctx, h.Key, h.Session)
	if err != nil {
		return b, fmt.Errorf("session %s: %w", h.Session, err)
	}
	return ledger.Clear(b, key)
}

// Reader is a store whose encrypted blocks can be read. Their headers and hashes stay those of what is stored; their bytes
// are not, so it proves nothing.
type Reader struct {
	core.Store
	Ring *Ring
	// Closed has blocks whose key is not at hand passed on as they are, in place of an error.
	Closed bool
}

// Blocks implements core.Store.
func (r Reader) Blocks(ctx context.Context, id string, f func(core.Block) error) error {
	return r.Store.Blocks(ctx, id, func(b core.Block) error {
		clear, err := r.Ring.Clear(ctx, b)
		if err != nil && (!r.Closed || !errors.Is(err, ledger.ErrLocked) && !errors.Is(err, ledger.ErrNoKey)) {
			return err
		}
		return f(clear)
	})
}
