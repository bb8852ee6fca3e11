package reactor

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// HungUp reports whether the other end of a connection has closed it, without reading: there may be unread bytes before
// the end. What it cannot tell is false.
func HungUp(conn net.Conn) (gone bool) {
	look := func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	}
	switch c := conn.(type) {
	case *Conn:
		c.use.RLock() // or the descriptor might be another connection's by now
		defer c.use.RUnlock()
		c.mu.Lock()
		closed := c.closed
		c.mu.Unlock()
		if closed {
			return true
		}
		look(uintptr(c.fd))
	case interface{ NetConn() net.Conn }: // TLS
		return HungUp(c.NetConn())
	case syscall.Conn:
		raw, err := c.SyscallConn()
		if err != nil || raw.Control(look) != nil {
			return true
		}
	}
	return gone
}
