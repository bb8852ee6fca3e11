package core

import (
	"context"
	"time"
)

// Record is one event as it is kept: what the chain left of it.
type Record struct {
	Seq       uint64 // dense from 0 within a session
	Time      time.Time
	Kind      Kind
	Direction Direction
	Facts     []byte     // a JSON object; its fields depend on Kind and are described in core/ARCHIVE.md
	Decisions []Decision // what the steps decided
	Wire      []byte     // the bytes as delivered; only at LevelFull
}

// Mark is a position in a journal. Positions grow; everything up to a settled mark is kept for good.
type Mark uint64

// End says how a session ended; it stands in the seal.
type End string

// The ends of a session.
const (
	EndClosed      End = "closed"        // the client or the upstream hung up
	EndRefused     End = "refused"       // no session was opened: identity, access or limits
	EndError       End = "error"         // protocol error, limit, upstream failure
	EndKilled      End = "killed"        // an operator, a drain, or an expired token
	EndJournalLost End = "journal-lost"  // nothing could be recorded any more
	EndCrash       End = "gateway-crash" // sealed by a later start
)

// Recorder keeps the records of one session. Calls come one at a time.
type Recorder interface {
	// Record takes a copy of r and returns the mark that Settle has to reach before r's bytes may leave.
	// It waits while the journal is over its memory bound, and fails when the journal is lost.
	Record(ctx context.Context, r *Record) (Mark, error)
	// Settle returns once everything up to m is as durable as the session's promise says. Safe to call from
	// several goroutines, also during Record.
	Settle(ctx context.Context, m Mark) error
	// Settled reports whether to call Settle: it would return at once, or soonest of all. Else then is called once, from
	// any goroutine, when it would return; then must not wait.
	Settled(m Mark, then func()) bool
	// Seal ends the session: nothing is recorded after it.
	Seal(end End) error
}

// Journal opens a Recorder for each session.
type Journal interface {
	Open(s *Session) (Recorder, error)
}

// Promise says when a command may go upstream, and when its answer may reach the client.
type Promise string

// The promises.
const (
	PromiseStrict  Promise = "strict"  // once the record is durable
	PromiseBounded Promise = "bounded" // once it is in the local log, with a bounded window ahead of the disk
	PromiseOff     Promise = "off"     // at once; only the session's metadata is kept
)

// BlockHeader describes one block: the unit that is hashed, published and stored.
type BlockHeader struct {
	Session  string
	Number   uint64 // dense from 0 within a session
	FirstSeq uint64
	LastSeq  uint64   // FirstSeq-1 when the block holds no record
	Prev     [32]byte // the hash of the session's previous block; zeros for block 0
	Seal     bool     // the last block of the session
}

// Block is a header and its payload, as stored. Its bytes are never changed after it has been hashed.
type Block struct {
	Header BlockHeader
	Hash   [32]byte // SHA-256 over the encoded header and the stored payload
	Bytes  []byte   // the encoded block: header and payload; owned by whoever made it
}

// Store keeps blocks for good. Implementations run storetest.
type Store interface {
	// Put stores blocks; when it returns nil they are durable. Storing a block twice changes nothing; storing a
	// different block of the same session and number is an error.
	Put(ctx context.Context, blocks []Block) error
	// Sessions calls f with the id of each session that has a block, in no order, until f fails.
	Sessions(ctx context.Context, f func(id string) error) error
	// Blocks calls f with the blocks of one session in order, as stored and unverified, until f fails. The block's
	// bytes are valid during f only. An unknown session yields ErrNoSession.
	Blocks(ctx context.Context, id string, f func(Block) error) error
	Close() error
}
