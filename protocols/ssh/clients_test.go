package ssh

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/protocols/ssh/sshtest"
)

// writeRandom writes a file of n random bytes.
func writeRandom(t *testing.T, n int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "random")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(f, rand.Reader, n); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func sum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// TestOpenSSH: SH-01, SH-02, SH-03, SH-16 with OpenSSH's own clients.
func TestOpenSSH(t *testing.T) {
	g := startGate(t)
	t.Run("exec", func(t *testing.T) {
		out, stderr, err := g.ssh("in\n", "web@127.0.0.1", "cat; echo err >&2; exit 5")
		var exit *exec.ExitError
		if out != "in\n" || stderr != "err\n" || !errors.As(err, &exit) || exit.ExitCode() != 5 {
			t.Errorf("%q %q %v", out, stderr, err)
		}
	})
	t.Run("login@target@gateway", func(t *testing.T) {
		out, stderr, err := g.ssh("", server.User+"@web@127.0.0.1", "echo $USER")
		if out != server.User+"\n" || err != nil {
			t.Errorf("%q %q %v", out, stderr, err)
		}
	})
	t.Run("shell with a terminal", func(t *testing.T) {
		out, stderr, err := g.ssh("tty; exit\n", "-tt", "web@127.0.0.1")
		if !strings.Contains(out, "/dev/pts/") || err != nil {
			t.Errorf("%q %q %v", out, stderr, err)
		}
	})
	t.Run("stdin of 1 MB through a pipe", func(t *testing.T) {
		in := strings.Repeat("0123456789abcde\n", 1<<16)
		if out, stderr, err := g.ssh(in, "web@127.0.0.1", "cat"); out != in || err != nil {
			t.Errorf("%d bytes, %q %v", len(out), stderr, err)
		}
	})
	t.Run("scp, rsync, git", func(t *testing.T) {
		from := writeRandom(t, 3<<20)
		for name, args := range map[string][]string{"scp (sftp)": nil, "scp -O": {"-O"}} {
			to := filepath.Join(t.TempDir(), "to")
			back := to + ".back"
			base := append(g.openssh(), args...)
			if _, stderr, err := g.tool("", "scp", append(base, from, "web@127.0.0.1:"+to)...); err != nil || sum(t, from) != sum(t, to) {
				t.Errorf("%s: %s %v", name, stderr, err)
			}
			if _, stderr, err := g.tool("", "scp", append(base, "web@127.0.0.1:"+to, back)...); err != nil || sum(t, from) != sum(t, back) {
				t.Errorf("%s back: %s %v", name, stderr, err)
			}
		}
		if err := sshtest.Packages(t.Context(), "rsync", "git"); err != nil {
			t.Skip(err)
		}
		to := filepath.Join(t.TempDir(), "to")
		if _, stderr, err := g.tool("", "rsync", "-e", "ssh "+strings.Join(g.openssh(), " "), from, "web@127.0.0.1:"+to); err != nil || sum(t, from) != sum(t, to) {
			t.Errorf("rsync: %s %v", stderr, err)
		}
		repo, clone := filepath.Join(t.TempDir(), "r"), filepath.Join(t.TempDir(), "c")
		for _, line := range []string{
			"git init -q " + repo, "git -C " + repo + " -c user.name=a -c user.email=a@b commit -q --allow-empty -m one",
			"GIT_SSH_COMMAND='ssh " + strings.Join(g.openssh(), " ") + "' git clone -q ssh://web@127.0.0.1" + repo + " " + clone,
			"git -C " + clone + " log --oneline | grep one",
		} {
			if out, stderr, err := g.tool("", "sh", "-c", line); err != nil {
				t.Errorf("%s: %s %s %v", line, out, stderr, err)
			}
		}
	})
	t.Run("sftp", func(t *testing.T) {
		dir := t.TempDir()
		from := writeRandom(t, 1<<20)
		batch := fmt.Sprintf("mkdir %s/d\nput %s %s/d/a\nrename %s/d/a %s/d/b\nchmod 600 %s/d/b\nls -l %s/d\nget %s/d/b %s/back\nrm %s/d/b\nrmdir %s/d\n", dir, from, dir, dir, dir, dir, dir, dir, dir, dir, dir)
		if out, stderr, err := g.tool(batch, "sftp", append(g.openssh(), "-b", "-", "web@127.0.0.1")...); err != nil || sum(t, from) != sum(t, filepath.Join(dir, "back")) {
			t.Errorf("%s %s %v", out, stderr, err)
		}
	})
	t.Run("unknown subsystem", func(t *testing.T) {
		_, stderr, err := g.ssh("", "-s", "web@127.0.0.1", "netconf")
		if err == nil || !strings.Contains(stderr, "subsystem netconf is not allowed") {
			t.Errorf("%q %v", stderr, err)
		}
	})
	t.Run("control master", func(t *testing.T) {
		socket := filepath.Join(g.dir, "mux")
		master := exec.Command("ssh", append(g.openssh(), "-M", "-N", "-S", socket, "web@127.0.0.1")...)
		if err := master.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = master.Process.Kill(); _ = master.Wait() }()
		for i := 0; ; i++ {
			if _, err := os.Stat(socket); err == nil {
				break
			}
			if i > 500 {
				t.Fatal("the master does not begin")
			}
			time.Sleep(10 * time.Millisecond)
		}
		before := g.signIns()
		for i := range 5 {
			if out, stderr, err := g.ssh("", "-S", socket, "web@127.0.0.1", fmt.Sprintf("echo %d", i)); out != fmt.Sprintln(i) || err != nil {
				t.Errorf("%q %q %v", out, stderr, err)
			}
		}
		if g.signIns() != before {
			t.Error("the clients did not share a connection")
		}
	})
	if text := g.journal.text(); !strings.Contains(text, "subsystem sftp") || !strings.Contains(text, "scp -t") || !strings.Contains(text, "rsync --server") || !strings.Contains(text, "git-upload-pack") {
		t.Error("something is not in the record")
	}
}

// TestOtherClients: SH-16. A command, a shell with a terminal, and files where the client has them.
func TestOtherClients(t *testing.T) {
	packages(t, "putty-tools", "dropbear-bin")
	g := startGate(t)
	host, port, _ := net.SplitHostPort(g.addr)
	t.Setenv("DROPBEAR_PASSWORD", token)
	t.Setenv("HOME", t.TempDir())
	putty := []string{"-batch", "-P", port, "-l", "web", "-pw", token, "-hostkey", ssh.FingerprintSHA256(g.hostKey())}
	for name, options := range map[string][]string{"plink": putty, "dbclient": {"-y", "-p", port, "-l", "web"}} {
		t.Run(name, func(t *testing.T) {
			out, stderr, err := g.tool("in\n", name, append(options[:len(options):len(options)], host, "cat; exit 4")...)
			var exit *exec.ExitError
			if out != "in\n" || !errors.As(err, &exit) || exit.ExitCode() != 4 {
				t.Errorf("%q %q %v", out, stderr, err)
			}
			words := append(append([]string{"exec", name}, options...), "-t", host)
			out, stderr, err = g.tool("tty; exit 6\n", "script", "-qec", strings.Join(words, " "), "/dev/null") // dbclient wants a terminal of its own
			if !strings.Contains(out, "/dev/pts/") || !errors.As(err, &exit) || exit.ExitCode() != 6 {
				t.Errorf("a shell: %q %q %v", out, stderr, err)
			}
		})
	}
	t.Run("psftp", func(t *testing.T) {
		dir, from := t.TempDir(), writeRandom(t, 300_000)
		batch := fmt.Sprintf("pwd\nput %s %s/a\nmv %s/a %s/b\nget %s/b %s/back\nls %s\nquit\n", from, dir, dir, dir, dir, dir, dir)
		out, stderr, err := g.tool(batch, "psftp", append(putty[:len(putty):len(putty)], host)...)
		if !strings.Contains(out, "Remote directory is") || err != nil || sum(t, from) != sum(t, filepath.Join(dir, "back")) {
			t.Errorf("%q %q %v", out, stderr, err)
		}
	})
	t.Run("sftp by dbclient", func(t *testing.T) { // dropbear has no sftp of its own: OpenSSH's goes over it
		dir, from := t.TempDir(), writeRandom(t, 300_000)
		batch := fmt.Sprintf("put %s %s/a\nget %s/a %s/back\n", from, dir, dir, dir)
		over := filepath.Join(dir, "over")
		if err := os.WriteFile(over, []byte("#!/bin/sh\nexec dbclient -y -p "+port+" -l web "+host+" -s sftp\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		out, stderr, err := g.tool(batch, "sftp", "-S", over, "-b", "-", "web@127.0.0.1")
		if err != nil || sum(t, from) != sum(t, filepath.Join(dir, "back")) {
			t.Errorf("%q %q %v", out, stderr, err)
		}
	})
}

// TestForwards: SH-04, SH-05. Each with the setting that allows it, which shows what the refusal prevents.
func TestForwards(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = echo.Close() }()
	socket := filepath.Join(t.TempDir(), "s")
	local, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = local.Close() }()
	for _, l := range []net.Listener{echo, local} {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(c, c); _ = c.(interface{ CloseWrite() error }).CloseWrite() }()
			}
		}()
	}
	for name, allowed := range map[string]bool{"refused": false, "allowed": true} {
		t.Run(name, func(t *testing.T) {
			g := startGate(t, with(func(s *settings) {
				if allowed {
					s.Forward, s.Listen, s.Agent, s.X11 = []string{echo.Addr().String(), socket}, []string{"127.0.0.1:*", socket + ".r"}, true, true
				}
			}))
			c := g.client()
			through := func(network, address string) {
				t.Helper()
				conn, err := c.Dial(network, address)
				if (err == nil) != allowed {
					t.Errorf("%s: %v", network, err)
				}
				if err != nil {
					return
				}
				_, _ = conn.Write([]byte("SSH-2.0-inner"))
				_ = conn.(interface{ CloseWrite() error }).CloseWrite()
				b, err := io.ReadAll(conn)
				if string(b) != "SSH-2.0-inner" || err != nil {
					t.Errorf("%s: %q %v", network, b, err)
				}
				_ = conn.Close()
			}
			through("tcp", echo.Addr().String())
			through("unix", socket)
			if allowed {
				if _, err := c.Dial("tcp", "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "not allowed") {
					t.Error("a place that is not listed:", err)
				}
			}
			for _, l := range []string{"127.0.0.1:0", socket + ".r"} {
				network := "tcp"
				if strings.HasPrefix(l, "/") {
					network = "unix"
				}
				r, err := c.Listen(network, l)
				if (err == nil) != allowed {
					t.Errorf("listen on %s: %v", l, err)
				}
				if err != nil {
					continue
				}
				go func() {
					if conn, err := r.Accept(); err == nil {
						_, _ = conn.Write([]byte("from behind"))
						_ = conn.Close()
					}
				}()
				conn, err := net.Dial(network, r.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(conn); string(b) != "from behind" || err != nil {
					t.Errorf("%s: %q %v", l, b, err)
				}
				_ = r.Close()
			}
			s, err := c.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			if ok, err := s.SendRequest("auth-agent-req@openssh.com", true, nil); ok != allowed || err != nil {
				t.Error("agent:", ok, err)
			}
			cookie := struct {
				Single           bool
				Protocol, Cookie string
				Screen           uint32
			}{false, "MIT-MAGIC-COOKIE-1", "00112233445566778899aabbccddeeff", 0}
			if ok, err := s.SendRequest("x11-req", true, ssh.Marshal(cookie)); ok && !allowed || err != nil { // sshd needs xauth to say yes
				t.Error("x11:", ok, err)
			}
			if _, _, err := c.OpenChannel("tun@openssh.com", nil); err == nil {
				t.Error("a tunnel is opened")
			}
			text := g.journal.text()
			for _, want := range []string{`"action":"direct-tcpip"`, `"action":"direct-streamlocal"`, `"action":"tcpip-forward"`, `"action":"agent"`, `"action":"x11"`, `"text":"channel tun@openssh.com"`} {
				if !strings.Contains(text, want) {
					t.Errorf("the record has no %s", want)
				}
			}
			if strings.Contains(text, cookie.Cookie) {
				t.Error("the display's cookie is in the record")
			}
			if allowed != strings.Contains(text, "another SSH connection") {
				t.Error("an SSH connection inside is not told of, or where there is none")
			}
		})
	}
}

// TestUnaskedChannels: a target that opens what leads to the client without having been asked gets nothing.
func TestUnaskedChannels(t *testing.T) {
	key := newSigner(t)
	got := make(chan error, 5)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		config := &ssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(key)
		sc, channels, requests, err := ssh.NewServerConn(conn, config)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		go func() {
			for n := range channels {
				_ = n.Reject(ssh.Prohibited, "")
			}
		}()
		for _, kind := range []string{"auth-agent@openssh.com", "x11", "session", "unheard-of"} {
			_, _, err := sc.OpenChannel(kind, nil)
			got <- err
		}
		_, _, err = sc.OpenChannel("forwarded-tcpip", ssh.Marshal(directPayload{"127.0.0.1", 80, "127.0.0.1", 1}))
		got <- err
	}()
	g := startGate(t, withTarget(&fakeTarget{addr: l.Addr().String()}, "x", func(s *settings) {
		s.HostKeys = []string{string(ssh.MarshalAuthorizedKey(key.PublicKey()))}
		s.Agent, s.X11, s.Listen = true, true, []string{"*:*"}
	}))
	_ = g.client()
	for range 5 {
		if err := <-got; err == nil {
			t.Error("a channel was opened")
		}
	}
	if text := g.journal.text(); strings.Count(text, "not-asked-for") != 3 || strings.Count(text, "unknown-channel") != 2 {
		t.Error(text)
	}
}
