package opa

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/policies"
)

func TestLint(t *testing.T) {
	deny := func(body string) string {
		return "package weir.guardrails\ndeny contains {\"rule\": \"r\"} if {\n" + body + "\n}"
	}
	for _, c := range []struct {
		name, rego string
		check      string // empty: nothing is found
		want       string
	}{
		{"a field that is not there", deny(`input.event.comand.where`), CheckField, "command"},
		{"a field of a variable", deny("some r in input.event.command.resources\nr.nme == \"x\""), CheckField, "name"},
		{"another type", deny(`input.event.command.where == "yes"`), CheckField, "compares"},
		{"a field that is there", deny(`input.event.command.action == "drop"`), "", ""},
		{"the protocol's own object", deny(`input.event.postgres.application == "psql"`), "", ""},
		{"another protocol's object", deny(`input.event.oracle.application == "psql"`), CheckField, "postgres"},
		{"claims are free", deny(`input.identity.claims.team == "x"`), "", ""},
		{"an effect that is none", deny(`"dll" in input.event.command.effects`), CheckNever, "ddl"},
		{"an effect by a variable", deny("some e in input.event.command.effects\ne == \"dll\""), CheckNever, "ddl"},
		{"an effect by an alias", deny("c := input.event.command\nc.effects[_] == \"dll\""), CheckNever, "ddl"},
		{"an effect", deny(`"ddl" in input.event.command.effects`), "", ""},
		{"a kind of identity", deny(`input.identity.kind == "robot"`), CheckNever, "agent"},
		{"asked at another moment", deny(`input.event.kind == "open"`), CheckNever, "never asked at"},
		{"a command at open", "package weir.access\nallow if \"read\" in input.event.command.effects", CheckNever, "weir.guardrails"},
		{"open at open", "package weir.access\nallow if input.event.kind == \"open\"", "", ""},
		{"data that is not there", deny(`input.identity.subject in data.lists.blocked`), CheckData, "never holds"},
		{"no data that is not there", deny(`not data.lists.off`), CheckData, "always holds"},
		{"data that is there", deny(`input.identity.subject in data.lists.known`), "", ""},
		{"data by a variable", deny(`some k; data.lists[k] == input.identity.subject`), "", ""},
		{"a helper", deny(`risky`) + "\nrisky if \"ddl\" in input.event.command.effects", "", ""},
		{"not over what may be absent", deny(`not input.target.labels.test`), CheckNegation, "input.target.labels.test"},
		{"the same, demanded before", deny("input.target.labels.test\nnot input.target.labels.test == \"yes\""), "", ""},
		{"the same, with a default", deny(`not object.get(input.target.labels, "test", "no") == "yes"`), "", ""},
		{"not over what is always there", deny(`not input.event.command.where`), "", ""},
		{"tables, without asking whether these are all", deny(`"a.b" in input.session.tables_read`), CheckComplete, "input.session.tables_complete"},
		{"the same of a run", deny(`some t in input.run.tables_written; t.name == "a.b"`), CheckComplete, "input.run.tables_complete"},
		{"the run's is not the session's", deny("\"a.b\" in input.session.tables_read\ninput.run.tables_complete"), CheckComplete, "input.session.tables_complete"},
		{"tables, and whether these are all", deny(`touched`) + "\ntouched if \"a.b\" in input.session.tables_read\ntouched if not input.session.tables_complete", "", ""},
		{"a package nobody asks", deny(`true`) + "\n", "", ""},
		{"nothing but a package nobody asks", "package weir.guards\ndeny contains {\"rule\": \"r\"} if true", CheckUnasked, "weir.guards"},
		{"it does not compile", deny(`x > 1`), CheckCompile, "x"},
		{"a name that is nearly an answer", "package weir.guardrails\ndenied contains {\"rule\": \"r\"} if true", CheckCompile, "deny"},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := Lint(context.Background(), "p", files("p.rego", c.rego, "lists/data.json", `{"known": ["ada"]}`), []string{"postgres"})
			if err != nil {
				t.Fatal(err)
			}
			if c.check == "" {
				if len(found) > 0 {
					t.Errorf("found %+v", found)
				}
				return
			}
			for _, f := range found {
				if f.Check == c.check && strings.Contains(f.Text, c.want) {
					if f.Check != CheckUnasked && f.Check != CheckCompile && (f.File == "" || f.Line < 2) {
						t.Errorf("no place: %+v", f)
					}
					return
				}
			}
			t.Errorf("no %s with %q in %+v", c.check, c.want, found)
		})
	}
}

// TestShippedPoliciesAreClean: what is shipped passes the check that is shipped.
func TestShippedPoliciesAreClean(t *testing.T) {
	files, err := filepath.Glob("../../policies/*/*_test.rego")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		found, err := Lint(context.Background(), dir, nil, []string{"postgres"})
		if err != nil || len(found) > 0 {
			t.Errorf("%s: %v %+v", dir, err, found)
		}
	}
}

// TestSchema: the schema says what the input holds, no more and no less.
func TestSchema(t *testing.T) {
	p := guardrails(t, `deny contains {"rule": "all"} if input.x == 1`)
	p.guard.footprint = newFootprint(map[string]bool{"": true})
	p.guard.footprint.params, p.guard.footprint.columns = true, true
	e := command("select 1", core.EffectRead)
	e.Stage, e.Params = "execute", []core.Param{{Value: []byte("a")}}
	r := &e.Exchange.Command.Resources[0]
	r.Indirect, r.Copied, r.Transformed = []string{"a"}, []string{"b"}, []string{"c"}
	e.Columns = []core.Column{{Name: "a", Type: "text", Origin: &core.Origin{Table: "s.t", Column: "b"}, Lineage: []core.Origin{{Table: "s.u", Column: "c"}}}}
	run := core.NewRun("01r", true)
	e.Session.Begin(core.SessionConfig{Run: run})
	e.Session.Check(context.Background(), command("update"))
	before := command("update")
	before.Exchange.Command.Resources[0].Use = []string{"read", "write"}
	e.Session.Tables()
	run.Tables()
	e.Session.Check(context.Background(), before)
	part := p.newSessionPart(e.Session)
	st := part.state(&p.guard.footprint, e.Session)
	in, err := ast.JSON(p.input(p.guard, e, part, &st))
	if err != nil {
		t.Fatal(err)
	}
	var compare func(path string, s map[string]any, v any)
	compare = func(path string, s map[string]any, v any) {
		switch v := v.(type) {
		case map[string]any:
			known, open := properties(s), s["additionalProperties"] != false
			for k, x := range v {
				if sub, ok := known[k]; ok {
					compare(path+"."+k, sub, x)
				} else if !open {
					t.Errorf("the schema lacks %s.%s", path, k)
				}
			}
			for k := range known {
				if _, ok := v[k]; !ok {
					t.Errorf("the input lacks %s.%s", path, k)
				}
			}
		case []any:
			items, _ := s["items"].(map[string]any)
			for _, x := range v {
				compare(path+"[]", items, x)
			}
		case string:
			if words := closed()[strings.ReplaceAll(strings.TrimPrefix(path, "input."), "[]", "")]; words != nil && !strings.Contains(" "+strings.Join(words, " ")+" ", " "+v+" ") {
				t.Errorf("%s is %q, not one of %v", path, v, words)
			}
		}
	}
	compare("input", schemaObject(), in)
}

// TestPages: the pages that are made from the source are up to date. UPDATE=1 writes them.
func TestPages(t *testing.T) {
	input, err := InputMarkdown()
	if err != nil {
		t.Fatal(err)
	}
	library, err := LibraryMarkdown(context.Background(), policies.FS)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"INPUT.md": input, "RULES.md": library} {
		file := filepath.Join("../../policies", name)
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if have, err := os.ReadFile(file); err != nil || string(have) != string(want) {
			t.Errorf("%s is not up to date: run make docs (%v)", file, err)
		}
	}
}

func TestExplain(t *testing.T) {
	p := guardrails(t, `
deny contains {"rule": "no-ddl", "reason": "x"} if "ddl" in input.event.command.effects
deny contains {"rule": "unbounded"} if {
	"read" in input.event.command.effects
	not input.event.command.where
}
deny contains {"rule": name} if {
	some name in data.names
	"write" in input.event.command.effects
}
mask contains {"column": "email", "with": "partial"} if not "support" in input.identity.groups
`, "data.json", `{"names": ["n"]}`)
	x, asked := p.Explain(context.Background(), command("select 1", core.EffectRead))
	if !asked || x.Error != "" || x.Verdict.Deny != nil || len(x.Verdict.Masks) != 1 {
		t.Fatalf("%v %+v", asked, x)
	}
	got := map[string]Tried{}
	for _, r := range x.Rules {
		got[r.Answer+" "+r.Rule] = r
	}
	if r := got["mask email"]; !r.Fired || r.Line != 12 {
		t.Errorf("%+v", r)
	}
	if r := got["deny unbounded"]; r.Fired || r.Held != 1 || r.Conditions != 2 || r.StoppedAt != 6 || !strings.Contains(r.Stopped, "not input.event.command.where") {
		t.Errorf("%+v", r)
	}
	if r := got["deny no-ddl"]; r.Fired || r.Held != 0 || r.StoppedAt != 3 {
		t.Errorf("%+v", r)
	}
	if r := got["deny "]; r.Fired || r.StoppedAt == 0 {
		t.Errorf("%+v", r)
	}
	if x.Rules[0].Answer != "mask" || x.Rules[1].Rule != "unbounded" {
		t.Errorf("not the nearest first: %+v", x.Rules)
	}
	facts := map[string]string{}
	for _, f := range x.Facts {
		facts[f.Path] = string(f.Value)
	}
	if facts["event.command.effects"] != `["read"]` || facts["identity.groups"] != `["analysts"]` || facts["event.command.where"] != "true" {
		t.Errorf("facts %v", facts)
	}
	// The same without an explanation.
	if v := ok(t, p, command("select 1", core.EffectRead)); v.Deny != nil || len(v.Masks) != 1 {
		t.Errorf("%+v", v)
	}
	if x, _ := p.Explain(context.Background(), command("drop", core.EffectDDL)); x.Verdict.Deny == nil || x.Rules[0].Rule != "no-ddl" && x.Rules[1].Rule != "no-ddl" {
		t.Errorf("%+v", x)
	}
	if _, asked := p.Explain(context.Background(), &core.Event{Kind: core.KindOpen, Session: newSession()}); asked {
		t.Error("asked at Open without a package for it")
	}
}

func TestExplainFailure(t *testing.T) {
	p := guardrails(t, `deny contains {"rule": "r"} if to_number(input.event.command.text) > 1`)
	x, _ := p.Explain(context.Background(), command("secret-text"))
	if x.Error == "" || strings.Contains(x.Error, "secret-text") {
		t.Errorf("%+v", x)
	}
}

func TestBacktest(t *testing.T) {
	candidate := guardrails(t, `
deny contains {"rule": "no-ddl"} if "ddl" in input.event.command.effects
deny contains {"rule": "many"} if { input.session.commands >= 4; "read" in input.event.command.effects }
mask contains {"column": "email", "with": "redact", "rule": "hide"} if true
`)
	by := func(rule string) []core.Decision {
		return []core.Decision{{Step: "guardrails", Action: "deny", Rule: rule, Detail: "why (weir.guardrails@0123456789ab)"}}
	}
	denied := &core.Denial{Rule: "x"}
	type past struct {
		e         *core.Event
		denied    *core.Denial
		decisions []core.Decision
	}
	s := newSession()
	in := func(e *core.Event) *core.Event { e.Session = s; return e }
	columns := func(masked ...core.Decision) past {
		e := in(command("select email, phone"))
		e.Kind, e.Direction = core.KindColumns, core.FromUpstream
		e.Columns = []core.Column{{Name: "email"}, {Name: "phone"}}
		return past{e, nil, masked}
	}
	b := NewBacktest(candidate)
	bs := b.Session()
	for i, p := range []past{
		{in(command("drop a", core.EffectDDL)), denied, by("no-ddl")},                                                           // the same
		{in(command("drop b", core.EffectDDL)), nil, nil},                                                                       // newly denied
		{in(command("select 1", core.EffectRead)), denied, by("old-rule")},                                                      // newly allowed
		{in(command("select 1", core.EffectRead)), denied, []core.Decision{{Step: "weir", Action: "deny", Rule: "incomplete"}}}, // stays refused
		columns(core.Decision{Action: "mask", Rule: "old", Detail: "phone"}),                                                    // email newly, phone no longer
		{in(command("select 2", core.EffectRead)), nil, nil},                                                                    // the fifth command: newly denied by the count
		{in(command("drop c", core.EffectDDL)), denied, by("other-name")},                                                       // another rule
	} {
		p.e.Seq = uint64(i + 1)
		bs.Event(context.Background(), p.e, p.denied, p.decisions)
	}
	bs.Close()
	count, groups := b.Result()
	var got []string
	for _, g := range groups {
		got = append(got, g.Change+": "+strings.TrimSpace(g.Rule+" "+g.Column))
	}
	want := "newly allowed: old-rule; no longer masked: old phone; newly denied: many; newly denied: no-ddl; newly masked: hide email; denied by another rule: no-ddl"
	if strings.Join(got, "; ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "; "), want)
	}
	if count.Sessions != 1 || count.Commands != 6 || count.Answers != 1 || count.Denied != 4 || count.Changes[NewlyDenied] != 2 {
		t.Errorf("%+v", count)
	}
	if u := b.Unknown(); len(u) != 0 {
		t.Error(u)
	}
}

// TestAliases: a rule that is another name for a part of the input does not make the whole part count as read.
func TestAliases(t *testing.T) {
	for _, c := range []struct{ rego, paths string }{
		{"command := input.event.command\ndeny contains {\"rule\": \"r\"} if \"ddl\" in command.effects", "event.command.effects"},
		{"command = input.event.command\ndeny contains {\"rule\": \"r\"} if { some r in command.resources; r.name == \"x\" }", "event.command.resources"},
		{"e := input.event\ndeny contains {\"rule\": \"r\"} if e.command.where", "event.command.where"},
		{"command := input.event.command\ndeny contains {\"rule\": \"r\"} if count(command) > 3", "event.command"},
		{"command := input.event.command\ndeny contains {\"rule\": \"r\"} if object.get(command, \"status\", \"x\") != \"known\"", "event.command.status"},
		{"deny contains {\"rule\": \"r\"} if object.get(input.event.command, \"status\", input.target.name) != \"known\"", "event.command.status target.name"},
		{"deny contains {\"rule\": \"r\"} if object.get(input.event.command, [\"status\"], \"\") != \"known\"", "event.command"},
		{"deny contains {\"rule\": \"r\"} if { some k in {\"status\"}; object.get(input.event.command, k, \"\") != \"known\" }", "event.command"},
		{"command := input.event.command\ndeny contains {\"rule\": \"r\"} if { some k; command[k] == \"x\" }", "event.command"},
		{"command := input.event.command if input.identity.kind == \"agent\"\ndeny contains {\"rule\": \"r\"} if command.where", "event.command identity.kind"},
		{"command := input.event.command if input.identity.kind == \"agent\"\nelse := input.event\ndeny contains {\"rule\": \"r\"} if command.where", "event identity.kind"},
		{"default command := {}\ncommand := input.event.command\ndeny contains {\"rule\": \"r\"} if command.where", "event.command"},
		{"command := object.union(input.event.command, {})\ndeny contains {\"rule\": \"r\"} if command.where", "event.command"},
		{"all := {input.event.command}\ndeny contains {\"rule\": \"r\"} if { some c in all; c.where }", "event.command"},
		{"f(x) := input.event.command\ndeny contains {\"rule\": \"r\"} if f(1).where", "event.command"},
	} {
		p := guardrails(t, c.rego)
		reads, _ := p.Footprint()
		if got := strings.Join(reads, " "); got != c.paths {
			t.Errorf("%s\nreads %s, not %s", c.rego, got, c.paths)
		}
	}
}
