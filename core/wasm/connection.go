package wasm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/weir-gateway/weir/core"
)

// pin is the instance of one session, for a plugin whose state is the connection's. Two directions may ask at a time;
// the guest is asked by one.
type pin struct {
	mu  sync.Mutex
	in  *instance
	err error // why there is no instance any more: its state is gone, so the session's events fail
}

var (
	errGone = errors.New("the session is over")
	errLost = errors.New("it has failed in this session, and what it knew of it is gone")
)

// pinOf finds a session's instance, or the place for it.
func (p *Plugin) pinOf(s *core.Session) (*pin, error) {
	p.pins.Lock()
	defer p.pins.Unlock()
	if p.pinned == nil {
		return nil, errClosed
	}
	x := p.pinned[s.ID]
	if x != nil {
		return x, nil
	}
	if len(p.pinned) >= p.limits.Instances {
		return nil, fmt.Errorf("%w: it serves %d sessions already (raise limits.instances)", errBusy, len(p.pinned))
	}
	x = &pin{}
	p.pinned[s.ID] = x
	// An event may come after Forget; then nothing else would let go of what it made.
	runtime.AddCleanup(s, func(id string) { p.forget(id) }, s.ID)
	return x, nil
}

// Forget closes the session's instance, for a plugin that has one for each.
func (p *Plugin) Forget(s *core.Session) { p.forget(s.ID) }

func (p *Plugin) forget(session string) {
	p.pins.Lock()
	x := p.pinned[session]
	delete(p.pinned, session)
	p.pins.Unlock()
	if x != nil {
		x.close(session)
	}
}

func (x *pin) close(session string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if in := x.in; in != nil {
		in.close(session)
		in.discard()
		x.in = nil
	}
	x.err = errGone
}

// unpin closes all instances.
func (p *Plugin) unpin() {
	p.pins.Lock()
	all := p.pinned
	p.pinned = nil
	p.pins.Unlock()
	for session, x := range all {
		x.close(session)
	}
}

// own takes the session's own instance; release must follow.
func (p *Plugin) own(ctx context.Context, s *core.Session) (*instance, *pin, error) {
	x, err := p.pinOf(s)
	if err != nil {
		return nil, nil, err
	}
	x.mu.Lock()
	if x.err == nil && x.in == nil {
		if x.in, x.err = p.instantiate(ctx, true); x.err == nil {
			if x.err = x.in.open(ctx, s); x.err != nil {
				x.discard()
			}
		}
		if err = x.err; err != nil {
			x.gone(err)
		}
	} else {
		err = x.err
	}
	if err != nil {
		x.mu.Unlock()
		return nil, nil, err
	}
	return x.in, x, nil
}

// release gives a session's instance back. After a failure there is none any more.
func (x *pin) release(err error) {
	if err != nil {
		x.discard()
		x.gone(err)
	}
	x.mu.Unlock()
}

// gone keeps why there is no instance, as an error of its own: it must not count as another failure of the same cause.
func (x *pin) gone(err error) {
	x.err = fmt.Errorf("%w: %s", errLost, err.Error())
}

func (x *pin) discard() {
	if in := x.in; in != nil {
		in.plugin.metrics.discards.Inc()
		in.discard()
		x.in = nil
	}
}

// open tells an instance whose it is.
func (in *instance) open(ctx context.Context, s *core.Session) error {
	in.attrs.reset()
	in.attrs.describe(&core.Event{Kind: core.KindOpen, Direction: core.FromClient, Session: s})
	if in.attrs.err != nil {
		return in.attrs.err
	}
	f := &frame{kind: kindOpen, rows: 1, conn: numberOf(s.ID), nattrs: in.attrs.n}
	f.layout(len(in.attrs.b), 0)
	if err := in.region(ctx, f.total); err != nil {
		return err
	}
	view, ok := in.mod.Memory().Read(in.ptr, uint32(f.total))
	if !ok {
		return errPointer
	}
	f.header(view)
	copy(view[f.attrsOff:], in.attrs.b)
	in.begin(ctx, in.plugin.limits.Command)
	in.stack[0], in.stack[1] = uint64(in.ptr), uint64(f.total)
	if err := in.call(in.mod.ExportedFunction("weir_open")); err != nil {
		return fmt.Errorf("weir_open: %w", err)
	}
	if code := int32(uint32(in.stack[0])); code != 0 {
		return fmt.Errorf("it does not take the session: %s", in.why(code))
	}
	return nil
}

// close tells an instance that its session is over. What it does then is its own affair.
func (in *instance) close(session string) {
	in.begin(context.Background(), in.plugin.limits.Command)
	in.stack[0] = numberOf(session)
	if err := in.call(in.mod.ExportedFunction("weir_close")); err != nil {
		in.plugin.log.Warn("wasm: weir_close failed", "session", session, "error", err)
	}
	in.flush()
}

// numberOf is the number that stands for a session in frames: FNV-1a of its id.
func numberOf(session string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(session) {
		h = (h ^ uint64(session[i])) * 1099511628211
	}
	return h
}
