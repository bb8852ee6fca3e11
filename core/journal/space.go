package journal

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// The log's room: segments are made ahead of their use, taken in order, and used again when JetStream has what is in them.

// segmentAt returns the segment that holds a position, and takes the next free one when it is a new one's first.
func (l *wal) segmentAt(at uint64) (*segment, error) {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	if n := len(l.segs); n > 0 && at < l.segs[n-1].end() {
		return l.segs[n-1], nil
	}
	s, err := l.take(takeTimeout)
	if err != nil {
		return nil, err
	}
	if err := s.use(at-segmentPage, 0); err != nil {
		return nil, fmt.Errorf("writing %s: %w", s.path, err)
	}
	l.segs = append(l.segs, s)
	walSegments.Set(float64(len(l.segs)))
	return s, nil
}

// take returns a free segment; segMu is locked, and is unlocked while it waits for one. While JetStream goes on taking
// blocks a full log is back-pressure; when it has not taken one for as long as patience, the log is lost.
func (l *wal) take(patience time.Duration) (*segment, error) {
	start := time.Now()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		l.askForMore()
		full := len(l.segs) >= l.maxSegs+l.extra
		if n := len(l.free); n > 0 && !full {
			s := l.free[n-1]
			l.free = l.free[:n-1]
			return s, nil
		}
		waited := time.Since(start)
		switch idle := time.Since(time.Unix(0, l.acked.Load())); {
		case full && waited >= patience && idle >= patience:
			return nil, errFull
		case !full && waited >= patience && l.prepErr != nil:
			return nil, fmt.Errorf("new segment: %w", l.prepErr)
		case !full && waited >= 5*patience:
			return nil, errors.New("new segment: the disk is too slow")
		}
		timer.Reset(min(patience, 100*time.Millisecond))
		l.segMu.Unlock()
		select {
		case <-l.freed:
		case <-timer.C:
		}
		l.segMu.Lock()
	}
}

// restartSize is the size of the first segment of a log that has others to be read. A process that does not stay up, while
// JetStream takes nothing, takes one with each start: of the usual size they would soon fill the disk, and then none starts.
const restartSize = 4 << 20

// first returns the segment that the log begins with; segMu is locked.
func (l *wal) first() (*segment, error) {
	if len(l.segs) > 0 && l.segSize > restartSize {
		s, err := createSegment(l.disk, l.path(l.made), restartSize)
		if l.made++; err == nil {
			return s, nil
		}
	}
	return l.take(30 * time.Second)
}

func (l *wal) path(n int) string { return filepath.Join(l.dir, fmt.Sprintf("%08d%s", n, segmentExt)) }

// allowExtra lets the log grow beyond its bound, or what it has grown to, by n segments; 0: no longer.
func (l *wal) allowExtra(n int) {
	l.segMu.Lock()
	l.extra = n
	if n > 0 {
		l.extra += max(0, len(l.segs)-l.maxSegs)
	}
	l.segMu.Unlock()
	l.askForMore()
	l.signalFreed()
}

func (l *wal) askForMore() {
	select {
	case l.prepare <- struct{}{}:
	default:
	}
}

// preparer keeps one segment ready beyond the one in use.
func (l *wal) preparer(ctx context.Context) {
	retry := time.NewTicker(reviveEvery)
	defer retry.Stop()
	for {
		l.segMu.Lock()
		want := len(l.free) == 0 && len(l.segs) < l.maxSegs+l.extra
		n := l.made
		if want {
			l.made++
		}
		l.segMu.Unlock()
		if want {
			s, err := createSegment(l.disk, l.path(n), l.segSize)
			l.segMu.Lock()
			if err != nil && l.prepErr == nil {
				l.log.Error("journal: no new log segment can be made", "dir", l.dir, "error", err)
			}
			l.prepErr = err
			if err == nil {
				l.free = append(l.free, s)
			}
			l.segMu.Unlock()
			if err == nil {
				l.signalFreed()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-l.prepare:
		case <-retry.C:
		}
	}
}

func (l *wal) signalFreed() {
	select {
	case l.freed <- struct{}{}:
	default:
	}
}

// recyclable returns the end of the last segment that lies wholly before a position and is not the one in use.
func (l *wal) recyclable(before uint64) uint64 {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	end := uint64(0)
	for i, s := range l.segs {
		if i == len(l.segs)-1 || s.end() > before {
			break
		}
		end = s.end()
	}
	return end
}

// kept is how many free segments stay. A burst that took more has them at hand for the next: to fill a file with zeros costs as
// much as to write the log.
func (l *wal) kept() int { return max(2, l.maxSegs/2) }

// recycle frees the segments that end at or before a position, oldest first.
func (l *wal) recycle(end uint64) error {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	for len(l.segs) > 0 && l.segs[0].end() <= end {
		s := l.segs[0]
		if s.stop.Load() != 0 || s.size != l.segSize || len(l.free) >= l.kept() || l.wipes != 0 { // failed once, of another size, more than needed, or not to be kept
			if err := errors.Join(s.file.Close(), l.disk.remove(s.path)); err != nil {
				return fmt.Errorf("journal: removing %s: %w", s.path, err)
			}
		} else {
			if err := s.release(); err != nil {
				return fmt.Errorf("journal: freeing %s: %w", s.path, err)
			}
			l.free = append(l.free, s)
		}
		l.segs = l.segs[1:]
		walSegments.Set(float64(len(l.segs)))
		l.signalFreed()
	}
	return nil
}

// roll goes on in another file, so that the one in use can be removed once JetStream has what is in it: records lie there in
// clear. It does nothing while something is being written, when there is no file yet, or when an earlier one is still to be removed,
// for then JetStream is behind, and files would only add up; the next call may.
func (l *wal) roll() {
	l.segMu.Lock()
	defer l.segMu.Unlock()
	n := len(l.free)
	if n == 0 || len(l.segs) != 1 {
		l.askForMore()
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || l.committing || l.size > 0 || l.durable.Load() != l.next || l.segs[0].end() != l.segEnd {
		return
	}
	s, base := l.free[n-1], l.segEnd
	l.free = l.free[:n-1]
	if err := s.use(base, 0); err != nil { // a disk that fails shows when records are written; this file is not trusted any more
		l.log.Error("journal: a fresh segment failed", "error", err)
		_ = s.file.Close()
		return
	}
	l.segs = append(l.segs, s)
	walSegments.Set(float64(len(l.segs)))
	l.next, l.segEnd, l.clear, l.begun = base+segmentPage, base+s.size, false, time.Time{}
	l.durable.Store(l.next)
	l.askForMore()
	l.rolled()
}
