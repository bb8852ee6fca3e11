package cli

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/identity/certificate/certtest"
	"github.com/weir-gateway/weir/protocols/postgres"
	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// speaksPostgres adds a real protocol to the one of these tests.
func speaksPostgres(t *testing.T) {
	before := testBuild
	testBuild.Protocols = []core.Protocol{echo{}, postgres.New()}
	t.Cleanup(func() { testBuild = before })
}

// TestClientCertificates: psql gets in with a certificate and no password, where the target takes that, and not otherwise.
func TestClientCertificates(t *testing.T) {
	speaksPostgres(t)
	server, err := postgrestest.Start(t.Context(), postgrestest.Options{Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	p := newPlace(t)
	t.Setenv("WEIR_CONFIG", p.config)
	t.Setenv("WEIR_TEST_PASSWORD", server.Password)
	ca, foreign := certtest.New(t), certtest.New(t)
	if err := os.WriteFile(filepath.Join(p.dir, "clients.pem"), certtest.PEM(ca), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := freePort(t)
	text := strings.Replace(p.text(), "policies:", `identity:
  certificates:
    - name: mesh
      ca: clients.pem
      trust_domain: prod.example
      rules:
        - {match: "spiffe://prod.example/agent/*", kind: agent, groups: [staff]}
policies:`, 1)
	target := func(name, more string) string {
		return fmt.Sprintf("  - name: %s\n    protocol: postgres\n    upstream: {address: %q, database: postgres, tls: disable}\n    credential: {user: %s, password: \"${env:WEIR_TEST_PASSWORD}\"}\n%s", name, server.Addr(), server.User, more)
	}
	text += target("either", fmt.Sprintf("    listen: 127.0.0.1:%d\n    client_cert: accept\n", listen)) + target("strict", "    client_cert: require\n") + target("tokens", "")
	p.write(text)
	p.must("check")
	g := p.serve()
	root := filepath.Join(p.dir, "data", "tls", "ca.pem")
	psql := func(ctx context.Context, database, password string, c *tls.Certificate, sql string) (string, error) {
		cmd := exec.CommandContext(ctx, server.Program("psql"), "-w", "-At", "-c", sql)
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "PGHOST=localhost", fmt.Sprint("PGPORT=", listen), "PGDATABASE="+database, "PGUSER=x", "PGSSLMODE=verify-full", "PGSSLROOTCERT="+root)
		if password != "" {
			cmd.Env = append(cmd.Env, "PGPASSWORD="+password)
		}
		if c != nil {
			cert, key := certtest.Files(t, *c)
			cmd.Env = append(cmd.Env, "PGSSLCERT="+cert, "PGSSLKEY="+key)
		}
		b, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(b)), err
	}
	const agent = "spiffe://prod.example/agent/report"
	good := ca.Client([]string{agent})
	old := ca.Client([]string{agent}, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	wrong := foreign.Client([]string{agent})
	nobody := ca.Client([]string{"spiffe://prod.example/web"})
	token := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff"))
	for _, tc := range []struct {
		name, database, password string
		cert                     *tls.Certificate
		want                     string // in what psql says; "42": it got in
	}{
		{"a certificate", "either", "", &good, "42"},
		{"a token", "either", token, nil, "42"},
		{"neither", "either", "", nil, "password"},
		{"a certificate that has expired", "either", token, &old, "expired"},
		{"one of another authority", "either", token, &wrong, "no configured authority"},
		{"one that policy lets nowhere", "either", "", &nobody, "refused"},
		{"a certificate, where it is required", "strict", "", &good, "42"},
		{"a token there", "strict", token, nil, "a client certificate is needed here"},
		{"a certificate where tokens are", "tokens", "", &good, "password"},
		{"a token there, beside it", "tokens", token, &good, "42"},
	} {
		out, err := psql(t.Context(), tc.database, tc.password, tc.cert, "SELECT 41 + 1")
		if (err == nil) != (tc.want == "42") || !strings.Contains(out, tc.want) {
			t.Errorf("%s: %v, %s", tc.name, err, out)
		}
	}
	var id string
	eventually(t, "the session is listed", func() bool {
		for _, s := range p.list("--identity", agent) {
			id, _ = s["id"].(string)
		}
		return id != ""
	})
	eventually(t, "its record says who it was", func() bool {
		_, out, _ := p.weir("show", id)
		return strings.Contains(out, agent+" (agent), groups staff") && strings.Contains(out, "issuer    spiffe://prod.example")
	})
	eventually(t, "refusals are counted", func() bool {
		return strings.Contains(p.metrics(), `weir_gateway_refused_total{reason="certificate-expired"} 1`)
	})

	// A denied subject's open session ends within ten seconds, and its certificate opens no other.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan string, 1)
	go func() { out, _ := psql(ctx, "strict", "", &good, "SELECT pg_sleep(60)"); done <- out }()
	eventually(t, "the statement runs", func() bool {
		out, err := server.Psql(t.Context(), "postgres", "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60)'")
		return err == nil && strings.Contains(out, "1")
	})
	p.must("token", "revoke", "--subject", agent)
	if out := <-done; ctx.Err() != nil || !strings.Contains(out, "revoked") {
		t.Errorf("ten seconds later: %v, %s", ctx.Err(), out)
	}
	if out, err := psql(t.Context(), "strict", "", &good, "SELECT 1"); err == nil || !strings.Contains(out, "denied") {
		t.Errorf("a denied subject: %s", out)
	}
	p.must("token", "restore", "--subject", agent)
	eventually(t, "the subject gets in again", func() bool { _, err := psql(t.Context(), "strict", "", &good, "SELECT 1"); return err == nil })
	sum := sha256.Sum256(good.Leaf.Raw)
	p.must("token", "revoke", hex.EncodeToString(sum[:]))
	if out, err := psql(t.Context(), "strict", "", &good, "SELECT 1"); err == nil || !strings.Contains(out, "revoked") {
		t.Errorf("a revoked certificate: %s", out)
	}
	next := ca.Client([]string{agent})
	if out, err := psql(t.Context(), "strict", "", &next, "SELECT 1"); err != nil {
		t.Errorf("another certificate of the same subject: %s", out)
	}
	if strings.Contains(g.log.String(), token) {
		t.Error("the log has the token")
	}
	t.Run("TLS", func(t *testing.T) { clientLeg(t, fmt.Sprintf("127.0.0.1:%d", listen), root) })
}

// clientLeg looks at the TLS of a real listener: its versions, and direct TLS with ALPN.
func clientLeg(t *testing.T, address, root string) {
	pem, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	ask := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), 80877103) // SSLRequest
	for _, tc := range []struct {
		name    string
		direct  bool
		alpn    []string
		version uint16 // the highest that the client has
		ok      bool
	}{
		{"TLS 1.3", false, nil, tls.VersionTLS13, true},
		{"TLS 1.2", false, nil, tls.VersionTLS12, true},
		{"TLS 1.1", false, nil, tls.VersionTLS11, false},
		{"TLS 1.0", false, nil, tls.VersionTLS10, false},
		{"ALPN where it is not needed", false, []string{"postgresql"}, tls.VersionTLS13, true},
		{"direct", true, []string{"postgresql"}, tls.VersionTLS13, true},
		{"direct, among others", true, []string{"h2", "postgresql"}, tls.VersionTLS13, true},
		{"direct, TLS 1.2", true, []string{"postgresql"}, tls.VersionTLS12, true},
		{"direct, TLS 1.1", true, []string{"postgresql"}, tls.VersionTLS11, false},
		{"direct, without ALPN", true, nil, tls.VersionTLS13, false},
		{"direct, for another protocol", true, []string{"http/1.1"}, tls.VersionTLS13, false},
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		if !tc.direct {
			var answer [1]byte
			if _, err := conn.Write(ask); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, answer[:]); err != nil || answer[0] != 'S' {
				t.Fatalf("%s: %q, %v", tc.name, answer, err)
			}
		}
		c := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS10, MaxVersion: tc.version, NextProtos: tc.alpn})
		params := "user\x00x\x00database\x00either\x00\x00"
		start := append(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(8+len(params))), 196608), params...)
		var head [1]byte
		if err = c.Handshake(); err == nil {
			if _, err = c.Write(start); err == nil {
				_, err = io.ReadFull(c, head[:])
			}
		}
		if asked := err == nil && head[0] == 'R'; asked != tc.ok {
			t.Errorf("%s: a password is asked for: %v (%v, %q)", tc.name, asked, err, head)
		}
		_ = conn.Close()
	}
}
