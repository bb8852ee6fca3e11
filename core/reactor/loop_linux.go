package reactor

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	standby  = 16                   // goroutines of a loop that are kept for its next change of leader
	overtime = 5 * time.Millisecond // after which a step has lost its thread to the others
	restTime = 2 * time.Millisecond // after which a connection that waits for much takes what there is
	lowWater = 64 << 10             // bytes that a connection in bulk mode waits for
	bell     = 0                    // the number of a loop's bell; connections have others
	batch    = 128                  // connections that one call of the kernel may name
)

// Reactor is a set of loops.
type Reactor struct {
	loops []*loop
	next  atomic.Uint32

	parked atomic.Bool // the watch is asleep
	wake   chan struct{}
}

var (
	once   sync.Once
	shared *Reactor
	failed error
)

// Shared returns the process's reactor, which is made at the first call and never ends.
func Shared() (*Reactor, error) {
	once.Do(func() {
		n := runtime.GOMAXPROCS(0)
		loops := max(1, n/2)
		if shared, failed = start(loops); failed == nil {
			// A loop that waits for the kernel holds none of Go's processors. When it comes back it must find one at
			// once, and not after some other goroutine's ten milliseconds: the kernel is the better judge of who is next.
			runtime.GOMAXPROCS(n + 2*loops)
		}
	})
	return shared, failed
}

func start(loops int) (*Reactor, error) {
	r := &Reactor{wake: make(chan struct{}, 1)}
	for range loops {
		fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("reactor: %w", err)
		}
		l := &loop{r: r, fd: fd, conns: map[int32]*Conn{}, waiting: make(chan *turn, standby)}
		if l.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			return nil, fmt.Errorf("reactor: %w", err)
		}
		if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, l.bell, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: bell}); err != nil {
			return nil, fmt.Errorf("reactor: %w", err)
		}
		r.loops = append(r.loops, l)
		go l.lead(newTurn(l))
	}
	go r.watch()
	return r, nil
}

// watch takes the thread of steps that compute for too long.
func (r *Reactor) watch() {
	seen := make([]uint64, len(r.loops))
	for idle := 0; ; {
		time.Sleep(overtime)
		idle++
		for i, l := range r.loops {
			t := l.leader.Load()
			if t == nil {
				continue
			}
			n := t.steps.Load()
			if n != seen[i] {
				idle = 0
			} else if n%2 == 1 { // in the same step as a tick ago
				idle = 0
				t.release()
			}
			seen[i] = n
		}
		if idle > 20 {
			r.parked.Store(true) // from now on an event wakes it; one that came before is seen
			if r.still(seen) || !r.parked.CompareAndSwap(true, false) {
				<-r.wake
			}
			idle = 0
		}
	}
}

// still reports whether no step runs, and none has since seen was written.
func (r *Reactor) still(seen []uint64) bool {
	for i, l := range r.loops {
		if t := l.leader.Load(); t != nil && (t.steps.Load() != seen[i] || seen[i]%2 == 1) {
			return false
		}
	}
	return true
}

// loop is one epoll set. One goroutine at a time leads it: asks for events, and runs the steps.
type loop struct {
	r       *Reactor
	fd      int
	leader  atomic.Pointer[turn]
	waiting chan *turn // goroutines that have led and may again

	mu    sync.Mutex
	conns map[int32]*Conn
	last  int32
	again []*Conn // whose steps are to be called again
	bell  int     // an eventfd: rung when again is no longer empty
}

// turn is a goroutine that leads, has led, or will lead a loop.
type turn struct {
	l      *loop
	leads  atomic.Bool
	steps  atomic.Uint64 // odd while in a step
	again  chan struct{}
	buffer []byte
}

func newTurn(l *loop) *turn {
	t := &turn{l: l, again: make(chan struct{}, 1), buffer: make([]byte, BufferSize)}
	t.leads.Store(true)
	return t
}

// release lets another goroutine lead the loop; any goroutine may call it.
func (t *turn) release() {
	if !t.leads.CompareAndSwap(true, false) {
		return
	}
	select {
	case next := <-t.l.waiting:
		next.leads.Store(true)
		next.again <- struct{}{}
	default:
		go t.l.lead(newTurn(t.l))
	}
}

// lead runs the loop until somebody else leads, over and over.
func (l *loop) lead(t *turn) {
	for {
		l.leader.Store(t)
		if l.callAgain(t) { // what the one before could not come to
			l.poll(t)
		}
		select {
		case l.waiting <- t:
			<-t.again
		default:
			return
		}
	}
}

// poll runs the loop while t leads it.
func (l *loop) poll(t *turn) {
	var events [batch]unix.EpollEvent
	var ready [batch]*Conn
	for {
		n, err := pending(l.fd, events[:])
		if n == 0 && err == nil {
			n, err = unix.EpollWait(l.fd, events[:], -1)
		}
		if err != nil && err != unix.EINTR {
			panic(fmt.Sprintf("reactor: epoll_wait: %v", err)) // the set is ours: this cannot be
		}
		if n <= 0 {
			continue
		}
		if l.r.parked.Load() && l.r.parked.CompareAndSwap(true, false) {
			l.r.wake <- struct{}{}
		}
		rung := false
		l.mu.Lock()
		for i := range n {
			ready[i] = l.conns[events[i].Fd]
			rung = rung || events[i].Fd == bell
		}
		l.mu.Unlock()
		if rung && !l.callAgain(t) {
			return
		}
		for i := range n {
			c := ready[i]
			ready[i] = nil
			if c != nil && c.begin(events[i].Events) && !t.call(c) {
				return
			}
		}
	}
}

// call runs a connection's step, and reports whether t still leads.
func (t *turn) call(c *Conn) bool {
	t.steps.Add(1)
	c.turn.Store(t)
	c.run(t.buffer)
	c.turn.Store(nil)
	t.steps.Add(1)
	return t.leads.Load()
}

// resume has the step of a connection called that had paused.
func (l *loop) resume(c *Conn) {
	l.mu.Lock()
	first := len(l.again) == 0
	l.again = append(l.again, c)
	l.mu.Unlock()
	if first {
		ring(l.bell)
	}
}

// callAgain calls the steps that were resumed. It reports whether t still leads; else somebody else goes on. Each stays
// in the list until its turn comes: one that waits holds up none of the others.
func (l *loop) callAgain(t *turn) bool {
	l.mu.Lock()
	n := len(l.again)
	l.mu.Unlock()
	leads := true
	for ; n > 0 && leads; n-- {
		c := l.next()
		if c == nil {
			return true
		}
		leads = t.call(c)
	}
	l.mu.Lock()
	more := len(l.again) > 0
	l.mu.Unlock()
	if more {
		ring(l.bell)
	}
	return leads
}

// next takes the first of the connections whose steps are to be called again.
func (l *loop) next() *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.again) == 0 {
		return nil
	}
	c := l.again[0]
	l.again = l.again[1:]
	return c
}
