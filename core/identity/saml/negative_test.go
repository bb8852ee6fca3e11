package saml

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/crewjam/saml"
)

// libraryTakes asks crewjam/saml alone what it makes of a response: whom it would sign in, or nobody.
func (b *bench) libraryTakes(raw string) (who string) {
	defer func() {
		if recover() != nil {
			who = "panics"
		}
	}()
	p := b.provider()
	idp, err := p.source.get(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	sp := p.serviceProvider(idp)
	doc := []byte(raw)
	id := ""
	if i := strings.Index(raw, `InResponseTo="`); i >= 0 {
		id, _, _ = strings.Cut(raw[i+len(`InResponseTo="`):], `"`)
	}
	a, err := sp.ParseXMLResponse(doc, []string{id}, p.acs)
	if err != nil {
		var why *saml.InvalidResponseError
		if errors.As(err, &why) {
			b.t.Log("library:", strings.ReplaceAll(fmt.Sprint(why.PrivateErr), "\n", " "))
		}
		return ""
	}
	if a.Subject == nil || a.Subject.NameID == nil {
		return "?"
	}
	return a.Subject.NameID.Value
}

// TestForged: none of these signs anybody in. In each case the same response without the flaw does, just before. The last
// column is whom the library alone would sign in: where it names somebody, the check of ours is the guard.
func TestForged(t *testing.T) {
	b := newBench(t)
	other := newPair(t, 2048, time.Now().Add(time.Hour))
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	nested := func(f *forge, id string) string { return f.evil(id) }
	for _, c := range []struct {
		id, name string
		flaw     func(f *forge)
		reason   string
		library  string
	}{
		// Signature wrapping.
		{"XSW1", "a signed response as an object of the signature of another", func(f *forge) {
			f.signResponse = &signingWay{key: b.key}
			f.response = func(r string) string {
				s, rest := signatureOf(r)
				evil := strings.Replace(strings.ReplaceAll(rest, "ada@", "admin@"), f.responseID, "_evil", 1)
				return strings.Replace(evil, "</saml:Issuer>", "</saml:Issuer>"+strings.Replace(s, "</ds:Signature>", "<ds:Object>"+rest+"</ds:Object></ds:Signature>", 1), 1)
			}
		}, "saml-shape", ""},
		{"XSW2", "a signed response beside its signature in another", func(f *forge) {
			f.signResponse = &signingWay{key: b.key}
			f.response = func(r string) string {
				s, rest := signatureOf(r)
				evil := strings.Replace(strings.ReplaceAll(rest, "ada@", "admin@"), f.responseID, "_evil", 1)
				return strings.Replace(evil, "</saml:Issuer>", "</saml:Issuer>"+rest+s, 1)
			}
		}, "saml-shape", ""},
		{"XSW3", "an unsigned assertion before the signed one", func(f *forge) {
			f.wrap = func(a string) string { return nested(f, "_evil") + a }
		}, "saml-shape", "ada@example.com"},
		{"XSW4", "the signed assertion in an unsigned one", func(f *forge) {
			f.wrap = func(a string) string {
				return strings.Replace(nested(f, "_evil"), "</saml:Assertion>", a+"</saml:Assertion>", 1)
			}
		}, "saml-shape", ""},
		{"XSW5", "the signature in another assertion, the signed one after it", func(f *forge) {
			f.wrap = func(a string) string {
				s, rest := signatureOf(a)
				return strings.Replace(nested(f, "_evil"), "</saml:Issuer>", "</saml:Issuer>"+s, 1) + rest
			}
		}, "saml-shape", ""},
		{"XSW6", "the signed assertion inside its signature in another one", func(f *forge) {
			f.wrap = func(a string) string {
				s, rest := signatureOf(a)
				return strings.Replace(nested(f, "_evil"), "</saml:Issuer>", "</saml:Issuer>"+strings.Replace(s, "</ds:Signature>", rest+"</ds:Signature>", 1), 1)
			}
		}, "saml-shape", ""},
		{"XSW7", "an assertion in extensions before the signed one", func(f *forge) {
			f.wrap = func(a string) string { return `<samlp:Extensions>` + nested(f, "_evil") + `</samlp:Extensions>` + a }
		}, "saml-shape", "ada@example.com"},
		{"XSW8", "the signed assertion in an object of the signature of another", func(f *forge) {
			f.wrap = func(a string) string {
				s, rest := signatureOf(a)
				return strings.Replace(nested(f, "_evil"), "</saml:Issuer>", "</saml:Issuer>"+strings.Replace(s, "</ds:Signature>", "<ds:Object>"+rest+"</ds:Object></ds:Signature>", 1), 1)
			}
		}, "saml-shape", ""},
		{"XSW9", "another assertion under the same ID, first (CVE-2022-41912)", func(f *forge) {
			f.wrap = func(a string) string { return nested(f, f.id) + a }
		}, "saml-id", "ada@example.com"},
		{"XSW10", "two assertions, both signed", func(f *forge) {
			f.wrap = func(a string) string { return a + sign(t, nested(f, "_evil"), "_evil", &signingWay{key: b.key}) }
		}, "saml-shape", "ada@example.com"},
		{"XSW11", "an assertion of no namespace before the signed one", func(f *forge) {
			f.wrap = func(a string) string { return `<Assertion ID="_evil">admin</Assertion>` + a }
		}, "saml-shape", "ada@example.com"},
		{"XSW12", "a response in the response", func(f *forge) {
			f.wrap = func(a string) string { return a + `<samlp:Response ID="_inner"/>` }
		}, "saml-shape", "ada@example.com"},

		// Signatures.
		{"SIG1", "no signature at all", func(f *forge) { f.sign = nil }, "saml-unsigned", ""},
		{"SIG2", "the response is signed, the assertion is not", func(f *forge) {
			f.sign, f.signResponse = nil, &signingWay{key: b.key}
		}, "saml-unsigned", "ada@example.com"},
		{"SIG3", "the response was signed, then its assertion swapped", func(f *forge) {
			f.sign, f.signResponse = nil, &signingWay{key: b.key}
			f.response = func(r string) string { return strings.ReplaceAll(r, "ada@", "admin@") }
		}, "saml-unsigned", ""},
		{"SIG4", "the name changed after signing", func(f *forge) {
			f.assertion = func(a string) string { return strings.ReplaceAll(a, "ada@", "admin@") }
		}, "saml-signature", ""},
		{"SIG5", "signed by a key that is not the provider's, which comes along (KeyInfo)", func(f *forge) { f.sign.key = other }, "saml-key", ""},
		{"SIG6", "signed by another key under the provider's certificate", func(f *forge) {
			f.sign.keyInfo = `<ds:KeyInfo><ds:X509Data><ds:X509Certificate>` + b.key.text() + `</ds:X509Certificate></ds:X509Data></ds:KeyInfo>`
			f.sign.key = other
		}, "saml-signature", ""},
		{"SIG7", "a second certificate in KeyInfo", func(f *forge) {
			f.sign.keyInfo = `<ds:KeyInfo><ds:X509Data><ds:X509Certificate>` + b.key.text() + `</ds:X509Certificate><ds:X509Certificate>` + other.text() + `</ds:X509Certificate></ds:X509Data></ds:KeyInfo>`
		}, "saml-key", "ada@example.com"},
		{"SIG8", "SHA-1 signature", func(f *forge) { f.sign.method = rsaSHA1 }, "saml-algorithm", "ada@example.com"},
		{"SIG9", "SHA-1 digest", func(f *forge) { f.sign.digest = sha1Digest }, "saml-algorithm", "ada@example.com"},
		{"SIG10", "HMAC as method", func(f *forge) { f.sign.method = "http://www.w3.org/2000/09/xmldsig#hmac-sha1" }, "saml-algorithm", ""},
		{"SIG11", "a canonical form with comments (SignedInfo)", func(f *forge) { f.sign.c14n = excComments }, "saml-algorithm", "ada@example.com"},
		{"SIG12", "#WithComments as a transform", func(f *forge) { f.sign.transforms = []string{enveloped, excComments} }, "saml-transform", "ada@example.com"},
		{"SIG13", "XSLT as a transform", func(f *forge) {
			f.sign.transforms = []string{enveloped, excC14N, "http://www.w3.org/TR/1999/REC-xslt-19991116"}
		}, "saml-transform", ""},
		{"SIG14", "XPath as a transform", func(f *forge) {
			f.sign.transforms = []string{enveloped, excC14N, "http://www.w3.org/TR/1999/REC-xpath-19991116"}
		}, "saml-transform", ""},
		{"SIG15", "no transforms", func(f *forge) { f.sign.transforms = []string{} }, "saml-transform", ""},
		{"SIG16", "transforms the other way round", func(f *forge) { f.sign.transforms = []string{excC14N, enveloped} }, "saml-transform", "ada@example.com"},
		{"SIG17", "a reference to the whole document", func(f *forge) { f.sign.uri = "-" }, "saml-reference", "ada@example.com"},
		{"SIG18", "a reference to another element", func(f *forge) { f.sign.uri = "#" + f.responseID }, "saml-reference", ""},
		{"SIG19", "two references", func(f *forge) {
			f.sign.references = `<ds:Reference URI="#_x"><ds:Transforms><ds:Transform Algorithm="` + excC14N + `"/></ds:Transforms><ds:DigestMethod Algorithm="` + sha256Alg + `"/><ds:DigestValue>AAAA</ds:DigestValue></ds:Reference>`
		}, "saml-signature", "ada@example.com"},
		{"SIG20", "an object in the signature", func(f *forge) { f.sign.object = `<ds:Object>x</ds:Object>` }, "saml-signature", "ada@example.com"},
		{"SIG21", "two signatures", func(f *forge) {
			f.assertion = func(a string) string {
				s, _ := signatureOf(a)
				return strings.Replace(a, "</saml:Issuer>", "</saml:Issuer>"+s, 1)
			}
		}, "saml-signature", ""},
		{"SIG22", "two SignedInfo", func(f *forge) {
			f.assertion = func(a string) string {
				i, j := strings.Index(a, "<ds:SignedInfo>"), strings.Index(a, "</ds:SignedInfo>")+len("</ds:SignedInfo>")
				return a[:j] + a[i:j] + a[j:]
			}
		}, "saml-signature", ""},
		{"SIG23", "a truncated HMAC length under the method", func(f *forge) {
			f.sign.methodChild = `<ds:HMACOutputLength>8</ds:HMACOutputLength>`
		}, "saml-algorithm", "ada@example.com"},
		{"SIG24", "a good assertion in a response whose own signature is bad", func(f *forge) {
			f.signResponse = &signingWay{key: b.key}
			f.response = func(r string) string {
				return strings.Replace(r, `Version="2.0" IssueInstant`, `Version="2.0" Consent="x" IssueInstant`, 1)
			}
		}, "saml-invalid", ""},
		{"SIG25", "a comment in the digest (CVE-2025-29775)", func(f *forge) {
			f.assertion = func(a string) string { return strings.Replace(a, "<ds:DigestValue>", "<ds:DigestValue><!--x-->", 1) }
		}, "saml-comment", "ada@example.com"},

		// Documents that can be read in two ways.
		{"XML1", "a comment in the NameID (CVE-2017-11427)", func(f *forge) { f.nameID = "ada@example.com<!---->.evil.example" }, "saml-comment", "ada@example.com.evil.example"},
		{"XML2", "a comment put into the signed NameID", func(f *forge) {
			f.assertion = func(a string) string { return strings.Replace(a, "ada@example.com", "ada@<!--x-->example.com", 1) }
		}, "saml-comment", "ada@example.com"},
		{"XML3", "markup in the NameID", func(f *forge) { f.nameID = "ada<x xmlns=\"urn:x\"/>@example.com" }, "saml-assertion", "ada@example.com"},
		{"XML4", "a DTD with an entity", func(f *forge) {
			f.response = func(r string) string {
				return `<!DOCTYPE r [<!ENTITY who "admin">]>` + strings.ReplaceAll(r, "ada@", "&who;@")
			}
		}, "saml-dtd", ""},
		{"XML5", "a DTD without use", func(f *forge) { f.response = func(r string) string { return `<!DOCTYPE r>` + r } }, "saml-dtd", "ada@example.com"},
		{"XML6", "names that do not survive writing (GHSA-4hq8-gmxx-h6w9)", func(f *forge) {
			f.response = func(r string) string { return strings.Replace(r, "<samlp:Status>", `<samlp:Status ::x="y">`, 1) }
		}, "saml-xml", ""},
		{"XML7", "one ID twice", func(f *forge) {
			f.response = func(r string) string { return strings.Replace(r, "<samlp:Status>", `<samlp:Status ID="`+f.id+`">`, 1) }
		}, "saml-id", "ada@example.com"},
		{"XML8", "an ID of a namespace", func(f *forge) {
			f.response = func(r string) string {
				return strings.Replace(r, "<samlp:Status>", `<samlp:Status samlp:ID="`+f.id+`">`, 1)
			}
		}, "saml-id", "ada@example.com"},
		{"XML9", "an attribute twice", func(f *forge) {
			f.response = func(r string) string {
				return strings.Replace(r, " Destination=", ` Destination="https://evil.example" Destination=`, 1)
			}
		}, "saml-xml", "ada@example.com"},
		{"XML10", "a processing instruction", func(f *forge) {
			f.assertion = func(a string) string { return strings.Replace(a, "ada@example.com", "ada@<?x y?>example.com", 1) }
		}, "saml-xml", ""},
		{"XML11", "two roots", func(f *forge) { f.response = func(r string) string { return r + r } }, "saml-xml", "ada@example.com"},
		{"XML12", "text after the root", func(f *forge) { f.response = func(r string) string { return r + "x" } }, "saml-xml", "ada@example.com"},
		{"XML13", "nested 1,000 deep", func(f *forge) {
			f.response = func(r string) string {
				return strings.Replace(r, "<samlp:Status>", "<samlp:Extensions>"+strings.Repeat("<x>", 1000)+strings.Repeat("</x>", 1000)+"</samlp:Extensions><samlp:Status>", 1)
			}
		}, "saml-xml", "ada@example.com"},
		{"XML14", "not XML", func(f *forge) { f.response = func(string) string { return "<samlp:Response" } }, "saml-xml", ""},
		{"XML15", "the assertion alone", func(f *forge) {
			f.response = func(r string) string {
				i, j := strings.Index(r, "<saml:Assertion"), strings.Index(r, "</samlp:Response>")
				return r[i:j]
			}
		}, "saml-shape", ""},
		{"XML16", "an encrypted assertion, with nothing signed", func(f *forge) {
			f.wrap = func(string) string {
				return `<saml:EncryptedAssertion xmlns:saml="` + nsAssertion + `"><xenc:EncryptedData xmlns:xenc="http://www.w3.org/2001/04/xmlenc#"/></saml:EncryptedAssertion>`
			}
		}, "saml-encrypted", ""},
		{"XML17", "a byte that is not UTF-8", func(f *forge) {
			f.response = func(r string) string { return strings.Replace(r, "ada@", "ad\xff@", 1) }
		}, "saml-xml", ""},

		// What the assertion says.
		{"SAY1", "another audience", func(f *forge) { f.audience = "https://other.example" }, "saml-audience", ""},
		{"SAY2", "no audience", func(f *forge) { f.restriction = " " }, "saml-audience", "ada@example.com"},
		{"SAY3", "two restrictions, one of which is for another", func(f *forge) {
			f.conditions = `<saml:AudienceRestriction><saml:Audience>https://other.example</saml:Audience></saml:AudienceRestriction>`
		}, "saml-audience", "ada@example.com"},
		{"SAY4", "another recipient", func(f *forge) { f.recipient = "https://other.example/acs" }, "saml-recipient", ""},
		{"SAY5", "another destination", func(f *forge) { f.destination = "https://other.example/acs" }, "saml-destination", ""},
		{"SAY6", "no destination", func(f *forge) { f.destination = "" }, "saml-destination", "ada@example.com"},
		{"SAY7", "the answer to a request that nobody made", func(f *forge) {
			f.inResponseTo, f.requestOfResponse = "_made-up", "_made-up"
		}, "saml-request", "ada@example.com"},
		{"SAY8", "begun at the provider (no InResponseTo)", func(f *forge) { f.inResponseTo, f.requestOfResponse = "", "" }, "saml-unasked", "ada@example.com"},
		{"SAY9", "response and assertion answer different requests", func(f *forge) { f.requestOfResponse = b.begin() }, "saml-request", ""},
		{"SAY10", "a request of another provider's name", func(f *forge) {
			p := *b.provider()
			p.Name = "other"
			f.inResponseTo = p.seal(&request{expires: time.Now().Add(signInTime)})
			f.requestOfResponse = f.inResponseTo
		}, "saml-request", "ada@example.com"},
		{"SAY11", "a request that is too old", func(f *forge) {
			f.inResponseTo = b.provider().seal(&request{expires: time.Now().Add(-time.Second)})
			f.requestOfResponse = f.inResponseTo
		}, "saml-request", "ada@example.com"},
		{"SAY12", "not valid for another 62 s", func(f *forge) { f.notBefore = in(62 * time.Second) }, "saml-time", "ada@example.com"},
		{"SAY13", "over for 61 s", func(f *forge) { f.notAfter = in(-61 * time.Second) }, "saml-time", "ada@example.com"},
		{"SAY14", "its confirmation over for 61 s", func(f *forge) { f.confirmAfter = in(-61 * time.Second) }, "saml-time", "ada@example.com"},
		{"SAY15", "no end of its confirmation", func(f *forge) { f.confirmAfter = time.Time{} }, "saml-assertion", ""},
		{"SAY16", "no end of its conditions", func(f *forge) { f.notAfter = time.Time{} }, "saml-assertion", ""},
		{"SAY17", "the provider's session is over", func(f *forge) { f.session = in(-time.Second) }, "saml-time", "ada@example.com"},
		{"SAY18", "another issuer", func(f *forge) { f.issuer = "https://other.example" }, "saml-issuer", ""},
		{"SAY19", "a response of another issuer", func(f *forge) { f.responseIssuer = "https://other.example" }, "saml-issuer", ""},
		{"SAY20", "a status that is not success", func(f *forge) { f.status = "urn:oasis:names:tc:SAML:2.0:status:AuthnFailed" }, "saml-status", ""},
		{"SAY21", "confirmed as holder of a key", func(f *forge) { f.method = "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key" }, "saml-assertion", "ada@example.com"},
		{"SAY22", "no subject", func(f *forge) { f.subject = " " }, "saml-assertion", "panics"},
		{"SAY23", "two NameIDs", func(f *forge) {
			f.nameID = `ada@example.com</saml:NameID><saml:NameID>admin@example.com`
		}, "saml-assertion", "admin@example.com"},
		{"SAY24", "a condition that is not understood", func(f *forge) { f.conditions = `<saml:Condition/>` }, "saml-assertion", "ada@example.com"},
		{"SAY25", "SAML 1.1", func(f *forge) { f.version = "1.1" }, "saml-assertion", "ada@example.com"},
		{"SAY26", "no AuthnStatement", func(f *forge) { f.authn = " " }, "saml-assertion", "ada@example.com"},
		{"SAY27", "issued 10 minutes ago", func(f *forge) { f.issued = in(-10 * time.Minute) }, "saml-invalid", ""},

		// Who it is.
		{"WHO1", "a transient NameID", func(f *forge) { f.format = transient }, "saml-subject", "ada@example.com"},
		{"WHO2", "an empty NameID", func(f *forge) { f.nameID = "" }, "saml-subject", ""},
		{"WHO3", "a line break in the NameID", func(f *forge) { f.nameID = "ada&#10;level=ERROR msg=forged" }, "saml-subject", "ada\nlevel=ERROR msg=forged"},
		{"WHO4", "an escape sequence in a group", func(f *forge) { f.attributes = attribute("groups", "a&#x9b;31m") }, "saml-groups", "ada@example.com"},
		{"WHO5", "a NameID that shows in another order", func(f *forge) { f.nameID = "ada&#x202e;nimda" }, "saml-subject", "ada\u202enimda"},
		{"WHO6", "a NameID of 513 bytes", func(f *forge) { f.nameID = strings.Repeat("a", 513) }, "saml-subject", strings.Repeat("a", 513)},
		{"WHO7", "1,001 groups", func(f *forge) { f.attributes = attribute("groups", many(1001)...) }, "saml-size", "panics"},
		{"WHO8", "the groups twice", func(f *forge) { f.attributes += attribute("groups", "admins") }, "saml-assertion", "ada@example.com"},
	} {
		t.Run(c.id, func(t *testing.T) {
			b.t = t
			f := b.honest()
			if got := b.accepts(f.xml(t)); got != ada {
				t.Fatalf("the control is not accepted: %s", got)
			}
			f = b.honest()
			c.flaw(f)
			raw := f.xml(t)
			if got := b.libraryTakes(raw); got != c.library {
				t.Errorf("%s: the library alone takes it for %q, not %q", c.name, got, c.library)
			}
			b.refuses(c.name, formOf(raw), c.reason)
		})
	}
}

// refuses posts a form that must sign nobody in, and tells nobody but the log why.
func (b *bench) refuses(name string, form url.Values, want string) {
	b.t.Helper()
	b.mu.Lock()
	b.refused = nil
	b.mu.Unlock()
	status, code, page := b.post(form)
	reason, text := b.reason()
	if status != http.StatusForbidden || code != "" || reason != want {
		b.t.Errorf("%s: %d, code %q, reason %q (%s)", name, status, code, reason, text)
	}
	if strings.ContainsAny(text, "\n\r\x1b\u009b\u202e") || strings.Contains(text, "<saml") || len(text) > 600 {
		b.t.Errorf("%s: the log would get %q", name, text)
	}
	for _, secret := range []string{"saml", "signature", "ada@", "admin@", "audience"} {
		if strings.Contains(strings.ToLower(page), secret) {
			b.t.Errorf("%s: the page tells of %s", name, secret)
		}
	}
	if strings.Contains(b.log.String(), "SAMLResponse") || strings.Contains(b.log.String(), "<saml") {
		b.t.Errorf("%s: the log has the assertion", name)
	}
}

// TestForms: what reaches the address is bounded and strict before anything is parsed.
func TestForms(t *testing.T) {
	b := newBench(t)
	good := func() url.Values { return formOf(b.honest().xml(t)) }
	if status, _, _ := b.post(good()); status != http.StatusOK {
		t.Fatal("the control is not accepted")
	}
	padded := func(size int) url.Values {
		x := b.honest().xml(t)
		return formOf(x + strings.Repeat(" ", size-len(x)))
	}
	if status, _, _ := b.post(padded(maxResponse)); status != http.StatusOK {
		t.Error("256 KiB are not accepted")
	}
	b.refuses("256 KiB and one byte", padded(maxResponse+1), "saml-size")
	b.refuses("10 MB", url.Values{"SAMLResponse": {strings.Repeat("A", 10<<20)}}, "saml-size")
	b.refuses("not base64", url.Values{"SAMLResponse": {"<Response/>"}}, "saml-form")
	b.refuses("nothing", url.Values{}, "saml-form")
	twice := good()
	twice["SAMLResponse"] = append(twice["SAMLResponse"], good()["SAMLResponse"]...)
	b.refuses("twice", twice, "saml-form")

	// What the redirect binding would have: deflated. It is not inflated, so that a bomb is as good as noise.
	var bomb bytes.Buffer
	w, _ := flate.NewWriter(&bomb, flate.BestCompression)
	_, _ = io.CopyN(w, zeros{}, 100<<20)
	_ = w.Close()
	b.refuses("a bomb", formOf(bomb.String()), "saml-xml")
	res, err := http.Get(b.provider().acs.String() + "?SAMLResponse=" + url.QueryEscape(base64.StdEncoding.EncodeToString(bomb.Bytes()[:1000])))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a response by redirect: %s", res.Status)
	}
	res, err = http.Post(b.provider().acs.String()+"?"+good().Encode(), "application/x-www-form-urlencoded", strings.NewReader("x=y"))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("a response in the address: %s", res.Status)
	}
	res, err = http.Post(b.provider().acs.String(), "text/plain", strings.NewReader(good().Encode()))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("a response that is no form: %s", res.Status)
	}
}

func many(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint("g", i))
	}
	return list
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
