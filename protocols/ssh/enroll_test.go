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
	connect, _ := New().Connect(g.target, core.Contact{Address: g.addr, Key: g})
	key := filepath.Join(t.TempDir(), "keys", "id")
	line, until, err := New().Enroll(t.Context(), connect, token, key)
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
	if again, _, err := New().Enroll(t.Context(), connect, token, key); again != line || err != nil {
		t.Error("a second time:", err)
	}

	signIns := g.signIns()
	other := newSigner(t)
	for name, c := range map[string]struct{ connect, token, key, want string }{
		"another host key": {strings.Replace(connect, authorized(g.hostKey()), authorized(other.PublicKey()), 1), token, key, "host key"},
		"no host key":      {"ssh -p 1 web@127.0.0.1", token, key, "does not say its host key"},
		"not a line":       {"psql", token, key, "does not say its host key"},
	} {
		if _, _, err := New().Enroll(t.Context(), c.connect, c.token, c.key); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), token) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if g.signIns() != signIns {
		t.Error("the token was shown to who is not the gateway")
	}
	if _, _, err := New().Enroll(t.Context(), connect, "wrong", key); err == nil || g.signIns() == signIns {
		t.Error("a wrong token:", err)
	}
	if err := os.WriteFile(key+"-cert.pub", []byte(authorized(other.PublicKey())), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := New().Enroll(t.Context(), connect, token, key); err == nil || !strings.Contains(err.Error(), "another authority") {
		t.Error("somebody else's certificate was overwritten:", err)
	}
}

func authorized(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}
