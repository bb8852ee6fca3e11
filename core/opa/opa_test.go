package opa

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/policies"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func files(kv ...string) fs.FS {
	m := fstest.MapFS{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = &fstest.MapFile{Data: []byte(kv[i+1])}
	}
	return m
}

const head = "package weir.guardrails\n"

func mustLoad(t testing.TB, c Config) *Policy {
	t.Helper()
	c.Name = "test"
	p, err := Load(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func guardrails(t testing.TB, rego string, more ...string) *Policy {
	t.Helper()
	return mustLoad(t, Config{Path: "policy", FS: files(append([]string{"p.rego", head + rego}, more...)...)})
}

func newSession() *core.Session {
	return &core.Session{
		ID: "01s", Run: "01r", Protocol: "postgres", Started: time.Unix(1e9, 0),
		Identity: core.Identity{Subject: "ada", Issuer: "idp", Groups: []string{"analysts"}, Kind: "agent", Claims: map[string]any{"team": "x"}},
		Target:   &core.Target{Name: "orders", Labels: map[string]string{"risk": "low"}},
	}
}

func command(text string, effects ...core.Effect) *core.Event {
	return &core.Event{
		Kind: core.KindCommand, Direction: core.FromClient, Session: newSession(), Time: time.Unix(1.5e9, 0),
		Exchange: &core.Exchange{Command: &core.Command{
			Action: "select", Text: text, Fingerprint: "fp", Effects: effects, Status: core.StatusKnown, Where: true,
			Resources: []core.Resource{{Kind: "table", Name: "s.customers", Use: []string{"read"}, Columns: []string{"email"}}},
		}},
	}
}

func ok(t testing.TB, p *Policy, e *core.Event) core.Verdict {
	t.Helper()
	v, err := p.Inspect(context.Background(), e)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAnswers(t *testing.T) {
	p := guardrails(t, `
deny contains {"rule": "no-ddl", "reason": "r", "hint": "h"} if "ddl" in input.event.command.effects
deny contains {"rule": "also"} if "ddl" in input.event.command.effects
mask contains {"column": "email", "with": "partial", "args": {"first": 2}} if not "support" in input.identity.groups
hold contains {"rule": "big", "approvers": ["dba"], "reason": "x"} if input.event.command.text == "hold me"
limit contains {"rows": 10, "rule": "few"} if true
limit contains {"bytes": 5, "time": "30s"} if true
record := "metadata" if input.target.labels.risk == "low"
`)
	v := ok(t, p, command("x", core.EffectDDL))
	if v.Deny == nil || v.Deny.Rule != "also" || v.Limit != (core.Limit{Rows: 10, Bytes: 5, Time: 30 * time.Second}) || v.Record != core.LevelMetadata {
		t.Errorf("%+v %+v", v, v.Deny)
	}
	if len(v.Masks) != 1 || v.Masks[0].Column != "email" || v.Masks[0].Args["first"] != "2" {
		t.Errorf("masks %+v", v.Masks)
	}
	for _, want := range []string{"{ deny no-ddl r (weir.guardrails@" + p.Revision()[:12] + ")}", "limit few rows=10", "record record metadata"} {
		if !strings.Contains(fmt.Sprint(v.Decisions), want) {
			t.Errorf("decisions %v lack %q", v.Decisions, want)
		}
	}
	v = ok(t, p, command("hold me"))
	if v.Deny != nil || v.Hold == nil || v.Hold.Rule != "big" || fmt.Sprint(v.Hold.Approvers) != "[dba]" {
		t.Errorf("%+v", v)
	}
	if v := ok(t, p, &core.Event{Kind: core.KindOpen, Session: newSession()}); v.Deny != nil {
		t.Error("asked at Open without a package for it")
	}
}

func TestInput(t *testing.T) {
	e := command("select 1", core.EffectRead)
	e.Stage = "execute"
	e.Params = []core.Param{{Value: []byte("a")}, {}, {Value: []byte{0xff}}, {Value: []byte("b"), Binary: true}}
	e.Detail = map[string]any{"application": "psql", "n": 1}
	for _, expr := range []string{
		`input.event.kind == "command"`, `input.event.direction == "client"`, `input.event.stage == "execute"`,
		`input.event.command.action == "select"`, `input.event.command.text == "select 1"`, `input.event.command.fingerprint == "fp"`,
		`input.event.command.effects == ["read"]`, `input.event.command.where == true`, `input.event.command.status == "known"`, `input.event.command.reason == ""`,
		`input.event.command.resources == [{"kind": "table", "name": "s.customers", "use": ["read"], "columns": ["email"]}]`,
		`input.event.command.params == ["a", null, {"hex": "ff"}, {"hex": "62"}]`,
		`input.event.postgres == {"application": "psql", "n": 1}`,
		`input.session.id == "01s"`, `input.session.run == "01r"`, `input.session.started == "2001-09-09T01:46:40Z"`,
		`input.session.commands == 0`, `input.session.rows == 0`, `input.session.in_transaction == false`, `input.session.denied == 0`,
		`input.session.bytes_to_client == 0`, `input.session.bytes_from_client == 0`,
		`input.session.tables_read == []`, `input.session.tables_written == []`, `input.session.tables_complete == true`, `not input.run`,
		`input.identity == {"subject": "ada", "issuer": "idp", "groups": ["analysts"], "kind": "agent", "claims": {"team": "x"}}`,
		`input.target == {"name": "orders", "protocol": "postgres", "labels": {"risk": "low"}}`,
		`input.time == "2017-07-14T02:40:00Z"`, `time.parse_rfc3339_ns(input.time) == 1500000000000000000`,
		`not input.event.columns`, `not input.event.result`,
	} {
		p := guardrails(t, `deny contains {"rule": "yes"} if `+expr)
		if v := ok(t, p, e); v.Deny == nil {
			t.Errorf("not true: %s", expr)
		}
	}
	e = command("x")
	e.Kind, e.Direction = core.KindColumns, core.FromUpstream
	e.Columns = []core.Column{{Name: "a", Type: "text", Origin: &core.Origin{Table: "s.t", Column: "b"}, Lineage: []core.Origin{{Table: "s.u", Column: "c"}}}, {Name: "d", Type: "int4"}}
	want := `[{"name": "a", "type": "text", "origin": {"table": "s.t", "column": "b"}, "lineage": [{"table": "s.u", "column": "c"}]}, {"name": "d", "type": "int4", "lineage": []}]`
	if v := ok(t, guardrails(t, `deny contains {"rule": "yes"} if input.event.columns == `+want), e); v.Deny == nil {
		t.Error("columns are not as told")
	}
}

func TestAccess(t *testing.T) {
	open := &core.Event{Kind: core.KindOpen, Session: newSession()}
	for _, c := range []struct{ rego, rule string }{
		{`allow if "analysts" in input.identity.groups`, ""},
		{`allow if "dba" in input.identity.groups`, "access"},
		{`default allow := false`, "access"},
		{`deny contains {"rule": "x"} if false`, "access"},
		{"allow := true\ndeny contains {\"rule\": \"x\"} if true", "x"},
		{`allow := true if input.nothing`, "access"},
	} {
		p := mustLoad(t, Config{FS: files("a.rego", "package weir.access\n"+c.rego)})
		v := ok(t, p, open)
		if (v.Deny == nil) != (c.rule == "") || v.Deny != nil && v.Deny.Rule != c.rule {
			t.Errorf("%s: %+v", c.rego, v.Deny)
		}
		if v := ok(t, p, command("x")); v.Deny != nil {
			t.Errorf("%s: asked at Command", c.rego)
		}
	}
	p := mustLoad(t, Config{FS: files("a.rego", "package weir.access\nallow := \"yes\"")})
	if _, err := p.Inspect(context.Background(), open); err == nil {
		t.Error(`allow := "yes" passed`)
	}
}

func TestRefusesAtLoad(t *testing.T) {
	for _, c := range []struct{ name, rego, want string }{
		{"syntax", `deny contains {`, "policy/p.rego:2: "},
		{"rego v0", `deny[x] { x := 1 }`, "policy/p.rego:2: "},
		{"unsafe variable", `deny contains {"rule": x} if input.a`, "give the variable a value"},
		{"undefined function", `deny contains {"rule": "x"} if nothing(1)`, "policy/p.rego:2: undefined function nothing"},
		{"http.send", `deny contains {"rule": "x"} if http.send({"url": "http://x", "method": "get"})`, "reaches no network"},
		{"net.lookup_ip_addr", `deny contains {"rule": "x"} if net.lookup_ip_addr("x")`, "reaches no network"},
		{"opa.runtime", `deny contains {"rule": "x"} if opa.runtime().env`, "environment"},
		{"rand.intn", `deny contains {"rule": "x"} if rand.intn("x", 2) == 1`, "cannot be used here"},
		{"uuid.rfc4122", `deny contains {"rule": "x"} if uuid.rfc4122("x") == "1"`, "cannot be used here"},
		{"time.now_ns", `deny contains {"rule": "x"} if time.now_ns() > 1`, "input.time"},
		{"recursion", "a if b\nb if a\ndeny contains {\"rule\": \"x\"} if a", "recursive"},
		{"no answers", `helper := 1`, "it would do nothing"},
		{"nearly", `denied contains {"rule": "x"} if true`, `did you mean "deny"`},
		{"not a set", `deny := {"rule": "x"}`, "wrong form"},
		{"an object", `deny[x] := 1 if x := "a"`, "cannot be an object"},
		{"set of strings", `deny contains "no" if true`, "its elements are objects"},
		{"formatted strings", `deny contains sprintf("%v", [input.x])`, "its elements are objects"},
		{"unknown key", `deny contains {"rule": "x", "message": "y"} if true`, `unknown key "message"`},
		{"missing key", `deny contains {"reason": "x"} if true`, `key "rule" is missing`},
		{"mask without with", `mask contains {"column": "x"} if true`, `key "with" is missing`},
		{"record as a set", `record contains "full" if true`, "wrong form"},
		{"allow elsewhere", "allow if true\ndeny contains {\"rule\": \"x\"} if false", "weir.access"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(context.Background(), Config{Name: "n", Path: "policy", FS: files("p.rego", head+c.rego)})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), `opa: policy "n": `) {
				t.Errorf("got %v\nwant %q", err, c.want)
			}
		})
	}
	for _, c := range []struct {
		name   string
		config Config
		want   string
	}{
		{"nothing there", Config{Path: "/nonexistent"}, "no such file"},
		{"no path", Config{}, "no path"},
		{"no rego", Config{FS: files("readme", "x")}, "no .rego file"},
		{"other packages", Config{FS: files("a.rego", "package other\nx := 1")}, "they hold [other]"},
		{"named package missing", Config{FS: files("a.rego", head+"record := \"full\""), Packages: []string{"weir.extra"}}, "weir.extra is not in these files"},
		{"strange package", Config{FS: files("a.rego", head), Packages: []string{"a..b"}}, "no package name"},
		{"only tests", Config{FS: files("a_test.rego", head+"record := \"full\"")}, "would do nothing"},
		{"data is a list", Config{FS: files("a.rego", head+"record := \"full\"", "data.json", "[]")}, "is an object"},
		{"data is broken", Config{FS: files("a.rego", head+"record := \"full\"", "x/data.json", "{")}, "x/data.json"},
		{"data twice", Config{FS: files("a.rego", head+"record := \"full\"", "data.json", `{"x":{"y":1}}`, "x/data.yaml", "y: 2")}, "already in another data file"},
		{"data over a rule", Config{FS: files("a.rego", head+"record := \"full\"", "data.json", `{"weir":{"guardrails":{"record":"off"}}}`)}, "conflict"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(context.Background(), c.config)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %q", err, c.want)
			}
		})
	}
	_, err := Load(context.Background(), Config{FS: files("a.rego", head+"deny contains {\"rule\": x} if true", "b.rego", "package b\nx := y", "c.rego", "package c\n{")})
	if n := strings.Count(fmt.Sprint(err), "c.rego:"); n == 0 {
		t.Errorf("%v", err)
	}
	_, err = Load(context.Background(), Config{FS: files("a.rego", head+"deny contains {\"rule\": x} if true", "b.rego", "package b\nx := y")})
	if s := fmt.Sprint(err); !strings.Contains(s, "a.rego:2:") || !strings.Contains(s, "b.rego:2:") {
		t.Errorf("not every problem is told: %v", err)
	}
}

func TestRuntimeErrorsAreErrors(t *testing.T) {
	for name, rego := range map[string]string{
		"built-in":      `deny contains {"rule": "x"} if to_number(input.event.command.text) > 1`,
		"conflict":      "record := \"full\" if input.event.kind\nrecord := \"off\" if input.event.command",
		"unknown key":   `deny contains object.union({"rule": "x"}, {input.event.command.text: "x"}) if true`,
		"wrong type":    `deny contains {"rule": input.event.command.where} if true`,
		"empty rule":    `deny contains {"rule": input.event.command.reason} if true`,
		"element":       `deny contains input.event.command.text`,
		"no such level": `record := input.event.command.text`,
		"limit":         `limit contains {"rows": input.event.command.text} if true`,
		"no limit":      `limit contains {"rule": "x"} if true`,
		"duration":      `limit contains {"time": "soon"} if true`,
		"negative":      `limit contains {"rows": -1} if true`,
		"approvers":     `hold contains {"rule": "x", "approvers": "dba"} if true`,
		"args":          `mask contains {"column": "x", "with": "y", "args": {"a": []}} if true`,
	} {
		p := guardrails(t, rego)
		_, err := p.Inspect(context.Background(), command("canary"))
		if err == nil {
			t.Errorf("%s: passed", name)
		}
		if name != "unknown key" && strings.Contains(fmt.Sprint(err), "canary") {
			t.Errorf("%s: the error tells a value: %v", name, err)
		}
		if s := p.Stats(); s.Entries != 0 {
			t.Errorf("%s: an error was kept", name)
		}
	}
	slow := mustLoad(t, Config{Timeout: 5 * time.Millisecond, FS: files("a.rego", head+
		`deny contains {"rule": "x"} if { some i, j in numbers.range(1, 3000); some k in numbers.range(1, 3000); i * k == -1 }`)})
	start := time.Now()
	if _, err := slow.Inspect(context.Background(), command("x")); err == nil || !strings.Contains(err.Error(), "not evaluated within 5ms") {
		t.Errorf("slow: %v", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestFootprint(t *testing.T) {
	for _, c := range []struct{ rego, reads, uncached string }{
		{`deny contains {"rule": "x"} if "ddl" in input.event.command.effects`, "[event.command.effects]", "[]"},
		{`deny contains {"rule": "x"} if { c := input.event.command; c.action == "x" }`, "[event.command]", "[]"},
		{`deny contains {"rule": "x"} if input.event.command.resources[_].name == data.x[input.identity.groups[_]]`, "[event.command.resources identity.groups]", "[]"},
		{`deny contains {"rule": "x"} if f(input)` + "\nf(x) if x.time", "[]", "[]"},
		{`deny contains {"rule": "x"} if f(1)` + "\nf(_) if input.session.rows > 1", "[session.rows]", "[session.rows]"},
		{`deny contains {"rule": "x"} if a` + "\nimport data.lib\na if lib.b", "[time]", "[time]"},
		{`deny contains {"rule": "x"} if data[p].b` + "\np := \"lib\"", "[time]", "[time]"},
		{`deny contains {"rule": "x"} if count([1 | input.event[x]]) == 1`, "[event]", "[event]"},
		{`deny contains {"rule": "x"} if input.event.http.path == "/"`, "[event.http.path]", "[event.http.path]"},
		{`deny contains {"rule": "x"} if { some c in input.event.columns; c.name == input.target.name }`, "[event.columns target.name]", "[]"},
		{"deny contains {\"rule\": \"x\"} if d\ndefault d := false\nd if false\nelse := true if input.time", "[time]", "[time]"},
		{`deny contains {"rule": "x"} if input.session.in_transaction`, "[session.in_transaction]", "[]"},
		{`deny contains {"rule": "x"} if "t" in input.session.tables_read`, "[session.tables_read]", "[]"},
		{`deny contains {"rule": "x"} if input.run.tables_read[_].name == "t"`, "[run.tables_read]", "[]"},
		{`deny contains {"rule": "x"} if input.run.rows > 1`, "[run.rows]", "[run.rows]"},
		{`deny contains {"rule": "x"} if input.session[input.event.kind] == 1`, "[event.kind session]", "[session]"},
		{`deny contains {"rule": "x"} if input.run`, "[run]", "[run]"},
		{`deny contains {"rule": "x"} if walk(input, [_, "x"])`, "[]", "[]"},
		{`unused := input.time` + "\n" + `deny contains {"rule": "x"} if input.event.kind`, "[event.kind]", "[]"},
	} {
		if strings.HasPrefix(c.rego, "deny") && strings.Contains(c.rego, "\nimport") { // imports come first
			lines := strings.SplitN(c.rego, "\n", 3)
			c.rego = lines[1] + "\n" + lines[0] + "\n" + lines[2]
		}
		p := guardrails(t, c.rego, "lib.rego", "package lib\nb if input.time")
		reads, uncached := p.Footprint()
		if strings.Contains(c.rego, "walk(input") || strings.Contains(c.rego, "f(input)") {
			c.reads, c.uncached = "[]", "[]" // the whole input, whose path is empty
			if len(reads) != 1 || reads[0] != "" || len(uncached) != 1 {
				t.Errorf("%s\nreads %q, uncached %q", c.rego, reads, uncached)
			}
			continue
		}
		if fmt.Sprint(reads) != c.reads || fmt.Sprint(uncached) != c.uncached {
			t.Errorf("%s\nreads %v, uncached %v\nwant  %v, %v", c.rego, reads, uncached, c.reads, c.uncached)
		}
	}
}

func pass(s *core.Session, e *core.Event) {
	if s.OfRun() == nil {
		s.Begin(core.SessionConfig{})
	}
	e.Wire = []byte("wire")
	s.Check(context.Background(), e)
}

func join(s *core.Session, run *core.Run) { s.Begin(core.SessionConfig{Run: run}) }

// ran is a run of which another session has done something.
func ran(e *core.Event) *core.Run {
	run := core.NewRun("01r", true)
	run.Tables()
	s := newSession()
	join(s, run)
	pass(s, e)
	return run
}

func rowsOf(n int) *core.Event {
	return &core.Event{Kind: core.KindRows, Direction: core.FromUpstream, Exchange: &core.Exchange{}, Rows: &core.Batch{Rows: n}}
}

func writing() *core.Event {
	e := command("before")
	e.Exchange.Command.Resources[0].Use = []string{"write"}
	return e
}

// TestStateIsKept: a policy that reads facts that seldom change is asked again when they change, and only then.
func TestStateIsKept(t *testing.T) {
	p := guardrails(t, `deny contains {"rule": "after"} if {
	"write" in input.event.command.effects
	touched
}
touched if "s.customers" in input.session.tables_read
touched if input.session.tables_complete == false
touched if { some t in input.run.tables_read; t.target == "orders"; t.name == "s.customers" }
touched if input.run.tables_complete == false`)
	if !p.Subscription().Tables {
		t.Error("it does not say that it asks for tables")
	}
	write := func(s *core.Session) (denied bool) {
		e := command("w", core.EffectWrite)
		e.Session = s
		return ok(t, p, e).Deny != nil
	}
	misses := func(want uint64, what string) {
		t.Helper()
		if got := p.Stats().Misses; got != want {
			t.Errorf("%s: asked %d times, not %d", what, got, want)
		}
	}
	a, b := newSession(), newSession()
	for _, s := range []*core.Session{a, b, a, b} {
		if write(s) {
			t.Error("refused before anything was read")
		}
	}
	misses(1, "two sessions that have touched nothing")
	pass(a, command("read"))
	for range 2 {
		if !write(a) {
			t.Error("after it has read")
		}
	}
	if write(b) {
		t.Error("after another session has read")
	}
	misses(2, "one has read")
	pass(b, command("read"))
	if !write(b) {
		t.Error("the other one, too")
	}
	misses(2, "the other has read the same")

	run := core.NewRun("r", true)
	c, d := newSession(), newSession()
	join(c, run)
	join(d, run)
	if write(c) || write(d) {
		t.Error("a run that has touched nothing")
	}
	pass(c, command("read"))
	if !write(d) {
		t.Error("another session of the run has read")
	}
	if late := newSession(); true {
		pass(late, command("read"))
		if !write(late) {
			t.Error("a session that nobody kept account of is taken for one that touched nothing")
		}
	}
}

// TestCache changes one fact after another: a kept verdict must not be used when a rule reads the fact.
func TestCache(t *testing.T) {
	changes := map[string]func(e *core.Event){
		"event.command.action":      func(e *core.Event) { e.Exchange.Command.Action = "other" },
		"event.command.text":        func(e *core.Event) { e.Exchange.Command.Text = "other" },
		"event.command.fingerprint": func(e *core.Event) { e.Exchange.Command.Fingerprint = "other" },
		"event.command.effects":     func(e *core.Event) { e.Exchange.Command.Effects = []core.Effect{"other"} },
		"event.command.resources":   func(e *core.Event) { e.Exchange.Command.Resources[0].Name = "other" },
		"event.command.where":       func(e *core.Event) { e.Exchange.Command.Where = false },
		"event.command.status":      func(e *core.Event) { e.Exchange.Command.Status = "other" },
		"event.command.reason":      func(e *core.Event) { e.Exchange.Command.Reason = "other" },
		"event.command.params":      func(e *core.Event) { e.Params = []core.Param{{Value: []byte("other")}} },
		"event.command":             func(e *core.Event) { e.Params = []core.Param{{Value: []byte("other")}} },
		"event.columns":             func(e *core.Event) { e.Columns = []core.Column{{Name: "other"}} },
		"event.kind":                func(e *core.Event) { e.Kind = core.KindColumns },
		"event.direction":           func(e *core.Event) { e.Direction = core.FromUpstream },
		"event.stage":               func(e *core.Event) { e.Stage = "prepare" },
		"event.postgres":            func(e *core.Event) { e.Detail = map[string]any{"x": 1} },
		"event.result":              func(e *core.Event) { e.Result = &core.Result{Status: "x"} },
		"identity.subject":          func(e *core.Event) { e.Session.Identity.Subject = "other" },
		"identity.groups":           func(e *core.Event) { e.Session.Identity.Groups = []string{"other"} },
		"identity.kind":             func(e *core.Event) { e.Session.Identity.Kind = "other" },
		"identity.issuer":           func(e *core.Event) { e.Session.Identity.Issuer = "other" },
		"identity.claims":           func(e *core.Event) { e.Session.Identity.Claims = map[string]any{"other": 1} },
		"target.name":               func(e *core.Event) { e.Session.Target.Name = "other" },
		"target.labels":             func(e *core.Event) { e.Session.Target.Labels = map[string]string{"other": "1"} },
		"session.id":                func(e *core.Event) { e.Session.ID = "other" },
		"session.in_transaction":    func(e *core.Event) { e.Session.SetInTransaction(true) },
		"session.started":           func(e *core.Event) { e.Session.Started = time.Unix(2e9, 0) },
		"session.commands":          func(e *core.Event) { pass(e.Session, command("before")) },
		"session.bytes_from_client": func(e *core.Event) { pass(e.Session, command("before")) },
		"session.bytes_to_client":   func(e *core.Event) { pass(e.Session, rowsOf(3)) },
		"session.rows":              func(e *core.Event) { pass(e.Session, rowsOf(3)) },
		"session.denied":            func(e *core.Event) { pass(e.Session, &core.Event{Kind: core.KindOpaque}) },
		"session.tables_read":       func(e *core.Event) { e.Session.Tables(); pass(e.Session, command("before")) },
		"session.tables_written":    func(e *core.Event) { e.Session.Tables(); pass(e.Session, writing()) },
		"session.tables_complete":   func(e *core.Event) { pass(e.Session, command("before")) }, // nobody has kept account
		"run.id":                    func(e *core.Event) { join(e.Session, core.NewRun("other", true)) },
		"run.sessions":              func(e *core.Event) { join(e.Session, core.NewRun("01r", true)) },
		"run.commands":              func(e *core.Event) { join(e.Session, ran(command("before"))) },
		"run.rows":                  func(e *core.Event) { join(e.Session, ran(rowsOf(3))) },
		"run.tables_read":           func(e *core.Event) { join(e.Session, ran(command("before"))) },
		"run.tables_written":        func(e *core.Event) { join(e.Session, ran(writing())) },
		"run.tables_complete":       func(e *core.Event) { join(e.Session, core.NewRun("01r", false)) },
		"time":                      func(e *core.Event) { e.Time = time.Unix(2e9, 0) },
	}
	for path, change := range changes {
		// The rule's reason is the fact itself.
		p := guardrails(t, `deny contains {"rule": "r", "reason": json.marshal(x)} if x := input.`+path)
		reason := func(e *core.Event) string {
			if v := ok(t, p, e); v.Deny != nil {
				return v.Deny.Reason
			}
			return "undefined"
		}
		before := reason(command("x"))
		if again := reason(command("x")); again != before {
			t.Errorf("%s: %s, then %s", path, before, again)
		}
		e := command("x")
		change(e)
		if after := reason(e); after == before {
			t.Errorf("%s: a kept verdict was used for another fact: %s", path, after)
		}
		if again := reason(command("x")); again != before {
			t.Errorf("%s: %s, then %s", path, before, again)
		}
	}
	// and one that reads none of them is asked once.
	p := guardrails(t, `deny contains {"rule": "r"} if "ddl" in input.event.command.effects`)
	ok(t, p, command("x", core.EffectDDL))
	for range 10 {
		e := command(time.Now().String(), core.EffectDDL)
		e.Params = []core.Param{{Value: []byte("p")}}
		e.Session.ID = time.Now().String()
		if v := ok(t, p, e); v.Deny == nil {
			t.Error("passed")
		}
	}
	if s := p.Stats(); s.Misses != 1 || s.Hits != 10 {
		t.Errorf("%+v", s)
	}
}

func TestCacheIsBounded(t *testing.T) {
	p := mustLoad(t, Config{CacheEntries: 64, FS: files("a.rego", head+`deny contains {"rule": "x"} if input.event.command.text == "x"`)})
	for i := range 2000 {
		ok(t, p, command(fmt.Sprint(i)))
	}
	if s := p.Stats(); s.Entries > 64 || s.Entries < 32 {
		t.Errorf("%+v", s)
	}
	if n := p.commands.len(); n > keptCommands {
		t.Errorf("%d commands", n)
	}
	s := newSession()
	e := command("x")
	e.Session = s
	ok(t, p, e)
	p.Forget(s)
	if _, there := p.sessions.Load(s); there {
		t.Error("a session is kept that is over")
	}
	off := mustLoad(t, Config{CacheEntries: -1, FS: files("a.rego", head+`deny contains {"rule": "x"} if input.event.command.text == "x"`)})
	ok(t, off, command("x"))
	ok(t, off, command("x"))
	if s := off.Stats(); s.Hits != 0 || s.Misses != 2 {
		t.Errorf("%+v", s)
	}
}

func TestConcurrent(t *testing.T) {
	p := guardrails(t, `deny contains {"rule": "x"} if endswith(input.event.command.text, "7")`)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 300 {
				v, err := p.Inspect(context.Background(), command(fmt.Sprint(i)))
				if err != nil || (v.Deny != nil) != (i%10 == 7) {
					t.Errorf("%d: %+v %v", i, v.Deny, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestPaths(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		f := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(f), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rule := head + `deny contains {"rule": data.lists.name} if true`
	write("p/guard.rego", rule)
	write("p/guard_test.rego", "package t\ntest_x if false\nbroken if http.send({})")
	write("p/lists/data.yaml", "name: from-data\n")
	write("p/.git/x.rego", "not rego")
	write("one.rego", head+`deny contains {"rule": "single"} if true`)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, f := range [][2]string{{"/guard.rego", rule}, {"/lists/data.json", `{"name":"from-bundle"}`}, {"/x_test.rego", "package t\ntest_x if false"}} {
		if err := w.WriteHeader(&tar.Header{Name: f[0], Mode: 0o600, Size: int64(len(f[1]))}); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte(f[1]))
	}
	_, _ = w.Close(), z.Close()
	write("b.tar.gz", b.String())
	revisions := map[string]bool{}
	for path, want := range map[string]string{"p": "from-data", "one.rego": "single", "b.tar.gz": "from-bundle"} {
		p := mustLoad(t, Config{Path: filepath.Join(dir, path)})
		if v := ok(t, p, command("x")); v.Deny == nil || v.Deny.Rule != want {
			t.Errorf("%s: %+v", path, v.Deny)
		}
		revisions[p.Revision()] = true
	}
	before := mustLoad(t, Config{Path: filepath.Join(dir, "p")}).Revision()
	write("p/lists/data.yaml", "name: changed\n")
	revisions[mustLoad(t, Config{Path: filepath.Join(dir, "p")}).Revision()] = true
	if len(revisions) != 4 || !revisions[before] {
		t.Errorf("revisions %v", revisions)
	}
}

func TestShippedPolicies(t *testing.T) {
	profiles, err := fs.ReadDir(policies.FS, ".")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, d := range profiles {
		if !d.IsDir() {
			continue
		}
		n++
		sub, err := fs.Sub(policies.FS, d.Name())
		if err != nil {
			t.Fatal(err)
		}
		report, err := TestFS(context.Background(), d.Name(), sub)
		if err != nil {
			t.Fatal(err)
		}
		if !report.OK() {
			t.Errorf("%s: %+v", d.Name(), report)
		}
		t.Logf("%s: %d tests", d.Name(), report.Pass)
		p := mustLoad(t, Config{Path: "builtin:" + d.Name(), FS: sub})
		changing := map[string]bool{"budgets": true, "working-hours": true, "admin": true, "replay": true} // they are about what changes, or about acts, which are rare
		if _, uncached := p.Footprint(); len(uncached) != 0 != changing[d.Name()] {
			t.Errorf("%s: verdicts cannot be kept because of %v", d.Name(), uncached)
		}
	}
	if n < 3 {
		t.Errorf("%d profiles", n)
	}
	sub, _ := fs.Sub(policies.FS, "standard")
	p := mustLoad(t, Config{FS: sub})
	e := command("drop", core.EffectDDL)
	if v := ok(t, p, e); v.Deny == nil || v.Deny.Rule != "no-ddl" || v.Deny.Hint == "" || len(v.Masks) < 10 || v.Limit.Rows != 100000 {
		t.Errorf("%+v %+v", v, v.Deny)
	}
}

func TestUnitTestsFail(t *testing.T) {
	report, err := TestFS(context.Background(), "p", files("a.rego", head+`record := "full"`, "a_test.rego",
		"package t\nimport data.weir.guardrails\ntest_right if guardrails.record == \"full\"\ntest_wrong if {\n\tprint(\"seen\")\n\tguardrails.record == \"off\"\n}\ntodo_test_later if false"))
	if err != nil {
		t.Fatal(err)
	}
	if report.Pass != 1 || report.Fail != 1 || report.Skip != 1 || report.OK() {
		t.Errorf("%+v", report)
	}
	for _, r := range report.Tests {
		if r.Name == "test_wrong" && (r.File != "p/a_test.rego" || r.Line != 4 || !strings.Contains(r.Output, "seen")) {
			t.Errorf("%+v", r)
		}
	}
	if _, err := TestFS(context.Background(), "p", files("a_test.rego", "package t\ntest_x if http.send({})")); err == nil || !strings.Contains(err.Error(), "a_test.rego:2") {
		t.Errorf("%v", err)
	}
}

func FuzzDecode(f *testing.F) {
	p := guardrails(f, `deny contains {"rule": "x"} if false`)
	f.Add("rule", "x", int64(3))
	f.Add("rows", "1", int64(-1))
	f.Fuzz(func(t *testing.T, k, s string, n int64) {
		for _, x := range []any{s, true, nil, map[string]any{k: s}, []any{map[string]any{k: []any{s}}, map[string]any{"rule": s, k: nil}}} {
			for _, name := range []string{"deny", "mask", "hold", "limit", "record"} {
				_, _ = p.decode(p.guard, map[string]any{"weir.guardrails": map[string]any{name: []any{x}}})
			}
		}
	})
}

func benchPolicy(b *testing.B) *Policy {
	sub, err := fs.Sub(policies.FS, "standard")
	if err != nil {
		b.Fatal(err)
	}
	return mustLoad(b, Config{FS: sub})
}

func BenchmarkHit(b *testing.B) {
	p, e := benchPolicy(b), command("select", core.EffectRead)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = p.Inspect(context.Background(), e)
	}
}

func BenchmarkHitNewCommand(b *testing.B) {
	p := benchPolicy(b)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = p.Inspect(context.Background(), command("select", core.EffectRead))
	}
}

func BenchmarkMiss(b *testing.B) {
	sub, _ := fs.Sub(policies.FS, "standard")
	p := mustLoad(b, Config{FS: sub, CacheEntries: -1})
	for name, e := range map[string]*core.Event{"allow": command("select", core.EffectRead), "deny": command("drop", core.EffectDDL)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = p.Inspect(context.Background(), e)
			}
		})
	}
}

// TestUnaskedPackageIsRefused: a deny in a package that nobody asks would be a control that does nothing.
func TestUnaskedPackageIsRefused(t *testing.T) {
	files := fstest.MapFS{
		"guard.rego":    {Data: []byte("package weir.guardrails\nimport rego.v1\ndeny contains {\"rule\": \"a\"} if input.event.command.action == \"x\"\n")},
		"payments.rego": {Data: []byte("package weir.payments\nimport rego.v1\ndeny contains {\"rule\": \"b\"} if input.event.command.action == \"y\"\n")},
		"lib.rego":      {Data: []byte("package weir.lib\nimport rego.v1\nhelper if input.event.command.action == \"y\"\n")},
	}
	_, err := Load(t.Context(), Config{Name: "p", FS: files})
	if err == nil || !strings.Contains(err.Error(), "payments.rego:3") || !strings.Contains(err.Error(), "packages:") || strings.Contains(err.Error(), "weir.lib has") {
		t.Fatal(err)
	}
	if _, err := Load(t.Context(), Config{Name: "p", FS: files, Packages: []string{"weir.guardrails", "weir.payments"}}); err != nil {
		t.Fatal(err)
	}
}
