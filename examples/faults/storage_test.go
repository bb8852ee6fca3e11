//go:build linux

package faults_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// big is a statement whose answer has about four megabytes.
const big = "select repeat(md5(g::text), 128) from generate_series(1, 1000) g"

// TestDiskFull fills the disk under a gateway that has sessions open. What it has room for goes on; then commands are
// refused at once with a reason; what clients were given until then is in the record, also after a restart.
func TestDiskFull(t *testing.T) {
	if testing.Short() {
		t.Skip("writes a log of 64 MiB full")
	}
	t.Parallel()
	mount := filepath.Join(t.TempDir(), "small")
	must(t, os.Mkdir(mount, 0o700))
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=120m"); err != nil { // the log's first file, not its second
		t.Skipf("a small disk takes a mount, and that is not allowed here: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(mount, syscall.MNT_DETACH)) })
	g := start(t, setup{data: filepath.Join(mount, "data")})
	clients := []*client{g.open("reader"), g.open("other")}
	idle := g.open("idle")
	for _, c := range append(clients, idle) {
		c.must(t, "select 'before'")
	}
	fill(t, mount)
	exhausted(t, g, clients, idle)

	g.signal(syscall.SIGTERM)
	if code := g.wait(30 * time.Second); code == 0 {
		t.Error("a gateway that could not hand on its records ended as if all were well")
	}
	contains(t, "the end", g.process.out.String(), "not everything was handed to JetStream; the next start goes on")

	// A larger disk, and all that was shown is there.
	must(t, syscall.Mount("tmpfs", mount, "tmpfs", syscall.MS_REMOUNT, "size=1g"))
	g.serve()
	again := g.open("after")
	again.must(t, "select 'after'")
	again.bye()
	g.sealed("after")
	g.stop()
	shown(t, g, append(clients, idle, again))
}

// TestFileSizeLimit is the same with a limit of the process (RLIMIT_FSIZE) for the disk's end, which works for everybody
// everywhere, and with a crash for the restart.
func TestFileSizeLimit(t *testing.T) {
	t.Parallel()
	g := start(t, setup{})
	clients := []*client{g.open("reader"), g.open("other")}
	idle := g.open("idle")
	for _, c := range append(clients, idle) {
		c.must(t, "select 'before'")
	}
	pid := g.process.Process.Pid
	must(t, unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 16 << 10, Max: 16 << 10}, nil))
	exhausted(t, g, clients, idle)
	g.kill()
	g.serve()
	again := g.open("after")
	again.must(t, "select 'after'")
	again.bye()
	g.sealed("after")
	g.stop()
	shown(t, g, append(clients, idle, again))
}

// exhausted uses up what room there is and demands that then everything is refused, in time and with a reason.
func exhausted(t *testing.T, g *gateway, clients []*client, idle *client) {
	t.Helper()
	var failed error
	begin := time.Now()
	rounds := 0
	for ; failed == nil; rounds++ {
		c := clients[rounds%len(clients)]
		last := time.Now()
		a, err := c.query(big)
		took := time.Since(last)
		switch {
		case err != nil:
			failed = err
			if took > 4*time.Second {
				t.Errorf("the refusal took %v", took)
			}
		case a.err != nil:
			t.Fatalf("the statement itself failed: %v", a.err)
		case a.count != 1000:
			t.Fatalf("%d rows", a.count)
		}
		if time.Since(begin) > 60*time.Second {
			t.Fatalf("after %d answers of 4 MB nothing is full yet", rounds)
		}
	}
	t.Logf("full after %d answers of 4 MB, %v", rounds-1, time.Since(begin).Round(time.Millisecond))
	refused(t, failed, "58030", "nothing can be recorded now, so nothing may pass")
	for name, c := range map[string]*client{"the other session": clients[rounds%len(clients)], "an idle session": idle} {
		last := time.Now()
		_, err := c.query("select 'now'")
		refused(t, err, "58030", "nothing can be recorded now")
		if took := time.Since(last); took > 2*time.Second {
			t.Errorf("%s: the refusal took %v", name, took)
		}
	}
	last := time.Now()
	_, err := g.dial("newcomer", g.token("newcomer"))
	refused(t, err, "58030", "Weir cannot record now, so it opens no session; try again later")
	if took := time.Since(last); took > 2*time.Second {
		t.Errorf("a new session: the refusal took %v", took)
	}
	res, err := http.Get("http://" + g.admin + "/readyz")
	must(t, err)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("readyz says %d while nothing can be recorded", res.StatusCode)
	}
	contains(t, "the log", g.log("journal: lost"), "nothing passes until it is back", g.data)
	if n := backends(t, "newcomer"); n != 0 {
		t.Error("a session that was refused reached the upstream")
	}
}

// shown demands that all that clients were given is in the archive.
func shown(t *testing.T, g *gateway, clients []*client) {
	t.Helper()
	if r := g.verify(); !r.OK || len(r.Open) > 0 {
		t.Errorf("%+v", r)
	}
	all := g.recordings()
	for _, c := range clients {
		r := all[c.name]
		if r == nil {
			t.Errorf("there is no record of %s", c.name)
			continue
		}
		if n := len(c.notes); n > 0 && c.notes[n-1].bytes > int64(len(r.delivered())) {
			c.notes = lastWords(c, r)
		}
		if err := r.seen(c.notes); err != nil {
			t.Error(err)
		}
		if c.name != "after" && r.end != "journal-lost" && r.end != "gateway-crash" {
			t.Errorf("%s ended as %q", c.name, r.end)
		}
	}
	if all["newcomer"] != nil {
		t.Error("a session that was refused has a record")
	}
}

// lastWords takes away the one thing that a client may have been given without a record: the farewell that says that
// there is none.
func lastWords(c *client, r *recording) []note {
	n := len(c.notes) - 1
	if extra := c.notes[n].bytes - int64(len(r.delivered())); extra > 300 {
		panic(fmt.Sprintf("%s was given %d bytes too much", c.name, extra))
	}
	return c.notes[:n]
}

// fill writes a file until there is no room left.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	must(t, err)
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}
