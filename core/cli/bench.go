package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/gateway"
)

// Bounds of a measurement: it runs against somebody's target.
const (
	benchMostClients = 256
	benchMostTime    = time.Minute // of one round
	benchMostRounds  = 50
	benchMostAsked   = 1 << 20 // times that are kept of one round
)

// benchResult is what one way to a target gave with so many clients: the medians of its rounds.
type benchResult struct {
	Target   string  `json:"target"`
	Clients  int     `json:"clients"`
	Way      string  `json:"way"` // direct or weir
	Rate     float64 `json:"asked_per_second"`
	OfDirect float64 `json:"of_direct"` // the rate, with direct as 1
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
	Added    float64 `json:"added_p50_ms"` // to direct
}

func (a *app) bench() *cobra.Command {
	var path, tokenFile, output string
	var clients []int
	var rounds int
	var each time.Duration
	c := &cobra.Command{
		Use:   "bench TARGET",
		Short: "Measure what the gateway adds on the way to a target, beside a direct connection",
		Long: "Ask a target for next to nothing (of PostgreSQL a prepared select 1, of a host the command true), directly and through the running gateway, in turn, and\n" +
			"print both ways side by side. What comes through the gateway is judged and recorded as any session is, as yours. The\n" +
			"direct way signs in with the credential of the configuration: run it where the gateway runs.",
		Example: "  weir bench orders\n  weir bench orders --clients 1,8,32 --rounds 9 -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, n := range clients {
				if n < 1 || n > benchMostClients {
					return use(fmt.Errorf("--clients: %d is not from 1 to %d", n, benchMostClients))
				}
			}
			if rounds < 1 || rounds > benchMostRounds {
				return use(fmt.Errorf("--rounds: %d is not from 1 to %d", rounds, benchMostRounds))
			}
			if each < 10*time.Millisecond || each > benchMostTime {
				return use(fmt.Errorf("--time: %v is not from 10ms to %v", each, benchMostTime))
			}
			cfg, err := load(path)
			if err != nil {
				return err
			}
			ways, closeWays, err := a.waysTo(cmd.Context(), cfg, args[0], tokenFile)
			if err != nil {
				return err
			}
			defer closeWays()
			var all []benchResult
			for _, n := range clients {
				r, err := measureWays(cmd.Context(), ways, n, rounds, each)
				if err != nil {
					return unreachable(err)
				}
				for i := range r {
					r[i].Target = args[0]
				}
				all = append(all, r...)
			}
			if output == "json" {
				return a.printJSON(all)
			}
			rows := make([][]string, len(all))
			for i, r := range all {
				f := func(v float64, digits int) string { return strconv.FormatFloat(v, 'f', digits, 64) }
				rows[i] = []string{strconv.Itoa(r.Clients), r.Way, f(r.Rate, 0), f(r.OfDirect, 2), f(r.P50, 3), f(r.P99, 3), f(r.Added, 3)}
			}
			return a.table([]string{"CLIENTS", "WAY", "ASKED/S", "OF DIRECT", "P50 MS", "P99 MS", "ADDED MS"}, rows)
		},
	}
	configFlag(c, &path)
	tokenFlag(c, &tokenFile)
	outputFlag(c, &output)
	c.Flags().IntSliceVar(&clients, "clients", []int{1, 8}, "how many clients ask at a time; several `numbers` are measured one after the other")
	c.Flags().IntVar(&rounds, "rounds", 5, "alternating rounds, of which the medians count")
	c.Flags().DurationVar(&each, "time", time.Second, "`duration` of one round of one way")
	return c
}

// way is one way to a target.
type way struct {
	name string
	open func(ctx context.Context) (core.Probe, error)
}

// waysTo finds the ways to a target: the direct one, and the gateway's, as a run of whoever asks.
func (a *app) waysTo(ctx context.Context, cfg *config.Config, name, tokenFile string) ([]way, func(), error) {
	i := slices.IndexFunc(cfg.Targets, func(t config.Target) bool { return t.Name == name })
	if i < 0 {
		return nil, nil, use(knownTargets(cfg, []string{name}))
	}
	t := &cfg.Targets[i]
	var prober core.Prober
	for _, p := range a.Protocols {
		if p.Name() == t.Protocol {
			prober, _ = p.(core.Prober)
		}
	}
	if prober == nil {
		return nil, nil, use(fmt.Errorf("%s:%d: %s cannot be measured", cfg.File, cfg.Line(t.At("protocol")), t.Protocol))
	}
	token, err := tokenOf(ctx, tokenFile)
	if err != nil {
		return nil, nil, err
	}
	var who core.Identity
	if err := askGateway(ctx, cfg, token, http.MethodGet, "identity", nil, &who); err != nil {
		return nil, nil, err
	}
	var made gateway.NewRun
	if err := askGateway(ctx, cfg, token, http.MethodPost, "runs", map[string]any{"targets": []string{name}}, &made); err != nil {
		return nil, nil, err
	}
	if len(made.Targets) != 1 || len(made.Targets[0].Env) == 0 {
		return nil, nil, no(fmt.Errorf("you may not open %s: weir targets says why", name))
	}
	l := &loader{wiring: &wiring{Build: a.Build, log: slog.New(slog.NewTextHandler(io.Discard, nil))}, c: cfg}
	l.openVault()
	done := func() {
		for _, f := range l.closers {
			_ = f(ctx)
		}
	}
	noun, err := t.Core()
	if err != nil {
		l.fail(t.At("upstream"), "", err)
	} else if logins, ok := l.logins(ctx, t); ok {
		noun.Credential = logins.Resolve
	}
	if len(l.problems) > 0 {
		done()
		return nil, nil, use(l.problems)
	}
	at := made.Targets[0]
	return []way{
		{"direct", func(ctx context.Context) (core.Probe, error) { return prober.ProbeTarget(ctx, noun, who) }},
		{"weir", func(ctx context.Context) (core.Probe, error) {
			return prober.ProbeGateway(ctx, core.WayIn{Target: at.Name, Address: at.Address, HostKey: at.HostKey, Connect: at.Connect}, at.Env)
		}},
	}, done, nil
}

// measureWays has so many clients ask by each way in turn.
func measureWays(ctx context.Context, ways []way, clients, rounds int, each time.Duration) ([]benchResult, error) {
	probes := make([][]core.Probe, len(ways))
	defer func() {
		for _, list := range probes {
			for _, p := range list {
				_ = p.Close()
			}
		}
	}()
	for i, w := range ways {
		for range clients {
			p, err := w.open(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			probes[i] = append(probes[i], p)
		}
	}
	rates, p50s, p99s := make([][]float64, len(ways)), make([][]float64, len(ways)), make([][]float64, len(ways))
	for round := range rounds + 1 { // the first is for warmth
		for i, w := range ways {
			times, took, err := asked(ctx, probes[i], each)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			if round == 0 {
				continue
			}
			slices.Sort(times)
			ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
			rates[i] = append(rates[i], float64(len(times))/took.Seconds())
			p50s[i] = append(p50s[i], ms(times[len(times)/2]))
			p99s[i] = append(p99s[i], ms(times[len(times)*99/100]))
		}
	}
	out := make([]benchResult, len(ways))
	for i, w := range ways {
		out[i] = benchResult{Clients: clients, Way: w.name, Rate: median(rates[i]), P50: median(p50s[i]), P99: median(p99s[i])}
		out[i].OfDirect, out[i].Added = out[i].Rate/cmp.Or(out[0].Rate, 1), out[i].P50-out[0].P50
	}
	return out, nil
}

// asked has each probe ask until the time is over.
func asked(ctx context.Context, probes []core.Probe, each time.Duration) (times []time.Duration, took time.Duration, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	begun := time.Now()
	for _, p := range probes {
		wg.Go(func() {
			var own []time.Duration
			for len(own) < benchMostAsked/len(probes) {
				start := time.Now()
				if start.Sub(begun) >= each && len(own) > 0 {
					break
				}
				if e := p.Ask(ctx); e != nil {
					mu.Lock()
					err = errors.Join(err, e)
					mu.Unlock()
					return
				}
				own = append(own, time.Since(start))
			}
			mu.Lock()
			times = append(times, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	return times, time.Since(begun), err
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
