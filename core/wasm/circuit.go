package wasm

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A plugin that keeps running out of time, or of stack, costs each session a deadline for nothing. After so many in a row its circuit
// opens: events are refused at once. After a while one event is let through to try; the while doubles each time that
// it fails.
const (
	slowMost  = 5
	shortWait = time.Second
	longWait  = 30 * time.Second
)

type circuit struct {
	slow atomic.Int32 // calls in a row that did so

	mu      sync.Mutex
	open    bool
	probing bool
	wait    time.Duration
	until   time.Time
	now     func() time.Time
}

type openError struct{ left time.Duration }

func (e *openError) Error() string {
	return fmt.Sprintf("it has run out of time or of stack %d times in a row, so it is not asked for another %v", slowMost, max(e.left, 0).Round(time.Millisecond))
}

// allow says whether the plugin may be asked now. Who is let in as a probe must say so to done.
func (c *circuit) allow() (probe bool, err error) {
	if c.slow.Load() < slowMost {
		return false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.open {
		return false, nil
	}
	left := c.until.Sub(c.now())
	if left > 0 || c.probing {
		return false, &openError{left}
	}
	c.probing = true
	return true, nil
}

// outcome is what a call says of its plugin's speed.
type outcome int

const (
	inTime  outcome = iota // whatever it answered
	late                   // it was stopped
	unasked                // it was not asked after all
)

// done takes note of a call. It reports whether the circuit has opened or closed by that.
func (c *circuit) done(o outcome, probe bool) (opened, closed bool) {
	switch {
	case o == unasked && !probe:
		return false, false
	case o == inTime && !probe:
		if c.slow.Load() > 0 {
			c.mu.Lock()
			if !c.open { // one that began before it opened does not close it
				c.slow.Store(0)
			}
			c.mu.Unlock()
		}
		return false, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if probe {
		c.probing = false
	}
	switch {
	case o == unasked:
	case o == inTime:
		c.open, c.wait = false, 0
		c.slow.Store(0)
		return false, true
	case probe:
		c.wait = min(2*c.wait, longWait)
		c.until = c.now().Add(c.wait)
	case !c.open && c.slow.Add(1) >= slowMost:
		c.open, c.wait = true, shortWait
		c.until = c.now().Add(c.wait)
		return true, false
	}
	return false, false
}
