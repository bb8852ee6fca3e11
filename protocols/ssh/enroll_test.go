package ssh

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// TestEnroll: a key is made and its certificate is all that it takes; and the token is shown to nobody but the gateway.
func TestEnroll(t *testing.T) {
	g := startGate(t, func(g *testGate) { g.expires = time.Now().Add(time.Hour) })
	at := core.WayIn{Target: "web", Address: g.addr, HostKey: New().HostKey(g.target, g)}
	at.Connect, _ = New().Connect(g.target, core.Contact{Address: g.addr, Key: g})
	key := filepath.Join(t.TempDir(), "keys", "id")
	line, until, err := New().Enroll(t.Context(), at, token, key)
	if err != nil || time.Until(until) > time.Hour || time.Until(until) < 50*time.Minute {
		t.Fatal(until, err)
	}
	for _, end := range []string{"", ".pub", "-cert.pub"} {
		b, err := os.ReadFile(key + end)
		info, _ := os.Stat(key + end)
		if err != nil || info.Mode().Perm() != 0o600 || strings.Contains(string(b), token) {
			t.Errorf("%s: %v %v", end, info.Mode(), err)
		}
	}
	out, stderr, err := g.tool("", "sh", "-c", "exec "+strings.Replace(line, "ssh ", "ssh -F none -o BatchMode=yes ", 1)+" echo in")
	if out != "in\n" || err != nil {
		t.Errorf("%s: %q %q %v", line, out, stderr, err)
	}
	if again, _, err := New().Enroll(t.Context(), at, token, key); again != line || err != nil {
		t.Error("a second time:", err)
	}

	signIns := g.signIns()
	other := newSigner(t)
	for name, c := range map[string]struct {
		change func(at *core.WayIn)
		want   string
	}{
		"another host key": {func(at *core.WayIn) { at.HostKey = authorized(other.PublicKey()) }, "host key"},
		"no host key":      {func(at *core.WayIn) { at.HostKey = "" }, "does not say its host key"},
		"not a key":        {func(at *core.WayIn) { at.HostKey = "nonsense" }, "the gateway's host key"},
		"not a line":       {func(at *core.WayIn) { at.Connect = "psql" }, "does not say how to connect"},
	} {
		at := at
		c.change(&at)
		if _, _, err := New().Enroll(t.Context(), at, token, key); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), token) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if g.signIns() != signIns {
		t.Error("the token was shown to who is not the gateway")
	}
	if _, _, err := New().Enroll(t.Context(), at, "wrong", key); err == nil || g.signIns() == signIns {
		t.Error("a wrong token:", err)
	}
	if err := os.WriteFile(key+"-cert.pub", []byte(authorized(other.PublicKey())), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := New().Enroll(t.Context(), at, token, key); err == nil || !strings.Contains(err.Error(), "another authority") {
		t.Error("somebody else's certificate was overwritten:", err)
	}
}

func authorized(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}
