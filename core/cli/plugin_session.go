package cli

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
	"github.com/weir-gateway/weir/core/replay"
)

// trySession is a recorded session that a plugin is tried on.
type trySession struct {
	config, archive, id string
	json                bool
}

// change is what a plugin would have done to one recorded event.
type change struct {
	Seq      uint64          `json:"seq"`
	Kind     string          `json:"kind"`
	Said     string          `json:"said,omitempty"` // the command that the event is or belongs to
	Deny     *core.Denial    `json:"deny,omitempty"`
	Hold     *core.Hold      `json:"hold,omitempty"`
	Values   int             `json:"values,omitempty"` // changed
	Examples []valueChange   `json:"examples,omitempty"`
	Findings []core.Decision `json:"findings,omitempty"`
}

type valueChange struct {
	Column string  `json:"column,omitempty"`
	Row    int     `json:"row"`
	Was    *string `json:"was"` // nil: NULL
	Now    *string `json:"now"`
}

// shownChanges are how many values of one event are shown.
const shownChanges = 3

// testSession loads the plugin as a gateway would, and passes the session's events through a chain of it alone.
func (a *app) testSession(ctx context.Context, g *guest, config map[string]any, t trySession) error {
	p, err := g.load(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close(context.WithoutCancel(ctx)) }()
	name := p.Manifest().Name
	steps, err := chain.Options{Log: slog.New(slog.DiscardHandler)}.New(chain.Step{Name: name, Plugin: p})
	if err != nil {
		return no(err)
	}
	r := &rerun{steps: steps}
	err = a.play(ctx, "plugin test", t.config, t.archive, t.id, func(ctx context.Context, store core.Store, o replay.Options) error {
		r.reader = o.Reader
		for rec, err := range replay.Records(ctx, store, t.id) {
			if err != nil {
				return err
			}
			if err := r.record(ctx, rec); err != nil {
				return no(fmt.Errorf("plugin test: %w", err))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if session := r.past.Session(); session != nil {
		steps.Forget(session)
	}
	if t.json {
		if r.changes == nil {
			r.changes = []change{}
		}
		return a.printJSON(r.changes)
	}
	a.rerun(r)
	return nil
}

// rerun asks a chain about the events of records.
type rerun struct {
	steps   *chain.Chain
	reader  core.Reader
	past    replay.Rerun
	changes []change
	events  int
	unread  int // events whose bytes were not recorded, or cannot be read
	took    time.Duration
}

func (r *rerun) record(ctx context.Context, rec *core.Record) error {
	e, past, err := r.past.Event(rec)
	if err != nil || e == nil {
		return err
	}
	switch rec.Kind {
	case core.KindColumns:
		for i := range e.Columns {
			e.Columns[i].Binary = false // rows are read as texts
		}
	case core.KindRows:
		if past.Denied != nil {
			return nil // they were not delivered
		}
		if e.Rows = r.rows(e.Exchange, rec); e.Rows == nil {
			r.unread++
			return nil
		}
	case core.KindBytes:
		if rec.Wire == nil {
			r.unread++
			return nil
		}
	case core.KindResult, core.KindNotice:
		if e.Result.Message != "" {
			e.Result.Texts = []core.Text{{Field: "message", Value: e.Result.Message}}
		}
	}
	return r.ask(ctx, e)
}

// rows makes a batch of recorded bytes, with every column in it. Nil when they were not kept.
func (r *rerun) rows(x *core.Exchange, rec *core.Record) *core.Batch {
	if r.reader == nil || x == nil || rec.Wire == nil {
		return nil
	}
	texts, err := r.reader.ReadRows(x.Columns, rec.Wire)
	if err != nil {
		return nil
	}
	b := &core.Batch{Columns: x.Columns, Watch: x.Plan.Watch, Rows: len(texts)}
	for _, row := range texts {
		for _, w := range b.Watch {
			switch {
			case w >= len(row):
				return nil
			case row[w] == nil:
				b.Cells = append(b.Cells, core.Cell{Len: -1})
			default:
				b.Cells = append(b.Cells, core.Cell{Off: int32(len(b.Data)), Len: int32(len(*row[w]))})
				b.Data = append(b.Data, *row[w]...)
			}
		}
	}
	return b
}

func (r *rerun) ask(ctx context.Context, e *core.Event) error {
	before := values(e)
	start := time.Now()
	v, err := r.steps.Inspect(ctx, e)
	r.took += time.Since(start)
	r.events++
	if err != nil {
		return err
	}
	c := change{Seq: e.Seq, Kind: e.Kind.String(), Deny: v.Deny, Hold: v.Hold}
	for _, d := range v.Decisions {
		if d.Action == "finding" {
			c.Findings = append(c.Findings, d)
		}
	}
	for i, now := range values(e) {
		if same(before[i].Now, now.Now) {
			continue
		}
		c.Values++
		if len(c.Examples) < shownChanges {
			c.Examples = append(c.Examples, valueChange{Column: now.Column, Row: now.Row, Was: before[i].Now, Now: now.Now})
		}
	}
	if c.Deny == nil && c.Hold == nil && c.Values == 0 && c.Findings == nil {
		return nil
	}
	if command := e.Command(); command != nil {
		c.Said = command.Text
	}
	r.changes = append(r.changes, c)
	return nil
}

// values are copies of what a step can change in an event.
func values(e *core.Event) (list []valueChange) {
	add := func(column string, row int, b []byte, ok bool) {
		v := valueChange{Column: column, Row: row}
		if ok {
			s := string(b)
			v.Now = &s
		}
		list = append(list, v)
	}
	switch {
	case e.Rows != nil:
		for i := range e.Rows.Cells {
			b, ok := e.Rows.Value(i)
			width := len(e.Rows.Watch)
			add(e.Rows.Columns[e.Rows.Watch[i%width]].Name, i/width, b, ok)
		}
	case e.Kind == core.KindBytes:
		add("", 0, e.Bytes, true)
	case e.Result != nil:
		for _, t := range e.Result.Texts {
			add(t.Field, 0, []byte(t.Value), true)
		}
	}
	return list
}

func same(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

// rerun shows a person what would have been different.
func (a *app) rerun(r *rerun) {
	show := func(s *string) string {
		if s == nil {
			return "NULL"
		}
		return fmt.Sprintf("%q", shorten(*s, 60))
	}
	denied, changed := 0, 0
	for _, c := range r.changes {
		text := ""
		switch {
		case c.Deny != nil:
			denied++
			text = "DENIED by rule " + c.Deny.Rule + ": " + c.Deny.Reason
		case c.Hold != nil:
			text = "held by rule " + c.Hold.Rule + ": " + c.Hold.Reason
		case c.Values > 0:
			changed += c.Values
			text = plural(c.Values, "value") + " changed"
		}
		for _, f := range c.Findings {
			if text != "" {
				text += "; "
			}
			text += "finding " + f.Rule + " " + f.Detail
		}
		fmt.Fprintf(a.out, "%6d  %-8s %s  %s\n", c.Seq, c.Kind, printable(text), printable(shorten(c.Said, 80)))
		for _, x := range c.Examples {
			fmt.Fprintf(a.out, "        %s, row %d: %s became %s\n", printable(x.Column), x.Row+1, show(x.Was), show(x.Now))
		}
	}
	fmt.Fprintf(a.out, "%s asked about, %d denied, %s changed", plural(r.events, "event"), denied, plural(changed, "value"))
	if r.unread > 0 {
		fmt.Fprintf(a.out, ", %d without recorded bytes", r.unread)
	}
	fmt.Fprintf(a.out, "; %v in the plugin\n", r.took.Round(time.Microsecond))
}

func shorten(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:n]) + "…"
}
