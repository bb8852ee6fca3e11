// Command conformance runs PostgreSQL's own regression suite twice against one server, direct and through Weir with
// parsing, recording and a no-op plugin on, and compares the result files byte by byte. `make conformance-postgres`
// builds and runs it; CONFORMANCE.md holds the last result.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

func main() {
	weir := flag.String("weir", "bin/weir", "the gateway's binary")
	work := flag.String("work", ".conformance", "where sources are kept")
	out := flag.String("o", "", "write the result to this file")
	only := flag.String("tests", "", "some tests only, by blank; setup tests are added")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	bad, err := run(ctx, *weir, *work, *out, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(2)
	}
	if bad > 0 {
		os.Exit(1)
	}
}

func run(ctx context.Context, weir, work, out, only string) (bad int, err error) {
	suite, err := postgrestest.Suite(ctx, work, os.Stderr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = suite.Close() }()
	var tests []string
	if only != "" {
		tests = append([]string{"test_setup"}, strings.Fields(only)...)
	}
	results := map[string]string{}
	var version string
	for _, way := range []string{"direct", "weir"} { // a fresh server each, so that both start from the same state
		server, err := postgrestest.Start(ctx, postgrestest.Options{Log: os.Stderr, Settings: map[string]string{
			"max_prepared_transactions": "2", "timezone": "UTC", "autovacuum": "off",
		}})
		if err != nil {
			return 0, err
		}
		version, _ = server.Psql(ctx, "postgres", "show server_version")
		err = func() error {
			defer func() { _ = server.Stop() }()
			address, password := server.Addr(), server.Password
			if way == "weir" {
				g, listen, token, err := startGateway(ctx, weir, server, "")
				if err != nil {
					return err
				}
				defer func() { _ = g.Stop() }()
				address, password = listen, token
			}
			say("the suite, " + way)
			results[way], err = suite.Play(ctx, way, address, password, tests...)
			return err
		}()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", way, err)
		}
	}
	same, differ, missing, err := compare(results["direct"], results["weir"])
	if err != nil {
		return 0, err
	}
	report := fmt.Sprintf(`# Conformance of the Postgres path

PostgreSQL's own regression suite (pg_regress, sources of %s) against PostgreSQL %s: direct, and through Weir with the
grammar, full strict recording, a Rego policy that is asked and passes all, and a no-op WASM step.

| | |
|---|--:|
| result files | %d |
| byte-identical to the direct run | %d |
| different | %d |
| missing | %d |

Run on %s with `+"`make conformance-postgres`"+` (%s).
`, suite.Release(), version, same+len(differ)+len(missing), same, len(differ), len(missing), time.Now().UTC().Format("2006-01-02"), machine())
	for _, d := range differ {
		report += "\n- different: " + d
	}
	for _, m := range missing {
		report += "\n- missing: " + m
	}
	fmt.Println(report)
	for _, d := range differ {
		diff := exec.CommandContext(ctx, "diff", "-u", filepath.Join(results["direct"], d), filepath.Join(results["weir"], d))
		b, _ := diff.Output()
		fmt.Printf("--- %s\n%s\n", d, clip(b, 4000))
	}
	if out != "" {
		if err := os.WriteFile(out, []byte(report), 0o644); err != nil {
			return 0, err
		}
	}
	return len(differ) + len(missing), nil
}

func say(what string) { fmt.Fprintf(os.Stderr, "conformance: %s\n", what) }

func clip(b []byte, n int) []byte { return b[:min(len(b), n)] }

func machine() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	return fmt.Sprintf("%d processors", strings.Count(string(b), "processor\t"))
}

// compare holds the result files of two runs against each other.
func compare(a, b string) (same int, differ, missing []string, err error) {
	files, err := filepath.Glob(filepath.Join(a, "*.out"))
	if err != nil {
		return 0, nil, nil, err
	}
	for _, f := range files {
		x, err := os.ReadFile(f)
		if err != nil {
			return 0, nil, nil, err
		}
		y, err := os.ReadFile(filepath.Join(b, filepath.Base(f)))
		switch {
		case os.IsNotExist(err):
			missing = append(missing, filepath.Base(f))
		case err != nil:
			return 0, nil, nil, err
		case bytes.Equal(x, y):
			same++
		default:
			differ = append(differ, filepath.Base(f))
		}
	}
	sort.Strings(differ)
	return same, differ, missing, nil
}
