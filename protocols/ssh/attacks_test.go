package ssh

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// readPacket reads a packet before keys are there (RFC 4253, 6).
func readPacket(r io.Reader) ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > 1<<20 || n < uint32(head[4])+1 {
		return nil, errors.New("not a packet")
	}
	b := make([]byte, n-1)
	_, err := io.ReadFull(r, b)
	return b[:len(b)-int(head[4])], err
}

// writePacket writes one.
func writePacket(w io.Writer, payload []byte) error {
	pad := 8 - (5+len(payload))%8
	if pad < 4 {
		pad += 8
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+pad))
	b = append(append(append(b, byte(pad)), payload...), make([]byte, pad)...)
	_, err := w.Write(b)
	return err
}

// offer reads a version and a KEXINIT, and returns the lists of algorithms.
func offer(conn net.Conn) (lists []string, err error) {
	r := bufio.NewReader(conn)
	if _, err := r.ReadString('\n'); err != nil {
		return nil, err
	}
	p, err := readPacket(r)
	if err != nil {
		return nil, err
	}
	rest := p[17:]
	for range 8 {
		list, more, ok := cutString(rest)
		if !ok {
			return nil, errors.New("not a KEXINIT")
		}
		lists, rest = append(lists, string(list)), more
	}
	return lists, nil
}

// TestAlgorithms: SH-11, on both legs.
func TestAlgorithms(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	toTarget := make(chan []string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = conn.Write([]byte("SSH-2.0-nosy\r\n"))
		lists, _ := offer(conn)
		toTarget <- lists
	}()
	g := startGate(t, withTarget(&fakeTarget{addr: l.Addr().String()}, "x", func(s *settings) { s.TrustFirst = true }))
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write([]byte("SSH-2.0-nosy\r\n"))
	toClient, err := offer(conn)
	if err != nil {
		t.Fatal(err)
	}
	_ = g.client()
	for leg, c := range map[string]struct {
		lists  []string
		marker string
	}{"client": {toClient, "kex-strict-s-v00@openssh.com"}, "target": {<-toTarget, "kex-strict-c-v00@openssh.com"}} {
		if len(c.lists) == 0 || !strings.Contains(c.lists[0], c.marker) {
			t.Errorf("the leg to the %s does not ask for strict key exchange: %q", leg, c.lists)
		}
		for _, list := range c.lists {
			for _, a := range strings.Split(list, ",") {
				for _, bad := range []string{"sha1", "cbc", "arcfour", "chacha20", "dss", "md5"} {
					if strings.Contains(a, bad) || a == "ssh-rsa" || strings.HasPrefix(a, "ssh-rsa-cert") {
						t.Errorf("the leg to the %s offers %s", leg, a)
					}
				}
			}
		}
	}
}

// TestTerrapin: SH-11. Somebody in between puts a message before the keys, to cut off one after them.
func TestTerrapin(t *testing.T) {
	g := startGate(t)
	for name, inject := range map[string]bool{"in between": true, "nobody": false} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			go func() {
				near, err := l.Accept()
				if err != nil {
					return
				}
				far, err := net.Dial("tcp", g.addr)
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(near, far); _ = near.Close() }()
				r := bufio.NewReader(near)
				hello, _ := r.ReadString('\n')
				_, _ = io.WriteString(far, hello)
				kexinit, err := readPacket(r)
				if err != nil {
					return
				}
				_ = writePacket(far, kexinit)
				if inject {
					_ = writePacket(far, []byte{2, 0, 0, 0, 0}) // SSH_MSG_IGNORE
				}
				_, _ = io.Copy(far, r)
				_ = far.Close()
			}()
			c, err := ssh.Dial("tcp", l.Addr().String(), &ssh.ClientConfig{User: "web", Auth: []ssh.AuthMethod{ssh.Password(token)}, HostKeyCallback: ssh.FixedHostKey(g.hostKey()), Timeout: 5 * time.Second})
			if (err != nil) != inject {
				t.Fatal(err)
			}
			if err == nil {
				_ = c.Close()
			}
		})
	}
}

// TestBannerFlood: SH-14, from a target.
func TestBannerFlood(t *testing.T) {
	for name, c := range map[string]struct {
		banners int
		ok      bool
	}{"some": {2, true}, "a flood": {1000, false}} {
		t.Run(name, func(t *testing.T) {
			key := newSigner(t)
			f := startFake(t, key, func(s *ssh.ServerConfig) {
				s.PreAuthConnCallback = func(conn ssh.ServerPreAuthConn) {
					for range c.banners {
						if conn.SendAuthBanner(strings.Repeat("x", 100_000)) != nil {
							return
						}
					}
				}
			})
			g := startGate(t, withTarget(f, "canary", func(s *settings) { s.HostKeys = []string{string(ssh.MarshalAuthorizedKey(key.PublicKey()))} }))
			if _, _, err := g.run(g.client(), "true", ""); (err == nil) != c.ok {
				t.Fatal(err)
			}
		})
	}
}

// TestNothingBeforeItIsRecorded: a command does not run, and an answer does not leave, before the record is settled.
func TestNothingBeforeItIsRecorded(t *testing.T) {
	for name, blocked := range map[string]bool{"the journal waits": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			g := startGate(t)
			c := g.client()
			s, err := c.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			release := make(chan struct{})
			var once sync.Once
			defer once.Do(func() { close(release) })
			if blocked {
				g.journal.mu.Lock()
				g.journal.hold = func() { <-release }
				g.journal.mu.Unlock()
			}
			path := filepath.Join(t.TempDir(), "ran")
			done := make(chan []byte, 1)
			go func() {
				out, _ := s.Output("touch " + path + "; echo out")
				done <- out
			}()
			select {
			case out := <-done:
				if blocked {
					t.Errorf("%q was delivered", out)
				}
			case <-time.After(300 * time.Millisecond):
				if !blocked {
					<-done
				}
			}
			if _, err := os.Stat(path); (err == nil) == blocked {
				t.Error("the command:", err)
			}
			once.Do(func() { close(release) })
			if blocked {
				if out := <-done; string(out) != "out\n" {
					t.Errorf("%q", out)
				}
			}
		})
	}
}

func TestJournalLost(t *testing.T) {
	g := startGate(t)
	c := g.client()
	g.journal.mu.Lock()
	g.journal.lost = true
	g.journal.mu.Unlock()
	out, stderr, err := g.run(c, "echo out", "")
	if err == nil || out != "" {
		t.Fatalf("%q %q %v", out, stderr, err)
	}
	if ends := g.journal.ended(t, 1); ends[0] != core.EndJournalLost {
		t.Error(ends)
	}
}

func TestEnds(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		g := startGate(t, func(g *testGate) { g.target.Limits.Idle = 200 * time.Millisecond })
		_, stderr, err := g.run(g.client(), "sleep 5", "")
		if err == nil || !strings.Contains(stderr, "idle for longer than limits.idle") {
			t.Errorf("%q %v", stderr, err)
		}
		if ends := g.journal.ended(t, 1); ends[0] != core.EndKilled {
			t.Error(ends)
		}
	})
	t.Run("busy is not idle", func(t *testing.T) {
		t.Parallel()
		g := startGate(t, func(g *testGate) { g.target.Limits.Idle = 400 * time.Millisecond })
		if _, stderr, err := g.run(g.client(), "for i in 1 2 3 4 5 6 7 8; do sleep 0.1; echo; done", ""); err != nil {
			t.Errorf("%q %v", stderr, err)
		}
	})
	t.Run("draining", func(t *testing.T) {
		t.Parallel()
		g := startGate(t)
		c := g.client()
		done := make(chan error, 1)
		go func() {
			out, stderr, err := g.run(c, "sleep 0.5; echo finished", "")
			if out != "finished\n" {
				err = errors.Join(err, fmt.Errorf("%q %q", out, stderr))
			}
			done <- err
		}()
		for range 1000 { // until it runs
			if strings.Contains(g.journal.text(), "sleep 0.5") {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		close(g.drain)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if ends := g.journal.ended(t, 1); ends[0] != core.EndKilled {
			t.Error(ends)
		}
	})
	t.Run("statement timeout", func(t *testing.T) {
		t.Parallel()
		g := startGate(t, func(g *testGate) { g.target.Limits.StatementTimeout = 300 * time.Millisecond })
		c := g.client()
		_, stderr, err := g.run(c, "sleep 5", "")
		if err == nil || !strings.Contains(stderr, "it takes longer than 300ms") {
			t.Errorf("%q %v", stderr, err)
		}
		if out, _, err := g.run(c, "echo on", ""); out != "on\n" || err != nil {
			t.Error(out, err)
		}
	})
	t.Run("bytes", func(t *testing.T) {
		t.Parallel()
		g := startGate(t, withChain(limit(1000)))
		out, stderr, err := g.run(g.client(), "yes", "")
		if err == nil || len(out) > 1000 || !strings.Contains(stderr, "limit-bytes") {
			t.Errorf("%d bytes, %q %v", len(out), stderr, err)
		}
	})
}

type limit int64

func (l limit) Inspect(_ context.Context, e *core.Event) (v core.Verdict, _ error) {
	if e.Kind == core.KindCommand {
		v.Limit.Bytes = int64(l)
	}
	return v, nil
}

// TestIncomplete: what cannot be read for certain does not run, unless the target says so.
func TestIncomplete(t *testing.T) {
	for _, allowed := range []bool{false, true} {
		g := startGate(t, func(g *testGate) { g.target.AllowIncomplete = allowed })
		c := g.client()
		out, stderr, err := g.run(c, "echo ZWNobyBydW4K | base64 -d | sh", "")
		if (err == nil) != allowed || (out == "run\n") != allowed {
			t.Errorf("allowed %t: %q %q %v", allowed, out, stderr, err)
		}
		if out, stderr, err := g.run(c, "ls -d /", ""); out != "/\n" || err != nil {
			t.Errorf("%q %q %v", out, stderr, err)
		}
		if _, err := c.NewSession(); err != nil {
			t.Error(err)
		}
	}
}
