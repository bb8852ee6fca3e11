package journal

import "sync"

// span is a range of the log that is durable. Its bytes are at hand, or have to be read from the log.
type span struct {
	from, to uint64
	b        []byte
	// loss, when not 0, says instead that the log was lost: sessions of an earlier epoch end here.
	loss uint64
}

// queue is what the packer has yet to read: a cache of the log's tail. Over its bound it drops bytes, never spans.
type queue struct {
	mu    sync.Mutex
	spans []span
	bytes int // of memory: a buffer that is used again may be far larger than what is in it
	bound int
	wake  chan struct{}
}

// add takes a group that has become durable. It returns false when the bytes are not kept.
func (q *queue) add(s span) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	kept := s.b != nil
	if kept && q.bytes+cap(s.b) > q.bound {
		s.b, kept = nil, false
	}
	q.bytes += cap(s.b)
	if n := len(q.spans); s.b == nil && s.loss == 0 && n > 0 && q.spans[n-1].b == nil && q.spans[n-1].loss == 0 {
		q.spans[n-1].to = s.to // one long read instead of many
	} else {
		q.spans = append(q.spans, s)
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return kept
}

// first returns the next span without taking it.
func (q *queue) first() (span, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.spans) == 0 {
		return span{}, false
	}
	return q.spans[0], true
}

// drop takes the first span up to a position.
func (q *queue) drop(to uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := &q.spans[0]
	if s.loss == 0 && to < s.to {
		s.from = to
		return
	}
	q.bytes -= cap(s.b)
	q.spans[0] = span{}
	q.spans = q.spans[1:]
	if len(q.spans) == 0 {
		q.spans = nil
	}
}
