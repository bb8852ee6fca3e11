package ssh

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/weir-gateway/weir/core"
)

// fakeTarget is a server that notes what is shown to it. A password is all that it takes.
type fakeTarget struct {
	addr string
	key  ssh.Signer

	mu   sync.Mutex
	seen []string // secrets
}

func startFake(t *testing.T, key ssh.Signer, change func(*ssh.ServerConfig)) *fakeTarget {
	t.Helper()
	f := &fakeTarget{key: key}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = l.Addr().String()
	config := &ssh.ServerConfig{PasswordCallback: func(_ ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
		f.mu.Lock()
		f.seen = append(f.seen, string(p))
		f.mu.Unlock()
		if string(p) != "canary" {
			return nil, errors.New("no")
		}
		return nil, nil
	}}
	config.AddHostKey(key)
	if change != nil {
		change(config)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, channels, requests, err := ssh.NewServerConn(conn, config)
				if err != nil {
					return
				}
				go ssh.DiscardRequests(requests)
				for n := range channels {
					ch, reqs, err := n.Accept()
					if err != nil {
						return
					}
					go func() {
						for r := range reqs {
							_ = r.Reply(true, nil)
							if r.Type == "exec" {
								_, _ = ch.Write([]byte("ran\n"))
								_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(exitPayload{0}))
								_ = ch.Close()
							}
						}
					}()
				}
			}()
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	return f
}

func withTarget(f *fakeTarget, password string, set func(*settings)) option {
	return func(g *testGate) {
		g.target.Upstream.Address = f.addr
		g.target.Credential = func(context.Context, core.Identity) (core.Credential, error) {
			return core.Credential{User: "root", Password: password}, nil
		}
		g.settings = settings{}
		set(&g.settings)
	}
}

// TestHostKeys: SH-13. Only the configured key gets the credential; a key that nobody has vouched for gets nothing.
func TestHostKeys(t *testing.T) {
	key, other, ca := newSigner(t), newSigner(t), newSigner(t)
	text := func(k ssh.Signer) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.PublicKey()))) }
	certified := func(change func(*ssh.Certificate)) ssh.Signer {
		c := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"}, ValidBefore: uint64(time.Now().Add(time.Hour).Unix())}
		if change != nil {
			change(c)
		}
		if err := c.SignCert(rand.Reader, ca); err != nil {
			t.Fatal(err)
		}
		s, err := ssh.NewCertSigner(c, key)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	known := func(lines ...string) string {
		path := filepath.Join(t.TempDir(), "known_hosts")
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keys := func(lines ...string) func(*settings) { return func(s *settings) { s.HostKeys = lines } }
	file := func(lines ...string) func(string) func(*settings) {
		return func(addr string) func(*settings) {
			var out []string
			for _, l := range lines {
				out = append(out, strings.ReplaceAll(l, "HOST", knownhosts.Normalize(addr)))
			}
			path := known(out...)
			return func(s *settings) { s.KnownHosts = path }
		}
	}
	always := func(f func(*settings)) func(string) func(*settings) { return func(string) func(*settings) { return f } }
	for name, c := range map[string]struct {
		shown ssh.Signer
		set   func(addr string) func(*settings)
		ok    bool
	}{
		"its key":                   {key, always(keys(text(key))), true},
		"one of its keys":           {key, always(keys(text(other), text(key))), true},
		"another key":               {key, always(keys(text(other))), false},
		"revoked":                   {key, always(keys(text(key), "@revoked "+text(key))), false},
		"certified":                 {certified(nil), always(keys("@cert-authority " + text(ca))), true},
		"certified by another":      {certified(nil), always(keys("@cert-authority " + text(other))), false},
		"authority's own key only":  {key, always(keys("@cert-authority " + text(ca))), false},
		"certified, key is revoked": {certified(nil), always(keys("@cert-authority "+text(ca), "@revoked "+text(key))), false},
		"wrong principal":           {certified(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"elsewhere"} }), always(keys("@cert-authority " + text(ca))), false},
		"no principal":              {certified(func(c *ssh.Certificate) { c.ValidPrincipals = nil }), always(keys("@cert-authority " + text(ca))), false},
		"expired":                   {certified(func(c *ssh.Certificate) { c.ValidBefore = uint64(time.Now().Add(-time.Minute).Unix()) }), always(keys("@cert-authority " + text(ca))), false},
		"of a user":                 {certified(func(c *ssh.Certificate) { c.CertType = ssh.UserCert }), always(keys("@cert-authority " + text(ca))), false},
		"known_hosts":               {key, file("HOST " + text(key)), true},
		"known_hosts, another":      {key, file("HOST " + text(other)), false},
		"known_hosts, another host": {key, file("elsewhere " + text(key)), false},
		"known_hosts, revoked":      {key, file("HOST "+text(key), "@revoked HOST "+text(key)), false},
		"known_hosts, certified":    {certified(nil), file("@cert-authority HOST " + text(ca)), true},
		"trusted at first":          {key, always(func(s *settings) { s.TrustFirst = true }), true},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFake(t, c.shown, nil)
			g := startGate(t, withTarget(f, "canary", c.set(f.addr)))
			out, _, err := g.run(g.client(), "true", "")
			if (err == nil) != c.ok || c.ok && out != "ran\n" {
				t.Fatal(out, err)
			}
			if !c.ok && !strings.Contains(err.Error(), "host key is not the one that is configured") {
				t.Error(err)
			}
			if got := len(f.seen) > 0; got != c.ok {
				t.Errorf("it was shown %q", f.seen)
			}
		})
	}
}

// TestOldSignatures: SH-13. A target that can prove its key by SHA-1 only gets nothing, though the key is the right one.
func TestOldSignatures(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	old, err := ssh.NewSignerWithAlgorithms(whole.(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSA})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key ssh.Signer
		ok  bool
	}{"SHA-1": {old, false}, "SHA-2": {whole, true}} {
		t.Run(name, func(t *testing.T) {
			f := startFake(t, c.key, nil)
			g := startGate(t, withTarget(f, "canary", func(s *settings) { s.HostKeys = []string{string(ssh.MarshalAuthorizedKey(whole.PublicKey()))} }))
			if _, _, err := g.run(g.client(), "true", ""); (err == nil) != c.ok || (len(f.seen) > 0) != c.ok {
				t.Errorf("%v, it was shown %d secrets", err, len(f.seen))
			}
		})
	}
}

func TestFirstKeyIsTheOnlyOne(t *testing.T) {
	f := startFake(t, newSigner(t), nil)
	g := startGate(t, withTarget(f, "canary", func(s *settings) { s.TrustFirst = true }))
	if _, _, err := g.run(g.client(), "true", ""); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(g.journal.text(), "trusted at first sight: SHA256:") {
		t.Error("nobody is told")
	}
	imposter := startFake(t, newSigner(t), nil)
	h := g.handler.(*handler)
	key := f.key.PublicKey()
	if _, err := h.protocol.pins.first(f.addr, key); err != nil {
		t.Error(err)
	}
	if _, err := h.protocol.pins.first(f.addr, imposter.key.PublicKey()); err == nil {
		t.Error("another key is trusted as well")
	}
}

func TestWhatTheClientIsToldOfTheTarget(t *testing.T) {
	key := newSigner(t)
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey())))
	hostKeys := func(s *settings) { s.HostKeys = []string{line} }
	f := startFake(t, key, nil)
	down := &fakeTarget{addr: "127.0.0.1:1"}
	garbage, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = garbage.Close() }()
	go func() {
		for {
			c, err := garbage.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 mail.example.com ESMTP\r\n"))
			_ = c.Close()
		}
	}()
	for name, c := range map[string]struct {
		target *fakeTarget
		secret string
		want   string
	}{
		"down":           {down, "canary", "the target cannot be reached"},
		"wrong password": {f, "wrong-canary", "the target refuses Weir's credential"},
		"bad key":        {f, "-----BEGIN OPENSSH PRIVATE KEY-----\nwrong-canary\n-----END OPENSSH PRIVATE KEY-----", "the credential for the target cannot be used"},
		"another server": {&fakeTarget{addr: garbage.Addr().String()}, "canary", "the target does not speak as Weir needs it"},
	} {
		t.Run(name, func(t *testing.T) {
			g := startGate(t, withTarget(c.target, c.secret, hostKeys), func(g *testGate) { g.target.Limits.SignIn = 2 * time.Second })
			_, err := g.client().NewSession()
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") {
				t.Fatal(err)
			}
			if g.journal.ended(t, 1); strings.Contains(g.journal.text(), "canary") {
				t.Error("the secret is in the record")
			}
			if err := g.failed(); !errors.Is(err, core.ErrUpstream) || strings.Contains(err.Error(), "canary") {
				t.Error(err)
			}
		})
	}
}

func TestCredentialThatRotates(t *testing.T) {
	key := newSigner(t)
	f := startFake(t, key, nil)
	asked := 0
	g := startGate(t, withTarget(f, "", func(s *settings) { s.HostKeys = []string{string(ssh.MarshalAuthorizedKey(key.PublicKey()))} }), func(g *testGate) {
		g.target.Credential = func(context.Context, core.Identity) (core.Credential, error) {
			asked++
			return core.Credential{User: "root", Password: []string{"", "old", "canary"}[asked], Rotates: true}, nil
		}
	})
	if out, _, err := g.run(g.client(), "true", ""); err != nil || out != "ran\n" || asked != 2 {
		t.Error(out, err, asked)
	}
}

func TestSettings(t *testing.T) {
	key := server.HostKey
	for name, c := range map[string]struct {
		set  settings
		want string
	}{
		"good":          {settings{HostKeys: []string{key}}, ""},
		"no key":        {settings{}, "says nothing of the target's host key"},
		"two ways":      {settings{HostKeys: []string{key}, TrustFirst: true}, "needs one of"},
		"no such file":  {settings{KnownHosts: "/nowhere/known_hosts"}, "known_hosts"},
		"garbage":       {settings{HostKeys: []string{"ssh-ed25519"}}, "is not a public key"},
		"revoked only":  {settings{HostKeys: []string{"@revoked " + key}}, "no key would ever be good"},
		"mode":          {settings{HostKeys: []string{key}, Mode: "exec"}, `mode "exec" is not`},
		"forward":       {settings{HostKeys: []string{key}, Forward: []string{"db"}}, `"db" is not host:port`},
		"env":           {settings{HostKeys: []string{key}, Env: []string{"*X"}}, "is not a name"},
		"channels":      {settings{HostKeys: []string{key}, Channels: -1}, "channels is not"},
		"host key file": {settings{HostKeys: []string{key}, HostKey: "/nowhere/key"}, "host_key"},
	} {
		target := &core.Target{Name: "web", Decode: func(v any) error { *v.(*settings) = c.set; return nil }}
		_, err := New().Handler([]*core.Target{target})
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "target web")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReaches(t *testing.T) {
	for _, c := range []struct {
		pattern, address string
		want             bool
	}{
		{"db:5432", "db:5432", true},
		{"db:5432", "DB.:5432", true},
		{"db:5432", "db:5433", false},
		{"db:5432", "xdb:5432", false},
		{"*:80", "anything:80", true},
		{"*.internal:*", "a.internal:1", true},
		{"*.internal:*", "internal:1", false},
		{"*.internal:*", "evilinternal:1", false},
		{"[::1]:22", "[::1]:22", true},
		{"127.0.0.1:22", "[::ffff:127.0.0.1]:22", false},
		{"*:*", "/run/x", false},
		{"/run/x", "/run/x", true},
		{"/run/x", "/run/./x", false},
		{"/*", "/run/../etc", false},
		{"/run/x", "db:22", false},
	} {
		if got := reaches([]string{c.pattern}, c.address); got != c.want {
			t.Errorf("%s reaches %s: %t", c.pattern, c.address, got)
		}
	}
}
