package core

import (
	"encoding/json"
	"sync"
	"time"
)

// Kind says what an Event is. The set is closed: a protocol maps what it carries to these words.
type Kind uint8

// The kinds of event.
const (
	KindOpen    Kind = iota + 1 // a client asks for a session with a target
	KindCommand                 // the client wants something done
	KindColumns                 // the shape of a tabular answer
	KindRows                    // some rows of a tabular answer
	KindBytes                   // a piece of a stream: terminal, COPY, body
	KindResult                  // how a command ended
	KindNotice                  // what the upstream says beside its answers
	KindClose                   // the session is over
	KindOpaque                  // the codec could not read it
)

var kindNames = [...]string{"", "open", "command", "columns", "rows", "bytes", "result", "notice", "close", "opaque"}

// String returns the lower-case word used in policies, records and listings.
func (k Kind) String() string { return name(kindNames[:], int(k)) }

// ParseKind is the inverse of Kind.String. It returns 0 for an unknown word.
func ParseKind(s string) Kind { return Kind(index(kindNames[:], s)) }

// Kinds is a set of Kind values.
type Kinds uint16

// KindSet returns the set of the kinds given.
func KindSet(kinds ...Kind) (set Kinds) {
	for _, k := range kinds {
		set |= 1 << k
	}
	return set
}

// Has reports whether k is in the set.
func (s Kinds) Has(k Kind) bool { return s&(1<<k) != 0 }

// Direction says who sent what an Event describes.
type Direction uint8

// The directions.
const (
	FromClient Direction = iota + 1
	FromUpstream
	FromGateway // an answer that Weir gave in the upstream's place, such as a refusal
)

var directionNames = [...]string{"", "client", "upstream", "gateway"}

// String returns the word used in policies, records and listings.
func (d Direction) String() string { return name(directionNames[:], int(d)) }

// Effect is one thing a command may do to the target. The set is closed.
type Effect string

// The effects, in the order in which they are listed.
const (
	EffectRead      Effect = "read"
	EffectWrite     Effect = "write"
	EffectDDL       Effect = "ddl"
	EffectPrivilege Effect = "privilege"
	EffectSession   Effect = "session"
	EffectFile      Effect = "file"
	EffectProcess   Effect = "process"
	EffectNetwork   Effect = "network"
	EffectAdmin     Effect = "admin"
	EffectUnknown   Effect = "unknown"
)

// Effects lists the closed set.
var Effects = []Effect{
	EffectRead, EffectWrite, EffectDDL, EffectPrivilege, EffectSession,
	EffectFile, EffectProcess, EffectNetwork, EffectAdmin, EffectUnknown,
}

// Status says whether a command's facts can be relied on.
type Status string

// The statuses. The zero value is incomplete: a codec has to claim that it knows.
const (
	StatusIncomplete Status = "incomplete"
	StatusKnown      Status = "known"
)

// Resource is something a command touches.
type Resource struct {
	Kind    string   `json:"kind"`              // "table", "function", "path", "key" …
	Name    string   `json:"name"`              // qualified and resolved where the protocol can
	Use     []string `json:"use"`               // how: "read", "write", "create", "call" …
	Columns []string `json:"columns,omitempty"` // the columns used, where known; "*": all, or it cannot be told
	// Indirect are those that decide about the answer without being in it: conditions, joins, groups, order. Copied are
	// those whose values are written somewhere else, and Transformed those that the answer has inside an expression. "*"
	// is any column of the resource, and "*.*" any column of any.
	Indirect    []string `json:"indirect,omitempty"`
	Copied      []string `json:"copied,omitempty"`
	Transformed []string `json:"transformed,omitempty"`
}

// Command is what a client wants done, in words a policy author understands without knowing the protocol.
// A Command is immutable once it has been passed to Session.Check and may be shared by many events
// (codecs cache commands by text).
type Command struct {
	Action      string     `json:"action"` // "select", "GET", "exec", "tools/call" …
	Text        string     `json:"text"`   // what the client sent, secrets removed
	Fingerprint string     `json:"fingerprint"`
	Effects     []Effect   `json:"effects"`
	Resources   []Resource `json:"resources"`
	// Where reports whether every statement that changes or removes rows says which.
	Where  bool   `json:"where"`
	Status Status `json:"status"`
	Reason string `json:"reason,omitempty"` // why the facts are incomplete
	// Secret reports that the bytes of this command hold a secret: its wire and parameters are never recorded.
	Secret bool `json:"secret,omitempty"`

	shape *Command // set by WithText
	once  sync.Once
	facts []byte
}

// WithText returns a command that does the same as c and was said in another text: one that differs in literals only.
func (c *Command) WithText(text string) *Command {
	s := c.Shape()
	return &Command{
		Action: s.Action, Text: text, Fingerprint: s.Fingerprint, Effects: s.Effects, Resources: s.Resources,
		Where: s.Where, Status: s.Status, Reason: s.Reason, Secret: s.Secret, shape: s,
	}
}

// Shape returns the one command that all those made from it by WithText share: it does the same in another text.
func (c *Command) Shape() *Command {
	if c.shape != nil {
		return c.shape
	}
	return c
}

// HasEffect reports whether e is among the command's effects.
func (c *Command) HasEffect(e Effect) bool {
	for _, x := range c.Effects {
		if x == e {
			return true
		}
	}
	return false
}

// Facts returns the command as a JSON object. The result is computed once and must not be changed.
func (c *Command) Facts() []byte {
	c.once.Do(func() {
		if s := c.shape; s != nil && s.Action == c.Action { // the shape's facts, with another text in them
			head := len(`{"action":`) + len(AppendJSON(nil, s.Action)) + len(`,"text":`)
			facts, rest := s.Facts(), 0
			if rest = head + len(jsonText(s.Text)); rest < len(facts) && facts[rest] == ',' {
				c.facts = append(AppendJSON(append(make([]byte, 0, len(facts)+len(c.Text)), facts[:head]...), c.Text), facts[rest:]...)
				return
			}
		}
		type plain Command // without the methods
		b, err := json.Marshal((*plain)(c))
		if err != nil { // only strings, bools and slices of them: cannot happen
			b = []byte(`{"status":"incomplete","reason":"facts could not be encoded"}`)
		}
		c.facts = b
	})
	return c.facts
}

// jsonText is a text as json.Marshal writes it.
func jsonText(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil { // a string can always be written
		return nil
	}
	return b
}

// Origin is the base column that a result column comes from, as the target reports it.
type Origin struct {
	Table  string `json:"table"`
	Column string `json:"column"`
}

// Column is one column of a tabular answer.
type Column struct {
	Name   string  `json:"name"`
	Type   string  `json:"type"` // the target's own name of the type
	Binary bool    `json:"binary,omitempty"`
	Origin *Origin `json:"origin,omitempty"`
	// Lineage lists every base column whose value may be in this one, when it is not (only) Origin. The column "*"
	// stands for every column of the table, the table "*" for every table: so nothing can be said of the value.
	Lineage []Origin `json:"lineage,omitempty"`
}

// Cell is one value inside Batch.Data. Len is -1 for NULL.
type Cell struct{ Off, Len int32 }

// Null reports whether the cell holds no value.
func (c Cell) Null() bool { return c.Len < 0 }

// Patch replaces the value of one cell by bytes of another length. A nil Value means NULL.
type Patch struct {
	Cell  int // index into Batch.Cells
	Value []byte
}

// Batch is some rows of a tabular answer over the bytes they arrived in.
// A step may change the bytes of a cell in place when the length stays, and appends a Patch when it does not.
// It must not keep Data, Cells or Patches after Inspect returns: the codec reuses them.
type Batch struct {
	Columns []Column // the shape; not to be changed
	Watch   []int    // the columns that Cells describes, ascending indexes into Columns
	Rows    int
	Data    []byte  // the wire bytes of all rows
	Cells   []Cell  // Rows × len(Watch), row by row
	Patches []Patch // at most one a cell; a later Set replaces the earlier
	Edited  bool    // a step changed Data in place
}

// Value returns the present bytes of cell i, and false for NULL. The bytes belong to the batch.
func (b *Batch) Value(i int) ([]byte, bool) {
	for j := len(b.Patches) - 1; j >= 0; j-- { // the last writer wins; patches are few or ascending
		if b.Patches[j].Cell == i {
			return b.Patches[j].Value, b.Patches[j].Value != nil
		}
		if b.Patches[j].Cell < i {
			break
		}
	}
	c := b.Cells[i]
	if c.Null() {
		return nil, false
	}
	return b.Data[c.Off : c.Off+c.Len], true
}

// Set gives cell i a new value; nil means NULL. It edits in place where the length allows.
// The batch keeps value when it does not.
func (b *Batch) Set(i int, value []byte) {
	c := b.Cells[i]
	at := len(b.Patches)
	for at > 0 && b.Patches[at-1].Cell >= i {
		at--
	}
	patched := at < len(b.Patches) && b.Patches[at].Cell == i
	switch {
	case value != nil && !c.Null() && len(value) == int(c.Len):
		copy(b.Data[c.Off:c.Off+c.Len], value)
		b.Edited = true
		if patched {
			b.Patches = append(b.Patches[:at], b.Patches[at+1:]...)
		}
	case value == nil && c.Null() && !patched:
	case patched:
		b.Patches[at].Value = value
	default:
		b.Patches = append(b.Patches, Patch{})
		copy(b.Patches[at+1:], b.Patches[at:])
		b.Patches[at] = Patch{Cell: i, Value: value}
	}
}

// Result is how a command ended, or what was said beside it.
type Result struct {
	Status  string `json:"status"` // "ok", "error", "notice", "notification", "parameter", "ready" …
	Tag     string `json:"tag,omitempty"`
	Rows    int64  `json:"rows,omitempty"` // rows returned or changed
	Code    string `json:"code,omitempty"` // the protocol's own error code
	Message string `json:"message,omitempty"`
	// Texts are the parts of Wire that may carry a value of the target's data: error message, detail, hint,
	// notification payload. Steps may change them; the codec writes them back. Not recorded as facts.
	Texts []Text `json:"-"`
}

// Text is one value-bearing text of a Result.
type Text struct {
	Field string // the protocol's name of the field
	Value string
}

// Event is one thing that a client asked or an upstream answered.
// It is valid during Session.Check only; steps keep nothing of it.
type Event struct {
	Kind      Kind
	Direction Direction
	Seq       uint64    // set when recorded: dense from 0 within a session
	Time      time.Time // set by Session.Check when zero
	Session   *Session  // set by Session.Check; never nil inside a chain

	// Exchange is the command that this event belongs to; nil for Open, Close and most notices.
	Exchange *Exchange
	Stage    string   // on Command: "prepare" where the text is seen, "execute" (or empty) where it runs
	Params   []Param  // on Command: the parameters' values
	Columns  []Column // on Columns
	Rows     *Batch   // on Rows
	Bytes    []byte   // on Bytes: steps may edit in place or replace the slice
	Result   *Result  // on Result and Notice
	Reason   string   // on Opaque: what could not be read; on Close: how the session ended

	// Waiter is the codec's side of a command that a rule may hold. Without it an approval is bound to the command's text.
	Waiter Waiter

	// Detail is one further object for policies, under the protocol's own name.
	Detail map[string]any

	// Wire is what is delivered when no step changed the event. When Frame is set it is asked instead.
	Wire  []byte
	Frame Frame
}

// Command returns the command that the event is or belongs to, or nil.
func (e *Event) Command() *Command {
	if e.Exchange == nil {
		return nil
	}
	return e.Exchange.Command
}

// Frame gives the bytes of an event as they will be delivered, after the chain has had its say.
// A codec implements it where a verdict can change bytes. The result is valid until the codec's next event. An error
// refuses the event: it is a *Denial where the codec has better words than that the answer cannot be rewritten.
type Frame interface {
	Wire(e *Event, v *Verdict) ([]byte, error)
}

// Param is one parameter of a command.
type Param struct {
	Value  []byte // nil is NULL
	Binary bool
}

// Exchange is one command and what comes back. The codec makes one for each command, and hands it to every
// event that belongs to it; the session keeps its account there. It belongs to one session and is used by
// one direction at a time.
type Exchange struct {
	Command *Command
	Columns []Column // the shape of the present answer
	Plan    Plan     // what the steps want to see and do in the present answer
	Masks   []Mask   // named by the verdict on Command: the chain binds them to the Columns that come
	Limit   Limit    // the strictest limit that a verdict named
	Record  Level    // the level that a verdict named; zero: the target's
	Rows    int64    // delivered so far
	Bytes   int64
	Denied  bool

	asked    bool     // the command has been judged where it runs
	approved []string // the rules for which somebody has approved it
}

// Plan is what a Columns verdict decided for the rows that follow. It is filled in by the chain.
type Plan struct {
	Watch []int        // the columns whose cells the steps want, ascending; empty: rows pass unread
	Masks []ColumnMask // compiled by the chain, applied by it
	Rows  bool         // some step wants every batch, even with no cells
	Bound any          // the chain's own: the compiled form of the above. It goes where the Plan goes, within one session
}

// ColumnMask is a Mask bound to one column of one answer.
type ColumnMask struct {
	Column int // index into Exchange.Columns
	Mask   Mask
}

func name(names []string, i int) string {
	if i < 0 || i >= len(names) || names[i] == "" {
		return "unknown"
	}
	return names[i]
}

func index(names []string, s string) int {
	for i, n := range names {
		if n == s && s != "" {
			return i
		}
	}
	return 0
}
