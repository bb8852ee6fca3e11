package ssh

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// channel is one channel, on both legs.
type channel struct {
	c      *connection
	number uint32
	kind   string

	// One exchange for each direction: they are used at the same time.
	in, out     *core.Exchange
	inMu, outMu sync.Mutex
	prompts     prompts
	innerOnce   sync.Once

	// of a session
	client, server ssh.Channel
	last           sync.Mutex  // held for what Weir says itself, and for the end of output: x/crypto keeps them not apart
	left           atomic.Bool // the client has closed it
	env            map[string]string
	hasPTY         bool
	typist         *typist       // of a terminal
	request        string        // how a program was asked for: exec, shell or subsystem
	began          bool          // it was
	started        chan struct{} // closed when that has been answered
	delivered      chan struct{} // closed when all that the program has said is delivered
	finished       chan struct{} // closed when the client knows that there is no more
	fed            chan struct{} // closed when all that the client has said is delivered
	told           chan struct{} // closed when the client knows how the program ended, or there is nothing to know
	telling        sync.Once
	ended          sync.Once
}

func (c *connection) channel(kind string) *channel {
	return &channel{c: c, number: c.numbers.Add(1) - 1, kind: kind, started: make(chan struct{}), delivered: make(chan struct{}), fed: make(chan struct{}), told: make(chan struct{}), finished: make(chan struct{})}
}

// begin says what the channel is for.
func (ch *channel) begin(x *core.Command) {
	ch.in, ch.out = &core.Exchange{Command: x}, &core.Exchange{Command: x}
}

// detail is what policies see beside the command.
func (ch *channel) detail() map[string]any {
	if !ch.c.session.Judges(core.KindCommand) {
		return nil
	}
	d := map[string]any{"channel": int(ch.number), "type": ch.kind, "request": ch.request, "pty": ch.hasPTY, "login": ch.c.login}
	if len(ch.env) > 0 {
		env := make(map[string]any, len(ch.env))
		for k, v := range ch.env {
			env[k] = v
		}
		d["env"] = env
	}
	return d
}

// result records how the channel ended, once.
func (ch *channel) result(ctx context.Context, r *core.Result, wire []byte) {
	ch.ended.Do(func() { _ = ch.say(ctx, core.KindResult, core.FromUpstream, r, wire) })
}

// keep records something about the channel that nobody is told.
func (ch *channel) keep(ctx context.Context, k core.Kind, way core.Direction, r *core.Result) {
	_ = ch.check(ctx, k, way, r, nil)
}

func (ch *channel) check(ctx context.Context, k core.Kind, way core.Direction, r *core.Result, wire []byte) core.Verdict {
	e := &core.Event{Kind: k, Direction: way, Result: r, Wire: wire}
	mu := &ch.inMu
	if e.Exchange = ch.in; way != core.FromClient {
		e.Exchange, mu = ch.out, &ch.outMu
	}
	mu.Lock()
	defer mu.Unlock()
	return ch.c.session.Check(ctx, e)
}

// say records something about the channel and waits until it may be delivered.
func (ch *channel) say(ctx context.Context, k core.Kind, way core.Direction, r *core.Result, wire []byte) *core.Denial {
	v := ch.check(ctx, k, way, r, wire)
	if v.Deny != nil {
		return v.Deny
	}
	if err := ch.c.session.Settle(ctx, v.Mark); err != nil {
		ch.c.fail(err)
		return &core.Denial{Step: "weir", Rule: "journal-lost", Reason: "nothing can be recorded now, so nothing may pass"}
	}
	return nil
}

// tell writes a line of Weir's own to the client's standard error. What cannot be recorded is not said.
func (ch *channel) tell(ctx context.Context, text string) {
	end := "\n"
	if ch.hasPTY {
		end = "\r\n"
	}
	out := []byte("weir: " + line(text) + end)
	r := &core.Result{Status: "error", Message: line(text)}
	if ch.say(ctx, core.KindNotice, core.FromGateway, r, dataMessage(ch.number, true, out)) == nil {
		ch.last.Lock()
		defer ch.last.Unlock()
		_, _ = ch.client.Stderr().Write(out)
	}
}

// endOutput tells the client that no more output comes.
func (ch *channel) endOutput() {
	ch.last.Lock()
	defer ch.last.Unlock()
	_ = ch.client.CloseWrite()
}
