package opa

import (
	"fmt"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// language is what a policy can say besides calling functions. Each rule r_… is asked about each input.
const language = `package t

import data.lib
import data.docs.deep as deep

# complete rules, else, default
r_const := 1
r_undefined := 1 if input.a.no
r_default := x if x := input.a
default r_default := "none"
r_default_false if input.a == 1
default r_default_false := false
r_else := "one" if { input.a == 1 } else := "two" if { input.a == 2 } else := "text" if { is_string(input.a) } else := "other"
r_conflict := 1 if input.a
r_conflict := 2 if input.b
r_same := input.a if input.a
r_same := input.b if input.b
r_conflict_in_not := 1 if { not r_conflict }
r_conflict_in_set contains x if { x := r_conflict }
r_chain := r_else
r_true if input.a
r_false := false if input.a
r_not_false if not r_false

# partial rules
r_set contains x if { some x in input.list }
r_set contains "always"
r_set contains {"a": input.a, "b": [input.b]} if input.a
r_set_of_sets contains {x, 1} if { some x in input.list }
r_set_member if "always" in r_set
r_set_member_of[x] if { some x in input.list; r_set[x] }
r_object[k] := v if { some k, v in input.object }
r_object_conflict[k] := v if { some k, v in input.object }
r_object_conflict[k] := v if { some k in ["x", "y"]; v := input.a }
r_nested.one[x] := y if { some x, y in input.list }
r_nested.two contains x if { some x in input.list }
r_nested_all := data.t.r_nested
r_count := count(r_set)

# functions
f(x) := "one" if x == 1
f(x) := "text" if is_string(x)
f(x) := "many" if is_array(x)
g(1) := "one"
g(2) := "two"
g([x, y]) := x if y
h(x, y) := z if { z := x == y }
h("a", "a") := true
conflicting(x) := 1 if x != null
conflicting(x) := 2 if is_string(x)
r_f := f(input.a)
r_f_not if not f(input.a)
r_f_false if h(input.a, input.b)
r_f_false_not if not h(input.a, input.b)
r_f_all := [y | some x in input.list; y := f(x)]
r_g := g(input.a)
r_g_list := [g(x) | some x in input.list]
r_conflicting := conflicting(input.a)
r_lib := lib.twice(input.a)
r_lib_set := lib.names

# comprehensions, every, some, in
r_array := [x | some x in input.list; x != 1]
r_array_index := [[i, x] | some i, x in input.list]
r_object_comprehension := {k: v | some k, v in input.object}
r_object_comprehension_conflict := {x: i | some i, x in input.list}
r_set_comprehension := {type_name(x) | some x in input.list}
r_every if { every x in input.list { is_number(x) } }
r_every_key if { every k, v in input.object { startswith(k, "k"); v > 0 } }
r_every_fails if { every x in input.list { startswith(x, "a") } }
r_every_of_nothing if { every x in input.nothing { x } }
r_some_undeclared := x if { x := input.list[_]; x > 1 }
r_in if 1 in input.list
r_in_object if 1 in input.object
r_in_key if "k", 1 in input.object
r_not_in if not 1 in input.list
r_in_string if "a" in input.a
r_not_undefined if not input.no.such
r_not_call if not startswith(input.a, "a")
r_not_not := x if { x := [y | some y in input.list; not y == 1; not is_string(y)] }
r_two_loops := {[x, y] | some x in input.list; some y in input.list; x < y}
r_self_join := {x | some i, x in input.list; some j, x2 in input.list; x == x2; i != j}

# references
r_ref := input.object.k
r_ref_var := [input.object[k] | some k in ["k", "l", 1, null]]
r_ref_number := input.list[1]
r_ref_float := [input.list[i] | some i in [0, 1, -1, "0", 5, 0.5, 9223372036854775808, 100000000000000000000]]
r_ref_deep := input.list[0].a[0]
r_ref_input := input
r_ref_document := data.docs.table[input.a]
r_ref_documents := {k | some k; data.docs.table[k].open}
r_ref_deep_import := deep.er
r_ref_mixed := y if { y := data.docs[input.a] }
r_ref_number_key := [data.docs.numbers[k] | some k in [1, "1", 2, 1.5, null, true]]
r_ref_rule := data.lib[input.rule]
r_ref_package := data.lib
r_ref_undefined_package := data.nowhere
r_ref_undefined_document := data.docs.nowhere
r_ref_text_place := [data.docs.deep.er[k] | some k in ["0", "1", 0, 1, "x"]]
r_ref_input_place := data.docs.deep.er[input.b]
r_ref_composite := data.docs.table[input.list]
r_ref_input_text_place := [input.list[k] | some k in ["0", "1", true, null]]
r_member3_float if 0.5, 1 in input.list
r_member3 := [x | some x in input.list; some i in [0, 1, "0"]; i, x in input.list]
r_object_get_place := object.get({"k": input.list}, ["k", input.a], "none")
r_object_get_float := object.get({"k": input.list}, ["k", 0.5], "none")
r_walk_documents := {[k, c] | some k; c := data.docs.table[k].columns[_]}

# with
r_with := x if { x := r_else with input.a as 2 }
r_with_whole := x if { x := r_else with input as {"a": "text"} }
r_with_data := x if { x := lib.size with data.docs.table as {"x": {}} }
r_with_rule := x if { x := r_chain with data.t.r_else as "replaced" }
r_with_not if { not r_true with input.a as false }
r_with_undefined := x if { x := r_else with input.a as input.no }
r_with_twice := [y | some x in input.list; y := r_else with input.a as x]
r_with_deep := x if { x := input.object.k.deep with input.object.k.deep as 3 }
r_with_set := x if { x := r_set with input.list as ["other"] }
r_with_conflict := x if { x := r_conflict with input.b as 1 with input.a as 2 }

# unification and comparison
r_unify := [x, y] if { [x, y] = input.list }
r_unify_object := x if { {"k": x} = input.object }
r_unify_fails if { [1, 2] = input.list }
r_equal if input.a == input.b
r_not_equal if input.a != input.b
r_less if input.a < input.b
r_less_or_equal if input.a <= input.b
r_sorted := sort([input.a, input.b, input.object, input.list])
r_order := [x | some x in input.list; x < input.a]
r_numbers := [1.5 == 1.50, 0.1 == 0.10, 1 == input.a, 100000000000000000000 == input.a, 0 == input.a]
r_number_set := {1, 1.5, 1.50, input.a}
r_number_object := {1: "a"}[input.a]
r_empty := [{} == {}, [] == [], set() == set(), {} == set(), {x | x = 1; false} == set(), {k: 1 | some k in []} == {}]
r_empty_input := [x | some x in input.list; x == {}]
r_compare_composite := [{"a": 1} < {"a": 2}, {"a": 1} < {"b": 0}, {1} < {1, 2}, {2} < {1, 3}, [1] < [1, 0], {"a": {}} == {"a": {}}]
r_ternary := [x | some x in [null, false, true, 1, "a", [], {}, set()]; x > input.a]

# arithmetic
r_plus := input.a + input.b
r_minus := input.a - input.b
r_times := input.a * input.b
r_divide := input.a / input.b
r_rem := input.a % input.b
r_sum := 0.1 + 0.2
r_big := 9223372036854775807 + input.a
r_float := input.a * 1.1
r_set_ops := [{1, 2} & {2, 3}, {1} | {input.a}, {1, input.a} - {1}]

# strings
r_sprintf := sprintf("%v %s %d %q", [input.a, input.b, input.a, input.list])
r_lower := lower(input.a)
r_concat := concat(",", [x | some x in input.list; is_string(x)])
r_concat_set := concat(",", {x | some x in input.list; is_string(x)})
r_contains if contains(input.a, "b")
r_object_get := object.get(input.object, "k", "none")
r_object_get_path := object.get(input.object, ["k", "deep"], "none")
r_json := json.marshal(input)
r_regex if regex.match("^[a-c]+$", input.a)
r_fails_deep := [y | some x in input.list; y := {"x": [startswith(x, "a")]}]
r_fails_in_else := 1 if { startswith(input.a, "a") } else := 2
r_fails_in_default := x if { x := startswith(input.a, "a") }
default r_fails_in_default := "none"
r_fails_behind := 1 if { input.b == 1; startswith(input.a, "a") }
r_fails_first := 1 if { startswith(input.a, "a"); input.b == 1 }
r_early := true if { some x in input.list; startswith(x, "a") }
r_early if { some x in input.list; x == 1 }
r_index if { input.a == "x"; startswith(input.b, "a") }
r_index if { input.a == "y"; startswith(input.b, "a") }
`

const libraryText = `package lib

import data.docs

twice(x) := [x, x]

names contains x if { some x; docs.table[x] }

size := count(docs.table)
`

const documents = `{"docs": {"table": {"a": {"open": true, "columns": ["x", "y"]}, "b": {"open": false, "columns": []}, "c": {"columns": ["x"]}},
	"deep": {"er": [1, {"x": null}]}, "numbers": {"1": "text"}, "abc": "ünï"}}`

var languageInputs = func() (out []string) {
	out = append(out, `{}`, `null`, `[]`, `"text"`, `{"a": 1, "b": 1, "list": [1, 2, 3], "object": {"k": 1}, "rule": "names"}`,
		`{"a": "a", "b": "b", "list": ["a", "b"], "object": {"k": {"deep": [1]}}, "rule": "size"}`,
		`{"a": "abc", "list": ["abc", "a", "b", "ü", "😀", "a"], "object": {"k": 0, "": null}, "nothing": [], "rule": "twice"}`,
		`{"a": false, "b": null, "list": [false, null], "object": {}, "nothing": {}, "rule": "f"}`,
		`{"a": {}, "b": {}, "list": [{}, {"a": [5]}, [], {"a": {}}], "object": {"x": 1, "y": 2}}`,
		`{"a": 1.0, "b": 1, "list": [1, 1.0, 1e0, 2.5, 1e400, 12345678901234567890], "object": {"1": 1, "k1": 2, "k2": 0.5}}`,
		`{"a": 2, "b": 3, "list": [[1, 2], [1, false], {"k": 1}], "object": {"k": {"k": {"k": 1}}}}`,
		`{"a": "x", "b": 1, "list": ["x", 1, null], "object": [1, 2]}`, `{"a": "y", "b": "abc", "list": {"p": 1, "q": "a"}, "object": "k"}`,
		`{"a": [1, 2], "b": [1, 2, 3], "list": "text", "object": {"k": [], "l": {}}}`,
		`{"a": "table", "b": -1, "list": [true, "a", 3, [4], {"five": 5}], "object": {"k": "\u0000\u001f\"\\"}}`)
	for _, o := range operands {
		v, ok := appendValue(nil, o, 0)
		if !ok {
			v = []byte(o.String())
		}
		out = append(out, fmt.Sprintf(`{"a": %s, "b": 1, "list": [%[1]s, 1], "object": {"k": %[1]s}}`, v))
	}
	return out
}()

// languageDuel compiles the rules above.
func languageDuel(t testing.TB) (*duel, []string) {
	t.Helper()
	var names []string
	for line := range strings.Lines(language) {
		if name, _, ok := strings.Cut(strings.TrimPrefix(line, "default "), " "); ok && strings.HasPrefix(name, "r_") {
			name, _, _ = strings.Cut(name, "[")
			name, _, _ = strings.Cut(name, ".")
			if !strings.Contains(strings.Join(names, " ")+" ", name+" ") {
				names = append(names, name)
			}
		}
	}
	names = append(names, "lib.names", "lib")
	d, err := newDuel(t, map[string]string{"t.rego": language, "lib.rego": libraryText}, documents, asRun, names...)
	if err != nil {
		t.Fatal(err)
	}
	return d, names
}

// TestLanguage asks both engines about rules of every kind.
func TestLanguage(t *testing.T) {
	d, names := languageDuel(t)
	left := 0
	for _, name := range names {
		kinds := map[string]bool{}
		for _, text := range languageInputs {
			input, err := ast.ParseTerm(text)
			if err != nil {
				t.Fatal(err)
			}
			topdown, wasm := d.agree(t, name, input.Value)
			kinds[topdown] = true
			if wasm == stumbled && topdown != "error" {
				left++
			}
		}
		constant := map[string]bool{"r_const": true, "r_ref_undefined_package": true, "r_ref_undefined_document": true, "lib": true}
		if len(kinds) < 2 && !constant[name] && !strings.HasPrefix(name, "r_ref") && !strings.HasPrefix(name, "lib") {
			t.Logf("%s is always %v", name, kinds)
		}
	}
	t.Logf("%d questions about %d rules, %d left to topdown, which had no error %d times", d.asked, len(names), d.stumbles, left)
}
