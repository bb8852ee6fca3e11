//go:build linux

package limits

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// What the large runs change.
var (
	megabytes = flag.Int64("result", 300, "size of the result that TestSlowReader reads, in MB")
	sessions  = flag.Int("sessions", 200, "how many sessions TestIdleSessions opens")
)

// What the tests of the package share. They run one after the other: they measure one process.
var (
	server  *postgrestest.Server
	gateway *postgrestest.Gateway
	token   string
	listen  = map[string]string{} // by target
)

const mib = 1 << 20

// targets are the targets of the gateway: limits, in YAML's flow style without braces, and further lines.
var targets = []struct{ name, limits, more string }{
	{"plain", "", ""},
	{"many", "sessions: 6000", ""},
	{"frame", "max_frame: 64MiB", ""},
	{"huge", "max_frame: 1536MiB", ""},
	{"hostile", "max_frame: 1536MiB", ""},
	{"small", "max_frame: 1MiB", ""},
	{"statement", "statement_timeout: 300ms", ""},
	{"idle", "idle: 300ms", ""},
	{"rows", "rows: 100", ""},
	{"sessions", "sessions: 1", ""},
	{"identities", "sessions_per_identity: 1", ""},
	{"runs", "sessions_per_run: 1", ""},
	{"sign_in", "sign_in: 400ms", ""},
}

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() { // such as under the race detector, which does not see into other processes
		fmt.Println("short: nothing is measured")
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
	server, err = postgrestest.Start(ctx, postgrestest.Options{Log: os.Stderr, NoTLS: true, Settings: map[string]string{
		"max_connections": fmt.Sprint(max(400, *sessions+100)), "jit": "off", "autovacuum": "off",
	}})
	wg.Wait()
	if err == nil {
		defer func() { _ = server.Stop() }()
		err = built
	}
	if err == nil {
		err = serve(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = gateway.Stop() }()
	return m.Run()
}

// file is a configuration with some of the targets.
func file(of ...string) string {
	var b strings.Builder
	b.WriteString("policies: [{name: all, path: policies, timeout: 5s}]\nchain: [all]\ntargets:\n")
	for _, t := range targets {
		if len(of) > 0 && of[0] != t.name {
			continue
		}
		listen[t.name] = postgrestest.FreePort()
		address := server.Addr()
		if t.name == "hostile" {
			address = hostile
		}
		fmt.Fprintf(&b, `  - name: %s
    protocol: postgres
    listen: %q
    upstream: {address: %q, database: postgres, tls: disable}
    credential: {user: %s, password: "${env:UPSTREAM_PASSWORD}"}
    limits: {%s}
%s`, t.name, listen[t.name], address, server.User, t.limits, t.more)
	}
	return b.String()
}

func options(config string) postgrestest.GatewayOptions {
	return postgrestest.GatewayOptions{
		Config: config,
		Files: map[string]string{
			"policies/access.rego": "package weir.access\n\nimport rego.v1\n\nallow if true\n",
			"policies/deny.rego":   "package weir.guardrails\n\nimport rego.v1\n\ndeny contains {\"rule\": \"no-ddl\"} if \"ddl\" in input.event.command.effects\n",
		},
		Env: []string{"UPSTREAM_PASSWORD=" + server.Password},
	}
}

func serve(ctx context.Context) (err error) {
	if gateway, err = postgrestest.StartGateway(ctx, options(file())); err != nil {
		return err
	}
	token, err = gateway.Token(ctx, "limits")
	return err
}

func address(at, name, token string) string {
	return "postgres://agent:" + token + "@" + at + "/" + name + "?sslmode=disable&connect_timeout=20"
}

// connect signs in at a target.
func connect(t *testing.T, name string) *pgconn.PgConn {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), address(listen[name], name, token))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// ask runs one statement.
func ask(c *pgconn.PgConn, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := c.Exec(ctx, sql).ReadAll()
	return err
}

// open gives the bare connection of a session that is ready for a query.
func open(t *testing.T, name string) net.Conn {
	t.Helper()
	c := connect(t, name)
	if err := ask(c, "select 1"); err != nil { // the grammar is loaded after it
		t.Fatalf("%s: %v", name, err)
	}
	h, err := c.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Conn.Close() })
	_ = h.Conn.SetDeadline(time.Now().Add(time.Hour))
	return h.Conn
}

// message is a frame of the protocol.
func message(typ byte, content string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(content)+4)), content...)
}

// code is the SQLSTATE of an error.
func code(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// growth watches the gateway's memory until the test ends. What it returns gives the most that it has been above the
// start so far.
func growth(t *testing.T) (most func() int64) {
	t.Helper()
	before, err := gateway.Steady(20 * time.Second)
	if err != nil {
		t.Log(err) // a busy machine; the bounds hold all the same
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	var peak atomic.Int64
	go func() {
		defer close(stopped)
		for {
			if now, err := gateway.RSS(); err == nil {
				peak.Store(max(peak.Load(), now-before))
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-stopped })
	return peak.Load
}

// alive demands that another session goes on.
func alive(t *testing.T, c *pgconn.PgConn) {
	t.Helper()
	if err := ask(c, "select 'still here'"); err != nil {
		t.Errorf("another session does not live on: %v", err)
	}
	if !gateway.Running() {
		t.Fatalf("the gateway has ended:\n%s", gateway.Log())
	}
}
