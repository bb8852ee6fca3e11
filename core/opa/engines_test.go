package opa

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/types"
	"github.com/open-policy-agent/opa/v1/util"
)

// duel asks both engines about the rules of some modules.
type duel struct {
	rules     []string
	questions map[string]*question
	guest     *guest
	stumbles  int // questions that the guest has left to topdown
	asked     int
}

const (
	stumbled = "stumbled"
	tooLate  = "too late"
)

// newDuel compiles modules for both. Each rule is one of the package data.t, or a path below data.
func newDuel(t testing.TB, modules map[string]string, data string, how rewriting, rules ...string) (*duel, error) {
	t.Helper()
	ctx := context.Background()
	src := newSource()
	for name, text := range modules {
		if err := src.module(name, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for name, m := range src.tests {
		src.modules[name] = m
	}
	return duelOf(ctx, t, src, data, how, rules...)
}

func duelOf(ctx context.Context, t testing.TB, src *source, data string, how rewriting, rules ...string) (*duel, error) {
	t.Helper()
	if data != "" {
		if err := util.UnmarshalJSON([]byte(data), &src.data); err != nil {
			t.Fatal(err)
		}
	}
	c := newCompiler()
	if c.Compile(src.modules); c.Failed() {
		t.Fatal(explain(c.Errors))
	}
	text, ok := appendDocument(nil, src.data, 0, maxGuestData)
	if !ok {
		t.Fatal("the data cannot be written")
	}
	store := inmem.NewFromObjectWithOpts(src.data, inmem.OptReturnASTValuesOnRead(true), inmem.OptRoundTripOnWrite(false))
	d := &duel{rules: rules, questions: map[string]*question{}}
	entries := map[string]string{}
	for i, r := range rules {
		if !strings.Contains(r, ".") {
			r = "t." + r
		}
		name := fmt.Sprint("q", i)
		q := "[x | x = data." + r + "]"
		entries[name] = q
		parsed, err := ast.ParseBodyWithOpts(string(answerVar)+" = "+q, parserOptions)
		if err != nil {
			t.Fatal(err)
		}
		one := &question{name: name, compiled: c.QueryCompiler(), compiler: c, store: store}
		if one.body, err = one.compiled.Compile(parsed); err != nil {
			t.Fatal(err)
		}
		if one.txn, err = store.NewTransaction(ctx); err != nil {
			t.Fatal(err)
		}
		d.questions[rules[i]] = one
	}
	module, err := buildGuest(ctx, c, src.modules, entries, how)
	if err != nil {
		return nil, err
	}
	if d.guest, err = newGuest(ctx, module, text); err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = d.guest.runtime.Close(ctx) })
	return d, nil
}

// ask returns what both say about a rule: a value, [] for undefined, or an error.
func (d *duel) ask(rule string, input ast.Value) (topdown, wasm string) {
	q := d.questions[rule]
	ctx := context.Background()
	const most = 100 * time.Millisecond
	said := func(v ast.Value, err error) string {
		switch {
		case errors.Is(err, errStumbled):
			return stumbled
		case errors.Is(err, context.DeadlineExceeded):
			return tooLate
		case err != nil:
			return "error"
		}
		return v.String()
	}
	v, err := q.answer(ctx, input, &deadline{ctx: ctx, at: time.Now().Add(most)}, most, nil)
	topdown = said(v, err)
	d.asked++
	d.guest.off.Store(false)
	err = d.guest.ask(ctx, q.name, deadline{ctx: ctx, at: time.Now().Add(most)}, func(b []byte) ([]byte, bool) { return appendValue(b, input, 0) }, func(r *valueReader, at uint32) { v = r.value(at, 0) })
	wasm = said(v, err)
	if wasm == stumbled {
		d.stumbles++
	}
	return topdown, wasm
}

// agree fails when the guest has an answer, and it is another one.
func (d *duel) agree(t *testing.T, rule string, input ast.Value) (topdown, wasm string) {
	t.Helper()
	topdown, wasm = d.ask(rule, input)
	if wasm != stumbled && wasm != topdown && topdown != tooLate {
		t.Errorf("%s about %.300v:\n  topdown %.300s\n  wasm    %.300s", rule, input, topdown, wasm)
	}
	return topdown, wasm
}

var asRun = rewriting{trap: true, count: true}

// operands are values of every kind, as a policy may meet them in an input.
var operands = func() (out []ast.Value) {
	for _, s := range []string{
		`null`, `true`, `false`, `0`, `1`, `-1`, `2`, `3.5`, `1.0`, `-0`, `1e3`, `0.1`, `100000000000000000000000`, `9007199254740993`, `-9223372036854775808`, `9223372036854775808`, `0.1000000000000000000000000000001`, `9007199254740992.5`, `12345678901234567890.5`, `12345678901234567890`,
		`""`, `"a"`, `"abc"`, `"A,b,c"`, `","`, `"abcabc"`, `"ünïcödé ẞ"`, `"İıſKÅ"`, `"😀a"`, `"a\u0000b"`, `"\n\"\\"`, `" x "`, `"10"`, `"-1.50"`, `"[1]"`, `"^a.*"`, `"a*c"`,
		`"2025-01-02T03:04:05Z"`, `"10.0.0.0/30"`, `"10.1.2.3"`, `"%d %s"`, `"%"`, `"-"`, `"1h"`, `"YWJj"`,
		`[]`, `[1,2,3]`, `["a","b"]`, `["abc",1]`, `[[1],[2]]`, `[null,{"a":[]}]`, `[1,1.0,1e0]`, `["b","a","c"]`, `[true,false]`, `[{"a":1},{"a":2}]`,
		`{}`, `{"a":1}`, `{"a":{"b":[1,{"c":2}]}}`, `{"b":1,"a":null}`, `{"":0}`, `{"abc":"abc"}`,
	} {
		t, err := ast.ParseTerm(s)
		if err != nil {
			panic(err)
		}
		out = append(out, t.Value)
	}
	return out
}()

// TestBuiltins asks both engines about every built-in function that a policy may call, with operands of every kind.
func TestBuiltins(t *testing.T) {
	var text strings.Builder
	text.WriteString("package t\n\nset(x) := [x, {v | some v in x}][count([1])]\n\n")
	type rule struct {
		name  string
		arity int
		full  bool
		args  []types.Type // of the operands, where they are not turned into sets
	}
	var rules []rule
	var names []string
	add := func(b *ast.Builtin, name, body string, full bool) {
		fmt.Fprintf(&text, "%s := x if %s\n", name, body)
		rules = append(rules, rule{name, b.Decl.Arity(), full, b.Decl.FuncArgs().Args})
		names = append(names, name)
	}
	for i, b := range capabilities.Builtins {
		n := b.Decl.Arity()
		if !callable(b) {
			continue
		}
		full := trusted[b.Name] != ""
		for variant := range 1 << min(n, 2) {
			var args []string
			for a := range n {
				arg := fmt.Sprintf("input[%d]", a)
				if variant&(1<<a) != 0 {
					arg = "set(" + arg + ")"
				}
				args = append(args, arg)
			}
			call := infix(b, args)
			name := fmt.Sprintf("r%d_%d_%s", i, variant, strings.NewReplacer(".", "_").Replace(b.Name))
			add(b, name, "x := "+call, full && variant == 0)
			if !full || variant > 0 {
				continue
			}
			add(b, name+"_said", "{ "+call+"; x := 1 }", false)
			add(b, name+"_not", "{ not "+call+"; x := 1 }", false)
			add(b, name+"_all", "x := [y | some _ in [1, 2]; y := "+call+"]", false)
			add(b, name+"_every", "{ every _ in [1, 2] { "+call+" }; x := 1 }", false)
			add(b, name+"_object", "x := {k: y | some k in [1]; y := "+call+"}", false)
		}
	}
	d, err := newDuel(t, map[string]string{"t.rego": text.String()}, "", asRun, names...)
	if err != nil {
		t.Fatal(err)
	}
	errs, values, answered := 0, 0, map[string]bool{}
	for _, r := range rules {
		for tuple := range both(right(r.args), tuples(r.arity, r.full)) {
			topdown, wasm := d.agree(t, r.name, ast.NewArray(tuple...))
			switch {
			case topdown == "error":
				errs++
			case topdown != "[]":
				values++
				answered[r.name] = answered[r.name] || wasm == topdown
			}
			if t.Failed() && d.asked > 1000 {
				t.Fatal("and so on")
			}
		}
	}
	t.Logf("%d questions about %d rules: %d values, %d errors; the guest left %d to topdown", d.asked, len(rules), values, errs, d.stumbles)
}

func callable(b *ast.Builtin) bool {
	if b.IsDeprecated() {
		return false // Rego v1 refuses it
	}
	return hosted(b.Name) && b.Decl.Arity() <= 4 && b.Decl.Result() != nil && !b.Relation || trusted[b.Name] != ""
}

func infix(b *ast.Builtin, args []string) string {
	switch {
	case b.Name == "internal.member_2":
		return "(" + args[0] + " in " + args[1] + ")"
	case b.Name == "internal.member_3":
		return "(" + args[0] + ", " + args[1] + " in " + args[2] + ")"
	case b.Infix != "":
		return "(" + args[0] + " " + b.Infix + " " + args[1] + ")"
	}
	return b.Name + "(" + strings.Join(args, ", ") + ")"
}

func both[T any](a, b iter.Seq[T]) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, list := range []iter.Seq[T]{a, b} {
			for x := range list {
				if !yield(x) {
					return
				}
			}
		}
	}
}

// right are operands of the types that a function declares, at most fifty.
func right(args []types.Type) iter.Seq[[]*ast.Term] {
	return func(yield func([]*ast.Term) bool) {
		lists, total := make([][]ast.Value, len(args)), 1
		for i, t := range args {
			for _, v := range operands {
				if fits(v, t) {
					lists[i] = append(lists[i], v)
				}
			}
			total *= len(lists[i])
		}
		for i := 0; i < total; i += 1 + total/50 {
			terms := make([]*ast.Term, len(args))
			for a, at := 0, i; a < len(args); a, at = a+1, at/len(lists[a]) {
				terms[a] = ast.NewTerm(lists[a][at%len(lists[a])])
			}
			if !yield(terms) {
				return
			}
		}
	}
}

// fits reports whether a value is of a type. An array stands for a set as well: some rules turn it into one.
func fits(v ast.Value, t types.Type) bool {
	switch t := t.(type) {
	case types.Any:
		return len(t) == 0 || slices.ContainsFunc(t, func(t types.Type) bool { return fits(v, t) })
	case *types.NamedType:
		return fits(v, t.Type)
	case types.Null, *types.Null:
		return v.Compare(ast.NullValue) == 0
	case types.Boolean, *types.Boolean:
		_, ok := v.(ast.Boolean)
		return ok
	case types.Number, *types.Number:
		_, ok := v.(ast.Number)
		return ok
	case types.String, *types.String:
		_, ok := v.(ast.String)
		return ok
	case *types.Array:
		list, ok := v.(*ast.Array)
		return ok && (t.Dynamic() == nil || !list.Until(func(e *ast.Term) bool { return !fits(e.Value, t.Dynamic()) }))
	case *types.Set:
		list, ok := v.(*ast.Array)
		return ok && (t.Of() == nil || !list.Until(func(e *ast.Term) bool { return !fits(e.Value, t.Of()) }))
	case *types.Object:
		_, ok := v.(ast.Object)
		return ok
	}
	return false
}

// tuples are operands for a function: all of two when full is set, otherwise some of them.
func tuples(arity int, full bool) iter.Seq[[]*ast.Term] {
	return func(yield func([]*ast.Term) bool) {
		n := len(operands)
		step := 1
		switch {
		case arity == 0:
			yield(nil)
			return
		case arity == 2 && full:
			step = 3
		case arity == 2:
			step = 101
		case arity == 3 && full:
			step = 331
		case arity >= 3:
			step = 7919
		}
		total := 1
		for range arity {
			total *= n
		}
		if arity == 4 {
			step = 400_009
		}
		for i := 0; i < total; i += step {
			terms := make([]*ast.Term, arity)
			for a, at := 0, i; a < arity; a, at = a+1, at/n {
				terms[a] = ast.NewTerm(operands[at%n])
			}
			if !yield(terms) {
				return
			}
		}
	}
}

// TestText asks both engines about every character there is.
func TestText(t *testing.T) {
	const rego = `package t
r_lower := lower(input.text)
r_upper := upper(input.text)
r_count := count(input.text)
r_split := split(input.text, "")
r_parts := split(input.text, input.one)
r_trim := [trim_prefix(input.text, input.one), trim_suffix(input.text, input.one)]
r_found := [contains(input.text, input.one), startswith(input.text, input.one), endswith(input.text, input.one)]
r_less := {x | some x in split(input.text, ""); x < input.one}
`
	rules := []string{"r_lower", "r_upper", "r_count", "r_split", "r_parts", "r_trim", "r_found"}
	d, err := newDuel(t, map[string]string{"t.rego": rego}, "", asRun, append(rules, "r_less")...)
	if err != nil {
		t.Fatal(err)
	}
	const chunk = 2048
	for first := rune(0); first <= unicode.MaxRune; first += chunk {
		var b strings.Builder
		for r := first; r < first+chunk; r++ {
			if utf8.ValidRune(r) {
				b.WriteRune(r)
			}
		}
		if b.Len() == 0 {
			continue
		}
		one, _ := utf8.DecodeRuneInString(b.String()[b.Len()/2&^3:])
		for _, rule := range rules {
			if _, wasm := d.agree(t, rule, ast.NewObject(ast.Item(ast.StringTerm("text"), ast.StringTerm(b.String())), ast.Item(ast.StringTerm("one"), ast.StringTerm(string(one))))); wasm == stumbled {
				t.Errorf("%s has no answer from %x", rule, first)
			}
		}
	}
	d.agree(t, "r_less", ast.MustParseTerm(`{"text": "aZ~ü\uffff😀\u0001", "one": "ü"}`).Value)
}

// FuzzEngines asks both engines about any input.
func FuzzEngines(f *testing.F) {
	for _, text := range languageInputs {
		f.Add(text, uint8(0))
	}
	d, names := languageDuel(f)
	f.Fuzz(func(t *testing.T, text string, which uint8) {
		var v any
		if util.UnmarshalJSON([]byte(text), &v) != nil {
			return
		}
		input, err := ast.InterfaceToValue(v)
		if err != nil {
			return
		}
		d.agree(t, names[int(which)%len(names)], input)
	})
}
