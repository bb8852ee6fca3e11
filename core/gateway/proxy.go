package gateway

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"
)

// The PROXY protocol (haproxy's doc/proxy-protocol.txt, versions 1 and 2): a proxy in front of the gateway says whose
// connection it hands on. Its word counts when its address is listed, and then it has to give it; nobody else may.

const (
	maxProxyV1 = 107  // bytes of a header of version 1, by its specification
	maxProxyV2 = 4096 // bytes after the first 16 of version 2: addresses, and what else a proxy tells
	headV2     = 16   // signature, version and command, family, length
)

var (
	signatureV1 = []byte("PROXY ")
	signatureV2 = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// Reasons why a connection is not taken.
var (
	errNoHeader  = errors.New("the connection of a listed proxy does not begin with a PROXY header: let it send one (haproxy: send-proxy-v2)")
	errUnlisted  = errors.New("a PROXY header came from an address that proxy_protocol does not list")
	errHeader    = errors.New("the PROXY header cannot be read")
	errLongProxy = fmt.Errorf("%w: it is longer than %d bytes (version 1) or %d (version 2)", errHeader, maxProxyV1, maxProxyV2)
)

// isProxy reports whether an address is one of the proxies.
func isProxy(proxies []netip.Prefix, a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := t.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// handed is the connection of a client that came by way of a proxy, or past one. Its socket has nothing read ahead.
type handed struct {
	net.Conn
	remote net.Addr // nil: the socket's own
}

// RemoteAddr is the client's address as the proxy told it.
func (h *handed) RemoteAddr() net.Addr {
	if h.remote != nil {
		return h.remote
	}
	return h.Conn.RemoteAddr()
}

// Socket is the bare connection, for who carries on with its descriptor.
func (h *handed) Socket() net.Conn { return h.Conn }

// SyscallConn implements syscall.Conn.
func (h *handed) SyscallConn() (syscall.RawConn, error) {
	if c, ok := h.Conn.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, os.ErrInvalid
}

// CloseWrite says that no more is sent.
func (h *handed) CloseWrite() error {
	if c, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// introduce reads what a listed proxy says of a client, and puts the client where it belongs.
func (c *client) introduce(ctx context.Context) error {
	conn, proxy := c.conn, c.conn.RemoteAddr()
	_ = conn.SetReadDeadline(c.accepted.Add(c.served.signIn))
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	told, own, err := readProxyHeader(conn)
	if !stop() || err != nil {
		return cmp.Or(err, context.Cause(ctx))
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	source, local := sourceOf(proxy)
	if told != nil {
		var here bool
		source, here = sourceOf(told)
		local = local && here // a proxy on another machine cannot make a network loopback
	} else {
		local = local && own
	}
	c.mu.Lock()
	c.conn, c.proxy = &handed{conn, told}, proxy
	c.mu.Unlock()
	if why := c.g.live.place(c, source, local, c.g.Limits); why != "" {
		return errors.New(why)
	}
	return nil
}

// introduced is introduce, and tells when it cannot be done.
func (c *client) introduced(ctx context.Context) bool {
	err := c.introduce(ctx)
	switch {
	case err == nil:
		return true
	case errors.Is(err, errGone):
		return false
	}
	why := "proxy-header"
	if c.proxy != nil {
		why = err.Error()
	}
	source, _ := sourceOf(c.conn.RemoteAddr())
	c.g.turnAway(c.listener, source, why, err)
	return false
}

// readProxyHeader reads exactly a header: what follows is the client's and stays in the socket. told is the client's
// address; nil where the proxy does not say, as in a health check. own reports that the connection is the proxy's own.
func readProxyHeader(conn io.Reader) (told net.Addr, own bool, err error) {
	raw, err := takeHeader(conn)
	if err != nil {
		return nil, false, err
	}
	h, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(raw), len(raw)))
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", errHeader, err)
	}
	tlvs, err := h.TLVs()
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", errHeader, err)
	}
	for _, t := range tlvs {
		if t.Type == proxyproto.PP2_TYPE_CRC32C && !checksum(raw, t.Value) {
			return nil, false, fmt.Errorf("%w: its checksum is wrong", errHeader)
		}
	}
	if h.Command.IsLocal() && h.Version == 2 {
		return nil, true, nil
	}
	if h.TransportProtocol.IsUnspec() {
		return nil, false, nil
	}
	from, _, ok := h.TCPAddrs()
	if !ok || from.IP.IsUnspecified() || from.IP.IsMulticast() || len(from.IP) == 0 {
		return nil, false, fmt.Errorf("%w: it names no client over TCP", errHeader)
	}
	return from, false, nil
}

// takeHeader reads a header's bytes and not one more. It gives up at the first byte that no header has there.
func takeHeader(conn io.Reader) ([]byte, error) {
	raw := make([]byte, 0, maxProxyV1)
	for len(raw) < len(signatureV2) {
		n, err := conn.Read(raw[len(raw):len(signatureV2)])
		raw = raw[:len(raw)+n]
		v1 := begins(raw, signatureV1)
		switch {
		case !v1 && !begins(raw, signatureV2):
			return nil, errNoHeader
		case v1 && bytes.IndexByte(raw, '\n') >= 0:
			return nil, fmt.Errorf("%w: it ends too soon", errHeader)
		case err != nil && len(raw) == 0 && !errors.Is(err, os.ErrDeadlineExceeded):
			return nil, errGone // a check whether the port is open
		case err != nil:
			return nil, incomplete(err)
		}
	}
	if bytes.HasPrefix(raw, signatureV1) {
		// A byte at a time: what comes after the line is not ours, and the line is short.
		for raw[len(raw)-1] != '\n' {
			if len(raw) == maxProxyV1 {
				return nil, errLongProxy
			}
			n := len(raw)
			if _, err := io.ReadFull(conn, raw[n:n+1]); err != nil {
				return nil, incomplete(err)
			}
			raw = raw[:n+1]
		}
		return raw, nil
	}
	if _, err := io.ReadFull(conn, raw[len(raw):headV2]); err != nil {
		return nil, incomplete(err)
	}
	raw = raw[:headV2]
	length := int(binary.BigEndian.Uint16(raw[headV2-2:]))
	if length > maxProxyV2 {
		return nil, errLongProxy
	}
	raw = slices.Grow(raw, length)[:headV2+length]
	if _, err := io.ReadFull(conn, raw[headV2:]); err != nil {
		return nil, incomplete(err)
	}
	return raw, nil
}

// begins reports whether what has come so far may be the beginning of a signature, or of what follows it.
func begins(b, signature []byte) bool {
	n := min(len(b), len(signature))
	return bytes.Equal(b[:n], signature[:n])
}

func incomplete(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: it did not come within limits.sign_in", errHeader)
	}
	return fmt.Errorf("%w: it is cut short: %w", errHeader, err)
}

// checksum reports whether a header of version 2 has the CRC-32C that it claims, which counts its own bytes as zeros.
func checksum(raw, claimed []byte) bool {
	if len(claimed) != 4 {
		return false
	}
	// The field is found by walking from the front: its bytes may well stand elsewhere, too.
	var addresses int
	switch raw[13] >> 4 {
	case 1:
		addresses = 12
	case 2:
		addresses = 36
	case 3:
		addresses = 216
	}
	zeroed := bytes.Clone(raw)
	for at := headV2 + addresses; at+3 <= len(raw); {
		n := int(binary.BigEndian.Uint16(raw[at+1:]))
		if proxyproto.PP2Type(raw[at]) == proxyproto.PP2_TYPE_CRC32C && at+3+n <= len(raw) {
			clear(zeroed[at+3 : at+3+n])
			break
		}
		at += 3 + n
	}
	return crc32.Checksum(zeroed, crc32.MakeTable(crc32.Castagnoli)) == binary.BigEndian.Uint32(claimed)
}

// unlisted is the connection of somebody who is no listed proxy, on a listener that has some: it may be a client, but
// it may not say that it is another.
type unlisted struct {
	handed
	refused func() // called when it was a header
	held    []byte // read while it could still have become a header
	decided bool
	err     error
}

// Read implements net.Conn. One goroutine reads at a time.
func (u *unlisted) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for !u.decided && u.err == nil {
		var b [12]byte // as long as the longer signature
		n, err := u.Conn.Read(b[len(u.held):])
		u.held = append(u.held, b[len(u.held):len(u.held)+n]...)
		v1, v2 := begins(u.held, signatureV1), begins(u.held, signatureV2)
		switch {
		case v1 && len(u.held) >= len(signatureV1), v2 && len(u.held) == len(signatureV2):
			u.held, u.err = nil, errUnlisted
			u.refused()
		case !v1 && !v2:
			u.decided = true
		case errors.Is(err, os.ErrDeadlineExceeded): // the reader may set another one
			return 0, err
		case err != nil:
			u.decided, u.err = true, err
		}
	}
	if len(u.held) > 0 {
		n := copy(p, u.held)
		u.held = u.held[n:]
		return n, nil
	}
	if u.err != nil {
		return 0, u.err
	}
	return u.Conn.Read(p)
}

// Socket is the bare connection once nothing is held of what came from it.
func (u *unlisted) Socket() net.Conn {
	if !u.decided || len(u.held) > 0 {
		return nil
	}
	return u.Conn
}
