package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func pool(t *testing.T, path string) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate")
	}
	return p
}

func TestLocalTLS(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	c, ca, err := LocalTLS(dir, "db.example", "0.0.0.0", "10.0.0.9")
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"": 0o700, "ca.key": 0o600, "server.key": 0o600, "ca.pem": 0o644, "server.pem": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%q: %v, %v", name, info.Mode().Perm(), err)
		}
	}
	shake := func(server, client *tls.Config) error {
		ln, err := tls.Listen("tcp", anyPort, server)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			if c, err := ln.Accept(); err == nil {
				_ = c.(*tls.Conn).Handshake()
				_ = c.Close()
			}
		}()
		b, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		_ = b.SetDeadline(time.Now().Add(30 * time.Second))
		return tls.Client(b, client).Handshake()
	}
	roots := pool(t, ca)
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "db.example", "10.0.0.9"} {
		if err := shake(c, &tls.Config{RootCAs: roots, ServerName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := shake(c, &tls.Config{RootCAs: roots, ServerName: "other.example"}); err == nil {
		t.Error("another name passes")
	}
	if err := shake(c, &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}); err == nil {
		t.Error("no root, and it passes")
	}
	if err := shake(c, &tls.Config{RootCAs: roots, ServerName: "localhost", MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 passes")
	}

	// The same files are used again, and a new host gets a new certificate of the same CA.
	before, _ := os.ReadFile(filepath.Join(dir, "server.pem"))
	if _, _, err = LocalTLS(dir); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, "server.pem")); string(after) != string(before) {
		t.Error("the certificate was made again for nothing")
	}
	c, _, err = LocalTLS(dir, "new.example")
	if err != nil {
		t.Fatal(err)
	}
	if err := shake(c, &tls.Config{RootCAs: roots, ServerName: "new.example"}); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(filepath.Join(dir, "ca.key"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LocalTLS(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a CA key that others can read: %v", err)
	}
}

func TestRenewal(t *testing.T) {
	now := time.Now()
	l := &localCA{dir: t.TempDir(), hosts: []string{"localhost"}, now: func() time.Time { return now }}
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	first, err := l.certificate()
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(serverLife - serverRenew - time.Hour)
	if same, _ := l.certificate(); same != first {
		t.Error("renewed too early")
	}
	now = now.Add(3 * time.Hour)
	if next, err := l.certificate(); err != nil || next == first || !next.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Errorf("not renewed: %v", err)
	}
	ca := l.ca
	now = now.Add(caLife - caRenew)
	if err := l.open(); err != nil || l.ca.Equal(ca) {
		t.Errorf("the CA was not renewed: %v", err)
	}
}
