package ssh

import (
	"bytes"
	"io"
	"time"
)

// holdBack bounds how long a piece waits for what may belong to it, so that a step sees a value whole that came in two packets.
const holdBack = 20 * time.Millisecond

// gatherer is a reader whose pieces end at the ends of lines, as far as they come within holdBack of their beginning. A piece that is
// full ends at its last line, or at its last word where it is one line.
type gatherer struct {
	chunks chan []byte
	free   chan []byte
	over   chan struct{}
	err    error // once chunks is closed
	rest   []byte
}

// stop ends it when nobody reads from it any more.
func (g *gatherer) stop() { close(g.over) }

// gather begins to read from r. It goes on until r ends.
func gather(r io.Reader) *gatherer {
	g := &gatherer{chunks: make(chan []byte, 1), free: make(chan []byte, 3), over: make(chan struct{})}
	for range cap(g.free) {
		g.free <- make([]byte, pieceSize)
	}
	go func() {
		defer close(g.chunks)
		for {
			b := <-g.free // there is one unless the last piece has not been taken, which the sending waits for
			n, err := r.Read(b[:cap(b)])
			if n > 0 {
				select {
				case g.chunks <- b[:n]:
				case <-g.over:
					return
				}
			}
			if err != nil {
				g.err = err
				return
			}
		}
	}()
	return g
}

// Read returns a piece. p has room for one.
func (g *gatherer) Read(p []byte) (n int, err error) {
	n = copy(p, g.rest)
	g.rest = append(g.rest[:0], g.rest[n:]...)
	var late <-chan time.Time
	var timer *time.Timer
	for n == 0 || n < len(p) && p[n-1] != '\n' {
		if late == nil && n > 0 {
			timer = time.NewTimer(holdBack)
			late = timer.C
			defer timer.Stop()
		}
		select {
		case b, ok := <-g.chunks:
			if !ok {
				if n == 0 {
					return 0, g.err
				}
				return n, nil
			}
			k := copy(p[n:], b)
			n += k
			g.rest = append(g.rest, b[k:]...)
			g.free <- b
		case <-late:
			return n, nil
		}
	}
	if n == len(p) && p[n-1] != '\n' {
		cut := bytes.LastIndexByte(p, '\n')
		if cut < 0 {
			cut = bytes.LastIndexAny(p, " \t\r")
		}
		if cut > 0 {
			g.rest = append(append([]byte(nil), p[cut+1:n]...), g.rest...)
			n = cut + 1
		}
	}
	return n, nil
}
