package saml

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	dsig "github.com/russellhaering/goxmldsig"
)

const (
	excC14N     = "http://www.w3.org/2001/10/xml-exc-c14n#"
	excComments = "http://www.w3.org/2001/10/xml-exc-c14n#WithComments"
	enveloped   = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
	rsaSHA1     = "http://www.w3.org/2000/09/xmldsig#rsa-sha1"
	rsaSHA256   = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
	sha1Digest  = "http://www.w3.org/2000/09/xmldsig#sha1"
	sha256Alg   = "http://www.w3.org/2001/04/xmlenc#sha256"
	idpEntity   = "https://idp.example/entity"
)

// pair is a key with a certificate of its own.
type pair struct {
	key  *rsa.PrivateKey
	cert []byte
}

func newPair(t testing.TB, bits int, notAfter time.Time) *pair {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "idp"}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{key, der}
}

func (p *pair) text() string { return base64.StdEncoding.EncodeToString(p.cert) }

// forge is what a provider says, each part of which a test may change. A nil forge field keeps what an honest one says.
type forge struct {
	key                          *pair
	acs, audience, inResponseTo  string
	id, responseID               string
	issuer, responseIssuer       string
	nameID                       string // markup
	format                       string
	recipient, destination       string
	requestOfResponse            string
	confirmBefore, confirmAfter  time.Time
	notBefore, notAfter, session time.Time
	issued                       time.Time
	status, version, method      string
	attributes, conditions       string // further markup
	subject                      string // replaces the whole Subject
	restriction                  string // replaces the AudienceRestriction
	authn                        string // replaces the AuthnStatement

	sign         *signingWay // of the assertion; nil: none
	signResponse *signingWay
	assertion    func(string) string // changes the signed assertion
	wrap         func(assertion string) string
	response     func(string) string // changes the whole, at the end
}

// signingWay is how something is signed.
type signingWay struct {
	key          *pair
	uri          string // default: the parent's ID
	c14n, method string
	digest       string
	transforms   []string
	extra        string // markup in the reference's transforms
	references   string // markup of a second reference
	keyInfo      string // "-": none
	object       string // markup at the end of the signature
	methodChild  string
}

func honest(key *pair, acs, audience, request string) *forge {
	now := time.Now()
	return &forge{
		key: key, acs: acs, audience: audience, inResponseTo: request, requestOfResponse: request, id: "_a" + randomHex(), responseID: "_r" + randomHex(),
		issuer: idpEntity, responseIssuer: idpEntity, nameID: "ada@example.com", format: "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress",
		recipient: acs, destination: acs, confirmAfter: now.Add(5 * time.Minute), notBefore: now.Add(-time.Minute), notAfter: now.Add(5 * time.Minute),
		session: now.Add(8 * time.Hour), issued: now, status: success, version: "2.0", method: bearer, sign: &signingWay{key: key},
		attributes: attribute("groups", "analysts", "dba"),
	}
}

func randomHex() string {
	var b [12]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%x", b)
}

func attribute(name string, values ...string) string {
	s := `<saml:Attribute Name="` + name + `">`
	for _, v := range values {
		s += "<saml:AttributeValue>" + v + "</saml:AttributeValue>"
	}
	return s + "</saml:Attribute>"
}

func at(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func optional(name string, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " " + name + `="` + at(t) + `"`
}

func (f *forge) assertionXML() string {
	subject, restriction, authn := f.subject, f.restriction, f.authn
	if subject == "" {
		subject = fmt.Sprintf(`<saml:Subject><saml:NameID Format="%s">%s</saml:NameID><saml:SubjectConfirmation Method="%s"><saml:SubjectConfirmationData%s%s Recipient="%s"%s/></saml:SubjectConfirmation></saml:Subject>`,
			f.format, f.nameID, f.method, optional("NotBefore", f.confirmBefore), optional("NotOnOrAfter", f.confirmAfter), f.recipient, answering(f.inResponseTo))
	}
	if restriction == "" {
		restriction = `<saml:AudienceRestriction><saml:Audience>` + f.audience + `</saml:Audience></saml:AudienceRestriction>`
	}
	if authn == "" {
		authn = `<saml:AuthnStatement AuthnInstant="` + at(f.issued) + `"` + optional("SessionNotOnOrAfter", f.session) + `><saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>`
	}
	return fmt.Sprintf(`<saml:Assertion xmlns:saml="%s" ID="%s" Version="%s" IssueInstant="%s"><saml:Issuer>%s</saml:Issuer>%s<saml:Conditions%s%s>%s%s</saml:Conditions>%s<saml:AttributeStatement>%s</saml:AttributeStatement></saml:Assertion>`,
		nsAssertion, f.id, f.version, at(f.issued), f.issuer, subject, optional("NotBefore", f.notBefore), optional("NotOnOrAfter", f.notAfter), restriction, f.conditions, authn, f.attributes)
}

func answering(id string) string {
	if id == "" {
		return ""
	}
	return ` InResponseTo="` + id + `"`
}

// unsigned is what this forge says, with another name in it: what an attacker would like to be read.
func (f *forge) evil(id string) string {
	g := *f
	g.id, g.nameID = id, "admin@example.com"
	return g.assertionXML()
}

func (f *forge) xml(t testing.TB) string {
	t.Helper()
	a := f.assertionXML()
	if f.sign != nil {
		a = sign(t, a, f.id, f.sign)
	}
	if f.assertion != nil {
		a = f.assertion(a)
	}
	if f.wrap != nil {
		a = f.wrap(a)
	}
	issuer := ""
	if f.responseIssuer != "" {
		issuer = `<saml:Issuer xmlns:saml="` + nsAssertion + `">` + f.responseIssuer + `</saml:Issuer>`
	}
	destination := ""
	if f.destination != "" {
		destination = ` Destination="` + f.destination + `"`
	}
	r := fmt.Sprintf(`<samlp:Response xmlns:samlp="%s" ID="%s" Version="2.0" IssueInstant="%s"%s%s>%s<samlp:Status><samlp:StatusCode Value="%s"/></samlp:Status>%s</samlp:Response>`,
		nsProtocol, f.responseID, at(f.issued), destination, answering(f.requestOfResponse), issuer, f.status, a)
	if f.signResponse != nil {
		r = sign(t, r, f.responseID, f.signResponse)
	}
	if f.response != nil {
		r = f.response(r)
	}
	return r
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func canonicalizer(alg string) dsig.Canonicalizer {
	if alg == excComments {
		return dsig.MakeC14N10ExclusiveWithCommentsCanonicalizerWithPrefixList("")
	}
	return dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
}

func root(t testing.TB, text string) *etree.Element {
	t.Helper()
	d := etree.NewDocument()
	if err := d.ReadFromString(text); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return d.Root()
}

// sign puts a signature after the Issuer of an element, which is a document of its own.
func sign(t testing.TB, text, id string, o *signingWay) string {
	t.Helper()
	transforms := o.transforms
	if transforms == nil {
		transforms = []string{enveloped, excC14N}
	}
	refC14N := excC14N
	list := ""
	for _, x := range transforms {
		if x == excComments {
			refC14N = x
		}
		list += `<ds:Transform Algorithm="` + x + `"/>`
	}
	data, err := canonicalizer(refC14N).Canonicalize(root(t, text))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(data)
	sum := digest[:]
	if o.digest == sha1Digest {
		d := sha1.Sum(data)
		sum = d[:]
	}
	uri := o.uri
	if uri == "" {
		uri = "#" + id
	}
	if uri == "-" {
		uri = ""
	}
	info := fmt.Sprintf(`<ds:SignedInfo xmlns:ds="%s"><ds:CanonicalizationMethod Algorithm="%s"/><ds:SignatureMethod Algorithm="%s">%s</ds:SignatureMethod><ds:Reference URI="%s"><ds:Transforms>%s%s</ds:Transforms><ds:DigestMethod Algorithm="%s"/><ds:DigestValue>%s</ds:DigestValue></ds:Reference>%s</ds:SignedInfo>`,
		nsSignature, or(o.c14n, excC14N), or(o.method, rsaSHA256), o.methodChild, uri, list, o.extra, or(o.digest, sha256Alg), base64.StdEncoding.EncodeToString(sum), o.references)
	canonical, err := canonicalizer(or(o.c14n, excC14N)).Canonicalize(root(t, info))
	if err != nil {
		t.Fatal(err)
	}
	hash, hashed := crypto.SHA256, sha256.Sum256(canonical)
	value := hashed[:]
	if o.method == rsaSHA1 {
		h := sha1.Sum(canonical)
		hash, value = crypto.SHA1, h[:]
	}
	signature, err := rsa.SignPKCS1v15(rand.Reader, o.key.key, hash, value)
	if err != nil {
		t.Fatal(err)
	}
	keyInfo := or(o.keyInfo, `<ds:KeyInfo><ds:X509Data><ds:X509Certificate>`+o.key.text()+`</ds:X509Certificate></ds:X509Data></ds:KeyInfo>`)
	if o.keyInfo == "-" {
		keyInfo = ""
	}
	s := `<ds:Signature xmlns:ds="` + nsSignature + `">` + strings.Replace(info, ` xmlns:ds="`+nsSignature+`"`, "", 1) +
		`<ds:SignatureValue>` + base64.StdEncoding.EncodeToString(signature) + `</ds:SignatureValue>` + keyInfo + o.object + `</ds:Signature>`
	const after = "</saml:Issuer>"
	i := strings.Index(text, after)
	if i < 0 {
		i = strings.Index(text, ">") + 1 - len(after)
	}
	return text[:i+len(after)] + s + text[i+len(after):]
}

// signatureOf cuts the first signature out of a document.
func signatureOf(text string) (signature, rest string) {
	i, j := strings.Index(text, "<ds:Signature "), strings.Index(text, "</ds:Signature>")+len("</ds:Signature>")
	return text[i:j], text[:i] + text[j:]
}

func metadataXML(signOn string, validUntil time.Time, keys ...*pair) string {
	s := fmt.Sprintf(`<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" xmlns:ds="%s" entityID="%s"%s><md:IDPSSODescriptor protocolSupportEnumeration="%s">`,
		nsSignature, idpEntity, optional("validUntil", validUntil), nsProtocol)
	for _, k := range keys {
		s += `<md:KeyDescriptor use="signing"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>` + k.text() + `</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>`
	}
	return s + `<md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="` + signOn + `"/></md:IDPSSODescriptor></md:EntityDescriptor>`
}
