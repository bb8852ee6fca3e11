package certificate

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/identity/certificate/certtest"
)

func write(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// verifier recognises SPIFFE ids of prod.example by one authority and of test.example by another, and names by a third.
func verifier(t testing.TB, prod, test, plain *certtest.Authority, field string) *Verifier {
	t.Helper()
	v, err := New(Config{Authorities: []Authority{
		{Name: "prod", CA: write(t, "prod.pem", certtest.PEM(prod)), TrustDomain: "prod.example", Groups: []string{"mesh"}, Rules: []Rule{
			{Match: "spiffe://prod.example/agent/report", Groups: []string{"reports"}, Kind: "agent"},
			{Match: "spiffe://prod.example/agent/*", Kind: "agent", Groups: []string{"agents", "mesh"}},
		}},
		{Name: "test", CA: write(t, "test.pem", certtest.PEM(test)), TrustDomain: "test.example"},
		{Name: "plain", CA: write(t, "plain.pem", certtest.PEM(plain)), Subject: field, Kind: "agent", Groups: []string{"jobs"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func TestIdentity(t *testing.T) {
	prod, test, plain := certtest.New(t), certtest.New(t), certtest.New(t)
	between := prod.Authority()
	for _, c := range []struct {
		name, field string
		chain       []*x509.Certificate
		want        string
	}{
		{"a workload", "cn", []*x509.Certificate{prod.Client([]string{"spiffe://prod.example/web"}).Leaf}, "spiffe://prod.example/web of spiffe://prod.example service [mesh]"},
		{"an agent, by a rule", "cn", []*x509.Certificate{prod.Client([]string{"spiffe://prod.example/agent/7"}).Leaf}, "spiffe://prod.example/agent/7 of spiffe://prod.example agent [mesh agents]"},
		{"by the first rule", "cn", []*x509.Certificate{prod.Client([]string{"spiffe://prod.example/agent/report"}).Leaf}, "spiffe://prod.example/agent/report of spiffe://prod.example agent [mesh reports]"},
		{"through an authority in between", "cn", []*x509.Certificate{between.Client([]string{"spiffe://prod.example/web"}).Leaf, between.Cert}, "spiffe://prod.example/web of spiffe://prod.example service [mesh]"},
		{"another domain", "cn", []*x509.Certificate{test.Client([]string{"spiffe://test.example/web"}).Leaf}, "spiffe://test.example/web of spiffe://test.example service []"},
		{"a CN", "cn", []*x509.Certificate{plain.Client(nil).Leaf}, "client of certificate:plain agent [jobs]"},
		{"a DNS name", "dns", []*x509.Certificate{plain.Client(nil, func(c *x509.Certificate) { c.DNSNames = []string{"job.example"} }).Leaf}, "job.example of certificate:plain agent [jobs]"},
		{"an address", "email", []*x509.Certificate{plain.Client(nil, func(c *x509.Certificate) { c.EmailAddresses = []string{"job@example.com"} }).Leaf}, "job@example.com of certificate:plain agent [jobs]"},
		{"a URI that is no SPIFFE id", "cn", []*x509.Certificate{plain.Client([]string{"https://job.example"}).Leaf}, "client of certificate:plain agent [jobs]"},
	} {
		id, err := verifier(t, prod, test, plain, c.field).VerifyCertificate(c.chain)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := fmt.Sprint(id.Subject, " of ", id.Issuer, " ", id.Kind, " ", id.Groups); got != c.want || !id.Expires.Equal(c.chain[0].NotAfter) || len(id.Token) != 64 {
			t.Errorf("%s: %s, token %q until %s", c.name, got, id.Token, id.Expires)
		}
	}
}

// TestRefused: none of these is anybody. The control of each is the same certificate without the flaw.
func TestRefused(t *testing.T) {
	prod, test, plain := certtest.New(t), certtest.New(t), certtest.New(t)
	web := []string{"spiffe://prod.example/web"}
	change := func(f func(*x509.Certificate)) []certtest.Change { return []certtest.Change{f} }
	for _, c := range []struct {
		name    string
		by      *certtest.Authority
		uris    []string
		changes []certtest.Change
		reason  string
	}{
		{"expired", prod, web, change(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), "expired"},
		{"not valid yet", prod, web, change(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), "expired"},
		{"of another authority", certtest.New(t), web, nil, "authority"},
		{"signed by itself", &certtest.Authority{T: t}, web, nil, "authority"},
		{"of the authority of another domain", test, web, nil, "authority"},
		{"of the authority of plain names", plain, web, nil, "authority"},
		{"of a domain that is not listed", prod, []string{"spiffe://other.example/web"}, nil, "domain"},
		{"two URIs", prod, []string{"spiffe://prod.example/web", "spiffe://prod.example/admin"}, nil, "subject"},
		{"a SPIFFE id beside another URI", prod, []string{"https://x.example", "spiffe://prod.example/web"}, nil, "subject"},
		{"the id of the domain itself", prod, []string{"spiffe://prod.example"}, nil, "subject"},
		{"an id with a query", prod, []string{"spiffe://prod.example/web?admin"}, nil, "subject"},
		{"an id with a fragment", prod, []string{"spiffe://prod.example/web#admin"}, nil, "subject"},
		{"an id with a port", prod, []string{"spiffe://prod.example:1/web"}, nil, "subject"},
		{"an id with a user", prod, []string{"spiffe://admin@prod.example/web"}, nil, "subject"},
		{"an id with dots", prod, []string{"spiffe://prod.example/web/../admin"}, nil, "subject"},
		{"an id with an escape", prod, []string{"spiffe://prod.example/w%65b"}, nil, "subject"},
		{"an id with an empty part", prod, []string{"spiffe://prod.example//web"}, nil, "subject"},
		{"an id in capitals", prod, []string{"spiffe://PROD.example/web"}, nil, "subject"},
		{"a scheme in capitals", prod, []string{"SPIFFE://other.example/web"}, nil, "domain"},
		{"an authority's own", prod, web, change(func(c *x509.Certificate) { c.IsCA = true; c.KeyUsage |= x509.KeyUsageCertSign }), "purpose"},
		{"may sign certificates", prod, web, change(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), "purpose"},
		{"not for signatures", prod, web, change(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), "purpose"},
		{"no purpose", prod, web, change(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), "purpose"},
		{"for servers only", prod, web, change(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "purpose"},
		{"for anything", prod, web, change(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }), "purpose"},
		{"no CN", plain, nil, change(func(c *x509.Certificate) { c.Subject.CommonName = "" }), "subject"},
		{"a line break in the CN", plain, nil, change(func(c *x509.Certificate) { c.Subject.CommonName = "a\nlevel=ERROR" }), "subject"},
		{"a long CN", plain, nil, change(func(c *x509.Certificate) { c.Subject.CommonName = strings.Repeat("a", 513) }), "subject"},
		{"a plain one of a SPIFFE authority", prod, nil, nil, "authority"},
	} {
		v := verifier(t, prod, test, plain, "cn")
		control, uris := prod, web
		if c.by == plain && c.uris == nil {
			control, uris = plain, nil
		}
		if _, err := v.VerifyCertificate([]*x509.Certificate{control.Client(uris).Leaf}); err != nil {
			t.Fatalf("%s: the control: %v", c.name, err)
		}
		_, err := v.VerifyCertificate([]*x509.Certificate{c.by.Client(c.uris, c.changes...).Leaf})
		refused(t, c.name, err, c.reason)
	}
	v := verifier(t, prod, test, plain, "dns")
	_, err := v.VerifyCertificate([]*x509.Certificate{plain.Client(nil, func(c *x509.Certificate) { c.DNSNames = []string{"a.example", "b.example"} }).Leaf})
	refused(t, "two DNS names", err, "subject")
	_, err = v.VerifyCertificate([]*x509.Certificate{plain.Client(nil, func(c *x509.Certificate) { c.DNSNames = []string{"*.example"} }).Leaf})
	refused(t, "a DNS name for many", err, "subject")
	_, err = v.VerifyCertificate(nil)
	refused(t, "none", err, "missing")
	leaf := prod.Client(web).Leaf
	_, err = v.VerifyCertificate([]*x509.Certificate{leaf, leaf, leaf, leaf, leaf, leaf, leaf, leaf, leaf})
	refused(t, "nine", err, "chain")

	// The library signs with no SHA-1 any more: the flaw is put into what was read, which the check is about.
	for _, alg := range []x509.SignatureAlgorithm{x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.MD5WithRSA} {
		weak := *prod.Client(web).Leaf
		weak.SignatureAlgorithm = alg
		_, err = v.VerifyCertificate([]*x509.Certificate{&weak})
		refused(t, alg.String(), err, "algorithm")
	}
	between := prod.Authority()
	old := *between.Cert
	old.SignatureAlgorithm = x509.ECDSAWithSHA1
	_, err = v.VerifyCertificate([]*x509.Certificate{between.Client(web).Leaf, &old})
	refused(t, "SHA-1 in between", err, "algorithm")
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: leaf.URIs,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: leaf.ExtKeyUsage,
	}, prod.Cert, short.Public(), prod.Key)
	if err != nil {
		t.Fatal(err)
	}
	small, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.VerifyCertificate([]*x509.Certificate{small})
	refused(t, "RSA of 1024 bits", err, "algorithm")
}

func refused(t *testing.T, name string, err error, reason string) {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) || r.Reason() != "certificate-"+reason || !errors.Is(err, core.ErrUnauthenticated) {
		t.Errorf("%s: %v, not %s", name, err, reason)
		return
	}
	if strings.ContainsAny(err.Error(), "\n\r\x1b") || len(err.Error()) > 500 {
		t.Errorf("%s: the log would get %q", name, err)
	}
}

// TestReload: a new authority counts within a second, a removed one does not, and a broken file changes nothing.
func TestReload(t *testing.T) {
	one, two := certtest.New(t), certtest.New(t)
	path := write(t, "ca.pem", certtest.PEM(one))
	now := time.Now()
	v, err := New(Config{Authorities: []Authority{{Name: "x", CA: path, TrustDomain: "prod.example"}}, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	good := func(a *certtest.Authority) bool {
		_, err := v.VerifyCertificate([]*x509.Certificate{a.Client([]string{"spiffe://prod.example/web"}).Leaf})
		return err == nil
	}
	put := func(b []byte) {
		t.Helper()
		now = now.Add(lookEvery)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = os.Chtimes(path, now, now)
	}
	if !good(one) || good(two) {
		t.Fatal("at first")
	}
	put(certtest.PEM(one, two))
	if !good(one) || !good(two) {
		t.Error("two authorities")
	}
	put(certtest.PEM(two))
	if good(one) || !good(two) {
		t.Error("the first is taken away")
	}
	put([]byte("broken"))
	if good(one) || !good(two) {
		t.Error("a broken file")
	}
	put(certtest.PEM(one))
	if !good(one) || good(two) {
		t.Error("a good one again")
	}
}

func TestNew(t *testing.T) {
	ca := certtest.New(t)
	path := write(t, "ca.pem", certtest.PEM(ca))
	leaf := ca.Client(nil)
	notCA := write(t, "leaf.pem", certtest.PEM(&certtest.Authority{Cert: leaf.Leaf}))
	key := write(t, "key.pem", []byte("-----BEGIN PRIVATE KEY-----\n"+base64.StdEncoding.EncodeToString([]byte("x"))+"\n-----END PRIVATE KEY-----\n"))
	for name, c := range map[string][]Authority{
		"file and Workload API":   {{CA: path, WorkloadAPI: "unix:///x", TrustDomain: "a.example"}},
		"neither":                 {{TrustDomain: "a.example"}},
		"domain and subject":      {{CA: path, TrustDomain: "a.example", Subject: "cn"}},
		"neither of those":        {{CA: path}},
		"a field":                 {{CA: path, Subject: "serial"}},
		"no domain":               {{CA: path, TrustDomain: "A b"}},
		"a domain twice":          {{CA: path, TrustDomain: "a.example"}, {CA: path, TrustDomain: "a.example"}},
		"no file":                 {{CA: path + "x", Subject: "cn"}},
		"no authority in it":      {{CA: notCA, Subject: "cn"}},
		"a key in it":             {{CA: key, Subject: "cn"}},
		"a strange Workload API":  {{WorkloadAPI: "ftp://x", TrustDomain: "a.example"}},
		"names of a Workload API": {{WorkloadAPI: "unix:///x", Subject: "cn"}},
	} {
		if v, err := New(Config{Authorities: c}); err == nil {
			v.Close()
			t.Errorf("%s: good", name)
		}
	}
}
