package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/wasm"
	"github.com/weir-gateway/weir/core/wasm/fetch"
)

// benched is what one kind of call costs.
type benched struct {
	Event    string  `json:"event"`
	NS       float64 `json:"ns"`        // a call
	NSRow    float64 `json:"ns_row"`    // 0 where there are none
	MBs      float64 `json:"mb_s"`      // of values
	NoOp     float64 `json:"no_op_ns"`  // the same call of a guest that does nothing
	Overhead float64 `json:"over_noop"` // how many times that
}

func (a *app) pluginBench() *cobra.Command {
	var output string
	var set []string
	lasting := duration(time.Second)
	c := &cobra.Command{
		Use:   "bench FILE|REF",
		Short: "Measure what a plugin costs: a command, a batch of rows",
		Long: "Ask a plugin about a command, and about batches of rows of eight columns (a number, an e-mail address, names, a date, a note),\n" +
			"as far as it subscribes to them, and a guest that does nothing about the same. What both pay is the gateway's share.\n" +
			"native:NAME is a plugin of the program that runs without a guest.",
		Example: "  weir plugin bench mask.wasm\n  weir plugin bench builtin:pii --time 3s -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := settingsOf(set)
			if err != nil {
				return use(err)
			}
			if lasting <= 0 {
				return use(errors.New("--time must be more than 0"))
			}
			g, err := a.open(cmd.Context(), fetch.Source{Ref: args[0]})
			if err != nil {
				return err
			}
			defer g.close()
			list, err := g.bench(cmd.Context(), config, time.Duration(lasting))
			if err != nil {
				return err
			}
			if output == "json" {
				return a.printJSON(list)
			}
			rows := make([][]string, len(list))
			for i, b := range list {
				row := "-"
				if b.NSRow > 0 {
					row = fmt.Sprintf("%.0f", b.NSRow)
				}
				rows[i] = []string{b.Event, fmt.Sprintf("%.0f", b.NS), row, fmt.Sprintf("%.0f", b.MBs), fmt.Sprintf("%.0f", b.NoOp), fmt.Sprintf("%.1fx", b.Overhead)}
			}
			return a.table([]string{"EVENT", "NS", "NS/ROW", "MB/S", "NO-OP NS", "OVER NO-OP"}, rows)
		},
	}
	c.Flags().StringArrayVar(&set, "set", nil, "a setting of the plugin's, as `KEY=VALUE`; VALUE is JSON, or a text")
	c.Flags().Var(&lasting, "time", "how long each measurement takes")
	outputFlag(c, &output)
	return c
}

// bench measures the guest and one that does nothing, in turns, so that both meet the same machine.
func (g *guest) bench(ctx context.Context, config map[string]any, lasting time.Duration) ([]benched, error) {
	p, err := g.load(ctx, config)
	if err != nil {
		return nil, err
	}
	defer func() { _ = p.Close(context.WithoutCancel(ctx)) }()
	m := p.Manifest()
	noop, err := g.host.Load(ctx, wasm.Config{Name: "no-op", Module: wasm.NoOp(&m)})
	if err != nil {
		return nil, no(err)
	}
	defer func() { _ = noop.Close(context.WithoutCancel(ctx)) }()
	s := &core.Session{ID: "bench", Protocol: "weir", Target: &core.Target{Name: "bench"}, Identity: core.Identity{Subject: "bench", Kind: "service"}}
	if sub := p.Subscription(); len(sub.Protocols) > 0 {
		s.Protocol = sub.Protocols[0]
	}
	defer p.Forget(s)
	var list []benched
	for _, w := range []workload{commandWork(s), rowsWork(s, 1), rowsWork(s, 100), rowsWork(s, 1000)} {
		if !p.Subscription().Kinds.Has(w.event.Kind) {
			continue
		}
		const turns = 4
		var mine, idle measure
		for range turns {
			if err := idle.run(ctx, noop, &w, lasting/turns/4); err != nil {
				return nil, err
			}
			if err := mine.run(ctx, p, &w, lasting/turns); err != nil {
				return nil, err
			}
		}
		b := benched{Event: w.name, NS: mine.best, NoOp: idle.best, Overhead: mine.best / idle.best, MBs: float64(w.bytes) / mine.best * 1e3}
		if w.rows > 0 {
			b.NSRow = b.NS / float64(w.rows)
		}
		list = append(list, b)
	}
	if len(list) == 0 {
		return nil, no(errors.New("plugin bench: it subscribes neither to commands nor to rows"))
	}
	return list, nil
}

// workload is one event that is asked about again and again; reset makes it what it was.
type workload struct {
	name  string
	event *core.Event
	rows  int
	bytes int
	reset func()
}

func commandWork(s *core.Session) workload {
	text := "SELECT o.id, o.total, c.email FROM sales.orders o JOIN sales.customers c ON c.id = o.customer WHERE o.day > $1 ORDER BY o.day LIMIT 100"
	e := &core.Event{Kind: core.KindCommand, Direction: core.FromClient, Session: s, Stage: "execute", Params: []core.Param{{Value: []byte("2024-05-06")}}, Exchange: &core.Exchange{Command: &core.Command{
		Action: "select", Text: text, Fingerprint: "bench", Effects: []core.Effect{core.EffectRead}, Status: core.StatusKnown,
		Resources: []core.Resource{{Kind: "table", Name: "sales.orders", Use: []string{"read"}, Columns: []string{"id", "total"}}, {Kind: "table", Name: "sales.customers", Use: []string{"read"}, Columns: []string{"email"}}},
	}}}
	return workload{name: "command", event: e, bytes: len(text), reset: func() {}}
}

func rowsWork(s *core.Session, n int) workload {
	columns := make([]core.Column, 8)
	for i, c := range [...][2]string{{"id", "int8"}, {"email", "text"}, {"first_name", "text"}, {"city", "varchar"}, {"born", "date"}, {"total", "numeric"}, {"state", "text"}, {"note", "text"}} {
		columns[i] = core.Column{Name: c[0], Type: c[1], Origin: &core.Origin{Table: "sales.customers", Column: c[0]}}
	}
	b := &core.Batch{Columns: columns, Watch: []int{0, 1, 2, 3, 4, 5, 6, 7}, Rows: n}
	for i := range n {
		for _, v := range [...]string{fmt.Sprint(i), fmt.Sprintf("user%d@example.com", i), "Ada", "London", "2024-05-06", "123.45", "active", "rang about the order, will call again"} {
			b.Cells = append(b.Cells, core.Cell{Off: int32(len(b.Data)), Len: int32(len(v))})
			b.Data = append(b.Data, v...)
		}
	}
	data := bytes.Clone(b.Data)
	name := fmt.Sprintf("%d rows", n)
	if n == 1 {
		name = "1 row"
	}
	return workload{
		name: name, rows: n, bytes: len(data),
		event: &core.Event{Kind: core.KindRows, Direction: core.FromUpstream, Session: s, Rows: b, Exchange: &core.Exchange{Command: &core.Command{Status: core.StatusKnown}, Columns: columns}},
		reset: func() {
			copy(b.Data, data)
			b.Patches, b.Edited = b.Patches[:0], false
		},
	}
}

// measure is the least that a call has cost, of several runs.
type measure struct{ best float64 }

func (m *measure) run(ctx context.Context, p core.Plugin, w *workload, lasting time.Duration) error {
	var spent time.Duration
	calls := 0
	for spent < lasting && ctx.Err() == nil {
		const some = 16
		for range some {
			w.reset()
			start := time.Now()
			_, err := p.Inspect(ctx, w.event)
			spent += time.Since(start)
			if err != nil {
				return no(fmt.Errorf("plugin bench: %s: %w", w.name, err))
			}
		}
		calls += some
	}
	if calls == 0 {
		return ctx.Err()
	}
	if ns := float64(spent.Nanoseconds()) / float64(calls); m.best == 0 || ns < m.best {
		m.best = ns
	}
	return ctx.Err()
}
