//go:build linux

package faults_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// steady keeps a session busy until the returned function is called, which demands that nothing went wrong with it.
func (g *gateway) steady(name string) (stop func()) {
	g.t.Helper()
	c := g.open(name)
	c.must(g.t, "select 'warm'") // the first statement waits for the grammar
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var n atomic.Int64
	go func() {
		for ctx.Err() == nil {
			want := fmt.Sprint(n.Add(1))
			a, err := c.query("select " + want)
			if err == nil && a.err != nil {
				err = a.err
			}
			if err == nil && (len(a.rows) != 1 || a.rows[0][0] != want) {
				err = fmt.Errorf("asked for %s, got %v", want, a.rows)
			}
			if err != nil {
				done <- err
				return
			}
			time.Sleep(time.Millisecond)
		}
		c.bye()
		done <- nil
	}()
	return func() {
		g.t.Helper()
		before := n.Load()
		eventually(g.t, 10*time.Second, "the session "+name+" goes on", func() bool { return n.Load() > before+1 || len(done) > 0 }, nothing)
		cancel()
		if err := <-done; err != nil {
			g.t.Errorf("the session %s, which had nothing to do with it: %v", name, err)
		}
	}
}

// backends counts the upstream's processes of a client.
func backends(t testing.TB, name string) int {
	t.Helper()
	out, err := upstream.Psql(context.Background(), "postgres", fmt.Sprintf("select count(*) from pg_stat_activity where application_name = '%s'", name))
	must(t, err)
	n := 0
	_, err = fmt.Sscan(out, &n)
	must(t, err)
	return n
}

// TestOversizeFrame: what announces more than max_frame is refused by its header, before anything is kept of it.
func TestOversizeFrame(t *testing.T) {
	t.Parallel()
	g := start(t, setup{limits: "max_frame: 1MiB"})
	stop := g.steady("steady")
	before := g.small()
	for i, size := range []uint32{1<<20 + 1, 512 << 20, 0x7fffffff} {
		c := g.open(fmt.Sprintf("large-%d", i))
		_, err := c.Write(binary.BigEndian.AppendUint32([]byte{'Q'}, size+4))
		must(t, err)
		_, _ = c.Write(bytes.Repeat([]byte("select "), 1000))
		e := c.gone()
		if size == 0x7fffffff { // with the length's own four bytes it is negative
			if e == nil || e.code != "08P01" {
				t.Errorf("a length beyond the protocol's: %v", e)
			}
			continue
		}
		if e == nil || e.code != "54000" {
			t.Fatalf("%d bytes: %v", size, e)
		}
		contains(t, "the farewell", e.Error(), "FATAL", fmt.Sprintf("announces %d bytes", size), "max_frame allows 1048576")
	}
	c := g.open("just-fits")
	a := c.must(t, "select '"+strings.Repeat("x", 1<<20-100)+"'")
	if len(a.rows) != 1 || len(a.rows[0][0]) != 1<<20-100 {
		t.Error("a frame within the limit did not pass")
	}
	// A row that is larger than the client may get ends its session too: it cannot be judged piece by piece.
	if _, err := c.query("select repeat('y', 2000000)"); err == nil {
		t.Error("a row larger than max_frame passed")
	} else {
		refused(t, err, "54000", "from the upstream", "max_frame")
	}
	if grown := g.rss() - before; grown > 64<<20 {
		t.Errorf("the gateway grew by %d MiB", grown>>20)
	}
	stop()
	if s := g.sealed("large-1"); s.End != "error" {
		t.Errorf("the session's end is %q", s.End)
	}
	if r := g.replay(g.sealed("large-1").ID); r.result("54000") == nil {
		t.Error("the farewell is not in the record")
	}
}

// TestGarbageAtTheStart: whatever is sent in the place of a startup packet ends that connection only.
func TestGarbageAtTheStart(t *testing.T) {
	t.Parallel()
	g := start(t, setup{})
	stop := g.steady("steady")
	noise := make([]byte, 64<<10)
	_, _ = rand.Read(noise)
	long := binary.BigEndian.AppendUint32(nil, 10_000)
	for name, b := range map[string][]byte{
		"HTTP":                 []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"SSH":                  []byte("SSH-2.0-OpenSSH_9.2\r\n"),
		"noise":                noise,
		"zeros":                make([]byte, 4096),
		"ones":                 bytes.Repeat([]byte{0xff}, 4096),
		"a TLS alert":          {0x15, 3, 3, 0, 2, 2, 40},
		"a broken hello":       append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc}, noise[:507]...),
		"no user":              startupOf(3<<16, "database\x00orders\x00\x00"),
		"another protocol":     startupOf(2<<16, "user\x00agent\x00\x00"),
		"no terminator":        startupOf(3<<16, "user\x00agent"),
		"a replication":        startupOf(3<<16, "user\x00agent\x00database\x00nosuch\x00replication\x00true\x00\x00"),
		"a name without value": startupOf(3<<16, "user\x00\x00"),
		"two SSLRequests":      {0, 0, 0, 8, 4, 210, 22, 47, 0, 0, 0, 8, 4, 210, 22, 47},
		"an empty packet":      {0, 0, 0, 4},
		"a cancel of nobody":   {0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2},
		"a long nothing":       long,
	} {
		conn, err := net.Dial("tcp", g.listen)
		must(t, err)
		_, _ = conn.Write(b)
		_ = conn.(*net.TCPConn).CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		got, err := io.ReadAll(io.LimitReader(conn, 1<<20))
		if err, ok := err.(net.Error); ok && err.Timeout() {
			t.Errorf("%s: the connection stays open", name)
		}
		if len(got) > 0 && got[0] == 'R' {
			t.Errorf("%s: the gateway asks for a token", name)
		}
		_ = conn.Close()
	}
	for range 200 { // and many at a time
		conn, err := net.Dial("tcp", g.listen)
		must(t, err)
		_, _ = conn.Write(noise[:100])
		defer conn.Close()
	}
	stop()
	if out := g.process.out.String(); strings.Contains(out, "panic") {
		t.Errorf("the gateway panicked:\n%s", out)
	}
}

func startupOf(version uint32, params string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(params)))
	b = binary.BigEndian.AppendUint32(b, version)
	return append(b, params...)
}

// TestGarbageInside: a session that stops speaking the protocol ends, with a word why; its backend is gone; what it
// did before is in the record.
func TestGarbageInside(t *testing.T) {
	t.Parallel()
	g := start(t, setup{})
	stop := g.steady("steady")
	noise := make([]byte, 4096)
	_, _ = rand.Read(noise)
	noise[0] = 0xfe
	for i, b := range [][]byte{
		noise,
		{'Q', 0, 0, 0, 3},
		{'Q', 0xff, 0xff, 0xff, 0xff},
		frame('Q', []byte("select 1")),         // its text has no end
		frame('B', []byte("\x00\x00\xff\xff")), // more formats than bytes
		frame('B', []byte("\x00\x00\x00\x00\x00\x01\x7f\xff\xff\xff\x00\x00")), // a value of 2 GB
		frame('P', []byte("\x00select 1\x00\x00\x05")),
		frame('D', []byte("X\x00")),
		frame('E', nil),
		frame('R', []byte{0, 0, 0, 0}), // a server's message
		frame('p', []byte("again\x00")),
	} {
		name := fmt.Sprintf("garbage-%d", i)
		c := g.open(name)
		c.must(t, "select 'before'")
		_, _ = c.Write(b)
		if e := c.gone(); e == nil || e.severity != "FATAL" || e.code != "08P01" {
			t.Errorf("%s %.20q: %v", name, b, e)
		}
		s := g.sealed(name)
		r := g.replay(s.ID)
		if err := r.seen(c.notes); err != nil {
			t.Error(err)
		}
		if s.End != "error" || r.result("08P01") == nil {
			t.Errorf("%s: end %q; farewell in the record: %v", name, s.End, r.result("08P01") != nil)
		}
		if n := backends(t, name); n != 0 {
			t.Errorf("%s: %d backends are left", name, n)
		}
	}
	// Half a message, and then silence, keeps nobody but itself.
	c := g.open("half")
	_, _ = c.Write([]byte{'Q', 0, 0, 0, 100, 's', 'e', 'l'})
	_ = c.Close()
	if s := g.sealed("half"); s.End != "closed" || s.Commands != 0 {
		t.Errorf("half a message: %+v", s)
	}
	stop()
}

// TestClientGone: a client that vanishes in the middle of an answer, politely or not, leaves nothing behind at the
// upstream, not even the statement that it was waiting for.
func TestClientGone(t *testing.T) {
	t.Parallel()
	g := start(t, setup{})
	stop := g.steady("steady")
	leave := map[string]func(c *client){
		"reset":  func(c *client) { _ = c.Conn.(*net.TCPConn).SetLinger(0); _ = c.Close() },
		"closed": func(c *client) { _ = c.Close() },
	}
	for how, f := range leave {
		for what, sql := range map[string]string{
			"result": "select repeat('z', 1000) from generate_series(1, 10000000)",
			"sleep":  "select pg_sleep(60)",
			"work":   "select count(*) from generate_series(1, 100000) a, generate_series(1, 1000000) b",
		} {
			name := "gone-" + how + "-" + what
			c := g.open(name)
			_, err := c.Write(frame('Q', []byte(sql+"\x00")))
			must(t, err)
			if what == "result" {
				_, err = io.CopyN(io.Discard, c.in, 100_000)
				must(t, err)
			} else {
				eventually(t, 5*time.Second, "the statement runs", func() bool {
					out, err := upstream.Psql(context.Background(), "postgres", fmt.Sprintf("select count(*) from pg_stat_activity where application_name = '%s' and state = 'active'", name))
					return err == nil && out == "1"
				}, nothing)
			}
			begin := time.Now()
			f(c)
			eventually(t, 5*time.Second, name+": its backend is gone", func() bool { return backends(t, name) == 0 }, nothing)
			t.Logf("%s: gone after %v", name, time.Since(begin).Round(time.Millisecond))
			if s := g.sealed(name); s.Commands != 1 || s.End != "closed" {
				t.Errorf("%s: %+v", name, s)
			}
		}
	}
	stop()
}

// TestGoodbyeFinishes is the other side of the above: who sends a statement and says goodbye wants it done, and it is.
func TestGoodbyeFinishes(t *testing.T) {
	t.Parallel()
	g := start(t, setup{})
	c := g.open("goodbye")
	mark := "goodbye-" + random(4)
	b := frame('Q', []byte("insert into written select '"+mark+"' from pg_sleep(0.3)\x00"))
	_, err := c.Write(append(b, frame('X', nil)...))
	must(t, err)
	_ = c.Close()
	g.sealed("goodbye")
	if out, err := upstream.Psql(context.Background(), "orders", "select count(*) from written where marker = '"+mark+"'"); err != nil || out != "1" {
		t.Errorf("the statement before the goodbye left %q rows, %v", out, err)
	}
}

// TestRealClient is the control of the raw client: a driver that speaks the whole protocol, over verified TLS, sees
// refusals and errors as it expects them, and its connection stays usable.
func TestRealClient(t *testing.T) {
	t.Parallel()
	g := start(t, setup{})
	pem, err := os.ReadFile(filepath.Join(g.data, "tls", "ca.pem"))
	must(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	config, err := pgx.ParseConfig(fmt.Sprintf("postgres://agent@%s/orders?application_name=driver", g.listen))
	must(t, err)
	config.Password = g.token("driver")
	config.TLSConfig = &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	must(t, err)
	if _, err := conn.Exec(ctx, "drop table customers"); err == nil || !strings.Contains(err.Error(), "schema changes go through migrations") {
		t.Errorf("drop table: %v", err)
	}
	if _, err := conn.Exec(ctx, "select nosuch"); err == nil || !strings.Contains(err.Error(), "42703") {
		t.Errorf("a wrong column: %v", err)
	}
	var email string
	must(t, conn.QueryRow(ctx, "select email from customers where id = $1", 1).Scan(&email))
	if email == "ada@example.com" || !strings.Contains(email, "*") {
		t.Errorf("the address is not masked: %s", email)
	}
	must(t, conn.Close(ctx))
	if s := g.sealed("driver"); s.Denied != 1 || s.End != "closed" {
		t.Errorf("%+v", s)
	}
}
