// Command cluster runs Weir as a cluster on this machine: three NATS servers, two gateways, an archive worker with one
// that stands by, and a PostgreSQL behind them. It kills one of each under load, shows that the clients go on, and proves
// the archive. `make cluster` builds and runs it; README.md says how such a cluster is sized.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/weir-gateway/weir/examples/cluster/loopback"
)

func main() {
	weir := flag.String("weir", "", "the program weir; empty: it is built")
	clients := flag.Int("clients", 8, "how many clients there are")
	keep := flag.Bool("keep", false, "leave everything running until Ctrl-C")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *weir, *clients, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// limits of what may take long on a busy machine.
const (
	goesOn  = 60 * time.Second
	getsAll = 90 * time.Second
)

func run(ctx context.Context, out io.Writer, weir string, clients int, keep bool) (err error) {
	began := time.Now()
	dir, err := os.MkdirTemp("", "weir-cluster-")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n== three NATS servers, two gateways, two archive workers, one PostgreSQL\n  %s\n", dir)
	c, err := loopback.Start(ctx, loopback.Options{Dir: dir, Weir: weir, Log: out})
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, c.Close()); err == nil {
			err = os.RemoveAll(dir)
		}
	}()
	fmt.Fprintf(out, "  up in %.1f s; gateways on %s; %s works, %s stands by\n", time.Since(began).Seconds(), strings.Join(c.Listen, " and "), c.Workers[0].Name, c.Workers[1].Name)

	fmt.Fprintf(out, "\n== %d clients ask, and come again when they are thrown out\n", clients)
	load := c.Begin(clients, "demo")
	if _, err := goOn(ctx, load, 500); err != nil { // each gateway has loaded its grammar
		return err
	}
	before, answers, start := c.Processor(), load.Answers.Load(), time.Now()
	pause(ctx, 4*time.Second)
	tellLoad(out, c, load, before, answers, time.Since(start))

	for _, f := range []func(context.Context, io.Writer, *loopback.Cluster, *loopback.Load) error{killGateway, killNode, killWorker} {
		if err := f(ctx, out, c, load); err != nil {
			return err
		}
	}

	fmt.Fprintln(out, "\n== what there is at the end: weir verify, and the clients' own accounts")
	seen := load.End()
	report, found, err := archived(c, seen)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "  weir verify: %d sessions, %d blocks, %d records, all sealed, nothing changed, missing or cut\n", report.Sessions, report.Blocks, report.Records)
	fmt.Fprintf(out, "  all %d answers that clients saw are in it, byte for byte; all %d statements that ran are; %d denied ones did not run\n", found.Answers, found.Ran, found.Denied)
	fmt.Fprintf(out, "\nDone in %.1f s.\n", time.Since(began).Seconds())
	if keep {
		fmt.Fprintf(out, "It stays up until Ctrl-C. The archive is asked with:\n  weir sessions -c %s/archive-0.yaml\n", dir)
		<-ctx.Done()
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
