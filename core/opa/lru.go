package opa

import "sync"

// lru keeps the entries used last, in shards that are locked one by one.
type lru[K comparable, V any] struct {
	shards [16]shard[K, V]
	which  func(K) uint64
}

type shard[K comparable, V any] struct {
	mu      sync.Mutex
	entries map[K]*node[K, V]
	root    node[K, V] // a ring: root.next was used last, root.prev longest ago
	most    int
}

type node[K comparable, V any] struct {
	next, prev *node[K, V]
	key        K
	value      V
}

// newLRU returns one for about n entries; which spreads keys over the shards.
func newLRU[K comparable, V any](n int, which func(K) uint64) *lru[K, V] {
	l := &lru[K, V]{which: which}
	for i := range l.shards {
		s := &l.shards[i]
		s.most = max(1, n/len(l.shards))
		s.entries = make(map[K]*node[K, V])
		s.root.next, s.root.prev = &s.root, &s.root
	}
	return l
}

func (l *lru[K, V]) get(k K) (v V, ok bool) {
	s := &l.shards[l.which(k)%uint64(len(l.shards))]
	s.mu.Lock()
	n, ok := s.entries[k]
	if ok {
		v = n.value
		if s.root.next != n {
			n.unlink()
			s.front(n)
		}
	}
	s.mu.Unlock()
	return v, ok
}

func (l *lru[K, V]) put(k K, v V) {
	s := &l.shards[l.which(k)%uint64(len(l.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := s.entries[k]; ok {
		n.value = v
		return
	}
	n := &node[K, V]{key: k, value: v}
	if len(s.entries) >= s.most {
		old := s.root.prev
		old.unlink()
		delete(s.entries, old.key)
	}
	s.entries[k] = n
	s.front(n)
}

func (l *lru[K, V]) len() (n int) {
	for i := range l.shards {
		l.shards[i].mu.Lock()
		n += len(l.shards[i].entries)
		l.shards[i].mu.Unlock()
	}
	return n
}

func (s *shard[K, V]) front(n *node[K, V]) {
	n.prev, n.next = &s.root, s.root.next
	n.prev.next, n.next.prev = n, n
}

func (n *node[K, V]) unlink() { n.prev.next, n.next.prev = n.next, n.prev }
