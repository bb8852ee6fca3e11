package ssh

import (
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

func TestReadText(t *testing.T) {
	p := New()
	for _, c := range []struct {
		wire []byte
		want string
	}{
		{dataMessage(1, false, []byte("a\r\nb\x1b]0;title\x07")), "a\nb·]0;title·"},
		{dataMessage(1, true, []byte("err\n")), "err\n"},
		{requestMessage(1, "exec", true, ssh.Marshal(textPayload{"ls \x1b[2J"})), "exec ls ·[2J\n"},
		{requestMessage(1, "window-change", false, ssh.Marshal(windowPayload{80, 24, 0, 0})), "window 80x24\n"},
		{requestMessage(1, "exit-status", false, ssh.Marshal(exitPayload{3})), "exit 3\n"},
		{globalMessage("tcpip-forward", true, nil), "tcpip-forward\n"},
		{openMessage(1, "direct-tcpip", nil), "open direct-tcpip\n"},
		{closeMessage(7), "channel 7 is closed\n"},
		{eofMessage(7), "channel 7 ends\n"},
		{[]byte{94, 0}, "(2 bytes that cannot be read)\n"},
		{dataMessage(1, false, []byte("a\x00b")), "(3 bytes that are no text)\n"},
		{nil, ""},
	} {
		if got := p.ReadText(c.wire); got != c.want {
			t.Errorf("%q: %q", c.wire, got)
		}
	}
}

func FuzzReadText(f *testing.F) {
	f.Add(requestMessage(1, "exec", true, ssh.Marshal(textPayload{"ls"})))
	f.Add(openMessage(1, "direct-tcpip", ssh.Marshal(directPayload{"a", 1, "b", 2})))
	f.Add(dataMessage(1, true, []byte("x")))
	p := New()
	f.Fuzz(func(t *testing.T, wire []byte) {
		if text := p.ReadText(wire); strings.ContainsAny(text, "\x1b\x07\x00\u009b") {
			t.Errorf("%q", text)
		}
	})
}

// TestConnect: the line works as it is printed, and trusts nobody at first sight.
func TestConnect(t *testing.T) {
	g := startGate(t)
	line, env := New().Connect(g.target, core.Contact{Address: g.addr, User: "ada", Token: "secret", Key: g})
	if strings.Contains(line, "secret") || env["SSHPASS"] != "secret" {
		t.Error(line, env)
	}
	certificate := strings.Join(g.openssh()[:12], " ")
	for name, command := range map[string]string{"the line": line + " " + certificate + " echo in", "git's": env["GIT_SSH_COMMAND"] + " " + certificate + " anything echo in"} {
		command = strings.ReplaceAll(strings.ReplaceAll(command, "-o UserKnownHostsFile="+g.dir+"/known", ""), "  ", " ")
		out, err := exec.Command("sh", "-c", command).CombinedOutput()
		if string(out) != "in\n" || err != nil {
			t.Errorf("%s: %s: %q %v", name, command, out, err)
		}
	}
	other, _ := New().Connect(g.target, core.Contact{Address: g.addr, User: "ada", Key: otherKeys{}})
	if out, err := exec.Command("sh", "-c", other+" "+certificate+" true").CombinedOutput(); err == nil {
		t.Errorf("a gateway with another key is trusted: %s", out)
	}
}

type otherKeys struct{}

func (otherKeys) Key(string) ([]byte, error) { return make([]byte, 32), nil }

func TestPrompts(t *testing.T) {
	for _, c := range []struct {
		said   string
		hidden bool
	}{
		{"[sudo] password for root: ", true},
		{"Enter passphrase for key '/root/id': ", true},
		{"Password:", true},
		{"root@host's password: ", true},
		{"Verification code: ", true},
		{"$ ", false},
		{"password: wrong\n$ ", false},
		{"name: ", false},
		{"the password is not asked for\n", false},
	} {
		var p prompts
		for _, b := range []byte(c.said) {
			p.said([]byte{b})
		}
		shown, hidden := p.hide([]byte("abc"))
		if hidden != c.hidden || (string(shown) == "***") != c.hidden {
			t.Errorf("%q: %q", c.said, shown)
		}
	}
}
