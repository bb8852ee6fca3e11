package postgres

import (
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core"
)

// TestHide holds what a client is told of a failure against what it said itself.
func TestHide(t *testing.T) {
	const secret = "canary@example.com"
	type f struct{ typ, value string }
	for _, c := range []struct {
		name  string
		text  string // of the command
		param string
		in    []f
		want  []f
	}{
		{
			"a cast", "select email::int from customers", "",
			[]f{{"C", "22P02"}, {"M", `invalid input syntax for type integer: "` + secret + `"`}},
			[]f{{"C", "22P02"}, {"M", `invalid input syntax for type integer: "(hidden)"`}},
		},
		{
			"a cast of what the client said", "select 'abc'::int", "",
			[]f{{"C", "22P02"}, {"M", `invalid input syntax for type integer: "abc"`}},
			[]f{{"C", "22P02"}, {"M", `invalid input syntax for type integer: "abc"`}},
		},
		{
			"a parameter", "select $1::int", "12 apples",
			[]f{{"M", `invalid input syntax for type integer: "12 apples"`}},
			[]f{{"M", `invalid input syntax for type integer: "12 apples"`}},
		},
		{
			"a part of a word is not said", "select m.gender::int from members m", "",
			[]f{{"M", `invalid input syntax for type integer: "ender"`}},
			[]f{{"M", `invalid input syntax for type integer: "(hidden)"`}},
		},
		{
			"quotes in the value", `select ('" ' || email || ' "')::int from customers`, "",
			[]f{{"M", `invalid input syntax for type integer: "" ` + secret + ` ""`}},
			[]f{{"M", `invalid input syntax for type integer: "(hidden)"`}},
		},
		{
			"known words around the value", `select ('from" ' || email || ' "select')::int from customers`, "",
			[]f{{"M", `invalid input syntax for type integer: "from" ` + secret + ` "select"`}},
			[]f{{"M", `invalid input syntax for type integer: "(hidden)"`}},
		},
		{
			"one quotation mark", "select f()", "",
			[]f{{"M", `something about "` + secret}},
			[]f{{"M", `something about (hidden)`}},
		},
		{
			"a name that is not there", "select nosuch from customers", "",
			[]f{{"M", `column "nosuch" does not exist`}, {"P", "8"}},
			[]f{{"M", `column "nosuch" does not exist`}, {"P", "8"}},
		},
		{
			"a value as a name", "select email::regclass from customers", "",
			[]f{{"C", "42P01"}, {"M", `relation "` + secret + `" does not exist`}},
			[]f{{"C", "42P01"}, {"M", `relation "(hidden)" does not exist`}},
		},
		{
			"a row", "update customers set note = 'x'", "",
			[]f{{"M", `new row for relation "customers" violates check constraint "customers_note_check"`}, {"D", "Failing row contains (1, " + secret + ", x)."}, {"n", "customers_note_check"}, {"t", "customers"}},
			[]f{{"M", `new row for relation "customers" violates check constraint "customers_note_check"`}, {"D", "Failing row contains (hidden)."}, {"n", "customers_note_check"}, {"t", "customers"}},
		},
		{
			"a key of somebody else", "update customers set email = lower(email)", "",
			[]f{{"D", "Key (email)=(" + secret + ") already exists."}},
			[]f{{"D", "Key (email)=(hidden) already exists."}},
		},
		{
			"a key that the client gave", "insert into customers (id, email) values (1, 'me@x.org')", "",
			[]f{{"D", "Key (email)=(me@x.org) already exists."}},
			[]f{{"D", "Key (email)=(me@x.org) already exists."}},
		},
		{
			"a key that looks like the server's words", "update customers set email = lower(email)", "",
			[]f{{"D", `Key (email)=(a) is not present in table "` + secret + `".) already exists.`}},
			[]f{{"D", "Key (email)=(hidden) already exists."}},
		},
		{"any other detail", "select 1", "", []f{{"M", "m"}, {"D", "Token " + secret + " is invalid."}}, []f{{"M", "m"}}},
		{"a context", "select email::json from customers", "", []f{{"M", "invalid input syntax for type json"}, {"W", "JSON data, line 1: " + secret}}, []f{{"M", "invalid input syntax for type json"}}},
		{
			"a function's own words", "select f()", "",
			[]f{{"C", "P0001"}, {"M", "hello " + secret}, {"H", secret}, {"F", "pl_exec.c"}, {"R", "exec_stmt_raise"}},
			[]f{{"C", "P0001"}, {"M", "the message of a function is hidden: it may hold a masked value"}, {"F", "pl_exec.c"}, {"R", "exec_stmt_raise"}},
		},
		{"a number", "select chr(salary) from staff", "", []f{{"M", "requested character too large for encoding: 4711"}}, []f{{"M", "requested character too large for encoding: (hidden)"}}},
		{"a number that the client said", "select chr(4711000)", "", []f{{"M", "requested character too large for encoding: 4711000"}}, []f{{"M", "requested character too large for encoding: 4711000"}}},
		{"a size", "insert into t values ('x')", "", []f{{"M", "value too long for type character varying(40)"}}, []f{{"M", "value too long for type character varying(40)"}}},
		{"the protocol's own", "select $1", "", []f{{"C", "08P01"}, {"M", `bind message supplies 2 parameters, but prepared statement "x" requires 1`}}, []f{{"C", "08P01"}, {"M", `bind message supplies 2 parameters, but prepared statement "x" requires 1`}}},
		{"nothing to hide", "select 1/0", "", []f{{"S", "ERROR"}, {"C", "22012"}, {"M", "division by zero"}}, []f{{"S", "ERROR"}, {"C", "22012"}, {"M", "division by zero"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			command := &core.Command{Text: c.text}
			if strings.Contains(c.text, "customers") {
				command.Resources = []core.Resource{{Kind: "table", Name: "public.customers", Columns: []string{"id", "email", "note"}}}
			}
			head := reply{kind: 'Q', exchange: &core.Exchange{Command: command}}
			if c.param != "" {
				head.portal = &portal{params: []core.Param{{Value: []byte(c.param)}}}
			}
			build := func(list []f) []byte {
				b, at := beginFrame(nil, 'E')
				for _, x := range list {
					b = append(append(append(b, x.typ...), x.value...), 0)
				}
				return endFrame(append(b, 0), at)
			}
			in := build(c.in)
			got, body := hide(in, in[headerSize:], head)
			if want := build(c.want); string(got) != string(want) || string(body) != string(want[headerSize:]) {
				t.Errorf("%q\nnot %q", got, want)
			}
		})
	}
}

// FuzzHide: whatever a value is, and whatever an agent wraps it in, the value does not get through.
func FuzzHide(f *testing.F) {
	for _, s := range []string{"", `"`, `" of relation "`, ") already exists.", "canary", `"" `, "1"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret = "Zq7canary"
		if strings.Contains(before+after, "\x00") || strings.Contains(strings.ToLower(before+after), strings.ToLower(secret)) {
			return
		}
		value := before + secret + after
		head := reply{exchange: &core.Exchange{Command: &core.Command{Text: "select '" + before + "' || x || '" + after + "' from t"}}}
		for _, m := range []f2{
			{'M', `invalid input syntax for type integer: "` + value + `"`},
			{'D', "Key (x)=(" + value + ") already exists."},
			{'D', "Failing row contains (" + value + ")."},
			{'H', `Perhaps "` + value + `".`},
			{'W', value},
			{'D', value},
		} {
			b, at := beginFrame(nil, 'E')
			b = append(append(append(b, m.typ), m.value...), 0)
			in := endFrame(append(b, 0), at)
			out, _ := hide(in, in[headerSize:], head)
			if strings.Contains(string(out), secret) {
				t.Fatalf("%c %q became %q", m.typ, m.value, out)
			}
		}
	})
}

type f2 struct {
	typ   byte
	value string
}
