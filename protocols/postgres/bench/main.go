// Command bench measures what Weir costs on the Postgres path: the same work direct, through Weir in its forms, and
// through pgbouncer and haproxy, in one run, in turn, as ratios. `make bench` builds and runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"time"
)

func main() {
	weir := flag.String("weir", "bin/weir", "the gateway's binary")
	rounds := flag.Int("rounds", 5, "alternating rounds of each measure")
	seconds := flag.Float64("seconds", 2, "of one pgbench run")
	out := flag.String("o", "", "also write the table to this file")
	only := flag.String("only", "", "measures to run, by comma: tps,bulk,connect,idle")
	profile := flag.String("cpuprofile", "", "keep a CPU profile of the guarded gateway under load in this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *weir, *rounds, *seconds, *out, *only, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, weir string, rounds int, seconds float64, out, only, profile string) error {
	dir, err := os.MkdirTemp("", "weir-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	b := &bench{weir: weir, dir: dir, rounds: rounds, seconds: seconds}
	defer b.close()
	fmt.Fprintln(os.Stderr, "bench: starting PostgreSQL, Weir, pgbouncer and haproxy")
	if err := b.start(ctx); err != nil {
		return err
	}
	wants := func(what string) bool { return only == "" || strings.Contains(","+only+",", ","+what+",") }
	var report strings.Builder
	fmt.Fprintf(&report, "Taken on %s with %d processors (client, gateway and server share them), %s, %s; medians of %d alternating rounds.\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), b.versions, runtime.Version(), rounds)
	for _, m := range []struct {
		name string
		do   func(context.Context, *strings.Builder) error
	}{{"idle", b.idle}, {"tps", b.tps}, {"bulk", b.bulk}, {"connect", b.connects}} {
		if !wants(m.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "bench: measuring", m.name)
		if err := m.do(ctx, &report); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	if profile != "" {
		if err := b.profile(ctx, profile); err != nil {
			return err
		}
	}
	fmt.Print(report.String())
	if out == "" {
		return nil
	}
	notes := "" // what people wrote about the figures stays
	if old, err := os.ReadFile(out); err == nil {
		if i := strings.Index(string(old), "\n## Notes\n"); i >= 0 {
			notes = string(old)[i:]
		}
	}
	return os.WriteFile(out, []byte(header+report.String()+notes), 0o644)
}

const header = `# Benchmarks of the Postgres path

Written by ` + "`make bench`" + `: ratios to a direct connection in the same run. What the columns are:
*pass* is Weir with no chain and nothing recorded; *bounded* and *strict* are Weir with a Rego policy, a WASM masking
step and full recording, under that promise.

`
