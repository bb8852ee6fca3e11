//go:build linux

package faults_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestDrain: after SIGTERM no client is let in any more, idle sessions are told at once, a statement under way gets
// its answer, a transaction may end, and the process ends well within the limit.
func TestDrain(t *testing.T) {
	t.Parallel()
	g := start(t, setup{limits: "drain: 8s"})
	idle, busy, inside, done := g.open("idle"), g.open("busy"), g.open("inside"), make(chan error, 1)
	idle.must(t, "select 1")
	inside.must(t, "begin")
	inside.must(t, "insert into written values ('drain-"+random(4)+"')")
	ready := make(chan struct{})
	go func() {
		_, err := busy.Write(frame('Q', []byte("select 'finished' from pg_sleep(1.5)\x00")))
		close(ready)
		if err == nil {
			var a answer
			if a, err = busy.answer(); err == nil && (len(a.rows) != 1 || a.rows[0][0] != "finished") {
				err = fmt.Errorf("the statement under way got %+v", a)
			}
		}
		done <- err
	}()
	<-ready
	time.Sleep(200 * time.Millisecond) // so that the statement is upstream
	begin := time.Now()
	g.signal(syscall.SIGTERM)
	if e := idle.gone(); e == nil || e.code != "57P01" || !strings.Contains(e.message, "the gateway is stopping") {
		t.Errorf("the idle session was told %v", e)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("the idle session was told after %v", took)
	}
	if conn, err := net.DialTimeout("tcp", g.listen, time.Second); err == nil {
		_ = conn.Close()
		t.Error("a gateway that stops takes new clients")
	}
	if res, err := http.Get("http://" + g.admin + "/readyz"); err == nil {
		_ = res.Body.Close()
		if res.StatusCode == http.StatusOK {
			t.Error("a gateway that stops says that it is ready")
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if e := busy.gone(); e == nil || e.code != "57P01" {
		t.Errorf("the busy session was told %v", e)
	}
	inside.must(t, "select 'still in the transaction'")
	a, err := inside.query("commit")
	if err != nil || a.tag != "COMMIT" {
		t.Errorf("the transaction's end: %+v, %v", a, err)
	}
	if e := inside.gone(); e == nil || e.code != "57P01" {
		t.Errorf("the session in a transaction was told %v", e)
	}
	if code := g.wait(8 * time.Second); code != 0 {
		t.Errorf("exit code %d:\n%s", code, g.process.out.String())
	}
	for _, c := range []*client{idle, busy, inside} {
		s := g.sessions("--identity", c.name)
		if len(s) != 1 || s[0].End != "killed" {
			t.Errorf("%s: %+v", c.name, s)
			continue
		}
		r := g.replay(s[0].ID)
		if err := r.seen(c.notes); err != nil {
			t.Error(err)
		}
		if r.result("57P01") == nil {
			t.Errorf("%s: the farewell is not in the record", c.name)
		}
	}
}

// TestDrainLimit: what does not end within the limit is ended; the process ends well all the same, and so does the
// statement at the upstream.
func TestDrainLimit(t *testing.T) {
	t.Parallel()
	g := start(t, setup{limits: "drain: 1s"})
	busy, inside := g.open("endless"), g.open("forgotten")
	inside.must(t, "begin")
	_, err := busy.Write(frame('Q', []byte("select pg_sleep(600)\x00")))
	must(t, err)
	reading := g.open("unread") // and one that reads nothing of a long answer
	_, err = reading.Write(frame('Q', []byte("select repeat('u', 1000) from generate_series(1, 10000000)\x00")))
	must(t, err)
	time.Sleep(500 * time.Millisecond)
	begin := time.Now()
	g.signal(syscall.SIGTERM)
	for _, c := range []*client{busy, inside} {
		if e := c.gone(); e == nil || e.code != "57P01" {
			t.Errorf("%s was told %v", c.name, e)
		}
	}
	if code := g.wait(20 * time.Second); code != 0 {
		t.Errorf("exit code %d:\n%s", code, g.process.out.String())
	}
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("the end took %v", took)
	}
	eventually(t, 5*time.Second, "the statement is gone", func() bool { return backends(t, "endless")+backends(t, "unread") == 0 }, nothing)
}

// TestSecondSignal: who cannot wait sends the signal again. What was recorded survives.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	g := start(t, setup{limits: "drain: 60s"})
	c := g.open("impatient")
	c.must(t, "begin")
	g.signal(syscall.SIGTERM)
	g.log("draining")
	g.signal(syscall.SIGTERM)
	begin := time.Now()
	_ = g.wait(5 * time.Second)
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the second signal took %v", took)
	}
	g.serve()
	s := g.sealed("impatient")
	if s.End != "gateway-crash" {
		t.Errorf("%+v", s)
	}
	if err := g.replay(s.ID).seen(c.notes); err != nil {
		t.Error(err)
	}
}

// TestBrokenReload: a reload that cannot be done changes nothing, for nobody, and says why: file, line, and what to do.
func TestBrokenReload(t *testing.T) {
	t.Parallel()
	g := start(t, setup{})
	stop := g.steady("steady")
	open := g.open("open")
	whole := g.yaml()
	for i, c := range []struct {
		name   string
		change func()
		want   []string
	}{
		{"not YAML", func() { g.write("weir.yaml", whole+"\n\t}") }, []string{"weir.yaml", "is not YAML"}},
		{"an unknown key", func() { g.write("weir.yaml", strings.Replace(whole, "protocol:", "protocl:", 1)) }, []string{"weir.yaml:8: targets[0].protocl: unknown key (did you mean protocol?)"}},
		{"no targets", func() { g.write("weir.yaml", whole[:strings.Index(whole, "targets:")]) }, []string{"targets: there are none"}},
		{"another data folder", func() { g.write("weir.yaml", strings.Replace(whole, "data: ", "data: /nonexistent", 1)) }, []string{"weir.yaml:1: data: cannot be changed by a reload (restart the gateway)"}},
		{"a policy that does not compile", func() { g.write("policies/guardrails.rego", "package weir.guardrails\n\ndeny contains {} {\n") }, []string{"policies/guardrails.rego:4"}},
		{"no policy", func() { g.write("weir.yaml", strings.Replace(whole, "path: policies", "path: nowhere", 1)) }, []string{"policies[0].path"}},
		{"a port that is taken", func() { g.write("weir.yaml", strings.Replace(whole, g.listen, g.admin, 1)) }, []string{"weir.yaml:9", "is taken by listen.admin"}},
		{"a port that another process has", func() { g.write("weir.yaml", strings.Replace(whole, g.listen, upstream.Addr(), 1)) }, []string{"weir.yaml:9", "is in use"}},
		{"no credential", func() { g.write("weir.yaml", strings.Replace(whole, "UPSTREAM_PASSWORD", "NOT_SET", 1)) }, []string{"NOT_SET", "is not set"}},
	} {
		c.change()
		before := len(g.process.out.String())
		g.signal(syscall.SIGHUP)
		var said string
		eventually(t, 5*time.Second, c.name+": the log says that the reload was refused", func() bool {
			said = g.process.out.String()[before:]
			return strings.Contains(said, "nothing has changed")
		}, func() string { return g.process.out.String()[before:] })
		contains(t, c.name+": the log", strings.ReplaceAll(said, `\"`, `"`), append(c.want, "reload refused", g.config)...)

		a, err := open.query("drop table customers")
		if err != nil || a.err == nil || a.err.code != "42501" {
			t.Errorf("%s: an open session: %+v, %v", c.name, a, err)
		}
		name := fmt.Sprintf("later-%d", i)
		later := g.open(name)
		if a, err := later.query("drop table customers"); err != nil || a.err == nil || a.err.code != "42501" {
			t.Errorf("%s: a new session: %+v, %v", c.name, a, err)
		}
		later.bye()
		g.write("weir.yaml", whole)
		g.write("policies/guardrails.rego", guardrails)
	}
	g.signal(syscall.SIGHUP)
	g.log("cli: reloaded")
	stop()
}

// TestReload: a good reload brings its rules to open sessions too, for what they prepared before as well (attack PG-19);
// the target's limits are those that a session began with.
func TestReload(t *testing.T) {
	t.Parallel()
	g := start(t, setup{})
	open := g.open("open")
	open.must(t, "prepare p as select count(*) from customers")
	open.must(t, "select count(*) from customers")
	g.write("policies/guardrails.rego", strings.Replace(guardrails, `"ddl" in input.event.command.effects`, "some r in input.event.command.resources\n\tcontains(r.name, \"customers\")", 1))
	next := freePort(t)
	g.write("weir.yaml", strings.Replace(g.yaml(), "drain: 3s", "drain: 3s, rows: 3", 1)+
		"  - name: second\n    protocol: postgres\n    listen: \""+next+"\"\n    upstream: {address: \""+g.upstream+"\", database: orders, tls: disable}\n    credential: {user: app, password: \"${env:UPSTREAM_PASSWORD}\"}\n")
	g.signal(syscall.SIGHUP)
	g.log("cli: reloaded")
	for _, sql := range []string{"select count(*) from customers", "execute p"} {
		if a, err := open.query(sql); err != nil || a.err == nil || a.err.code != "42501" {
			t.Errorf("%s: the open session has not got the new rule: %+v %v", sql, a, err)
		}
	}
	if a := open.must(t, "select * from wide limit 10"); a.count != 10 {
		t.Errorf("%d rows", a.count)
	}
	open.must(t, "create table x (a int)") // the old rule is gone
	later := g.open("later")
	if a, err := later.query("select count(*) from customers"); err != nil || a.err == nil || a.err.code != "42501" {
		t.Errorf("the new session has not got the new rule: %+v %v", a, err)
	}
	if a, err := later.query("values (1), (2), (3), (4)"); err != nil || a.err == nil || !strings.Contains(a.err.detail, "limit-rows") {
		t.Errorf("the new session has not got the new limit: %+v %v", a, err)
	}
	old := g.listen
	g.listen = next
	second := g.open("second")
	second.must(t, "values (1), (2), (3), (4)")
	// A listener that goes away takes no new clients; who came by it stays.
	g.listen = old
	g.write("weir.yaml", g.yaml())
	g.signal(syscall.SIGHUP)
	eventually(t, 5*time.Second, "the second listener is closed", func() bool {
		conn, err := net.Dial("tcp", next)
		if err == nil {
			_ = conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	}, nothing)
	second.must(t, "values (5)")
	open.must(t, "select 'and this one too'")
}

// TestReloadStorm: reloads without end, good and bad, under load. No statement of any session fails.
func TestReloadStorm(t *testing.T) {
	t.Parallel()
	g := start(t, setup{})
	var stops []func()
	for i := range 4 {
		stops = append(stops, g.steady(fmt.Sprintf("steady-%d", i)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { // and clients that come and go
		for i := 0; ctx.Err() == nil; i++ {
			name := fmt.Sprintf("passing-%d", i)
			c, err := g.dial(name, g.token(name))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			if a, err := c.query("drop table customers"); err != nil || a.err == nil || a.err.code != "42501" {
				t.Errorf("%s: %+v %v", name, a, err)
			}
			c.bye()
		}
	})
	whole, broken := g.yaml(), strings.Replace(g.yaml(), "chain:", "chian:", 1)
	for i := 0; ctx.Err() == nil; i++ {
		g.write("weir.yaml", map[bool]string{true: whole, false: broken}[i%3 != 0])
		for range 5 {
			g.signal(syscall.SIGHUP)
			time.Sleep(4 * time.Millisecond)
		}
	}
	wg.Wait()
	g.write("weir.yaml", whole)
	for _, stop := range stops {
		stop()
	}
	before := len(g.process.out.String())
	g.signal(syscall.SIGHUP)
	eventually(t, 5*time.Second, "the last reload is done", func() bool { return strings.Contains(g.process.out.String()[before:], "cli: reloaded") }, nothing)
	if out := g.process.out.String(); strings.Contains(out, "panic") || strings.Contains(out, "DATA RACE") {
		t.Errorf("%s", tail(out, 50))
	}
}
