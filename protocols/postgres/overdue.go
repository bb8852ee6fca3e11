package postgres

// late returns the limit that the upstream was asked to cancel a command for, and "" when it was not asked.
func (d *deadline) late() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.asked:
		return ""
	case d.policy:
		return "the policy's limit of time"
	}
	return "limits.statement_timeout"
}

// overdueError says why Weir had a command cancelled. The server knows only that somebody wanted it, and says so.
func (c *connection) overdueError(frame, b []byte) (newFrame, newBody []byte) {
	limit := c.deadline.late()
	if limit == "" {
		return frame, b
	}
	cancelled := false
	out, at := beginFrame(nil, frame[0])
	fields(b, func(typ byte, v []byte) {
		text := string(v)
		switch typ {
		case 'C':
			cancelled = text == codeQueryCanceled
		case 'M':
			text = "canceling statement due to statement timeout\x00Dit took longer than " + limit + " allows"
		}
		out = append(append(append(out, typ), text...), 0)
	})
	if !cancelled { // it failed by itself, just then
		return frame, b
	}
	out = endFrame(append(out, 0), at)
	return out, out[headerSize:]
}
