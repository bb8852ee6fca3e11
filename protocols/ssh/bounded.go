package ssh

import (
	"errors"
	"math"
	"net"
	"sync"
	"sync/atomic"
)

// boundedConn is a connection of which only so much is read until somebody has signed in on it.
type boundedConn struct {
	net.Conn
	left atomic.Int64
	once sync.Once
	gone chan struct{} // closed when no more can be read; nil: nobody wants to know
}

var errTooMuch = errors.New("ssh: too much was sent before the sign-in was done")

// Read reads what may still be read.
func (b *boundedConn) Read(p []byte) (int, error) {
	left := b.left.Load()
	switch {
	case left <= 0:
		return 0, errTooMuch
	case left > math.MaxInt32:
		return b.Conn.Read(p)
	}
	n, err := b.Conn.Read(p[:min(int64(len(p)), left)])
	b.left.Add(-int64(n))
	if err != nil && b.gone != nil {
		b.once.Do(func() { close(b.gone) })
	}
	return n, err
}

// free lifts the bound.
func (b *boundedConn) free() { b.left.Store(math.MaxInt64) }
