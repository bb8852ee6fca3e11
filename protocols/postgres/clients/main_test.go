package clients

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// What the tests of the package share.
var (
	server   *postgrestest.Server
	gateway  *postgrestest.Gateway
	guarded  = postgrestest.FreePort() // refuses and masks
	sampled  = postgrestest.FreePort() // lets a role that may only read do what it can, and records it
	password = "upstreamCanary" + random()
)

const guardrails = `package weir.guardrails

import rego.v1

deny contains {"rule": "no-ddl", "reason": "schema changes go through migrations", "hint": "open a migration"} if {
	"ddl" in input.event.command.effects
}

deny contains {"rule": "no-unbounded-write", "reason": "a write must say which rows", "hint": "add a WHERE"} if {
	"write" in input.event.command.effects
	not input.event.command.where
}

mask contains {"column": "email", "with": "partial"}
`

const config = `
policies:
  - {name: guardrails, path: policies, timeout: 5s}
  - {name: observe, path: "builtin:observe", timeout: 5s}
targets:
  - name: guarded
    protocol: postgres
    listen: %q
    upstream: {address: %q, database: orders, tls: disable}
    credential: {user: app, password: "${env:UPSTREAM_PASSWORD}"}
    chain: [guardrails]
  - name: sampled
    protocol: postgres
    listen: %q
    upstream: {address: %q, database: sample, tls: disable}
    credential: {user: reader, password: "${env:UPSTREAM_PASSWORD}"}
    chain: [observe]
`

const fixture = `
create role app login password '%[1]s';
create role reader login password '%[1]s' in role pg_read_all_data;
create database orders owner app;
\c orders
set role app;
create table customers (id int primary key, name text, email text unique, note text);
insert into customers values (1, 'Ada', 'ada@example.com', 'first'), (2, 'Bob', 'bob@example.org', null);
create table written (client text, n int, primary key (client, n));
create table kinds as select 12.50::numeric as price, true as paid, date '2026-01-02' as day, array[1, 2] as list, '{"a": [1]}'::jsonb as doc;
create view contacts as select id, email as contact from customers;
`

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() { // such as under the race detector, which does not see into other processes
		fmt.Println("short: no clients are run")
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx := context.Background()
	var wg sync.WaitGroup
	var built error
	wg.Go(func() { _, built = postgrestest.Binary(ctx) })
	var err error
	server, err = postgrestest.Start(ctx, postgrestest.Options{Log: os.Stderr, Settings: map[string]string{"jit": "off"}})
	wg.Wait()
	if err == nil {
		defer func() { _ = server.Stop() }()
		err = built
	}
	if err == nil {
		_, err = server.Psql(ctx, "postgres", fmt.Sprintf(fixture, password))
	}
	if err == nil {
		gateway, err = postgrestest.StartGateway(ctx, postgrestest.GatewayOptions{
			Config: fmt.Sprintf(config, guarded, server.Addr(), sampled, server.Addr()),
			Files: map[string]string{
				"policies/access.rego":     "package weir.access\n\nimport rego.v1\n\nallow if \"agents\" in input.identity.groups\n",
				"policies/guardrails.rego": guardrails,
			},
			Env: []string{"UPSTREAM_PASSWORD=" + password},
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = gateway.Stop() }()
	return m.Run()
}

func random() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// token makes a token for a client of its own name.
func token(t *testing.T, name string) string {
	t.Helper()
	s, err := gateway.Token(t.Context(), name, "agents")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// program makes a command with what changes for a client of PostgreSQL: host, port and password.
func program(t *testing.T, name, address, path string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "PGHOST="+host, "PGPORT="+port, "PGPASSWORD="+token(t, name), "PGUSER=app", "PGDATABASE=orders", "PGCONNECT_TIMEOUT=10")
	return cmd
}

// output runs a command and returns what it prints, on either stream, and its exit code.
func output(t *testing.T, cmd *exec.Cmd) (string, int) {
	t.Helper()
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", cmd.Path, err)
	}
	return b.String(), cmd.ProcessState.ExitCode()
}

// direct asks the server past the gateway.
func direct(t *testing.T, database, sql string) string {
	t.Helper()
	out, err := server.Psql(t.Context(), database, sql)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// denied returns how many refusals the archive has of an identity, once its sessions are sealed.
func denied(t *testing.T, identity string) (n int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		out, err := gateway.Run(t.Context(), "sessions", "-o", "json", "--identity", identity)
		if err != nil {
			t.Fatal(err)
		}
		var list []struct {
			End    string
			Denied int
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatal(err)
		}
		open := len(list) == 0
		n = 0
		for _, s := range list {
			open = open || s.End == ""
			n += s.Denied
		}
		if !open {
			return n
		}
		if time.Now().After(deadline) {
			t.Fatalf("the sessions of %s are not sealed: %s", identity, out)
		}
	}
}

// wanted are the packages that the drivers' tests need, as far as this machine can use them.
var wanted = sync.OnceValue(func() (names []string) {
	names = append(names, "python3-psycopg")
	if _, err := exec.LookPath("java"); err == nil {
		names = append(names, "libpostgresql-jdbc-java")
	}
	if _, err := exec.LookPath("npm"); err != nil {
		names = append(names, "node-pg")
	}
	_ = postgrestest.Packages(context.Background(), nil, names...) // in one go; need tells what failed
	return names
})

// need skips a test where a package is missing and cannot be installed.
func need(t *testing.T, packages ...string) {
	t.Helper()
	wanted()
	if err := postgrestest.Packages(t.Context(), nil, packages...); err != nil {
		t.Skip(err)
	}
}

// missing returns those of the texts that are not in s.
func missing(s string, texts ...string) (out []string) {
	for _, x := range texts {
		if !strings.Contains(s, x) {
			out = append(out, x)
		}
	}
	return out
}
