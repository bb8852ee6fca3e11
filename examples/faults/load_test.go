//go:build linux

package faults_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSlowReader: a client that reads slowly, and at times not at all, holds up its own answer and nothing else; the
// gateway keeps next to nothing of the 200 MB.
func TestSlowReader(t *testing.T) {
	if testing.Short() {
		t.Skip("reads 200 MB slowly")
	}
	t.Parallel()
	g := start(t, setup{})
	stop := g.steady("steady") // the grammar is loaded after it
	c := g.open("slow")
	c.must(t, "select 1")
	before, most := g.small(), int64(0)
	sample := func() {
		most = max(most, g.rss()-before)
	}
	_, err := c.Write(frame('Q', []byte("select repeat(md5(g::text), 31) from generate_series(1, 220000) g\x00")))
	must(t, err)
	for range 10 { // reads nothing at all
		time.Sleep(150 * time.Millisecond)
		sample()
	}
	t.Logf("after 1.5 s without a read: %d MiB more", most>>20)
	begin, total := time.Now(), int64(0)
	_ = c.SetReadDeadline(begin.Add(time.Minute))
	for total < 199<<20 && time.Since(begin) < time.Minute {
		m, err := io.CopyN(io.Discard, c.in, 2<<20)
		must(t, err)
		total += m
		sample()
		time.Sleep(80 * time.Millisecond)
	}
	t.Logf("%d MiB in %v; at most %d MiB more than before", total>>20, time.Since(begin).Round(100*time.Millisecond), most>>20)
	if most > 64<<20 {
		t.Errorf("the gateway grew by %d MiB", most>>20)
	}
	stop()
	_ = c.Close()
	g.sealed("slow")
}

// TestIdleSessions: 200 clients that do nothing cost little, stay, and are all told when the gateway stops.
func TestIdleSessions(t *testing.T) {
	t.Parallel()
	const many = 200
	g := start(t, setup{})
	first := g.open("first")
	first.must(t, "select 1")
	before := g.small()
	clients := make([]*client, many)
	tokens := make([]string, many)
	for i := range clients {
		tokens[i] = g.token(fmt.Sprintf("idle-%d", i))
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	failed := 0
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < many; i += 8 {
				c, err := g.dial(fmt.Sprintf("idle-%d", i), tokens[i])
				if err != nil {
					mu.Lock()
					failed++
					mu.Unlock()
					t.Errorf("idle-%d: %v", i, err)
					continue
				}
				clients[i] = c
			}
		})
	}
	wg.Wait()
	if failed > 0 {
		t.FailNow()
	}
	each := (g.rss() - before) / many
	t.Logf("%d KiB for each of %d idle sessions", each>>10, many)
	if each > 256<<10 {
		t.Errorf("an idle session takes %d KiB", each>>10)
	}
	begin := time.Now()
	for range 20 {
		first.must(t, "select 'among many'")
	}
	if took := time.Since(begin) / 20; took > 200*time.Millisecond {
		t.Errorf("a statement among idle sessions takes %v", took)
	}
	clients[many/2].must(t, "select 'still here'")
	if n := backends(t, "idle-7"); n != 1 {
		t.Errorf("an idle session has %d backends", n)
	}
	g.signal(15)
	for _, c := range clients {
		if e := c.gone(); e == nil || e.code != "57P01" {
			t.Errorf("%s was told %v", c.name, e)
		}
		_ = c.Close()
	}
	if code := g.wait(10 * time.Second); code != 0 {
		t.Errorf("exit code %d:\n%s", code, g.process.out.String())
	}
	ended := 0
	for _, s := range g.sessions() {
		if strings.HasPrefix(s.Identity, "idle-") && s.End == "killed" {
			ended++
		}
	}
	if ended != many {
		t.Errorf("%d of %d sessions are recorded as ended by the gateway", ended, many)
	}
}

// TestNoDescriptors: a process that may open no more files takes no new clients, and keeps those it has; once it may
// again, it does.
func TestNoDescriptors(t *testing.T) {
	t.Parallel()
	g := start(t, setup{limits: "sign_in: 2s"})
	stop := g.steady("steady")
	pid := g.process.Process.Pid
	var was unix.Rlimit
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was))
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	must(t, err)
	few := was
	few.Cur = uint64(len(open)) + 1 // room for one client at most, and for nothing else
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil))
	var wg sync.WaitGroup
	for range 5 {
		token := g.token("crowd")
		wg.Go(func() {
			c, err := g.connect()
			if err != nil {
				return
			}
			defer c.Close()
			c.limit = 4 * time.Second
			if err := c.signIn(token, "user", "agent", "database", "orders", "application_name", "crowd"); err == nil {
				c.bye() // there was room after all
			}
		})
	}
	wg.Wait()
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &was, nil))
	back(t, g)
	stop()
	contains(t, "the log", g.process.out.String(), "too many open files")
	// The ledger takes nothing more after a write that failed, and the records wait in JetStream: a start brings them in.
	g.kill()
	g.serve()
	g.sealed("steady")
}
