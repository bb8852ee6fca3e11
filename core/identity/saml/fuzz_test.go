package saml

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzResponse changes a signed response in whatever way: either it is refused, or it signs in whom the provider has signed
// in, with the groups that the provider has said.
func FuzzResponse(f *testing.F) {
	key := newPair(f, 2048, time.Now().Add(24*time.Hour))
	file := filepath.Join(f.TempDir(), "idp.xml")
	if err := os.WriteFile(file, []byte(metadataXML("https://idp.example/sso", time.Time{}, key)), 0o600); err != nil {
		f.Fatal(err)
	}
	acs, _ := url.Parse("https://weir.example/saml/sso/acs")
	p := &provider{Provider: Provider{Name: "sso", EntityID: "weir", Groups: "groups"}, acs: *acs, secret: []byte("a secret of thirty-two bytes, yes"), now: time.Now}
	p.source = &source{where: file, now: time.Now}
	h := honest(key, acs.String(), "weir", p.seal(&request{expires: time.Now().Add(time.Hour)}))
	h.notAfter, h.confirmAfter = time.Now().Add(time.Hour), time.Now().Add(time.Hour)
	good := h.xml(f)
	if _, err := p.accept(f.Context(), []byte(good)); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(good))
	h.wrap = func(a string) string {
		s, rest := signatureOf(a)
		return strings.Replace(h.evil("_evil"), "</saml:Issuer>", "</saml:Issuer>"+s, 1) + rest
	}
	f.Add([]byte(h.xml(f)))
	h.wrap = func(a string) string { return h.evil(h.id) + a }
	f.Add([]byte(h.xml(f)))
	h.wrap, h.sign = nil, nil
	f.Add([]byte(h.xml(f)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := p.accept(t.Context(), raw)
		if err != nil {
			return
		}
		if got.subject != "ada@example.com" || strings.Join(got.groups, ",") != "analysts,dba" {
			t.Fatalf("%s in %v is signed in by\n%s", got.subject, got.groups, raw)
		}
	})
}
