package weir

import (
	"encoding/binary"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// build writes a frame as the host does.
func build(kind uint16, rows, cols, room int, attrs [][2]any, cells ...any) []byte {
	le := binary.LittleEndian
	var a, table, data []byte
	for _, x := range attrs {
		v := x[1].(string)
		a = le.AppendUint16(le.AppendUint16(a, uint16(x[0].(int))), uint16(len(v)))
		a = append(a, v...)
		for len(a)%4 != 0 {
			a = append(a, 0)
		}
	}
	for _, c := range cells {
		table = le.AppendUint32(table, uint32(len(data)))
		if c == nil {
			table = le.AppendUint32(table, nullCell)
			continue
		}
		table = le.AppendUint32(table, uint32(len(c.(string))))
		data = append(data, c.(string)...)
	}
	b := make([]byte, headerLen)
	le.PutUint32(b, magic)
	le.PutUint16(b[4:], headerLen)
	le.PutUint16(b[6:], kind)
	le.PutUint32(b[8:], uint32(headerLen+len(a)+len(table)+len(data)+room))
	b[12] = 1
	le.PutUint64(b[16:], 1<<40|7)
	le.PutUint32(b[32:], uint32(rows))
	le.PutUint16(b[36:], uint16(cols))
	le.PutUint16(b[38:], uint16(len(attrs)))
	at := uint32(headerLen)
	for _, x := range []struct {
		field int
		n     int
	}{{40, len(a)}, {44, len(table)}, {52, len(data)}, {60, room}} {
		le.PutUint32(b[x.field:], at)
		at += uint32(x.n)
	}
	le.PutUint32(b[48:], uint32(len(cells)))
	le.PutUint32(b[56:], uint32(len(data)))
	le.PutUint32(b[64:], uint32(room))
	b = append(append(append(b, a...), table...), data...)
	return append(b, make([]byte, room)...)
}

// ask passes a frame to a plugin and returns the verdict, the aux, and the out part.
func ask(t *testing.T, p Plugin, b []byte) (int32, int, []byte) {
	t.Helper()
	var e Event
	if !e.parse(b) {
		t.Fatal("the frame cannot be read")
	}
	r := uint64(dispatch(&p, &e))
	return int32(uint32(r)), int(r >> 32), e.out
}

func TestCommand(t *testing.T) {
	b := build(2, 1, 3, 100, [][2]any{
		{1, "postgres"},
		{2, "orders"},
		{3, "ada"},
		{4, "g1"},
		{4, "g2"},
		{5, "agent"},
		{6, "client"},
		{7, "execute"},
		{16, "select"},
		{17, "fp"},
		{18, "read"},
		{18, "ddl"},
		{19, "table\x00s.t\x00read,write\x00a,b"},
		{19, "path\x00/x\x00\x00"},
		{20, "1"},
		{21, "known"},
		{99, "later"},
	}, "select 1", "p", nil)
	var got []any
	code, _, _ := ask(t, Plugin{OnCommand: func(e *Event) {
		text, _ := e.Value(0)
		_, ok := e.Value(2)
		_, beyond := e.Value(3)
		got = []any{
			e.Kind, e.Session, e.Protocol(), e.Target(), e.Subject(), e.Groups(), e.IdentityKind(), e.Direction(), e.Stage(), e.Action(), e.Fingerprint(),
			e.Effects(), e.Where(), e.Known(), e.Resources(), string(text), ok, beyond, e.Cells(), e.Editable(),
		}
	}}, b)
	want := []any{
		Command, uint64(1<<40 | 7), "postgres", "orders", "ada",
		[]string{"g1", "g2"},
		"agent", "client", "execute", "select", "fp",
		[]string{"read", "ddl"},
		true, true,
		[]Resource{{"table", "s.t", []string{"read", "write"}, []string{"a", "b"}}, {"path", "/x", nil, nil}},
		"select 1", false, false, 3, true,
	}
	if code != 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("code %d\n%v\n%v", code, got, want)
	}
	code, n, out := ask(t, Plugin{OnCommand: func(e *Event) { e.Deny("r", "why", "what"); e.Hold("x", "y") }}, b)
	if code != codeDeny || string(out[:n]) != "r\x00why\x00what" {
		t.Errorf("%d %q", code, out[:n])
	}
	code, n, out = ask(t, Plugin{OnCommand: func(e *Event) { e.Hold("r", "why", "a", "b") }}, b)
	if code != codeReview || string(out[:n]) != "r\x00why\x00a,b" {
		t.Errorf("%d %q", code, out[:n])
	}
	if code, _, _ := ask(t, Plugin{OnCommand: func(e *Event) { e.Deny(strings.Repeat("x", 200), "", "") }}, b); code != codeMoreRoom {
		t.Errorf("a long denial: %d", code)
	}
	if code, _, _ := ask(t, Plugin{}, b); code != codePass {
		t.Errorf("no handler: %d", code)
	}
}

func TestRows(t *testing.T) {
	column := func(flags byte, s string) [2]any { return [2]any{32, string([]byte{1, flags}) + s} }
	frame := func() []byte {
		return build(3, 2, 2, 40, [][2]any{column(2, "a\x00text\x00s.t\x00x"), column(1, "b\x00int4\x00\x00")}, "one", "1", nil, "")
	}
	code, n, _ := ask(t, Plugin{OnRows: func(r *Rows) {
		if r.Len() != 2 || r.Width() != 2 || r.Column(2) != (ColumnInfo{Name: "a", Type: "text", Class: ClassText, Table: "s.t", Column: "x", Text: true}) || !r.Column(1).Binary {
			t.Errorf("%d by %d, %+v", r.Len(), r.Width(), r.Columns())
		}
		r.Set(0, []byte("two"))
	}}, frame())
	if code != codeModified || n != 1 {
		t.Errorf("in place: %d %d", code, n)
	}
	code, n, out := ask(t, Plugin{OnRows: func(r *Rows) {
		r.Set(3, []byte("xyz"))
		r.SetNull(0)
		r.Set(2, []byte("a"))
		r.Set(3, []byte("last"))
		if v, ok := r.Value(3); !ok || string(v) != "last" {
			t.Errorf("it sees %q", v)
		}
		if _, ok := r.Value(0); ok {
			t.Error("it sees a value where it set NULL")
		}
	}}, frame())
	want := "\x00\x00\x00\x00\xff\xff\xff\xff\x02\x00\x00\x00\x01\x00\x00\x00a\x00\x00\x00\x03\x00\x00\x00\x04\x00\x00\x00last"
	if code != codePatch || string(out[:n]) != want {
		t.Errorf("%d %q\nwant %q", code, out[:n], want)
	}
	if code, _, _ := ask(t, Plugin{OnRows: func(r *Rows) { r.Set(0, make([]byte, 90)) }}, frame()); code != codeMoreRoom {
		t.Errorf("a long patch: %d", code)
	}
}

func TestManifest(t *testing.T) {
	b := manifest(&Plugin{
		Name: "a\"b\n", Version: "1", Mutates: true, OnError: "pass", Clock: true, KV: true, Connection: true, DeadlineMS: 70, MemoryPages: 300, Schema: `{"type":"object"}`, Metrics: []Metric{{ID: 12, Name: "m"}, {ID: 3, Name: "h", Histogram: true}},
		Subscribe: []Subscription{{Kinds: []Kind{RowData, Command}, Columns: []string{"*"}}, {Kinds: []Kind{Open}, Protocols: []string{"p"}}},
	})
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	if got["name"] != "a\"b\n" || len(got["subscribe"].([]any)) != 2 || got["metrics"].([]any)[1].(map[string]any)["kind"] != "histogram" ||
		got["needs"].(map[string]any)["kv"] != true || got["needs"].(map[string]any)["clock"] != true || got["state"] != "connection" || got["deadline_ms"] != 70.0 || got["memory_pages"] != 300.0 {
		t.Errorf("%s", b)
	}
	if b := manifest(&Plugin{}); strings.Contains(string(b), "deadline") || strings.Contains(string(b), "pages") {
		t.Errorf("%s", b)
	}
}

func TestKV(t *testing.T) {
	defer KVRemove("a")
	if _, ok := KVGet("a"); ok {
		t.Error("it is there already")
	}
	if n, ok := KVIncr("a", 5, 0); n != 5 || !ok {
		t.Error(n, ok)
	}
	if n, ok := KVIncr("a", -7, 0); n != -2 || !ok {
		t.Error(n, ok)
	}
	if !KVPut("a", []byte("x"), 0) {
		t.Error("no room")
	}
	if _, ok := KVIncr("a", 1, 0); ok {
		t.Error("it counted in a text")
	}
}

func TestFinding(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct{ what, more, want string }{
		{"table", "t: read", "table\x00t: read"},
		{"", "", "\x00"},
		{"table", long, "table\x00" + long[:250]},
		{long, long, long[:128] + "\x00" + long[:127]},
	} {
		if got := string(finding(nil, c.what, c.more)); got != c.want {
			t.Errorf("%q: %d bytes", got, len(got))
		}
	}
}

func TestParse(t *testing.T) {
	v, err := Parse([]byte(` {"s":"a\"\\\u00e9\ud83d\ude00\n","n":-12,"f":1.5,"b":true,"x":null,"a":["p","q"],"o":{"k":[1]},"e":[]} `))
	if err != nil {
		t.Fatal(err)
	}
	s, _ := v.Get("s").Text()
	n, okN := v.Get("n").Int()
	_, okF := v.Get("f").Int()
	b, _ := v.Get("b").Flag()
	a, _ := v.Get("a").Texts()
	k, _ := v.Get("o").Get("k").Items()
	e, okE := v.Get("e").Texts()
	if s != "a\"\\é😀\n" || n != -12 || !okN || okF || !b || !v.Get("x").Null() || !reflect.DeepEqual(a, []string{"p", "q"}) || len(k) != 1 || !okE || len(e) != 0 || len(v.Names()) != 8 {
		t.Errorf("%+v", v)
	}
	for _, bad := range []string{"", "{", "[1", `{"a"}`, `{"a":1,}x`, "tru", `"a`, `{1:2}`, "[1 2]", `"\x"`, strings.Repeat("[", 100) + strings.Repeat("]", 100), "1 2"} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"a":[1,"x",null,true]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Parse(b); err != nil && json.Valid(b) && strings.Count(string(b), "[")+strings.Count(string(b), "{") < 60 {
			t.Errorf("%q is JSON", b)
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add(build(3, 1, 1, 8, [][2]any{{32, "\x01\x02a\x00b\x00\x00"}}, "x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Event
		if !e.parse(b) {
			return
		}
		for i := range min(e.Cells(), 100) {
			if v, ok := e.Value(i); ok {
				e.Set(i, append(v, 'x'))
			}
		}
		_, _, _ = e.Columns(), e.Resources(), e.answer()
	})
}
