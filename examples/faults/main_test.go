//go:build linux

package faults_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// What the tests of the package share.
var (
	program  string               // weir
	upstream *postgrestest.Server // logs every statement; nobody breaks it
	password = "upstreamCanary" + random(12)
)

// root is the module's folder.
const root = "../.."

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "weir-faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	// Gateways run as somebody else in some tests: the binary has to be in their reach.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	program = filepath.Join(dir, "weir")
	var wg sync.WaitGroup
	var built, started error
	wg.Go(func() {
		if given := os.Getenv("WEIR_BINARY"); given != "" { // a release, for instance
			program = given
			return
		}
		built = build()
	})
	wg.Go(func() { upstream, started = database() })
	wg.Wait()
	for _, err := range []error{built, started} {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	defer func() { _ = upstream.Stop() }()
	return m.Run()
}

func build() error {
	if _, err := os.Stat(filepath.Join(root, "plugins/pii/pii.wasm")); err != nil {
		if out, err := command("make", "-C", root, "plugins").CombinedOutput(); err != nil {
			return fmt.Errorf("make plugins: %w\n%s", err, out)
		}
	}
	c := command("go", "build", "-o", program, ".")
	c.Dir = root
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

func command(name string, args ...string) *exec.Cmd { return exec.Command(name, args...) }

// database starts a server with the tables that the tests use. The gateway signs in as app, whose password is a
// canary: it must turn up nowhere.
func database() (*postgrestest.Server, error) {
	s, err := postgrestest.Start(context.Background(), postgrestest.Options{
		Log: os.Stderr, NoTLS: true,
		Settings: map[string]string{"log_statement": "all", "log_min_messages": "warning", "jit": "off"},
	})
	if err != nil {
		return nil, err
	}
	var sql bytes.Buffer
	fmt.Fprintf(&sql, `set log_statement = 'none';
create role app login password '%s';
create database orders owner app;
\c orders
set log_statement = 'none';
set role app;
create table customers (id int primary key, name text, email text unique, note text, check (note <> 'forbidden'));
insert into customers values (1, 'Ada', 'ada@example.com', 'first'), (2, 'Bob', 'bob@example.org', null);
create table wide as select g as id, 'name ' || g as name, repeat(md5(g::text), 6) as filler from generate_series(1, 5000) g;
create table written (marker text primary key);
`, password)
	if _, err := s.Psql(context.Background(), "postgres", sql.String()); err != nil {
		_ = s.Stop()
		return nil, err
	}
	return s, nil
}

func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}
