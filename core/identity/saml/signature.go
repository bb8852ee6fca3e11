package saml

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"slices"
	"time"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"
	"github.com/jonboulle/clockwork"
	dsig "github.com/russellhaering/goxmldsig"
	"github.com/russellhaering/goxmldsig/etreeutils"
)

// verify returns the assertion as it stands in the bytes that one of the provider's keys has signed, and that key's
// certificate. What the response says of the key counts only against it: a certificate that the metadata does not have.
func verify(f *form, certs []*x509.Certificate, now time.Time) (*etree.Element, *x509.Certificate, error) {
	for _, der := range f.certificates {
		if !slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, der) }) {
			return nil, nil, refuse("key", "the signature brings a certificate that is not in the provider's metadata")
		}
	}
	for _, cert := range certs {
		if signed, err := verifyOne(f.assertion, cert, now); err == nil {
			if !is(signed, nsAssertion, "Assertion") || signed.SelectAttrValue("ID", "") != f.assertion.SelectAttrValue("ID", "-") {
				return nil, nil, refuse("signature", "what was signed is not the assertion")
			}
			return signed, cert, nil
		}
	}
	return nil, nil, refuse("signature", "the assertion's signature was not made with a key of the provider's metadata, or not over this assertion")
}

func verifyOne(assertion *etree.Element, cert *x509.Certificate, now time.Time) (*etree.Element, error) {
	ctx, err := etreeutils.NSBuildParentContext(assertion)
	if err != nil {
		return nil, err
	}
	if ctx, err = ctx.SubContext(assertion); err != nil {
		return nil, err
	}
	alone, err := etreeutils.NSDetatch(ctx, assertion)
	if err != nil {
		return nil, err
	}
	for _, s := range alone.ChildElements() {
		if s.Tag != "Signature" {
			continue
		}
		for _, k := range s.ChildElements() {
			if k.Tag == "KeyInfo" { // the key is the metadata's
				s.RemoveChild(k)
			}
		}
	}
	v := dsig.NewDefaultValidationContext(&dsig.MemoryX509CertificateStore{Roots: []*x509.Certificate{cert}})
	v.IdAttribute = "ID"
	v.Clock = dsig.NewFakeClock(clockwork.NewFakeClockAt(now))
	return v.Validate(alone)
}

// library puts the response to crewjam/saml as well, which sees it from its own side: the signature of the response, if it
// has one, and everything once more. Its word counts only when it is no.
func (p *provider) library(raw []byte, a *assertion, idp *idp, cert *x509.Certificate) error {
	sp := p.serviceProvider(idp)
	sp.IDPMetadata = &saml.EntityDescriptor{EntityID: idp.entity, IDPSSODescriptors: []saml.IDPSSODescriptor{{
		SSODescriptor: saml.SSODescriptor{RoleDescriptor: saml.RoleDescriptor{KeyDescriptors: []saml.KeyDescriptor{{
			Use:     "signing",
			KeyInfo: saml.KeyInfo{X509Data: saml.X509Data{X509Certificates: []saml.X509Certificate{{Data: base64.StdEncoding.EncodeToString(cert.Raw)}}}},
		}}}},
	}}}
	seen, err := sp.ParseXMLResponse(raw, []string{a.inResponseTo}, p.acs)
	if err != nil {
		return refuse("invalid", "the response is not valid for this gateway")
	}
	if seen.ID != a.id {
		return refuse("invalid", "the response can be read in two ways")
	}
	return nil
}

// serviceProvider is this gateway as the library knows it.
func (p *provider) serviceProvider(idp *idp) *saml.ServiceProvider {
	return &saml.ServiceProvider{
		EntityID: p.EntityID, AcsURL: p.acs, MetadataURL: p.acs, IDPMetadata: idp.descriptor, AuthnNameIDFormat: saml.UnspecifiedNameIDFormat,
	}
}
