package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/replay"
)

func (a *app) find() *cobra.Command {
	var path, output string
	var when span
	var q index.Query
	c := &cobra.Command{
		Use:   "find [--resource NAME] [--use WAY]",
		Short: "Find who touched something last, with which command, and what came back",
		Long: "Find who touched something, the latest first: at most the last time of each session. A command that was refused touched\n" +
			"nothing. A name that a command gave without a schema stands for every schema's.",
		Example: `  weir find --resource public.orders --use write --limit 1     # who issued the final write, and what came back?
  weir find --resource customers --identity nightly-report -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := when.ask(&q); err != nil {
				return err
			}
			cfg, err := load(path)
			if err != nil {
				return err
			}
			list, err := a.finds(cmd.Context(), cfg, q)
			if err != nil {
				return coded(err)
			}
			if output == "json" {
				return a.printJSON(list)
			}
			for i := range list {
				a.printFind(&list[i])
			}
			return nil
		},
	}
	configFlag(c, &path)
	outputFlag(c, &output)
	f := c.Flags()
	touchFlags(c, &q)
	f.StringVar(&q.Identity, "identity", "", "only by this `subject`")
	f.StringVar(&q.Target, "target", "", "only at this `target`")
	f.StringVar(&q.Run, "run", "", "only of this `run`")
	when.flags(c)
	f.IntVar(&q.Limit, "limit", 10, "the latest `n` at most")
	return c
}

// found is a touch, its command, and what came back.
type found struct {
	index.Touch
	Text   string            `json:"text"`
	Params []json.RawMessage `json:"params,omitempty"`
	Rows   int64             `json:"rows"`
	Answer [][]*string       `json:"answer,omitempty"` // the first rows
	Result string            `json:"result"`
	// Ended is the record of the result; 0: other commands were sent before it came, so that it cannot be told from theirs.
	Ended uint64 `json:"ended"`
}

const shownRows = 20

func (a *app) finds(ctx context.Context, c *config.Config, q index.Query) ([]found, error) {
	x, err := openIndex(ctx, c, true)
	if err != nil {
		return nil, err
	}
	defer x.Close()
	touches, err := x.Touches(ctx, q)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(touches))
	for i := range touches {
		ids[i] = touches[i].Session
	}
	slices.Sort(ids)
	what := strings.TrimSpace(q.Resource + " " + q.Use)
	if err := a.reads(ctx, c, gateway.Reading{Sessions: slices.Compact(ids), How: "find", Query: what}); err != nil {
		return nil, err
	}
	store, err := a.openReadingOf(ctx, c)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	out := make([]found, len(touches))
	for i, t := range touches {
		out[i].Touch = t
		if err := a.comeBack(ctx, store, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// comeBack reads the command and its answer.
func (a *app) comeBack(ctx context.Context, store core.Store, f *found) error {
	var reader core.Reader
	var columns []core.Column
	seen := false
	for r, err := range replay.Records(ctx, store, f.Session) {
		if err != nil {
			return err
		}
		if r.Seq == 0 {
			reader = a.readerOf(r)
		}
		if r.Seq < f.Record {
			continue
		}
		var facts struct {
			Command struct {
				Text   string `json:"text"`
				Action string `json:"action"`
			} `json:"command"`
			Params  []json.RawMessage `json:"params"`
			Stage   string            `json:"stage"`
			Columns []core.Column     `json:"columns"`
			Rows    int64             `json:"rows"`
			Result  *core.Result      `json:"result"`
			Denied  *core.Denial      `json:"denied"`
		}
		if err := json.Unmarshal(r.Facts, &facts); err != nil {
			continue
		}
		switch {
		case r.Kind == core.KindCommand && !seen:
			seen = true
			f.Text, f.Params = facts.Command.Text, facts.Params
			if f.Text == "" {
				f.Text = facts.Command.Action
			}
		case r.Kind == core.KindCommand && facts.Stage == "" || r.Kind == core.KindClose:
			return nil
		case r.Kind == core.KindColumns:
			columns = facts.Columns
		case r.Kind == core.KindRows && facts.Denied == nil:
			f.Rows += facts.Rows
			if reader != nil && len(f.Answer) < shownRows {
				rows, _ := reader.ReadRows(columns, r.Wire) // what can be read
				f.Answer = append(f.Answer, rows[:min(len(rows), shownRows-len(f.Answer))]...)
			}
		case r.Kind == core.KindResult && facts.Result != nil && facts.Result.Status != "ready" && facts.Result.Status != "parameter":
			f.Result, f.Ended = strings.TrimSpace(facts.Result.Tag+" "+facts.Result.Code+" "+facts.Result.Message), r.Seq
			if f.Result == "" {
				f.Result = facts.Result.Status
			}
			if facts.Denied != nil {
				f.Result = "refused by rule " + facts.Denied.Rule
			}
			return nil
		}
	}
	return nil
}

func (a *app) printFind(f *found) {
	fmt.Fprintf(a.out, "%s  %s at %s: %s %s\n", f.Time.Local().Format(time.DateTime), printable(f.Identity), printable(f.Target), printable(f.Use), printable(f.Resource))
	fmt.Fprintf(a.out, "  session    %s, record %d\n", f.Session, f.Record)
	fmt.Fprintf(a.out, "  statement  %s\n", printable(strings.Join(strings.Fields(f.Text), " ")))
	if len(f.Params) > 0 {
		params := make([]string, len(f.Params))
		for i, p := range f.Params {
			params[i] = printable(string(p))
		}
		fmt.Fprintf(a.out, "  with       %s\n", strings.Join(params, ", "))
	}
	if f.Ended == 0 {
		fmt.Fprintf(a.out, "  came back  see weir show %s: its answer does not follow it directly\n", f.Session)
		return
	}
	fmt.Fprintf(a.out, "  came back  %s (record %d), %s\n", printable(f.Result), f.Ended, plural(int(f.Rows), "row"))
	for _, row := range f.Answer {
		cells := make([]string, len(row))
		for i, v := range row {
			cells[i] = "NULL"
			if v != nil {
				cells[i] = printable(*v)
			}
		}
		fmt.Fprintf(a.out, "             %s\n", strings.Join(cells, " | "))
	}
}
