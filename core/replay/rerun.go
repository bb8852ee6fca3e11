package replay

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"

	"github.com/weir-gateway/weir/core"
)

// Rerun makes events of the records of one session again, in their order, so that others can be asked what they would
// have said. Its zero value is ready; use one for each session.
type Rerun struct {
	// Target returns a target as the configuration has it now; nil, or a nil result: one with nothing but its name. Its
	// labels are not in a recording.
	Target func(name string) *core.Target
	// Protocol returns what speaks the session's protocol; nil, or a nil result: nobody tells when a transaction was open.
	Protocol func(name string) core.Protocol

	session  *core.Session
	tells    core.Transactions // may be nil
	exchange *core.Exchange
	denied   *core.Denial             // of the last record
	commands map[string]*core.Command // by their facts: an unchanged text is decoded once
}

// maxCommands bounds the decoded commands that one Rerun keeps.
const maxCommands = 4096

// Past is what a record says was decided.
type Past struct {
	Denied    *core.Denial
	Decisions []core.Decision
	Rows      int64 // of a Rows record
}

// Session is the session of the records so far, or nil. Its counts are nobody's until it is begun and its events are
// checked.
func (r *Rerun) Session() *core.Session { return r.session }

// Event returns what a record was made of, and what was decided about it. It is valid until the next record is asked
// for. The rows of an answer are counted but not read, and bytes where the record has them. An Opaque record gives no event: nobody could read it then either.
func (r *Rerun) Event(rec *core.Record) (*core.Event, Past, error) {
	f, err := r.facts(rec)
	if err != nil {
		return nil, Past{}, fmt.Errorf("replay: record %d: %w", rec.Seq, err)
	}
	past := Past{Denied: f.Denied, Decisions: rec.Decisions, Rows: f.Rows}
	r.denied = f.Denied
	if rec.Kind == core.KindOpen {
		r.session = &core.Session{ID: f.Session, Run: f.Run, Protocol: f.Protocol, Identity: f.Identity, Started: rec.Time, Target: r.target(f.Target, f.Protocol)}
		r.tells = nil
		if r.Protocol != nil {
			r.tells, _ = r.Protocol(f.Protocol).(core.Transactions)
		}
		r.session.Hello = core.Hello{Target: r.session.Target, User: f.User, TLS: f.TLS, Details: f.Details}
		if a, err := netip.ParseAddrPort(f.Client); err == nil {
			r.session.Hello.Client = net.TCPAddrFromAddrPort(a)
		}
	}
	if r.session == nil {
		return nil, past, fmt.Errorf("replay: record %d: a %s stands before the session's opening", rec.Seq, rec.Kind)
	}
	if r.tells != nil {
		if open, known := r.tells.InTransaction(rec); known {
			r.session.SetInTransaction(open)
		}
	}
	e := &core.Event{Kind: rec.Kind, Direction: rec.Direction, Seq: rec.Seq, Time: rec.Time, Session: r.session, Stage: f.Stage, Reason: f.Reason, Wire: rec.Wire}
	switch rec.Kind {
	case core.KindOpaque:
		return nil, past, nil
	case core.KindCommand:
		if f.Command == nil {
			return nil, past, fmt.Errorf("replay: record %d: a command without facts", rec.Seq)
		}
		r.exchange = &core.Exchange{Command: f.Command}
		for _, p := range f.Params {
			e.Params = append(e.Params, param(p))
		}
	case core.KindColumns:
		if r.exchange == nil {
			r.exchange = &core.Exchange{Command: &core.Command{Status: core.StatusKnown}}
		}
		r.exchange.Columns, e.Columns = f.Columns, f.Columns
	case core.KindRows:
		e.Rows = &core.Batch{Rows: int(f.Rows)}
	case core.KindBytes:
		e.Bytes = bytes.Clone(rec.Wire)
	case core.KindResult, core.KindNotice:
		if e.Result = f.Result; e.Result == nil {
			e.Result = &core.Result{}
		}
	}
	if rec.Kind != core.KindOpen && rec.Kind != core.KindClose {
		e.Exchange = r.exchange
	}
	return e, past, nil
}

func (r *Rerun) target(name, protocol string) *core.Target {
	own := core.Target{Name: name, Protocol: protocol}
	if r.Target != nil {
		if t := r.Target(name); t != nil {
			own = *t
		}
	}
	own.AllowIncomplete, own.Limits = true, core.Limits{} // only what was refused then counts as refused
	return &own
}

// Begin begins the session, whose counts are then what they were at each event that was passed.
func (r *Rerun) Begin(c core.SessionConfig) {
	c.Chain = then{r}
	r.session.Begin(c)
}

// Pass puts the event of the last record through the session: it is counted, and refused when it was refused then.
func (r *Rerun) Pass(ctx context.Context, e *core.Event) { r.session.Check(ctx, e) }

// then is a chain that says what was said then.
type then struct{ r *Rerun }

// Inspect implements core.Plugin.
func (t then) Inspect(context.Context, *core.Event) (core.Verdict, error) {
	return core.Verdict{Deny: t.r.denied}, nil
}

// rerunFacts are the facts of a record as they were made.
type rerunFacts struct {
	facts
	Command *core.Command `json:"command"`
}

func (r *Rerun) facts(rec *core.Record) (f rerunFacts, err error) {
	if rec.Kind == core.KindRows { // most records; nearly all of them hold nothing else
		if n, ok := plainRows(rec.Facts); ok {
			f.Rows = n
			return f, nil
		}
	}
	if rec.Kind == core.KindCommand {
		if c, ok := r.commands[string(rec.Facts)]; ok {
			f.Command = c
			return f, nil
		}
	}
	if err := json.Unmarshal(rec.Facts, &f); err != nil {
		return f, fmt.Errorf("its facts cannot be read: %w", err)
	}
	if rec.Kind == core.KindCommand && f.Command != nil && f.Stage == "" && f.Params == nil && f.Denied == nil {
		if len(r.commands) >= maxCommands {
			clear(r.commands)
		}
		if r.commands == nil {
			r.commands = map[string]*core.Command{}
		}
		r.commands[string(rec.Facts)] = f.Command
	}
	return f, nil
}

// plainRows reads the facts of rows that nobody decided about.
func plainRows(facts []byte) (n int64, ok bool) {
	digits, ok := bytes.CutPrefix(facts, []byte(`{"rows":`))
	if !ok || len(digits) < 2 || len(digits) > 16 || digits[len(digits)-1] != '}' {
		return 0, false
	}
	for _, c := range digits[:len(digits)-1] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// param reads a parameter as core.Session writes it: a text, null, or {"hex": …}.
func param(b json.RawMessage) core.Param {
	var s *string
	if json.Unmarshal(b, &s) == nil {
		if s == nil {
			return core.Param{}
		}
		return core.Param{Value: []byte(*s)}
	}
	var h struct {
		Hex string `json:"hex"`
	}
	_ = json.Unmarshal(b, &h) // what is neither becomes a parameter without bytes
	v, _ := hex.DecodeString(h.Hex)
	return core.Param{Value: append([]byte{}, v...), Binary: true}
}
