package ssh

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// load has the tests of floods do what `make load-ssh` is for, and not only enough to see that it works.
var load = flag.Bool("load", false, "a million changes of the window, and the like")

func ofLoad(short, long int) int {
	if *load {
		return long
	}
	return short
}

// TestChannelsInTurn: SH-09. What a channel has cost is given back when it is over.
func TestChannelsInTurn(t *testing.T) {
	g := startGate(t, func(g *testGate) { g.journal.brief = true })
	c := g.client()
	once := func() {
		if out, stderr, err := g.run(c, "cat", "x"); out != "x" || err != nil {
			t.Fatal(out, stderr, err)
		}
	}
	for range 10 {
		once()
	}
	before, goroutines := heap(), runtime.NumGoroutine()
	many := ofLoad(50, 1000)
	for range many {
		once()
	}
	for until := time.Now().Add(2 * time.Second); runtime.NumGoroutine() > goroutines && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond)
	}
	after := heap()
	t.Logf("%d channels: %d KiB of heap before, %d after", many, before>>10, after>>10)
	if n := runtime.NumGoroutine(); n > goroutines+5 || after > before+8<<20 {
		t.Errorf("%d goroutines of %d, %d KiB of heap of %d are left", n, goroutines, after>>10, before>>10)
	}
}

// TestSmallWindow: SH-09. A client whose window is one byte gets everything, a byte at a time, and nothing piles up.
func TestSmallWindow(t *testing.T) {
	packages(t, "python3-paramiko")
	g := startGate(t, func(g *testGate) { g.journal.brief = true })
	host, port, _ := net.SplitHostPort(g.addr)
	size := ofLoad(1000, 100_000)
	before := heap()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-W", "ignore", "testdata/window.py", host, port, fmt.Sprint(size))
	cmd.Env = append(os.Environ(), "TOKEN="+token)
	out, err := cmd.CombinedOutput()
	if want := fmt.Sprintf("%d 1 0\n", size); err != nil || string(out) != want {
		t.Errorf("%q %v, want %q", out, err, want)
	}
	if after := heap(); after > before+8<<20 {
		t.Errorf("%d KiB more on the heap", (after-before)>>10)
	}
}

// TestRekey: keys anew every KiB, and the same bytes there and back.
func TestRekey(t *testing.T) {
	g := startGate(t, func(g *testGate) { g.journal.brief = true })
	c, err := ssh.Dial("tcp", g.addr, &ssh.ClientConfig{
		Config: ssh.Config{RekeyThreshold: 1 << 10}, User: "web", Auth: []ssh.AuthMethod{ssh.Password(token)},
		HostKeyCallback: ssh.FixedHostKey(g.hostKey()), Timeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	sent, got := sha256.New(), sha256.New()
	s.Stdin = io.TeeReader(&smallReads{io.LimitReader(&zeros{}, int64(ofLoad(64<<10, 4<<20)))}, sent)
	s.Stdout = got
	before := heap()
	if err := s.Run("cat"); err != nil || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Error("what came back is not what was sent", err)
	}
	if after := heap(); after > before+16<<20 {
		t.Errorf("%d KiB more on the heap", (after-before)>>10)
	}
}

// smallReads makes packets of at most a KiB, so that there is a change of keys with each.
type smallReads struct{ r io.Reader }

func (s *smallReads) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), 1<<10)]) }
