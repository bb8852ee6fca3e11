package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/identity/idptest"
	"github.com/weir-gateway/weir/protocols/ssh"
	"github.com/weir-gateway/weir/protocols/ssh/sshtest"
)

var invitedTo = regexp.MustCompile(`open (http\S+) and enter the code (\S+)\nor open (\S+) and compare`)

// invitation drives x/crypto's client through a sign-in by a page. at is told the page with the code in it.
func invitation(t *testing.T, addr string, at func(page string) error) (*xssh.Client, string, error) {
	banner := ""
	prompts := 0
	c, err := xssh.Dial("tcp", addr, &xssh.ClientConfig{
		User: "web", HostKeyCallback: xssh.InsecureIgnoreHostKey(), Timeout: 30 * time.Second,
		BannerCallback: func(text string) error { banner += text; return nil },
		Auth: []xssh.AuthMethod{xssh.KeyboardInteractive(func(_, instruction string, questions []string, _ []bool) ([]string, error) {
			if prompts++; len(questions) == 0 {
				return nil, nil
			}
			if strings.HasPrefix(questions[0], "Token (or Enter") {
				return []string{""}, nil
			}
			m := invitedTo.FindStringSubmatch(instruction)
			if m == nil || !strings.Contains(instruction, "To reach web from 127.0.0.1:") || !strings.Contains(instruction, "never enter a code that somebody has sent you") {
				t.Errorf("the instruction is %q", instruction)
				return nil, errors.New("no page")
			}
			return []string{""}, at(m[3])
		})},
	})
	return c, banner, err
}

// TestInvitation: who has no token signs in at a page of a real provider, and the session is theirs.
func TestInvitation(t *testing.T) {
	before := testBuild
	testBuild.Protocols = []core.Protocol{echo{}, ssh.New()}
	t.Cleanup(func() { testBuild = before })
	server, err := sshtest.Start(t.Context())
	if errors.Is(err, sshtest.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	p, idp := provided(t, time.Hour)
	p.replace("login: {client_id: weir}", "login: {client_id: weir, invite: true}")
	if err := errors.Join(os.Mkdir(filepath.Join(p.dir, "open"), 0o700), os.WriteFile(filepath.Join(p.dir, "open", "open.rego"), []byte("package weir.access\nallow if \"dba\" in input.identity.groups\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	p.replace("policies:\n", "policies:\n  - {name: open, path: open}\n")
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p.write(p.text() + fmt.Sprintf("  - name: web\n    protocol: ssh\n    listen: %q\n    upstream: {address: %q}\n    credential: {user: %s, password: \"${file:%s/key}\"}\n    chain: [open]\n    limits: {sign_in: 2s}\n    ssh: {host_keys: [%q]}\n",
		addr, server.Addr, server.User, server.Dir, server.HostKey))
	p.must("check")
	r := p.serve()

	c, banner, err := invitation(t, addr, func(page string) error {
		time.Sleep(2500 * time.Millisecond) // a person takes longer than limits.sign_in
		return idp.Approve(page, "ada")
	})
	if err != nil {
		t.Fatalf("%v %s\n%s", err, banner, r.log)
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Output("echo invited"); err != nil || string(out) != "invited\n" {
		t.Errorf("%q %v", out, err)
	}
	_ = c.Close()
	eventually(t, "the session is ada's", func() bool {
		list := p.list("--identity", "ada", "--target", "web")
		return len(list) == 1 && list[0]["end"] == "closed"
	})
	if text := p.must("show", p.list("--identity", "ada", "--target", "web")[0]["id"].(string), "-o", "json"); !strings.Contains(text, `"method":"device"`) {
		t.Error(text)
	}

	if _, banner, err := invitation(t, addr, func(page string) error { return idp.Refuse(page, "eve") }); err == nil || !strings.Contains(banner, "the sign-in at corp was refused") {
		t.Errorf("refused: %v %q", err, banner)
	}
	if len(p.list("--identity", "eve")) != 0 {
		t.Error("eve has a session")
	}
	t.Run("OpenSSH", func(t *testing.T) { opensshInvited(t, idp, addr) })
	t.Run("limits", func(t *testing.T) { invitationLimits(t, addr) })
	if err := idp.Down(); err != nil {
		t.Fatal(err)
	}
	if _, banner, err := invitation(t, addr, func(string) error { return nil }); err == nil || !strings.Contains(banner, "use a token") && !strings.Contains(banner, "limit-invitations") {
		t.Errorf("the provider is down: %v %q", err, banner)
	}
}

// opensshInvited: the same with ssh, on a terminal of its own.
func opensshInvited(t *testing.T, idp *idptest.IDP, addr string) {
	host, port, _ := net.SplitHostPort(addr)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "script", "-qec", "ssh -F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o PreferredAuthentications=keyboard-interactive -p "+port+" web@"+host+" echo in''side", "/dev/null")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said syncBuffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	said.wait(t, "Token (or Enter")
	fmt.Fprint(in, "\r")
	said.wait(t, "Press Enter when")
	m := regexp.MustCompile(`or open (\S+) and compare`).FindStringSubmatch(said.String())
	if m == nil {
		t.Fatalf("no page: %s", said.String())
	}
	if err := idp.Approve(m[1], "ada"); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(in, "\r")
	if err := cmd.Wait(); err != nil || !strings.Contains(said.String(), "inside") {
		t.Errorf("%v: %s", err, said.String())
	}
}

// invitationLimits: only so many wait at a time; who hangs up waits no longer.
func invitationLimits(t *testing.T, addr string) {
	type end struct {
		banner string
		err    error
	}
	release := make(chan struct{})
	waiting, ends := make(chan struct{}, 8), make(chan end, 8)
	for range 7 {
		go func() {
			_, banner, err := invitation(t, addr, func(string) error {
				waiting <- struct{}{}
				<-release
				return errors.New("given up") // and the connection is closed
			})
			ends <- end{banner, err}
		}()
	}
	refused := 0
	for range 7 {
		select {
		case <-waiting:
		case e := <-ends:
			if refused++; !strings.Contains(e.banner, "too many sign-ins wait") {
				t.Errorf("refused: %q %v", e.banner, e.err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("neither refused nor waiting")
		}
	}
	if refused != 2 {
		t.Errorf("%d of 7 were refused", refused)
	}
	close(release)
	for range 7 - refused {
		<-ends
	}
	var last end
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		reached := false
		_, last.banner, last.err = invitation(t, addr, func(string) error { reached = true; return errors.New("enough") })
		if reached {
			return
		}
	}
	t.Errorf("places are not free again: %q %v", last.banner, last.err)
}
