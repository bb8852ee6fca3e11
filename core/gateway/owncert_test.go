package gateway

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestOwnCertificate: a certificate of the operator's is taken anew from its files when they change, and only when both fit.
func TestOwnCertificate(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	ca := &localCA{dir: filepath.Join(dir, "ca"), hosts: []string{"localhost"}, now: time.Now}
	if err := ca.open(); err != nil {
		t.Fatal(err)
	}
	first, err := ca.certificate()
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, from string) {
		t.Helper()
		b, err := os.ReadFile(ca.path(from))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		now = now.Add(2 * ownCertLook)
		_ = os.Chtimes(path, now, now)
	}
	put("tls.pem", "server.pem")
	put("tls.key", "server.key")
	o := &ownCert{cert: filepath.Join(dir, "tls.pem"), key: filepath.Join(dir, "tls.key"), now: func() time.Time { return now }}
	if err := o.load(); err != nil {
		t.Fatal(err)
	}
	serial := func(c *tls.Certificate) string { return c.Leaf.SerialNumber.String() }
	if serial(o.certificate()) != serial(first) {
		t.Error("not the first")
	}
	second, err := ca.makeServer()
	if err != nil {
		t.Fatal(err)
	}
	put("tls.pem", "server.pem") // halfway: the key is the old one
	if serial(o.certificate()) != serial(first) {
		t.Error("halfway, and not the first")
	}
	put("tls.key", "server.key")
	if serial(o.certificate()) != serial(second) {
		t.Error("not the second")
	}
	_ = os.Remove(o.key)
	now = now.Add(2 * ownCertLook)
	if serial(o.certificate()) != serial(second) {
		t.Error("the key is gone, and the second with it")
	}
	c, err := LoadTLS(ca.path("server.pem"), ca.path("server.key"))
	if err != nil || c.MinVersion != tls.VersionTLS12 {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := LoadTLS(ca.path("server.pem"), ca.path("ca.key")); err == nil {
		t.Error("a key of another certificate")
	}
}
