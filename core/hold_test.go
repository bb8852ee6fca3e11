package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// queue is a queue of approvals in memory, and the person who answers it.
type queue struct {
	mu    sync.Mutex
	all   []Approval
	fails error
	left  []string
	asked func(a *Approval) // may answer at once
}

func (q *queue) Ask(_ context.Context, a Approval) (Approval, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fails != nil {
		return a, q.fails
	}
	for _, x := range q.all {
		if a.Mode == HoldRefuse && x.Digest == a.Digest && (x.State == ApprovalWaiting || x.State == ApprovalApproved || x.State == ApprovalDenied) {
			return x, nil
		}
	}
	a.ID = fmt.Sprint("id", len(q.all)+1)
	if q.asked != nil {
		q.asked(&a)
	}
	q.all = append(q.all, a)
	if a.Mode == HoldWait { // answers come later
		w := a
		w.State = ApprovalWaiting
		return w, nil
	}
	return a, nil
}

func (q *queue) Get(id string) (Approval, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.IndexFunc(q.all, func(a Approval) bool { return a.ID == id })
	if i < 0 || slices.Contains(q.left, id) {
		return Approval{}, false
	}
	return q.all[i], true
}

func (q *queue) Watch(string) (<-chan struct{}, func()) { return nil, func() {} }

func (q *queue) Use(_ context.Context, id, digest string) (Approval, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.all {
		if a := &q.all[i]; a.ID == id && a.Digest == digest && a.State == ApprovalApproved {
			a.State = ApprovalUsed
			return *a, nil
		}
	}
	return Approval{}, ErrNoApproval
}

func (q *queue) Withdraw(_ context.Context, id string) {
	q.mu.Lock()
	q.left = append(q.left, id)
	q.mu.Unlock()
}

func (q *queue) approve(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.all {
		if q.all[i].ID == id {
			yes(&q.all[i])
		}
	}
}

func yes(a *Approval) {
	a.State = ApprovalApproved
	for i := range a.Holds {
		a.Holds[i].Approved = &Word{Subject: "dana", Issuer: "corp", Time: time.Now()}
	}
}

// rules is a chain that can be changed.
type rules struct {
	mu sync.Mutex
	f  func(e *Event) Verdict
}

func (r *rules) Inspect(_ context.Context, e *Event) (Verdict, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Kind != KindCommand && e.Kind != KindColumns {
		return Verdict{}, nil
	}
	return r.f(e), nil
}

func (r *rules) set(f func(e *Event) Verdict) {
	r.mu.Lock()
	r.f = f
	r.mu.Unlock()
}

// spoken is a command as its client said it.
type spoken struct {
	texts []string
	gone  string
}

func (s *spoken) Said() []string                     { return s.texts }
func (s *spoken) Notice(string) []byte               { return nil }
func (s *spoken) Tell(context.Context, []byte) error { return nil }
func (s *spoken) Gone() string                       { return s.gone }

type asker struct {
	target, subject, issuer string
	texts                   []string
	params                  []Param
}

func (a asker) check(q Approvals, c Plugin, h Holding) (Verdict, *Exchange) {
	s := &Session{ID: "s", Target: &Target{Name: a.target, Hold: h}, Identity: Identity{Subject: a.subject, Issuer: a.issuer}}
	s.Begin(SessionConfig{Chain: c, Approvals: q})
	x := &Exchange{Command: &Command{Action: "delete", Text: strings.Join(a.texts, ";"), Status: StatusKnown}}
	return s.Check(context.Background(), &Event{Kind: KindCommand, Direction: FromClient, Exchange: x, Params: a.params, Waiter: &spoken{texts: a.texts}}), x
}

func holdBy(rule string, approvers ...string) func(*Event) Verdict {
	return func(*Event) Verdict { return Verdict{Hold: &Hold{Rule: rule, Approvers: approvers}} }
}

// TestBinding: an approval is good for the very command, parameters, identity, target and rules that were asked about.
func TestBinding(t *testing.T) {
	first := asker{"orders", "ada", "corp", []string{"delete $1"}, []Param{{Value: []byte("1")}, {Value: []byte("2")}}}
	with := func(f func(*asker)) asker { a := first; a.params = slices.Clone(first.params); f(&a); return a }
	for _, c := range []struct {
		name string
		by   asker
		rule func(*Event) Verdict
		runs bool
	}{
		{"the same", first, nil, true},
		{"another text", with(func(a *asker) { a.texts = []string{"delete $2"} }), nil, false},
		{"a blank more", with(func(a *asker) { a.texts = []string{"delete  $1"} }), nil, false},
		{"another meaning", with(func(a *asker) { a.texts = []string{"delete $1", "x"} }), nil, false},
		{"another parameter", with(func(a *asker) { a.params[1].Value = []byte("3") }), nil, false},
		{"moved between parameters", with(func(a *asker) { a.params = []Param{{Value: []byte("12")}, {Value: []byte{}}} }), nil, false},
		{"null for empty", with(func(a *asker) { a.params[1].Value = nil }), nil, false},
		{"binary for text", with(func(a *asker) { a.params[1].Binary = true }), nil, false},
		{"one parameter more", with(func(a *asker) { a.params = append(a.params, Param{}) }), nil, false},
		{"a text for a parameter", with(func(a *asker) { a.texts, a.params = []string{"delete $1", "text", "1"}, a.params[1:] }), nil, false},
		{"another identity", with(func(a *asker) { a.subject = "bob" }), nil, false},
		{"another issuer", with(func(a *asker) { a.issuer = "other" }), nil, false},
		{"issuer and subject moved", with(func(a *asker) { a.issuer, a.subject = "corpa", "da" }), nil, false},
		{"another target", with(func(a *asker) { a.target = "people" }), nil, false},
		{"another rule", first, holdBy("other", "dba"), false},
		{"other approvers", first, holdBy("big", "dba", "boss"), false},
		{"one rule more", first, func(*Event) Verdict {
			return Verdict{Hold: (&Hold{Rule: "big", Approvers: []string{"dba"}}).With(&Hold{Rule: "other", Approvers: []string{"dba"}})}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, r := &queue{}, &rules{f: holdBy("big", "dba")}
			v, _ := first.check(q, r, Holding{})
			if v.Deny == nil || v.Deny.Approval != "id1" || v.Deny.Rule != "big" || !strings.Contains(v.Deny.Hint, "approve id1") {
				t.Fatalf("%+v", v.Deny)
			}
			q.approve("id1")
			if c.rule != nil {
				r.set(c.rule)
			}
			v, _ = c.by.check(q, r, Holding{})
			if (v.Deny == nil) != c.runs {
				t.Errorf("it runs: %t", v.Deny == nil)
			}
			if c.runs {
				if !slices.ContainsFunc(v.Decisions, func(d Decision) bool {
					return d.Action == "approved" && d.Rule == "big" && strings.HasPrefix(d.Detail, "id1 by dana (corp) at ")
				}) {
					t.Errorf("the record does not say who approved: %+v", v.Decisions)
				}
				if v, _ = c.by.check(q, r, Holding{}); v.Deny == nil {
					t.Error("it runs twice")
				}
			}
		})
	}
}

func TestHoldCannotBeAsked(t *testing.T) {
	one := asker{"orders", "ada", "corp", []string{"delete"}, nil}
	for _, c := range []struct {
		name string
		by   asker
		q    Approvals
		rule func(*Event) Verdict
		want string
	}{
		{"no queue", one, nil, holdBy("big", "dba"), "this needs an approval"},
		{"nobody may approve", one, &queue{}, holdBy("big"), "names nobody"},
		{"the second rule names nobody", one, &queue{}, func(*Event) Verdict {
			return Verdict{Hold: (&Hold{Rule: "big", Approvers: []string{"dba"}}).With(&Hold{Rule: "other"})}
		}, "names nobody"},
		{"it is not known what would run", asker{"orders", "ada", "corp", nil, nil}, &queue{}, holdBy("big", "dba"), "not known well enough"},
		{"the queue does not answer", one, &queue{fails: errors.New("the queue is away")}, holdBy("big", "dba"), "the queue is away"},
		{"a deny beside it", one, &queue{}, func(*Event) Verdict {
			return Verdict{Hold: &Hold{Rule: "big", Approvers: []string{"dba"}}, Deny: &Denial{Rule: "never", Reason: "never"}}
		}, "never"},
	} {
		for _, mode := range []HoldMode{HoldRefuse, HoldWait} {
			v, _ := c.by.check(c.q, &rules{f: c.rule}, Holding{Mode: mode, Wait: 50 * time.Millisecond})
			if v.Deny == nil || !strings.Contains(v.Deny.Reason, c.want) {
				t.Errorf("%s (%s): %+v, want %q", c.name, mode, v.Deny, c.want)
			}
			if q, ok := c.q.(*queue); ok && len(q.all) > 0 {
				t.Errorf("%s (%s): it was asked for", c.name, mode)
			}
		}
	}
}

// TestHoldRulesChange: what was approved under one rule and is held by another has to be asked for anew.
func TestHoldRulesChange(t *testing.T) {
	r := &rules{f: holdBy("big", "dba")}
	q := &queue{}
	q.asked = func(a *Approval) {
		yes(a)
		r.set(holdBy("bigger", "boss"))
		q.asked = yes
	}
	v, _ := asker{"orders", "ada", "corp", []string{"delete"}, nil}.check(q, r, Holding{Mode: HoldWait, Wait: time.Second})
	if v.Deny != nil || len(q.all) != 2 || q.all[0].Holds[0].Rule != "big" || q.all[1].Holds[0].Rule != "bigger" || !slices.Equal(q.left, []string{"id1"}) {
		t.Errorf("%+v %+v %v", v.Deny, q.all, q.left)
	}
}

// TestHoldAtColumns: a rule that was satisfied for the command does not hold its answer; one that was not asked does.
func TestHoldAtColumns(t *testing.T) {
	for _, c := range []struct {
		name   string
		stage  string
		answer func(*Event) Verdict
		denied string
	}{
		{"the same rule", "", holdBy("big", "dba"), ""},
		{"another rule", "", holdBy("columns", "dba"), "columns"},
		{"described before it runs", "prepare", holdBy("columns", "dba"), ""},
	} {
		q, r := &queue{asked: yes}, &rules{f: holdBy("big", "dba")}
		s := &Session{ID: "s", Target: &Target{Name: "orders"}}
		s.Begin(SessionConfig{Chain: r, Approvals: q})
		x := &Exchange{Command: &Command{Status: StatusKnown}}
		if v := s.Check(t.Context(), &Event{Kind: KindCommand, Direction: FromClient, Stage: c.stage, Exchange: x, Waiter: &spoken{texts: []string{"x"}}}); v.Deny != nil {
			t.Fatalf("%s: %+v", c.name, v.Deny)
		}
		if c.stage == "prepare" && len(q.all) > 0 {
			t.Error("a statement that is only prepared was asked for")
		}
		r.set(c.answer)
		v := s.Check(t.Context(), &Event{Kind: KindColumns, Direction: FromUpstream, Exchange: x})
		if got := fmt.Sprint(v.Deny != nil && v.Deny.Rule == c.denied); (c.denied == "") != (v.Deny == nil) || c.denied != "" && got != "true" {
			t.Errorf("%s: %+v", c.name, v.Deny)
		}
	}
}

// TestHoldExpiredToken: a session whose token expires does not wait on.
func TestHoldExpiredToken(t *testing.T) {
	s := &Session{ID: "s", Target: &Target{Name: "orders", Hold: Holding{Mode: HoldWait, Wait: time.Hour}}}
	s.Identity.Expires = time.Now().Add(50*time.Millisecond - expiryGrace)
	s.Begin(SessionConfig{Chain: &rules{f: holdBy("big", "dba")}, Approvals: &queue{}})
	v := s.Check(t.Context(), &Event{Kind: KindCommand, Direction: FromClient, Exchange: &Exchange{Command: &Command{Status: StatusKnown, Text: "x"}}})
	if v.Deny == nil || !strings.Contains(v.Deny.Reason, "token has expired") {
		t.Errorf("%+v", v.Deny)
	}
}
