// Package certtest makes certificates of authorities and clients. It is for tests.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority signs.
type Authority struct {
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
	T    testing.TB
}

// Change changes what a certificate says before it is signed.
type Change func(*x509.Certificate)

// New makes an authority of its own.
func New(t testing.TB, changes ...Change) *Authority { return (&Authority{T: t}).Authority(changes...) }

// Authority makes an authority below this one.
func (a *Authority) Authority(changes ...Change) *Authority {
	a.T.Helper()
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, key := a.sign(c, changes)
	return &Authority{cert, key, a.T}
}

// Client makes a client's certificate, for TLS. Each URI is one SAN.
func (a *Authority) Client(uris []string, changes ...Change) tls.Certificate {
	a.T.Helper()
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: "client"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
	}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			a.T.Fatal(err)
		}
		c.URIs = append(c.URIs, u)
	}
	cert, key := a.sign(c, changes)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func (a *Authority) sign(c *x509.Certificate, changes []Change) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.T.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.T.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	for _, f := range changes {
		f(c)
	}
	parent, signer := a.Cert, a.Key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.T.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.T.Fatal(err)
	}
	return cert, key
}

// PEM is the authorities' certificates.
func PEM(list ...*Authority) []byte {
	var out []byte
	for _, a := range list {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Cert.Raw})...)
	}
	return out
}

// Files writes a certificate and its key for programs that want files.
func Files(t testing.TB, c tls.Certificate) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	var chain []byte
	for _, b := range c.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b})...)
	}
	for name, b := range map[string][]byte{cert: chain, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
