package ssh

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// connection is one open session: a client, a target, and the channels between them.
type connection struct {
	session  *core.Session
	settings *settings
	client   *ssh.ServerConn
	server   ssh.Conn
	own      *ownKeys
	token    string // for a certificate
	login    string

	numbers atomic.Uint32 // of channels
	open    counter
	noMore  atomic.Bool // the client will open no more sessions
	agent   atomic.Bool // it has asked for its agent to be forwarded, and may
	x11     atomic.Bool
	heard   atomic.Int64 // when something was last said, in nanoseconds

	globals   sync.Mutex // of what is judged and belongs to no channel
	mu        sync.Mutex
	listening map[string]bool       // where the target listens for the client
	live      map[*channel]struct{} // sessions that have begun

	ending sync.Once
	over   chan struct{} // closed when the session has its end
	end    core.End
	reason string
	err    error
}

const (
	maxListening = 16
	flushTime    = 3 * time.Second // how long what has been sent may take to arrive once one side is gone
)

// stop notes why the session ends, unless it has a reason, and makes run return.
func (c *connection) stop(end core.End, reason string, err error) {
	c.ending.Do(func() {
		c.end, c.reason, c.err = end, reason, err
		close(c.over)
	})
}

// fail ends the session because of err.
func (c *connection) fail(err error) {
	if errors.Is(err, core.ErrJournalLost) {
		c.stop(core.EndJournalLost, err.Error(), err)
		return
	}
	c.stop(core.EndError, "connection lost", err)
}

// recovered makes a panic the end of this session, and of no other. It is to be deferred.
func (c *connection) recovered() {
	if e := recover(); e != nil {
		c.stop(core.EndError, "internal error", fmt.Errorf("ssh: a session panicked: %v\n%s", e, debug.Stack()))
	}
}

func (c *connection) touch() { c.heard.Store(time.Now().UnixNano()) }

// run carries the session until it ends.
func (c *connection) run(ctx context.Context, fromClient <-chan ssh.NewChannel, clientRequests <-chan *ssh.Request, fromServer <-chan ssh.NewChannel, serverRequests <-chan *ssh.Request) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.touch()
	c.mu.Lock()
	c.live = map[*channel]struct{}{}
	c.mu.Unlock()
	var pumps sync.WaitGroup
	pump := func(f func()) {
		pumps.Go(func() {
			defer c.recovered()
			f()
		})
	}
	pump(func() {
		for n := range fromClient {
			c.admit(n, func() { c.opened(ctx, n) })
		}
	})
	pump(func() {
		for n := range fromServer {
			c.admit(n, func() { c.offered(ctx, n) })
		}
	})
	pump(func() { c.clientGlobals(ctx, clientRequests) })
	pump(func() { c.serverGlobals(ctx, serverRequests) })
	pump(func() {
		_ = c.client.Wait()
		c.stop(core.EndClosed, "the client hung up", nil)
	})
	pump(func() {
		_ = c.server.Wait()
		c.flush()
		c.stop(core.EndClosed, "the upstream hung up", nil)
	})
	c.await(ctx)
	if c.end == core.EndClosed {
		c.flush()
	}
	_ = c.client.Close()
	_ = c.server.Close()
	cancel()
	pumps.Wait()
	<-c.open.none()
	return c.err
}

// flush lets what is on its way arrive, within bounds.
func (c *connection) flush() {
	t := time.NewTimer(flushTime)
	defer t.Stop()
	select {
	case <-c.open.none():
	case <-t.C:
	}
}

// await returns when the session is to end.
func (c *connection) await(ctx context.Context) {
	draining, quiet := c.session.Draining(), (<-chan struct{})(nil)
	idle := time.NewTimer(time.Hour)
	defer idle.Stop()
	limit := c.session.Target.Limits.Idle
	if limit > 0 {
		idle.Reset(limit)
	}
	for {
		select {
		case <-c.over:
			return
		case <-ctx.Done():
			c.farewell(core.EndKilled, context.Cause(ctx).Error())
			return
		case <-draining:
			c.noMore.Store(true) // so it gets quiet
			draining, quiet = nil, c.open.none()
		case <-quiet:
			c.farewell(core.EndKilled, c.session.Leaving())
			return
		case <-idle.C:
			if limit <= 0 {
				continue
			}
			since := time.Since(time.Unix(0, c.heard.Load()))
			if since >= limit {
				c.farewell(core.EndKilled, "idle for longer than limits.idle")
				return
			}
			idle.Reset(limit - since)
		}
	}
}

// farewell tells whoever has a session open why it ends, and ends it.
func (c *connection) farewell(end core.End, why string) {
	c.stop(end, why, nil)
	c.mu.Lock()
	var list []*channel
	for ch := range c.live {
		list = append(list, ch)
	}
	c.mu.Unlock()
	said := make(chan struct{})
	go func() {
		defer close(said)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		for _, ch := range list {
			ch.tell(ctx, "the session ends: "+why)
		}
	}()
	t := time.NewTimer(time.Second) // a client that reads nothing does not stay for that
	defer t.Stop()
	select {
	case <-said:
	case <-t.C:
	}
}

// turnAway refuses every channel, for a client whose target cannot be used, until it has been told and a moment more.
func (c *connection) turnAway(channels <-chan ssh.NewChannel, requests <-chan *ssh.Request, why string) {
	go ssh.DiscardRequests(requests)
	t := time.NewTimer(flushTime)
	defer t.Stop()
	for {
		select {
		case n, ok := <-channels:
			if !ok {
				return
			}
			_ = n.Reject(ssh.ConnectionFailed, "weir: "+line(why))
			t.Reset(100 * time.Millisecond)
		case <-t.C:
			return
		}
	}
}

// admit deals with a channel that somebody wants to open, if there is room for it.
func (c *connection) admit(n ssh.NewChannel, f func()) {
	if !c.open.enter(c.settings.Channels) {
		_ = n.Reject(ssh.ResourceShortage, fmt.Sprintf("weir: more than %d channels of one connection", c.settings.Channels))
		return
	}
	go func() {
		defer c.open.leave()
		defer c.recovered()
		f()
	}()
}

// note records something that belongs to no channel.
func (c *connection) note(ctx context.Context, status, text string) error {
	v := c.judge(ctx, &core.Event{Kind: core.KindNotice, Direction: core.FromGateway, Result: &core.Result{Status: status, Message: text}})
	if v.Deny != nil {
		return v.Deny
	}
	return c.session.Settle(ctx, v.Mark)
}

// judge puts an event that belongs to no channel's stream to the chain and the record.
func (c *connection) judge(ctx context.Context, e *core.Event) core.Verdict {
	c.globals.Lock()
	defer c.globals.Unlock()
	return c.session.Check(ctx, e)
}

// command judges a command, of a channel or of none, and waits for its record. Where against says so it is refused, whatever the rules say.
func (c *connection) command(ctx context.Context, x *core.Exchange, way core.Direction, wire []byte, ch *channel, against *core.Denial) *core.Denial {
	e := &core.Event{Kind: core.KindCommand, Direction: way, Exchange: x, Wire: wire}
	if ch != nil {
		e.Detail = ch.detail()
	}
	if ch != nil && ch.client != nil { // somebody to tell that it waits
		e.Waiter = ch
	}
	if against != nil {
		e.Frame = refusal{against}
	}
	v := c.session.Check(ctx, e)
	if v.Deny != nil {
		if errors.Is(v.Deny, core.ErrJournalLost) {
			c.fail(v.Deny)
		}
		return v.Deny
	}
	if err := c.session.Settle(ctx, v.Mark); err != nil {
		c.fail(err)
		return &core.Denial{Step: "weir", Rule: "journal-lost", Reason: "nothing can be recorded now, so nothing may pass", Hint: "try again later"}
	}
	return nil
}
