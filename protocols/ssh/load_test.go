package ssh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

var megabytes = flag.Int64("megabytes", 100, "how much TestTransfer sends each way")

// zeros is a stream that is cheap to make and not all the same.
type zeros struct{ n uint64 }

func (z *zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(z.n >> 7)
		z.n++
	}
	return len(p), nil
}

// heap is what is in use, in bytes.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestTransfer: SH-09. There and back, the same bytes, and in bounded memory.
func TestTransfer(t *testing.T) {
	g := startGate(t, func(g *testGate) { g.journal.brief = true })
	c := g.client()
	size := *megabytes << 20
	sent, got := sha256.New(), sha256.New()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	s.Stdin = io.TeeReader(io.LimitReader(&zeros{}, size), sent)
	s.Stdout = got
	before, most := heap(), uint64(0)
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				most = max(most, heap())
			}
		}
	})
	start := time.Now()
	err = s.Run("cat")
	close(stop)
	watch.Wait()
	if err != nil || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Fatal("what came back is not what was sent", err)
	}
	t.Logf("%d MB there and back in %s, %d KiB more on the heap at most", *megabytes, time.Since(start).Round(time.Millisecond), (int64(most)-int64(before))>>10)
	if most > before+64<<20 {
		t.Errorf("%d MiB more on the heap", (most-before)>>20)
	}
}

// TestManyChannels: 100 at a time on one connection; and not one more than the target allows.
func TestManyChannels(t *testing.T) {
	g := startGate(t)
	c := g.client()
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			out, stderr, err := g.run(c, "cat; sleep 0.2", fmt.Sprint(i))
			if out != fmt.Sprint(i) || err != nil {
				t.Errorf("channel %d: %q %q %v", i, out, stderr, err)
			}
		})
	}
	all.Wait()
	for i := range 100 {
		if !strings.Contains(g.journal.said(core.FromUpstream, false), fmt.Sprint(i)) {
			t.Errorf("%d is not in the record", i)
		}
	}
	g = startGate(t, with(func(s *settings) { s.Channels = 3 }))
	c = g.client()
	for i := range 5 {
		_, err := c.NewSession()
		if (err == nil) != (i < 3) {
			t.Fatalf("channel %d: %v", i, err)
		}
	}
}

// TestSlowReader: SH-09. A client that reads nothing costs what the windows hold, and no other channel its time.
func TestSlowReader(t *testing.T) {
	g := startGate(t, func(g *testGate) { g.journal.brief = true })
	c := g.client()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.StdoutPipe(); err != nil { // which nobody reads
		t.Fatal(err)
	}
	before := heap()
	if err := s.Start("cat /dev/zero"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	first := heap()
	start := time.Now()
	for range 5 {
		if out, _, err := g.run(c, "echo quick", ""); out != "quick\n" || err != nil {
			t.Fatal(out, err)
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Error("the others wait:", took)
	}
	if after := heap(); after > before+24<<20 || after > first+8<<20 {
		t.Errorf("the heap was %d KiB, then %d, then %d", before>>10, first>>10, after>>10)
	}
}

// TestWindowChangeFlood: SH-09.
func TestWindowChangeFlood(t *testing.T) {
	g := startGate(t, func(g *testGate) { g.journal.brief = true })
	s, err := g.client().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	in, _ := s.StdinPipe()
	var out bytes.Buffer
	s.Stdout = &out
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	before := heap()
	many := ofLoad(20_000, 1_000_000)
	for i := range many {
		if err := s.WindowChange(10+i%50, 40+i%100); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.WindowChange(33, 77); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.SendRequest("keepalive@openssh.com", true, nil); ok || err != nil { // all before it have arrived
		t.Log(ok, err)
	}
	if after := heap(); after > before+16<<20 {
		t.Errorf("%d KiB more on the heap", (after-before)>>10)
	}
	_, _ = io.WriteString(in, "stty size; exit\n")
	_ = s.Wait()
	if !strings.Contains(out.String(), "33 77") {
		t.Errorf("%q", out.String())
	}
}

// TestLateData: SH-09. Output after its program has ended, errors after the end of output, a gigabyte that nobody wants.
func TestLateData(t *testing.T) {
	g := startGate(t)
	c := g.client()
	for command, want := range map[string][2]string{
		"(sleep 0.5; echo late) & exit 0":             {"late\n", ""},
		"exec >&-; sleep 0.2; echo still here >&2":    {"", "still here\n"},
		"yes | head -c 1000000 | wc -c":               {"1000000\n", ""},
		"head -c 300000 /dev/zero | tr '\\0' x; true": {strings.Repeat("x", 300000), ""},
	} {
		out, stderr, err := g.run(c, command, "")
		if out != want[0] || stderr != want[1] || err != nil {
			t.Errorf("%s: %d bytes, %q %v", command, len(out), stderr, err)
		}
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("yes"); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if out, _, err := g.run(c, "echo on", ""); out != "on\n" || err != nil {
		t.Error(out, err)
	}
}

func TestGather(t *testing.T) {
	r, w := io.Pipe()
	g := gather(r)
	defer g.stop()
	b := make([]byte, pieceSize)
	next := func() string {
		t.Helper()
		n, err := g.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	go func() {
		_, _ = w.Write([]byte("4111 1111 "))
		_, _ = w.Write([]byte("1111 1111\n"))
	}()
	if got := next(); got != "4111 1111 1111 1111\n" {
		t.Errorf("%q", got)
	}
	go func() { _, _ = w.Write([]byte("$ ")) }()
	start := time.Now()
	if got := next(); got != "$ " || time.Since(start) > 10*holdBack {
		t.Errorf("%q after %s", got, time.Since(start))
	}
	long := strings.Repeat("word ", 2*pieceSize/5)
	go func() {
		_, _ = io.WriteString(w, long)
		_ = w.Close()
	}()
	var all string
	for {
		n, err := g.Read(b)
		if err != nil {
			break
		}
		if piece := string(b[:n]); len(all)+n < len(long) && !strings.HasSuffix(piece, " ") {
			t.Errorf("a piece ends inside a word: %q", piece[len(piece)-10:])
		}
		all += string(b[:n])
	}
	if all != long {
		t.Errorf("%d bytes of %d", len(all), len(long))
	}
}

// rewrite is a chain that puts a text in the place of another in what passes.
type rewrite struct{ old, with string }

func (r rewrite) Inspect(_ context.Context, e *core.Event) (v core.Verdict, _ error) {
	if e.Kind == core.KindBytes && bytes.Contains(e.Bytes, []byte(r.old)) {
		e.Bytes = bytes.ReplaceAll(e.Bytes, []byte(r.old), []byte(r.with))
		v.Changed = true
	}
	return v, nil
}

// TestMaskedAcrossPackets: what a step replaces is neither seen nor recorded, also where it came in two packets.
func TestMaskedAcrossPackets(t *testing.T) {
	const secret = "4111-1111-1111-1111"
	for name, on := range map[string]bool{"with a step": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			var options []option
			if on {
				options = append(options, withChain(rewrite{secret, "####"}))
			}
			g := startGate(t, options...)
			out, _, err := g.run(g.client(), "printf 4111-1111-; echo 1111-1111; echo 4111-1111-1111-1111 >&2", "")
			if err != nil || strings.Contains(out, secret) == on || strings.Contains(g.journal.said(core.FromUpstream, false)+g.journal.said(core.FromUpstream, true), secret) == on {
				t.Errorf("%q %v\n%s", out, err, g.journal.text())
			}
		})
	}
}

// BenchmarkKeystroke is how long a key's echo takes, directly and through a gate without rules.
func BenchmarkKeystroke(b *testing.B) {
	key, err := ssh.ParsePrivateKey(server.Key)
	if err != nil {
		b.Fatal(err)
	}
	dial := map[string]func() (*ssh.Client, error){
		"direct": func() (*ssh.Client, error) {
			return ssh.Dial("tcp", server.Addr, &ssh.ClientConfig{User: server.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		},
		"weir": nil,
	}
	for name, f := range dial {
		b.Run(name, func(b *testing.B) {
			var c *ssh.Client
			var err error
			if f == nil {
				c, err = startGate(b).dial()
			} else {
				c, err = f()
			}
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			s, err := c.NewSession()
			if err != nil {
				b.Fatal(err)
			}
			in, _ := s.StdinPipe()
			out, _ := s.StdoutPipe()
			if err := s.Start("cat"); err != nil {
				b.Fatal(err)
			}
			k := []byte("k")
			for b.Loop() {
				if _, err := in.Write(k); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(out, k); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
