// Command torture runs a cluster under load and breaks it at random: kill -9 of gateways, NATS servers and archive
// workers, processes that hang (SIGSTOP), a disk that is full, a write that fails. Then it holds what clients saw, what the
// database ran and what is in the archive against each other, and damages copies of the archive, which has to be noticed.
// `make torture` builds and runs it; README.md says more.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	kills := flag.Int("kills", number("KILLS", 1000), "how many processes are killed at least (KILLS)")
	records := flag.Int("records", number("RECORDS", 0), "how many records there are to be at least (RECORDS)")
	clients := flag.Int("clients", 12, "how many clients there are at a time")
	within := flag.Duration("within", 0, "end after this time, however far it got; 0: no limit")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the faults' order")
	flips := flag.Bool("flips", false, "also flip bits in the files of a NATS server that is down")
	dir := flag.String("dir", "", "keep everything in this folder, which must not exist; empty: in a temporary one, removed when all is well")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	t := &torture{Kills: *kills, Records: *records, Clients: *clients, Within: *within, Seed: *seed, Flips: *flips, Dir: *dir, Out: os.Stdout}
	if err := t.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

func number(variable string, or int) int {
	if n, err := strconv.Atoi(os.Getenv(variable)); err == nil {
		return n
	}
	return or
}
