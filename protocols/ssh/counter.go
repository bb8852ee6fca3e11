package ssh

import "sync"

// counter counts what is open. Its zero value counts nothing yet.
type counter struct {
	mu    sync.Mutex
	n     int
	empty chan struct{} // closed when there is none; nil: nobody has asked
}

// enter counts one more, unless there are that many.
func (c *counter) enter(most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n >= most {
		return false
	}
	c.n++
	return true
}

func (c *counter) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 && c.empty != nil {
		close(c.empty)
		c.empty = nil
	}
}

// none is closed once there is none.
func (c *counter) none() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == 0 {
		now := make(chan struct{})
		close(now)
		return now
	}
	if c.empty == nil {
		c.empty = make(chan struct{})
	}
	return c.empty
}
