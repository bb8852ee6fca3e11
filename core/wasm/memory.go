package wasm

import (
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tetratelabs/wazero/experimental"
)

// defaultMemory is what all guests of a host may have together.
const defaultMemory = 1 << 30

// budget bounds the memory of all guests of a host: limits.memory bounds one instance, and this all of them, with their number
// whatever the sessions make it.
type budget struct {
	most, used atomic.Int64
	refused    prometheus.Counter
}

// take asks for memory. It must be given back.
func (b *budget) take(n int64) bool {
	if b.used.Add(n) <= b.most.Load() {
		return true
	}
	b.used.Add(-n)
	b.refused.Inc()
	return false
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// errMemory says that the guests have all the memory that they may have.
func (b *budget) errMemory() error {
	return fmt.Errorf("%w: all plugins together may have %d MiB of memory, and have it (raise plugin_memory)", errBusy, b.most.Load()>>20)
}

// memory is the linear memory of one instance.
type memory struct {
	budget *budget
	b      []byte
	max    uint64
	held   int64 // of the budget
	short  bool  // it was refused more in this call
}

// newMemory holds what an instance begins with, or nil: there is no room for it.
func newMemory(b *budget, begin int64) *memory {
	if !b.take(begin) {
		return nil
	}
	return &memory{budget: b, held: begin}
}

// Allocate implements experimental.MemoryAllocator. An instance has one memory.
func (m *memory) Allocate(_, most uint64) experimental.LinearMemory {
	m.max = most
	return m
}

// Reallocate implements experimental.LinearMemory.
func (m *memory) Reallocate(size uint64) []byte {
	if size <= uint64(cap(m.b)) {
		m.b = m.b[:size]
		return m.b
	}
	room := size
	if m.b != nil { // one that grows may do so again, and each time is a copy
		room = min(size+size/8, m.max)
	}
	if more := int64(room) - m.held; more > 0 && !m.budget.take(more) {
		room = size
		if more = int64(room) - m.held; more > 0 && !m.budget.take(more) {
			m.short = true
			return nil
		}
	}
	m.held = max(m.held, int64(room))
	b := make([]byte, size, room)
	copy(b, m.b)
	m.b = b
	return b
}

// Free implements experimental.LinearMemory.
func (m *memory) Free() {
	m.budget.give(m.held)
	m.b, m.held = nil, 0
}

var (
	_ experimental.MemoryAllocator = (*memory)(nil)
	_ experimental.LinearMemory    = (*memory)(nil)
)
