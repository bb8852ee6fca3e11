package mask

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/weir-gateway/weir/core"
	"pgregory.net/rapid"
)

var testKey = NewKey([]byte("a key of the tests"))

const null = "\x00NULL"

func apply(t testing.TB, with, typ, value string, binary bool, kv ...string) string {
	t.Helper()
	m := core.Mask{Column: "c", With: with}
	for i := 0; i < len(kv); i += 2 {
		if m.Args == nil {
			m.Args = map[string]string{}
		}
		m.Args[kv[i]] = kv[i+1]
	}
	f, err := Compile(m, core.Column{Name: "c", Type: typ, Binary: binary}, WithKey(testKey))
	if err != nil {
		t.Fatal(err)
	}
	in := []byte(value)
	out, ok := f([]byte("before"), in)
	if string(in) != value {
		t.Fatalf("%s changed its input", with)
	}
	if !ok {
		return null
	}
	if !bytes.HasPrefix(out, []byte("before")) {
		t.Fatalf("%s did not append", with)
	}
	return string(out[len("before"):])
}

func TestTransforms(t *testing.T) {
	for _, c := range []struct {
		with, typ, value, want string
		args                   []string
	}{
		{"redact", "text", "secret", "****", nil},
		{"redact", "text", "secret", "[gone]", []string{"text", "[gone]"}},
		{"redact", "int4", "42", null, nil},
		{"redact", "jsonb", `{"a":1}`, `"****"`, nil},
		{"redact", "uuid", "x", null, nil},
		{"redact", "date", "2020-01-01", null, nil},
		{"redact", "bool", "t", null, nil},
		{"redact", "_text", "{a}", null, nil},
		{"redact", "my_enum", "happy", "****", nil},
		{"partial", "text", "ada@example.com", "a**@example.com", nil},
		{"partial", "text", "a@example.com", "*@example.com", nil},
		{"partial", "text", "Ünal@exämple.com", "Ü***@exämple.com", nil},
		{"partial", "text", "4111 1111 1111 1111", "**** **** **** 1111", nil},
		{"partial", "text", "4111111111111111", "************1111", nil},
		{"partial", "text", "4111111111111112", "4***************", nil},
		{"partial", "text", "日本語", "日**", nil},
		{"partial", "text", "x", "*", nil},
		{"partial", "text", "", "", nil},
		{"partial", "text", "abcdef", "ab**ef", []string{"first", "2", "last", "2"}},
		{"partial", "text", "abcd", "****", []string{"first", "2", "last", "2"}},
		{"partial", "text", "abcd", "•••d", []string{"last", "1", "char", "•"}},
		{"partial", "text", "a\xff\xfeb", "a***", nil},
		{"partial", "int8", "123456", "000000", nil},
		{"partial", "int8", "-123456", "-000056", []string{"last", "2"}},
		{"partial", "numeric", "12.50", "00.00", nil},
		{"partial", "float8", "1e5", null, nil},
		{"partial", "float8", "NaN", null, nil},
		{"partial", "date", "2020-01-01", null, nil},
		{"partial", "json", "{}", `"****"`, nil},
		{"null", "text", "x", null, nil},
		{"fixed", "text", "x", "hi", []string{"value", "hi"}},
		{"fixed", "int4", "5", "0", []string{"value", "0"}},
		{"fixed", "int4", "5", null, []string{"value", "zero"}},
		{"fixed", "int4", "5", null, []string{"value", "0x10"}},
		{"fixed", "bool", "t", "f", []string{"value", "f"}},
		{"fixed", "date", "2020-02-02", "1970-01-01", []string{"value", "1970-01-01"}},
		{"fixed", "date", "2020-02-02", null, []string{"value", "yesterday"}},
		{"fixed", "uuid", "x", "00000000-0000-0000-0000-000000000000", []string{"value", "00000000-0000-0000-0000-000000000000"}},
		{"fixed", "json", "x", `"a\"b"`, []string{"value", `a"b`}},
		{"hash", "int4", "5", null, nil},
		{"tokenise", "date", "2020-01-01", null, nil},
	} {
		if got := apply(t, c.with, c.typ, c.value, false, c.args...); got != c.want {
			t.Errorf("%s %s %q %v = %q, want %q", c.with, c.typ, c.value, c.args, got, c.want)
		}
	}
}

func TestBinary(t *testing.T) {
	for typ, text := range map[string]bool{
		"text": true, "varchar": true, "bpchar": true, "name": true, "json": true, "xml": true, "citext": true,
		"jsonb": false, "int4": false, "uuid": false, "my_type": false, "_text": false, "bytea": false,
	} {
		got := apply(t, "redact", typ, "value", true)
		if (got != null) != text {
			t.Errorf("redact of a binary %s = %q", typ, got)
		}
	}
}

func TestRefusesWhatItDoesNotKnow(t *testing.T) {
	for _, c := range []struct {
		mask core.Mask
		want string
	}{
		{core.Mask{With: "shuffle", Column: "email"}, "fixed, hash, null, partial, redact, tokenise"},
		{core.Mask{With: "hash", Args: map[string]string{"len": "4"}}, "it takes length"},
		{core.Mask{With: "hash", Args: map[string]string{"length": "4"}}, "from 8 to 64"},
		{core.Mask{With: "partial", Args: map[string]string{"first": "-1"}}, "from 0 to 64"},
		{core.Mask{With: "partial", Args: map[string]string{"char": "**"}}, "one character"},
		{core.Mask{With: "fixed"}, "value is missing"},
		{core.Mask{With: "fixed", Args: map[string]string{"value": strings.Repeat("x", 257)}}, "256"},
		{core.Mask{With: "null", Args: map[string]string{"x": ""}}, "it takes none"},
	} {
		err := Check(c.mask)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.mask, err, c.want)
		}
	}
	if err := Check(core.Mask{With: "tokenize"}); err != nil {
		t.Error(err)
	}
}

func TestProperties(t *testing.T) {
	texts := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z]{1,8}@[a-z]{1,8}\.[a-z]{2,3}`), rapid.StringMatching(`[0-9]{13,19}`),
		rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) }))
	rapid.Check(t, func(rt *rapid.T) {
		v := texts.Draw(rt, "value")
		p := apply(t, "partial", "text", v, false)
		if utf8.RuneCountInString(p) != utf8.RuneCountInString(v) || len(p) > len(v) {
			rt.Fatalf("partial(%q) = %q has another length", v, p)
		}
		if again := apply(t, "partial", "text", p, false); again != p {
			rt.Fatalf("partial(%q) = %q, and again %q", v, p, again)
		}
		shown := 0 // characters of the value at their place, without what partial promises to show
		if emailAt([]byte(v)) < 0 && !isCard([]byte(v), []byte("*")) {
			a, b := []rune(v), []rune(p)
			for i := range b {
				if b[i] != '*' && i < len(a) {
					shown++
				}
			}
			if shown > 1 {
				rt.Fatalf("partial(%q) = %q shows %d characters", v, p, shown)
			}
		}
		h := apply(t, "hash", "text", v, false)
		if len(h) != 16 || h != apply(t, "hash", "text", v, false) {
			rt.Fatalf("hash(%q) = %q", v, h)
		}
		tok := apply(t, "tokenise", "text", v, false)
		if len(tok) > len(v) || utf8.RuneCountInString(tok) != utf8.RuneCountInString(v) || tok != apply(t, "tokenise", "text", v, false) {
			rt.Fatalf("tokenise(%q) = %q", v, tok)
		}
		if tok == v && strings.ContainsFunc(v, func(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' }) {
			rt.Fatalf("tokenise(%q) is the value", v)
		}
		if r := apply(t, "redact", "text", v, false); r != "****" {
			rt.Fatalf("redact(%q) = %q", v, r)
		}
		for _, with := range []string{"redact", "partial", "hash", "tokenise"} {
			if j := apply(t, with, "jsonb", v, false); !json.Valid([]byte(j)) {
				rt.Fatalf("%s of json %q = %q", with, v, j)
			}
		}
		if u := apply(t, "hash", "uuid", v, false); !isUUID(u) {
			rt.Fatalf("hash of uuid = %q", u)
		}
		n := rapid.Int32().Draw(rt, "number")
		for _, with := range []string{"partial", "tokenise"} {
			s := apply(t, with, "int4", strconv.Itoa(int(n)), false)
			x, err := strconv.ParseInt(s, 10, 64)
			if err != nil || x > math.MaxInt32 || x < math.MinInt32 {
				rt.Fatalf("%s of %d = %q: %v", with, n, s, err)
			}
		}
	})
}

func TestKeys(t *testing.T) {
	other := NewKey([]byte("another"))
	m := core.Mask{With: "hash"}
	a, _ := Compile(m, core.Column{Type: "text"}, WithKey(testKey))
	b, _ := Compile(m, core.Column{Type: "text"}, WithKey(other))
	c, _ := Compile(m, core.Column{Type: "text"})
	x, _ := a(nil, []byte("v"))
	y, _ := b(nil, []byte("v"))
	z, _ := c(nil, []byte("v"))
	if string(x) == string(y) || string(x) == string(z) {
		t.Error("the key does not matter")
	}
	if s := other.String(); strings.Contains(s, "another") {
		t.Error(s)
	}
}

var racing bool

func TestAllocations(t *testing.T) {
	if racing {
		t.Skip("the race detector is on")
	}
	value, buf := []byte("ada@example.com"), make([]byte, 0, 64)
	for _, with := range []string{"redact", "partial", "hash", "tokenise"} {
		f, err := Compile(core.Mask{With: with}, core.Column{Type: "text"})
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(500, func() { f(buf, value) }); n > 0.1 {
			t.Errorf("%s allocates %v times", with, n)
		}
	}
}

func BenchmarkMask(b *testing.B) {
	value, buf := []byte("ada.lovelace@example.com"), make([]byte, 0, 64)
	for _, with := range Names() {
		m := core.Mask{With: with}
		if with == "fixed" {
			m.Args = map[string]string{"value": "x"}
		}
		f, err := Compile(m, core.Column{Type: "text"})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(with, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f(buf, value)
			}
		})
	}
}

func FuzzMask(f *testing.F) {
	for _, s := range []string{"", "ada@example.com", "4111111111111111", "\xff", "12.5"} {
		f.Add(s, "text", uint8(0))
	}
	names := Names()
	f.Fuzz(func(t *testing.T, v, typ string, which uint8) {
		with := names[int(which)%len(names)]
		var kv []string
		if with == "fixed" {
			kv = []string{"value", "1"}
		}
		out := apply(t, with, typ, v, false, kv...)
		if out != null && len(out) > max(len(v), 64) {
			t.Errorf("%s of %q grew to %d bytes", with, v, len(out))
		}
	})
}
