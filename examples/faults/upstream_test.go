//go:build linux

package faults_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// fragile starts a server that a test may break.
func fragile(t *testing.T) *postgrestest.Server {
	t.Helper()
	s, err := postgrestest.Start(context.Background(), postgrestest.Options{NoTLS: true, Settings: map[string]string{"log_statement": "all"}})
	must(t, err)
	t.Cleanup(func() { _ = s.Stop() })
	_, err = s.Psql(context.Background(), "postgres", "create role app login superuser password '"+password+"'; create database orders owner app")
	must(t, err)
	return s
}

// TestUpstreamDown: the gateway runs, each client is told, the operator's log says why, and when the target is back
// nothing has to be restarted.
func TestUpstreamDown(t *testing.T) {
	t.Parallel()
	address := freePort(t)
	g := start(t, setup{upstream: address})
	_, err := g.dial("early", g.token("early"))
	refused(t, err, "08001", "the target cannot be reached")
	if s := g.sealed("early"); s.End != "error" {
		t.Errorf("%+v", s)
	}
	contains(t, "the log", g.log("cannot be reached"), "orders", address, "connection refused")

	// One that accepts and says nothing is given up within the time to sign in, as is one that hangs up.
	l, err := net.Listen("tcp", address)
	must(t, err)
	conns := make(chan net.Conn, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
		}
	}()
	silent := make(chan error, 1)
	g2 := start(t, setup{upstream: address, limits: "sign_in: 1s"})
	begin := time.Now()
	go func() { _, err := g2.dial("silent", g2.token("silent")); silent <- err }()
	defer (<-conns).Close()
	refused(t, <-silent, "08001", "the target cannot be reached")
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("a silent target was given up after %v", took)
	}
	go func() { _, err := g2.dial("hangup", g2.token("hangup")); silent <- err }()
	_ = (<-conns).Close()
	refused(t, <-silent, "08001", "the target cannot be reached")
	go func() { _, err := g2.dial("noise", g2.token("noise")); silent <- err }()
	c := <-conns
	_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	refused(t, <-silent, "08P01", "the target does not speak the protocol")
	_ = c.Close()
	_ = l.Close()
}

// TestWrongUpstreamPassword: the client learns that it is not its fault, the operator what the server said; nobody
// learns the password.
func TestWrongUpstreamPassword(t *testing.T) {
	t.Parallel()
	g := start(t, setup{password: "wrongCanary" + random(12)})
	_, err := g.dial("client", g.token("client"))
	e := refused(t, err, "28000", "Weir could not sign in at the target", "ask the operator to check its credential")
	if strings.Contains(e.Error(), g.password) {
		t.Error("the password is in the answer")
	}
	contains(t, "the log", g.log("could not sign in"), "orders", "28P01", "password authentication failed")
	if s := g.sealed("client"); s.End != "error" || s.Commands != 0 {
		t.Errorf("%+v", s)
	}
}

// TestNoSuchDatabase: a target that names a database the server does not have.
func TestNoSuchDatabase(t *testing.T) {
	t.Parallel()
	g := start(t, setup{edit: func(c string) string { return strings.Replace(c, "database: orders", "database: nosuch", 1) }})
	c, err := g.connect()
	must(t, err)
	err = c.signIn(g.token("client"), "user", "agent", "database", "orders")
	refused(t, err, "3D000", "the database does not exist at the target")
	contains(t, "the log", g.log("does not exist at the target"), "orders")
}

// TestBackendKilled: the server ends one session in the middle of an answer. That client gets what came, and the
// server's own word; the record has both; others go on.
func TestBackendKilled(t *testing.T) {
	t.Parallel()
	g := start(t, setup{})
	stop := g.steady("steady")
	c := g.open("victim")
	_, err := c.Write(frame('Q', []byte("select repeat('v', 1000) from generate_series(1, 10000000)\x00")))
	must(t, err)
	for range 1000 {
		_, _, err := c.read()
		must(t, err)
	}
	out, err := upstream.Psql(context.Background(), "postgres", "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'victim'")
	if err != nil || out != "t" {
		t.Fatalf("%s %v", out, err)
	}
	_, err = c.answer() // a server that is killed while it waits for its client to read says nothing: then Weir does
	var fatal errFatal
	if !errors.As(err, &fatal) || fatal.code != "57P01" && fatal.code != "08006" {
		t.Fatalf("the farewell: %v", err)
	}
	if _, _, err := c.read(); err == nil {
		t.Error("the connection goes on")
	}
	r := g.replay(g.sealed("victim").ID)
	if err := r.seen(c.notes); err != nil {
		t.Error(err)
	}
	if r.result(fatal.code) == nil {
		t.Error("the farewell is not in the record")
	}

	// The same between two statements, when nobody is reading.
	c = g.open("idle-victim")
	c.must(t, "select 1")
	_, err = upstream.Psql(context.Background(), "postgres", "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'idle-victim'")
	must(t, err)
	if e := c.gone(); e == nil || e.code != "57P01" {
		t.Errorf("the farewell of an idle session: %v", e)
	}
	stop()
}

// TestServerCrash: a backend that dies takes all sessions of the server with it. Each client is told; when the server
// is back, so is the target.
func TestServerCrash(t *testing.T) {
	t.Parallel()
	s := fragile(t)
	g := start(t, setup{upstream: s.Addr()})
	var clients []*client
	for i := range 5 {
		c := g.open(fmt.Sprintf("crash-%d", i))
		c.must(t, "select 1")
		clients = append(clients, c)
	}
	pid := 0
	_, err := fmt.Sscan(clients[0].must(t, "select pg_backend_pid()").rows[0][0], &pid)
	must(t, err)
	for _, c := range clients[2:] {
		_, err := c.Write(frame('Q', []byte("select repeat('c', 1000) from generate_series(1, 10000000)\x00")))
		must(t, err)
		for range 100 {
			_, _, err := c.read()
			must(t, err)
		}
	}
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	for i, c := range clients {
		e := c.gone()
		if e == nil || e.code != "08006" && e.code != "57P02" {
			t.Errorf("client %d: %v", i, e)
		}
	}
	back(t, g)
	// And an orderly restart.
	c := g.open("restart")
	c.must(t, "begin")
	must(t, s.Restart(context.Background()))
	if e := c.gone(); e == nil || e.code != "57P01" {
		t.Errorf("a restart: %v", e)
	}
	back(t, g)
	for _, s := range g.sessions() {
		if strings.HasPrefix(s.Identity, "crash-") && s.End != "closed" && s.End != "error" {
			t.Errorf("%+v", s)
		}
	}
}

// back waits until the target takes sessions again. What is said until then is a clear error each time.
func back(t *testing.T, g *gateway) {
	t.Helper()
	name := "back-" + random(4)
	eventually(t, 20*time.Second, "the target is back", func() bool {
		c, err := g.dial(name, g.token(name))
		var fatal errFatal
		switch {
		case err == nil:
			c.must(t, "select 1")
			c.bye()
			return true
		case !errors.As(err, &fatal) || fatal.code != "08001" && fatal.code != "57P03" && fatal.code != "57P01":
			t.Fatalf("while the target is down: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
		return false
	}, nothing)
}

// TestServerStops: the whole server is stopped (SIGSTOP). Statements are given up after statement_timeout and the ten
// seconds that a cancel is given, new sessions within their time to sign in; once the server goes on, so does the target.
func TestServerStops(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the ten seconds that a cancel is given")
	}
	t.Parallel()
	s := fragile(t)
	g := start(t, setup{upstream: s.Addr(), limits: "statement_timeout: 1s, sign_in: 2s"})

	// While the server is well, the limit is an ordinary cancel.
	c := g.open("slow")
	c.must(t, "select 'warm'")
	begin := time.Now()
	a, err := c.query("select pg_sleep(30)")
	must(t, err)
	if a.err == nil || a.err.code != "57014" || a.status != 'I' || time.Since(begin) > 4*time.Second {
		t.Errorf("statement_timeout: %+v after %v", a, time.Since(begin))
	}
	c.must(t, "select 'still usable'")

	pid := 0
	_, err = fmt.Sscan(c.must(t, "select pg_backend_pid()").rows[0][0], &pid)
	must(t, err)
	idle := g.open("idle")
	for _, p := range []int{s.Process().Pid, pid} {
		must(t, syscall.Kill(p, syscall.SIGSTOP))
		defer func() { _ = syscall.Kill(p, syscall.SIGCONT) }()
	}
	begin = time.Now()
	_, err = g.dial("new", g.token("new"))
	refused(t, err, "08001", "the target cannot be reached")
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("a new session was given up after %v", took)
	}
	begin = time.Now()
	_, err = c.query("select 'nobody hears'")
	refused(t, err, "57014", "limits.statement_timeout", "does not stop")
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("the statement was given up after %v", took)
	}
	for _, p := range []int{s.Process().Pid, pid} {
		must(t, syscall.Kill(p, syscall.SIGCONT))
	}
	idle.must(t, "select 'was not touched'")
	back(t, g)
	if s := g.sealed("slow"); s.End != "killed" {
		t.Errorf("%+v", s)
	}
}
