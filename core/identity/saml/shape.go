package saml

import (
	"encoding/base64"
	"regexp"
	"slices"
	"strings"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
)

// Namespaces.
const (
	nsProtocol  = "urn:oasis:names:tc:SAML:2.0:protocol"
	nsAssertion = "urn:oasis:names:tc:SAML:2.0:assertion"
	nsSignature = "http://www.w3.org/2000/09/xmldsig#"
	nsExclusive = "http://www.w3.org/2001/10/xml-exc-c14n#"
)

// What a signature may be made with. SHA-1 is not among it, nor is anything symmetric; signatures by elliptic curves are
// not, because the library reads them in another encoding than XML has them in.
var (
	methods = []string{dsig.RSASHA256SignatureMethod, dsig.RSASHA384SignatureMethod, dsig.RSASHA512SignatureMethod}
	digests = []string{"http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2001/04/xmldsig-more#sha384", "http://www.w3.org/2001/04/xmlenc#sha512"}
)

var idShape = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,255}$`)

// form is a response whose shape leaves one way to read it: one assertion, directly in it, and every signature the child
// of what it signs.
type form struct {
	response, assertion *etree.Element
	certificates        [][]byte // that signatures bring along
}

// shape parses a guarded document. That an assertion is in a place where nobody looks, beside another one, or under
// a signature that is about something else, is how signatures are wrapped (XSW): none of it has this shape.
func shape(raw []byte) (*form, error) {
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(raw); err != nil || doc.Root() == nil {
		return nil, refuse("xml", "the document is not well-formed XML")
	}
	f := &form{response: doc.Root()}
	if !is(f.response, nsProtocol, "Response") {
		return nil, refuse("shape", "the document is not a SAML 2.0 response")
	}
	var signatures []*etree.Element
	ids := map[string]bool{}
	var walk func(e *etree.Element) error
	walk = func(e *etree.Element) error {
		for _, a := range e.Attr {
			if !strings.EqualFold(a.Key, "id") || a.Space == "xmlns" {
				continue
			}
			if a.Space != "" || ids[a.Value] {
				return refuse("id", "the response has one ID twice")
			}
			ids[a.Value] = true
		}
		switch strings.ToLower(e.Tag) { // whatever the namespace: another reader might not look at it
		case "assertion":
			if f.assertion != nil || e.Parent() != f.response || !is(e, nsAssertion, "Assertion") {
				return refuse("shape", "the response does not have one assertion, directly in it")
			}
			f.assertion = e
		case "encryptedassertion", "encryptedid", "encryptedattribute", "newencryptedid":
			return refuse("encrypted", "the response has something encrypted, which this gateway has no key for")
		case "response":
			if e != f.response {
				return refuse("shape", "the response has another one in it")
			}
		case "signature":
			if !is(e, nsSignature, "Signature") || e.Parent() != f.response && e.Parent() != f.assertion {
				return refuse("shape", "a signature is not the child of what it signs")
			}
			signatures = append(signatures, e)
		}
		for _, c := range e.ChildElements() {
			if err := walk(c); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(f.response); err != nil {
		return nil, err
	}
	if f.assertion == nil {
		return nil, refuse("shape", "the response has no assertion")
	}
	signed := map[*etree.Element]bool{}
	for _, s := range signatures {
		of := s.Parent()
		if signed[of] {
			return nil, refuse("signature", "an element has two signatures")
		}
		signed[of] = true
		if err := f.signature(s, of.SelectAttrValue("ID", "")); err != nil {
			return nil, err
		}
	}
	if !signed[f.assertion] {
		return nil, refuse("unsigned", "the assertion is not signed; a signature of the response alone is not enough here")
	}
	return f, nil
}

// is compares a name, its namespace resolved.
func is(e *etree.Element, ns, tag string) bool { return e.Tag == tag && e.NamespaceURI() == ns }

// signature holds a signature to the one form that is taken (SAML core 5.4): one reference, to the parent, with the two
// transforms that SAML needs.
func (f *form) signature(s *etree.Element, id string) error {
	if !idShape.MatchString(id) {
		return refuse("id", "what is signed has no ID that can be referred to")
	}
	parts, err := children(s, "SignedInfo", "SignatureValue", "KeyInfo?")
	if err != nil {
		return err
	}
	f.certificates = append(f.certificates, certificatesIn(parts["KeyInfo"])...)
	info, err := children(parts["SignedInfo"], "CanonicalizationMethod", "SignatureMethod", "Reference")
	if err != nil {
		return err
	}
	if info["CanonicalizationMethod"].SelectAttrValue("Algorithm", "") != dsig.CanonicalXML10ExclusiveAlgorithmId.String() {
		return refuse("algorithm", "the signature is not over exclusive canonical XML without comments")
	}
	if m := info["SignatureMethod"]; !slices.Contains(methods, m.SelectAttrValue("Algorithm", "")) || len(m.ChildElements()) > 0 {
		return refuse("algorithm", "the signature is not made with RSA and SHA-256 or better: %s", quote(m.SelectAttrValue("Algorithm", "")))
	}
	if info["Reference"].SelectAttrValue("URI", "") != "#"+id {
		return refuse("reference", "the signature is about something else than its parent")
	}
	ref, err := children(info["Reference"], "Transforms", "DigestMethod", "DigestValue")
	if err != nil {
		return err
	}
	if m := ref["DigestMethod"].SelectAttrValue("Algorithm", ""); !slices.Contains(digests, m) {
		return refuse("algorithm", "the digest is not SHA-256 or better: %s", quote(m))
	}
	want := []string{dsig.EnvelopedSignatureAltorithmId.String(), dsig.CanonicalXML10ExclusiveAlgorithmId.String()}
	list := ref["Transforms"].ChildElements()
	for i, t := range list {
		if len(list) != len(want) || !is(t, nsSignature, "Transform") || t.SelectAttrValue("Algorithm", "") != want[i] {
			return refuse("transform", "the signature's transforms are not those of SAML")
		}
		for _, c := range t.ChildElements() {
			if i == 0 || !is(c, nsExclusive, "InclusiveNamespaces") {
				return refuse("transform", "the signature's transforms are not those of SAML")
			}
		}
	}
	if len(list) == 0 {
		return refuse("transform", "the signature's transforms are not those of SAML")
	}
	return nil
}

// children returns the children of an element of a signature, each of which must be there once, or may be (?), and no others.
func children(e *etree.Element, names ...string) (map[string]*etree.Element, error) {
	found := map[string]*etree.Element{}
	for _, c := range e.ChildElements() {
		if found[c.Tag] != nil || c.NamespaceURI() != nsSignature || !slices.ContainsFunc(names, func(n string) bool { return strings.TrimSuffix(n, "?") == c.Tag }) {
			return nil, refuse("signature", "the signature has %s where it should not be", quote(c.Tag))
		}
		found[c.Tag] = c
	}
	for _, n := range names {
		if !strings.HasSuffix(n, "?") && found[n] == nil {
			return nil, refuse("signature", "the signature has no %s", n)
		}
	}
	return found, nil
}

// certificatesIn lists the certificates that a KeyInfo shows; what is no certificate is an empty one.
func certificatesIn(info *etree.Element) (out [][]byte) {
	if info == nil {
		return nil
	}
	for _, e := range info.FindElements(".//X509Certificate") {
		der, _ := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(e.Text()), ""))
		out = append(out, der)
	}
	return out
}
