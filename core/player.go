package core

import (
	"io"
	"time"
)

// Player is a Protocol that shows its recordings in ways of its own: their bytes mean something only together, such as what
// stood on a terminal, or a file in pieces.
type Player interface {
	// Formats are the ways it has beside "text".
	Formats() []string
	// Play begins to show a session.
	Play(out io.Writer, how Playing) Playback
}

// Playing says how a session is to be shown.
type Playing struct {
	Format string // "text", or one of the Player's
	// Screen reports that out is a person's terminal: what was drawn on one may be drawn on it.
	Screen bool
	// Channel is the one to show, of a session that carries several things side by side; negative: the first that can be shown.
	Channel int
	// Pause is the longest one that a player of what is written is to make; 0: as it was.
	Pause time.Duration
}

// Playback shows one session. It is used by one goroutine.
type Playback interface {
	// Show takes the next record. Where it has not done with it, the record is shown in the way that all protocols share.
	Show(r *Record) (done bool, err error)
	// Close writes what is left. It fails with a Refusal where there was nothing to show.
	Close() error
}
