package ssh

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// Rows of ATTACKS.md that no other test has.

// TestUnruly: SH-09. What a client must not send ends its connection at most; what reaches the target is what the record has, and the next
// client is served.
func TestUnruly(t *testing.T) {
	packages(t, "python3-paramiko")
	t.Parallel()
	for _, how := range []string{"rule", "data after eof", "eof twice", "no such channel", "more than the window", "window beyond 4 GB"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			g := startGate(t)
			host, port, _ := net.SplitHostPort(g.addr)
			path := filepath.Join(t.TempDir(), "got")
			cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-W", "ignore", "testdata/unruly.py", host, port, "web", how, path)
			cmd.Env = append(os.Environ(), "TOKEN="+token)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err, string(out))
			}
			g.journal.ended(t, 1)
			if how == "rule" && strings.TrimSpace(string(out)) != "done" { // the control
				t.Errorf("%q", out)
			}
			got, _ := os.ReadFile(path)
			said := g.journal.said(core.FromClient, false)
			if !strings.HasPrefix(said, string(got)) || strings.Contains(said+string(got), "LOST") {
				t.Errorf("%d bytes have come, %d are recorded", len(got), len(said))
			}
			if out, _, err := g.run(g.client(), "echo next", ""); out != "next\n" || err != nil {
				t.Errorf("the next client: %q %v", out, err)
			}
		})
	}
}

// TestEnding: SH-10. Exit statuses, signals and requests of OpenSSH's own are as they are without Weir, but for what a client must not learn.
func TestEnding(t *testing.T) {
	t.Parallel()
	g := startGate(t)
	signer, err := ssh.ParsePrivateKey(server.Key)
	if err != nil {
		t.Fatal(err)
	}
	hostKey, _, _, _, err := ssh.ParseAuthorizedKey([]byte(server.HostKey))
	if err != nil {
		t.Fatal(err)
	}
	direct, err := ssh.Dial("tcp", server.Addr, &ssh.ClientConfig{User: server.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(hostKey)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = direct.Close() })
	through := g.client()
	for _, command := range []string{"true", "exit 7", "exit 255", "kill -KILL $$", "kill -TERM $$", "ulimit -c unlimited; kill -ABRT $$", "ulimit -c 0; kill -SEGV $$", "exec no-such-program"} {
		ends := [2]string{}
		for i, c := range []*ssh.Client{direct, through} {
			_, _, err := g.run(c, command, "")
			var exit *ssh.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(command, err)
			}
			ends[i] = "ok"
			if exit != nil {
				ends[i] = fmt.Sprint(exit.ExitStatus(), exit.Signal())
			}
		}
		if ends[0] != ends[1] {
			t.Errorf("%s: %s, and through Weir %s", command, ends[0], ends[1])
		}
	}
	for _, request := range []struct {
		name string
		same bool
	}{{"keepalive@openssh.com", true}, {"no-such@request", true}, {"hostkeys-prove-00@openssh.com", false}} {
		ok1, _, err1 := direct.SendRequest(request.name, true, nil)
		ok2, _, err2 := through.SendRequest(request.name, true, nil)
		if (ok1 == ok2) != request.same || err1 != nil || err2 != nil {
			t.Errorf("%s: %v %v, and through Weir %v %v", request.name, ok1, err1, ok2, err2)
		}
	}
	for name, c := range map[string]*ssh.Client{"direct": direct, "through Weir": through} { // no channel is opened behind it
		if _, _, err := c.SendRequest("no-more-sessions@openssh.com", true, nil); err != nil {
			t.Error(err)
		}
		if s, err := c.NewSession(); err == nil {
			_ = s.Close()
			t.Error("a session behind no-more-sessions, " + name)
		}
	}
}

// TestTargetsKeysAreNotTold: SH-10. A target offers its other host keys; a client that takes them would take them for the gateway's.
func TestTargetsKeysAreNotTold(t *testing.T) {
	t.Parallel()
	g := startGate(t)
	for name, c := range map[string]struct {
		address, user string
		auth          ssh.AuthMethod
		told          bool
	}{
		"through": {g.addr, "web", ssh.Password(token), false},
		"direct":  {server.Addr, server.User, ssh.PublicKeysCallback(func() ([]ssh.Signer, error) { s, err := ssh.ParsePrivateKey(server.Key); return []ssh.Signer{s}, err }), true},
	} {
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			t.Fatal(err)
		}
		cc, channels, requests, err := ssh.NewClientConn(conn, c.address, &ssh.ClientConfig{User: c.user, Auth: []ssh.AuthMethod{c.auth}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
		if err != nil {
			t.Fatal(name, err)
		}
		told := make(chan bool, 1)
		go func() {
			found := false
			for r := range requests {
				found = found || r.Type == "hostkeys-00@openssh.com"
				if r.WantReply {
					_ = r.Reply(false, nil)
				}
			}
			told <- found
		}()
		client := ssh.NewClient(cc, channels, nil)
		if out, _, err := g.run(client, "echo hi", ""); out != "hi\n" || err != nil {
			t.Error(name, out, err)
		}
		_ = client.Close()
		if got := <-told; got != c.told {
			t.Errorf("%s: told of host keys: %v", name, got)
		}
	}
}

// TestPipes: SH-03. What people send through commands arrives: tar, and a shell's script on its standard input.
func TestPipes(t *testing.T) {
	t.Parallel()
	g := startGate(t)
	from, to := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(from, "f"), []byte("in a tar"), 0o600); err != nil {
		t.Fatal(err)
	}
	line := "tar -C " + from + " -cf - f | ssh " + strings.Join(g.openssh(), " ") + " web@127.0.0.1 'tar -C " + to + " -xf -'"
	if out, stderr, err := g.tool("", "sh", "-c", line); err != nil {
		t.Fatal(out, stderr, err)
	}
	if b, err := os.ReadFile(filepath.Join(to, "f")); err != nil || string(b) != "in a tar" {
		t.Errorf("%q %v", b, err)
	}
	if said := g.journal.said(core.FromClient, false); !strings.Contains(said, "in a tar") {
		t.Error("it is not in the record")
	}
	// mosh-server would open a UDP port beside the gateway: its text is read, and its effects are judged like any other's.
	if c := execCommand("mosh-server new -s -c 256"); c.Status == core.StatusKnown {
		t.Errorf("%+v", c)
	}
}

// TestAttacksPage: the tests that ATTACKS.md names are there.
func TestAttacksPage(t *testing.T) {
	page, err := os.ReadFile("ATTACKS.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, pattern := range []string{"*_test.go", "*/*_test.go", "../../core/cli/invite_test.go"} {
		files, _ := filepath.Glob(pattern)
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(b)
		}
	}
	names := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`).FindAllString(string(page), -1)
	for _, n := range names {
		if !strings.Contains(tests.String(), "func "+n+"(") {
			t.Errorf("there is no %s", n)
		}
	}
	if len(names) < 50 {
		t.Errorf("the page names %d tests", len(names))
	}
}
