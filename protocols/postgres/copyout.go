package postgres

import (
	"context"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// copyBegins opens a COPY stream.
func (c *connection) copyBegins(ctx context.Context, frame, b []byte, head reply) error {
	a := &c.answer
	a.out = append(a.out, frame...)
	if frame[0] == 'G' || !c.wantsAnswer {
		return nil
	}
	x := head.exchange
	columns := c.copyColumns(ctx, head, b)
	x.Columns, x.Plan = columns, core.Plan{}
	e := &core.Event{Kind: core.KindColumns, Direction: core.FromUpstream, Exchange: x, Columns: x.Columns, Frame: copyFrame{c}}
	if d := c.say(ctx, e, len(a.out)); d != nil {
		a.out = a.out[:len(a.out)-len(frame)]
		return c.abandon(ctx, head, d)
	}
	head.planned = true
	c.queue.set(head)
	return nil
}

// copyFrame refuses a COPY that would have to be masked.
type copyFrame struct{ c *connection }

func (f copyFrame) Wire(e *core.Event, _ *core.Verdict) ([]byte, error) {
	if len(e.Exchange.Plan.Masks) > 0 {
		return nil, &core.Denial{Rule: "copy-masked", Reason: "a COPY of a column that is masked or cannot be told", Hint: "use SELECT, which gives the column masked, or COPY table (columns …) TO STDOUT without it"}
	}
	return f.c.answer.out[f.c.answer.kept:], nil
}

// copyColumns names the columns of a COPY TO STDOUT: by what the server said of the same query, or else by the
// statement's own list. Columns that neither tells may be anything.
func (c *connection) copyColumns(ctx context.Context, head reply, b []byte) (columns []core.Column) {
	cb := body{b: b}
	binary := cb.u8() == 1
	n := cb.u16()
	if head.stmt != nil {
		if shape, ok := head.stmt.getShape(); ok && len(shape) == n {
			columns = c.columns(ctx, shape, nil, head)
			for i := range columns {
				columns[i].Binary = binary
			}
			return columns
		}
	}
	var named []string
	if head.script != nil && head.at < len(head.script.Statements) && head.script.Statements[head.at].Copy != nil {
		named = head.script.Statements[head.at].Copy.Columns
	}
	columns = make([]core.Column, n)
	for i := range columns {
		columns[i] = core.Column{Name: "?column?", Type: "text", Binary: binary, Lineage: []core.Origin{sql.Anything}}
		if len(named) == n {
			columns[i].Name = named[i]
		}
	}
	return columns
}

// copyOut passes COPY data on.
func (c *connection) copyOut(ctx context.Context, frame, b []byte, head reply) error {
	a := &c.answer
	a.out = append(a.out, frame...)
	if !c.wantsAnswer {
		return nil
	}
	e := &core.Event{
		Kind: core.KindBytes, Direction: core.FromUpstream, Exchange: head.exchange, Bytes: a.out[len(a.out)-len(b):],
	}
	if d := c.say(ctx, e, len(a.out)); d != nil {
		a.out = a.out[:len(a.out)-len(frame)]
		return c.abandon(ctx, head, d)
	}
	return nil
}
