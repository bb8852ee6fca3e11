package postgres

import (
	"context"
	"sync"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/reactor"
)

// A pump reads one leg, again and again, deals with what it has read and writes to the other leg. Where both legs are
// clear text a reactor runs the pumps of many sessions; else each has a goroutine. What a pump does is the same.

// start runs both pumps, and tells over when each has ended.
func (c *connection) start(ctx context.Context, over chan<- struct{}) {
	if r, err := reactor.Shared(); err == nil {
		if client, server, ok := r.Pair(c.client.conn, c.server.conn); ok {
			c.client.conn, c.server.conn = client, server
			if c.moved != nil {
				c.moved(client)
			}
			_ = c.allowIdle()
			c.carry(ctx, &c.client, client, &c.request.out, c.readRequests, over)
			c.carry(ctx, &c.server, server, &c.answer.out, c.readAnswers, over)
			return
		}
	}
	pump := func(l *leg, out *[]byte, read func(context.Context) reactor.Next) {
		for c.step(ctx, l, out, read) != reactor.Over {
		}
		over <- struct{}{}
	}
	_ = c.allowIdle()
	go pump(&c.client, &c.request.out, c.readRequests)
	go pump(&c.server, &c.answer.out, c.readAnswers)
}

// carry has a reactor run a pump.
func (c *connection) carry(ctx context.Context, l *leg, conn *reactor.Conn, out *[]byte, read func(context.Context) reactor.Next, over chan<- struct{}) {
	ctx = core.OnWait(ctx, conn.Yield)
	l.resume = conn.Resume
	conn.Attach(func(buffer []byte) reactor.Next {
		l.borrow(buffer)
		next := c.step(ctx, l, out, read)
		l.giveBack()
		if next == reactor.Over {
			over <- struct{}{}
		}
		return next
	})
}

// buffers are for what a step has to send; between steps there is nothing, so sessions share them.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, smallBuffer); return &b }}

// step runs one step of a pump. A panic ends this session and no other.
func (c *connection) step(ctx context.Context, l *leg, out *[]byte, read func(context.Context) reactor.Next) (next reactor.Next) {
	defer func() {
		if e := recover(); e != nil {
			c.stop(core.EndError, "internal error", &panicError{e})
			next = reactor.Over
		}
	}()
	if l.buffer == nil { // else it goes on with what it has
		l.buffer = buffers.Get().(*[]byte)
		*out = (*l.buffer)[:0]
	}
	if next = read(ctx); next == reactor.Paused {
		return next
	}
	if cap(*out) <= 2*largeBuffer {
		*l.buffer = *out
		buffers.Put(l.buffer)
	}
	l.buffer, *out = nil, nil
	return next
}

// settled reports whether what has been recorded up to m may go on its way. When it may not yet, and the pump can be
// called again, it is: the answer is false. A pump that cannot waits here.
func (c *connection) settled(ctx context.Context, l *leg, m core.Mark) (bool, error) {
	if l.resume != nil && !c.session.Settled(m, l.resume) {
		return false, nil
	}
	return true, c.session.Settle(ctx, m)
}
