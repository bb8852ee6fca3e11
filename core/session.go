package core

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Session is one client's conversation with one target.
type Session struct {
	ID       string
	Run      string
	Protocol string
	Identity Identity
	Target   *Target
	Started  time.Time
	Hello    Hello // with the token removed
	Gateway  string
	Boot     string

	chain     Plugin
	recorder  Recorder
	approvals Approvals
	draining  <-chan struct{}
	leaving   func() string
	closed    func(*Session)

	scratch [2]scratch // by direction; not FromGateway, which several goroutines may be at

	level         Level // of the session; a verdict on Open may have changed the target's
	inTransaction atomic.Bool
	commands      atomic.Int64
	rows          atomic.Int64
	bytes         atomic.Int64
	received      atomic.Int64
	denied        atomic.Int64

	run    *Run                     // nil: nobody counts it
	tables atomic.Pointer[tableSet] // nil: nobody has asked for them
	unkept atomic.Bool              // commands passed while nobody kept account of tables

	mu     sync.Mutex // guards what follows: numbering and recording are one step
	seq    uint64
	rec    Record // the one that is being recorded
	facts  []byte
	shapes shapes
	end    End // set by Close, for its record
	ended  bool
	last   Mark
}

// SessionConfig is what a gateway gives a new session besides the facts.
type SessionConfig struct {
	Chain    Plugin          // nil passes everything
	Recorder Recorder        // nil keeps nothing
	Draining <-chan struct{} // closed when the session should end at its next quiet moment
	Leaving  func() string   // says why; nil or empty: the gateway is stopping
	Closed   func(*Session)  // called once, by Close
	// Approvals is asked about what a verdict holds; nil: that is refused.
	Approvals Approvals
	Run       *Run // what Session.Run is counted in; nil: in nothing
	Tables    bool // keep account of the tables from the beginning: see Session.Tables
}

// Begin wires s. It must be called once, before the first Check.
func (s *Session) Begin(c SessionConfig) {
	s.chain, s.recorder, s.draining, s.leaving, s.closed = c.Chain, c.Recorder, c.Draining, c.Leaving, c.Closed
	s.approvals = c.Approvals
	s.level = s.Target.Record
	if c.Tables {
		s.tableSet()
	}
	if s.run = c.Run; s.run != nil {
		s.run.join(s)
	}
}

// Check is the one door: every event passes through it before its bytes leave. It runs the chain, adds what the
// gateway itself refuses, then numbers and records what is left. Unless the verdict denies, the caller delivers the
// event (after Settle with the verdict's Mark); if it denies, the caller refuses in the protocol's words.
// Check is called by at most one goroutine for each direction of an Exchange, and for what belongs to none.
func (s *Session) Check(ctx context.Context, e *Event) Verdict {
	e.Session = s
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	made := s.take(e.Direction)
	v := &made.v
	if s.chain != nil {
		var err error
		if *v, err = s.chain.Inspect(ctx, e); err != nil {
			v.refuse("chain-error", "a step of the chain failed", "ask the operator; the gateway's log says why")
		}
	}
	if v.Hold != nil && v.Deny == nil {
		s.hold(ctx, e, v)
	}
	s.guard(e, v)
	if err := s.record(ctx, e, v); err != nil {
		if v.Deny == nil {
			s.denied.Add(1)
		}
		v.Deny = &Denial{Step: "weir", Rule: ruleJournalLost, Reason: "nothing can be recorded now, so nothing may pass", Hint: "try again later"}
	}
	said := *v
	made.v = Verdict{}
	made.taken.Store(false)
	return said
}

// scratch is a verdict that is being made. Steps and frames get it by address, so it would be allocated for each event.
type scratch struct {
	taken atomic.Bool
	v     Verdict
}

// take returns the scratch of a direction, or a new one when that has none or it is in use.
func (s *Session) take(d Direction) *scratch {
	if i := int(d) - 1; i >= 0 && i < len(s.scratch) && s.scratch[i].taken.CompareAndSwap(false, true) {
		return &s.scratch[i]
	}
	return new(scratch)
}

// Ask asks the chain about an event that does not happen: nothing is numbered, counted or recorded. An error is a deny.
func (s *Session) Ask(ctx context.Context, e *Event) Verdict {
	e.Session, e.Time = s, time.Now()
	if s.chain == nil {
		return Verdict{}
	}
	v, err := s.chain.Inspect(ctx, e)
	if err != nil {
		v.refuse("chain-error", "a step of the chain failed", "")
	}
	return v
}

// Settle waits until everything up to m may be delivered.
func (s *Session) Settle(ctx context.Context, m Mark) error {
	if s.recorder == nil || m == 0 {
		return nil
	}
	return s.recorder.Settle(ctx, m)
}

// Settled reports whether Settle would return at once, and has then called when it would, as Recorder.Settled does.
func (s *Session) Settled(m Mark, then func()) bool {
	return s.recorder == nil || m == 0 || s.recorder.Settled(m, then)
}

// guard adds the gateway's own refusals to the verdict and keeps the account of the exchange.
func (s *Session) guard(e *Event, v *Verdict) {
	x := e.Exchange
	switch e.Kind {
	case KindOpen:
		if v.Record != LevelUnset {
			s.level = v.Record
		}
	case KindCommand:
		s.commands.Add(1)
		if v.Deny == nil && x.Command.Status != StatusKnown && !s.Target.AllowIncomplete {
			v.refuse("incomplete", "Weir cannot tell for certain what this command does ("+x.Command.Reason+")", "say it in a simpler way, or ask for a policy that allows it")
		}
		x.asked = x.asked || e.Stage != stagePrepare
		x.Limit = x.Limit.Merge(v.Limit).Merge(Limit{Rows: s.Target.Limits.Rows})
		x.Record = max(x.Record, v.Record)
		if v.Deny == nil && e.Stage != stagePrepare {
			s.touched(x.Command)
		}
	case KindRows:
		x.Rows += int64(e.Rows.Rows)
		if v.Deny == nil && x.Limit.Rows > 0 && x.Rows > x.Limit.Rows {
			v.refuse("limit-rows", "the answer has more than "+strconv.FormatInt(x.Limit.Rows, 10)+" rows", "ask for fewer rows")
		}
		v.bound(x, int64(len(e.Rows.Data)))
	case KindBytes:
		if x != nil && e.Direction == FromUpstream {
			v.bound(x, int64(len(e.Bytes)))
		}
	case KindOpaque:
		if v.Deny == nil {
			v.refuse("opaque", "Weir cannot read this: "+e.Reason, "")
		}
	}
	if v.Deny != nil {
		s.denied.Add(1)
		if x != nil {
			x.Denied = true
		}
	}
}

// bound refuses a part of an answer that would make it longer than a limit of bytes allows.
func (v *Verdict) bound(x *Exchange, more int64) {
	if v.Deny == nil && x.Limit.Bytes > 0 && x.Bytes+more > x.Limit.Bytes {
		v.refuse("limit-bytes", "the answer has more than "+strconv.FormatInt(x.Limit.Bytes, 10)+" bytes", "ask for fewer rows, or fewer columns")
	}
}

func (v *Verdict) refuse(rule, reason, hint string) {
	v.Deny = &Denial{Step: "weir", Rule: rule, Reason: reason, Hint: hint}
	v.Decisions = append(v.Decisions, Decision{Step: "weir", Action: "deny", Rule: rule, Detail: reason})
}

// record numbers the event and hands it to the recorder.
func (s *Session) record(ctx context.Context, e *Event, v *Verdict) error {
	var wire []byte
	if v.Deny == nil || e.Kind == KindCommand { // a refused answer never leaves, so it is not evidence
		wire = e.Wire
		if e.Frame != nil {
			var err error
			if wire, err = e.Frame.Wire(e, v); err != nil {
				wire = nil
				d := &Denial{Rule: "unmaskable", Reason: "the answer cannot be rewritten as the rules ask"}
				_ = errors.As(err, &d)
				v.refuse(d.Rule, d.Reason, d.Hint)
				s.denied.Add(1)
			}
		}
	}
	switch e.Kind {
	case KindRows:
		s.rows.Add(int64(e.Rows.Rows))
	}
	if x := e.Exchange; x != nil && e.Direction == FromUpstream {
		x.Bytes += int64(len(wire))
	}
	if e.Direction == FromClient {
		s.received.Add(int64(len(wire)))
	} else {
		s.bytes.Add(int64(len(wire)))
	}
	if s.recorder == nil {
		return nil
	}
	level := s.levelOf(e, v)
	if level == LevelOff {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return errors.New("session is over")
	}
	s.facts = s.appendFacts(s.facts[:0], e, v, level)
	s.rec = Record{Seq: s.seq, Time: e.Time, Kind: e.Kind, Direction: e.Direction, Facts: s.facts, Decisions: v.Decisions}
	if c := e.Command(); level == LevelFull && (c == nil || !c.Secret || e.Direction != FromClient) {
		s.rec.Wire = wire
	}
	mark, err := s.recorder.Record(ctx, &s.rec)
	s.rec = Record{}
	if err != nil {
		return err
	}
	e.Seq = s.seq
	s.seq++
	s.last = mark
	v.Mark = mark
	return nil
}

// levelOf says how much of e is recorded: what a verdict named, else the session's level. Opening, end and whatever
// was refused are always kept.
func (s *Session) levelOf(e *Event, v *Verdict) Level {
	level := s.level
	if e.Exchange != nil && e.Exchange.Record != LevelUnset {
		level = e.Exchange.Record
	}
	if v.Record != LevelUnset {
		level = v.Record
	}
	if s.Target.Promise == PromiseOff {
		level = min(level, LevelMetadata)
	}
	if level == LevelOff && (e.Kind == KindOpen || e.Kind == KindClose || v.Deny != nil) {
		level = LevelMetadata
	}
	return level
}

// Wants reports whether events of a kind have to be made at all: some step or the record asks for them.
func (s *Session) Wants(k Kind) bool {
	return s.recorder != nil && s.level != LevelOff || s.Judges(k)
}

// Judges reports whether some step asks for events of a kind.
func (s *Session) Judges(k Kind) bool {
	if sub, ok := s.chain.(Subscriber); ok {
		kinds := sub.Subscription().Kinds
		return kinds == 0 || kinds.Has(k)
	}
	return s.chain != nil
}

// SetInTransaction tells policies whether the client has a transaction open.
func (s *Session) SetInTransaction(in bool) { s.inTransaction.Store(in) }

// InTransaction reports what SetInTransaction said last.
func (s *Session) InTransaction() bool { return s.inTransaction.Load() }

// Draining is closed when the session should end at its next quiet moment.
func (s *Session) Draining() <-chan struct{} { return s.draining }

// Leaving says why, once Draining is closed.
func (s *Session) Leaving() string {
	if s.leaving != nil {
		if why := s.leaving(); why != "" {
			return why
		}
	}
	return "the gateway is stopping"
}

// Totals are a session's counts so far.
type Totals struct {
	Commands int64 `json:"commands"`
	Rows     int64 `json:"rows"`
	Bytes    int64 `json:"bytes"` // sent to the client
	Denied   int64 `json:"denied"`
	Received int64 `json:"-"` // bytes from the client; a record of the session's end does not have it
}

// Plus adds two accounts.
func (t Totals) Plus(o Totals) Totals {
	return Totals{t.Commands + o.Commands, t.Rows + o.Rows, t.Bytes + o.Bytes, t.Denied + o.Denied, t.Received + o.Received}
}

// Totals returns the counts so far.
func (s *Session) Totals() Totals {
	return Totals{Commands: s.commands.Load(), Rows: s.rows.Load(), Bytes: s.bytes.Load(), Denied: s.denied.Load(), Received: s.received.Load()}
}

// Close ends the session: the last record, the seal, and the steps' memory of it. Later calls do nothing.
func (s *Session) Close(end End, reason string) error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil
	}
	s.end = end
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.Check(ctx, &Event{Kind: KindClose, Direction: FromGateway, Reason: reason})
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil
	}
	s.ended = true
	s.mu.Unlock()
	var err error
	if s.recorder != nil {
		err = s.recorder.Seal(end)
	}
	if c, ok := s.chain.(Closer); ok {
		c.Forget(s)
	}
	if s.run != nil {
		s.run.leave(s)
	}
	if s.closed != nil {
		s.closed(s)
	}
	return err
}

// appendFacts appends the event's facts as a JSON object.
func (s *Session) appendFacts(b []byte, e *Event, v *Verdict, level Level) []byte {
	switch e.Kind {
	case KindOpen:
		return appendObject(b, openFacts{
			Session: s.ID, Run: s.Run, Identity: s.Identity, Target: s.Target.Name, Protocol: s.Protocol,
			Client: addr(s.Hello.Client), User: s.Hello.User, TLS: s.Hello.TLS, Details: s.Hello.Details,
			Gateway: s.Gateway, Boot: s.Boot, Record: s.level.String(), Promise: s.Target.Promise, Denied: v.Deny,
		})
	case KindCommand:
		b = append(b, `{"command":`...)
		b = append(b, e.Command().Facts()...)
		if e.Stage != "" {
			b = append(b, `,"stage":`...)
			b = AppendJSON(b, e.Stage)
		}
		if len(e.Params) > 0 && level == LevelFull && !e.Command().Secret {
			b = append(b, `,"params":[`...)
			for i, p := range e.Params {
				if i > 0 {
					b = append(b, ',')
				}
				b = appendParam(b, p)
			}
			b = append(b, ']')
		}
		return appendDenial(b, v)
	case KindColumns:
		b = append(b, `{"columns":`...)
		b = s.shapes.append(b, e.Columns)
		return appendDenial(b, v)
	case KindRows:
		b = append(b, `{"rows":`...)
		b = strconv.AppendInt(b, int64(e.Rows.Rows), 10)
		return appendDenial(b, v)
	case KindBytes:
		b = append(b, `{"bytes":`...)
		b = strconv.AppendInt(b, int64(len(e.Bytes)), 10)
		return appendDenial(b, v)
	case KindResult, KindNotice:
		b = append(b, `{"result":`...)
		b = e.Result.append(b)
		return appendDenial(b, v)
	case KindClose:
		return appendObject(b, closeFacts{End: s.end, Reason: e.Reason, Totals: s.Totals()})
	default:
		b = append(b, `{"reason":`...)
		b = AppendJSON(b, e.Reason)
		return appendDenial(b, v)
	}
}

type openFacts struct {
	Session  string            `json:"session"`
	Run      string            `json:"run,omitempty"`
	Identity Identity          `json:"identity"`
	Target   string            `json:"target"`
	Protocol string            `json:"protocol"`
	Client   string            `json:"client"`
	User     string            `json:"user,omitempty"`
	TLS      bool              `json:"tls"`
	Details  map[string]string `json:"details,omitempty"`
	Gateway  string            `json:"gateway"`
	Boot     string            `json:"boot"`
	Record   string            `json:"record"`
	Promise  Promise           `json:"promise"`
	Denied   *Denial           `json:"denied,omitempty"`
}

type closeFacts struct {
	End    End    `json:"end"`
	Reason string `json:"reason"`
	Totals Totals `json:"totals"`
}

func addr(a interface{ String() string }) string {
	if a == nil {
		return ""
	}
	return a.String()
}

func appendObject(b []byte, v any) []byte {
	j, err := json.Marshal(v)
	if err != nil {
		return append(b, `{}`...)
	}
	return append(b, j...)
}

func appendDenial(b []byte, v *Verdict) []byte {
	if v.Deny != nil {
		b = append(b, `,"denied":`...)
		b = appendObject(b, v.Deny)
	}
	return append(b, '}')
}

// append appends r as JSON without reflection: results are on the hot path.
func (r *Result) append(b []byte) []byte {
	b = append(b, `{"status":`...)
	b = AppendJSON(b, r.Status)
	for _, f := range [...]struct{ key, value string }{{"tag", r.Tag}, {"code", r.Code}, {"message", r.Message}} {
		if f.value != "" {
			b = append(b, ',', '"')
			b = append(b, f.key...)
			b = append(b, '"', ':')
			b = AppendJSON(b, f.value)
		}
	}
	if r.Rows != 0 {
		b = append(b, `,"rows":`...)
		b = strconv.AppendInt(b, r.Rows, 10)
	}
	return append(b, '}')
}

// appendParam writes a parameter as a JSON string, {"hex": …} when it is not text, or null.
func appendParam(b []byte, p Param) []byte {
	switch {
	case p.Value == nil:
		return append(b, "null"...)
	case !p.Binary && utf8.Valid(p.Value):
		return AppendJSON(b, string(p.Value))
	}
	b = append(b, `{"hex":"`...)
	for _, c := range p.Value {
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	return append(b, `"}`...)
}

const hexDigits = "0123456789abcdef"

// AppendJSON appends s as a JSON string. Bytes that are not UTF-8 become the replacement character.
func AppendJSON(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' && c != 0x7f {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\t':
				b = append(b, '\\', 't')
			case '\r':
				b = append(b, '\\', 'r')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			b = append(b, s[start:i]...)
			b = append(b, `\ufffd`...)
			i += size
			start = i
			continue
		}
		i += size
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
