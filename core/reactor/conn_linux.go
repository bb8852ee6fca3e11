package reactor

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a connection that a reactor carries. Unlike other connections its Read never waits.
type Conn struct {
	l      *loop
	id     int32
	fd     int
	local  net.Addr
	remote net.Addr
	peer   *Conn
	step   Step
	turn   atomic.Pointer[turn] // of the loop that runs the step; nil: none does

	use sync.RWMutex // held for reading while the descriptor is used

	mu         sync.Mutex
	registered uint32 // what the kernel watches for
	attached   bool   // the step is to be called
	running    bool   // it is being called, or has paused
	paused     bool   // it is to be called after Resume
	resumed    bool   // Resume came before the step had paused
	muted      bool   // reading is not watched: something came while the step was running elsewhere
	expired    bool   // the deadline for reading has passed
	closed     bool
	bulk       bool // it is readable when there is much
	rest       *time.Timer
	timer      *time.Timer
	readUntil  time.Time
	writeUntil time.Time
	writer     chan struct{} // closed when the one who waits for writing should look again
}

var _ net.Conn = (*Conn)(nil)

// Pair takes two clear-text connections that belong together; from then on only the results may be used. It reports
// false, and has done nothing, when they cannot be carried: they are encrypted, or not sockets.
func (r *Reactor) Pair(a, b net.Conn) (_, _ *Conn, ok bool) {
	first, err := duplicate(a)
	if err != nil {
		return nil, nil, false
	}
	second, err := duplicate(b)
	if err != nil {
		_ = unix.Close(first)
		return nil, nil, false
	}
	l := r.loops[int(r.next.Add(1))%len(r.loops)]
	x, y := l.conn(first, a), l.conn(second, b)
	x.peer, y.peer = y, x
	_ = a.Close() // the runtime stops to watch it; the duplicate lives on
	_ = b.Close()
	return x, y, true
}

// duplicate returns a descriptor of a socket of its own.
func duplicate(c net.Conn) (int, error) {
	var raw syscall.RawConn
	var err error
	switch c := c.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
	case interface{ Socket() net.Conn }: // a socket with nothing read ahead of who reads it; nil: something is
		return duplicate(c.Socket())
	default:
		return 0, os.ErrInvalid
	}
	if err != nil {
		return 0, err
	}
	fd := -1
	if e := raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return 0, e
	}
	return fd, err
}

func (l *loop) conn(fd int, was net.Conn) *Conn {
	c := &Conn{l: l, fd: fd, local: was.LocalAddr(), remote: was.RemoteAddr()}
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		l.last++
		if _, taken := l.conns[l.last]; !taken {
			break
		}
	}
	c.id = l.last
	l.conns[c.id] = c
	return c
}

// Attach has s called from now on whenever there is something to read: bytes, the end, a deadline that has passed.
func (c *Conn) Attach(s Step) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.step, c.attached = s, true
	c.watch()
	c.nudge()
}

// Yield says that the step that runs is about to wait.
func (c *Conn) Yield() {
	if t := c.turn.Load(); t != nil {
		t.release()
	}
}

// watch tells the kernel what to watch for; c is locked.
func (c *Conn) watch() {
	want := uint32(0)
	if c.attached && !c.muted && !c.closed {
		want |= unix.EPOLLIN
	}
	if c.writer != nil && !c.closed {
		want |= unix.EPOLLOUT
	}
	if want == c.registered {
		return
	}
	op := unix.EPOLL_CTL_MOD
	switch {
	case c.registered == 0:
		op = unix.EPOLL_CTL_ADD
	case want == 0:
		op = unix.EPOLL_CTL_DEL
	}
	c.registered = want
	_ = unix.EpollCtl(c.l.fd, op, c.fd, &unix.EpollEvent{Events: want, Fd: c.id}) // fails only for a closed descriptor
}

// begin takes what the kernel reported, and reports whether the step is to be run.
func (c *Conn) begin(events uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if events&^unix.EPOLLIN != 0 {
		c.wakeWriter()
	}
	run := events&^unix.EPOLLOUT != 0 && c.attached && !c.running
	if run {
		c.running = true
	} else if c.running {
		c.muted = true
	}
	c.watch()
	return run
}

// run calls the step until it has nothing to do.
func (c *Conn) run(buffer []byte) {
	for {
		next := c.step(buffer)
		c.mu.Lock()
		switch {
		case next == Over:
			c.attached = false
		case next == Paused && c.resumed, next == Again && (c.expired || c.closed):
			c.resumed = false
			c.mu.Unlock()
			continue
		case next == Paused:
			c.paused = true
			c.mu.Unlock()
			return
		}
		c.running, c.muted = false, false
		if !c.closed {
			c.watch()
		}
		c.mu.Unlock()
		return
	}
}

// Resume has a step called again that has paused, or is about to. It does not wait, and is called once for each pause.
func (c *Conn) Resume() {
	c.mu.Lock()
	paused := c.paused
	c.paused, c.resumed = false, !paused
	c.mu.Unlock()
	if paused {
		c.l.resume(c)
	}
}

// nudge has the step called although there may be nothing to read; c is locked.
func (c *Conn) nudge() {
	if c.attached && !c.running && (c.expired || c.closed) {
		c.running = true
		go func() { c.run(make([]byte, 4096)) }()
	}
}

func (c *Conn) wakeWriter() {
	if c.writer != nil {
		close(c.writer)
		c.writer = nil
	}
}

// Read reads what has come. It returns ErrAgain when nothing has.
func (c *Conn) Read(b []byte) (int, error) {
	c.use.RLock()
	defer c.use.RUnlock()
	c.mu.Lock()
	closed, expired := c.closed, c.expired
	c.mu.Unlock()
	switch {
	case closed:
		return 0, net.ErrClosed
	case expired:
		return 0, os.ErrDeadlineExceeded
	}
	for {
		n, err := read(c.fd, b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return 0, ErrAgain
		case err != nil:
			return 0, &net.OpError{Op: "read", Net: c.remote.Network(), Addr: c.remote, Err: os.NewSyscallError("read", err)}
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write writes all of b, or fails.
func (c *Conn) Write(b []byte) (written int, err error) {
	for {
		n, err := c.write(b[written:])
		if written += n; err != nil || written == len(b) {
			return written, err
		}
		if c.peer != nil {
			c.peer.Yield() // it is the peer's step that writes here
		}
		c.mu.Lock()
		if c.writer == nil {
			c.writer = make(chan struct{})
		}
		again, until := c.writer, c.writeUntil
		c.watch()
		c.mu.Unlock()
		if until.IsZero() {
			<-again
			continue
		}
		t := time.NewTimer(time.Until(until))
		select {
		case <-again:
		case <-t.C:
		}
		t.Stop()
	}
}

// write writes what there is room for.
func (c *Conn) write(b []byte) (written int, err error) {
	c.use.RLock()
	defer c.use.RUnlock()
	c.mu.Lock()
	closed, until := c.closed, c.writeUntil
	c.mu.Unlock()
	switch {
	case closed:
		return 0, net.ErrClosed
	case !until.IsZero() && !time.Now().Before(until):
		return 0, os.ErrDeadlineExceeded
	}
	for written < len(b) {
		n, err := send(c.fd, b[written:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return written, nil
		case err != nil:
			return written, &net.OpError{Op: "write", Net: c.remote.Network(), Addr: c.remote, Err: os.NewSyscallError("write", err)}
		default:
			written += n
		}
	}
	return written, nil
}

// Bulk has the step called only when there is much to read, or when nothing more has come for two milliseconds after
// the last call of Bulk(true), which ends it as Bulk(false) does.
func (c *Conn) Bulk(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed || !on && !c.bulk:
	case !on:
		c.rest.Stop()
		c.low(false)
	default:
		if c.rest == nil {
			c.rest = time.AfterFunc(restTime, c.brisk)
		} else {
			c.rest.Reset(restTime)
		}
		if !c.bulk {
			c.low(true)
		}
	}
}

// brisk is the timer's: what has come is little, and all there is for now.
func (c *Conn) brisk() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed && c.bulk {
		c.low(false)
	}
}

// low sets how much makes the connection readable; c is locked, and its descriptor is open.
func (c *Conn) low(bulk bool) {
	n := 1
	if bulk {
		n = lowWater
	}
	c.bulk = bulk
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n) // where it cannot be set, pieces come as they come
}

// Close ends the connection. A step that waits for it is called a last time.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	c.wakeWriter()
	if c.registered != 0 {
		c.registered = 0
		_ = unix.EpollCtl(c.l.fd, unix.EPOLL_CTL_DEL, c.fd, nil)
	}
	for _, t := range []*time.Timer{c.timer, c.rest} {
		if t != nil {
			t.Stop()
		}
	}
	c.nudge()
	c.mu.Unlock()
	c.l.mu.Lock()
	delete(c.l.conns, c.id)
	c.l.mu.Unlock()
	c.use.Lock() // whoever uses the descriptor does not wait
	defer c.use.Unlock()
	return unix.Close(c.fd)
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline has the step called at t, unless it is zero; Read fails from then on.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.readUntil = t
	wait := time.Until(t)
	c.expired = !t.IsZero() && wait <= 0
	switch {
	case t.IsZero() || c.expired:
		if c.timer != nil {
			c.timer.Stop()
		}
		c.nudge()
	case c.timer == nil:
		c.timer = time.AfterFunc(wait, c.expire)
	default:
		c.timer.Reset(wait)
	}
	return nil
}

// expire is the timer's.
func (c *Conn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed && !c.readUntil.IsZero() && !time.Now().Before(c.readUntil) {
		c.expired = true
		c.nudge()
	}
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.writeUntil = t
	c.wakeWriter()
	return nil
}
