package postgres

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgproto3/v2"

	"github.com/weir-gateway/weir/core"
)

// script is a connection that gives what it was told and takes everything.
type scriptConn struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (s *scriptConn) Read(b []byte) (int, error)       { return s.in.Read(b) }
func (s *scriptConn) Write(b []byte) (int, error)      { return s.out.Write(b) }
func (s *scriptConn) Close() error                     { return nil }
func (s *scriptConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (s *scriptConn) SetDeadline(time.Time) error      { return nil }
func (s *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (s *scriptConn) SetWriteDeadline(time.Time) error { return nil }

func FuzzStartup(f *testing.F) {
	f.Add(packet(protocol30, "user\x00a\x00database\x00b\x00options\x00-c a=b\x00\x00"))
	f.Add(append(packet(sslRequest, ""), packet(gssEncRequest, "")...))
	f.Add(packet(cancelRequest, "12345678"))
	f.Fuzz(func(t *testing.T, b []byte) {
		conn := &scriptConn{in: bytes.NewReader(b)}
		s, err := readStartup(context.Background(), conn, nil)
		if err == nil && s.cancel == nil {
			if s.get("user") == "" {
				t.Fatal("no user")
			}
			params, err := s.upstreamParams(&core.Target{}, "u")
			if err == nil {
				for _, p := range params[:len(params)-len(pinned)] {
					if settingRefused(p.key, p.value) != "" {
						t.Fatal("a refused setting went through:", p)
					}
				}
			}
			_, _ = s.readToken()
		}
	})
}

// FuzzFrontend and FuzzBackend: what passes the structural check never makes a pgproto3 decoder panic or hang.
func FuzzFrontend(f *testing.F) {
	f.Add(message('Q', "select 1\x00"))
	f.Add(message('B', "\x00a\x00\x00\x00\x00\x01\x00\x00\x00\x011\x00\x00"))
	f.Add(message('F', "\x00\x00\x00\x01\x00\x00\x00\x01\xff\xff\xff\xff\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for {
			n, need, err := frontend.next(b, 1<<20)
			if err != nil || n == 0 {
				if need > 1<<20+headerSize {
					t.Fatal("over the limit")
				}
				return
			}
			content := b[headerSize:n]
			switch b[0] {
			case 'Q':
				_ = new(pgproto3.Query).Decode(content)
			case 'B':
				_ = new(pgproto3.Bind).Decode(content)
			case 'P':
				_ = new(pgproto3.Parse).Decode(content)
			case 'E':
				_ = new(pgproto3.Execute).Decode(content)
			case 'f':
				_ = new(pgproto3.CopyFail).Decode(content)
			}
			b = b[n:]
		}
	})
}

func FuzzBackend(f *testing.F) {
	f.Add([]byte("T\x00\x00\x00\x1d\x00\x01email\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00D\x00\x00\x00\x0c\x00\x01\x00\x00\x00\x02hiC\x00\x00\x00\x0dSELECT 1\x00Z\x00\x00\x00\x05I"), false)
	f.Add([]byte("E\x00\x00\x00\x1bSERROR\x00C42501\x00Mno way\x00\x00Z\x00\x00\x00\x05I"), true)
	f.Add([]byte("A\x00\x00\x00\x0d\x00\x00\x00\x01c\x00pp\x00N\x00\x00\x00\x08Mx\x00\x00"), false)
	f.Add([]byte("1\x00\x00\x00\x042\x00\x00\x00\x04n\x00\x00\x00\x04s\x00\x00\x00\x04"), true)
	f.Fuzz(func(t *testing.T, b []byte, extended bool) {
		journal := &memory{}
		s := &core.Session{Target: &core.Target{Record: core.LevelFull}}
		s.Begin(core.SessionConfig{Chain: guard{mask: map[string]string{"email": "longer than it was"}}, Recorder: &memoryRecorder{m: journal}})
		client, up := &scriptConn{in: bytes.NewReader(nil)}, &scriptConn{in: bytes.NewReader(b)}
		c := newConnection(s, protocol.reader, client, &upstream{conn: up})
		c.cut = func() {}
		x := &core.Exchange{Command: &core.Command{Status: core.StatusKnown, Where: true}}
		if extended {
			p := &portal{}
			for _, r := range []reply{{kind: 'P', stmt: &statement{}}, {kind: 'B', portal: p}, {kind: 'D', portal: p}, {kind: 'E', exchange: x, portal: p}, {kind: 'S'}} {
				c.queue.push(r)
			}
		} else {
			c.queue.push(reply{kind: 'Q', exchange: x})
		}
		for c.server.fill(c.answer.need) == nil && c.deliver(context.Background()) == nil && c.forward(context.Background()) == nil {
		}
		if out := client.out.Bytes(); !bytes.HasPrefix(journal.clientBytes(), out) {
			t.Fatalf("the client was sent what is not in the record:\n%q\n%q", out, journal.clientBytes())
		}
		if _, err := protocol.ReadRows(nil, b); err == nil && len(b) > 0 && b[0] == 0 {
			t.Fatal("garbage was read as rows")
		}
		_ = protocol.ReadText(b)
	})
}

func FuzzSASL(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"), []byte("\x00\x00\x00\x0br=abc,s=QQ==,i=4096"), []byte("\x00\x00\x00\x0cv=abc"))
	f.Add([]byte("\x00\x00\x00\x05salt"), []byte("\x00\x00\x00\x00"), []byte{})
	f.Fuzz(func(t *testing.T, first, second, third []byte) {
		a := authentication{cred: core.Credential{User: "u", Password: "p"}, clients: &clients{}}
		for _, b := range [][]byte{first, second, third} {
			if len(b) < 4 || bytes.Contains(b, []byte("i=")) && len(b) > 60 { // a server may ask for costly rounds; not here
				return
			}
			if _, err := a.step(b); err != nil {
				return
			}
		}
		if a.conv != nil && a.done && !a.conv.Valid() {
			t.Fatal("signed in at a server that has proved nothing")
		}
	})
}

// TestPgproto3Hazards is the control for the structural checks: without them, the library's decoders panic on these.
func TestPgproto3Hazards(t *testing.T) {
	for _, c := range []struct {
		name   string
		from   *side
		frame  []byte
		decode func([]byte) error
	}{
		{"DataRow length -2 (CVE-2026-32286)", &backend, message('D', "\x00\x01\xff\xff\xff\xfe"), new(pgproto3.DataRow).Decode},
		{"Bind length -2", &frontend, message('B', "\x00\x00\x00\x00\x00\x01\xff\xff\xff\xfe\x00\x00"), new(pgproto3.Bind).Decode},
		{"CommandComplete empty", &backend, message('C', ""), new(pgproto3.CommandComplete).Decode},
		{"Query empty", &frontend, message('Q', ""), new(pgproto3.Query).Decode},
		{"CopyFail empty", &frontend, message('f', ""), new(pgproto3.CopyFail).Decode},
		{"NotificationResponse short", &backend, message('A', "\x00"), new(pgproto3.NotificationResponse).Decode},
		{"FunctionCall empty", &frontend, message('F', ""), new(pgproto3.FunctionCall).Decode},
	} {
		if _, _, err := c.from.next(c.frame, 1<<20); err == nil {
			t.Errorf("%s passes the check", c.name)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: the library does not panic any more: is the check still needed?", c.name)
				}
			}()
			_ = c.decode(c.frame[headerSize:])
		}()
	}
}

var _ io.Reader = (*scriptConn)(nil)
