// Command bench measures what Weir costs on the SSH path: the same work direct, through the least that an SSH proxy can be, and
// through Weir, in one run, in turn, as ratios. `make bench-ssh` builds and runs it.
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
	b := &bench{}
	flag.StringVar(&b.weir, "weir", "bin/weir", "the gateway's binary")
	flag.IntVar(&b.rounds, "rounds", 5, "alternating rounds of each measure")
	flag.Int64Var(&b.megabytes, "megabytes", 1024, "of the file that is copied")
	flag.IntVar(&b.keys, "keys", 300, "keystrokes of a round")
	flag.StringVar(&b.profile, "cpuprofile", "", "keep a CPU profile of the gateway at record: metadata, while it is copied up, in this file")
	out := flag.String("o", "", "also write the table to this file")
	leg := flag.String("leg", "", "be the SSH proxy to this address: what the bench starts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := error(nil)
	if *leg != "" {
		err = serveLeg(ctx, *leg, os.Getenv("BENCH_USER"), []byte(os.Getenv("BENCH_KEY")))
	} else {
		err = b.run(ctx, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context, out string) (err error) {
	defer b.close()
	if err := b.start(ctx); err != nil {
		return err
	}
	var report strings.Builder
	fmt.Fprintf(&report, "Taken on %s with %d processors (client, gateway and server share them), %s, %s, load average %s at the beginning;\n"+
		"a file of %d MB, medians of %d alternating rounds, by `make bench-ssh MEGABYTES=%d ROUNDS=%d`.\n",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), b.version, runtime.Version(), load(), b.megabytes, b.rounds, b.megabytes, b.rounds)
	if err := b.copies(ctx, &report); err != nil {
		return err
	}
	if err := b.keystrokes(ctx, &report); err != nil {
		return err
	}
	fmt.Fprintf(&report, "\nLoad average at the end: %s.\n", load())
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

// load is how busy the machine is, which bears on every figure.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(b)); err == nil && len(f) > 3 {
		return strings.Join(f[:3], " ")
	}
	return "unknown"
}

const header = `# Benchmarks of the SSH path

Written by ` + "`make bench-ssh`" + `. What the ways are: *direct* is OpenSSH's scp to sshd. *leg* goes through the least that a proxy
can be that ends SSH on both sides: it is made with the same library and the same algorithms as Weir, pumps channels, and neither
looks at anything nor records it. So it is what the second leg of SSH costs by itself, and what Weir is held against. *metadata* and *full* are Weir
with that ` + "`record`" + ` and a policy that allows everything.

`
