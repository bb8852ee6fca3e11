package postgres

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// from is a connection that says where it comes from.
type from struct {
	net.Conn
	at net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.at }

// TestClearText: a token is never asked for in clear over a network, so that a client sends none; on this machine, or
// inside TLS, it is.
func TestClearText(t *testing.T) {
	for _, tc := range []struct {
		name      string
		at        net.Addr
		encrypted bool
		asks      bool
	}{
		{"a network", &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7)}, false, false},
		{"a network, IPv6", &net.TCPAddr{IP: net.ParseIP("2001:db8::1")}, false, false},
		{"an address nobody knows", &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)}, false, false},
		{"a network, TLS", &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7)}, true, true},
		{"loopback", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, false, true},
		{"loopback, IPv6", &net.TCPAddr{IP: net.IPv6loopback}, false, true},
		{"a Unix socket", &net.UnixAddr{Name: "x"}, false, true},
	} {
		client, server := net.Pipe()
		_ = client.SetDeadline(time.Now().Add(30 * time.Second))
		s := &startup{conn: from{server, tc.at}, encrypted: tc.encrypted}
		done := make(chan error, 1)
		go func() {
			_, err := s.readToken()
			_ = server.Close()
			done <- err
		}()
		var ask [9]byte
		_, err := io.ReadFull(client, ask[:])
		if asked := err == nil && ask[0] == 'R'; asked != tc.asks {
			t.Errorf("%s: a token is asked for: %v", tc.name, asked)
		}
		_ = client.Close()
		if err := <-done; !tc.asks && (err == nil || !strings.Contains(err.Error(), "over TLS only")) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
