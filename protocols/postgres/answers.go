package postgres

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// answerState belongs to the goroutine that reads the upstream.
type answerState struct {
	out     []byte // for the client
	kept    int    // out[kept:] has not been recorded yet
	settle  core.Mark
	batch   core.Batch
	rows    int           // where the open batch of rows starts in out; -1: none is open
	swallow bool          // an answer was refused half-way: nothing more for the client until ReadyForQuery
	cut     chan struct{} // closed when the cancel request for it has been answered
	scratch []byte
	changed bool   // DDL has run and is not committed, as far as is known
	rewrite func() // rebuilds the present event in out after its texts have changed
}

// answers carries the upstream's messages to the client until either end is gone.
func (c *connection) answers(ctx context.Context) {
	a := &c.answer
	a.rows = -1
	c.server.in = c.early
	c.server.w = len(c.early)
	c.early = nil
	need := 0
	for first := c.server.w > 0; ; first = false {
		if !first {
			if err := c.server.fill(need); err != nil {
				c.upstreamGone(err)
				return
			}
		}
		var err error
		if need, err = c.deliver(ctx); err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *connection) upstreamGone(err error) {
	c.deaf = !errors.Is(err, os.ErrDeadlineExceeded)
	if c.leaving.Load() {
		c.stop(core.EndClosed, "the client said goodbye", nil)
		return
	}
	if !c.over.Load() {
		c.farewell(codeConnectionFailure, "the target closed the connection")
	}
	if hungUp(err) {
		c.stop(core.EndClosed, "the upstream hung up", nil)
		return
	}
	c.stop(core.EndError, "the upstream's connection failed", err)
}

// deliver deals with every whole message that has been read, then sends what is left of them in one write.
func (c *connection) deliver(ctx context.Context) (need int, err error) {
	a, l := &c.answer, &c.server
	a.out, a.kept, a.settle = a.out[:0], 0, 0
	for {
		size, more, err := backend.next(l.in[l.r:l.w], c.maxBody)
		if err != nil {
			return 0, err
		}
		if size == 0 {
			need = more
			break
		}
		frame := l.in[l.r : l.r+size]
		l.r += size
		if frame[0] != 'D' {
			if err := c.closeRows(ctx); err != nil {
				return 0, err
			}
		}
		if err := c.frame(ctx, frame); err != nil {
			return 0, err
		}
	}
	if err := c.closeRows(ctx); err != nil {
		return 0, err
	}
	if len(a.out) > a.kept && c.wantsAnswer {
		if d := c.say(ctx, &core.Event{Kind: core.KindNotice, Direction: core.FromUpstream, Result: &core.Result{Status: "ready"}}, len(a.out)); d != nil {
			return 0, d
		}
	}
	if err := c.session.Settle(ctx, a.settle); err != nil {
		return 0, err
	}
	if c.queue.empty() {
		c.deadline.clear()
	}
	if err := c.client.write(a.out); err != nil {
		return 0, err
	}
	if cap(a.out) > 2*largeBuffer {
		a.out = nil
	}
	if c.request.draining.Load() && c.quiet() {
		c.drained()
	}
	return need, nil
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
		a.out = append(a.out[:a.rows], a.scratch...)
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

// violation is what an upstream does that the protocol does not allow: the stream can no longer be followed.
func violation(what string) error {
	return malformed("the upstream broke the protocol: %s", what)
}

// frame deals with one message of the upstream.
func (c *connection) frame(ctx context.Context, frame []byte) error {
	a := &c.answer
	typ, b := frame[0], frame[headerSize:]
	if typ == 'D' && a.rows >= 0 { // the usual case in a long answer: one more row
		return c.addRow(frame)
	}
	head, owed := c.queue.peek()
	if a.swallow && typ != 'Z' && typ != 'S' && typ != 'A' {
		if typ == 'G' { // the upstream waits for data that the client will not send
			_ = c.server.write(appendFrame(nil, 'f', []byte("refused by Weir\x00")))
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
	switch typ {
	case '1', '2', '3', 'n', 't', 's', 'I', 'C', 'T', 'D', 'G', 'H', 'W', 'd', 'c', 'V', 'Z':
	default:
		return violation("an unexpected message")
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
		return c.copyOut(ctx, frame, b, head)
	case 'c':
		if err := expect("EQ"); err != nil {
			return err
		}
	case 'V':
		if err := expect("F"); err != nil {
			return err
		}
		a.out = append(a.out, frame...)
		if d := c.say(ctx, &core.Event{
			Kind: core.KindBytes, Direction: core.FromUpstream, Exchange: head.exchange, Bytes: a.out[len(a.out)-len(b):],
		}, len(a.out)); d != nil {
			a.out = a.out[:a.kept]
			return c.abandon(ctx, head, d)
		}
		return nil
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
	fields := readFields(b)
	x := head.exchange
	if head.kind == 'D' {
		c.described(head, fields)
		if head.own {
			c.queue.pop()
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
		columns := c.columns(ctx, fields, nil, head)
		x.Columns, x.Plan = columns, core.Plan{}
		d := c.say(ctx, &core.Event{Kind: core.KindColumns, Direction: core.FromUpstream, Exchange: x, Columns: columns}, len(a.out))
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
	command, at := head.body, 0
	switch s := head.portal.statement(); {
	case command != nil:
	case s != nil:
		command = s.script.Command
	case head.portal == nil && head.script != nil:
		command, at = head.script.Command, head.at
	case head.portal == nil && head.stmt != nil:
		command = head.stmt.script.Command
	default:
		command = &core.Command{} // it may be one of several statements
	}
	return c.catalog.columns(ctx, fields, formats, command, at)
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
		if d := c.say(ctx, &core.Event{Kind: core.KindColumns, Direction: core.FromUpstream, Exchange: x, Columns: columns}, at); d != nil {
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
	head, _ := c.queue.peek()
	a.batch.Data = a.out[a.rows:]
	d := c.say(ctx, &core.Event{
		Kind: core.KindRows, Direction: core.FromUpstream, Exchange: head.exchange, Rows: &a.batch, Frame: c,
	}, 0)
	start := a.rows
	a.rows = -1
	if d != nil {
		a.out = a.out[:start]
		return c.abandon(ctx, head, d)
	}
	return nil
}

// abandon refuses an answer that has begun: the client gets the error, the upstream is asked to stop, and nothing more
// reaches the client until ReadyForQuery.
func (c *connection) abandon(ctx context.Context, head reply, d *core.Denial) error {
	if err := c.refusal(ctx, head.exchange, d); err != nil {
		return err
	}
	c.answer.swallow = true
	if c.cutting.TryLock() { // else a command is just on its way: the rest of the answer is read and thrown away
		if c.queue.alone() {
			done := make(chan struct{})
			c.answer.cut = done
			go func() {
				defer c.cutting.Unlock()
				defer close(done)
				c.cut()
			}()
		} else {
			c.cutting.Unlock()
		}
	}
	return c.afterError(head)
}

// refusal tells the client, in the place of an answer, why it gets none, and then what comes last.
func (c *connection) refusal(ctx context.Context, x *core.Exchange, d *core.Denial, last ...byte) error {
	a := &c.answer
	a.out = append(appendRefusal(a.out, "ERROR", d), last...)
	v := c.session.Check(ctx, &core.Event{
		Kind: core.KindResult, Direction: core.FromGateway, Exchange: x, Wire: a.out[a.kept:],
		Result: &core.Result{Status: "error", Code: codeInsufficientPrivilege, Message: d.Error()},
	})
	a.settle = max(a.settle, v.Mark)
	a.kept = len(a.out)
	if v.Deny != nil && v.Deny.Rule == "journal-lost" {
		return core.ErrJournalLost
	}
	return nil
}

// afterError brings the queue to where the server goes on after an error: a simple query still gets its
// ReadyForQuery; everything else is skipped up to the next Sync.
func (c *connection) afterError(head reply) error {
	switch head.kind {
	case 'Q', 'S', 'F':
		return nil
	}
	for _, r := range c.queue.skipToSync() {
		if r.kind == 'P' && r.stmt != nil {
			c.names.reject(r.stmt)
		}
	}
	return nil
}

// errorResponse passes an error on, or says the refusal in whose place it came.
func (c *connection) errorResponse(ctx context.Context, frame, b []byte, head reply, owed bool) error {
	fatal := false
	fields(b, func(t byte, v []byte) {
		fatal = fatal || (t == 'V' || t == 'S') && (string(v) == "FATAL" || string(v) == "PANIC")
	})
	a := &c.answer
	if head.refusal == nil && c.masks(ctx, head.exchange) {
		frame, b = hide(frame, b, head)
	}
	if owed && head.refusal != nil && !fatal {
		if err := c.afterError(head); err != nil {
			return err
		}
		at := len(a.out)
		c.ready()
		last := append([]byte(nil), a.out[at:]...)
		a.out = a.out[:at]
		return c.refusal(ctx, head.exchange, head.refusal, last...)
	}
	if owed && head.own && !fatal && c.queue.ownSync() { // the COPY itself will fail, in the client's words
		return c.afterError(head)
	}
	var x *core.Exchange
	if owed {
		x = head.exchange
	}
	if owed && !fatal {
		if err := c.afterError(head); err != nil {
			return err
		}
	}
	return c.result(ctx, 'E', "error", frame, b, x)
}

// result passes an error or notice on, whose texts steps may change.
func (c *connection) result(ctx context.Context, typ byte, status string, frame, b []byte, x *core.Exchange) error {
	a := &c.answer
	at := len(a.out)
	a.out = append(a.out, frame...)
	kind := core.KindNotice
	if typ == 'E' {
		kind = core.KindResult
		c.ready()
	}
	if !c.wantsAnswer {
		return nil
	}
	e := &core.Event{Kind: kind, Direction: core.FromUpstream, Exchange: x, Result: resultOf(status, b), Frame: c}
	last := append([]byte(nil), a.out[at+len(frame):]...)
	result := e.Result
	a.rewrite = func() { a.out = append(rewriteFields(a.out[:at], typ, b, result.Texts), last...) }
	d := c.say(ctx, e, 0)
	a.rewrite = nil
	if d == nil {
		return nil
	}
	a.out = a.out[:at]
	if typ == 'E' { // that it failed must be said; how, may not
		return c.refusal(ctx, x, d, last...)
	}
	return nil
}

// beside passes on what comes beside the answers: notices, notifications, changes of settings.
func (c *connection) beside(ctx context.Context, typ byte, frame, b []byte) error {
	a := &c.answer
	if typ == 'N' {
		var x *core.Exchange
		head, owed := c.queue.peek()
		if owed {
			x = head.exchange
		}
		if c.masks(ctx, x) {
			frame, b = hide(frame, b, head)
		}
		return c.result(ctx, 'N', "notice", frame, b, x)
	}
	if typ == 'A' && c.masks(ctx, nil) {
		frame, b = hideNotification(frame, b)
	}
	cb := body{b: b}
	e := &core.Event{Kind: core.KindNotice, Direction: core.FromUpstream}
	if typ == 'S' {
		name, value := string(cb.str()), string(cb.str())
		for _, p := range pinned {
			if p.key == name {
				c.strange(name, settingRefused(name, value) != "")
			}
		}
		e.Result = &core.Result{Status: "parameter", Tag: name, Message: value}
	} else {
		cb.i32()
		channel, payload := string(cb.str()), string(cb.str())
		e.Result = &core.Result{Status: "notification", Tag: channel, Texts: []core.Text{{Field: "payload", Value: payload}}}
		e.Frame = c
		result, at := e.Result, len(a.out)
		a.rewrite = func() {
			dst, length := beginFrame(a.out[:at], 'A')
			dst = append(dst, b[:4]...)
			dst = append(append(dst, channel...), 0)
			dst = append(append(dst, clean(result.Texts[0].Value)...), 0)
			a.out = endFrame(dst, length)
		}
		defer func() { a.rewrite = nil }()
	}
	a.out = append(a.out, frame...)
	if !c.wantsAnswer {
		return nil
	}
	if d := c.say(ctx, e, len(a.out)); d != nil {
		if d.Rule == "journal-lost" {
			return core.ErrJournalLost
		}
		a.out = a.out[:len(a.out)-len(frame)]
	}
	return nil
}

// complete ends one statement's answer.
func (c *connection) complete(ctx context.Context, typ byte, frame, b []byte, head reply) error {
	a := &c.answer
	r := &core.Result{Status: "ok"}
	switch typ {
	case 'C':
		r.Tag = string(bytes.TrimSuffix(b, []byte{0}))
		if i := strings.LastIndexByte(r.Tag, ' '); i >= 0 {
			r.Rows, _ = strconv.ParseInt(r.Tag[i+1:], 10, 64)
		}
	case 's':
		r.Status = "suspended"
	case 'I':
		r.Status = "empty"
	}
	c.ran(head, typ)
	if x := head.exchange; x.Command.HasEffect(core.EffectDDL) || x.Command.HasEffect(core.EffectUnknown) {
		c.catalog.changed() // now, and again when it is committed
		a.changed = true
	}
	if head.kind == 'E' {
		c.queue.pop()
	} else {
		head.at++
		head.planned, head.columns = false, nil
		c.queue.set(head)
	}
	at := len(a.out)
	a.out = append(a.out, frame...)
	done := c.ready()
	if !c.wantsAnswer {
		return nil
	}
	d := c.say(ctx, &core.Event{Kind: core.KindResult, Direction: core.FromUpstream, Exchange: head.exchange, Result: r}, len(a.out))
	switch {
	case d == nil:
		return nil
	case !done:
		a.out = a.out[:at]
		return c.abandon(ctx, head, d)
	}
	last := append([]byte(nil), a.out[at+len(frame):]...)
	a.out = a.out[:at]
	return c.refusal(ctx, head.exchange, d, last...)
}

// ready takes in the ReadyForQuery that follows an answer in the same read, so that the two are one record. It reports
// whether there was one.
func (c *connection) ready() bool {
	l := &c.server
	const size = headerSize + 1
	next := l.in[l.r:l.w]
	if len(next) < size || next[0] != 'Z' || c.answer.swallow {
		return false
	}
	if n, _, err := backend.next(next[:size], smallFrame); err != nil || n != size {
		return false // said when its turn comes
	}
	head, owed := c.queue.peek()
	if !owed || head.own || strings.IndexByte("SQF", head.kind) < 0 {
		return false
	}
	c.queue.pop()
	c.status(next[headerSize])
	c.answer.out = append(c.answer.out, next[:size]...)
	l.r += size
	return true
}

// status takes in the transaction status of a ReadyForQuery.
func (c *connection) status(b byte) {
	c.session.SetInTransaction(b != 'I')
	if b == 'I' && c.answer.changed {
		c.answer.changed = false
		c.catalog.changed()
	}
}

// ran takes in what a statement has done to the session's names.
func (c *connection) ran(head reply, typ byte) {
	if typ != 'C' || head.script == nil || head.at >= len(head.script.Statements) {
		return
	}
	if name := head.script.Statements[head.at].Deallocate; name != "" {
		c.names.forget(name, c.names.get(name))
	}
}

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
