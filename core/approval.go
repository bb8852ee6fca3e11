package core

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// HoldMode says what a client sees of a command that waits for an approval.
type HoldMode string

// The modes.
const (
	HoldRefuse HoldMode = "refuse" // an error at once, with the approval's id: the same command runs when it comes again after it was approved
	HoldWait   HoldMode = "wait"   // the answer comes late: the command is parked until it goes on or is refused
)

// Holding is how a target deals with held commands. Zero fields take the defaults.
type Holding struct {
	Mode  HoldMode      // default: refuse
	Wait  time.Duration // how long a request may wait for its answer; default: an hour, or five minutes in mode wait
	Valid time.Duration // how long an approval may be used, in mode refuse; default: 15 minutes
}

// WithDefaults fills in the defaults.
func (h Holding) WithDefaults() Holding {
	if h.Mode == "" {
		h.Mode = HoldRefuse
	}
	if h.Wait == 0 {
		h.Wait = time.Hour
		if h.Mode == HoldWait {
			h.Wait = 5 * time.Minute
		}
	}
	if h.Valid == 0 {
		h.Valid = 15 * time.Minute
	}
	return h
}

// ApprovalState is where a request for an approval has got to.
type ApprovalState string

// The states. A request that has been withdrawn is gone.
const (
	ApprovalWaiting  ApprovalState = "waiting"
	ApprovalApproved ApprovalState = "approved"
	ApprovalDenied   ApprovalState = "denied"
	ApprovalUsed     ApprovalState = "used"
	ApprovalExpired  ApprovalState = "expired"
)

// Approval is one held command, and what people have said about it.
type Approval struct {
	ID      string        `json:"id"`
	State   ApprovalState `json:"state"`
	Created time.Time     `json:"created"`
	// Expires is when a waiting request is over, an approval can be used no more, and a denied command may be asked for anew.
	Expires  time.Time     `json:"expires"`
	Identity string        `json:"identity"` // the subject that asks
	Issuer   string        `json:"issuer"`
	Kind     string        `json:"kind,omitempty"`
	Run      string        `json:"run,omitempty"`
	Session  string        `json:"session"`
	Target   string        `json:"target"`
	Protocol string        `json:"protocol"`
	Mode     HoldMode      `json:"mode"`
	Valid    time.Duration `json:"-"`
	Holds    []HeldBy      `json:"holds"`
	Action   string        `json:"action"`
	// Text and Params are for people to read, with a bound; Cut says that there is more. Digest stands for all of it.
	Text      string          `json:"text"`
	Params    json.RawMessage `json:"params,omitempty"`
	Cut       bool            `json:"cut,omitempty"`
	Effects   []Effect        `json:"effects,omitempty"`
	Resources []string        `json:"resources,omitempty"`
	// Digest is the SHA-256 of the whole statement, its parameters, the target, the identity and the rules. It is empty
	// where people look at a command that holds a secret: short secrets could be guessed from it.
	Digest string     `json:"digest,omitempty"`
	Secret bool       `json:"secret,omitempty"`
	Denied *Word      `json:"denied,omitempty"`
	Used   *time.Time `json:"used,omitempty"`
}

// HeldBy is one rule that holds a command, and who approved for it.
type HeldBy struct {
	Rule      string   `json:"rule"`
	Reason    string   `json:"reason,omitempty"`
	Approvers []string `json:"approvers"`
	Approved  *Word    `json:"approved,omitempty"`
}

// Word is what a person said.
type Word struct {
	Subject string    `json:"subject"`
	Issuer  string    `json:"issuer"`
	Time    time.Time `json:"time"`
	Reason  string    `json:"reason,omitempty"`
}

// String names the person and quotes the reason.
func (w *Word) String() string {
	s := w.Subject + " (" + w.Issuer + ") at " + w.Time.UTC().Format(time.RFC3339)
	if w.Reason != "" {
		s += ": " + w.Reason
	}
	return s
}

// StateAt is the state at a time: what has expired says so.
func (a *Approval) StateAt(now time.Time) ApprovalState {
	if (a.State == ApprovalWaiting || a.State == ApprovalApproved || a.State == ApprovalDenied) && !now.Before(a.Expires) {
		return ApprovalExpired
	}
	return a.State
}

// Rule is the first rule that holds the command.
func (a *Approval) Rule() string {
	if len(a.Holds) == 0 {
		return ""
	}
	return a.Holds[0].Rule
}

// Approvals is the queue of held commands, which all gateways of a cluster share. Its errors may be shown to clients.
type Approvals interface {
	// Ask puts a request into the queue and returns it with its id. In mode refuse it returns the one that is there
	// already for the same digest, as long as it waits, can be used, or was denied and has not expired.
	Ask(ctx context.Context, a Approval) (Approval, error)
	// Get returns what is known of a request now, without asking anybody; false: it is gone.
	Get(id string) (Approval, bool)
	// Watch returns a channel that has a value after each change of a request, until stop is called.
	Watch(id string) (changed <-chan struct{}, stop func())
	// Use takes an approval: of all who try, in all gateways, one succeeds. It fails with ErrNoApproval when there is
	// none that can be used, or it is for another digest.
	Use(ctx context.Context, id, digest string) (Approval, error)
	// Withdraw takes back a request that nobody waits for any more.
	Withdraw(ctx context.Context, id string)
}

// ErrNoApproval says that there is no approval that can be used.
var ErrNoApproval = errors.New("there is no approval that can be used")

// Waiter is a codec's side of a command that may have to wait for an approval.
type Waiter interface {
	// Said returns all that the command runs, as the client sent it: its own text and what the names in it stand for,
	// such as prepared statements. An approval is bound to it. None: it is not known, so nobody can approve it.
	Said() []string
	// Notice returns a message that tells the client that its command waits; nil: the protocol has none.
	Notice(text string) []byte
	// Tell sends such a message.
	Tell(ctx context.Context, notice []byte) error
	// Gone says why nobody waits for the command any more; empty: somebody does. It is asked twice a second.
	Gone() string
}

// Bounds of what people are shown of a command.
const (
	shownText   = 64 << 10 // bytes
	shownParams = 16 << 10
	shownParam  = 1 << 10
	shownNames  = 100
)

// digest is the SHA-256 of what an approval is bound to. Each part has its length before it, so that no two commands
// have the same encoding.
func digest(e *Event, said []string, holds []HeldBy) string {
	h := sha256.New()
	var b [8]byte
	number := func(n int) {
		binary.BigEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:])
	}
	text := func(s string) {
		number(len(s))
		h.Write([]byte(s))
	}
	s := e.Session
	for _, part := range []string{"weir approval 1", e.Kind.String(), s.Target.Name, s.Identity.Issuer, s.Identity.Subject} {
		text(part)
	}
	number(len(said))
	for _, part := range said {
		text(part)
	}
	number(len(e.Params))
	for _, p := range e.Params {
		form := "text"
		switch {
		case p.Value == nil:
			form = "null"
		case p.Binary:
			form = "binary"
		}
		text(form)
		text(string(p.Value))
	}
	number(len(holds)) // an approval given under other rules is none
	for _, hold := range holds {
		text(hold.Rule)
		number(len(hold.Approvers))
		for _, a := range hold.Approvers {
			text(a)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// asking makes the request for an event that is held.
func asking(e *Event, said []string, hold *Hold, h Holding) Approval {
	s := e.Session
	now := time.Now().UTC()
	a := Approval{
		State: ApprovalWaiting, Created: now, Expires: now.Add(h.Wait), Mode: h.Mode, Valid: h.Valid,
		Identity: s.Identity.Subject, Issuer: s.Identity.Issuer, Kind: s.Identity.Kind, Run: s.Run,
		Session: s.ID, Target: s.Target.Name, Protocol: s.Protocol,
	}
	for ; hold != nil; hold = hold.And {
		approvers := slices.Clone(hold.Approvers)
		slices.Sort(approvers)
		a.Holds = append(a.Holds, HeldBy{Rule: hold.Rule, Reason: hold.Reason, Approvers: slices.Compact(approvers)})
	}
	a.Digest = digest(e, said, a.Holds)
	c := e.Command()
	if c == nil {
		a.Action, a.Text = e.Kind.String(), "open a session with "+s.Target.Name
		return a
	}
	a.Action, a.Secret, a.Effects = c.Action, c.Secret, c.Effects
	for i, r := range c.Resources {
		if i == shownNames {
			a.Cut = true
			break
		}
		a.Resources = append(a.Resources, r.Name)
	}
	if c.Secret { // the text says that it is withheld
		a.Text = c.Text
		return a
	}
	var cut bool
	a.Text = c.Text
	for i, t := range said {
		if i > 0 && t != c.Text {
			a.Text += "\n-- and what it names:\n" + t
		}
	}
	if a.Text, cut = clipped(a.Text, shownText); cut {
		a.Cut = true
	}
	if len(e.Params) > 0 {
		b := []byte{'['}
		for i, p := range e.Params {
			if i > 0 {
				b = append(b, ',')
			}
			if len(b) > shownParams {
				b, a.Cut = append(b, `"…"`...), true
				break
			}
			if len(p.Value) > shownParam {
				p.Value, a.Cut = p.Value[:shownParam], true
			}
			b = appendParam(b, p)
		}
		a.Params = append(b, ']')
	}
	return a
}

// clipped bounds a text.
func clipped(s string, most int) (text string, cut bool) {
	if len(s) <= most {
		return s, false
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + " … (" + strconv.Itoa(len(s)) + " bytes)", true
}
