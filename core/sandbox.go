package core

import (
	"context"
	"crypto/tls"
	"fmt"
	"iter"
	"net"
)

// Sandbox is a Protocol that can speak a recording: it answers a client out of the records of one session, so that what the
// client does can be run again where no upstream is.
type Sandbox interface {
	// Rehearse answers one client until it is gone. It asks nobody who that is. The connection belongs to Rehearse, which
	// closes it. An error that wraps a *Divergence says that the client asked for something else, which it was told in the
	// protocol's own error.
	Rehearse(ctx context.Context, conn net.Conn, r Rehearsal) error
}

// Rehearsal is a recording that is played with a client.
type Rehearsal struct {
	// Records are those of one session, at LevelFull, in order. It can be walked more than once.
	Records iter.Seq2[*Record, error]
	Match   Match
	TLS     *tls.Config // of the client leg; nil: none
}

// Match says how what a client asks is compared with a recording.
type Match string

// The ways. The empty one is MatchOrder.
const (
	MatchOrder Match = "order" // the same requests, byte for byte, in the same order
	MatchText  Match = "text"  // the same text gets the same answer, in any order; the last one again when all are used up
)

// Divergence is where a client left the recording.
type Divergence struct {
	Command   int    // how many commands the client had asked before, as they were recorded
	Want, Got string // what was recorded, and what came; for a person
}

// Error says both sides.
func (d *Divergence) Error() string {
	return fmt.Sprintf("after %d commands the recording goes on with %s, and the client asked %s", d.Command, d.Want, d.Got)
}
