package gateway

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Life of the local CA and of the certificate it signs.
const (
	caLife      = 10 * 365 * 24 * time.Hour
	caRenew     = 365 * 24 * time.Hour // before its end: the new CA has to reach the clients
	serverLife  = 90 * 24 * time.Hour
	serverRenew = 30 * 24 * time.Hour
)

// LoadTLS makes the client leg's configuration from a given certificate and key (PEM files), which may be replaced while the
// gateway runs.
func LoadTLS(cert, key string) (*tls.Config, error) {
	own := &ownCert{cert: cert, key: key, now: time.Now}
	if err := own.load(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.certificate(), nil },
	}, nil
}

// LocalTLS makes the client leg's configuration from a CA of this gateway's own, kept in dir and made at first use:
// ca.pem is what clients are given. The certificate is for localhost, this machine's name and the hosts given, and is
// renewed while the gateway runs.
func LocalTLS(dir string, hosts ...string) (c *tls.Config, caPath string, err error) {
	l := &localCA{dir: dir, now: time.Now}
	for _, h := range append([]string{"localhost", "127.0.0.1", "::1", hostname()}, hosts...) {
		if ip := net.ParseIP(h); h != "" && (ip == nil || !ip.IsUnspecified()) && !slices.Contains(l.hosts, h) {
			l.hosts = append(l.hosts, h)
		}
	}
	if err := l.open(); err != nil {
		return nil, "", fmt.Errorf("gateway: local CA: %w", err)
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return l.certificate() },
	}, l.path("ca.pem"), nil
}

func hostname() string {
	h, err := os.Hostname()
	if err != nil {
		return ""
	}
	return h
}

// localCA signs the gateway's certificate.
type localCA struct {
	dir   string
	hosts []string
	now   func() time.Time

	mu     sync.Mutex
	ca     *x509.Certificate
	caKey  crypto.Signer
	server *tls.Certificate
}

func (l *localCA) path(name string) string { return filepath.Join(l.dir, name) }

func (l *localCA) open() error {
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return err
	}
	pair, err := l.load("ca")
	switch {
	case errors.Is(err, os.ErrNotExist):
		if pair, err = l.makeCA(); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("%w; remove both ca files to have a new CA made", err)
	case l.now().After(pair.Leaf.NotAfter.Add(-caRenew)):
		if pair, err = l.makeCA(); err != nil {
			return err
		}
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return fmt.Errorf("%s is not a CA", l.path("ca.pem"))
	}
	l.ca, l.caKey = pair.Leaf, signer
	if pair, err := l.load("server"); err == nil && l.fits(pair.Leaf) {
		l.server = pair
		return nil
	}
	l.server, err = l.makeServer()
	return err
}

// fits reports whether a certificate is ours, names the hosts, and holds for a while.
func (l *localCA) fits(c *x509.Certificate) bool {
	if c.CheckSignatureFrom(l.ca) != nil || l.now().After(c.NotAfter.Add(-serverRenew)) || l.now().Before(c.NotBefore) {
		return false
	}
	for _, h := range l.hosts {
		if c.VerifyHostname(h) != nil {
			return false
		}
	}
	return true
}

func (l *localCA) certificate() (*tls.Certificate, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now().After(l.server.Leaf.NotAfter.Add(-serverRenew)) {
		fresh, err := l.makeServer()
		if err == nil {
			l.server = fresh
		} else if l.now().After(l.server.Leaf.NotAfter) {
			return nil, err
		}
	}
	return l.server, nil
}

// load reads NAME.pem and NAME.key.
func (l *localCA) load(name string) (*tls.Certificate, error) {
	key := l.path(name + ".key")
	info, err := os.Stat(key)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %04o): chmod 600 it, and think about who has read it", key, info.Mode().Perm())
	}
	pair, err := tls.LoadX509KeyPair(l.path(name+".pem"), key)
	if err != nil {
		return nil, err
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, err
		}
	}
	return &pair, nil
}

func (l *localCA) makeCA() (*tls.Certificate, error) {
	return l.make("ca", &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Weir local CA on " + hostname()},
		NotBefore: l.now().Add(-time.Hour), NotAfter: l.now().Add(caLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}, nil)
}

func (l *localCA) makeServer() (*tls.Certificate, error) {
	c := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "weir"},
		NotBefore: l.now().Add(-time.Hour), NotAfter: l.now().Add(serverLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	for _, h := range l.hosts {
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, h)
		}
	}
	return l.make("server", c, l.ca)
}

// make signs and writes a certificate and its key; a nil parent signs itself. The certificate is written last, and
// each file appears whole or not at all.
func (l *localCA) make(name string, c, parent *x509.Certificate) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, err
	}
	signer := crypto.Signer(key)
	if parent == nil {
		parent = c
	} else {
		signer = l.caKey
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if err := write(l.path(name+".key"), "PRIVATE KEY", keyDER, 0o600); err != nil {
		return nil, err
	}
	if err := write(l.path(name+".pem"), "CERTIFICATE", der, 0o644); err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

func write(path, kind string, der []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tls-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
