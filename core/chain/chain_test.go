package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/mask"
)

// stepFunc is a plugin made of a function, with a subscription.
type stepFunc struct {
	sub       core.Subscription
	f         func(e *core.Event) (core.Verdict, error)
	forgotten []*core.Session
}

func (s *stepFunc) Inspect(_ context.Context, e *core.Event) (core.Verdict, error) { return s.f(e) }
func (s *stepFunc) Subscription() core.Subscription                                { return s.sub }
func (s *stepFunc) Forget(x *core.Session)                                         { s.forgotten = append(s.forgotten, x) }

func plugin(f func(e *core.Event) (core.Verdict, error), kinds ...core.Kind) *stepFunc {
	return &stepFunc{sub: core.Subscription{Kinds: core.KindSet(kinds...)}, f: f}
}

func must(t testing.TB, steps ...Step) *Chain {
	t.Helper()
	c, err := Options{MaskKey: mask.NewKey([]byte("k")), Log: slog.New(slog.DiscardHandler)}.New(steps...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var session = &core.Session{ID: "s", Protocol: "p", Target: &core.Target{Name: "t", AllowIncomplete: true}}

func event(k core.Kind) *core.Event {
	return &core.Event{Kind: k, Session: session, Exchange: &core.Exchange{Command: &core.Command{Action: "select", Status: core.StatusKnown}}}
}

func inspectOK(t testing.TB, c *Chain, e *core.Event) core.Verdict {
	t.Helper()
	v, err := c.Inspect(context.Background(), e)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// batch makes one of text cells; "\x00" is NULL.
func batch(columns []core.Column, watch []int, rows ...[]string) *core.Batch {
	b := &core.Batch{Columns: columns, Watch: watch, Rows: len(rows)}
	for _, r := range rows {
		for _, s := range r {
			b.Data = append(b.Data, "....."...) // framing, which must stay
			if s == "\x00" {
				b.Cells = append(b.Cells, core.Cell{Len: -1})
				continue
			}
			b.Cells = append(b.Cells, core.Cell{Off: int32(len(b.Data)), Len: int32(len(s))})
			b.Data = append(b.Data, s...)
		}
	}
	return b
}

func values(b *core.Batch) (out []string) {
	for i := range b.Cells {
		v, ok := b.Value(i)
		if !ok {
			v = []byte("\x00")
		}
		out = append(out, string(v))
	}
	return out
}

func TestOrderAndMerge(t *testing.T) {
	var called []string
	say := func(name string, v core.Verdict) Step {
		return Step{Name: name, Plugin: plugin(func(e *core.Event) (core.Verdict, error) {
			called = append(called, name)
			return v, nil
		}, core.KindCommand)}
	}
	shared := &core.Denial{Rule: "r3", Reason: "no", Hint: "ask"}
	c := must(t,
		say("one", core.Verdict{Limit: core.Limit{Rows: 10, Bytes: 5}, Record: core.LevelMetadata, Masks: []core.Mask{{Column: "a", With: "redact", Rule: "m"}}}),
		say("two", core.Verdict{Limit: core.Limit{Rows: 3, Time: time.Second}, Record: core.LevelOff, Hold: &core.Hold{Rule: "h", Approvers: []string{"dba"}}, Masks: []core.Mask{{Column: "b", With: "null"}}}),
		say("three", core.Verdict{Record: core.LevelFull, Deny: shared, Decisions: []core.Decision{{Action: "deny", Rule: "r3", Detail: "rev 1"}}}),
		say("four", core.Verdict{}),
	)
	v := inspectOK(t, c, event(core.KindCommand))
	if !slices.Equal(called, []string{"one", "two", "three"}) {
		t.Errorf("called %v", called)
	}
	if v.Deny == nil || v.Deny.Step != "three" || v.Deny.Rule != "r3" || shared.Step != "" {
		t.Errorf("deny %+v, the step's own %+v", v.Deny, shared)
	}
	if v.Limit != (core.Limit{Rows: 3, Bytes: 5, Time: time.Second}) || v.Record != core.LevelFull || v.Hold == nil || len(v.Masks) != 2 || v.Masks[0].Step != "one" {
		t.Errorf("merged: %+v", v)
	}
	want := "[{one limit  rows=10 bytes=5} {one record  metadata} {two hold h } {two limit  rows=3 time=1s} {two record  off} {three deny r3 rev 1} {three record  full}]"
	if got := fmt.Sprint(v.Decisions); got != want {
		t.Errorf("decisions\n %s\nwant\n %s", got, want)
	}
}

func TestErrors(t *testing.T) {
	for _, fail := range []func(*core.Event) (core.Verdict, error){
		func(*core.Event) (core.Verdict, error) { return core.Verdict{}, errors.New("broken: secret") },
		func(*core.Event) (core.Verdict, error) { panic("broken: secret") },
		func(e *core.Event) (core.Verdict, error) {
			return core.Verdict{Changed: e.Columns[len(e.Columns)].Binary}, nil
		},
	} {
		reached := false
		last := Step{Name: "last", Plugin: plugin(func(*core.Event) (core.Verdict, error) { reached = true; return core.Verdict{}, nil })}
		v := inspectOK(t, must(t, Step{Name: "bad", Plugin: plugin(fail)}, last), event(core.KindCommand))
		if v.Deny == nil || v.Deny.Rule != "step-error" || v.Deny.Step != "bad" || reached {
			t.Errorf("deny %+v, reached %v", v.Deny, reached)
		}
		if strings.Contains(fmt.Sprintf("%+v %+v", v, v.Deny), "secret") {
			t.Error("the error's text is in the verdict")
		}
		v = inspectOK(t, must(t, Step{Name: "bad", Plugin: plugin(fail), OnError: "pass"}, last), event(core.KindCommand))
		if v.Deny != nil || !reached || fmt.Sprint(v.Decisions) != "[{bad error step-error }]" {
			t.Errorf("on_error pass: %+v, reached %v", v, reached)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	ok := plugin(nil)
	for want, steps := range map[string][]Step{
		"no name":     {{Plugin: ok}},
		"two steps":   {{Name: "a", Plugin: ok}, {Name: "a", Plugin: ok}},
		"no plugin":   {{Name: "a"}},
		"deny or pas": {{Name: "a", Plugin: ok, OnError: "ignore"}},
		"class":       {{Name: "a", Plugin: &stepFunc{sub: core.Subscription{Columns: []string{"type:strings"}}}}},
	} {
		if _, err := New(steps...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	_, err := New(Step{}, Step{Name: "x"})
	if n := strings.Count(fmt.Sprint(err), "\n"); n != 2 {
		t.Errorf("not every problem is told: %v", err)
	}
}

func TestSubscriptions(t *testing.T) {
	count := map[string]int{}
	step := func(name string, sub core.Subscription) Step {
		return Step{Name: name, Plugin: &stepFunc{sub: sub, f: func(*core.Event) (core.Verdict, error) { count[name]++; return core.Verdict{}, nil }}}
	}
	c := must(t,
		step("commands", core.Subscription{Kinds: core.KindSet(core.KindCommand)}),
		step("elsewhere", core.Subscription{Protocols: []string{"q"}}),
		step("here", core.Subscription{Protocols: []string{"q", "p"}, Kinds: core.KindSet(core.KindBytes)}),
	)
	for _, k := range []core.Kind{core.KindCommand, core.KindBytes, core.KindResult} {
		inspectOK(t, c, event(k))
	}
	if fmt.Sprint(count) != "map[commands:1 here:1]" {
		t.Errorf("called %v", count)
	}
	u := c.Subscription()
	if u.Kinds == 0 || len(u.Protocols) != 0 || !c.Asks(core.KindOpen) {
		t.Errorf("union %+v", u)
	}
	rows := must(t, step("r", core.Subscription{Kinds: core.KindSet(core.KindRows), Protocols: []string{"p"}, Columns: []string{"a*"}})).Subscription()
	if !rows.Kinds.Has(core.KindColumns) || rows.Kinds.Has(core.KindCommand) || fmt.Sprint(rows.Protocols, rows.Columns) != "[p] [a*]" {
		t.Errorf("rows need columns: %+v", rows)
	}
	masks := must(t, step("m", core.Subscription{Kinds: core.KindSet(core.KindCommand)})).Subscription()
	if !masks.Kinds.Has(core.KindRows) || masks.Kinds.Has(core.KindBytes) {
		t.Errorf("masks need rows: %+v", masks)
	}
	if none := must(t).Subscription(); none.Kinds == 0 || none.Kinds.Has(core.KindRows) || none.Kinds.Has(core.KindOpen) {
		t.Errorf("an empty chain wants %v", none.Kinds)
	}
}

var columns = []core.Column{
	{Name: "id", Type: "int4"},
	{Name: "Email", Type: "text", Origin: &core.Origin{Table: "s.customers", Column: "email"}},
	{Name: "x", Type: "text", Lineage: []core.Origin{{Table: "s.customers", Column: "ssn"}}},
	{Name: "n", Type: "int4", Origin: &core.Origin{Table: "db.s.pay", Column: "amount"}},
	{Name: "free", Type: "varchar"},
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern string
		columns string
	}{
		{"email", "Email"},
		{"EMAIL", "Email"},
		{"ssn", "x"},
		{"customers.ssn", "x"},
		{"s.customers.ssn", "x"},
		{"S.Customers.SSN", "x"},
		{"other.customers.ssn", ""},
		{"tomers.ssn", ""},
		{"pay.amount", "n"},
		{"s.pay.amount", "n"},
		{"db.s.pay.amount", "n"},
		{"more.db.s.pay.amount", "n"}, // the target told less than the mask says
		{"t.pay.amount", ""},
		{"*", "id Email x n free"},
		{"", ""},
		{".email", ""},
	} {
		var got []string
		for i := range columns {
			if columns[i].Matches(c.pattern) {
				got = append(got, columns[i].Name)
			}
		}
		if s := strings.Join(got, " "); s != c.columns {
			t.Errorf("%q matches %q, want %q", c.pattern, s, c.columns)
		}
	}
}

// answer passes a Columns event and then a batch through a chain, watching what the plan asks for.
func answer(t testing.TB, c *Chain, x *core.Exchange, rows ...[]string) (core.Verdict, core.Verdict, *core.Batch) {
	t.Helper()
	v := inspectOK(t, c, &core.Event{Kind: core.KindColumns, Session: session, Exchange: x, Columns: columns})
	var cut [][]string
	for _, r := range rows {
		var cells []string
		for _, w := range x.Plan.Watch {
			cells = append(cells, r[w])
		}
		cut = append(cut, cells)
	}
	b := batch(columns, x.Plan.Watch, cut...)
	if len(x.Plan.Watch) == 0 && !x.Plan.Rows {
		return v, core.Verdict{}, b
	}
	return v, inspectOK(t, c, &core.Event{Kind: core.KindRows, Session: session, Exchange: x, Rows: b}), b
}

func TestMasks(t *testing.T) {
	name := func(kind core.Kind, masks ...core.Mask) *Chain {
		return must(t, Step{Name: "policy", Plugin: plugin(func(e *core.Event) (core.Verdict, error) {
			return core.Verdict{Masks: masks}, nil
		}, kind)})
	}
	data := [][]string{
		{"1", "ada@example.com", "123-45-6789", "77", "hello"},
		{"2", "\x00", "", "8", "\x00"},
	}
	cases := []struct {
		masks  []core.Mask
		watch  string
		values []string
	}{
		{nil, "[]", nil},
		{[]core.Mask{{Column: "email", With: "partial"}}, "[1]", []string{"a**@example.com", "\x00"}},
		{[]core.Mask{{Column: "email", With: "redact"}, {Column: "s.customers.ssn", With: "fixed", Args: map[string]string{"value": "000-00-0000"}}}, "[1 2]", []string{"****", "000-00-0000", "\x00", "000-00-0000"}},
		{[]core.Mask{{Column: "*", With: "null"}}, "[0 1 2 3 4]", slices.Repeat([]string{"\x00"}, 10)},
		{[]core.Mask{{Column: "n", With: "redact"}, {Column: "free", With: "fixed", Args: map[string]string{"value": ""}}}, "[3 4]", []string{"\x00", "", "\x00", "\x00"}},
		{[]core.Mask{{Column: "free", With: "partial", Args: map[string]string{"last": "2"}}, {Column: "free", With: "fixed", Args: map[string]string{"value": "z"}}}, "[4]", []string{"z", "\x00"}},
	}
	for i, tc := range cases {
		for _, kind := range []core.Kind{core.KindColumns, core.KindCommand} {
			t.Run(fmt.Sprint(i, kind), func(t *testing.T) {
				c, x := name(kind, tc.masks...), &core.Exchange{Command: &core.Command{}}
				for range 2 { // prepared and executed
					v := inspectOK(t, c, &core.Event{Kind: core.KindCommand, Session: session, Exchange: x})
					if v.Deny != nil {
						t.Fatal(v.Deny)
					}
				}
				v, rv, b := answer(t, c, x, data...)
				if v.Deny != nil || rv.Deny != nil || fmt.Sprint(x.Plan.Watch) != tc.watch || !slices.Equal(values(b), tc.values) {
					t.Errorf("%+v %+v watch %v: %q", v.Deny, rv.Deny, x.Plan.Watch, values(b))
				}
				said := 0
				for _, d := range v.Decisions {
					if d.Action != "mask" || d.Step != "policy" || d.Detail == "" {
						t.Errorf("decision %+v", d)
					}
					said++
				}
				if said != len(x.Plan.Masks) || rv.Changed != (len(tc.masks) > 0) {
					t.Errorf("%d decisions for %d masks, changed %v", said, len(x.Plan.Masks), rv.Changed)
				}
				for _, gap := range bytes.Split(b.Data, []byte(".....")) {
					_ = gap
				}
				if bytes.Count(b.Data, []byte(".....")) != len(b.Cells) {
					t.Errorf("the framing was changed: %q", b.Data)
				}
			})
		}
	}
}

func TestPluginsBeforeMasks(t *testing.T) {
	reader := &stepFunc{sub: core.Subscription{Kinds: core.KindSet(core.KindRows), Columns: []string{"type:text"}}}
	var saw []string
	reader.f = func(e *core.Event) (core.Verdict, error) {
		saw = values(e.Rows)
		for i := range e.Rows.Cells {
			if v, ok := e.Rows.Value(i); ok && bytes.Contains(v, []byte("hell")) {
				e.Rows.Set(i, []byte("hi"))
			}
		}
		return core.Verdict{Changed: true}, nil
	}
	policy := plugin(func(*core.Event) (core.Verdict, error) {
		return core.Verdict{Masks: []core.Mask{{Column: "free", With: "partial"}}}, nil
	}, core.KindColumns)
	c, x := must(t, Step{Name: "policy", Plugin: policy}, Step{Name: "reader", Plugin: reader}), &core.Exchange{Command: &core.Command{}}
	_, _, b := answer(t, c, x, []string{"1", "e", "s", "2", "hello"})
	if fmt.Sprint(x.Plan.Watch) != "[1 2 4]" || !slices.Equal(saw, []string{"e", "s", "hello"}) || !slices.Equal(values(b), []string{"e", "s", "h*"}) {
		t.Errorf("watch %v, saw %q, left %q", x.Plan.Watch, saw, values(b))
	}

	// In an answer with none of its columns the step is not called.
	saw = nil
	numbers := columns[:1]
	x = &core.Exchange{Command: &core.Command{}}
	inspectOK(t, c, &core.Event{Kind: core.KindColumns, Session: session, Exchange: x, Columns: numbers})
	inspectOK(t, c, &core.Event{Kind: core.KindRows, Session: session, Exchange: x, Rows: batch(numbers, nil)})
	if len(x.Plan.Watch) != 0 || saw != nil {
		t.Errorf("watch %v, saw %v", x.Plan.Watch, saw)
	}
}

func TestRefusesWhatCannotBeMasked(t *testing.T) {
	hide := must(t, Step{Name: "policy", Plugin: plugin(func(*core.Event) (core.Verdict, error) {
		return core.Verdict{Masks: []core.Mask{{Column: "email", With: "redact"}}}, nil
	}, core.KindColumns)})
	bound := func() *core.Exchange {
		x := &core.Exchange{Command: &core.Command{}}
		inspectOK(t, hide, &core.Event{Kind: core.KindColumns, Session: session, Exchange: x, Columns: columns})
		return x
	}
	for name, e := range map[string]*core.Event{
		"rows before columns":     {Kind: core.KindRows, Exchange: &core.Exchange{}, Rows: batch(columns, []int{1}, []string{"a"})},
		"rows of nothing":         {Kind: core.KindRows, Rows: batch(columns, []int{1}, []string{"a"})},
		"column not read":         {Kind: core.KindRows, Exchange: bound(), Rows: batch(columns, []int{0}, []string{"a"})},
		"cells do not add up":     {Kind: core.KindRows, Exchange: bound(), Rows: &core.Batch{Columns: columns, Watch: []int{1}, Rows: 2, Cells: make([]core.Cell, 1)}},
		"columns of nothing":      {Kind: core.KindColumns, Columns: columns},
		"plan of another chain":   {Kind: core.KindRows, Exchange: &core.Exchange{Plan: core.Plan{Bound: 1}}, Rows: batch(columns, []int{1}, []string{"a"})},
		"batch without its bytes": {Kind: core.KindRows, Exchange: bound()},
	} {
		e.Session = session
		if v := inspectOK(t, hide, e); v.Deny == nil {
			t.Errorf("%s: passed", name)
		}
	}
	for _, kind := range []core.Kind{core.KindCommand, core.KindColumns} {
		wrong := must(t, Step{Name: "policy", Plugin: plugin(func(*core.Event) (core.Verdict, error) {
			return core.Verdict{Masks: []core.Mask{{Column: "email", With: "scramble", Rule: "r"}}}, nil
		}, kind)})
		e := event(kind)
		e.Columns = columns
		if v := inspectOK(t, wrong, e); v.Deny == nil || v.Deny.Rule != "r" || v.Deny.Step != "policy" {
			t.Errorf("an unknown transform at %v: %+v", kind, v.Deny)
		}
	}
	// With no step that could mask, the same rows pass.
	e := &core.Event{Kind: core.KindRows, Session: session, Rows: batch(columns, []int{1}, []string{"a"})}
	if v := inspectOK(t, must(t, Step{Name: "open", Plugin: plugin(nil, core.KindOpen)}), e); v.Deny != nil {
		t.Errorf("guard off: %+v", v.Deny)
	}
}

func TestForget(t *testing.T) {
	a, b := plugin(nil), plugin(nil)
	must(t, Step{Name: "a", Plugin: a}, Step{Name: "b", Plugin: b}).Forget(session)
	if len(a.forgotten) != 1 || len(b.forgotten) != 1 {
		t.Error("not every step was told")
	}
}

func TestAllocations(t *testing.T) {
	pass := func(*core.Event) (core.Verdict, error) { return core.Verdict{}, nil }
	c := must(t, Step{Name: "a", Plugin: plugin(pass, core.KindCommand)}, Step{Name: "b", Plugin: plugin(pass, core.KindCommand)})
	for _, k := range []core.Kind{core.KindCommand, core.KindResult, core.KindBytes} {
		e := event(k)
		if n := testing.AllocsPerRun(1000, func() { _, _ = c.Inspect(context.Background(), e) }); n != 0 {
			t.Errorf("%v allocates %v times", k, n)
		}
	}
	x := &core.Exchange{Command: &core.Command{}, Masks: []core.Mask{{Column: "email", With: "partial"}}}
	_, _, b := answer(t, c, x, []string{"1", "ada@example.com", "", "", ""})
	e := &core.Event{Kind: core.KindRows, Session: session, Exchange: x, Rows: b}
	if n := testing.AllocsPerRun(1000, func() { _, _ = c.Inspect(context.Background(), e) }); n != 0 {
		t.Errorf("masking in place allocates %v times", n)
	}
}

func TestManySessionsAtATime(t *testing.T) {
	c := must(t, Step{Name: "policy", Plugin: plugin(func(*core.Event) (core.Verdict, error) {
		return core.Verdict{Masks: []core.Mask{{Column: "email", With: "hash"}}}, nil
	}, core.KindColumns)})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				x := &core.Exchange{Command: &core.Command{}}
				if _, _, b := answer(t, c, x, []string{"1", "ada@example.com", "", "", ""}); len(values(b)[0]) != 16 {
					t.Errorf("left %q", values(b))
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkChain(b *testing.B) {
	pass := func(*core.Event) (core.Verdict, error) { return core.Verdict{}, nil }
	c := must(b, Step{Name: "a", Plugin: plugin(pass, core.KindCommand)}, Step{Name: "b", Plugin: plugin(pass, core.KindCommand)})
	for _, k := range []core.Kind{core.KindCommand, core.KindResult} {
		b.Run("pass-"+k.String(), func(b *testing.B) {
			b.ReportAllocs()
			e := event(k)
			for b.Loop() {
				_, _ = c.Inspect(context.Background(), e)
			}
		})
	}
	b.Run("mask-1000x2", func(b *testing.B) {
		b.ReportAllocs()
		x := &core.Exchange{Command: &core.Command{}, Masks: []core.Mask{{Column: "email", With: "partial"}, {Column: "ssn", With: "redact"}}}
		row := []string{"1", "ada@example.com", "123-45-6789", "5", "x"}
		_, _, bt := answer(b, c, x, slices.Repeat([][]string{row}, 1000)...)
		e := &core.Event{Kind: core.KindRows, Session: session, Exchange: x, Rows: bt}
		for b.Loop() {
			bt.Patches = bt.Patches[:0]
			_, _ = c.Inspect(context.Background(), e)
		}
	})
}
