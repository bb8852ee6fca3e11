package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// bench holds what is measured: one server, and the ways to reach it.
type bench struct {
	weir                   string
	guest                  string // a masking plugin
	step                   string // a plugin that is asked about statements
	policy                 string // the guardrails, which ask data.house
	only                   []string
	dir                    string
	rounds                 int
	seconds                float64
	versions               string
	profiled, profiledWork string
	modes                  []string
	clients                []int
	rows                   []byte // what is copied in

	server *postgrestest.Server
	ways   []*way
	procs  []*exec.Cmd
}

// way is one way to the server.
type way struct {
	name     string
	addr     string
	user     string
	password string
	database string
	proc     *exec.Cmd // the proxy's process, for its memory and processor time
	tls      string    // where it takes TLS from the first byte on; empty: nowhere
	admin    string
	pprof    string
}

const database = "bench"

func (b *bench) start(ctx context.Context) error {
	var err error
	b.server, err = postgrestest.Start(ctx, postgrestest.Options{Log: os.Stderr, Settings: map[string]string{
		"max_connections": "1300", "shared_buffers": "256MB",
	}})
	if err != nil {
		return err
	}
	if _, err := b.server.Psql(ctx, "postgres", "create database "+database); err != nil {
		return err
	}
	initialise := exec.CommandContext(ctx, b.server.Program("pgbench"), "-q", "-i", "-s", "10", "-h", b.server.Dir, "-p", strconv.Itoa(b.server.Port), "-U", b.server.User, database)
	if out, err := initialise.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench -i: %w\n%s", err, out)
	}
	if _, err := b.server.Psql(ctx, database, `
		create table wide as select g as id, 'customer ' || g as name, 'user' || g || '@example.com' as email,
			'user' || g || '@work.example.org' as contact, g * 1.5 as total, md5(g::text) as digest,
			timestamptz '2026-01-01' + g * interval '1 second' as created, g % 7 as kind
		from generate_series(1, 1000000) g; vacuum analyze`); err != nil {
		return err
	}
	version, err := b.server.Psql(ctx, database, "show server_version")
	if err != nil {
		return err
	}
	b.versions = "PostgreSQL " + strings.Fields(version)[0]
	b.ways = []*way{{name: "direct", addr: b.server.Addr(), user: b.server.User, password: b.server.Password, database: database}}
	for _, w := range []struct{ name, promise, record, chain string }{
		{"pass", "off", "off", ""},
		{"guarded", "off", "off", "guardrails, mask"},
		{"steps", "off", "off", "guardrails, mask, step1, step2, step3"},
		{"metadata", "bounded", "metadata", "guardrails, mask"},
		{"bounded", "bounded", "full", "guardrails, mask"},
		{"strict", "strict", "full", "guardrails, mask"},
	} {
		if !b.wants(w.name) {
			continue
		}
		if err := b.gateway(ctx, w.name, w.promise, w.record, w.chain); err != nil {
			return fmt.Errorf("weir %s: %w", w.name, err)
		}
	}
	if b.wants("pgbouncer") {
		if err := b.pgbouncer(ctx); err != nil {
			return fmt.Errorf("pgbouncer: %w", err)
		}
	}
	if b.wants("haproxy") {
		if err := b.haproxy(ctx); err != nil {
			return fmt.Errorf("haproxy: %w", err)
		}
	}
	if !b.wants("direct") {
		b.ways = b.ways[1:]
	}
	return nil
}

// wants reports whether a way is to be measured.
func (b *bench) wants(way string) bool { return len(b.only) == 0 || slices.Contains(b.only, way) }

// house is the data that the policy asks: the tables that are measured, and others up to 1,000.
func house() ([]byte, error) {
	entry := map[string]any{"team": "bench", "open": []string{"read", "write", "call"}, "personal": []string{}, "rows": 100_000_000}
	tables := map[string]any{}
	for i := range 1000 {
		tables["public.table_"+strconv.Itoa(i)] = entry
	}
	for _, name := range []string{"pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history", "wide", "loaded"} {
		tables["public."+name] = entry
	}
	return json.Marshal(map[string]any{"house": map[string]any{
		"tables": tables, "refused": []string{"ddl", "privilege", "file", "process", "network", "admin"},
		"functions": []string{"pg_catalog.now", "pg_catalog.count"},
	}})
}

func (b *bench) gateway(ctx context.Context, name, promise, record, chain string) error {
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Join(dir, "policies"), 0o700); err != nil {
		return err
	}
	policies := ""
	if chain != "" {
		policies = `
policies: [{name: guardrails, path: policies}]
plugins:
  - {name: mask, wasm: "` + b.guest + `", columns: [email, contact]}`
		for _, name := range []string{"step1", "step2", "step3"} {
			if strings.Contains(chain, name) {
				policies += "\n  - {name: " + name + `, wasm: "` + b.step + `", config: {effects: [ddl, privilege]}}`
			}
		}
	}
	policy, err := os.ReadFile(b.policy)
	if err != nil {
		return err
	}
	data, err := house()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "policies", "guardrails.rego"), policy, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "policies", "data.json"), data, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "policies", "access.rego"), []byte("package weir.access\nimport rego.v1\nallow if true\n"), 0o600); err != nil {
		return err
	}
	w := &way{name: name, addr: freePort(), user: "agent", database: database, admin: freePort()}
	w.tls = w.addr
	config := fmt.Sprintf(`data: data
listen: {admin: %q}%s
chain: [%s]
targets:
  - name: bench
    protocol: postgres
    listen: %q
    upstream: {address: %q, database: %s, tls: disable}
    credential: {user: %s, password: "${env:BENCH_PASSWORD}"}
    record: %s
    promise: %s
    limits: {sessions: 5000}
`, w.admin, policies, chain, w.addr, b.server.Addr(), database, b.server.User, record, promise)
	file := filepath.Join(dir, "weir.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	w.pprof = freePort()
	cmd := exec.Command(b.weir, "serve", "-c", file, "--pprof", w.pprof, "--log-level", "warn")
	cmd.Env = append(os.Environ(), "BENCH_PASSWORD="+b.server.Password)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.procs = append(b.procs, cmd)
	w.proc = cmd
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		var said []string
		for lines.Scan() {
			said = append(said, lines.Text())
			if strings.Contains(lines.Text(), "weir: ready") {
				select {
				case ready <- "":
				default:
				}
			}
		}
		select {
		case ready <- strings.Join(said, "\n"):
		default:
		}
	}()
	select {
	case said := <-ready:
		if said != "" {
			return errors.New(said)
		}
	case <-time.After(30 * time.Second):
		return errors.New("not ready after 30 s")
	}
	token := exec.CommandContext(ctx, b.weir, "token", "-c", file, "--subject", "bench", "--group", "bench", "--ttl", "12h")
	token.Env = cmd.Env
	out, err := token.Output()
	if err != nil {
		return fmt.Errorf("weir token: %w", err)
	}
	w.password = strings.TrimSpace(string(out))
	b.ways = append(b.ways, w)
	return nil
}

// install brings a Debian package's program, if this process may.
func install(ctx context.Context, program string) error {
	if _, err := exec.LookPath(program); err == nil {
		return nil
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("%s is not installed", program)
	}
	cmd := exec.CommandContext(ctx, "apt-get", "install", "-q", "-y", "--no-install-recommends", program)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get install %s: %w\n%s", program, err, out)
	}
	return nil
}

func (b *bench) pgbouncer(ctx context.Context) error {
	if err := install(ctx, "pgbouncer"); err != nil {
		return err
	}
	w := &way{name: "pgbouncer", addr: freePort(), user: b.server.User, password: b.server.Password, database: database}
	host, port, _ := net.SplitHostPort(w.addr)
	config := fmt.Sprintf(`[databases]
%s = host=%s port=%d user=%s password=%s
[pgbouncer]
listen_addr = %s
listen_port = %s
auth_type = any
pool_mode = session
max_client_conn = 2000
default_pool_size = 400
unix_socket_dir =
ignore_startup_parameters = extra_float_digits
`, database, b.server.Host, b.server.Port, b.server.User, b.server.Password, host, port)
	file := filepath.Join(b.dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return err
	}
	cmd := exec.Command("pgbouncer", "-q", file)
	if path, err := exec.LookPath("pgbouncer"); err != nil {
		cmd.Path = "/usr/sbin/pgbouncer"
		cmd.Err = nil
	} else {
		cmd.Path = path
	}
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	return b.proxy(cmd, w)
}

func (b *bench) haproxy(ctx context.Context) error {
	if err := install(ctx, "haproxy"); err != nil {
		return err
	}
	w := &way{name: "haproxy", addr: freePort(), user: b.server.User, password: b.server.Password, database: database}
	w.tls = freePort()
	crt := filepath.Join(b.dir, "haproxy.pem")
	if err := certificate(crt); err != nil {
		return err
	}
	file := filepath.Join(b.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(fmt.Sprintf(`global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen pg
    bind %s
    bind %s ssl crt %s alpn postgresql
    server pg %s
`, w.addr, w.tls, crt, b.server.Addr())), 0o644); err != nil {
		return err
	}
	return b.proxy(exec.Command("haproxy", "-q", "-db", "-f", file), w)
}

// proxy starts a proxy and waits until it listens.
func (b *bench) proxy(cmd *exec.Cmd, w *way) error {
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	b.procs = append(b.procs, cmd)
	w.proc = cmd
	for range 100 {
		if c, err := net.Dial("tcp", w.addr); err == nil {
			_ = c.Close()
			b.ways = append(b.ways, w)
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("it does not listen: %s", said.String())
}

func (b *bench) close() {
	for _, p := range b.procs {
		_ = p.Process.Signal(syscall.SIGTERM)
	}
	for _, p := range b.procs {
		done := make(chan struct{})
		go func() { _ = p.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(15 * time.Second):
			_ = p.Process.Kill()
		}
	}
	if b.server != nil {
		_ = b.server.Stop()
	}
}

// certificate writes a self-signed certificate and its key to one file.
func certificate(file string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	out := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...)
	return os.WriteFile(file, out, 0o600)
}

func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}
