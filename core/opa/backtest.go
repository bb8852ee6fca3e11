package opa

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/weir-gateway/weir/core"
)

// The changes that a backtest finds.
const (
	NewlyDenied    = "newly denied"
	NewlyAllowed   = "newly allowed"
	NewlyMasked    = "newly masked"
	NoLongerMasked = "no longer masked"
	OtherRule      = "denied by another rule"
	Failed         = "evaluation failed" // which denies
)

// Changes are all of them, the gravest first.
var Changes = []string{NewlyAllowed, NoLongerMasked, NewlyDenied, Failed, NewlyMasked, OtherRule}

// Backtest compares what a candidate policy would have said of past events with what was decided then. The candidate
// stands in the place of every policy that was asked: what the gateway itself or a plugin refused stays refused.
// It is safe for use by several goroutines.
type Backtest struct {
	policy *Policy

	mu     sync.Mutex
	count  BacktestCount
	groups map[backtestKey]*BacktestGroup
}

// BacktestCount is how much was looked at.
type BacktestCount struct {
	Sessions int64 `json:"sessions"`
	Commands int64 `json:"commands"`
	Answers  int64 `json:"answers"` // shapes of answers
	Denied   int64 `json:"denied"`  // of these commands, then
	Would    int64 `json:"would"`   // of these commands, be denied by the candidate or by what is not a policy
	// Changes counts what was found, by the kind of change.
	Changes map[string]int64 `json:"changes"`
}

type backtestKey struct{ change, rule, identity, target, shape string }

// BacktestGroup is one kind of change: the same rule, identity, target and shape of statement.
type BacktestGroup struct {
	Change   string `json:"change"`
	Rule     string `json:"rule"` // the candidate's where it denies or masks, else the one that did
	Column   string `json:"column,omitempty"`
	Identity string `json:"identity"`
	Target   string `json:"target"`
	Shape    string `json:"shape,omitempty"` // the statement's fingerprint
	Count    int64  `json:"count"`
	// The first that was met.
	Session string `json:"session"`
	Seq     uint64 `json:"seq"`
	Text    string `json:"text,omitempty"`
}

// NewBacktest makes a backtest of a policy.
func NewBacktest(p *Policy) *Backtest {
	return &Backtest{policy: p, groups: map[backtestKey]*BacktestGroup{}, count: BacktestCount{Changes: map[string]int64{}}}
}

// Unknown lists what the policy reads of the input and no recording holds, so that it is only guessed.
func (b *Backtest) Unknown() (paths []string) {
	for _, q := range []*question{b.policy.open, b.policy.guard} {
		if q != nil && q.footprint.reads("session.in_transaction") {
			paths = append(paths, "input.session.in_transaction: taken as false where only metadata was recorded")
		}
		if q != nil && (q.footprint.reads("session.tables_complete") || q.footprint.reads("run.tables_complete")) {
			paths = append(paths, "input.….tables_complete: as if these rules had been in force from the beginning")
		}
		for _, of := range []string{"session", "run"} {
			if q != nil && (q.footprint.reads(of+".bytes_to_client") || q.footprint.reads(of+".bytes_from_client")) {
				paths = append(paths, "input."+of+".bytes_…: counted where everything was recorded, and not where only metadata was")
			}
		}
		if q != nil && q.footprint.reads("target.labels") {
			paths = append(paths, "input.target.labels: taken as the configuration has them now")
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// Runs reports whether the policy reads what is known of runs: their sessions have to be looked at together.
func (b *Backtest) Runs() bool { return b.reads("run") }

// Bytes reports whether the policy reads how many bytes there were.
func (b *Backtest) Bytes() bool {
	return b.reads("session.bytes_to_client") || b.reads("session.bytes_from_client") || b.reads("run")
}

func (b *Backtest) reads(path string) bool {
	return b.policy.open != nil && b.policy.open.footprint.reads(path) || b.policy.guard != nil && b.policy.guard.footprint.reads(path)
}

// Result returns what has been found so far: the gravest and largest groups first.
func (b *Backtest) Result() (BacktestCount, []BacktestGroup) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]BacktestGroup, 0, len(b.groups))
	for _, g := range b.groups {
		out = append(out, *g)
	}
	slices.SortFunc(out, func(x, y BacktestGroup) int {
		return cmp.Or(cmp.Compare(slices.Index(Changes, x.Change), slices.Index(Changes, y.Change)), cmp.Compare(y.Count, x.Count),
			strings.Compare(x.Rule, y.Rule), strings.Compare(x.Identity, y.Identity), strings.Compare(x.Target, y.Target), strings.Compare(x.Shape, y.Shape))
	})
	count := b.count
	count.Changes = maps.Clone(b.count.Changes)
	return count, out
}

// BacktestSession goes through one session's events, in their order. It is for one goroutine.
type BacktestSession struct {
	// Run is what the session's events are added to besides, when it is one of several of a run; it may be nil.
	Run *core.Run
	// Beside has the session's events counted but not judged.
	Beside bool

	b       *Backtest
	begun   *core.Session
	masks   []core.Mask  // that the candidate named for the present command
	denied  *core.Denial // what was said of the present event then
	verdict core.Verdict
	err     error
	count   BacktestCount
}

// Session begins another session.
func (b *Backtest) Session() *BacktestSession { return &BacktestSession{b: b} }

// Inspect asks the candidate; the session calls it.
func (s *BacktestSession) Inspect(ctx context.Context, e *core.Event) (core.Verdict, error) {
	s.verdict, s.err = core.Verdict{}, nil
	if !s.Beside && s.b.policy.Subscription().Kinds.Has(e.Kind) {
		s.verdict, s.err = s.b.policy.Inspect(ctx, e)
	}
	return core.Verdict{Deny: s.denied}, nil // what happened then goes on, or the counts would not be those of then
}

// Event compares one event. denied and decisions are what its record holds.
func (s *BacktestSession) Event(ctx context.Context, e *core.Event, denied *core.Denial, decisions []core.Decision) {
	if s.begun != e.Session {
		s.begun = e.Session
		s.begun.Begin(core.SessionConfig{Chain: s, Run: s.Run, Tables: s.b.policy.Subscription().Tables})
		if !s.Beside {
			s.count.Sessions++
		}
	}
	s.denied = denied
	s.begun.Check(ctx, e)
	if s.Beside {
		return
	}
	var then []string // the rules of policies that denied it
	others := denied != nil
	for _, d := range decisions {
		if d.Action == "deny" || d.Action == "hold" {
			if byPolicy(d) {
				then = append(then, d.Rule)
				others = false
			}
		}
	}
	for _, d := range decisions { // a denial of somebody else beside it stands
		others = others || d.Action == "deny" && !byPolicy(d) && !slices.Contains(then, d.Rule)
	}
	now := ""
	switch {
	case s.err != nil:
		now = "error"
	case s.verdict.Deny != nil:
		now = s.verdict.Deny.Rule
	case s.verdict.Hold != nil:
		now = s.verdict.Hold.Rule
	}
	switch e.Kind {
	case core.KindCommand:
		s.count.Commands++
		if denied != nil {
			s.count.Denied++
		}
		if now != "" || others {
			s.count.Would++
		}
		s.masks = s.verdict.Masks
	case core.KindColumns:
		s.count.Answers++
	}
	switch {
	case others:
	case s.err != nil && len(then) == 0:
		s.found(e, Failed, now, "")
	case now != "" && len(then) == 0:
		s.found(e, NewlyDenied, now, "")
	case now == "" && len(then) > 0:
		s.found(e, NewlyAllowed, strings.Join(then, ", "), "")
	case now != "" && !slices.Contains(then, now):
		s.found(e, OtherRule, now, "")
	}
	if e.Kind == core.KindColumns && denied == nil && now == "" {
		s.columns(e, decisions)
	}
}

// columns compares which columns of an answer are masked.
func (s *BacktestSession) columns(e *core.Event, decisions []core.Decision) {
	was := map[string]string{}
	for _, d := range decisions {
		if d.Action == "mask" {
			was[d.Detail] = d.Rule
		}
	}
	is := map[string]string{}
	for _, masks := range [...][]core.Mask{s.masks, s.verdict.Masks} {
		for i := range masks {
			for j := range e.Columns {
				if e.Columns[j].Matches(masks[i].Column) {
					is[e.Columns[j].Name] = masks[i].Rule
				}
			}
		}
	}
	for j := range e.Columns {
		name := e.Columns[j].Name
		before, masked := was[name]
		rule, masks := is[name]
		switch {
		case masks && !masked:
			s.found(e, NewlyMasked, rule, name)
		case masked && !masks:
			s.found(e, NoLongerMasked, before, name)
		}
		delete(was, name) // the same name twice is told once
		delete(is, name)
	}
}

// byPolicy reports whether a decision is a policy's: those name the package and the revision.
func byPolicy(d core.Decision) bool {
	rest, ok := strings.CutSuffix(d.Detail, ")")
	if !ok {
		return false
	}
	at := strings.LastIndexByte(rest, '(')
	pkg, revision, ok := strings.Cut(rest[at+1:], "@")
	return at >= 0 && ok && pkg != "" && len(revision) == 12
}

func (s *BacktestSession) found(e *core.Event, change, rule, column string) {
	g := BacktestGroup{
		Change: change, Rule: rule, Column: column, Identity: e.Session.Identity.Subject, Target: e.Session.Target.Name,
		Session: e.Session.ID, Seq: e.Seq, Count: 1,
	}
	if c := e.Command(); c != nil && e.Kind != core.KindOpen {
		g.Shape, g.Text = c.Fingerprint, c.Text
		if g.Text == "" {
			g.Text = c.Action
		}
		if len(g.Text) > 400 {
			g.Text = strings.ToValidUTF8(g.Text[:400], "") + " …"
		}
		g.Text = strings.Clone(g.Text)
	}
	k := backtestKey{change, rule + "\x00" + column, g.Identity, g.Target, g.Shape}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.count.Changes[change]++
	if have := s.b.groups[k]; have != nil {
		have.Count++
		return
	}
	if len(s.b.groups) < maxGroups {
		s.b.groups[k] = &g
	}
}

// maxGroups bounds the groups that a backtest keeps; further ones are counted in Changes only.
const maxGroups = 100_000

// Close adds the session's counts, and has the policy forget it.
func (s *BacktestSession) Close() {
	if s.begun != nil {
		_ = s.begun.Close(core.EndClosed, "") // nothing is recorded
		s.b.policy.Forget(s.begun)
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	c, d := &s.b.count, &s.count
	c.Sessions, c.Commands, c.Answers = c.Sessions+d.Sessions, c.Commands+d.Commands, c.Answers+d.Answers
	c.Denied, c.Would = c.Denied+d.Denied, c.Would+d.Would
	s.count = BacktestCount{}
}
