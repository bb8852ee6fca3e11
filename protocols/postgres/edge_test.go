package postgres

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-gateway/weir/core"
)

// raw is a client that writes bytes.
type raw struct {
	t    *testing.T
	conn net.Conn
}

func (g *testGate) dial() *raw {
	g.t.Helper()
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	g.t.Cleanup(func() { _ = c.Close() })
	return &raw{g.t, c}
}

func (r *raw) send(b []byte) { _, _ = r.conn.Write(b) }

// rest reads all there is until the other end closes.
func (r *raw) rest() string {
	b, _ := io.ReadAll(r.conn)
	return string(b)
}

// until reads frames up to one of a type, and returns the types read.
func (r *raw) until(typ byte) string {
	r.t.Helper()
	var types []byte
	for {
		var head [headerSize]byte
		if _, err := io.ReadFull(r.conn, head[:]); err != nil {
			r.t.Fatalf("after %q: %v", types, err)
		}
		types = append(types, head[0])
		b := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(r.conn, b); err != nil {
			r.t.Fatal(err)
		}
		if head[0] == typ {
			return string(types)
		}
	}
}

func packet(code uint32, content string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(content)))
	return append(binary.BigEndian.AppendUint32(b, code), content...)
}

func message(typ byte, content string) []byte { return appendFrame(nil, typ, []byte(content)) }

// signIn brings a raw client to its first ReadyForQuery.
func (r *raw) signIn() {
	r.t.Helper()
	r.send(packet(protocol30, "user\x00agent\x00database\x00orders\x00\x00"))
	r.until('R')
	r.send(message('p', token+"\x00"))
	r.until('Z')
}

func TestStartupEdges(t *testing.T) {
	t.Parallel()
	plain, secured := startGate(t), startGate(t, withTLS(t))
	ok := "user\x00agent\x00database\x00orders\x00\x00"
	for _, c := range []struct {
		name string
		gate *testGate
		send []byte
		want string // in what comes back before the connection closes; "" when nothing may come
	}{
		{"PG-83 length 0", plain, []byte{0, 0, 0, 0}, "08P01"},
		{"PG-83 length 4", plain, []byte{0, 0, 0, 4}, "08P01"},
		{"PG-83 length 7", plain, []byte{0, 0, 0, 7}, "08P01"},
		{"PG-83 length 10001", plain, []byte{0, 0, 0x27, 0x11}, "08P01"},
		{"PG-83 length max", plain, []byte{0x7f, 0xff, 0xff, 0xff}, "08P01"},
		{"PG-83 length -1", plain, []byte{0xff, 0xff, 0xff, 0xff}, "08P01"},
		{"PG-83 no final NUL", plain, packet(protocol30, "user\x00agent\x00"), "08P01"},
		{"PG-83 value without end", plain, packet(protocol30, "user\x00agent"), "08P01"},
		{"PG-83 NUL in the middle", plain, packet(protocol30, "user\x00agent\x00\x00database\x00x\x00\x00"), "08P01"},
		{"PG-83 no user", plain, packet(protocol30, "database\x00orders\x00\x00"), "28000"},
		{"PG-83 empty user", plain, packet(protocol30, "user\x00\x00\x00"), "28000"},
		{"PG-83 duplicate key", plain, packet(protocol30, "user\x00a\x00user\x00b\x00\x00"), "08P01"},
		{"PG-83 protocol 2.0", plain, packet(2<<16, ok), "0A000"},
		{"PG-83 protocol 4.0", plain, packet(4<<16, ok), "0A000"},
		{"PG-83 protocol 3.2", plain, packet(protocol30|2, ok), "v\x00\x00\x00\x0c\x00\x03\x00\x00\x00\x00\x00\x00R"},
		{"PG-83 protocol 3.9999", plain, packet(protocol30|9999, ok), "v\x00\x00\x00\x0c\x00\x03"},
		{"PG-83 unknown _pq_ option", plain, packet(protocol30, "_pq_.x\x00y\x00"+ok), "_pq_.x"},
		{"PG-48 other database", plain, packet(protocol30, "user\x00agent\x00database\x00other\x00\x00"), "3D000"},
		{"PG-81 HTTP on the port", plain, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "08P01"},
		{"PG-81 SSLRequest twice", plain, append(packet(sslRequest, ""), packet(sslRequest, "")...), "N\x45"},
		{"PG-81 GSS then SSL", plain, append(packet(gssEncRequest, ""), packet(sslRequest, "")...), "NN"},
		{"PG-81 GSS twice", plain, append(packet(gssEncRequest, ""), packet(gssEncRequest, "")...), "N\x45"},
		{"PG-81 direct TLS without TLS", plain, []byte{0x16, 3, 1, 0, 1, 0}, "08P01"},
		{"PG-80 bytes after SSLRequest", secured, append(packet(sslRequest, ""), packet(protocol30, ok)...), "S"},
		{"PG-93 cancel with a wrong key", plain, packet(cancelRequest, "12345678"), ""},
		{"PG-93 cancel with a short key", plain, packet(cancelRequest, "123"), "08P01"},
		{"random bytes", plain, []byte("\x13\x37\x00\xff\xfe\x00\x01\x02\x03"), "08P01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.gate.dial()
			r.send(c.send)
			_ = r.conn.(*net.TCPConn).CloseWrite()
			got := r.rest()
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Fatalf("got %q, want %q", got, c.want)
			}
			if c.gate == secured && strings.Contains(got, "R\x00\x00\x00\x08") {
				t.Fatal("clear text after SSLRequest was taken as a startup packet")
			}
		})
	}
	for _, g := range []*testGate{plain, secured} { // and everybody else is as well as before
		if err := g.connect(pgx.QueryExecModeExec).Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStartupParameters(t *testing.T) {
	g := startGate(t)
	for _, c := range []struct{ params, code string }{
		{"&application_name=x", ""},
		{"&options=-c%20geqo%3Doff%20--work_mem%3D8MB", ""},
		{"&search_path=s", ""},
		{"&client_encoding=UTF8", ""},
		{"&standard_conforming_strings=on", ""},
		{"&standard_conforming_strings=off", "42501"},                 // PG-10
		{"&options=-c%20standard_conforming_strings%3Doff", "42501"},  // PG-10
		{"&options=--standard-conforming-strings%3Doff", "42501"},     // PG-10
		{"&options=-cstandard_conforming_strings%3D%5C+off", "42501"}, // an escaped blank
		{"&options=-c%20Standard_Conforming_Strings%3D%27off%27", "42501"},
		{"&client_encoding=SJIS", "42501"},
		{"&options=-c%20client_encoding%3DSJIS", "42501"},
		{"&role=postgres", "42501"},
		{"&session_authorization=postgres", "42501"},
		{"&options=-c%20role%3Dpostgres", "42501"},
		{"&replication=database", "42501"}, // PG-44
		{"&replication=true", "42501"},
		{"&replication=1", "42501"},
		{"&options=-d%205", "42501"},
		{"&no_such_setting=1", "42704"},
	} {
		conn, err := pgx.Connect(t.Context(), g.url(c.params))
		var pe *pgconn.PgError
		switch {
		case c.code == "" && err != nil:
			t.Errorf("%s: %v", c.params, err)
		case c.code != "" && (!errors.As(err, &pe) || pe.Code != c.code):
			t.Errorf("%s: %v, want %s", c.params, err, c.code)
		}
		if err == nil {
			_ = conn.Close(t.Context())
		}
	}
}

func TestTokens(t *testing.T) {
	g := startGate(t)
	for _, size := range []int{0, 1, 255, 256, 1024, 4096, 8191, 65_534, 65_535, 70_000} {
		r := g.dial()
		r.send(packet(protocol30, "user\x00agent\x00\x00"))
		r.until('R')
		secret := strings.Repeat("x", size)
		r.send(message('p', secret+"\x00"))
		got := r.rest()
		want := "28P01"
		if size > maxToken-1 || size == 0 {
			want = "08P01"
		}
		if size == 0 {
			want = "" // an empty password is a token like another: not ours
		}
		if !strings.Contains(got, want) || !strings.Contains(got, "FATAL") || size > 8 && strings.Contains(got, secret[:8]) {
			t.Errorf("%d bytes: %q", size, got)
		}
	}
}

func TestClearTextFromElsewhereIsRefused(t *testing.T) {
	s := &startup{conn: elsewhere{}}
	if _, err := s.readToken(); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Fatal(err)
	}
}

type elsewhere struct{ net.Conn }

func (elsewhere) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)} }

func TestFrameEdges(t *testing.T) {
	g := startGate(t, func(g *testGate) { g.target.Limits.MaxFrame = 1 << 20 })
	for _, c := range []struct {
		name string
		send []byte
		code string
	}{
		{"PG-84 length 3", []byte{'Q', 0, 0, 0, 3}, "08P01"},
		{"PG-84 length 0", []byte{'Q', 0, 0, 0, 0}, "08P01"},
		{"PG-84 negative", []byte{'Q', 0xff, 0xff, 0xff, 0xff}, "08P01"},
		{"PG-84 4 GB in two parts", append([]byte{'Q', 0x7f, 0xff, 0xff, 0xff}, message('Q', "select 1\x00")...), "54000"},
		{"PG-85 over max_frame", []byte{'Q', 0, 0x20, 0, 0}, "54000"},
		{"PG-85 a large Sync", []byte{'S', 0, 0, 0x40, 0}, "54000"},
		{"PG-86 unknown type", []byte{'~', 0, 0, 0, 4}, "08P01"},
		{"PG-86 a server's type", message('Z', "I"), "08P01"},
		{"PG-86 password after sign-in", message('p', "x\x00"), "08P01"},
		{"Query without end", message('Q', "select 1"), "08P01"},
		{"Query with two ends", message('Q', "select 1\x00\x00"), "08P01"},
		{"Parse without body", message('P', ""), "08P01"},
		{"Parse with a lying count", message('P', "a\x00b\x00\xff\xff"), "08P01"},
		{"Bind of length -2", message('B', "\x00\x00\x00\x00\x00\x01\xff\xff\xff\xfe\x00\x00"), "08P01"},
		{"Bind of length minimum", message('B', "\x00\x00\x00\x00\x00\x01\x80\x00\x00\x00\x00\x00"), "08P01"},
		{"Bind with format 2", message('B', "\x00\x00\x00\x01\x00\x02\x00\x00\x00\x00"), "08P01"},
		{"Bind with bytes left", message('B', "\x00\x00\x00\x00\x00\x00\x00\x00x"), "08P01"},
		{"Describe of nothing", message('D', "X\x00"), "08P01"},
		{"Execute short", message('E', "\x00\x00"), "08P01"},
		{"FunctionCall empty", message('F', ""), "08P01"},
		{"FunctionCall short argument", message('F', "\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x09x\x00\x00"), "08P01"},
		{"CopyFail without body", message('f', ""), "08P01"},
		{"Sync with a body", message('S', "x"), "08P01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := g.dial()
			r.signIn()
			r.send(c.send)
			if got := r.rest(); !strings.Contains(got, "FATAL") || !strings.Contains(got, c.code) {
				t.Fatalf("%q", got)
			}
		})
	}
	if err := g.connect(pgx.QueryExecModeExec).Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestSplitAnywhere is PG-101: how a conversation is cut into segments changes nothing.
func TestSplitAnywhere(t *testing.T) {
	g := startGate(t, withChain(guard{deny: noWrites, mask: map[string]string{"email": "a longer value than there was"}}))
	var talk []byte
	for _, m := range [][]byte{
		message('Q', "select id, email from s.customers order by 1\x00"),
		message('Q', "drop table s.victim\x00"),
		message('P', "a\x00select email from s.customers where id = $1\x00\x00\x00"),
		message('B', "\x00a\x00\x00\x00\x00\x01\x00\x00\x00\x011\x00\x00"),
		message('E', "\x00\x00\x00\x00\x00"), message('S', ""),
		message('P', "\x00delete from s.victim\x00\x00\x00"), message('B', "\x00\x00\x00\x00\x00\x00\x00\x00"), message('E', "\x00\x00\x00\x00\x00"), message('S', ""),
		message('Q', "select 'end'\x00"),
	} {
		talk = append(talk, m...)
	}
	whole := func(cuts func(*raw)) string {
		r := g.dial()
		r.signIn()
		cuts(r)
		r.send(message('X', ""))
		return r.rest()
	}
	want := whole(func(r *raw) { r.send(talk) })
	if strings.Count(want, "Z\x00\x00\x00\x05I") != 5 || !strings.Contains(want, "end") || strings.Count(want, "42501") != 2 || strings.Contains(want, "@example") {
		t.Fatalf("%q", want)
	}
	step := 1
	if testing.Short() {
		step = 17
	}
	for at := 1; at < len(talk); at += step {
		if got := whole(func(r *raw) { r.send(talk[:at]); time.Sleep(time.Millisecond); r.send(talk[at:]) }); got != want {
			t.Fatalf("cut at %d:\n%q\n%q", at, got, want)
		}
	}
	if got := whole(func(r *raw) {
		for i := range talk {
			r.send(talk[i : i+1])
		}
	}); got != want {
		t.Fatalf("byte by byte: %q", got)
	}
}

// hostile is an upstream that answers what it is told to.
func hostile(t *testing.T, holdsCancels bool, answers func(net.Conn)) option {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				packet, err := readPacket(c, nil)
				if err != nil || !holdsCancels && binary.BigEndian.Uint32(packet) == cancelRequest { // a server hangs up then
					return
				}
				answers(c)
			}()
		}
	}()
	return func(g *testGate) { g.target.Upstream.Address = l.Addr().String() }
}

const hello = "R\x00\x00\x00\x08\x00\x00\x00\x00K\x00\x00\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x02Z\x00\x00\x00\x05I"

// TestHostileUpstream is PG-95: whatever an upstream does, its own session ends in good order and no other is harmed.
func TestHostileUpstream(t *testing.T) {
	t.Parallel()
	good := startGate(t).connect(pgx.QueryExecModeExec)
	t.Cleanup(func() { // when all of them are over
		if err := good.Ping(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct{ name, hello, answer string }{
		{"nothing", "", ""},
		{"garbage", "\x00\x01\x02\x03\x04\x05\x06", ""},
		{"SASL with a leading NUL", "R\x00\x00\x00\x09\x00\x00\x00\x0a\x00", ""},
		{"SASL without end", "R\x00\x00\x00\x0c\x00\x00\x00\x0aSCRA", ""},
		{"SASL continue first", "R\x00\x00\x00\x0c\x00\x00\x00\x0br=xx", ""},
		{"unknown method", "R\x00\x00\x00\x08\x00\x00\x00\x63", ""},
		{"short authentication", "R\x00\x00\x00\x05\x00", ""},
		{"ready before it is ok", "Z\x00\x00\x00\x05I", ""},
		{"3.8 GB announced", "R\xe2\x00\x00\x00", ""},
		{"endless greeting", "R\x00\x00\x00\x08\x00\x00\x00\x00" + strings.Repeat("N\x00\x00\x00\x05\x00", 1000), ""},
		{"row of length -2", hello, "T\x00\x00\x00\x1a\x00\x01a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00D\x00\x00\x00\x0a\x00\x01\xff\xff\xff\xfe"},
		{"row that is too short", hello, "D\x00\x00\x00\x07\x00\x05\x00"},
		{"row without description", hello, "D\x00\x00\x00\x06\x00\x00"},
		{"row of other width", hello, "T\x00\x00\x00\x1d\x00\x01email\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00D\x00\x00\x00\x06\x00\x00"},
		{"empty CommandComplete", hello, "C\x00\x00\x00\x04"},
		{"error without end", hello, "E\x00\x00\x00\x05S"},
		{"parse complete for a query", hello, "1\x00\x00\x00\x04"},
		{"two ReadyForQuery", hello, "Z\x00\x00\x00\x05IZ\x00\x00\x00\x05I"},
		{"unknown status", hello, "Z\x00\x00\x00\x05X"},
		{"unknown type", hello, "~\x00\x00\x00\x04"},
		{"oversize", hello, "D\x7f\xff\xff\xff"},
		{"copy both", hello, "W\x00\x00\x00\x07\x00\x00\x00"},
		{"holds a cancel request", hello, "1\x00\x00\x00\x04"},
		{"closes", hello, ""},
	} {
		t.Run("PG-95 "+c.name, func(t *testing.T) {
			t.Parallel() // some end only by a limit of time
			g := startGate(t, withChain(guard{mask: map[string]string{"email": "x"}}), hostile(t, c.name == "holds a cancel request", func(conn net.Conn) {
				_, _ = io.WriteString(conn, c.hello)
				if c.hello == hello {
					var b [256]byte
					_, _ = conn.Read(b[:])
					_, _ = io.WriteString(conn, c.answer)
					if c.name == "closes" {
						return
					}
				}
				if c.hello != "" {
					_, _ = io.Copy(io.Discard, conn)
				}
			}))
			r := g.dial()
			r.send(packet(protocol30, "user\x00agent\x00database\x00orders\x00\x00"))
			r.until('R')
			r.send(message('p', token+"\x00"))
			if c.hello == hello {
				r.until('Z')
				r.send(message('Q', "select email from t\x00"))
			}
			got := r.rest()
			if !strings.Contains(got, "FATAL") {
				t.Errorf("no farewell: %q", got)
			}
			if strings.Contains(got, server.Password) {
				t.Error("the credential is in what the client saw")
			}
		})
	}
}

// TestStrangeSettings: when the server says that a setting which Weir reads SQL by has changed after all, nothing more
// is understood, and so nothing passes, until it is back.
func TestStrangeSettings(t *testing.T) {
	if _, err := server.Psql(t.Context(), "postgres", `create or replace function s.sneaky(v text) returns text language plpgsql as $$ begin perform set_config('standard_conforming_strings', v, false); return v; end $$`); err != nil {
		t.Fatal(err)
	}
	c := startGate(t).connect(pgx.QueryExecModeSimpleProtocol)
	if _, err := c.PgConn().Exec(t.Context(), "select s.sneaky('off')").ReadAll(); err != nil { // no policy here refuses unknown functions
		t.Fatal(err)
	}
	_, err := c.PgConn().Exec(t.Context(), `select '\' , ' ; delete from s.victim ; -- '`).ReadAll()
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "42501" || !strings.Contains(pe.Message, "standard_conforming_strings") {
		t.Fatal(err)
	}
	for _, sql := range []string{"set standard_conforming_strings = off", "set client_encoding = 'SJIS'", "select set_config('standard_conforming_strings', 'off', false)"} { // PG-09, PG-11, PG-12
		fresh := startGate(t).connect(pgx.QueryExecModeSimpleProtocol)
		if _, err := fresh.PgConn().Exec(t.Context(), sql).ReadAll(); !errors.As(err, &pe) || pe.Code != "42501" {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// TestCredentialStays: not a byte of the credential leaves for a peer that is not secure enough or not the right one.
func TestCredentialStays(t *testing.T) {
	seen := make(chan string, 8)
	for _, c := range []struct {
		name string
		with option
		want string
	}{
		{"PG-82 server without TLS", func(g *testGate) {
			g.target.Upstream.TLSMode, g.target.Upstream.TLS = core.TLSRequire, &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the mode under test
		}, "securely"},
		{"clear password asked over TCP from afar", nil, ""},
	} {
		if c.with == nil {
			a := authentication{cred: core.Credential{User: "u", Password: "p"}, clients: &clients{}}
			if reply, err := a.step([]byte{0, 0, 0, 3}); err == nil || reply != nil {
				t.Errorf("%s: %q", c.name, reply)
			}
			continue
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
			var b bytes.Buffer
			_, _ = io.CopyN(&b, conn, 8)
			_, _ = conn.Write([]byte{'N'})
			_, _ = io.Copy(&b, conn)
			seen <- b.String()
		}()
		g := startGate(t, c.with, func(g *testGate) { g.target.Upstream.Address = l.Addr().String() })
		_, err = pgx.Connect(t.Context(), g.url(""))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := <-seen; len(got) > 8 {
			t.Errorf("%s: sent %q", c.name, got)
		}
		_ = l.Close()
	}
}

func TestLimits(t *testing.T) {
	t.Run("statement_timeout", func(t *testing.T) {
		c := startGate(t, func(g *testGate) { g.target.Limits.StatementTimeout = 300 * time.Millisecond }).connect(pgx.QueryExecModeExec)
		start := time.Now()
		_, err := c.Exec(t.Context(), "select pg_sleep(20)")
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "57014" || time.Since(start) > 5*time.Second {
			t.Fatal(err)
		}
		if !strings.Contains(pe.Message, "statement timeout") || !strings.Contains(pe.Detail, "limits.statement_timeout") || pe.Routine == "" {
			t.Errorf("it does not name the limit: %+v", pe)
		}
		if err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{"select 1/0", "do $$ begin raise exception 'its own' using errcode = '57014'; end $$"} { // what is no timeout is not called one
			if _, err := c.Exec(t.Context(), sql); !errors.As(err, &pe) || strings.Contains(pe.Message+pe.Detail, "timeout") {
				t.Errorf("%s: %v", sql, err)
			}
		}
		time.Sleep(500 * time.Millisecond) // idleness is not a statement
		if err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("rows", func(t *testing.T) {
		for name, mode := range modes {
			c := startGate(t, func(g *testGate) { g.target.Limits.Rows = 1000 }).connect(mode)
			_, err := c.Exec(t.Context(), "select * from s.wide")
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != "54000" || pe.Detail != "rule limit-rows" {
				t.Fatal(name, err)
			}
			var n int
			if err := c.QueryRow(t.Context(), "select count(*) from s.wide").Scan(&n); err != nil || n != 20000 {
				t.Fatal(name, n, err)
			}
		}
	})
	t.Run("idle", func(t *testing.T) {
		g := startGate(t, func(g *testGate) { g.target.Limits.Idle = 300 * time.Millisecond })
		c := g.connect(pgx.QueryExecModeExec)
		if _, err := c.Exec(t.Context(), "select pg_sleep(0.8)"); err != nil {
			t.Fatal("a long command is not idleness:", err)
		}
		time.Sleep(900 * time.Millisecond)
		if err := c.Ping(t.Context()); err == nil {
			t.Fatal("still there")
		}
	})
}

func TestDrain(t *testing.T) {
	g := startGate(t)
	idle, busy := g.connect(pgx.QueryExecModeExec), g.connect(pgx.QueryExecModeExec)
	if err := busy.Ping(t.Context()); err != nil { // the first statement waits for the grammar
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := busy.Exec(context.Background(), "select pg_sleep(0.6)")
		done <- err
	}()
	time.Sleep(200 * time.Millisecond)
	close(g.drain)
	if err := <-done; err != nil {
		t.Error("the statement under way was cut:", err)
	}
	time.Sleep(200 * time.Millisecond)
	for _, c := range []*pgx.Conn{idle, busy} {
		if err := c.Ping(t.Context()); err == nil {
			t.Error("still there")
		}
	}
}

func TestJournalLost(t *testing.T) {
	g := startGate(t)
	c := g.connect(pgx.QueryExecModeExec)
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.journal.mu.Lock()
	g.journal.lost = true
	g.journal.mu.Unlock()
	if _, err := c.Exec(t.Context(), "insert into s.victim values (6)"); err == nil {
		t.Fatal("passed without a record")
	}
	if out, err := server.Psql(t.Context(), "postgres", "select count(*) from s.victim where a = 6"); err != nil || out != "0" {
		t.Fatal("it ran without a record:", out, err)
	}
}

// TestSyncNeedsARecord: when nothing can be recorded, not even a Sync goes on; with a journal it does.
func TestSyncNeedsARecord(t *testing.T) {
	for _, lost := range []bool{false, true} {
		g := startGate(t)
		r := g.dial()
		r.signIn()
		g.journal.mu.Lock()
		g.journal.lost = lost
		g.journal.mu.Unlock()
		r.send(message('S', ""))
		if !lost {
			r.until('Z')
			continue
		}
		if got := r.rest(); strings.Contains(got, "Z\x00\x00\x00\x05") {
			t.Fatalf("it was answered: %q", got)
		}
		for range 100 {
			g.journal.mu.Lock()
			ends := fmt.Sprint(g.journal.ends)
			g.journal.mu.Unlock()
			if ends == "[journal-lost]" {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatal("the session did not end as journal-lost")
	}
}

func TestUnreachable(t *testing.T) {
	for name, c := range map[string]struct {
		with option
		code string
	}{
		"down":        {func(g *testGate) { g.target.Upstream.Address = "127.0.0.1:1" }, "08001"},
		"no database": {func(g *testGate) { g.target.Upstream.Database = "nowhere" }, "3D000"},
		"wrong password": {func(g *testGate) {
			g.target.Credential = func(context.Context, core.Identity) (core.Credential, error) {
				return core.Credential{User: server.User, Password: "secret-but-wrong"}, nil
			}
		}, "28000"},
		"no credential": {func(g *testGate) {
			g.target.Credential = func(context.Context, core.Identity) (core.Credential, error) {
				return core.Credential{}, errors.New("file /secret/path: no such file")
			}
		}, "28000"},
	} {
		g := startGate(t, c.with)
		_, err := pgx.Connect(t.Context(), strings.Replace(g.url(""), "/orders", "/", 1))
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != c.code || strings.Contains(pe.Message, "secret") {
			t.Errorf("%s: %v", name, err)
		}
		ends := ""
		for range 100 { // the seal follows the farewell
			g.journal.mu.Lock()
			ends = fmt.Sprint(g.journal.ends)
			g.journal.mu.Unlock()
			if ends != "[]" {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if ends != "[error]" {
			t.Errorf("%s: seals %v", name, ends)
		}
	}
}
