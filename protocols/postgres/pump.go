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
	pump := func(out *[]byte, read func(context.Context) bool) {
		for !c.step(ctx, out, read) {
		}
		over <- struct{}{}
	}
	_ = c.allowIdle()
	go pump(&c.request.out, c.readRequests)
	go pump(&c.answer.out, c.readAnswers)
}

// carry has a reactor run a pump.
func (c *connection) carry(ctx context.Context, l *leg, conn *reactor.Conn, out *[]byte, read func(context.Context) bool, over chan<- struct{}) {
	ctx = core.OnWait(ctx, conn.Yield)
	conn.Attach(func(buffer []byte) bool {
		l.borrow(buffer)
		done := c.step(ctx, out, read)
		l.giveBack()
		if done {
			over <- struct{}{}
		}
		return done
	})
}

// buffers are for what a step has to send; between steps there is nothing, so sessions share them.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, smallBuffer); return &b }}

// step runs one step of a pump. A panic ends this session and no other.
func (c *connection) step(ctx context.Context, out *[]byte, read func(context.Context) bool) (over bool) {
	defer func() {
		if e := recover(); e != nil {
			c.stop(core.EndError, "internal error", &panicError{e})
			over = true
		}
	}()
	b := buffers.Get().(*[]byte)
	*out = (*b)[:0]
	over = read(ctx)
	if cap(*out) <= 2*largeBuffer {
		*b = *out
		buffers.Put(b)
	}
	*out = nil
	return over
}
