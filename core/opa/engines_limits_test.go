package opa

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// TestNullIsNoAnswer shows what the rewriting is for. OPA's runtime answers NULL where a built-in function fails, which
// means undefined: without the traps a denial does not fire, and what is denied unless something holds is let through.
func TestNullIsNoAnswer(t *testing.T) {
	const rego = `package t
deny contains "prefix" if startswith(input.name, "secret")
deny contains "double" if not allowed
allowed if not endswith(input.name, "_private")
mask contains name if { some name in data.names; contains(input.name, name) }
`
	input := ast.MustParseTerm(`{"name": ["secret"]}`).Value
	for _, rule := range []string{"deny", "mask", "allowed"} {
		d, err := newDuel(t, map[string]string{"t.rego": rego}, `{"names": ["a"]}`, asRun, rule)
		if err != nil {
			t.Fatal(err)
		}
		if topdown, wasm := d.ask(rule, input); topdown != "error" || wasm != stumbled {
			t.Errorf("%s: topdown %s, wasm %s", rule, topdown, wasm)
		}
		d, err = newDuel(t, map[string]string{"t.rego": rego}, `{"names": ["a"]}`, rewriting{count: true}, rule)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"deny": "[set()]", "mask": "[set()]", "allowed": "[true]"}[rule]
		if topdown, wasm := d.ask(rule, input); topdown != "error" || wasm != want {
			t.Errorf("control: %s: topdown %s, wasm %s: the harm has gone", rule, topdown, wasm)
		}
	}
}

// TestEngine says what runs where, and why.
func TestEngine(t *testing.T) {
	const deny = `deny contains {"rule": "x"} if input.event.command.where`
	var many strings.Builder
	for i := range maxGuestRules + 1 {
		fmt.Fprintf(&many, "deny contains {\"rule\": \"r%d\"} if input.event.command.action == \"a%[1]d\"\n", i)
	}
	var names strings.Builder
	for i := range maxGuestCode {
		fmt.Fprintf(&names, "f%d if input.event.command.action == \"a%[1]d\"\n", i)
	}
	for name, c := range map[string]struct {
		rego, data, why string
		only            bool // auto keeps it on topdown, and wasm can run it
	}{
		"ordinary":        {rego: deny},
		"called back":     {rego: deny + "\ndeny contains {\"rule\": \"y\"} if regex.match(\"^a\", input.event.command.text)"},
		"many":            {rego: many.String(), why: "49 rules data.weir.guardrails.deny", only: true},
		"large":           {rego: names.String() + deny, why: "1001 rules", only: true},
		"prints":          {rego: deny + "\ndeny contains {\"rule\": \"y\"} if { print(input.event); input.event.command.action == \"y\" }"},
		"metadata":        {rego: deny + "\n# METADATA\n# title: t\ndeny contains {\"rule\": rego.metadata.rule().title} if input.event.command.where"},
		"walks":           {rego: deny + "\ndeny contains {\"rule\": \"y\"} if { walk(input.event, [_, v]); v == \"x\" }", why: "opa_value_transitive_closure"},
		"replaces":        {rego: deny + "\ndeny contains {\"rule\": \"y\"} if { startswith(\"a\", \"b\") with startswith as true }", why: "replaces startswith using `with`"},
		"replaces its":    {rego: deny + "\nf(x) := x\ng(x) := 2\ndeny contains {\"rule\": \"y\"} if { f(1) == 2 with f as g }", why: "using `with`"},
		"its own count":   {rego: deny + "\ncount := 1\ndeny contains {\"rule\": \"y\"} if { count == input.event.command.n }"},
		"number":          {rego: deny + "\ndeny contains {\"rule\": \"y\"} if input.event.command.n == 1e3", why: "writes a whole number as 1e3"},
		"template":        {rego: deny + "\ndeny contains {\"rule\": $\"y{input.event.command.action}\"} if input.event.command.where", why: "opa_template_string"},
		"large data":      {rego: deny, data: `{"x": "` + strings.Repeat("a", maxGuestData) + `"}`, why: "more than 1 MiB"},
		"deep data":       {rego: deny, data: `{"x": ` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, why: "deeper than 128"},
		"numbers in data": {rego: deny, data: `{"x": 1.0}`, why: "its data"},
	} {
		t.Run(name, func(t *testing.T) {
			more := []string{}
			if c.data != "" {
				more = append(more, "data.json", c.data)
			}
			load := func(e Engine) (*Policy, error) {
				return Load(context.Background(), Config{Name: "test", Path: "policy", FS: files(append([]string{"p.rego", head + c.rego}, more...)...), Engine: e})
			}
			p, err := load(Auto)
			if err != nil {
				t.Fatal(err)
			}
			engine, why := p.Engine()
			if engine == WASM != (c.why == "") || !strings.Contains(why, c.why) {
				t.Errorf("%s: %s", engine, why)
			}
			if p, err = load(WASM); err == nil != (c.why == "" || c.only) {
				t.Errorf("wasm: %v", err)
			}
			if err == nil {
				ok(t, p, command("x"))
				if p.guest.asked.Load() != 1 || p.guest.stumbles.Load() != 0 {
					t.Error("the guest has not answered")
				}
			} else if !strings.Contains(err.Error(), c.why) || !strings.Contains(err.Error(), "engine") || strings.Contains(err.Error(), "\n") {
				t.Error(err)
			}
			if p, err = load(Topdown); err != nil || p.guest != nil {
				t.Error(err)
			}
		})
	}
	if _, err := Load(context.Background(), Config{Name: "test", FS: files("p.rego", head+deny), Engine: "fast"}); err == nil || !strings.Contains(err.Error(), `no engine "fast": say auto, topdown or wasm`) {
		t.Error(err)
	}
}

// TestGuestEnds tries what could go on for too long, or grow too large. Each ends, and the next question is answered.
func TestGuestEnds(t *testing.T) {
	const twice = `some a in xs; some b in xs; some c in xs; some d in xs; some e in xs; a + b + c + d + e < 0`
	for name, c := range map[string]struct {
		condition string
		late      bool
	}{
		"loops":      {condition: `xs := ["1", "2", "3", "4", "5", "6", "7", "8", "9", "0", "11", "12", "13", "14", "15", "16", "17", "18", "19", "20"]; some a in xs; some b in xs; some c in xs; some d in xs; some e in xs; some f in xs; [a, b, c, d, e, f] == input.event.command.text`, late: true},
		"called":     {condition: `xs := numbers.range(1, 60); ` + twice, late: true},
		"in natives": {condition: `contains(input.event.command.text, input.event.command.reason)`, late: true},
		"memory":     {condition: `xs := numbers.range(1, 100000); ys := [[x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x] | some x in xs]; count(ys) == 0`},
		"host":       {condition: `count(numbers.range(1, 100000000)) == 0`, late: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rego := head + `deny contains {"rule": "x"} if { input.event.command.action == "hard"; ` + c.condition + ` }`
			p := mustLoad(t, Config{Path: "policy", FS: files("p.rego", rego), Timeout: 150 * time.Millisecond, Engine: WASM, CacheEntries: -1})
			e := command("x")
			e.Exchange.Command.Action = "hard"
			if name == "in natives" {
				e.Exchange.Command.Text, e.Exchange.Command.Reason = strings.Repeat("a", 400_000), strings.Repeat("a", 200_000)+"b"
			}
			start := time.Now()
			_, err := p.Inspect(context.Background(), e)
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("it took %v: %v", took, err)
			}
			if c.late && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if _, err := p.Inspect(ctx, e); c.late && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			before := p.guest.asked.Load()
			for range 4 {
				if v, err := p.Inspect(context.Background(), command("x")); err != nil || v.Deny != nil {
					t.Error(v, err)
				}
			}
			if p.guest.asked.Load() != before+4 {
				t.Error("the guest is not asked any more")
			}
		})
	}
}

// TestGuestStateIsWhole mixes questions that trap with others: what one has left behind is not seen by the next.
func TestGuestStateIsWhole(t *testing.T) {
	rego := head + `
deny contains {"rule": name} if { some r in input.event.command.resources; name := sprintf("%s-%s", [r.name, input.event.command.action]) }
deny contains {"rule": "never"} if { input.event.command.reason == "trap"; every x in data.list { [y | some y in data.list; y == x]; startswith(input.event.command.where, "x") } }
`
	p := mustLoad(t, Config{Path: "policy", FS: files("p.rego", rego, "data.json", `{"list": [1, 2, 3]}`), Engine: WASM, CacheEntries: -1})
	var group sync.WaitGroup
	for worker := range 4 {
		group.Go(func() {
			for i := range 200 {
				e := command("x")
				e.Exchange.Command.Action = fmt.Sprint("a", worker, "-", i)
				if i%3 == 0 {
					e.Exchange.Command.Reason = "trap"
				}
				v, err := p.Inspect(context.Background(), e)
				switch {
				case i%3 == 0 && (err == nil || !strings.Contains(err.Error(), "p.rego:4: the evaluation failed: eval_type_error")):
					t.Error(v, err)
				case i%3 != 0 && (err != nil || v.Deny == nil || v.Deny.Rule != "s.customers-"+e.Exchange.Command.Action):
					t.Error(v.Deny, err)
				}
			}
		})
	}
	group.Wait()
	if n := p.guest.live.Load(); int(n) > runtime.GOMAXPROCS(0) || len(p.guest.idle) != int(n) {
		t.Errorf("%d instances, %d of them idle", n, len(p.guest.idle))
	}
}

// TestGuestIsGivenUp: where the guest has no answer too often, asking it is lost time.
func TestGuestIsGivenUp(t *testing.T) {
	p := mustLoad(t, Config{Path: "policy", FS: files("p.rego", head+`deny contains {"rule": "x"} if { input.event.command.where; startswith(input.event.command.where, "x") }`), Engine: WASM, CacheEntries: -1})
	for i := range tries + 10 {
		if i%2 == 0 {
			e := command("x")
			e.Exchange.Command.Where = false
			if _, err := p.Inspect(context.Background(), e); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.Inspect(context.Background(), command("x")); err == nil {
			t.Fatal("no error")
		}
	}
	if n := p.guest.stumbles.Load(); n != tries {
		t.Errorf("it has stumbled %d times", n)
	}
}

// TestEngineExplains: the tracer and the guest tell the same verdict.
func TestEngineExplains(t *testing.T) {
	p := mustLoad(t, Config{Path: "policy", FS: files("p.rego", head+`deny contains {"rule": "x"} if input.event.command.where`), Engine: WASM})
	x, asked := p.Explain(context.Background(), command("x"))
	if v := ok(t, p, command("x")); !asked || x.Verdict.Deny == nil || v.Deny == nil || *x.Verdict.Deny != *v.Deny {
		t.Errorf("%+v %+v", x.Verdict, v)
	}
}

// TestUnusualModules: a module that is not as OPA's compiler makes it is refused, whatever it is.
func TestUnusualModules(t *testing.T) {
	src := newSource()
	if err := src.module("t.rego", []byte("package t\n\nr if startswith(input, \"a\")\n")); err != nil {
		t.Fatal(err)
	}
	c := newCompiler()
	c.Compile(src.modules)
	module, err := buildGuest(context.Background(), c, src.modules, map[string]string{"q": "data.t.r"}, asRun)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(module); i += 97 {
		if _, err := rewrite(module[:i], asRun); err == nil {
			t.Fatalf("%d bytes are taken", i)
		}
	}
	for i := range 2000 {
		broken := append([]byte(nil), module...)
		broken[i*len(module)/2000] ^= byte(1 + i%255)
		_, _ = rewrite(broken, asRun) // it does not panic
	}
}

// TestGuestGoes: with its policy, so that reloads do not add up.
func TestGuestGoes(t *testing.T) {
	p := guardrails(t, `deny contains {"rule": "x"} if input.event.command.where`)
	ok(t, p, command("x"))
	r := p.guest.runtime
	if r.Module("env") == nil {
		t.Fatal("there is no guest")
	}
	p = nil // nobody has it
	for range 100 {
		runtime.GC()
		if r.Module("env") == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("the guest of a policy that nobody has is still there")
}
