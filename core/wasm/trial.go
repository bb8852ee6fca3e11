package wasm

import (
	"bytes"
	"context"

	"github.com/weir-gateway/weir/core"
)

// Trial is an instance of a guest outside of any session, which is asked frames as they are: for those who write
// guests, and for their tests. What it logs, counts and keeps goes nowhere. It is used by one goroutine.
type Trial struct{ in *instance }

// Answer is what a guest said of one frame.
type Answer struct {
	Verdict  int32
	Aux      uint32
	Frame    []byte // as the guest left it
	Findings []core.Decision
	Counters map[uint32]float64
	Observed map[uint32][]float64
	// Error is the last line that the guest logged at level error.
	Error string
}

// Try makes a Trial with a configuration as a text, which no schema is held against. Nil: the plugin's own.
func (p *Plugin) Try(ctx context.Context, config []byte) (*Trial, error) {
	in, err := p.instantiate(ctx, false)
	if err != nil {
		return nil, err
	}
	in.trial = true
	if p.manifest.Needs.KV {
		in.store = newStore()
	}
	if config == nil {
		config = p.config
	}
	if err := in.configure(ctx, config); err != nil {
		in.discard()
		return nil, err
	}
	if p.manifest.State == stateConnection {
		if err := in.open(ctx, selfTestSession(p)); err != nil {
			in.discard()
			return nil, err
		}
	}
	return &Trial{in}, nil
}

// Ask asks about a frame. The error is the guest's that did not return, or that named memory that it does not have.
func (t *Trial) Ask(ctx context.Context, f []byte) (*Answer, error) {
	in := t.in
	if err := in.region(ctx, len(f)); err != nil {
		return nil, err
	}
	view, ok := in.mod.Memory().Read(in.ptr, uint32(len(f)))
	if !ok {
		return nil, errPointer
	}
	copy(view, f)
	in.begin(ctx, in.plugin.limits.Rows)
	in.stack[0], in.stack[1] = uint64(in.ptr), uint64(len(f))
	if err := in.call(in.batch); err != nil {
		return nil, err
	}
	if view, ok = in.mod.Memory().Read(in.ptr, uint32(len(f))); !ok {
		return nil, errPointer
	}
	a := &Answer{
		Verdict: int32(uint32(in.stack[0])), Aux: uint32(in.stack[0] >> 32), Frame: bytes.Clone(view), Findings: in.findings, Error: in.complaint,
		Counters: map[uint32]float64{}, Observed: map[uint32][]float64{},
	}
	for _, u := range in.uses {
		if u.observe {
			a.Observed[u.id] = append(a.Observed[u.id], u.x)
		} else {
			a.Counters[u.id] += u.x
		}
	}
	return a, nil
}

// Close ends the session that was made up, where there is one, and frees the instance.
func (t *Trial) Close() {
	if t.in.plugin.manifest.State == stateConnection {
		t.in.close(selfTestID)
	}
	t.in.discard()
}
