package core

import (
	"context"
	"time"
)

// Verdict is a step's, and then the whole chain's, answer to one event. Its zero value means: pass.
type Verdict struct {
	Deny      *Denial    // any deny wins
	Hold      *Hold      // a person must approve first
	Masks     []Mask     // on Columns (and on Command, for protocols whose answers have no Columns): masks add up
	Limit     Limit      // the strictest wins
	Record    Level      // the strictest (the most recorded) wins; zero: no opinion
	Decisions []Decision // who decided what; goes into the record
	Changed   bool       // a step changed the event's bytes, cells or texts

	// Mark is set by Session.Check: pass it to Session.Settle before the event's bytes leave.
	Mark Mark
}

// Denial is a refusal, in words for the client. None of them may hold what was masked or judged secret.
type Denial struct {
	Step   string `json:"step,omitempty"` // the deciding step; set by the chain
	Rule   string `json:"rule"`
	Reason string `json:"reason,omitempty"`
	Hint   string `json:"hint,omitempty"` // what the loop can do instead
	// Approval is the id of the request for an approval that this is about.
	Approval string `json:"approval,omitempty"`
}

// Error makes a Denial usable as an error.
func (d *Denial) Error() string {
	s := "refused by rule " + d.Rule
	if d.Reason != "" {
		s += ": " + d.Reason
	}
	return s
}

// Is lets errors.Is find ErrJournalLost behind the refusal of what cannot be recorded.
func (d *Denial) Is(target error) bool { return target == ErrJournalLost && d.Rule == ruleJournalLost }

const ruleJournalLost = "journal-lost"

// Hold asks for an approval. It may be shared by many verdicts, so it is not to be changed.
type Hold struct {
	Rule      string   `json:"rule"`
	Reason    string   `json:"reason,omitempty"`
	Approvers []string `json:"approvers,omitempty"` // groups or subjects: one of them has to approve; nobody can where there are none
	And       *Hold    `json:"and,omitempty"`       // what other rules ask for beside it
}

// With returns a Hold that asks for all that h asks for, and then for all that o does. Either may be nil.
func (h *Hold) With(o *Hold) *Hold {
	if h == nil {
		return o
	}
	both := *h
	both.And = h.And.With(o)
	return &both
}

// Mask hides one column of a tabular answer.
type Mask struct {
	// Column is a column's name, or table.column, or schema.table.column. It matches a result column by its own
	// name, its origin and its lineage. "*" matches every column.
	Column string `json:"column"`
	// With names the transform: redact, partial, hash, tokenise, null …
	With string            `json:"with"`
	Args map[string]string `json:"args,omitempty"`
	Rule string            `json:"rule,omitempty"`
	Step string            `json:"step,omitempty"` // the step that named it; set by the chain
}

// Limit bounds one answer. Zero values mean no bound.
type Limit struct {
	Rows  int64         `json:"rows,omitempty"`
	Bytes int64         `json:"bytes,omitempty"`
	Time  time.Duration `json:"time,omitempty"`
}

// Merge returns the stricter of the two in each dimension.
func (l Limit) Merge(o Limit) Limit {
	return Limit{Rows: least(l.Rows, o.Rows), Bytes: least(l.Bytes, o.Bytes), Time: least(l.Time, o.Time)}
}

func least[T int64 | time.Duration](a, b T) T {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// Level says how much of a session is recorded.
type Level uint8

// The levels, from the least to the most.
const (
	LevelUnset    Level = iota
	LevelOff            // the session's opening and end only
	LevelMetadata       // the facts of each event, neither parameters nor wire bytes
	LevelFull           // everything the client saw
)

var levelNames = [...]string{"", "off", "metadata", "full"}

// String returns the config word.
func (l Level) String() string { return name(levelNames[:], int(l)) }

// ParseLevel is the inverse of Level.String. It returns LevelUnset for an unknown word.
func ParseLevel(s string) Level { return Level(index(levelNames[:], s)) }

// Decision is one step's say in a verdict.
type Decision struct {
	Step   string `json:"step"`
	Action string `json:"action"` // "deny", "mask", "hold", "limit", "record", "error", "finding", "version", "asked", "approved", "denied", "withdrawn"
	Rule   string `json:"rule,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// Merge folds o into v: any deny wins (the first one is kept), masks and decisions add up, the strictest limit
// and the fullest record level win.
func (v *Verdict) Merge(o Verdict) {
	if v.Deny == nil {
		v.Deny = o.Deny
	}
	v.Hold = v.Hold.With(o.Hold)
	v.Masks = append(v.Masks, o.Masks...)
	v.Limit = v.Limit.Merge(o.Limit)
	v.Record = max(v.Record, o.Record)
	v.Decisions = append(v.Decisions, o.Decisions...)
	v.Changed = v.Changed || o.Changed
}

// Plugin looks at one event and answers. An error is a deny, unless the step that runs the plugin says otherwise.
// Inspect is called by several goroutines at a time. It may change the event only as its fields allow, and keeps
// nothing of it.
type Plugin interface {
	Inspect(ctx context.Context, e *Event) (Verdict, error)
}

// Subscriber is a Plugin that does not want every event.
type Subscriber interface {
	Subscription() Subscription
}

// Subscription says which events a plugin wants. Its zero value means all of them.
type Subscription struct {
	Protocols []string // none: all
	Kinds     Kinds    // zero: all
	// Columns are the columns whose cells the plugin wants to see in Rows events: glob patterns over the column's
	// name, or "type:text" for a class of types. None: no cells; "*": all.
	Columns []string
	// Tables reports that the plugin asks for Session.Tables, or for those of a Run.
	Tables bool
	// Only narrows Columns to what an operator leaves the plugin: patterns as those of a mask (Column.Matches), so that
	// an alias hides nothing from it. None: all that Columns name.
	Only []string
}

// Closer is a Plugin that keeps something for each session. Forget is called once, when the session is over.
type Closer interface {
	Forget(s *Session)
}
