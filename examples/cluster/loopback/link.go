package loopback

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// Link is the way from one process to another. It leads through this process, where it can be cut and healed.
type Link struct {
	From, To string // the processes' names

	target string
	listen *net.TCPListener

	mu     sync.Mutex
	open   sync.Cond
	cut    [2]bool // there and back: what is sent that way does not arrive until the link is healed
	reset  bool    // connections are broken, and none can be made
	closed bool
	conns  map[*net.TCPConn]struct{}
	wg     sync.WaitGroup
}

// Cut is a way in which a link can be cut.
type Cut int

// The cuts. What a silent one holds back arrives when the link is healed, as TCP would send it again.
const (
	CutSilently Cut = iota // nothing arrives, either way
	CutThere               // what From sends does not arrive
	CutBack                // what To sends does not arrive
	CutReset               // connections are reset, and new ones refused
)

// String says which cut it is.
func (c Cut) String() string {
	return [...]string{"silent both ways", "silent one way", "silent one way", "with resets"}[c]
}

const (
	there = iota
	back
)

// newLink opens a way to an address. Close ends it.
func newLink(from, to, target string) (*Link, error) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("the way from %s to %s: %w", from, to, err)
	}
	k := &Link{From: from, To: to, target: target, listen: l, conns: map[*net.TCPConn]struct{}{}}
	k.open.L = &k.mu
	k.wg.Go(k.accept)
	return k, nil
}

// Addr is where From connects.
func (k *Link) Addr() string { return k.listen.Addr().String() }

// Cut cuts the link.
func (k *Link) Cut(how Cut) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut[there] = how == CutSilently || how == CutThere
	k.cut[back] = how == CutSilently || how == CutBack
	k.reset = how == CutReset
	if k.reset {
		for c := range k.conns {
			abort(c)
		}
	}
}

// Heal undoes a cut.
func (k *Link) Heal() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut, k.reset = [2]bool{}, false
	k.open.Broadcast()
}

// Close ends the link and its connections.
func (k *Link) Close() {
	_ = k.listen.Close()
	k.mu.Lock()
	k.closed = true
	for c := range k.conns {
		abort(c)
	}
	k.open.Broadcast()
	k.mu.Unlock()
	k.wg.Wait()
}

// abort closes a connection so that its other end is told by a reset.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

func (k *Link) accept() {
	for {
		c, err := k.listen.AcceptTCP()
		if err != nil {
			return
		}
		if k.keep(c) {
			k.wg.Go(func() { k.carry(c) })
		}
	}
}

// keep remembers a connection; while the link resets there is none.
func (k *Link) keep(c *net.TCPConn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.reset || k.closed {
		abort(c)
		return false
	}
	k.conns[c] = struct{}{}
	return true
}

func (k *Link) drop(c *net.TCPConn) {
	k.mu.Lock()
	delete(k.conns, c)
	k.mu.Unlock()
	_ = c.Close()
}

// await returns when what is sent that way arrives.
func (k *Link) await(ways ...int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range ways {
		for k.cut[w] && !k.closed {
			k.open.Wait()
		}
	}
}

func (k *Link) carry(from *net.TCPConn) {
	defer k.drop(from)
	k.await(there, back) // to connect takes both
	c, err := net.DialTimeout("tcp", k.target, 2*time.Second)
	if err != nil {
		_ = from.SetLinger(0) // refused
		return
	}
	to := c.(*net.TCPConn)
	if !k.keep(to) {
		return
	}
	defer k.drop(to)
	var both sync.WaitGroup
	both.Go(func() { k.pump(to, from, there) })
	both.Go(func() { k.pump(from, to, back) })
	both.Wait()
}

// pump carries what src says to dst. That one of them is gone is news that travels like everything else.
func (k *Link) pump(dst, src *net.TCPConn, way int) {
	b := make([]byte, 64<<10)
	for {
		n, err := src.Read(b)
		if n > 0 {
			k.await(way)
			if _, werr := dst.Write(b[:n]); werr != nil {
				k.await(1 - way)
				_ = src.Close()
				return
			}
		}
		if err != nil {
			k.await(way)
			_ = dst.Close()
			return
		}
	}
}
