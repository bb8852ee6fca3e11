package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// shown is who a certificate belongs to, in a test: its serial number says whether it is good, and until when.
type shown struct{}

func (shown) VerifyCertificate(chain []*x509.Certificate) (core.Identity, error) {
	if len(chain) == 0 || chain[0].Subject.CommonName == "" {
		return core.Identity{}, core.ErrUnauthenticated
	}
	return core.Identity{Subject: chain[0].Subject.CommonName, Issuer: "certificate:x", Token: "print", Expires: chain[0].NotAfter}, nil
}

func certificate(name string, left time.Duration) []*x509.Certificate {
	c := &x509.Certificate{NotAfter: time.Now().Add(left)}
	c.Subject.CommonName = name
	return []*x509.Certificate{c}
}

// TestClientCert: what a target says decides whether a certificate, a token or either says who a client is. A bad certificate
// is not made up for by a good token.
func TestClientCert(t *testing.T) {
	r := start(t, func(_ *Config, s *Settings) { s.Certificates = shown{} })
	conn, other := net.Pipe()
	defer conn.Close()
	defer other.Close()
	good, bad := certificate("job", time.Hour), certificate("", time.Hour)
	for _, tc := range []struct {
		mode, token string
		peer        []*x509.Certificate
		asks        bool   // a token is asked for
		want        string // who it is; empty: refused
	}{
		{"", "good", good, true, "good"},
		{"", "", good, true, ""},
		{"accept", "", good, false, "job"},
		{"accept", "good", nil, true, "good"},
		{"accept", "", nil, true, ""},
		{"accept", "good", bad, false, ""},
		{"require", "", good, false, "job"},
		{"require", "good", nil, false, ""},
		{"require", "good", bad, false, ""},
	} {
		r.mu.RLock()
		s := *r.now.served[anyPort]
		r.mu.RUnlock()
		one := *s.targets["one"]
		one.ClientCert = tc.mode
		s.targets = map[string]*Target{"one": &one}
		c := &client{g: r.Gateway, served: &s, conn: conn, source: "10.0.0.1", signIn: time.NewTimer(time.Hour)}
		if asks := !c.Certified(one.Target, tc.peer); asks != tc.asks {
			t.Errorf("%s, %d certificates: a token is asked for: %v", tc.mode, len(tc.peer), asks)
		}
		session, err := c.Open(t.Context(), core.Hello{Target: one.Target, Token: tc.token, Peer: tc.peer, TLS: true, Client: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}})
		switch {
		case err != nil && (tc.want != "" || !errors.Is(err, core.ErrUnauthenticated)):
			t.Errorf("%q, token %q: %v", tc.mode, tc.token, err)
		case err == nil && session.Identity.Subject != tc.want:
			t.Errorf("%q, token %q: let in as %q, not %q", tc.mode, tc.token, session.Identity.Subject, tc.want)
		}
		if err == nil {
			if session.Hello.Peer != nil {
				t.Error("the chain is kept as long as the session")
			}
			_ = session.Close(core.EndClosed, "")
		}
		if got := certifying(&tls.Config{}, s.targets).ClientAuth; (got == tls.RequestClientCert) != (tc.mode != "") {
			t.Errorf("%q: the handshake asks: %v", tc.mode, got)
		}
	}
	if _, err := New(Config{Journal: r.journal, Protocols: r.Protocols}, Settings{Verifier: names{}, Targets: []Target{{Target: &core.Target{Name: "x", Protocol: "lines"}, Listen: anyPort, ClientCert: CertAccept}}}); err == nil || !strings.Contains(err.Error(), "nobody can verify") {
		t.Errorf("certificates that nobody verifies: %v", err)
	}
}

// TestCertificateExpires: a session that a certificate has opened ends with it, as on_expiry says, a minute later.
func TestCertificateExpires(t *testing.T) {
	for _, tc := range []struct {
		on    core.Expiry
		ends  bool
		after string
	}{{core.ExpiryClose, true, ""}, {core.ExpiryRefuse, false, "token-expired"}, {core.ExpiryKeep, false, ""}} {
		ended := make(chan error, 1)
		id, _ := shown{}.VerifyCertificate(certificate("job", 100*time.Millisecond-expiryGrace))
		g := &Gateway{leaving: context.Background()}
		x := g.stand(nil, &id, &core.Target{OnExpiry: tc.on}, func(err error) { ended <- err })
		select {
		case err := <-ended:
			if !tc.ends || !errors.Is(err, ErrExpired) {
				t.Errorf("%s: %v", tc.on, err)
			}
		case <-time.After(300 * time.Millisecond):
			if tc.ends {
				t.Errorf("%s: goes on", tc.on)
			}
		}
		v, _ := x.Inspect(t.Context(), &core.Event{Kind: core.KindCommand})
		rule := ""
		if v.Deny != nil {
			rule = v.Deny.Rule
		}
		if tc.after != "" && rule != tc.after || tc.on == core.ExpiryKeep && rule != "" {
			t.Errorf("%s: a command afterwards: %q", tc.on, rule)
		}
		x.release()
	}
}
