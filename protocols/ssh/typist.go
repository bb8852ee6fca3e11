package ssh

import (
	"context"
	"sync"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/ssh/terminal"
)

// typist watches the terminal of a channel, so that the record has what was typed there only as far as the terminal has shown it. When a key
// is recorded nobody knows yet whether it will be: so its record has a star, and a notice follows that says what was shown.
type typist struct {
	ch    *channel
	mu    sync.Mutex
	typed *terminal.Typed
	keys  []byte        // that the next notice has
	heard chan struct{} // has something when the target has said more
}

const (
	noticeKeys = 256 // bytes of keys, at which a notice does not wait for the end of a line
	// echoWait bounds how long the end of a line waits for the target to show the line. It comes back at once, but where it is not shown.
	echoWait = time.Second
)

func newTypist(ch *channel, columns uint32) *typist {
	t := &typist{ch: ch, typed: terminal.NewTyped(int(min(columns, 10_000))), heard: make(chan struct{}, 1)}
	t.typed.Keys = func(shown []byte) { t.keys = append(t.keys, shown...) }
	return t
}

// sent takes what is sent to the target.
func (t *typist) sent(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.typed.Input(p)
}

// said takes what the target says, and records the keys that it has shown.
func (t *typist) said(ctx context.Context, p []byte) {
	t.mu.Lock()
	t.typed.Output(p)
	keys := t.take(false)
	t.mu.Unlock()
	t.keep(ctx, keys)
	select {
	case t.heard <- struct{}{}:
	default:
	}
}

func (t *typist) resize(columns uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.typed.Resize(int(min(columns, 10_000)))
}

// end records the keys that are left. Those that were never shown are stars.
func (t *typist) end(ctx context.Context) {
	t.mu.Lock()
	t.typed.Close()
	keys := t.take(true)
	t.mu.Unlock()
	t.keep(ctx, keys)
}

// take returns the keys of a notice, once there are enough for one.
func (t *typist) take(all bool) (keys []byte) {
	n := len(t.keys)
	if n == 0 || !all && n < noticeKeys && t.keys[n-1] >= ' ' {
		return nil
	}
	keys, t.keys = t.keys, nil
	return keys
}

func (t *typist) keep(ctx context.Context, keys []byte) {
	if len(keys) > 0 && t.ch.c.session.Wants(core.KindNotice) {
		t.ch.check(ctx, core.KindNotice, core.FromClient, &core.Result{Status: statusKeys}, dataMessage(t.ch.number, false, keys))
	}
}

// shown waits until the present line is on the terminal, and reports whether it is.
func (t *typist) shown(ctx context.Context, until time.Time) bool {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		t.mu.Lock()
		is := t.typed.Shown()
		t.mu.Unlock()
		if is {
			return true
		}
		select {
		case <-t.heard:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		case <-t.ch.c.over:
			return false
		}
	}
}

// starred is what is recorded of keys before anybody knows whether they will be shown: control keys as they are.
func starred(keys []byte) []byte {
	out := make([]byte, len(keys))
	const none, begun, inside = 0, 1, 2
	escape := none // of an arrow, a function key
	for i, b := range keys {
		out[i] = b
		switch {
		case b == 0x1b:
			escape = begun
		case b < ' ' || b == 0x7f:
			escape = none
		case escape == begun && (b == '[' || b == 'O'):
			escape = inside
		case escape == inside && (b >= '0' && b <= '9' || b == ';'):
		case escape == inside:
			escape = none
		default:
			escape, out[i] = none, '*'
		}
	}
	return out
}
