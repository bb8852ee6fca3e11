package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// pid is the one thing that two runs of a script may differ in: the number of the server's process.
var pid = regexp.MustCompile(`with PID \d+`)

// TestScripts plays each script in testdata by psql, to the server and through Weir: what psql prints must be the same to
// the byte. `make conformance-postgres` does the same with the server's own suite.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("short: the gateway is another process")
	}
	scripts, err := filepath.Glob("testdata/*.sql")
	if err != nil || len(scripts) < 8 {
		t.Fatal("the scripts are not there: ", err)
	}
	ctx := context.Background()
	server, err := postgrestest.Start(ctx, postgrestest.Options{Log: os.Stderr, NoTLS: true, Settings: map[string]string{
		"timezone": "UTC", "autovacuum": "off", "jit": "off", "max_prepared_transactions": "0",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	if _, err := server.Psql(ctx, "postgres", "create database direct; create database weir"); err != nil {
		t.Fatal(err)
	}
	g, address, token, err := startGateway(ctx, "", server, "weir")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Stop() })
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(script), ".sql")
		play := func(database, address, password string) []byte { // a schema of its own: scripts run beside each other
			host, port, _ := net.SplitHostPort(address)
			cmd := exec.Command(server.Program("psql"), "-X", "-a", "-q")
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "PGHOST="+host, "PGPORT="+port, "PGUSER="+server.User, "PGPASSWORD="+password, "PGDATABASE="+database)
			cmd.Stdin = strings.NewReader(fmt.Sprintf("create schema %s; set search_path = %[1]s;\n%s", name, text))
			out, err := cmd.CombinedOutput() // one stream, so that their order counts
			if err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
			return pid.ReplaceAll(out, []byte("with PID"))
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, got := play("direct", server.Addr(), server.Password), play("weir", address, token)
			if len(want) < len(text) {
				t.Fatalf("direct, psql printed no more than:\n%s", want)
			}
			if !bytes.Equal(got, want) {
				a, b := differ(want, got)
				t.Errorf("direct:\n%s\nthrough Weir:\n%s", a, b)
			}
		})
	}
}

// differ returns what is around the first line that differs.
func differ(a, b []byte) (string, string) {
	x, y := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
	at := 0
	for at < len(x) && at < len(y) && x[at] == y[at] {
		at++
	}
	cut := func(lines []string) string {
		return strings.Join(lines[min(len(lines), max(0, at-3)):min(len(lines), at+5)], "\n")
	}
	return cut(x), cut(y)
}
