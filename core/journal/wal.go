package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weir-gateway/weir/core"
)

const (
	maxEntry    = 4 << 20         // bytes of one entry
	maxPiece    = 1 << 20         // bytes of a record in one entry
	maxGroup    = 16 << 20        // bytes that wait for their write; then Record waits
	takeTimeout = 1 * time.Second // how long a commit waits for a segment before the journal counts as lost
	keptBuffer  = 4 << 20         // buffers up to this many bytes are used again
	partGrows   = 512 << 10       // bytes of a part of a group, beyond which another one begins rather than that its buffer grows
	reviveEvery = 250 * time.Millisecond
)

// errFull says that the log has reached its bound because JetStream does not take what it holds.
var errFull = errors.New("the write-ahead log is full: JetStream has not taken its blocks")

// wal is the write-ahead log: entries are appended to a group in memory, and a group is written at once.
type wal struct {
	dir     string
	segSize uint64
	maxSegs int
	wipes   time.Duration // not 0: a file that has been read is removed, not used again, and none is written to for longer
	clear   bool          // the file in use holds records
	begun   time.Time     // since when; zero: it does not
	rolled  func()        // told when another file is in use
	disk    disk
	log     *slog.Logger
	// deliver takes each group when it is durable, in order; it owns the parts' bytes.
	deliver func(parts []part)
	// lost is told when everything that is not durable has been given up.
	lost func(epoch uint64)

	durable atomic.Uint64 // everything before this position is
	epoch   atomic.Uint64 // grows with each loss

	mu         sync.Mutex
	err        error  // why the log is lost; nil while it is not
	next       uint64 // the position of the next entry
	segEnd     uint64 // the end of the segment that next lies in
	parts      []part // the group that forms
	size       int    // its bytes
	since      time.Time
	forming    *group // those who wait for it
	committing bool
	alone      bool   // one waited for the last write, or nobody
	flight     *group // those who wait for the write under way
	flightEnd  uint64
	flightFrom time.Time
	pool       [][]byte
	kick       chan struct{} // asks the committer

	segMu   sync.Mutex
	segs    []*segment // in use, in order
	free    []*segment
	made    int // number for the next file's name
	freed   chan struct{}
	prepare chan struct{}
	prepErr error // why the last new segment could not be made
	extra   int   // segments beyond the bound, so that what has to be written to free others can be

	acked atomic.Int64 // when JetStream took a block last, in nanoseconds
}

// part is consecutive entries within one segment.
type part struct {
	at uint64
	b  []byte
}

// group is those who wait for one write. One of them is told to lead, or the committer is when some of them only want
// to be told.
type group struct {
	done chan struct{}
	lead chan struct{}
	then []func()
	wait int // how many wait for done or lead
}

// end tells those who wait that the write is over.
func (g *group) end() {
	if g == nil {
		return
	}
	close(g.done)
	for _, f := range g.then {
		f()
	}
}

func newGroup() *group { return &group{done: make(chan struct{}), lead: make(chan struct{}, 1)} }

// reserve makes room for an entry of up to n bytes in the group; the log is locked. A large group has several parts one behind
// the other: a buffer that grew to all of it would be copied on the way, and be too large to be used again.
func (l *wal) reserve(n int) *part {
	k := len(l.parts)
	switch {
	case l.next+uint64(n) > l.segEnd:
		l.next = l.segEnd + segmentPage
		l.segEnd += l.segSize
		l.parts = append(l.parts, part{at: l.next, b: l.buffer(n)})
	case k == 0:
		l.parts = append(l.parts, part{at: l.next, b: l.buffer(n)})
	case len(l.parts[k-1].b) >= partGrows && cap(l.parts[k-1].b)-len(l.parts[k-1].b) < n:
		l.parts = append(l.parts, part{at: l.next, b: l.buffer(max(n, 2*partGrows))})
	}
	if l.size == 0 {
		l.since = time.Now()
	}
	return &l.parts[len(l.parts)-1]
}

func (l *wal) buffer(n int) []byte {
	if k := len(l.pool); k > 0 && cap(l.pool[k-1]) >= n {
		b := l.pool[k-1]
		l.pool = l.pool[:k-1]
		return b[:0]
	}
	return make([]byte, 0, max(n, 64<<10))
}

// recycleBuffer takes back what deliver was given.
func (l *wal) recycleBuffer(b []byte) {
	if cap(b) > keptBuffer {
		return
	}
	l.mu.Lock()
	if len(l.pool) < 16 {
		l.pool = append(l.pool, b)
	}
	l.mu.Unlock()
}

// note appends a small entry of the packer's own. It never waits: the packer must not, for those who wait for room wait
// for it.
func (l *wal) note(shard uint8, session string, body []byte) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, lostError(l.err)
	}
	p := l.reserve(entryHead + len(session) + len(body))
	start := len(p.b)
	p.b = append(beginEntry(p.b, l.next, entryHeadOf, shard, session), body...)
	return l.finishEntry(p, start), nil
}

// finishEntry completes an entry whose body has been appended to p, and returns its mark.
func (l *wal) finishEntry(p *part, start int) uint64 {
	endEntry(p.b, start)
	n := len(p.b) - start
	l.size += n
	l.next += uint64(n)
	return l.next
}

// append adds an entry whose body is head and rest, a record's as several pieces where it is long, and returns its mark.
// It fails after the first pieces when the log is lost meanwhile, or ctx ends; readers drop such a beginning.
func (l *wal) append(ctx context.Context, epoch uint64, kind entryKind, shard uint8, session string, head, rest []byte) (uint64, error) {
	piece := l.piece()
	for first := true; ; first = false {
		if err := l.admit(ctx, epoch); err != nil {
			return 0, err
		}
		left := len(head) + len(rest)
		n, k := min(left, piece), kind
		switch more := left > piece; {
		case more && first:
			k = entryFirst
		case more:
			k = entryNext
		case !first:
			k = entryLast
		}
		size := entryHead + len(session) + n
		p := l.reserve(size)
		start := len(p.b)
		p.b = beginEntry(p.b, l.next, k, shard, session)
		h := min(n, len(head))
		p.b = append(append(p.b, head[:h]...), rest[:n-h]...)
		head, rest = head[h:], rest[n-h:]
		mark := l.finishEntry(p, start)
		l.mu.Unlock()
		if left == n {
			return mark, nil
		}
	}
}

// groupMost bounds a group: in bytes, and to half a segment, so that the group under way and the one that forms take
// two more segments at most.
func (l *wal) groupMost() int { return int(min(maxGroup, l.segSize/2)) }

func (l *wal) piece() int { return int(min(maxPiece, l.segSize/4)) }

// admit locks the log for what a session appends, once there is room and while the log is not lost.
func (l *wal) admit(ctx context.Context, epoch uint64) error {
	l.mu.Lock()
	for {
		switch {
		case l.err != nil:
			err := l.err
			l.mu.Unlock()
			return lostError(err)
		case l.epoch.Load() != epoch:
			l.mu.Unlock()
			return lostError(errors.New("it was lost during this session"))
		case l.size < l.groupMost():
			l.clear = true
			return nil
		}
		mark := l.next
		l.mu.Unlock()
		if err := l.settle(ctx, mark, epoch); err != nil {
			return err
		}
		l.mu.Lock()
	}
}

func lostError(err error) error { return fmt.Errorf("journal: %w: %w", core.ErrJournalLost, err) }

// settle returns once everything before mark is durable. Who comes while nobody writes, writes.
func (l *wal) settle(ctx context.Context, mark, epoch uint64) error {
	if l.durable.Load() >= mark && l.epoch.Load() == epoch { // in this order: a loss raises the epoch first
		return nil
	}
	core.WillWait(ctx)
	l.mu.Lock()
	for {
		if l.epoch.Load() != epoch {
			err := l.err
			if err == nil {
				err = errors.New("it was lost during this session")
			}
			l.mu.Unlock()
			return lostError(err)
		}
		if l.durable.Load() >= mark {
			l.mu.Unlock()
			return nil
		}
		if l.err != nil {
			err := l.err
			l.mu.Unlock()
			return lostError(err)
		}
		if !l.committing {
			if l.size == 0 {
				l.mu.Unlock()
				return fmt.Errorf("journal: mark %d is not of this journal", mark)
			}
			l.commit()
			continue
		}
		g := l.wait(mark)
		g.wait++
		l.mu.Unlock()
		select {
		case <-g.done:
		case <-g.lead:
		case <-ctx.Done():
			return ctx.Err()
		}
		l.mu.Lock()
	}
}

// settled is settle for one who does not wait: it reports whether settle would return at once, and has then called when
// it would. Where nobody else waits, nor did for the last write, it is quicker to write oneself than to be called when
// somebody has: then it is true as well.
func (l *wal) settled(mark, epoch uint64, then func()) bool {
	if l.durable.Load() >= mark {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch.Load() != epoch || l.err != nil || l.durable.Load() >= mark || !l.committing && l.size == 0 {
		return true
	}
	g := l.forming
	if l.committing {
		g = l.wait(mark)
	} else if g == nil && l.alone {
		return true
	} else if g == nil {
		g = newGroup()
		l.forming = g
	}
	g.then = append(g.then, then)
	if !l.committing {
		l.askForCommit()
	}
	return false
}

func (l *wal) askForCommit() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// committer writes for those who do not wait.
func (l *wal) committer(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.kick:
		}
		l.mu.Lock()
		for !l.committing && l.size > 0 && l.forming != nil && len(l.forming.then) > 0 {
			l.commit()
		}
		l.mu.Unlock()
	}
}

// wait returns the group that mark belongs to; the log is locked and a write is under way.
func (l *wal) wait(mark uint64) *group {
	g := &l.forming
	if mark <= l.flightEnd {
		g = &l.flight
	}
	if *g == nil {
		*g = newGroup()
	}
	return *g
}

// commit writes the group that has formed. The log is locked, and is unlocked during the write.
func (l *wal) commit() {
	parts, end := l.parts, l.next
	l.committing, l.flightEnd, l.flightFrom = true, end, l.since
	l.flight, l.forming = l.forming, nil
	l.parts, l.size = nil, 0
	l.mu.Unlock()

	start := time.Now()
	err := l.write(parts)
	commitSeconds.Observe(time.Since(start).Seconds())

	l.mu.Lock()
	l.committing = false
	done := l.flight
	l.flight = nil
	l.alone = done == nil || len(done.then)+done.wait <= 1
	if err != nil {
		l.fail(err)
	} else {
		l.deliver(parts) // before durable moves: who sees it moved and the queue empty has read everything
		l.durable.Store(end)
	}
	done.end()
	switch g := l.forming; {
	case g == nil:
	case len(g.then) > 0:
		l.askForCommit()
	default:
		g.lead <- struct{}{} // empty: a group is told once, when it is next
	}
}

// write puts the parts on the disk. One write is under way at a time.
func (l *wal) write(parts []part) error {
	for _, p := range parts {
		s, err := l.segmentAt(p.at)
		if err != nil {
			return err
		}
		if _, err := s.file.WriteAt(p.b, int64(p.at-s.base)); err != nil {
			return fmt.Errorf("writing %s: %w", s.path, err)
		}
	}
	return nil
}

// fail gives up everything that is not durable. The log is locked. What was written to the failed file, or may have
// been, is not trusted, and the file is not written again.
func (l *wal) fail(err error) {
	l.err = err
	epoch := l.epoch.Add(1)
	l.parts, l.size = nil, 0
	g := l.forming
	l.forming = nil
	g.end()
	lostGauge.Set(1)
	l.log.Error("journal: lost; nothing passes until it is back", "dir", l.dir, "error", err)
	l.lost(epoch)
}

// revive goes on with a fresh segment after the space for one has come back. It reports whether the log is usable.
func (l *wal) revive() bool {
	l.mu.Lock()
	err := l.err
	l.mu.Unlock()
	if err == nil {
		return true
	}
	if !errors.Is(err, errFull) && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return false
	}
	l.segMu.Lock()
	defer l.segMu.Unlock()
	s, err := l.take(time.Millisecond)
	if err != nil {
		return false
	}
	base := s.size
	if n := len(l.segs); n > 0 {
		base = l.segs[n-1].end()
		l.segs[n-1].stop.Store(max(l.durable.Load(), l.segs[n-1].base+segmentPage))
	}
	l.mu.Lock()
	base = max(base, l.segEnd)
	l.mu.Unlock()
	if err := s.use(base, l.durable.Load()); err != nil {
		l.log.Error("journal: a fresh segment failed too", "error", err)
		return false
	}
	l.segs = append(l.segs, s)
	l.mu.Lock()
	l.next, l.segEnd = base+segmentPage, base+s.size
	l.durable.Store(l.next)
	l.err = nil
	l.mu.Unlock()
	lostGauge.Set(0)
	l.log.Info("journal: back")
	return true
}

// flusher writes what nobody waits for once it is flushAfter old.
func (l *wal) flusher(ctx context.Context) {
	tick := time.NewTicker(flushAfter)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			l.mu.Lock()
			if l.size > 0 && !l.committing && now.Sub(l.since) >= flushAfter/2 {
				l.commit()
			}
			lagBytes.Set(float64(l.next - min(l.next, l.durable.Load())))
			if l.clear && l.begun.IsZero() {
				l.begun = now
			}
			old := l.wipes != 0 && l.clear && now.Sub(l.begun) >= l.wipes
			l.mu.Unlock()
			if old {
				l.roll()
			}
		}
	}
}

// behind reports whether more than the bounded promise allows is not durable.
func (l *wal) behind(window time.Duration, bytes int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := uint64(0)
	var oldest time.Time
	switch {
	case l.committing:
		n, oldest = l.next-min(l.next, l.durable.Load()), l.flightFrom
	case l.size > 0:
		n, oldest = uint64(l.size), l.since
	default:
		return false
	}
	return n > uint64(bytes) || time.Since(oldest) > window
}

// position returns where the log is.
func (l *wal) position() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// read calls f with the entries of a range that is durable.
func (l *wal) read(from, to uint64, f func(entry) error) error {
	l.segMu.Lock()
	segs := append([]*segment(nil), l.segs...)
	l.segMu.Unlock()
	for _, s := range segs {
		if s.end() <= from || s.base >= to {
			continue
		}
		if _, err := s.read(from, to, f); err != nil {
			return err
		}
	}
	return nil
}

func (l *wal) close() error {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	var errs []error
	for _, s := range append(l.segs, l.free...) {
		errs = append(errs, s.file.Close())
	}
	l.segs, l.free = nil, nil
	return errors.Join(errs...)
}
