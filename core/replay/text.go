package replay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-gateway/weir/core"
)

// Text plays a session as the client saw it: what it asked, the tables and texts that came back, and what was refused. A protocol that
// has ways of its own to show that is asked to.
func Text(ctx context.Context, out io.Writer, store core.Store, id string, o Options) error {
	p := player{ctx: ctx, w: bufio.NewWriter(out), o: o}
	if o.Player != nil {
		p.own = o.Player.Play(p.w, o.Playing)
	}
	w := walker{store: store, id: id}
	err := w.all(ctx, o.Follow, p.record)
	if p.own != nil {
		if closed := p.own.Close(); err == nil {
			err = closed
		}
	}
	return errors.Join(err, p.w.Flush())
}

type player struct {
	ctx     context.Context
	w       *bufio.Writer
	o       Options
	own     core.Playback // nil: the protocol has none
	last    time.Time
	columns []core.Column
	widths  []int // of the present table; nil: its head has not been written
}

const maxCell = 60 // characters of a value in a table

// record plays one record, in its time.
func (p *player) record(r *core.Record) error {
	if err := p.pause(r.Time); err != nil {
		return err
	}
	if p.own != nil {
		if done, err := p.own.Show(r); done || err != nil {
			return errors.Join(err, p.shown())
		}
	}
	f := parse(r)
	switch r.Kind {
	case core.KindOpen:
		fmt.Fprintf(p.w, "-- %s: %s at %s (%s)\n", r.Time.UTC().Format(time.RFC3339), oneLine(f.Identity.Subject, 100), oneLine(f.Target, 100), oneLine(f.Protocol, 40))
	case core.KindCommand:
		if f.Command != nil && f.Stage != "prepare" {
			fmt.Fprintf(p.w, "> %s\n", strings.ReplaceAll(strings.TrimRight(Neutral(f.Command.said()), "\n\t "), "\n", "\n  "))
		}
	case core.KindColumns:
		p.columns, p.widths = f.Columns, nil
	case core.KindRows:
		if f.Denied == nil {
			p.rows(r, f.Rows)
		}
	case core.KindBytes:
		if f.Denied == nil {
			p.bytes(r, f.Bytes)
		}
	case core.KindResult, core.KindNotice:
		if f.Result != nil && f.Denied == nil {
			p.result(f.Result)
		}
		if r.Kind == core.KindResult {
			p.columns, p.widths = nil, nil
		}
	case core.KindClose:
		fmt.Fprintf(p.w, "-- %s: %s: %s\n", r.Time.UTC().Format(time.RFC3339), oneLine(f.End, 40), oneLine(f.Reason, 200))
	default:
		fmt.Fprintf(p.w, "-- %s: %s\n", r.Kind, oneLine(f.Reason, 200))
	}
	if f.Denied != nil {
		text := "DENIED by " + oneLine(denial(f.Denied), 400)
		if p.o.Color {
			text = red + text + plain
		}
		fmt.Fprintln(p.w, text)
	}
	return p.shown()
}

// shown lets a person see at once what is played in its time.
func (p *player) shown() error {
	if p.o.Speed > 0 || p.o.Follow {
		return p.w.Flush()
	}
	return nil
}

// pause waits as long as it took then, or the part of it that the speed leaves.
func (p *player) pause(at time.Time) error {
	gap := at.Sub(p.last)
	first := p.last.IsZero()
	p.last = at
	if p.o.Speed <= 0 || first || gap <= 0 {
		return p.ctx.Err()
	}
	if p.o.MaxGap > 0 {
		gap = min(gap, p.o.MaxGap)
	}
	if err := p.w.Flush(); err != nil {
		return err
	}
	t := time.NewTimer(time.Duration(float64(gap) / p.o.Speed))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

// rows writes a batch as a table. Its columns are as wide as the first batch needs them.
func (p *player) rows(r *core.Record, n int64) {
	if p.o.Reader == nil || len(r.Wire) == 0 {
		fmt.Fprintf(p.w, "(%s)\n", count(n, "row"))
		return
	}
	rows, err := p.o.Reader.ReadRows(p.columns, r.Wire)
	if err != nil {
		fmt.Fprintf(p.w, "(%s, which cannot be shown: %s)\n", count(n, "row"), oneLine(err.Error(), 200))
		return
	}
	cells := make([][]string, len(rows))
	for i, row := range rows {
		cells[i] = make([]string, len(row))
		for k, v := range row {
			if v == nil {
				cells[i][k] = "NULL"
			} else {
				cells[i][k] = oneLine(*v, maxCell)
			}
		}
	}
	if p.widths == nil {
		head := make([]string, len(p.columns))
		p.widths = make([]int, len(p.columns))
		for i, c := range p.columns {
			head[i] = oneLine(c.Name, maxCell)
			p.widths[i] = utf8.RuneCountInString(head[i])
		}
		for _, row := range cells {
			for k, v := range row {
				if k < len(p.widths) {
					p.widths[k] = max(p.widths[k], utf8.RuneCountInString(v))
				}
			}
		}
		p.row(head)
		rule := make([]string, len(p.widths))
		for i, w := range p.widths {
			rule[i] = strings.Repeat("-", w+2)
		}
		fmt.Fprintln(p.w, strings.Join(rule, "+"))
	}
	for _, row := range cells {
		p.row(row)
	}
}

func (p *player) row(cells []string) {
	for i, v := range cells {
		if i > 0 {
			p.w.WriteString(" |")
		}
		p.w.WriteByte(' ')
		p.w.WriteString(v)
		if i < len(cells)-1 && i < len(p.widths) {
			p.w.WriteString(strings.Repeat(" ", max(0, p.widths[i]-utf8.RuneCountInString(v))))
		}
	}
	p.w.WriteByte('\n')
}

func (p *player) bytes(r *core.Record, n int64) {
	if p.o.Reader == nil || len(r.Wire) == 0 {
		fmt.Fprintf(p.w, "(%s)\n", count(n, "byte"))
		return
	}
	text := Neutral(p.o.Reader.ReadText(r.Wire)) // the reader neutralises too; this costs little
	p.w.WriteString(text)
	if !strings.HasSuffix(text, "\n") {
		p.w.WriteByte('\n')
	}
}

func (p *player) result(r *core.Result) {
	if r.Status == "ready" || r.Status == "parameter" {
		return
	}
	text := oneLine(ended(r), 400)
	if r.Status == "error" && p.o.Color {
		text = red + text + plain
	}
	fmt.Fprintln(p.w, text)
}
