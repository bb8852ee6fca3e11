package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"

	"github.com/weir-gateway/weir/core"
)

// Certificates says who a client's certificate belongs to. Its errors are like those of a Verifier.
type Certificates interface {
	VerifyCertificate(chain []*x509.Certificate) (core.Identity, error)
}

// What a target makes of client certificates.
const (
	CertAccept  = "accept"  // one that is shown stands in the place of a token
	CertRequire = "require" // nothing else does
)

var _ core.Certifier = (*client)(nil)

// Certified implements core.Certifier.
func (c *client) Certified(t *core.Target, peer []*x509.Certificate) bool {
	own := c.served.targets[t.Name]
	return own != nil && own.takes(peer)
}

// takes reports whether the chain, or that there is none, decides who the client is. A certificate that is shown and not good
// is refused: a token does not make up for it.
func (t *Target) takes(peer []*x509.Certificate) bool {
	return t.ClientCert == CertRequire || t.ClientCert == CertAccept && len(peer) > 0
}

// recognise says who a client is, by its certificate where the target wants that, and else by its token.
func (c *client) recognise(ctx context.Context, h *core.Hello, t *Target, token string) (core.Identity, error) {
	if t.takes(h.Peer) {
		return c.served.Certificates.VerifyCertificate(h.Peer)
	}
	return c.served.Verifier.Verify(ctx, token)
}

// certifying makes the TLS of a listener ask for a certificate where one of its targets wants that. It is judged when the
// session opens, so that the refusal is counted, recorded and said in the protocol's words.
func certifying(c *tls.Config, targets map[string]*Target) *tls.Config {
	for _, t := range targets {
		if c != nil && t.ClientCert != "" {
			c = c.Clone()
			c.ClientAuth = tls.RequestClientCert
			return c
		}
	}
	return c
}
