package ssh

import (
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

func TestSignIn(t *testing.T) {
	g := startGate(t, with(func(s *settings) { s.Logins = []string{"deploy"} }))
	asked := func(answer string) ssh.AuthMethod {
		return ssh.KeyboardInteractive(func(_, _ string, questions []string, echos []bool) ([]string, error) {
			if len(questions) == 0 {
				return nil, nil
			}
			if len(questions) != 1 || echos[0] {
				t.Error(questions, echos)
			}
			return []string{answer}, nil
		})
	}
	for name, c := range map[string]struct {
		user   string
		auth   ssh.AuthMethod
		banner string // empty: it gets in
	}{
		"password":        {"web", ssh.Password(token), ""},
		"interactive":     {"web", asked(token), ""},
		"own login":       {server.User + "@web", ssh.Password(token), ""},
		"wrong token":     {"web", ssh.Password("no"), "sign-in failed: "},
		"empty token":     {"web", ssh.Password(""), "sign-in failed: "},
		"wrong answer":    {"web", asked("no"), "sign-in failed: "},
		"no target":       {"ada", ssh.Password(token), `no target "ada" here: the user name says which one`},
		"no name":         {"", ssh.Password(token), "no target"},
		"token too long":  {"web", ssh.Password(strings.Repeat("x", maxToken+1)), "the token is longer than"},
		"cut after 64 Ki": {"web", ssh.Password(token + strings.Repeat("\x00", 100)), "sign-in failed: "},
	} {
		t.Run(name, func(t *testing.T) {
			banner := ""
			client, err := ssh.Dial("tcp", g.addr, &ssh.ClientConfig{
				User: c.user, Auth: []ssh.AuthMethod{c.auth}, HostKeyCallback: ssh.FixedHostKey(g.hostKey()),
				BannerCallback: func(m string) error { banner = m; return nil },
			})
			if err == nil {
				defer func() { _ = client.Close() }()
				if out, _, err := g.run(client, "echo in", ""); err != nil || out != "in\n" {
					t.Error(out, err)
				}
			}
			if (err == nil) != (c.banner == "") || !strings.Contains(banner, c.banner) || strings.Contains(banner, token) {
				t.Fatalf("%v, banner %q", err, banner)
			}
		})
	}
	if strings.Contains(g.journal.text(), token) {
		t.Error("the token is in the record")
	}
}

func TestLoginIsChosenFromTheList(t *testing.T) {
	g := startGate(t)
	c, err := ssh.Dial("tcp", g.addr, &ssh.ClientConfig{User: "daemon@web", Auth: []ssh.AuthMethod{ssh.Password(token)}, HostKeyCallback: ssh.FixedHostKey(g.hostKey())})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.NewSession(); err == nil || !strings.Contains(err.Error(), "cannot be chosen at target web") {
		t.Error(err)
	}
	g = startGate(t, with(func(s *settings) { s.Logins = []string{"daemon"} })) // which sshd lets in with the same key
	c, err = ssh.Dial("tcp", g.addr, &ssh.ClientConfig{User: "daemon@web", Auth: []ssh.AuthMethod{ssh.Password(token)}, HostKeyCallback: ssh.FixedHostKey(g.hostKey())})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.NewSession()
	if log := server.Log(); !strings.Contains(log, "daemon") {
		t.Error("the target has not heard of the login")
	}
}

// TestTooManyTokens: SH-14.
func TestTooManyTokens(t *testing.T) {
	g := startGate(t)
	tries := 0
	_, err := g.dial(ssh.RetryableAuthMethod(ssh.PasswordCallback(func() (string, error) { tries++; return "wrong", nil }), 50))
	if err == nil || g.signIns() != maxTokens {
		t.Fatalf("%v: %d tokens were looked at", err, g.signIns())
	}
	// Keys that mean nothing here do not use up the tries of who then types a token.
	var keys []ssh.Signer
	for range 6 {
		keys = append(keys, newSigner(t))
	}
	c, err := g.dial(ssh.PublicKeys(keys...), ssh.Password(token))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestSignInTakesNoLongerThanItMay(t *testing.T) {
	g := startGate(t, func(g *testGate) { g.target.Limits.SignIn = 300 * time.Millisecond })
	for name, hello := range map[string]string{"silent": "", "slow": "SSH-2.0-slow\r\n", "garbage": strings.Repeat("x", 300)} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", g.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, _ = conn.Write([]byte(hello))
			_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
			b := make([]byte, 4096)
			for err == nil {
				_, err = conn.Read(b)
			}
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Error("it is still open")
			}
		})
	}
}

func TestPreAuthBytesAreBounded(t *testing.T) {
	b := &boundedConn{Conn: endless{}}
	b.left.Store(10)
	p := make([]byte, 8)
	read := 0
	var err error
	for err == nil {
		var n int
		n, err = b.Read(p)
		read += n
	}
	if read != 10 || err != errTooMuch {
		t.Error(read, err)
	}
	b.free()
	if n, err := b.Read(p); n != 8 || err != nil {
		t.Error(n, err)
	}
}

type endless struct{ net.Conn }

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCertificates: SH-12. Who somebody is comes from the certificate that has signed, and from Weir's own authority only.
func TestCertificates(t *testing.T) {
	g := startGate(t)
	own, err := keysOf(g.Key)
	if err != nil {
		t.Fatal(err)
	}
	key, other := newSigner(t), newSigner(t)
	now := time.Now()
	made := func(change func(c *ssh.Certificate)) *ssh.Certificate {
		c, err := own.issue(key.PublicKey(), &core.Identity{Subject: "ada"}, token, now)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(c)
			if err := c.SignCert(rand.Reader, own.authority); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	good := made(nil)
	tampered := made(nil)
	tampered.ValidBefore += 3600
	foreign := made(nil)
	if err := foreign.SignCert(rand.Reader, other); err != nil {
		t.Fatal(err)
	}
	someoneElses, err := own.issue(other.PublicKey(), &core.Identity{Subject: "eve"}, token, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cert *ssh.Certificate
		ok   bool
	}{
		"good":                     {good, true},
		"changed after signing":    {tampered, false},
		"of another authority":     {foreign, false},
		"expired":                  {made(func(c *ssh.Certificate) { c.ValidBefore = uint64(now.Unix()) - 1 }), false},
		"not yet valid":            {made(func(c *ssh.Certificate) { c.ValidAfter = uint64(now.Unix()) + 3600 }), false},
		"for a host":               {made(func(c *ssh.Certificate) { c.CertType = ssh.HostCert }), false},
		"without a principal":      {made(func(c *ssh.Certificate) { c.ValidPrincipals = nil }), false},
		"with an unknown option":   {made(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "true"} }), false},
		"from elsewhere only":      {made(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "192.0.2.1/32"} }), false},
		"from here":                {made(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "127.0.0.0/8"} }), true},
		"without a token":          {made(func(c *ssh.Certificate) { c.Extensions = nil }), false},
		"with a token in clear":    {made(func(c *ssh.Certificate) { c.Extensions = map[string]string{extension: token} }), false},
		"with another key's token": {made(func(c *ssh.Certificate) { c.Extensions = someoneElses.Extensions }), false},
	} {
		t.Run(name, func(t *testing.T) {
			signer, err := ssh.NewCertSigner(c.cert, key)
			if err != nil {
				t.Fatal(err)
			}
			client, err := g.dial(ssh.PublicKeys(signer))
			if (err == nil) != c.ok {
				t.Fatal(err)
			}
			if err == nil {
				_ = client.Close()
			}
		})
	}
	t.Run("a plain key", func(t *testing.T) {
		if _, err := g.dial(ssh.PublicKeys(key)); err == nil {
			t.Error("it is taken")
		}
	})
	t.Run("offered and not held", func(t *testing.T) { // the query for a good certificate, and a signature by another key
		before := g.signIns()
		cert := &claimed{Signer: other, key: good}
		if _, err := g.dial(ssh.PublicKeys(cert)); err == nil {
			t.Error("it is taken")
		}
		if g.signIns() != before {
			t.Error("a session was opened for a key that nobody has shown to hold")
		}
	})
	t.Run("the token is sealed", func(t *testing.T) {
		if strings.Contains(string(good.Marshal()), token) {
			t.Error("whoever sees the certificate has the token")
		}
	})
}

// claimed is a key that somebody else holds.
type claimed struct {
	ssh.Signer
	key ssh.PublicKey
}

func (c *claimed) PublicKey() ssh.PublicKey { return c.key }

func TestCertificateOfACertificate(t *testing.T) {
	g := startGate(t, func(g *testGate) { g.expires = time.Now().Add(10 * time.Minute) })
	c := g.client()
	key := newSigner(t)
	public := string(ssh.MarshalAuthorizedKey(key.PublicKey()))
	out, stderr, err := g.run(c, certificateCommand, public)
	if err != nil {
		t.Fatal(err, stderr)
	}
	parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	cert := parsed.(*ssh.Certificate)
	if until := time.Unix(int64(cert.ValidBefore), 0); time.Until(until) > 10*time.Minute {
		t.Error("it outlives the token:", until)
	}
	for name, stdin := range map[string]string{"a certificate": out, "nothing": "", "garbage": "hello", "a private key": string(server.Key)} {
		if out, stderr, err := g.run(c, certificateCommand, stdin); err == nil || out != "" || !strings.Contains(stderr, "no certificate") {
			t.Errorf("%s: %q %q %v", name, out, stderr, err)
		}
	}
	if strings.Contains(g.journal.text(), token) {
		t.Error("the token is in the record")
	}
}

func TestHostKeyOfItsOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, server.Key, 0o600); err != nil {
		t.Fatal(err)
	}
	g := startGate(t, with(func(s *settings) { s.HostKey = path }))
	if c, err := g.dial(); err == nil {
		_ = c.Close()
		t.Error("it shows another key than the one that is configured")
	}
	key, err := ssh.ParsePrivateKey(server.Key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ssh.Dial("tcp", g.addr, &ssh.ClientConfig{User: "web", Auth: []ssh.AuthMethod{ssh.Password(token)}, HostKeyCallback: ssh.FixedHostKey(key.PublicKey())})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}
