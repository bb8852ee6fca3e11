package core

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// said passes a command through a session that refuses what contains "no".
func said(s *Session, text string, status Status, resources ...Resource) {
	c := &Command{Text: text, Status: status, Effects: []Effect{EffectRead}, Resources: resources}
	s.Check(context.Background(), &Event{Kind: KindCommand, Direction: FromClient, Exchange: &Exchange{Command: c}, Wire: []byte(text)})
}

type refusing struct{}

func (refusing) Inspect(_ context.Context, e *Event) (v Verdict, err error) {
	if e.Kind == KindCommand && strings.Contains(e.Command().Text, "no") {
		v.Deny = &Denial{Rule: "no"}
	}
	return v, nil
}

func begun(run *Run, tables bool) *Session {
	s := &Session{Target: &Target{Name: "t", AllowIncomplete: true}}
	s.Begin(SessionConfig{Chain: refusing{}, Run: run, Tables: tables})
	return s
}

func table(name string, use ...string) Resource { return Resource{Kind: "table", Name: name, Use: use} }

func shown(t Tables) string {
	names := func(list []Table) (out []string) {
		for _, x := range list {
			out = append(out, x.Name)
		}
		return out
	}
	return fmt.Sprint(names(t.Read), names(t.Written), t.Complete)
}

func TestTables(t *testing.T) {
	returning := table("deleted", "write", "delete")
	returning.Columns = []string{"a"}
	asked := table("asked", "write", "delete")
	asked.Indirect = []string{"a"}
	inserted := table("inserted", "write", "insert")
	inserted.Columns = []string{"a"}
	many := make([]Resource, maxTables+1)
	for i := range many {
		many[i] = table(fmt.Sprint("t", 1000+i), "read")
	}
	for name, c := range map[string]struct {
		do   func(s *Session)
		want string
	}{
		"nothing": {func(*Session) {}, "[] [] true"},
		"read and write": {func(s *Session) {
			said(s, "1", StatusKnown, table("b", "read"), table("a", "read"), table("w", "write"))
		}, "[a b] [w] true"},
		"through a view":   {func(s *Session) { said(s, "1", StatusKnown, table("a", "through")) }, "[a] [] true"},
		"given back":       {func(s *Session) { said(s, "1", StatusKnown, returning) }, "[deleted] [deleted] true"},
		"asked about":      {func(s *Session) { said(s, "1", StatusKnown, asked) }, "[asked] [asked] true"},
		"filled in":        {func(s *Session) { said(s, "1", StatusKnown, inserted) }, "[] [inserted] true"},
		"locked":           {func(s *Session) { said(s, "1", StatusKnown, table("a", "lock")) }, "[] [] true"},
		"a word of others": {func(s *Session) { said(s, "1", StatusKnown, table("a", "drop")) }, "[] [a] true"},
		"no word":          {func(s *Session) { said(s, "1", StatusKnown, table("a")) }, "[a] [a] true"},
		"no table": {func(s *Session) {
			said(s, "1", StatusKnown, Resource{Kind: "function", Name: "f", Use: []string{"call"}})
		}, "[] [] true"},
		"refused":         {func(s *Session) { said(s, "no", StatusKnown, table("a", "read")) }, "[] [] true"},
		"cannot be read":  {func(s *Session) { said(s, "1", StatusIncomplete, table("a", "read")) }, "[a] [] false"},
		"refused, unread": {func(s *Session) { said(s, "no", StatusIncomplete, table("a", "read")) }, "[] [] true"},
		"too long a name": {func(s *Session) { said(s, "1", StatusKnown, table(strings.Repeat("x", maxTableName+1), "read")) }, "[] [] false"},
		"again and another": {func(s *Session) {
			said(s, "1", StatusKnown, table("a", "read"))
			said(s, "2", StatusKnown, table("b", "read"))
		}, "[a b] [] true"},
		"only prepared": {func(s *Session) {
			c := &Command{Status: StatusKnown, Resources: []Resource{table("a", "read")}}
			s.Check(context.Background(), &Event{Kind: KindCommand, Direction: FromClient, Stage: "prepare", Exchange: &Exchange{Command: c}})
		}, "[] [] true"},
		"an unknown function": {func(s *Session) {
			c := &Command{Status: StatusKnown, Effects: []Effect{EffectUnknown}}
			s.Check(context.Background(), &Event{Kind: KindCommand, Direction: FromClient, Exchange: &Exchange{Command: c}})
		}, "[] [] false"},
	} {
		s := begun(nil, true)
		c.do(s)
		if got := shown(s.Tables()); got != c.want {
			t.Errorf("%s: %s, not %s", name, got, c.want)
		}
	}
	s := begun(nil, true)
	said(s, "1", StatusKnown, many...)
	if got := s.Tables(); len(got.Read) != maxTables || got.Complete {
		t.Errorf("%d names, complete %v", len(got.Read), got.Complete)
	}
}

// TestTablesVersion: another answer has another version, and the same answer has the same.
func TestTablesVersion(t *testing.T) {
	s := begun(nil, true)
	seen := map[uint64]string{}
	for range 3 {
		for _, r := range []Resource{table("a", "read"), table("b", "read"), table("a", "write")} {
			said(s, "1", StatusKnown, r)
			v, is := s.TablesVersion(), shown(s.Tables())
			if was, have := seen[v]; have && was != is {
				t.Errorf("version %d is %s, and %s", v, was, is)
			}
			seen[v] = is
		}
	}
	if len(seen) != 3 {
		t.Errorf("%d versions: %v", len(seen), seen)
	}
}

// TestTablesAskedLate: nobody keeps account before somebody asks, and who asks late is told so.
func TestTablesAskedLate(t *testing.T) {
	s := begun(nil, false)
	said(s, "no", StatusKnown, table("refused", "read"))
	if got := shown(s.Tables()); got != "[] [] true" {
		t.Errorf("asked before anything passed: %s", got)
	}
	said(s, "1", StatusKnown, table("a", "read"))
	if got := shown(s.Tables()); got != "[a] [] true" {
		t.Error(got)
	}
	s = begun(nil, false)
	said(s, "1", StatusKnown, table("a", "read"))
	if s.tables.Load() != nil {
		t.Error("account is kept, and nobody has asked")
	}
	said(s, "2", StatusKnown, table("b", "read"))
	if got := shown(s.Tables()); got != "[] [] false" {
		t.Error(got)
	}
	s, c := begun(nil, false), &Command{Status: StatusKnown}
	if n := testing.AllocsPerRun(100, func() { s.touched(c) }); n > 0 {
		t.Errorf("%v allocations for what nobody asks", n)
	}
}

func TestRun(t *testing.T) {
	run := NewRun("r", true)
	a, b := begun(run, true), begun(run, true)
	said(a, "1", StatusKnown, table("secrets", "read"))
	said(b, "no", StatusKnown, table("x", "write"))
	if got := shown(run.Tables()); got != "[secrets] [] true" {
		t.Error(got)
	}
	a.Check(context.Background(), &Event{Kind: KindRows, Direction: FromUpstream, Exchange: &Exchange{}, Rows: &Batch{Rows: 3}, Wire: []byte("12345")})
	if err := a.Close(EndClosed, ""); err != nil {
		t.Fatal(err)
	}
	totals, n := run.Totals()
	if totals != (Totals{Commands: 2, Rows: 3, Bytes: 5, Denied: 1, Received: 3}) || n != 2 {
		t.Errorf("%+v of %d", totals, n)
	}
	c := begun(run, false) // a third one begins with what the others did
	said(c, "1", StatusKnown, table("late", "write"))
	if got := shown(run.Tables()); got != "[secrets] [late] true" {
		t.Error(got)
	}
	if got := shown(c.Tables()); got != "[] [late] true" {
		t.Error(got)
	}
	if _, idle := run.Idle(); idle {
		t.Error("idle with open sessions")
	}
	for _, s := range []*Session{b, c} {
		if err := errorsOf(s.Close(EndClosed, ""), s.Close(EndClosed, "")); err != nil {
			t.Fatal(err)
		}
	}
	if since, idle := run.Idle(); !idle || since.IsZero() {
		t.Error("not idle")
	}
	if totals, _ := run.Totals(); totals.Commands != 3 {
		t.Errorf("%+v", totals)
	}

	for name, first := range map[string]func(r *Run){
		"a session that is over kept no account": func(r *Run) {
			s := begun(r, false)
			said(s, "1", StatusKnown, table("secrets", "read"))
			_ = s.Close(EndClosed, "")
		},
		"an open session kept no account": func(r *Run) { said(begun(r, false), "1", StatusKnown, table("secrets", "read")) },
	} {
		r := NewRun("r", true)
		first(r)
		if r.Tables().Complete {
			t.Error(name)
		}
	}
	if NewRun("r", false).Tables().Complete {
		t.Error("a run that may have been forgotten is complete")
	}
}

func errorsOf(list ...error) error {
	for _, err := range list {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestRunConcurrently: whenever a command has passed, the next one to be judged is told of it, in any session.
func TestRunConcurrently(t *testing.T) {
	run := NewRun("r", true)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			s := begun(run, i%2 == 0)
			for j := range 20 {
				name := fmt.Sprintf("t%d-%02d", i, j)
				said(s, name, StatusKnown, table(name, "read"))
				if all := run.Tables(); all.Complete && !slices.Contains(all.Read, Table{"t", name}) {
					t.Errorf("%s is missing", name)
				}
			}
			_ = s.Close(EndClosed, "")
		})
	}
	wg.Wait()
	if totals, n := run.Totals(); totals.Commands != 160 || n != 8 {
		t.Errorf("%+v %d", totals, n)
	}
}
