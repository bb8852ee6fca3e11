package postgres

import (
	"context"
	"slices"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// copyOut is a COPY TO STDOUT on its way. Its data passes the chain as rows, in one event for all that one read brings.
// Where no step wants cells, the messages go on as they came and are only counted; where one does, a row that has not
// come whole is kept back.
type copyOut struct {
	on     bool
	told   bool // what its columns are
	known  bool // how its rows stand in the data
	format copyFormat
	scan   copyScanner

	partial []byte // of a row that has not ended
	rest    int    // partial[:rest] has been scanned
	spans   []span // where the cells of the open batch stand
	values  []byte // what is in them; of data that is not known: all of it
	room    []byte
}

// copyBegins opens a COPY stream.
func (c *connection) copyBegins(ctx context.Context, frame, b []byte, head reply) error {
	a := &c.answer
	a.out = append(a.out, frame...)
	if frame[0] == 'G' || !c.wantsAnswer {
		return nil
	}
	x := head.exchange
	cp := &a.copy
	cp.on, cp.partial, cp.rest = true, cp.partial[:0], 0
	script, shape := copyScript(head)
	columns, told := c.copyColumns(ctx, head, script, shape, b)
	cp.told = told
	var of *sql.Copy
	if script != nil {
		of = script.Copy
	}
	cp.format, cp.scan, cp.known = newCopyFormat(of, b[0] == 1, columns)
	x.Columns, x.Plan = columns, core.Plan{}
	e := &core.Event{Kind: core.KindColumns, Direction: core.FromUpstream, Exchange: x, Columns: x.Columns, Frame: copyBegin{c}}
	if d := c.say(ctx, e, len(a.out)); d != nil {
		a.out = a.out[:len(a.out)-len(frame)]
		cp.on = false
		return c.abandon(ctx, head, d)
	}
	head.planned = true
	c.queue.set(head)
	return nil
}

// copyBegin refuses a COPY whose cells some step wants and that nobody can find.
type copyBegin struct{ c *connection }

func (f copyBegin) Wire(e *core.Event, _ *core.Verdict) ([]byte, error) {
	cp, p := &f.c.answer.copy, &e.Exchange.Plan
	binary := slices.ContainsFunc(e.Columns, func(col core.Column) bool { return col.Binary })
	switch {
	case len(p.Masks) == 0 && len(p.Watch) == 0:
	case !cp.known:
		return nil, &core.Denial{Rule: "copy-masked", Reason: "the data of this COPY cannot be read, and a column of it has to be looked at", Hint: "use SELECT, or one COPY … TO STDOUT by itself, in UTF8"}
	case !cp.told && (len(p.Masks) > 0 || binary):
		return nil, &core.Denial{Rule: "copy-masked", Reason: "a COPY whose columns cannot be told", Hint: "use SELECT, or COPY table (columns …) TO STDOUT as a statement by itself"}
	}
	return f.c.answer.out[f.c.answer.kept:], nil
}

// copyScript returns the statement that a COPY answers and what the server has said of its shape; nil where the name
// that was executed may have stood for another.
func copyScript(head reply) (*sql.Statement, *statement) {
	script, shape := head.script, head.stmt
	if head.portal != nil {
		s := head.portal.statement()
		if s == nil {
			return nil, nil
		}
		if script = s.script; shape != nil && shape.script != script {
			shape = nil
		}
	}
	if script == nil || head.at >= len(script.Statements) {
		return nil, nil
	}
	return &script.Statements[head.at], shape
}

// copyColumns names the columns of a COPY TO STDOUT: by what the server said of the same query, or else by the
// statement's own list. Columns that it does not tell may be anything.
func (c *connection) copyColumns(ctx context.Context, head reply, s *sql.Statement, asked *statement, b []byte) (columns []core.Column, told bool) {
	cb := body{b: b}
	binary := cb.u8() == 1
	n := cb.u16()
	if asked != nil {
		shape, ok := asked.getShape()
		if ok && len(shape) > n && c.catalog != nil && s.Copy.Table != "" && len(s.Copy.Columns) == 0 {
			shape = c.catalog.stored(ctx, shape)
		}
		if ok && len(shape) == n {
			columns = c.columns(ctx, shape, nil, head)
			for i := range columns {
				columns[i].Binary = binary
			}
			return columns, true
		}
	}
	var named []string
	if s != nil && s.Copy != nil {
		named = s.Copy.Columns
	}
	columns = make([]core.Column, n)
	for i := range columns {
		columns[i] = core.Column{Name: "?column?", Type: "text", Binary: binary, Lineage: []core.Origin{sql.Anything}}
		if len(named) == n {
			columns[i].Name = named[i]
		}
	}
	return columns, false
}

// copyData takes one message of COPY data into the open batch.
func (c *connection) copyData(frame []byte) error {
	a := &c.answer
	if !c.wantsAnswer {
		a.out = append(a.out, frame...)
		return nil
	}
	cp, bt := &a.copy, &a.batch
	if !cp.on {
		return violation("COPY data without a COPY")
	}
	if a.rows < 0 {
		head, _ := c.queue.peek()
		x := head.exchange
		a.rows = len(a.out)
		*bt = core.Batch{Columns: x.Columns, Watch: x.Plan.Watch, Cells: bt.Cells[:0], Patches: bt.Patches[:0]}
		cp.spans, cp.values = cp.spans[:0], cp.values[:0]
	}
	switch {
	case !cp.known:
		cp.values = append(cp.values, frame[headerSize:]...)
		a.out = append(a.out, frame...)
		return nil
	case len(bt.Watch) == 0:
		rows, err := cp.count(frame[headerSize:])
		bt.Rows += rows
		a.out = append(a.out, frame...)
		return err
	}
	var err error
	a.out, err = cp.take(a.out, frame, a.rows, bt, c.maxBody)
	return err
}

// count returns how many rows end in a piece of the data.
func (cp *copyOut) count(b []byte) (rows int, err error) {
	for len(b) > 0 {
		n, item, err := cp.scan.next(b)
		if err != nil {
			return rows, err
		}
		if item == copyRow {
			rows++
		}
		b = b[n:]
	}
	return rows, nil
}

// take appends to out a message with what the frame brings of whole rows, and their cells to the batch that begins at
// start. What is left of the frame waits for the rest of its row.
func (cp *copyOut) take(out, frame []byte, start int, bt *core.Batch, limit int64) ([]byte, error) {
	data, at := frame[headerSize:], 0
	if len(cp.partial) > 0 {
		at = len(cp.partial)
		cp.partial = append(cp.partial, data...)
		data = cp.partial
	}
	whole := 0
	for at < len(data) {
		n, item, err := cp.scan.next(data[at:])
		if err != nil {
			return out, err
		}
		at += n
		if item == copyNothing {
			break
		}
		row := data[whole:at]
		switch item {
		case copyRow:
			ok := false
			base := len(out) - start + headerSize + whole
			if cp.values, bt.Cells, cp.spans, ok = cp.format.cells(row, base, bt.Watch, cp.values, bt.Cells, cp.spans); !ok {
				return out, violation("a row with another number of columns than announced")
			}
			bt.Rows++
		case copyHeader:
			if err := cp.header(row, bt.Columns); err != nil {
				return out, err
			}
		}
		whole = at
	}
	switch {
	case whole == len(data) && len(cp.partial) == 0: // whole rows, as PostgreSQL sends them
		return append(out, frame...), nil
	case whole > 0:
		out = appendFrame(out, 'd', data[:whole])
	}
	if cp.partial = append(cp.partial[:0], data[whole:]...); int64(len(cp.partial)) > limit {
		return out, &frameError{codeProgramLimitExceeded, "a row of a COPY is longer than max_frame allows"}
	}
	if len(cp.partial) == 0 && cap(cp.partial) > largeBuffer {
		cp.partial = nil
	}
	return out, nil
}

// header holds the line of names against the names that the server said before: a row in its place would go unread.
func (cp *copyOut) header(line []byte, columns []core.Column) error {
	if cp.format.kind == 'b' || !cp.told {
		return nil
	}
	names, ok := cp.format.names(line)
	for i := 0; ok && i < len(names); i++ {
		ok = names[i] == columns[i].Name
	}
	if !ok {
		return violation("a COPY whose line of names has other names than the columns")
	}
	return nil
}

// copyEnds takes in that the data is complete.
func (cp *copyOut) ends() error {
	on := cp.on
	cp.on = false
	if on && cp.known && (len(cp.partial) > 0 || cp.scan.inside()) {
		return violation("COPY data that ends inside a row")
	}
	return nil
}

// closeCopy puts what one read has brought of a COPY through the chain.
func (c *connection) closeCopy(ctx context.Context) error {
	a := &c.answer
	cp, bt, start := &a.copy, &a.batch, a.rows
	if start == len(a.out) { // a piece of a row
		a.rows = -1
		return nil
	}
	head, _ := c.queue.peek()
	e := &core.Event{Kind: core.KindRows, Direction: core.FromUpstream, Exchange: head.exchange, Rows: bt, Frame: copyRows{c}}
	switch {
	case !cp.known:
		e.Kind, e.Rows, e.Bytes = core.KindBytes, nil, cp.values
	case len(bt.Watch) > 0:
		bt.Data = cp.values
	default:
		bt.Data = a.out[start:]
	}
	d := c.say(ctx, e, 0)
	a.rows, bt.Data = -1, nil
	if cap(cp.values) > 2*largeBuffer {
		cp.values, cp.room = nil, nil
	}
	if d != nil {
		a.out = a.out[:start]
		cp.on = false
		return c.abandon(ctx, head, d)
	}
	return nil
}

// copyRows gives the messages of a batch after the steps have changed its cells, and puts them into out.
type copyRows struct{ c *connection }

func (f copyRows) Wire(e *core.Event, v *core.Verdict) ([]byte, error) {
	a := &f.c.answer
	cp := &a.copy
	switch {
	case e.Kind == core.KindBytes && v.Changed:
		a.out = appendFrame(a.out[:a.rows], 'd', e.Bytes)
	case e.Kind == core.KindRows && len(a.batch.Watch) > 0 && (a.batch.Edited || len(a.batch.Patches) > 0):
		a.scratch, cp.room = cp.format.rebuild(a.scratch[:0], a.out[a.rows:], &a.batch, cp.spans, cp.room)
		a.rewritten()
	}
	return a.out[a.kept:], nil
}
