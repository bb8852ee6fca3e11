package loopback

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"time"
)

// What the promise bounded allows to be lost with a gateway: what was recorded at most so long before the last that got
// through, and at most so much.
const (
	boundedTime  = 1 * time.Second
	boundedBytes = 4 << 20
	// boundedSlack is what may lie between a gateway that sends and a client that reads, on a busy machine.
	boundedSlack = 1 * time.Second
)

// Window is the end of what a client with the promise bounded saw and asked: what may be missing of it.
type Window struct {
	points []point // after each message, oldest first
	asks   []ask
	last   time.Time
}

// point is where the client was after a message: so many bytes had come, with this hash.
type point struct {
	at    time.Time
	bytes int64
	sum   [sha256.Size]byte
}

type ask struct {
	at time.Time
	n  int
}

// saw takes note of a message that has come, and forgets what is too old to be lost.
func (w *Window) saw(bytes int64, h hash.Hash) {
	w.last = time.Now()
	p := point{at: w.last, bytes: bytes}
	h.Sum(p.sum[:0])
	w.points = append(w.points, p)
	if len(w.points) >= 2 && w.points[1].at.Before(w.from()) && len(w.points)%1024 == 0 {
		w.prune()
	}
}

// asked takes note of a statement that is sent.
func (w *Window) asked(n int) {
	w.last = time.Now()
	w.asks = append(w.asks, ask{w.last, n})
}

// from is when the window begins.
func (w *Window) from() time.Time { return w.last.Add(-boundedTime - boundedSlack) }

// prune keeps what is in the window, and the one point before it.
func (w *Window) prune() {
	from := w.from()
	n := 0
	for n+1 < len(w.points) && w.points[n+1].at.Before(from) {
		n++
	}
	w.points = append([]point(nil), w.points[n:]...)
	n = 0
	for n < len(w.asks) && w.asks[n].at.Before(from) {
		n++
	}
	w.asks = append([]ask(nil), w.asks[n:]...)
}

// mayEnd reports whether a record may end after so many bytes with this hash, in place of all that the client saw.
func (w *Window) mayEnd(bytes, all int64, sum string) (lost time.Duration, ok bool) {
	if all-bytes > boundedBytes {
		return 0, false
	}
	for i, p := range w.points {
		if p.bytes != bytes || hex.EncodeToString(p.sum[:]) != sum {
			continue
		}
		if i+1 < len(w.points) {
			lost = w.last.Sub(w.points[i+1].at)
		}
		return lost, true
	}
	return 0, false
}

// mayMiss reports whether the record of a statement may be missing.
func (w *Window) mayMiss(n int) bool {
	return len(w.asks) > 0 && n >= w.asks[0].n
}

// mayMissAll reports whether the whole session may be.
func (w *Window) mayMissAll(all int64) bool {
	return all <= boundedBytes && len(w.points) > 0 && !w.points[0].at.Before(w.from())
}
