package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/reactor"
)

// answerState belongs to the goroutine that reads the upstream.
type answerState struct {
	out     []byte // for the client
	kept    int    // out[kept:] has not been recorded yet
	settle  core.Mark
	batch   core.Batch
	rows    int           // where the open batch of rows starts in out; -1: none is open
	copy    copyOut       // the COPY TO STDOUT under way
	swallow bool          // an answer was refused half-way: nothing more for the client until ReadyForQuery
	cut     chan struct{} // closed when the cancel request for it has been answered
	ended   bool          // the upstream has said why it ends the session
	scratch []byte
	size    int    // bytes of the last read, and what was left of those before
	pieces  int    // reads of the present answer that were as large as a piece of a long one
	need    int    // bytes that the next message needs; 0: not known
	changed bool   // DDL has run and is not committed, as far as is known
	rewrite func() // rebuilds the present event in out after its texts have changed
	told    told
	event   core.Event  // the one that is being checked
	result  core.Result // and its result
	tag     string      // of the last result
}

// made returns an event that is good until the next one of the upstream's side: each would be allocated else.
func (a *answerState) made(e core.Event) *core.Event {
	a.event = e
	return &a.event
}

// readAnswers reads once what the upstream has sent, and deals with it.
func (c *connection) readAnswers(ctx context.Context) reactor.Next {
	a := &c.answer
	if !c.server.paused {
		if err := c.server.fill(a.need); err != nil {
			if errors.Is(err, reactor.ErrAgain) {
				return reactor.Again
			}
			c.upstreamGone(err)
			return reactor.Over
		}
		a.size = c.server.w - c.server.r
		if err := c.deliver(ctx); err != nil {
			c.fail(err)
			return reactor.Over
		}
	}
	ok, err := c.settled(ctx, &c.server, a.settle)
	if c.server.paused = err == nil && !ok; c.server.paused {
		return reactor.Paused
	}
	if err == nil {
		err = c.forward(ctx)
	}
	if err != nil {
		c.fail(err)
		return reactor.Over
	}
	c.pace(a.size)
	return reactor.Again
}

// A server sends a long answer in pieces of 8 KiB; taking each as it comes costs more wake-ups than work.
const (
	piece     = 8 << 10 // bytes of a read that may be a piece of a long answer
	manyReads = 3       // such reads after which an answer is a long one
)

// pace reads a long answer in large pieces.
func (c *connection) pace(size int) {
	a := &c.answer
	conn, ok := c.server.conn.(*reactor.Conn)
	switch {
	case !ok:
	case c.queue.empty():
		if a.pieces >= manyReads {
			conn.Bulk(false)
		}
		a.pieces = 0
	case size < piece && a.pieces < manyReads:
		a.pieces = 0
	default:
		if a.pieces++; a.pieces >= manyReads {
			conn.Bulk(true)
		}
	}
}

func (c *connection) upstreamGone(err error) {
	c.deaf = !errors.Is(err, os.ErrDeadlineExceeded)
	if c.leaving.Load() {
		c.stop(core.EndClosed, "the client said goodbye", nil)
		return
	}
	if !c.over.Load() && !c.answer.ended {
		c.farewell(codeConnectionFailure, "the target closed the connection")
	}
	if hungUp(err) {
		c.stop(core.EndClosed, "the upstream hung up", nil)
		return
	}
	c.stop(core.EndError, "the upstream's connection failed", err)
}

// deliver deals with every whole message that has been read. What is left of them is in out.
func (c *connection) deliver(ctx context.Context) error {
	a, l := &c.answer, &c.server
	a.out, a.kept, a.settle, a.need = a.out[:0], 0, 0, 0
	for {
		size, more, err := backend.next(l.in[l.r:l.w], c.maxBody)
		if err != nil {
			return err
		}
		if size == 0 {
			a.need = more
			break
		}
		frame := l.in[l.r : l.r+size]
		l.r += size
		if frame[0] != 'D' && frame[0] != 'd' {
			if err := c.closeRows(ctx); err != nil {
				return err
			}
		} else if size > largeBuffer && len(a.out) == 0 && l.detach() { // a giant row is not kept twice
			a.out = frame[:0]
		}
		if err := c.frame(ctx, frame); err != nil {
			return err
		}
	}
	if err := c.closeRows(ctx); err != nil {
		return err
	}
	if len(a.out) > a.kept && c.wantsAnswer {
		if d := c.say(ctx, &core.Event{Kind: core.KindNotice, Direction: core.FromUpstream, Result: &core.Result{Status: "ready"}}, len(a.out)); d != nil {
			return d
		}
	}
	return nil
}

// forward sends the client in one write what deliver has left.
func (c *connection) forward(ctx context.Context) error {
	if c.queue.empty() {
		c.deadline.clear()
	}
	if err := c.client.write(ctx, c.answer.out); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	if c.request.draining.Load() && c.quiet() {
		c.drained()
	}
	return nil
}

// say checks an event of the upstream's side, whose bytes are out[kept:end].
func (c *connection) say(ctx context.Context, e *core.Event, end int) *core.Denial {
	a := &c.answer
	if e.Frame == nil {
		e.Wire = a.out[a.kept:end]
	}
	v := c.session.Check(ctx, e)
	a.settle = max(a.settle, v.Mark)
	if v.Deny == nil {
		a.kept = len(a.out)
	}
	return v.Deny
}

// Wire gives the bytes of an answer after the chain has changed it, and puts them into out.
func (c *connection) Wire(e *core.Event, v *core.Verdict) ([]byte, error) {
	a := &c.answer
	switch {
	case e.Kind == core.KindRows && len(a.batch.Patches) > 0:
		a.scratch = rebuild(a.scratch[:0], &a.batch)
		a.rewritten()
	case e.Result != nil && v.Changed && a.rewrite != nil:
		a.rewrite()
		for _, t := range e.Result.Texts {
			if t.Field == "M" {
				e.Result.Message = t.Value
			}
		}
	}
	return a.out[a.kept:], nil
}

// rewritten puts what scratch holds in the place of the open batch. A giant row is not copied, and leaves nothing behind.
func (a *answerState) rewritten() {
	if a.rows == 0 && len(a.scratch) > largeBuffer {
		a.out, a.scratch = a.scratch, nil
		return
	}
	a.out = append(a.out[:a.rows], a.scratch...)
	if cap(a.scratch) > 2*largeBuffer {
		a.scratch = nil
	}
}

// violation is what an upstream does that the protocol does not allow: the stream can no longer be followed.
func violation(what string) error {
	return malformed("the upstream broke the protocol: %s", what)
}

// frame deals with one message of the upstream.
func (c *connection) frame(ctx context.Context, frame []byte) error {
	a := &c.answer
	typ, b := frame[0], frame[headerSize:]
	if a.rows >= 0 && (typ == 'd') == a.copy.on { // the usual case in a long answer: one more row
		if a.copy.on {
			return c.copyData(frame)
		}
		return c.addRow(frame)
	}
	if a.copy.on && strings.IndexByte("dcNSA", typ) < 0 {
		a.copy.on = false // it has failed
	}
	head, owed := c.queue.peek()
	if a.swallow && typ != 'Z' && typ != 'S' && typ != 'A' {
		if typ == 'G' { // the upstream waits for data that the client will not send
			_ = c.server.write(ctx, appendFrame(nil, 'f', []byte("refused by Weir\x00")))
		}
		return nil
	}
	switch typ {
	case 'N', 'S', 'A': // these come at any time
		return c.beside(ctx, typ, frame, b)
	case 'E':
		return c.errorResponse(ctx, frame, b, head, owed)
	}
	if !owed {
		return violation("an answer that nobody asked for")
	}
	if head.refusal != nil && typ != 'Z' {
		return violation("what cannot succeed has succeeded")
	}
	expect := func(kinds string) error {
		if strings.IndexByte(kinds, head.kind) < 0 {
			return violation("an answer out of turn")
		}
		return nil
	}
	switch typ {
	case '1':
		if err := expect("P"); err != nil {
			return err
		}
		c.queue.pop()
		if head.own {
			return nil
		}
		c.names.confirm(head.stmt)
	case '2':
		if err := expect("B"); err != nil {
			return err
		}
		head.portal.bound(&c.names)
		c.queue.pop()
	case '3':
		if err := expect("C"); err != nil {
			return err
		}
		if head.stmt != nil {
			c.names.forget(head.closing, []*statement{head.stmt})
		}
		c.queue.pop()
		if head.own {
			return nil
		}
	case 't':
		if err := expect("D"); err != nil {
			return err
		}
		if head.stmt != nil {
			head.stmt.setParams(b[2:])
		}
		if head.own {
			return nil
		}
	case 'n':
		if err := expect("D"); err != nil {
			return err
		}
		c.described(head, nil)
		c.queue.pop()
		if head.own {
			head.stmt.answered()
			return nil
		}
	case 'T':
		if err := expect("DQ"); err != nil {
			return err
		}
		return c.rowDescription(ctx, frame, b, head)
	case 'D':
		if err := expect("EQ"); err != nil {
			return err
		}
		return c.dataRow(ctx, frame, head)
	case 'C', 'I', 's':
		if err := expect("EQ"); err != nil {
			return err
		}
		return c.complete(ctx, typ, frame, b, head)
	case 'H', 'G':
		if err := expect("EQ"); err != nil {
			return err
		}
		return c.copyBegins(ctx, frame, b, head)
	case 'd':
		if err := expect("EQ"); err != nil {
			return err
		}
		return c.copyData(frame)
	case 'c':
		if err := expect("EQ"); err != nil {
			return err
		}
		if err := a.copy.ends(); err != nil {
			return err
		}
	case 'V':
		if err := expect("F"); err != nil {
			return err
		}
		return c.functionResult(ctx, frame, b, head)
	case 'W':
		return violation("a replication stream")
	case 'Z':
		if err := expect("SQF"); err != nil {
			return err
		}
		c.queue.pop()
		if head.own {
			return nil
		}
		a.swallow = false
		if a.cut != nil { // from here on a cancel would be a no-op: the server is idle (manual, "Canceling Requests")
			core.WillWait(ctx)
			<-a.cut
			a.cut = nil
		}
		c.status(b[0])
	}
	a.out = append(a.out, frame...)
	return nil
}

// described notes the shape that the server has told for a statement or portal; nil fields mean no rows.
func (c *connection) described(head reply, fields []field) {
	if head.stmt != nil {
		head.stmt.setShape(fields)
	}
	if head.portal != nil {
		head.portal.shape, head.portal.known = fields, true
	}
}

// rowDescription opens a tabular answer, or tells the shape of one to come.
func (c *connection) rowDescription(ctx context.Context, frame, b []byte, head reply) error {
	a := &c.answer
	shape := a.told.shape(b)
	x := head.exchange
	if head.kind == 'D' {
		c.described(head, shape.fields)
		if head.own {
			c.queue.pop()
			head.stmt.answered()
			return nil
		}
		x = nil
		if head.portal != nil {
			x = c.queue.executeOf(head.portal)
		}
		if x == nil { // asked for its own sake: a chain may look at it, and the rows will be judged when they come
			x = &core.Exchange{Command: &core.Command{Action: "describe", Where: true, Status: core.StatusKnown}}
			if head.stmt != nil {
				x.Command = head.stmt.script.Command
			}
		}
	}
	a.out = append(a.out, frame...)
	if c.wantsAnswer {
		columns := c.columnsOf(ctx, shape, head)
		x.Columns, x.Plan = columns, core.Plan{}
		d := c.say(ctx, a.made(core.Event{Kind: core.KindColumns, Direction: core.FromUpstream, Exchange: x, Columns: columns}), len(a.out))
		if d != nil {
			a.out = a.out[:len(a.out)-len(frame)]
			return c.abandon(ctx, head, d)
		}
		if head.portal != nil && head.kind == 'D' {
			c.queue.plannedExecute(head.portal, columns)
		}
		head.columns = columns
	}
	if head.kind == 'D' {
		c.queue.pop()
		return nil
	}
	head.planned = true
	c.queue.set(head)
	return nil
}

// columns turns fields into columns. Where a step decides on columns, they come with what they may hold.
func (c *connection) columns(ctx context.Context, fields []field, formats []int16, head reply) []core.Column {
	if c.catalog == nil {
		return columnsOf(fields, formats)
	}
	command, at := c.answered(head)
	return c.catalog.columns(ctx, fields, formats, command, at)
}

// answered returns the command that is being answered, and which statement of its text.
func (c *connection) answered(head reply) (command *core.Command, at int) {
	command = head.body
	switch s := head.portal.statement(); {
	case command != nil:
	case s != nil:
		command = s.script.Command
	case head.portal == nil && head.script != nil && head.script.Prepared(head.at) != nil:
		command = head.script.Prepared(head.at)
	case head.portal == nil && head.script != nil:
		command, at = head.script.Command, head.at
	case head.portal == nil && head.stmt != nil:
		command = head.stmt.script.Command
	default:
		command = &core.Command{} // it may be one of several statements
	}
	return command, at
}

// dataRow opens a batch with the first row of a read.
func (c *connection) dataRow(ctx context.Context, frame []byte, head reply) error {
	a := &c.answer
	if !c.wantsAnswer {
		a.out = append(a.out, frame...)
		return nil
	}
	x := head.exchange
	if !head.planned { // an Execute of what has been described before
		fields, formats, ok := head.portal.fields()
		if !ok {
			return violation("rows whose shape was never told")
		}
		columns := c.columns(ctx, fields, formats, head)
		x.Columns, x.Plan = columns, core.Plan{}
		at := len(a.out)
		if d := c.say(ctx, a.made(core.Event{Kind: core.KindColumns, Direction: core.FromUpstream, Exchange: x, Columns: columns}), at); d != nil {
			return c.abandon(ctx, head, d)
		}
		head.planned, head.columns = true, columns
		c.queue.set(head)
	}
	bt := &a.batch
	a.rows = len(a.out)
	*bt = core.Batch{Columns: x.Columns, Watch: x.Plan.Watch, Cells: bt.Cells[:0], Patches: bt.Patches[:0]}
	return c.addRow(frame)
}

// addRow adds a row to the open batch.
func (c *connection) addRow(frame []byte) error {
	a := &c.answer
	bt := &a.batch
	if len(bt.Watch) > 0 {
		var ok bool
		bt.Cells, ok = cells(bt.Cells, frame, 0, bt.Watch, len(bt.Columns))
		if !ok {
			return violation("a row with another number of columns than announced")
		}
		for i, shift := len(bt.Cells)-len(bt.Watch), int32(len(a.out)-a.rows); i < len(bt.Cells); i++ {
			bt.Cells[i].Off += shift
		}
	}
	bt.Rows++
	a.out = append(a.out, frame...)
	return nil
}

// closeRows puts the open batch through the chain.
func (c *connection) closeRows(ctx context.Context) error {
	a := &c.answer
	if a.rows < 0 {
		return nil
	}
	if a.copy.on {
		return c.closeCopy(ctx)
	}
	head, _ := c.queue.peek()
	a.batch.Data = a.out[a.rows:]
	d := c.say(ctx, a.made(core.Event{
		Kind: core.KindRows, Direction: core.FromUpstream, Exchange: head.exchange, Rows: &a.batch, Frame: c,
	}), 0)
	start := a.rows
	a.rows, a.batch.Data = -1, nil
	if d != nil {
		a.out = a.out[:start]
		return c.abandon(ctx, head, d)
	}
	return nil
}
