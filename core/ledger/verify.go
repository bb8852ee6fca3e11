package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weir-gateway/weir/core"
)

// VerifyConfig says what to verify, and with which key.
type VerifyConfig struct {
	Store     core.Store
	LedgerDir string
	PublicKey string   // the text of ledger.pub
	Sessions  []string // nil: all of them, and the log as a whole
	// Checkpoint is an earlier signed checkpoint that was kept elsewhere, or nil: with it a roll-back of archive and
	// ledger together is found as well.
	Checkpoint []byte
	// Witnesses must each have cosigned an earlier state of the log that is in LedgerDir, or as many of them as Enough says (0:
	// all): then whoever has the log's key cannot have written it anew either.
	Witnesses []*Witness
	Enough    int
	// Keys opens what is encrypted. Nil: encrypted contents are not looked at, and everything else is proved.
	Keys Keys
	// Grace is how long a seal may lack its leaf because a running gateway is about to write it. Zero: 3 s.
	Grace time.Duration
}

// Problem is one thing that does not hold.
type Problem struct {
	Session string `json:"session,omitempty"` // empty: the archive or the log as a whole
	Block   int64  `json:"block"`             // -1: not about a block
	Seq     int64  `json:"seq"`               // -1: not about a record
	Text    string `json:"text"`
}

// String names the place first.
func (p Problem) String() string {
	s := "archive"
	if p.Session != "" {
		s = "session " + p.Session
	}
	if p.Block >= 0 {
		s += fmt.Sprintf(", block %d", p.Block)
	}
	if p.Seq >= 0 {
		s += fmt.Sprintf(", record %d", p.Seq)
	}
	return s + ": " + p.Text
}

// Report is what Verify found.
type Report struct {
	Sessions int       `json:"sessions"`
	Blocks   int       `json:"blocks"`
	Records  int       `json:"records"`
	Bytes    int64     `json:"bytes"`  // of blocks as stored
	Open     []string  `json:"open"`   // sessions without a seal that hold as far as they go
	Unread   int       `json:"unread"` // sessions that are encrypted, and whose contents were not looked at
	Removed  []Removed `json:"removed"`
	Shredded []Removed `json:"shredded"` // sessions whose key was destroyed, as the signed log says; Left: its key is there
	Problems []Problem `json:"problems"`
	// Witnessed is what witnesses have cosigned of the log, in the order that they were given.
	Witnessed []Witnessed `json:"witnessed"`
	Leaves    int64       `json:"leaves"` // that the log has
}

// Witnessed says that a witness has cosigned the log's first leaves.
type Witnessed struct {
	Witness string    `json:"witness"` // the name of its key
	Leaves  int64     `json:"leaves"`
	Time    time.Time `json:"time"` // by the witness's clock
}

// Keys opens encrypted sessions.
type Keys interface {
	// DataKey returns the data key of a session that is encrypted with a recording key. An error that wraps ErrNoKey says
	// that the recording key is gone, one that wraps ErrLocked that it is there and cannot be opened here.
	DataKey(ctx context.Context, key KeyID, session string) (*DataKey, error)
}

// ErrLocked says that a recording key is there, and that nothing is at hand to open it with.
var ErrLocked = errors.New("its key is there, and nothing is at hand to open it with")

// Removed is a session that the store does not have, or not all of, because it was removed, as the signed log says.
type Removed struct {
	Session string    `json:"session"`
	Time    time.Time `json:"time"`
	By      string    `json:"by"`
	Why     string    `json:"why"`
	Blocks  uint64    `json:"blocks"` // that it had
	Records uint64    `json:"records"`
	Left    int       `json:"left"` // blocks that the store still has, or, of a shredded one, that can be read still
}

// OK reports whether nothing was found.
func (r *Report) OK() bool { return len(r.Problems) == 0 }

// Checker is a store that can tell of damage that belongs to no block, such as bytes it cannot read.
type Checker interface {
	// Damage returns one sentence for each place.
	Damage(ctx context.Context) ([]string, error)
}

// Verify proves, with the public key alone, that the store holds what was sealed: each session's chain of blocks
// and dense records, one seal at the end, each seal a leaf of the signed log, and each leaf's session in the store.
// It fails only when it could not look; what it found is in the report. It may run beside a gateway.
func Verify(ctx context.Context, c VerifyConfig) (Report, error) {
	v := &verifier{c: c}
	if c.Grace == 0 {
		v.c.Grace = 3 * time.Second
	}
	if err := v.readLog(); err != nil { // before the store: what is in the log was stored first
		return v.r, err
	}
	ids := slices.Clone(c.Sessions)
	if c.Sessions == nil {
		err := c.Store.Sessions(ctx, func(id string) error { ids = append(ids, id); return nil })
		if ctx.Err() != nil {
			return v.r, ctx.Err()
		}
		if err != nil {
			v.problem("", -1, -1, "the store's sessions cannot be listed: %v", err)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		seen[id] = true
		v.sessionOrTomb(ctx, id)
		if ctx.Err() != nil {
			return v.r, ctx.Err()
		}
	}
	if c.Sessions == nil {
		for _, id := range v.log.order { // what the log has and the store's list has not
			if !seen[id] {
				v.sessionOrTomb(ctx, id)
			}
		}
		if s, ok := c.Store.(Checker); ok {
			damage, err := s.Damage(ctx)
			if err != nil {
				v.problem("", -1, -1, "the store cannot be checked: %v", err)
			}
			for _, d := range damage {
				v.problem("", -1, -1, "%s", d)
			}
		}
	}
	if err := v.matchSeals(ctx); err != nil {
		return v.r, err
	}
	if err := v.meanwhile(ctx); err != nil {
		return v.r, err
	}
	v.r.Problems = append(v.r.Problems, v.log.problems...)
	v.r.Witnessed, v.r.Leaves = v.log.witnessed, v.log.leaves
	return v.r, nil
}

type verifier struct {
	c     VerifyConfig
	r     Report
	log   *logView
	seals []foundSeal
}

type foundSeal struct {
	id     string
	number uint64
	hash   [32]byte
	blocks uint64
	recs   uint64
	end    core.End
}

func (v *verifier) problem(id string, block, seq int64, format string, args ...any) {
	v.r.Problems = append(v.r.Problems, Problem{Session: id, Block: block, Seq: seq, Text: fmt.Sprintf(format, args...)})
}

var errBad = errors.New("bad block") // ends the walk over a session; the problem is noted already

// session walks one session's blocks in order, up to the first thing that does not hold.
func (v *verifier) session(ctx context.Context, id string) {
	v.r.Sessions++
	var (
		dec    = Decoder{Passing: true}
		prev   [32]byte
		number uint64
		sealed bool
		last   core.Block
		heads  = v.log.heads[id]
		bad    bool
		before = v.r.Records
	)
	fail := func(seq int64, format string, args ...any) error {
		bad = true
		v.problem(id, int64(number), seq, format, args...)
		return errBad
	}
	err := v.c.Store.Blocks(ctx, id, func(b core.Block) error {
		v.r.Blocks++
		v.r.Bytes += int64(len(b.Bytes))
		hash := sha256.Sum256(b.Bytes)
		h, err := ParseBlock(b.Bytes)
		switch {
		case sealed:
			return fail(-1, "a block follows the seal")
		case hash != b.Hash:
			return fail(-1, "the block is not what was stored: its hash is %x, stored with it is %x", hash[:8], b.Hash[:8])
		case err != nil:
			return fail(-1, "%v", err)
		case h.Session != id:
			return fail(-1, "the block belongs to session %s", h.Session)
		case h.Number != number:
			return fail(-1, "block %d stands where block %d should: blocks are missing", h.Number, number)
		case h.Prev != prev:
			return fail(-1, "the block does not follow the one before it: chained to %x, the hash before is %x", h.Prev[:8], prev[:8])
		}
		if err := v.contents(ctx, &h, &dec); err != nil {
			return fail(int64(dec.Next()), "%v", err)
		}
		for len(heads) > 0 && heads[0].Blocks == number+1 {
			if heads[0].Hash != hash {
				return fail(-1, "the log has a signed head of the session at this block with another hash")
			}
			heads = heads[1:]
		}
		if h.Seal {
			sealed = true
			s := dec.Seal()
			switch {
			case s.Blocks != number+1 || s.Records != dec.Next():
				return fail(-1, "the seal counts %d blocks and %d records, the session has %d and %d", s.Blocks, s.Records, number+1, dec.Next())
			case s.Root != prev:
				return fail(-1, "the seal's root is not the hash of the block before it")
			}
		}
		last = core.Block{Header: h.BlockHeader, Hash: hash}
		prev = hash
		number++
		return nil
	})
	if dec.Skips {
		v.r.Unread++
		v.r.Records = before + int(dec.Next())
	}
	switch {
	case bad || ctx.Err() != nil:
		return
	case errors.Is(err, core.ErrNoSession) || (err == nil && number == 0):
		if leaf, ok := v.log.seals[id]; ok {
			v.problem(id, -1, -1, "the log has the session's seal (%d blocks), the store does not have the session: it was removed", leaf.Blocks)
		} else if len(heads) > 0 {
			v.problem(id, -1, -1, "the log has a signed head of the session (%d blocks), the store does not have the session: it was removed", heads[len(heads)-1].Blocks)
		} else {
			v.problem(id, -1, -1, "the store does not have the session")
		}
		return
	case err != nil:
		v.problem(id, int64(number), -1, "the store cannot read the session: %v", err)
		return
	case len(heads) > 0:
		v.problem(id, int64(number), -1, "the log has a signed head of the session with %d blocks, the store has %d: the end was cut off", heads[len(heads)-1].Blocks, number)
		return
	}
	if sealed {
		s := dec.Seal()
		if l, ok := v.log.shreds[id]; ok && (l.Hash != last.Hash || l.Blocks != s.Blocks || l.Records != s.Records || l.End != s.End) {
			v.problem(id, -1, -1, "the leaf that says that its key was destroyed is not of the session's seal")
		}
		v.seals = append(v.seals, foundSeal{id: id, number: number - 1, hash: last.Hash, blocks: s.Blocks, recs: s.Records, end: s.End})
		return
	}
	if leaf, ok := v.log.seals[id]; ok {
		v.problem(id, int64(number), -1, "the log has the session's seal with %d blocks, the store has %d: the end was cut off", leaf.Blocks, number)
		return
	}
	v.r.Open = append(v.r.Open, id)
}

// contents decodes a block. One that is encrypted, and everything behind it, is passed over where its key is not at hand;
// a key that is gone must have been destroyed by somebody whom the signed log names.
func (v *verifier) contents(ctx context.Context, h *Header, dec *Decoder) error {
	if h.Secret && !dec.Skips {
		shred, shredded := v.log.shreds[h.Session]
		shredded = shredded && shred.covered
		var key *DataKey
		err := ErrLocked
		if v.c.Keys != nil {
			key, err = v.c.Keys.DataKey(ctx, h.Key, h.Session)
		}
		if shredded && h.Number == 0 {
			v.r.Shredded = append(v.r.Shredded, Removed{Session: h.Session, Time: shred.Time, By: shred.By, Why: shred.Why, Blocks: shred.Blocks, Records: shred.Records})
			if err == nil {
				v.r.Shredded[len(v.r.Shredded)-1].Left = int(shred.Blocks)
			}
		}
		switch {
		case err == nil:
			if err := h.Decrypt(key); err != nil {
				return err
			}
		case errors.Is(err, ErrNoKey) && !shredded:
			return fmt.Errorf("its key %s is gone, and the signed log does not say that it was destroyed", h.Key)
		case errors.Is(err, ErrLocked), errors.Is(err, ErrNoKey):
			dec.Skips = true
		default:
			return err
		}
	}
	if dec.Skips {
		return dec.Skip(h)
	}
	return dec.Decode(h, func(*core.Record, time.Duration) error { v.r.Records++; return nil })
}

// matchSeals compares the seals found with the log's, and waits a little for those that a running gateway is about
// to write.
func (v *verifier) matchSeals(ctx context.Context) error {
	deadline := time.Now().Add(v.c.Grace)
	missing := func() (n int) {
		for _, s := range v.seals {
			if leaf, ok := v.log.seals[s.id]; !ok || !leaf.covered {
				n++
			}
		}
		return n
	}
	for missing() > 0 && time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		if err := v.readLog(); err != nil {
			return err
		}
	}
	for _, s := range v.seals {
		leaf, ok := v.log.seals[s.id]
		switch {
		case !ok:
			v.problem(s.id, int64(s.number), -1, "the session is sealed, and its seal is not in the log: the log is older than the archive, or the session was made up")
		case leaf.Hash != s.hash:
			v.problem(s.id, int64(s.number), -1, "the seal is not the one in the log: %x here, %x there", s.hash[:8], leaf.Hash[:8])
		case leaf.Blocks != s.blocks || leaf.Records != s.recs || leaf.End != s.end:
			v.problem(s.id, int64(s.number), -1, "the seal and its leaf differ in counts or end")
		case !leaf.covered:
			v.problem(s.id, int64(s.number), -1, "the session's leaf is not covered by the signed checkpoint")
		}
	}
	return nil
}
