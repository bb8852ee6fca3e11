package postgres

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/weir-gateway/weir/core"
)

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
	if v.Deny != nil && errors.Is(v.Deny, core.ErrJournalLost) {
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
	c.answer.ended = c.answer.ended || fatal
	a := &c.answer
	if owed && head.own && !fatal {
		asker, tell := c.questionFailed(b)
		switch {
		case !tell:
			return nil
		case asker.kind == 0: // somebody may wait for an answer that has just been dropped
			return violation("an error before the question")
		}
		head = asker
		frame, b = copyError(frame, b, head)
	}
	if head.refusal == nil && c.masks(ctx, head.exchange) {
		frame, b = hide(frame, b, head)
	}
	frame, b = c.overdueError(frame, b)
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
		switch {
		case owed && head.own: // the same will be said of what it was asked for
			return nil
		case owed:
			x = head.exchange
		}
		if c.masks(ctx, x) {
			frame, b = hide(frame, b, head)
		}
		return c.result(ctx, 'N', "notice", frame, b, x)
	}
	switch {
	case typ == 'A' && c.masks(ctx, nil):
		frame, b = hideNotification(frame, b)
	case typ == 'S' && holdsText(b) && c.masks(ctx, nil):
		head, _ := c.queue.peek()
		frame, b = hideSetting(frame, b, head)
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
		e.Result = &core.Result{Status: "parameter", Tag: name, Message: value, Texts: []core.Text{{Field: "value", Value: value}}}
		e.Frame = c
		result, at := e.Result, len(a.out)
		a.rewrite = func() {
			dst, length := beginFrame(a.out[:at], 'S')
			dst = append(append(dst, name...), 0)
			result.Message = clean(result.Texts[0].Value)
			dst = append(append(dst, result.Message...), 0)
			a.out = endFrame(dst, length)
		}
		defer func() { a.rewrite = nil }()
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
		if errors.Is(d, core.ErrJournalLost) {
			return core.ErrJournalLost
		}
		a.out = a.out[:len(a.out)-len(frame)]
	}
	return nil
}

// complete ends one statement's answer.
func (c *connection) complete(ctx context.Context, typ byte, frame, b []byte, head reply) error {
	a := &c.answer
	r := &a.result
	*r = core.Result{Status: "ok"}
	switch typ {
	case 'C':
		if tag := bytes.TrimSuffix(b, []byte{0}); a.tag != string(tag) {
			a.tag = string(tag)
		}
		r.Tag = a.tag
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
		c.catalog.changes(x.Command) // now, and again when it is committed
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
	d := c.say(ctx, a.made(core.Event{Kind: core.KindResult, Direction: core.FromUpstream, Exchange: head.exchange, Result: r}), len(a.out))
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
	if b == 'I' {
		c.catalog.settled(c.answer.changed)
		c.answer.changed = false
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
