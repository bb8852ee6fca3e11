package wasm

import (
	"context"
	"errors"
	"sync"
)

var errClosed = errors.New("the plugin is closed")

// pool keeps instances that are not in use. At most so many are alive at a time; who wants one more waits.
type pool struct {
	mu     sync.Mutex
	free   []*instance
	live   int
	most   int
	closed bool
	wait   []chan struct{} // who waits, the first one first
	gone   chan struct{}   // closed when the pool is closed and nothing of it is in use
}

func newPool(most int) *pool { return &pool{most: most, gone: make(chan struct{})} }

func (p *pool) add(in *instance) {
	p.mu.Lock()
	p.free = append(p.free, in)
	p.live++
	p.mu.Unlock()
}

// get returns an instance, or nil when the caller is to make one: either way put or lost must follow.
func (p *pool) get(ctx context.Context) (*instance, error) {
	for {
		p.mu.Lock()
		switch n := len(p.free); {
		case p.closed:
			p.mu.Unlock()
			return nil, errClosed
		case n > 0:
			in := p.free[n-1]
			p.free = p.free[:n-1]
			p.mu.Unlock()
			return in, nil
		case p.live < p.most:
			p.live++
			p.mu.Unlock()
			return nil, nil
		}
		turn := make(chan struct{}, 1)
		p.wait = append(p.wait, turn)
		p.mu.Unlock()
		select {
		case <-turn:
		case <-ctx.Done():
			p.mu.Lock()
			select {
			case <-turn: // it came after all: hand it on
				p.next()
			default:
			}
			p.mu.Unlock()
			return nil, context.Cause(ctx)
		}
	}
}

// put gives an instance back.
func (p *pool) put(in *instance) {
	p.mu.Lock()
	if p.closed {
		p.live--
		p.end()
		p.mu.Unlock()
		in.discard()
		return
	}
	p.free = append(p.free, in)
	p.next()
	p.mu.Unlock()
}

// lost says that an instance is no more, or was not made.
func (p *pool) lost() {
	p.mu.Lock()
	p.live--
	p.end()
	p.next()
	p.mu.Unlock()
}

// next wakes the first that waits.
func (p *pool) next() {
	if len(p.wait) > 0 {
		p.wait[0] <- struct{}{}
		p.wait = p.wait[1:]
	}
}

func (p *pool) end() {
	if p.closed && p.live == 0 {
		select {
		case <-p.gone:
		default:
			close(p.gone)
		}
	}
}

// close discards what is free, lets nobody in, and waits until what is in use was given back.
func (p *pool) close(ctx context.Context) error {
	p.mu.Lock()
	free := p.free
	p.free, p.closed = nil, true
	p.live -= len(free)
	p.end()
	for range p.wait {
		p.next()
	}
	p.mu.Unlock()
	for _, in := range free {
		in.discard()
	}
	select {
	case <-p.gone:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
