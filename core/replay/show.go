package replay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// Show writes a session as a timeline, a line for what happened: its number, when, who, what was said, what the
// steps decided, and how it ended. Denied commands say so in capitals.
func Show(ctx context.Context, out io.Writer, store core.Store, id string, o Options) error {
	buf := bufio.NewWriter(out)
	s := show{w: buf, o: o, width: o.Width}
	if s.width <= 0 {
		s.width = 100
	}
	w := walker{store: store, id: id}
	err := w.all(ctx, o.Follow, func(r *core.Record) error {
		s.record(r)
		if o.Follow {
			return buf.Flush()
		}
		return nil
	})
	if err == nil {
		s.rows()
		s.end(id, w.dec.Seal())
	}
	return errors.Join(err, buf.Flush())
}

type show struct {
	w     *bufio.Writer
	o     Options
	width int
	start time.Time

	// an answer's rows are gathered until something else comes
	gathered, batches int64
	to                uint64
	at                time.Time
}

const (
	red   = "\x1b[31m"
	plain = "\x1b[0m"
)

func (s *show) paint(text string) string {
	if !s.o.Color {
		return text
	}
	return red + text + plain
}

func (s *show) line(seq uint64, at time.Time, who, text string) {
	fmt.Fprintf(s.w, "%6d  %11s  %-8s  %s\n", seq, "+"+at.Sub(s.start).Round(time.Millisecond).String(), who, text)
}

// rows writes the rows gathered, and begins anew.
func (s *show) rows() {
	if s.batches == 0 {
		return
	}
	s.line(s.to, s.at, "upstream", "  "+count(s.gathered, "row"))
	s.gathered, s.batches = 0, 0
}

func (s *show) record(r *core.Record) {
	f := parse(r)
	if s.start.IsZero() {
		s.start = r.Time
	}
	if r.Kind == core.KindRows && f.Denied == nil {
		s.gathered += f.Rows
		s.batches++
		s.to, s.at = r.Seq, r.Time
		return
	}
	s.rows()
	who := r.Direction.String()
	decided := verdicts(r.Decisions, f.Denied)
	switch r.Kind {
	case core.KindOpen:
		s.open(r, &f)
		if f.Denied != nil {
			s.line(r.Seq, r.Time, who, s.paint("REFUSED")+" "+oneLine(denial(f.Denied), 4*s.width))
		} else {
			s.line(r.Seq, r.Time, who, "open"+suffix(decided, s.width))
		}
		return
	case core.KindCommand:
		s.command(r, &f, decided)
		return
	}
	if r.Kind == core.KindNotice && f.Denied == nil && len(r.Decisions) == 0 && f.Result != nil && (f.Result.Status == "ready" || f.Result.Status == "sync") {
		return // the protocol's own to and fro: it is in the record and in `replay --format json`, and tells a reader nothing
	}
	var text string
	switch r.Kind {
	case core.KindColumns:
		names := make([]string, len(f.Columns))
		for i, c := range f.Columns {
			names[i] = c.Name
		}
		text = "  columns " + oneLine(strings.Join(names, ", "), s.width)
	case core.KindRows:
		text = "  " + count(f.Rows, "row")
	case core.KindBytes:
		text = "  " + count(f.Bytes, "byte")
	case core.KindResult, core.KindNotice:
		if f.Result == nil {
			f.Result = &core.Result{Status: r.Kind.String()}
		}
		text = oneLine(ended(f.Result), 2*s.width)
		if f.Result.Status == "error" {
			text = s.paint(text)
		}
		text = "  " + text
		if n := f.Result.Rows; n > 0 && !strings.Contains(f.Result.Tag, fmt.Sprint(n)) {
			text += ", " + count(n, "row")
		}
	case core.KindClose:
		text = "end " + oneLine(f.End+": "+f.Reason, s.width)
		if t := f.Totals; t != nil {
			text += fmt.Sprintf(" (%s, %s, %d denied)", count(t.Commands, "command"), count(t.Rows, "row"), t.Denied)
		}
	default:
		text = r.Kind.String() + " " + oneLine(f.Reason, s.width)
	}
	if f.Denied != nil {
		text += "  " + s.paint("DENIED") + " " + oneLine(denial(f.Denied), 4*s.width)
	}
	s.line(r.Seq, r.Time, who, text+suffix(decided, s.width))
}

func suffix(decided string, width int) string {
	if decided == "" {
		return ""
	}
	return "  {" + oneLine(decided, 2*width) + "}"
}

func (s *show) command(r *core.Record, f *facts, decided string) {
	c := f.Command
	if c == nil {
		c = &commandFacts{Text: "(a command whose facts cannot be read)"}
	}
	text := c.effects() + oneLine(c.said(), s.width)
	if f.Stage != "" && f.Stage != "execute" {
		text = f.Stage + " " + text
	}
	if n := len(f.Params); n > 0 {
		values := make([]string, n)
		for i, p := range f.Params {
			values[i] = string(p)
		}
		text += "  ← " + oneLine(strings.Join(values, ", "), s.width)
	}
	if f.Denied != nil {
		text = s.paint("DENIED") + " " + text
	}
	s.line(r.Seq, r.Time, r.Direction.String(), text+suffix(decided, s.width))
	if f.Denied != nil {
		fmt.Fprintf(s.w, "%31s%s\n", "", s.paint("by "+oneLine(denial(f.Denied), 4*s.width)))
	} else if c.Status == core.StatusIncomplete && c.Reason != "" {
		fmt.Fprintf(s.w, "%31sfacts incomplete: %s\n", "", oneLine(c.Reason, s.width))
	}
}

func (s *show) open(r *core.Record, f *facts) {
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(s.w, "%-9s %s\n", name, oneLine(value, 2*s.width))
		}
	}
	field("session", f.Session)
	who := f.Identity.Subject
	if f.Identity.Kind != "" {
		who += " (" + f.Identity.Kind + ")"
	}
	if len(f.Identity.Groups) > 0 {
		who += ", groups " + strings.Join(f.Identity.Groups, ", ")
	}
	field("identity", who)
	field("issuer", f.Identity.Issuer)
	field("run", f.Run)
	field("target", f.Target+" ("+f.Protocol+")")
	client := f.Client
	if f.User != "" {
		client += " as " + f.User
	}
	if f.TLS {
		client += ", TLS"
	}
	field("client", client)
	field("gateway", f.Gateway)
	field("recorded", f.Record+", promise "+string(f.Promise))
	field("started", r.Time.UTC().Format(time.RFC3339Nano))
	s.w.WriteByte('\n')
}

func (s *show) end(id string, seal *ledger.Seal) {
	if seal == nil {
		fmt.Fprintf(s.w, "\nsession %s is open: it has no seal yet\n", oneLine(id, 64))
		return
	}
	fmt.Fprintf(s.w, "\nsealed %s as %s: %s in %s\n", seal.Time.UTC().Format(time.RFC3339Nano), seal.End,
		count(int64(seal.Records), "record"), count(int64(seal.Blocks), "block"))
}
