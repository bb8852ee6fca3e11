package replay

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core"
)

// Bounds of a page: it is for a person in a browser, and the blocks hold the rest.
const (
	pageRecords = 20_000
	pageRows    = 500      // of one answer
	pageText    = 64 << 10 // characters of one text
)

//go:embed page.html
var pageSource string

var pageParts = template.Must(template.New("page").Parse(pageSource))

// Page writes a session as one page for a browser, which loads nothing from anywhere: a timeline with what was asked,
// decided and answered.
func Page(ctx context.Context, out io.Writer, store core.Store, id string, o Options) error {
	buf := bufio.NewWriter(out)
	p := page{w: buf, o: o, id: id}
	w := walker{store: store, id: id}
	err := w.all(ctx, false, p.record)
	if err == nil {
		err = p.end()
	}
	if s := w.dec.Seal(); err == nil {
		err = p.part("foot", map[string]any{"Seal": s, "Left": p.left, "ID": oneLine(id, 64)})
	}
	return errors.Join(err, buf.Flush())
}

type page struct {
	w       *bufio.Writer
	o       Options
	id      string
	begun   bool
	start   time.Time
	shown   int
	left    int // records that are not on the page
	columns []core.Column
	answer  *answered
}

// answered is the rows of one answer, as far as they are shown.
type answered struct {
	Head []string
	Rows [][]string
	More int64
}

type entry struct {
	Seq               uint64
	After, Who, Kind  string
	Text, Params      string
	Stage, Effects    string
	Decided, Denied   string
	Error, Incomplete string
}

func (p *page) part(name string, data any) error { return pageParts.ExecuteTemplate(p.w, name, data) }

func long(s string) string {
	if len(s) > pageText {
		return Neutral(s[:pageText]) + " …"
	}
	return Neutral(s)
}

// end closes the answer that is open.
func (p *page) end() error {
	a := p.answer
	p.answer = nil
	if a == nil || len(a.Rows) == 0 && a.More == 0 {
		return nil
	}
	return p.part("rows", a)
}

func (p *page) record(r *core.Record) error {
	f := parse(r)
	if !p.begun {
		p.begun, p.start = true, r.Time
		head := map[string]any{
			"ID": oneLine(p.id, 64), "Identity": oneLine(f.Identity.Subject, 200), "Issuer": oneLine(f.Identity.Issuer, 200),
			"Kind": oneLine(f.Identity.Kind, 40), "Groups": oneLine(strings.Join(f.Identity.Groups, ", "), 400), "Run": oneLine(f.Run, 100),
			"Target": oneLine(f.Target, 100), "Protocol": oneLine(f.Protocol, 40), "Client": oneLine(f.Client, 100), "User": oneLine(f.User, 100),
			"Gateway": oneLine(f.Gateway, 100), "Record": oneLine(f.Record, 40), "Promise": oneLine(string(f.Promise), 40),
			"Started": r.Time.UTC().Format(time.RFC3339Nano),
		}
		if err := p.part("head", head); err != nil {
			return err
		}
	}
	if p.shown >= pageRecords {
		p.left++
		return nil
	}
	switch {
	case r.Kind == core.KindColumns && f.Denied == nil:
		if err := p.end(); err != nil {
			return err
		}
		p.columns = f.Columns
		a := &answered{}
		for _, c := range f.Columns {
			a.Head = append(a.Head, oneLine(c.Name, maxCell))
		}
		p.answer = a
		if len(r.Decisions) == 0 {
			return nil
		}
	case r.Kind == core.KindRows && f.Denied == nil:
		p.rows(r, f.Rows)
		if len(r.Decisions) == 0 {
			return nil
		}
	case r.Kind == core.KindNotice && f.Denied == nil && len(r.Decisions) == 0 && f.Result != nil && (f.Result.Status == "ready" || f.Result.Status == "sync"):
		return nil
	default:
		if err := p.end(); err != nil {
			return err
		}
	}
	p.shown++
	return p.part("entry", p.entry(r, &f))
}

// rows takes in what the page shows of a batch.
func (p *page) rows(r *core.Record, n int64) {
	if p.answer == nil {
		p.answer = &answered{}
	}
	a := p.answer
	if p.o.Reader == nil || len(r.Wire) == 0 || len(a.Rows) >= pageRows {
		a.More += n
		return
	}
	rows, err := p.o.Reader.ReadRows(p.columns, r.Wire)
	if err != nil {
		a.More += n
		return
	}
	for i, row := range rows {
		if len(a.Rows) >= pageRows {
			a.More += int64(len(rows) - i)
			return
		}
		cells := make([]string, len(row))
		for k, v := range row {
			if cells[k] = "NULL"; v != nil {
				cells[k] = oneLine(*v, 400)
			}
		}
		a.Rows = append(a.Rows, cells)
	}
}

func (p *page) entry(r *core.Record, f *facts) entry {
	e := entry{
		Seq: r.Seq, After: "+" + r.Time.Sub(p.start).Round(time.Millisecond).String(), Who: r.Direction.String(), Kind: r.Kind.String(),
		Decided: oneLine(verdicts(r.Decisions, f.Denied), 2000),
	}
	if f.Denied != nil {
		e.Denied = oneLine(denial(f.Denied), 2000)
	}
	switch r.Kind {
	case core.KindOpen:
		e.Text = "the session is opened"
	case core.KindCommand:
		c := f.Command
		if c == nil {
			c = &commandFacts{Text: "(a command whose facts cannot be read)"}
		}
		e.Text, e.Stage, e.Effects = long(c.said()), oneLine(f.Stage, 40), oneLine(strings.Trim(c.effects(), "[] "), 200)
		if c.Status == core.StatusIncomplete {
			e.Incomplete = oneLine(c.Reason, 400)
		}
		for i, v := range f.Params {
			if i > 0 {
				e.Params += ", "
			}
			if e.Params += oneLine(string(v), 400); len(e.Params) > 4000 {
				e.Params += " …"
				break
			}
		}
	case core.KindColumns:
		e.Text = "columns"
	case core.KindRows:
		e.Text = count(f.Rows, "row")
	case core.KindBytes:
		e.Text = count(f.Bytes, "byte")
		if p.o.Reader != nil && len(r.Wire) > 0 && f.Denied == nil {
			e.Text = long(p.o.Reader.ReadText(r.Wire))
		}
	case core.KindResult, core.KindNotice:
		if f.Result != nil {
			e.Text = long(ended(f.Result))
			if f.Result.Status == "error" {
				e.Error = "error"
			}
		}
	case core.KindClose:
		e.Text = oneLine(f.End+": "+f.Reason, 400)
		if t := f.Totals; t != nil {
			e.Text += fmt.Sprintf(" (%s, %s, %d denied)", count(t.Commands, "command"), count(t.Rows, "row"), t.Denied)
		}
	default:
		e.Text = oneLine(f.Reason, 400)
	}
	return e
}
