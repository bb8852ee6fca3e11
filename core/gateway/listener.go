package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// listener accepts the clients of one address.
type listener struct {
	net.Listener
	g       *Gateway
	address string // as configured: the key of its settings
}

// listen opens an address. Dead peers are noticed within a minute.
func (g *Gateway) listen(address string) (*listener, error) {
	c := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}}
	ln, err := c.Listen(context.Background(), "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is in use by another process: stop it, or choose another port: %w", address, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s needs a privilege that this process does not have: choose a port above 1023: %w", address, err)
	case err != nil:
		return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	return &listener{Listener: ln, g: g, address: address}, nil
}

// accept takes clients until the listener is closed. Being out of descriptors or memory makes it pause, not stop.
func (l *listener) accept() {
	pause := time.Duration(0)
	for {
		conn, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			l.g.metrics.acceptErrors.Inc()
			l.g.Log.Error("gateway: cannot accept", "listener", l.address, "error", err, "pause", pause)
			select {
			case <-time.After(pause):
			case <-l.g.draining:
				return
			}
			continue
		}
		pause = 0
		l.admit(conn)
	}
}

// admit starts to carry a client, if there is room for it.
func (l *listener) admit(conn net.Conn) {
	g := l.g
	source, local := sourceOf(conn.RemoteAddr())
	g.mu.RLock()
	s := g.now.served[l.address]
	if s == nil || g.stopping() {
		g.mu.RUnlock()
		_ = conn.Close()
		return
	}
	c := &client{g: g, served: s, conn: conn, listener: l, source: source, local: local, accepted: time.Now()}
	if c.handed = isProxy(s.proxies, conn.RemoteAddr()); c.handed {
		c.source, c.local = "", false // until it has said
	} else if len(s.proxies) > 0 {
		c.conn = &unlisted{handed: handed{Conn: conn}, refused: func() { g.turnAway(l, source, "proxy-unlisted", errUnlisted) }}
	}
	why := g.live.admit(c, g.Limits)
	if why == "" {
		s.refs.Add(1)
		g.clients.Add(1) // under g.mu: drain waits after it has held the lock
	}
	g.mu.RUnlock()
	if why != "" {
		g.turnAway(l, source, why, nil)
		_ = conn.Close()
		return
	}
	g.metrics.connections.WithLabelValues(s.protocol).Inc()
	go c.carry()
}

// turnAway counts and tells of a client that is not served. Its connection is the caller's to close.
func (g *Gateway) turnAway(l *listener, source, why string, err error) {
	g.metrics.refused.WithLabelValues(why).Inc()
	if g.throttle.tell("gateway", why) {
		g.Log.Warn("gateway: client turned away", "reason", why, "client", source, "listener", l.address, "error", err)
	}
}

// sourceOf names where a client comes from, for limits: an IPv4 address, or the /64 that one IPv6 customer has.
func sourceOf(a net.Addr) (source string, local bool) {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return "local", true
	}
	ip, ok := netip.AddrFromSlice(t.IP)
	if !ok {
		return a.String(), false
	}
	ip = ip.Unmap()
	if ip.Is6() && !ip.IsLoopback() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return p.String(), false
		}
	}
	return ip.String(), ip.IsLoopback()
}
