//go:build linux

package faults_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	number "math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRotation: the target's password is changed under load, first at the server and a moment later where Weir reads it. No
// client notices; the old one is used no more.
func TestRotation(t *testing.T) {
	t.Parallel()
	role := "rotating" + random(4)
	_, err := upstream.Psql(context.Background(), "orders", fmt.Sprintf("set log_statement = 'none'; create role %s login password 'first-%[1]s' in role app", role))
	must(t, err)
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("first-"+role), 0o600))
	g := start(t, setup{edit: func(text string) string {
		return strings.Replace(text, `{user: app, password: "${env:UPSTREAM_PASSWORD}"}`, fmt.Sprintf(`{user: %s, password: "${file:%s}"}`, role, secret), 1)
	}})
	token := g.token("steady")
	g.open("warm").must(t, "select 1") // the grammar is loaded now
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	served := 0
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := g.dial("steady", token)
				if err == nil {
					_, err = c.query("select 1")
					c.bye()
				}
				mu.Lock()
				if served++; err != nil {
					failed = append(failed, err)
				}
				mu.Unlock()
			}
		})
	}
	for i := range 3 {
		time.Sleep(300 * time.Millisecond)
		next := fmt.Sprintf("next%d-%s", i, role)
		_, err := upstream.Psql(context.Background(), "orders", fmt.Sprintf("set log_statement = 'none'; alter role %s password '%s'", role, next))
		must(t, err)
		time.Sleep(50 * time.Millisecond)
		fresh := secret + ".new"
		must(t, os.WriteFile(fresh, []byte(next), 0o600))
		must(t, os.Rename(fresh, secret))
	}
	time.Sleep(300 * time.Millisecond)
	close(stop)
	wg.Wait()
	if len(failed) > 0 || served < 20 {
		t.Errorf("%d of %d sessions failed, the first with %v", len(failed), served, failed)
	}
	for _, found := range scan(t, g.data, "first-"+role, "next0-"+role, "next2-"+role) {
		t.Errorf("a password is in %s", found)
	}
	// The control: a password that stays wrong is told, after a bounded time.
	must(t, os.WriteFile(secret, []byte("wrong-"+role), 0o600))
	begin := time.Now()
	_, err = g.dial("refused", token)
	refused(t, err, "28000", "could not sign in at the target")
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestLoginByGroup: members of a group sign in at the database by a user of their own, and the record says by which.
func TestLoginByGroup(t *testing.T) {
	t.Parallel()
	role := "reader" + random(4)
	_, err := upstream.Psql(context.Background(), "orders", fmt.Sprintf("set log_statement = 'none'; create role %s login password 'pw-%[1]s'", role))
	must(t, err)
	g := prepare(t, setup{edit: func(text string) string {
		return strings.Replace(text, `password: "${env:UPSTREAM_PASSWORD}"}`, fmt.Sprintf(`password: "${env:UPSTREAM_PASSWORD}", by_group: [{group: support, user: %s, password: "${file:pw}"}]}`, role), 1)
	}})
	g.write("pw", "pw-"+role)
	g.serve()
	t.Cleanup(g.stop)
	for name, want := range map[string]string{"agents": "app", "support": role} {
		c := g.open(name, name)
		if a := c.must(t, "select session_user"); a.rows[0][0] != want {
			t.Errorf("%s is %v at the database, want %s", name, a.rows, want)
		}
		c.bye()
		r := g.replay(g.sealed(name).ID)
		if got := r.records[0].Facts.Details["upstream_user"]; got != want {
			t.Errorf("%s: the record says %q, want %s", name, got, want)
		}
	}
}

// TestSecretsStayHome: a server that cannot prove who it is gets no byte of a secret, nor of the user's name. The control:
// with tls: require, which proves nothing, it gets both.
func TestSecretsStayHome(t *testing.T) {
	t.Parallel()
	for mode, leaks := range map[string]bool{"verify-full": false, "require": true} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			address, heard := impostor(t)
			g := start(t, setup{upstream: address, edit: func(text string) string {
				return strings.Replace(text, "tls: disable", "tls: "+mode, 1)
			}})
			_, err := g.dial("ada", g.token("ada"))
			if err == nil {
				t.Fatal("a session with an impostor")
			}
			got := heard()
			if leaks != bytes.Contains(got, []byte(password)) || leaks != bytes.Contains(got, []byte("user\x00app\x00")) {
				t.Errorf("it hears %q", got)
			}
		})
	}
}

// impostor takes connections as a PostgreSQL server does, with a certificate of nobody, and asks for the password in clear.
// What it hears, on the wire and within TLS, it writes down.
func impostor(t *testing.T) (address string, heard func() []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: number.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	var mu sync.Mutex
	var all []byte
	note := func(b []byte) { mu.Lock(); all = append(all, b...); mu.Unlock() }
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
				hello := make([]byte, 8) // SSLRequest
				if _, err := io.ReadFull(conn, hello); err != nil {
					return
				}
				note(hello)
				_, _ = conn.Write([]byte{'S'})
				secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
				buf := make([]byte, 4096)
				n, err := secure.Read(buf)
				note(buf[:n])
				if err != nil {
					return
				}
				_, _ = secure.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 3})
				n, _ = secure.Read(buf)
				note(buf[:n])
			}()
		}
	}()
	return l.Addr().String(), func() []byte { mu.Lock(); defer mu.Unlock(); return bytes.Clone(all) }
}
