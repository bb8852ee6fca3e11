package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/weir-gateway/weir/examples/cluster/loopback"
)

// goOn waits until clients have had more answers.
func goOn(ctx context.Context, load *loopback.Load, more int64) (time.Duration, error) {
	began, from := time.Now(), load.Answers.Load()
	for load.Answers.Load() < from+more {
		if time.Since(began) > goesOn || ctx.Err() != nil {
			return 0, fmt.Errorf("the clients had %d answers in %v", load.Answers.Load()-from, time.Since(began).Round(time.Millisecond))
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began), nil
}

func killGateway(ctx context.Context, out io.Writer, c *loopback.Cluster, load *loopback.Load) error {
	fmt.Fprintln(out, "\n== kill -9 of a gateway")
	other := load.By(1)
	c.Gateways[0].Kill()
	took, err := goOn(ctx, load, 100)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "  its clients came to the other one, which has taken %d sessions since; 100 more answers within %.1f s\n", load.By(1)-other, took.Seconds())
	return again(out, c.Gateways[0])
}

func killNode(ctx context.Context, out io.Writer, c *loopback.Cluster, load *loopback.Load) error {
	fmt.Fprintln(out, "\n== kill -9 of a NATS server")
	c.Nodes[0].Kill()
	took, err := goOn(ctx, load, 100)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "  nobody noticed: the gateways' logs hold what two servers have not agreed on yet; 100 more answers within %.1f s\n", took.Seconds())
	return again(out, c.Nodes[0])
}

func killWorker(ctx context.Context, out io.Writer, c *loopback.Cluster, load *loopback.Load) error {
	fmt.Fprintln(out, "\n== kill -9 of the archive worker")
	began := time.Now()
	c.Workers[0].Kill()
	if err := c.Workers[1].Works(goesOn); err != nil {
		return err
	}
	took, err := goOn(ctx, load, 100)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "  the one that stood by works after %.1f s; 100 more answers within %.1f s\n", time.Since(began).Seconds()-took.Seconds(), took.Seconds())
	return again(out, c.Workers[0])
}

func again(out io.Writer, p *loopback.Process) error {
	began := time.Now()
	if err := p.Start(); err != nil {
		return err
	}
	if err := p.Ready(60 * time.Second); err != nil {
		return err
	}
	fmt.Fprintf(out, "  %s is back after %.1f s\n", p.Name, time.Since(began).Seconds())
	return nil
}

// archived waits until all that the clients saw is in the archive, and every session has its seal: what is on its way is not
// missed, for it is in a gateway's log or in JetStream.
func archived(c *loopback.Cluster, seen []loopback.Seen) (r loopback.Report, f *loopback.Finding, err error) {
	for end := time.Now().Add(getsAll); ; time.Sleep(200 * time.Millisecond) {
		if f, err = c.Check(seen); err == nil {
			if r, err = c.Verify(); err == nil && r.OK && len(r.Open) == 0 && len(f.Problems) == 0 {
				return r, f, nil
			}
		}
		switch {
		case time.Now().Before(end):
		case err != nil:
			return r, f, fmt.Errorf("after %v: %w", getsAll, err)
		case len(f.Problems) > 0:
			return r, f, fmt.Errorf("after %v the archive is not what the clients saw:\n%s", getsAll, strings.Join(f.Problems, "\n"))
		default:
			return r, f, fmt.Errorf("after %v weir verify says %+v", getsAll, r)
		}
	}
}

// tellLoad says what the load was, and what it cost.
func tellLoad(out io.Writer, c *loopback.Cluster, load *loopback.Load, before loopback.Cost, answers int64, took time.Duration) {
	n := load.Answers.Load() - answers
	fmt.Fprintf(out, "  %.0f answers a second, in %d sessions so far: %d on the first gateway, %d on the second\n", float64(n)/took.Seconds(), load.Sessions.Load(), load.By(0), load.By(1))
	now := c.Processor()
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(max(n, 1)) }
	fmt.Fprintf(out, "  processor time an answer: gateways %.0f µs, NATS servers together %.0f µs, archive %.0f µs\n",
		each(now.Gateways-before.Gateways), each(now.Nodes-before.Nodes), each(now.Workers-before.Workers))
}
