package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// connection is one open session: a client, an upstream, and what is on its way between them. Two pumps carry it, one
// for what comes from the client and one for what comes from the upstream (pump.go).
type connection struct {
	session *core.Session
	reader  *sql.Reader
	client  leg
	server  leg
	greeted []byte
	early   []byte
	maxBody int64
	idle    time.Duration

	queue   queue
	names   names
	key     string
	keys    *keyring
	catalog *catalog       // nil when no step decides on columns
	moved   func(net.Conn) // tells the gateway that the client's connection is another value now; or nil
	cut     func()         // asks the upstream to cancel what it is doing
	// cutting is held while the upstream is asked to cancel, so that no later command is hit instead: writers of
	// commands hold it for reading.
	cutting sync.RWMutex

	// wants are what the session asks to be told of; where nobody asks, frames pass unread.
	wantsCommand, wantsAnswer bool

	request requestState
	answer  answerState

	deadline   deadline
	deaf       bool          // the upstream has hung up; of the goroutine that reads it, and of run when that is over
	leaving    atomic.Bool   // a farewell has been said
	over       atomic.Bool   // the session has its end
	gone       chan struct{} // closed when it has
	asking     atomic.Bool   // a command of the client waits for a question of Weir's own
	waiting    atomic.Bool   // a command of the client waits for an approval
	cancelled  atomic.Bool   // the client has taken that command back
	unreadable atomic.Uint32 // a bit for each pinned setting that has another value
	ending     sync.Once
	end        core.End
	reason     string
	endError   error
}

// leg is one end: the connection, what has been read of it, and a lock for writing, so that a farewell never splits a
// message.
type leg struct {
	conn net.Conn
	in   []byte // read, not yet handled: in[r:w]
	r, w int
	kept []byte // where in lies between steps, when it was lent
	lent bool
	// resume has the pump that reads this leg called again after a pause; nil where it has a goroutine to wait in.
	resume func()
	buffer *[]byte // what the pump has to send is in it, or is bigger than it; nil between steps
	paused bool    // what the pump has to send waits for its record
	mu     sync.Mutex
}

const (
	smallBuffer = 8 << 10
	largeBuffer = 256 << 10
)

// borrow uses b for reading until giveBack.
func (l *leg) borrow(b []byte) {
	if held := l.in[l.r:l.w]; len(held) <= len(b)/2 {
		copy(b, held)
		l.in, l.r, l.w, l.lent = b, 0, len(held), true
	}
}

// giveBack keeps what has not been handled of a buffer that was lent.
func (l *leg) giveBack() {
	if !l.lent {
		return
	}
	l.kept = append(l.kept[:0], l.in[l.r:l.w]...)
	l.in, l.r, l.w, l.lent = l.kept, 0, len(l.kept), false
	if len(l.kept) == 0 {
		l.in, l.kept = nil, nil
	}
}

// detach leaves what has been read to the caller, if all of it has been handled and nobody else uses its memory.
func (l *leg) detach() bool {
	if l.lent || l.r < l.w {
		return false
	}
	l.in, l.kept, l.r, l.w = nil, nil, 0, 0
	return true
}

// fill reads more. It makes room for need bytes from r on, when need is not 0.
func (l *leg) fill(need int) error {
	if l.r == l.w {
		l.r, l.w = 0, 0
		if len(l.in) > largeBuffer { // one giant message does not keep its memory
			l.in = nil
		}
	}
	switch {
	case l.in == nil:
		l.in = make([]byte, max(smallBuffer, need))
	case need > len(l.in)-l.r || l.w == len(l.in):
		held := l.in[l.r:l.w]
		switch {
		case len(held) == len(l.in), need > len(l.in) && need <= largeBuffer:
			size := max(2*len(l.in), need)
			if need > largeBuffer { // grow with what really comes, not with what a header announces
				size = min(need, max(4*len(held), largeBuffer))
			}
			bigger := make([]byte, size)
			copy(bigger, held)
			l.in, l.lent = bigger, false
		case l.r > 0:
			copy(l.in, held)
		}
		l.r, l.w = 0, len(held)
	}
	n, err := l.conn.Read(l.in[l.w:])
	if n == len(l.in)-l.w && len(l.in) < largeBuffer && l.r == 0 && l.w == 0 {
		defer func() { // a full read: a stream; read more at a time
			bigger := make([]byte, min(4*len(l.in), largeBuffer))
			copy(bigger, l.in[:l.w])
			l.in = bigger
		}()
	}
	l.w += n
	if n > 0 {
		return nil
	}
	return err
}

// write sends b whole, or fails.
func (l *leg) write(ctx context.Context, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if !l.mu.TryLock() {
		core.WillWait(ctx)
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	_, err := l.conn.Write(b)
	return err
}

func newConnection(s *core.Session, r *sql.Reader, client net.Conn, u *upstream) *connection {
	c := &connection{
		session: s, reader: r, client: leg{conn: client}, server: leg{conn: u.conn},
		greeted: u.greeting, early: u.early, maxBody: s.Target.Limits.MaxFrame, idle: s.Target.Limits.Idle,
		end: core.EndError, reason: "internal error", gone: make(chan struct{}),
	}
	if c.maxBody <= 0 {
		c.maxBody = defaultMaxFrame
	}
	c.answer.rows = -1
	for _, k := range []core.Kind{core.KindColumns, core.KindRows, core.KindBytes, core.KindResult, core.KindNotice} {
		c.wantsAnswer = c.wantsAnswer || s.Wants(k)
	}
	c.wantsCommand = s.Wants(core.KindCommand) || !s.Target.AllowIncomplete || c.wantsAnswer
	c.request.portals = map[string]*portal{}
	c.deadline.limit = s.Target.Limits.StatementTimeout
	c.deadline.timer = time.NewTimer(time.Hour)
	c.deadline.timer.Stop()
	key := u.key
	c.cut = func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = cancelUpstream(ctx, &s.Target.Upstream, key)
	}
	return c
}

// greet tells the client that it is in. The record holds all of it but the sign-in's own message and the cancel key.
func (c *connection) greet(ctx context.Context) error {
	out := []byte{'R', 0, 0, 0, 8, 0, 0, 0, 0}
	out = append(out, c.greeted...)
	out = appendFrame(out, 'K', []byte(c.key))
	out = appendFrame(out, 'Z', []byte{'I'})
	wire := append(append([]byte(nil), c.greeted...), out[len(out)-6:]...)
	v := c.session.Check(ctx, &core.Event{
		Kind: core.KindNotice, Direction: core.FromUpstream, Result: &core.Result{Status: "ready"}, Wire: wire,
	})
	if v.Deny != nil {
		return v.Deny
	}
	if err := c.session.Settle(ctx, v.Mark); err != nil {
		return err
	}
	c.greeted = nil
	if err := c.client.write(ctx, out); err != nil {
		return errGone
	}
	return nil
}

// close ends both legs.
func (c *connection) close() {
	if c.keys != nil {
		c.keys.remove(c.key)
	}
	_ = c.client.conn.Close()
	_ = c.server.conn.Close()
}

// strange notes whether one of the settings that Weir reads SQL by has another value in this session. While one has,
// nothing that is said can be read, so all of it is incomplete.
func (c *connection) strange(setting string, is bool) {
	for i, p := range pinned {
		if p.key == setting {
			if is {
				c.unreadable.Or(1 << i)
			} else {
				c.unreadable.And(^uint32(1 << i))
			}
		}
	}
}

// read reads a statement by the session's settings.
func (c *connection) read(ctx context.Context, text string) *sql.Script {
	if on := c.unreadable.Load(); on != 0 {
		for i, p := range pinned {
			if on&(1<<i) != 0 {
				return sql.Unreadable(text, "the session's "+p.key+" is not "+p.value+", which Weir reads SQL by")
			}
		}
	}
	return c.catalog.called(ctx, c.reader.Read(ctx, text))
}

// quiet reports whether the session is between transactions, with nothing owed.
func (c *connection) quiet() bool {
	return c.queue.empty() && !c.asking.Load() && !c.session.InTransaction()
}

// claim notes why the session ends; the first to say so is right. Whoever tells the client claims before: a client that
// has been told may hang up at once.
func (c *connection) claim(end core.End, reason string, err error) {
	c.ending.Do(func() {
		c.end, c.reason, c.endError = end, reason, err
		c.over.Store(true)
		close(c.gone)
	})
}

// stop ends the session, for the reason given unless it has one, and makes both pumps return.
func (c *connection) stop(end core.End, reason string, err error) {
	c.claim(end, reason, err)
	past := time.Unix(1, 0)
	_ = c.client.conn.SetReadDeadline(past)
	_ = c.server.conn.SetDeadline(past)
}

// dismiss tells the client why its session ends, and ends it.
func (c *connection) dismiss(code, text string, end core.End, reason string, err error) {
	c.claim(end, reason, err)
	c.farewell(code, text)
	c.stop(end, reason, err)
}

// run carries the session until it ends.
func (c *connection) run(ctx context.Context) (end core.End, reason string, err error) {
	if len(c.early) > 0 {
		c.server.in, c.server.w, c.early = c.early, len(c.early), nil
		err := c.deliver(ctx)
		if err == nil {
			err = c.session.Settle(ctx, c.answer.settle)
		}
		if err == nil {
			err = c.forward(ctx)
		}
		if err != nil {
			c.fail(err)
		}
	}
	over := make(chan struct{}, 2)
	c.start(ctx, over)
	ending, draining := ctx.Done(), c.session.Draining()
	for pumps := 2; pumps > 0; {
		select {
		case <-over:
			pumps--
		case <-c.deadline.passed():
			c.overdue()
		case <-ending:
			ending = nil
			c.dismiss(codeAdminShutdown, "terminating connection: "+context.Cause(ctx).Error(), core.EndKilled, context.Cause(ctx).Error(), nil)
			_ = c.client.conn.SetDeadline(time.Unix(1, 0))
		case <-draining:
			draining = nil
			c.request.draining.Store(true)
			if c.quiet() {
				c.drained()
			}
		}
	}
	if !c.deaf && !c.queue.empty() { // or what nobody waits for any more outlives the session and its limits
		c.cut()
	}
	return c.end, c.reason, c.endError
}

// deadline bounds how long a command may take. It is set when a command goes upstream and cleared when nothing is owed.
type deadline struct {
	limit time.Duration // of the target; 0: none
	mu    sync.Mutex
	timer *time.Timer
	until time.Time
	asked bool // the upstream has been asked to cancel
	// policy reports that the bound is a verdict's, and not the target's.
	policy bool
}

// begin bounds the command that goes upstream now, by the target's limit and the verdict's.
func (d *deadline) begin(verdict time.Duration) {
	limit := d.limit
	if verdict > 0 && (limit == 0 || verdict < limit) {
		limit = verdict
	}
	if limit == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until, d.asked, d.policy = time.Now().Add(limit), false, limit != d.limit
	d.timer.Reset(limit)
}

func (d *deadline) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.until.IsZero() {
		d.until = time.Time{}
		d.timer.Stop()
	}
}

func (d *deadline) passed() <-chan time.Time { return d.timer.C }

// overdue asks the upstream to cancel; when that has not helped within ten seconds, the session ends.
func (c *connection) overdue() {
	d := &c.deadline
	d.mu.Lock()
	if d.until.IsZero() || time.Now().Before(d.until) {
		d.mu.Unlock()
		return
	}
	asked := d.asked
	d.asked = true
	d.until = time.Now().Add(10 * time.Second)
	d.timer.Reset(10 * time.Second)
	d.mu.Unlock()
	if asked {
		c.dismiss(codeQueryCanceled, "terminating connection: a command takes longer than limits.statement_timeout and does not stop", core.EndKilled, "a command took longer than limits.statement_timeout", nil)
		return
	}
	go c.cut()
}

// panicError keeps what a pump panicked with, for the gateway's log.
type panicError struct{ value any }

func (e *panicError) Error() string { return "postgres: a session's pump panicked" }

// drained ends a session at a quiet moment: the gateway stops, or the session's token has expired.
func (c *connection) drained() {
	why := c.session.Leaving()
	c.dismiss(codeAdminShutdown, "terminating connection: "+why, core.EndKilled, why, nil)
}

// farewellTime bounds how long a farewell waits for its record: less than the gateway gives a session whose context has
// ended, and enough for a disk that is busy.
const farewellTime = 3 * time.Second

// farewell sends the client a last message, unless one has been sent. It does not wait for a client that reads nothing.
func (c *connection) farewell(code, text string) {
	if !c.leaving.CompareAndSwap(false, true) {
		return
	}
	out := appendError(nil, "FATAL", code, text, "", "")
	ctx, cancel := context.WithTimeout(context.Background(), farewellTime)
	defer cancel()
	v := c.session.Check(ctx, &core.Event{
		Kind: core.KindNotice, Direction: core.FromGateway, Wire: out,
		Result: &core.Result{Status: "error", Code: code, Message: text},
	})
	if v.Deny == nil && c.session.Settle(ctx, v.Mark) != nil {
		return // nothing unrecorded is said; the connection just closes
	}
	_ = c.client.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_ = c.client.write(ctx, out)
}

// fail ends the session because of err, and tells the client what it may know.
func (c *connection) fail(err error) {
	var frame *frameError
	var denial *core.Denial
	switch {
	case errors.As(err, &frame):
		c.dismiss(frame.code, frame.text, core.EndError, frame.text, err)
	case errors.Is(err, core.ErrJournalLost):
		c.dismiss(codeIOError, "terminating connection: nothing can be recorded now, so nothing may pass", core.EndJournalLost, err.Error(), err)
	case errors.As(err, &denial):
		c.dismiss(codeInsufficientPrivilege, denial.Error(), core.EndError, denial.Error(), nil)
	case errors.Is(err, errIdle):
		c.dismiss(codeIdleTimeout, "terminating connection: idle for longer than limits.idle", core.EndKilled, err.Error(), nil)
	case errors.Is(err, errGone) && hungUp(err): // seen by the side that was writing to it
		c.stop(core.EndClosed, "the client hung up", nil)
	case errors.Is(err, errUpstreamGone) && hungUp(err):
		c.dismiss(codeConnectionFailure, "the target closed the connection", core.EndClosed, "the upstream hung up", nil)
	default:
		c.stop(core.EndError, "connection lost", err)
	}
}

var errUpstreamGone = errors.New("the upstream's connection failed")

var errIdle = errors.New("idle for longer than limits.idle")

// hungUp reports whether an error of a read or write only says that the other end has gone.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) || isReset(err)
}
