package opa

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/policies"
)

// eachPolicy calls f with each shipped policy, and with the one that is measured.
func eachPolicy(t *testing.T, f func(t *testing.T, name string, files fs.FS)) {
	t.Helper()
	folders, err := fs.ReadDir(policies.FS, ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range folders {
		if d.IsDir() {
			sub, err := fs.Sub(policies.FS, d.Name())
			if err != nil {
				t.Fatal(err)
			}
			t.Run(d.Name(), func(t *testing.T) { f(t, d.Name(), sub) })
		}
	}
	realistic, err := os.ReadFile("bench/realistic.rego")
	if err != nil {
		t.Fatal(err)
	}
	t.Run("realistic", func(t *testing.T) {
		f(t, "realistic", files("p.rego", string(realistic), "data.json", `{"house": {"tables": {
			"shop.orders": {"team": "analysts", "open": ["read"], "personal": [], "rows": 10}, "shop.customers": {"team": "x", "open": ["read"], "personal": ["email"], "rows": 20}},
			"functions": ["pg_catalog.count"], "refused": ["ddl", "unknown"]}}`))
	})
}

// TestPolicyTests runs the unit tests of the shipped policies on both engines: each test is a rule like any other.
func TestPolicyTests(t *testing.T) {
	eachPolicy(t, func(t *testing.T, name string, files fs.FS) {
		src, err := readFS(context.Background(), files, name, maxFolder)
		if err != nil {
			t.Fatal(err)
		}
		var rules []string
		for file, m := range src.tests {
			src.modules[file] = m
			for _, r := range m.Rules {
				path := strings.TrimPrefix(m.Package.Path.String()+"."+r.Head.Name.String(), "data.")
				if strings.HasPrefix(r.Head.Name.String(), "test_") && !slices.Contains(rules, path) {
					rules = append(rules, path)
				}
			}
		}
		if len(rules) == 0 {
			if name != "realistic" {
				t.Fatal("it has no tests")
			}
			return
		}
		d, err := duelOf(context.Background(), t, src, "", asRun, rules...)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			if topdown, wasm := d.agree(t, r, ast.NewObject()); topdown != "[true]" || wasm != topdown {
				t.Errorf("%s: topdown %s, wasm %s", r, topdown, wasm)
			}
		}
		t.Logf("%d tests", len(rules))
	})
}

// corpus makes events such as clients cause, and some that nobody should.
type corpus struct{ *rand.Rand }

func (c corpus) of(list ...string) string { return list[c.IntN(len(list))] }

func (c corpus) some(most int, list ...string) (out []string) {
	for range c.IntN(most + 1) {
		out = append(out, c.of(list...))
	}
	return out
}

func (c corpus) session() *core.Session {
	s := &core.Session{
		ID: "01s", Run: c.of("", "01r"), Protocol: c.of("postgres", "sql"), Started: time.Unix(1e9+c.Int64N(1e8), 0),
		Identity: core.Identity{
			Subject: c.of("ada", "bot-1", "", "ünï\u0000"), Issuer: c.of("idp", "weir"), Groups: c.some(3, "analysts", "support", "dba", "writers", "x", "admins"),
			Kind: c.of("agent", "human", "service", ""),
		},
		Target: &core.Target{Name: c.of("orders", "prod"), Labels: map[string]string{"risk": c.of("low", "high"), c.of("env", "x"): c.of("prod", "dev")}},
	}
	switch c.IntN(5) {
	case 0:
		s.Identity.Claims = map[string]any{"team": c.of("x", "y"), "level": json.Number(c.of("1", "1.0", "2.5")), "nested": []any{map[string]any{"a": nil}}}
	case 1:
		s.Identity.Subject = "no\xffutf8"
	}
	var run *core.Run
	if c.IntN(2) == 0 {
		run = core.NewRun("01r", true)
	}
	s.Begin(core.SessionConfig{Run: run, Tables: c.IntN(2) == 0})
	return s
}

func (c corpus) event(s *core.Session) *core.Event {
	tables := []string{"shop.orders", "shop.customers", "public.secrets", "hr.salaries", "pg_catalog.pg_authid", "pg_catalog.pg_class", "audit.log", "shop.Api_Keys", "", "ünï.t", "x"}
	columns := []string{"id", "email", "phone", "card", "password", "iban", "name", "ssn", "token", "*", ""}
	e := &core.Event{Kind: core.KindCommand, Direction: core.FromClient, Stage: c.of("", "parse", "execute"), Session: s, Time: time.Unix(1.5e9+c.Int64N(1e6), c.Int64N(1e9))}
	command := &core.Command{
		Action: c.of("select", "update", "delete", "drop", "set", "call", "copy"), Text: c.of("SELECT 1", "", `DELETE "\`, "a\u0001\u2028", "x\xff", "set role x"),
		Fingerprint: c.of("f1", "f2"), Status: core.Status(c.of("known", "known", "incomplete", "")), Reason: c.of("", "it calls a function"), Where: c.IntN(2) == 0,
	}
	for _, x := range c.some(3, "read", "write", "ddl", "privilege", "session", "file", "process", "network", "admin", "unknown") {
		command.Effects = append(command.Effects, core.Effect(x))
	}
	for range c.IntN(4) {
		command.Resources = append(command.Resources, core.Resource{
			Kind: c.of("table", "function", "setting", "schema", "role"), Name: c.of(append(tables, "pg_catalog.count", "pg_catalog.pg_read_file", "role", "search_path")...),
			Use: c.some(2, "read", "write", "call", "alter", "delete", "set"), Columns: c.some(3, columns...), Indirect: c.some(1, columns...), Copied: c.some(1, columns...), Transformed: c.some(1, columns...),
		})
	}
	e.Exchange = &core.Exchange{Command: command}
	switch c.IntN(4) {
	case 0:
		e.Kind, e.Direction = core.KindColumns, core.FromUpstream
		for range c.IntN(5) {
			column := core.Column{Name: c.of(columns...), Type: c.of("text", "int4", "")}
			if c.IntN(2) == 0 {
				column.Origin = &core.Origin{Table: c.of(tables...), Column: c.of(columns...)}
				column.Lineage = []core.Origin{*column.Origin, {Table: c.of(tables...), Column: c.of(columns...)}}
			}
			e.Columns = append(e.Columns, column)
		}
	case 1:
		e.Params = []core.Param{{Value: []byte(c.of("1", "x\xff"))}, {}, {Value: []byte{0, 1}, Binary: true}}
	case 2:
		e.Kind = core.KindOpen
		e.Exchange = nil
		e.Detail = map[string]any{"verb": c.of("get", "ünï"), "count": json.Number("3")}
	}
	return e
}

// TestVerdicts asks both engines about events, and compares the verdicts.
func TestVerdicts(t *testing.T) {
	eachPolicy(t, func(t *testing.T, _ string, files fs.FS) {
		topdown := mustLoad(t, Config{Path: "p", FS: files, CacheEntries: -1, Engine: Topdown, Timeout: time.Minute})
		wasm := mustLoad(t, Config{Path: "p", FS: files, CacheEntries: -1, Engine: WASM, Timeout: time.Minute})
		c := corpus{rand.New(rand.NewPCG(1, 2))}
		denied, failed := 0, 0
		for range 400 {
			e := c.event(c.session())
			want, wantErr := topdown.Inspect(context.Background(), e)
			got, gotErr := wasm.Inspect(context.Background(), e)
			if !reflect.DeepEqual(want, got) || fmt.Sprint(wantErr) != fmt.Sprint(gotErr) {
				t.Fatalf("about %+v %+v:\ntopdown %+v %v\nwasm    %+v %v", e, e.Command(), want, wantErr, got, gotErr)
			}
			if want.Deny != nil {
				denied++
			}
			if wantErr != nil {
				failed++
			}
		}
		asked, stumbles := wasm.guest.asked.Load(), wasm.guest.stumbles.Load()
		t.Logf("%d denied, %d failed; %d asked of the guest, %d left to topdown", denied, failed, asked, stumbles)
		if asked > 0 && stumbles*20 > asked {
			t.Errorf("the guest has left %d of %d questions to topdown", stumbles, asked)
		}
	})
}

// TestGuestInput holds the two ways together in which an input is made.
func TestGuestInput(t *testing.T) {
	for _, rego := range []string{
		`deny contains {"rule": "x"} if input`, // all of it
		`deny contains {"rule": "x"} if { input.event.command; input.session; input.run; input.identity; input.time; input.event.columns; input.event.postgres; input.target }`,
		`deny contains {"rule": "x"} if { input.event.command.resources; input.identity.groups }`,
	} {
		p := mustLoad(t, Config{Path: "policy", FS: files("p.rego", head+rego), Engine: WASM})
		c := corpus{rand.New(rand.NewPCG(3, 4))}
		said := 0
		for range 300 {
			e := c.event(c.session())
			part := p.sessionPart(e.Session)
			st := part.state(&p.guard.footprint, e.Session)
			want := p.input(p.guard, e, part, &st)
			text, ok := p.inputText(nil, p.guard, e, part, &st)
			if _, could := appendValue(nil, want, 0); !ok {
				if could {
					t.Fatalf("%v cannot be said", want)
				}
				continue
			}
			said++
			if !bytes.Equal(bytes.TrimSpace(text), text) {
				t.Fatal(text)
			}
			got, err := ast.ValueFromReader(bytes.NewReader(text))
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			read := func(v ast.Value) ast.Value { // only what some rule reads
				out := ast.NewObject()
				for _, path := range p.guard.footprint.paths {
					at := v
					for part := range strings.SplitSeq(path, ".") {
						if o, isObject := at.(ast.Object); isObject && part != "" && at != nil {
							if at = nil; o.Get(ast.StringTerm(part)) != nil {
								at = o.Get(ast.StringTerm(part)).Value
							}
						}
					}
					if at != nil {
						out.Insert(ast.StringTerm(path), ast.NewTerm(at))
					}
				}
				return out
			}
			if read(want).Compare(read(got)) != 0 {
				t.Fatalf("want %v\ngot  %s", want, text)
			}
		}
		if said < 100 {
			t.Errorf("%d inputs", said)
		}
	}
}
