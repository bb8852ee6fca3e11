package wasm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// selfTest asks a new guest about an event of each kind that it subscribes to, so that one that traps, loops or answers
// out of contract is found before a session depends on it. What it answers does not matter, and what it logs, counts
// or keeps goes nowhere.
func (in *instance) selfTest(ctx context.Context) error {
	p := in.plugin
	in.trial = true
	defer func() { in.trial, in.store = false, p.store }()
	if in.store != nil {
		in.store = newStore()
	}
	s := selfTestSession(p)
	if p.manifest.State == stateConnection {
		if err := in.open(ctx, s); err != nil {
			return fmt.Errorf("self-test: %w", err)
		}
		defer in.close(s.ID)
	}
	for k := core.KindOpen; k <= core.KindClose; k++ {
		if frameKinds[k] == 0 || !p.sub.Kinds.Has(k) {
			continue
		}
		_, err := in.inspect(ctx, frameKinds[k], p.example(k, s))
		var contract *contractError
		var trap *trapError
		if errors.As(err, &contract) || errors.As(err, &trap) || errors.Is(err, errPointer) {
			return fmt.Errorf("self-test: asked about a %s event: %w", k, err)
		}
	}
	return nil
}

const selfTestID = "weir-self-test"

// selfTestSession is a session that was made up.
func selfTestSession(p *Plugin) *core.Session {
	s := &core.Session{
		ID: selfTestID, Protocol: "weir", Target: &core.Target{Name: selfTestID}, Identity: core.Identity{Subject: selfTestID, Kind: "service"},
	}
	if len(p.sub.Protocols) > 0 {
		s.Protocol = p.sub.Protocols[0]
	}
	return s
}

// example is an event of a kind, as plain as it can be.
func (p *Plugin) example(k core.Kind, s *core.Session) *core.Event {
	e := &core.Event{Kind: k, Direction: core.FromUpstream, Session: s}
	command := &core.Command{Action: "weir", Text: "weir self-test", Fingerprint: "weir self-test", Effects: []core.Effect{core.EffectRead}, Status: core.StatusKnown}
	columns := []core.Column{{Name: "number", Type: "int4"}, {Name: "text", Type: "text"}, {Name: "document", Type: "jsonb"}}
	for _, c := range p.sub.Columns {
		if !strings.HasPrefix(c, "type:") {
			columns = append(columns, core.Column{Name: strings.ReplaceAll(c, "*", "x"), Type: "text"})
		}
	}
	switch k {
	case core.KindOpen, core.KindClose:
		e.Direction = core.FromClient
	case core.KindCommand:
		e.Direction, e.Stage = core.FromClient, "execute"
		e.Exchange, e.Params = &core.Exchange{Command: command}, []core.Param{{Value: []byte("a")}, {}}
	case core.KindColumns:
		e.Exchange, e.Columns = &core.Exchange{Command: command}, columns
	case core.KindRows:
		b := &core.Batch{Columns: columns, Rows: 2}
		for i := range columns {
			b.Watch = append(b.Watch, i)
		}
		for range columns {
			b.Cells = append(b.Cells, core.Cell{Off: int32(len(b.Data)), Len: 1})
			b.Data = append(b.Data, '1')
		}
		for range columns {
			b.Cells = append(b.Cells, core.Cell{Len: -1})
		}
		e.Exchange, e.Rows = &core.Exchange{Command: command, Columns: columns}, b
	case core.KindBytes:
		e.Bytes = []byte("weir self-test\n")
	case core.KindResult, core.KindNotice:
		e.Result = &core.Result{Status: "ok", Texts: []core.Text{{Field: "M", Value: "weir self-test"}}}
	}
	return e
}
