// Command bench measures what Weir costs on the Postgres path: the same work direct, through Weir in its forms, and
// through pgbouncer and haproxy, in one run, in turn, as ratios. `make bench` builds and runs it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

func main() {
	weir := flag.String("weir", "bin/weir", "the gateway's binary")
	guest := flag.String("guest", "sdk/c/examples/mask/mask.wasm", "the plugin that masks")
	step := flag.String("step", "sdk/c/examples/block/block.wasm", "the plugin that is asked about statements, three times in the way called steps")
	policy := flag.String("policy", "core/opa/bench/realistic.rego", "the guardrails; they may ask for 1,000 tables in data.house")
	rounds := flag.Int("rounds", 5, "alternating rounds of each measure")
	seconds := flag.Float64("seconds", 2, "of one pgbench run")
	out := flag.String("o", "", "also write the table to this file")
	only := flag.String("only", "", "measures to run, by comma: tps,bulk,connect,idle,disk")
	ways := flag.String("ways", "", "ways to measure, by comma; empty: all")
	modes := flag.String("modes", "simple,prepared", "pgbench's protocols, by comma")
	clients := flag.String("clients", "1,8,32,128", "numbers of pgbench's clients, by comma")
	profile := flag.String("cpuprofile", "", "keep a CPU profile of the guarded gateway under load in this file")
	profiled := flag.String("profiled", "bounded", "the way that -cpuprofile is taken of")
	work := flag.String("profiled-work", "tps", "what the way is doing then: tps, select or copy")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	b := &bench{weir: *weir, guest: *guest, step: *step, policy: *policy, rounds: *rounds, seconds: *seconds, profiled: *profiled, profiledWork: *work, modes: strings.Split(*modes, ",")}
	if *ways != "" {
		b.only = strings.Split(*ways, ",")
	}
	for _, n := range strings.Split(*clients, ",") {
		k, err := strconv.Atoi(n)
		if err != nil || k < 1 {
			fmt.Fprintf(os.Stderr, "bench: -clients: %q is no number of clients\n", n)
			os.Exit(2)
		}
		b.clients = append(b.clients, k)
	}
	for _, file := range []*string{&b.guest, &b.step} {
		var err error
		if *file, err = filepath.Abs(*file); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(2)
		}
	}
	if err := run(ctx, b, *out, *only, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, b *bench, out, only, profile string) error {
	dir, err := os.MkdirTemp("", "weir-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	b.dir = dir
	defer b.close()
	fmt.Fprintln(os.Stderr, "bench: starting PostgreSQL, Weir, pgbouncer and haproxy")
	if err := b.start(ctx); err != nil {
		return err
	}
	wants := func(what string) bool { return only == "" || strings.Contains(","+only+",", ","+what+",") }
	var report strings.Builder
	fmt.Fprintf(&report, "Taken on %s with %d processors (client, gateway and server share them), %s, %s; medians of %d alternating rounds.\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), b.versions, runtime.Version(), b.rounds)
	for _, m := range []struct {
		name string
		do   func(context.Context, *strings.Builder) error
	}{{"idle", b.idle}, {"disk", b.disk}, {"tps", b.tps}, {"bulk", b.bulk}, {"connect", b.connects}} {
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

Written by ` + "`make bench`" + `: ratios to a direct connection in the same run. What the ways are:
*pass* is Weir with no chain and nothing recorded. *guarded* has a chain and records nothing; *steps* has three more WASM
steps that are asked about each statement. *guarded* and all that follow have a Rego policy of realistic
size (six groups of rules over 1,000 tables of data; its verdicts are kept) and a WASM step written in C that masks two columns
where an answer has them; *metadata* records what was asked and how much came back,
under the promise *bounded*; the other two record every byte, under the promise that they are named after.

`
