package saml

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core/identity/saml/samltest"
)

// TestRealProvider signs in at SimpleSAMLphp: what it sends in its usual settings passes every gate, and what is changed on
// the way does not.
func TestRealProvider(t *testing.T) {
	b := newBench(t)
	idp, err := samltest.Start(t.Context(), t.TempDir(), b.server.URL+"/saml/sso/metadata", b.server.URL+"/saml/sso/acs")
	if errors.Is(err, samltest.ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(idp.Close)
	b.service = b.gateway(func(_ *Config, p *Provider) { p.Metadata = idp.Metadata() })
	got := make(chan string, 1)
	back := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.URL.Query().Get("code") }))
	t.Cleanup(back.Close)
	port := back.URL[strings.LastIndexByte(back.URL, ':')+1:]
	page, response, err := samltest.NewBrowser(nil).SignIn(b.server.URL+"/saml/sso/start?port="+port+"&challenge="+challengeOf(verifier), "ada", "ada")
	if err != nil {
		t.Fatal(err)
	}
	var code string
	select {
	case code = <-got:
	default:
		_, why := b.reason()
		t.Fatalf("no code came back: %s\n%s", why, page)
	}
	status, token := b.fetch(code, verifier)
	if status != http.StatusOK || token.Subject != "ada" || token.Issuer != idp.Entity {
		_, why := b.reason()
		t.Fatalf("%d %+v %s", status, token, why)
	}
	if list, _ := b.issuer.List(); len(list) != 1 || strings.Join(list[0].Groups, ",") != "analysts,staff" {
		t.Errorf("groups: %+v", list)
	}
	raw, err := base64.StdEncoding.DecodeString(response)
	if err != nil {
		t.Fatal(err)
	}
	b.refuses("again", formOf(string(raw)), "saml-replay")
	b.refuses("with another name", formOf(strings.Replace(string(raw), ">ada<", ">eve<", 1)), "saml-signature")
	b.refuses("with a comment", formOf(strings.Replace(string(raw), ">ada<", ">ad<!---->a<", 1)), "saml-comment")
	if _, _, err := samltest.NewBrowser(nil).SignIn(b.server.URL+"/saml/sso/start?port="+port+"&challenge="+challengeOf(verifier), "ada", "wrong"); err == nil {
		t.Error("a wrong password signs somebody in")
	}
}
