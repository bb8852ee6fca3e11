package certificate

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weir-gateway/weir/core"
)

// Bounds of what a client may show.
const (
	maxChain   = 8
	maxSubject = 512  // bytes
	minRSA     = 2048 // bits
)

// weak are the algorithms of signatures that others can make as well.
var weak = []x509.SignatureAlgorithm{x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1, x509.UnknownSignatureAlgorithm}

// fit refuses what is no client's certificate, whoever has signed it. It is stricter than RFC 5280 and X.509-SVID 5.2,
// which let a certificate without a purpose have all.
func fit(chain []*x509.Certificate) error {
	leaf := chain[0]
	for _, c := range chain {
		if slices.Contains(weak, c.SignatureAlgorithm) {
			return refuse("algorithm", "the client certificate is signed with %s, which is broken", c.SignatureAlgorithm)
		}
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < minRSA {
			return refuse("algorithm", "a key of the client certificate has less than %d bits", minRSA)
		}
	}
	switch {
	case leaf.IsCA, leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return refuse("purpose", "that is the certificate of an authority, not of a client")
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return refuse("purpose", "the client certificate is not for signatures")
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return refuse("purpose", "the client certificate is not for clients (extended key usage clientAuth)")
	}
	return nil
}

// svid returns the id of an X.509-SVID: its one URI.
func svid(leaf *x509.Certificate) (spiffeid.ID, error) {
	if len(leaf.URIs) != 1 {
		return spiffeid.ID{}, refuse("subject", "the client certificate has %d URIs; an X.509-SVID has one", len(leaf.URIs))
	}
	id, err := spiffeid.FromURI(leaf.URIs[0])
	if err != nil || id.Path() == "" || len(id.String()) > maxSubject {
		return spiffeid.ID{}, refuse("subject", "the client certificate's URI is not the SPIFFE id of a workload: %s", quote(leaf.URIs[0].String()))
	}
	return id, nil
}

// verify holds a chain against the authorities that count now.
func (v *Verifier) verify(a *authority, chain []*x509.Certificate) error {
	roots, err := a.roots.pool()
	if err != nil {
		return err
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: v.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return refuse("expired", "the client certificate, or one of its authorities, has expired or is not valid yet")
	}
	return refuse("authority", "the client certificate is of no configured authority")
}

// named returns the one name that a plain certificate has in a field.
func named(leaf *x509.Certificate, field string) (string, error) {
	var names []string
	switch field {
	case SubjectCN:
		for _, n := range leaf.Subject.Names {
			if s, ok := n.Value.(string); ok && n.Type.String() == "2.5.4.3" {
				names = append(names, s)
			}
		}
	case SubjectDNS:
		names = leaf.DNSNames
	case SubjectEmail:
		names = leaf.EmailAddresses
	}
	if len(names) != 1 {
		return "", refuse("subject", "the client certificate has %d names in the field %s, where it needs one", len(names), field)
	}
	name := names[0]
	if name == "" || len(name) > maxSubject || strings.TrimSpace(name) != name || strings.Contains(name, "*") ||
		strings.ContainsFunc(name, func(r rune) bool {
			return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar
		}) {
		return "", refuse("subject", "the client certificate's %s is not a name that can be used", field)
	}
	return name, nil
}

// identity says who a verified certificate makes its holder. Its id, by which it can be revoked, is its fingerprint.
func (a *authority) identity(leaf *x509.Certificate, subject string) core.Identity {
	sum := sha256.Sum256(leaf.Raw)
	id := core.Identity{
		Subject: subject, Issuer: "certificate:" + a.Name, Kind: a.Kind, Groups: slices.Clone(a.Groups), Token: hex.EncodeToString(sum[:]), Expires: leaf.NotAfter,
	}
	if a.TrustDomain != "" {
		id.Issuer = a.domain.IDString()
	}
	for _, r := range a.Rules {
		if !r.fits(subject) {
			continue
		}
		if r.Kind != "" {
			id.Kind = r.Kind
		}
		for _, g := range r.Groups {
			if !slices.Contains(id.Groups, g) {
				id.Groups = append(id.Groups, g)
			}
		}
		break
	}
	if id.Groups == nil {
		id.Groups = []string{}
	}
	return id
}

// Refusal says why nobody was recognised.
type Refusal struct{ reason, text string }

func refuse(reason, format string, args ...any) error {
	return &Refusal{"certificate-" + reason, fmt.Sprintf(format, args...)}
}

// Error is safe to show to the client.
func (r *Refusal) Error() string { return "certificate: " + r.text }

// Reason is one word of a small set, for metrics.
func (r *Refusal) Reason() string { return r.reason }

// Is makes a Refusal a core.ErrUnauthenticated.
func (r *Refusal) Is(target error) bool { return target == core.ErrUnauthenticated }

// quote shows a claimed text with a bound and without control characters.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return fmt.Sprintf("%+q", s)
}
