package gateway

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// ruled is a chain with a name: it denies commands in that name, and marks the answers whose columns it saw.
type ruled struct {
	name   string
	kinds  core.Kinds
	mu     sync.Mutex
	forgot []string
}

func (r *ruled) Inspect(_ context.Context, e *core.Event) (core.Verdict, error) {
	d := &core.Denial{Rule: r.name}
	switch e.Kind {
	case core.KindCommand:
		return core.Verdict{Deny: d}, nil
	case core.KindColumns:
		e.Exchange.Plan.Bound = r.name
	case core.KindRows:
		d.Reason = fmt.Sprint(e.Exchange.Plan.Bound)
		return core.Verdict{Deny: d}, nil
	}
	return core.Verdict{}, nil
}

func (r *ruled) Subscription() core.Subscription { return core.Subscription{Kinds: r.kinds} }

func (r *ruled) Forget(s *core.Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgot = append(r.forgot, s.ID)
}

func (r *ruled) hasForgotten(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.forgot, id)
}

// TestOpenSessionsFollow: what a session is asked is its target's present chain, and the settings of a chain that it has
// left are let go of one reload later, though the session is still open.
func TestOpenSessionsFollow(t *testing.T) {
	defer func(d time.Duration) { answerTime = d }(answerTime)
	answerTime = 0
	chains := map[string]*ruled{}
	released := make(chan string, 8)
	settings := func(name string) Settings {
		chains[name] = &ruled{name: name}
		return Settings{Targets: []Target{target("one", anyPort, chains[name])}, Verifier: names{}, Release: func() { released <- name }}
	}
	r := start(t, func(_ *Config, s *Settings) { *s = settings("first") })
	open := r.dial()
	open.want("one good", "ok")
	open.want("x", "denied first")
	for _, name := range []string{"second", "third", "fourth"} {
		if err := r.Reload(settings(name)); err != nil {
			t.Fatal(err)
		}
		open.want("x", "denied "+name)
		passing := r.dial()
		passing.want("one good", "ok")
		_ = passing.Close()
	}
	r.journal.mu.Lock()
	id := r.journal.order[0]
	r.journal.mu.Unlock()
	for name, want := range map[string]bool{"first": true, "second": true, "third": false, "fourth": false} {
		if got := chains[name].hasForgotten(id); got != want {
			t.Errorf("the %s chain was told to forget the session: %v", name, got)
		}
	}
	// A target that is gone leaves its open sessions as they are; when it comes back, they follow it again.
	other := settings("other")
	other.Targets[0].Target.Name = "two"
	if err := r.Reload(other); err != nil {
		t.Fatal(err)
	}
	open.want("x", "denied fourth")
	if err := r.Reload(settings("back")); err != nil {
		t.Fatal(err)
	}
	open.want("x", "denied back")
	_ = open.Close()
	got := map[string]bool{}
	for range 5 { // all but the present ones
		select {
		case name := <-released:
			got[name] = true
		case <-time.After(30 * time.Second):
			t.Fatalf("released only %v", got)
		}
	}
}

// TestSettingsAreLetGo: a session that stays does not keep every generation that it went through.
func TestSettingsAreLetGo(t *testing.T) {
	released := make(chan int, 64)
	settings := func(i int) Settings {
		return Settings{Targets: []Target{target("one", anyPort, &ruled{name: "r"})}, Verifier: names{}, Release: func() { released <- i }}
	}
	r := start(t, func(_ *Config, s *Settings) { *s = settings(0) })
	open := r.dial()
	open.want("one good", "ok")
	const last = 20
	for i := 1; i <= last; i++ {
		if err := r.Reload(settings(i)); err != nil {
			t.Fatal(err)
		}
	}
	for want := 1; want <= last-mostLeases; want++ { // 0 is what the connection came by; later ones may have answers under way
		select {
		case i := <-released:
			if i != want {
				t.Fatalf("released %d, want %d", i, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%d was not released", want)
		}
	}
	select {
	case i := <-released:
		t.Errorf("released %d while it may be in use", i)
	case <-time.After(20 * time.Millisecond):
	}
}

// TestRulesThatCannotBeFollowed: a session that was opened without rules about commands may pass them unread.
func TestRulesThatCannotBeFollowed(t *testing.T) {
	few, more := &ruled{name: "few", kinds: core.KindSet(core.KindOpen)}, &ruled{name: "more", kinds: core.KindSet(core.KindOpen, core.KindCommand)}
	r := start(t, func(_ *Config, s *Settings) { s.Targets = []Target{target("one", anyPort, few)} })
	open := r.dial()
	open.want("one good", "ok")
	for _, c := range []*ruled{few, more} {
		if err := r.Reload(Settings{Targets: []Target{target("one", anyPort, c)}, Verifier: names{}}); err != nil {
			t.Fatal(err)
		}
		_ = open.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, err := open.Read(make([]byte, 1))
		if gone := err != nil && !isTimeout(err); gone != (c == more) {
			t.Fatalf("%s: gone is %v (%v)", c.name, gone, err)
		}
	}
}

func isTimeout(err error) bool {
	t, ok := err.(interface{ Timeout() bool })
	return ok && t.Timeout()
}

// TestAnAnswerIsOneChains: rows are judged by the chain that saw their columns, whatever has been loaded since.
func TestAnAnswerIsOneChains(t *testing.T) {
	old, fresh := &ruled{name: "old"}, &ruled{name: "fresh"}
	gen := func(number uint64) *generation {
		g := &generation{number: number, targets: map[string]*Target{}}
		g.refs.Store(9)
		return g
	}
	f := &following{kinds: kindsOf(old), held: []*lease{{generation: gen(1), chain: old}}}
	f.now.Store(f.held[0])
	s := &core.Session{ID: "s", Target: target("one", "", nil).Target}
	s.Begin(core.SessionConfig{Chain: f})
	x := &core.Exchange{Command: &core.Command{Status: core.StatusKnown}}
	rows := func(x *core.Exchange) *core.Denial {
		return s.Check(t.Context(), &core.Event{Kind: core.KindRows, Direction: core.FromUpstream, Exchange: x, Rows: &core.Batch{Rows: 1}}).Deny
	}
	s.Check(t.Context(), &core.Event{Kind: core.KindColumns, Direction: core.FromUpstream, Exchange: x})
	for i, c := range []core.Plugin{fresh, nil} {
		if !f.move(&lease{generation: gen(uint64(2 + i)), chain: c}) {
			t.Fatal("it cannot be followed")
		}
		for range 2 { // each batch anew
			if d := rows(x); d == nil || d.Rule != "old" || d.Reason != "old" {
				t.Fatalf("judged by %v", d)
			}
		}
	}
	f.move(&lease{generation: gen(9), chain: fresh})
	f.move(&lease{generation: gen(8), chain: old}) // late: it is older
	y := &core.Exchange{Command: x.Command}
	s.Check(t.Context(), &core.Event{Kind: core.KindColumns, Direction: core.FromUpstream, Exchange: y})
	if d := rows(y); d == nil || d.Rule != "fresh" || d.Reason != "fresh" {
		t.Fatalf("judged by %v", d)
	}
}

// versioned is a chain that knows its version.
type versioned struct {
	ruled
	version string
}

func (v *versioned) Versions() []core.Decision {
	return []core.Decision{{Step: "p", Action: "version", Rule: "sha256:" + v.version, Detail: v.version}}
}

// TestVersionsAreTold: the first event that a chain judges says which versions its steps have, and no other does.
func TestVersionsAreTold(t *testing.T) {
	gen := func(number uint64) *generation {
		g := &generation{number: number, targets: map[string]*Target{}}
		g.refs.Store(9)
		return g
	}
	one, two := &versioned{version: "1"}, &versioned{version: "2"}
	f := &following{kinds: kindsOf(one), held: []*lease{{generation: gen(1), chain: one}}}
	f.now.Store(f.held[0])
	s := &core.Session{ID: "s", Target: target("one", "", nil).Target}
	s.Begin(core.SessionConfig{Chain: f})
	x := &core.Exchange{Command: &core.Command{Status: core.StatusKnown}}
	versions := func(e *core.Event) (list []string) {
		for _, d := range s.Check(t.Context(), e).Decisions {
			if d.Action == "version" {
				list = append(list, d.Step+" "+d.Detail+" "+d.Rule)
			}
		}
		return list
	}
	open, command := &core.Event{Kind: core.KindOpen}, &core.Event{Kind: core.KindCommand, Exchange: x}
	columns, rows := &core.Event{Kind: core.KindColumns, Exchange: x}, &core.Event{Kind: core.KindRows, Exchange: x, Rows: &core.Batch{Rows: 1}}
	want := func(e *core.Event, list ...string) {
		t.Helper()
		if got := versions(e); !slices.Equal(got, list) {
			t.Errorf("%s: %q, want %q", e.Kind, got, list)
		}
	}
	want(open, "p 1 sha256:1")
	want(command)
	want(columns)
	f.move(&lease{generation: gen(2), chain: two})
	want(rows) // the first chain's answer goes on
	s.Ask(t.Context(), columns)
	want(command, "p 2 sha256:2")
	want(rows)
	want(columns)
}
