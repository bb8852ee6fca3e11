//go:build linux

package faults_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// haproxy runs a haproxy before a gateway: one port that tells of clients by version 1 of the PROXY protocol, one by version
// 2, and one that tells nothing. It asks all the while whether the gateway is there.
func haproxy(t *testing.T, g *gateway) (v1, v2, silent string) {
	t.Helper()
	binary, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("haproxy is not installed: apt-get install haproxy")
	}
	v1, v2, silent = freePort(t), freePort(t), freePort(t)
	g.write("haproxy.cfg", fmt.Sprintf(`global
  maxconn 200
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen one
  bind %s
  server gateway %s send-proxy check check-send-proxy inter 100ms
listen two
  bind %s
  server gateway %s send-proxy-v2 check check-send-proxy inter 100ms
listen silent
  bind %s
  server gateway %s
`, v1, g.listen, v2, g.listen, silent, g.listen))
	c := exec.Command(binary, "-db", "-f", filepath.Join(g.dir, "haproxy.cfg"))
	var out output
	c.Stdout, c.Stderr = &out, &out
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, c.Start())
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	eventually(t, 10*time.Second, "haproxy listens", func() bool {
		conn, err := net.Dial("tcp", v2)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, out.String)
	return v1, v2, silent
}

// psql runs a statement at an address, by the database's own client, in TLS.
func psql(t *testing.T, address, token, sql string) (string, error) {
	t.Helper()
	host, port, _ := net.SplitHostPort(address)
	c := exec.Command("psql", "-X", "-A", "-t", "-c", sql, "host="+host+" port="+port+" user=loop dbname=orders sslmode=require connect_timeout=10")
	c.Env = append(c.Environ(), "PGPASSWORD="+token)
	out, err := c.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// TestProxy: behind a haproxy the client that it tells of is who the records name, by both versions of the protocol, with TLS
// and without; its checks are no refusals; a connection on which it tells nothing is not served; and nobody else may tell.
func TestProxy(t *testing.T) {
	t.Parallel()
	g := prepare(t, setup{target: "    proxy_protocol: [127.0.0.1]\n", limits: "sign_in: 3s"})
	g.write("policies/places.rego", `package weir.access

deny contains {"rule": "not-from-there"} if net.cidr_contains("127.0.8.0/24", input.session.client)
`)
	g.serve()
	v1, v2, silent := haproxy(t, g)
	metrics := func() string {
		res, err := http.Get("http://" + g.admin + "/metrics")
		must(t, err)
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return string(b)
	}
	token := g.token("ada")
	for _, address := range []string{v1, v2} {
		if out, err := psql(t, address, token, "select 40 + 2"); err != nil || out != "42" {
			t.Fatalf("psql by way of haproxy: %v %s", err, out)
		}
	}
	// A client with an address of its own, in clear, which is loopback from end to end: the pieces of a large answer.
	from := func(source, address string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: 5 * time.Second}
		conn, err := d.Dial("tcp", address)
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	in := func(conn net.Conn, name string) *client {
		c := &client{Conn: conn, in: bufio.NewReader(conn), name: name, seen: sha256.New(), limit: 20 * time.Second}
		must(t, c.signIn(g.token(name), "user", "agent", "database", "orders", "application_name", name))
		return c
	}
	for i, address := range []string{v1, v2} {
		source := fmt.Sprintf("127.0.9.%d", i+1)
		c := in(from(source, address), source)
		if a := c.must(t, "select repeat('x', 100), i from generate_series(1, 5000) i"); a.count != 5000 {
			t.Errorf("%d rows", a.count)
		}
		c.bye()
		facts, _, _ := g.run("show", g.sealed(source).ID, "-o", "json")
		facts, _, _ = strings.Cut(facts, "\n")
		if !strings.Contains(facts, `"client":"`+source+`:`) || !strings.Contains(facts, `"proxy":"127.0.0.1:`) {
			t.Errorf("the record names %s", facts)
		}
	}
	barred := &client{Conn: from("127.0.8.1", v2), in: nil, seen: sha256.New(), limit: 20 * time.Second}
	barred.in = bufio.NewReader(barred.Conn)
	refused(t, barred.signIn(g.token("barred"), "user", "agent", "database", "orders"), "42501", "rule not-from-there")
	if out, err := psql(t, silent, token, "select 1"); err == nil {
		t.Errorf("a proxy that tells nothing is served: %s", out)
	}
	g.log("send-proxy-v2")

	// Who is not listed is a client; one who tells of another is none.
	c := in(from("127.0.9.9", g.listen), "direct")
	c.must(t, "select 1")
	c.bye()
	spoof := from("127.0.9.9", g.listen)
	_, err := io.WriteString(spoof, "PROXY TCP4 10.0.0.1 127.0.0.1 1 2\r\n")
	must(t, err)
	_ = spoof.SetReadDeadline(time.Now().Add(30 * time.Second))
	if b, err := io.ReadAll(spoof); err != nil && !strings.Contains(err.Error(), "reset") || bytes.Contains(b, []byte("AuthenticationCleartext")) {
		t.Errorf("a spoofed header: %q %v", b, err)
	}
	eventually(t, 5*time.Second, "it is counted", func() bool {
		return strings.Contains(metrics(), `weir_gateway_refused_total{reason="proxy-unlisted"} 1`)
	}, metrics)
	if m := metrics(); !strings.Contains(m, `weir_gateway_refused_total{reason="proxy-header"} 1`) || strings.Contains(m, `reason="sign-in-time"`) {
		t.Errorf("haproxy's checks are refusals:\n%s", m)
	}
}
