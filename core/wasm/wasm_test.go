package wasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tetratelabs/wazero"
	"go.uber.org/goleak"

	"github.com/weir-gateway/weir/core"
)

var guestModule []byte

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "weir-guest")
	if err != nil {
		panic(err)
	}
	file := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, "./testdata/guest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "the guest does not build: %v\n%s", err, out)
		os.Exit(1)
	}
	if guestModule, err = os.ReadFile(file); err != nil {
		panic(err)
	}
	cacheDir = filepath.Join(dir, "cache")
	code := m.Run()
	_ = os.RemoveAll(dir)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

var cacheDir string

func newHost(t testing.TB) *Host {
	t.Helper()
	h, err := Open(context.Background(), HostConfig{CacheDir: cacheDir, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close(context.Background()) })
	return h
}

func load(t testing.TB, c Config) *Plugin {
	t.Helper()
	if c.Name == "" {
		c.Name = "test"
	}
	p, err := newHost(t).Load(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := p.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return p
}

func guest(t testing.TB, mode string) *Plugin {
	return load(t, Config{Module: guestModule, Config: map[string]any{"mode": mode}, noSelfTest: true})
}

var session = &core.Session{
	ID: "01", Protocol: "postgres", Target: &core.Target{Name: "orders"},
	Identity: core.Identity{Subject: "ada", Groups: []string{"g"}, Kind: "agent"},
}

func event(k core.Kind) *core.Event {
	return &core.Event{Kind: k, Direction: core.FromClient, Session: session, Exchange: &core.Exchange{Command: &core.Command{
		Action: "select", Text: "select 1", Effects: []core.Effect{"read"}, Status: core.StatusKnown,
		Resources: []core.Resource{{Kind: "table", Name: "s.t", Use: []string{"read"}}},
	}}}
}

const null = "\x00"

func batch(columns []core.Column, rows ...[]string) *core.Batch {
	b := &core.Batch{Columns: columns, Rows: len(rows)}
	for i := range columns {
		b.Watch = append(b.Watch, i)
	}
	for _, r := range rows {
		for _, s := range r {
			b.Data = append(b.Data, "....."...)
			if s == null {
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
			v = []byte(null)
		}
		out = append(out, string(v))
	}
	return out
}

func rowsEvent(b *core.Batch) *core.Event {
	e := event(core.KindRows)
	e.Direction, e.Rows = core.FromUpstream, b
	return e
}

func ask(t testing.TB, p *Plugin, e *core.Event) core.Verdict {
	t.Helper()
	v, err := p.Inspect(context.Background(), e)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

var threeColumns = []core.Column{{Name: "a", Type: "text"}, {Name: "n", Type: "int4"}, {Name: "gone", Type: "varchar"}}

func TestCommand(t *testing.T) {
	p := guest(t, "tell")
	e := event(core.KindCommand)
	e.Params = []core.Param{{Value: []byte("p1")}, {}}
	v := ask(t, p, e)
	if v.Deny == nil || v.Deny.Reason != "postgres|orders|ada|select|select 1|s.t|read|read|p1|null" {
		t.Errorf("%+v", v.Deny)
	}
	e = event(core.KindColumns)
	e.Columns = []core.Column{{Name: "a", Type: "text", Origin: &core.Origin{Table: "s.t", Column: "x"}}, {Name: "b", Type: "int4"}}
	if v := ask(t, p, e); v.Deny == nil || v.Deny.Reason != "a:text:s.t;b:int4:;" {
		t.Errorf("%+v", v.Deny)
	}
	if v := ask(t, guest(t, "deny"), event(core.KindCommand)); v.Deny == nil || *v.Deny != (core.Denial{Rule: "no", Reason: "because", Hint: "instead"}) {
		t.Errorf("%+v", v.Deny)
	}
	if v := ask(t, guest(t, "hold"), event(core.KindCommand)); v.Hold == nil || v.Hold.Rule != "wait" || fmt.Sprint(v.Hold.Approvers) != "[dba lead]" {
		t.Errorf("%+v", v.Hold)
	}
	if v := ask(t, guest(t, ""), event(core.KindCommand)); v.Deny != nil || v.Hold != nil || v.Changed {
		t.Errorf("%+v", v)
	}
}

func TestRows(t *testing.T) {
	in := [][]string{{"one", "1", "x"}, {null, "2", null}, {"", "3", "thrée"}}
	for mode, want := range map[string][]string{
		"":      {"one", "1", "x", null, "2", null, "", "3", "thrée"},
		"upper": {"ONE", "1", "X", null, "2", null, "", "3", "THRéE"},
		"patch": {"<a>one", "1", null, "was null", "2", "was null", "<a>", "3", null},
	} {
		p := guest(t, mode)
		for range 3 {
			b := batch(threeColumns, in...)
			if mode == "upper" { // bytes.ToUpper of é changes it: keep to ASCII there
				b = batch(threeColumns, []string{"one", "1", "x"}, []string{null, "2", null}, []string{"", "3", "three"})
				want[8] = "THREE"
			}
			v := ask(t, p, rowsEvent(b))
			if got := values(b); !slices.Equal(got, want) {
				t.Errorf("%s: %q\nwant %q", mode, got, want)
			}
			if v.Changed != (mode != "") || bytes.Count(b.Data, []byte(".....")) != len(b.Cells) {
				t.Errorf("%s: changed %v, data %q", mode, v.Changed, b.Data)
			}
			if found := fmt.Sprint(v.Decisions); mode == "upper" && found != "[{ finding UPPER rows}]" {
				t.Errorf("findings %s", found)
			}
		}
	}
	if v := ask(t, guest(t, "deny"), rowsEvent(batch(threeColumns, in...))); v.Deny == nil {
		t.Error("passed")
	}
	// After another step's patch, the guest sees the patched value.
	b := batch(threeColumns, []string{"one", "1", "x"})
	b.Set(0, []byte("longer than before"))
	ask(t, guest(t, "upper"), rowsEvent(b))
	if got := values(b); !slices.Equal(got, []string{"LONGER THAN BEFORE", "1", "X"}) {
		t.Errorf("%q", got)
	}
}

// TestNarrowed: the operator's columns narrow what a guest sees, by where the values come from and not by what they are
// called.
func TestNarrowed(t *testing.T) {
	columns := []core.Column{
		{Name: "note", Type: "text", Origin: &core.Origin{Table: "s.people", Column: "note"}},
		{Name: "alias", Type: "text", Origin: &core.Origin{Table: "s.people", Column: "email"}},
		{Name: "lower", Type: "text", Lineage: []core.Origin{{Table: "s.people", Column: "email"}}},
		{Name: "anything", Type: "text", Lineage: []core.Origin{{Table: "*", Column: "*"}}},
		{Name: "email", Type: "text", Origin: &core.Origin{Table: "s.others", Column: "email"}},
	}
	for _, c := range []struct {
		only []string
		want string
	}{
		{nil, "N A L X E"},
		{[]string{"people.email"}, "n A L X e"},
		{[]string{"S.People.Email"}, "n A L X e"},
		{[]string{"email"}, "n A L X E"},
		{[]string{"note", "others.email"}, "N a l X E"},
		{[]string{"t.none"}, "n a l X e"},
	} {
		p := load(t, Config{Module: guestModule, Config: map[string]any{"mode": "upper"}, Columns: c.only})
		b := batch(columns, []string{"n", "a", "l", "x", "e"})
		ask(t, p, rowsEvent(b))
		if got := strings.Join(values(b), " "); got != c.want {
			t.Errorf("%q: it has seen %q, not %q", c.only, got, c.want)
		}
	}
	commands := strings.Replace(handManifest, `["command","rows"],"columns":["*"]`, `["command"]`, 1)
	_, err := newHost(t).Load(t.Context(), Config{Name: "x", Module: hand(result(0, 0), func(m *module) {
		m.data = []byte(commands)
		m.funcs[1].code = i64const(1024<<32 | int64(len(commands)))
	}), Columns: []string{"email"}})
	if err == nil || !strings.Contains(err.Error(), "columns would do nothing") {
		t.Errorf("a guest that sees no columns: %v", err)
	}
}

// TestBatchSizes: what does not fit into one frame goes in several, and the answers into the right cells.
func TestBatchSizes(t *testing.T) {
	patient := Limits{Command: 10 * time.Second, Rows: 10 * time.Second} // a busy machine or the race detector must not decide
	p := load(t, Config{Module: guestModule, Config: map[string]any{"mode": "upper"}, Limits: patient})
	long := load(t, Config{Module: guestModule, Config: map[string]any{"mode": "long"}, Limits: patient})
	for _, n := range []int{1, 2, 500, 5000, 9000} {
		for _, size := range []int{0, 1, 40, 3000} {
			if n*size > 10<<20 {
				continue
			}
			var rows, want [][]string
			for i := range n {
				s := fmt.Sprintf("r%d%s", i, strings.Repeat("x", size))
				rows = append(rows, []string{s, "7", "c"})
				want = append(want, []string{strings.ToUpper(s), "7", "C"})
			}
			b := batch(threeColumns, rows...)
			ask(t, p, rowsEvent(b))
			if got := values(b); !slices.Equal(got, slices.Concat(want...)) {
				t.Errorf("%d rows of %d bytes: wrong cells", n, size)
			}
		}
	}
	big := batch(threeColumns, []string{strings.Repeat("a", 3<<20), "1", "x"}, []string{"b", "2", "y"})
	ask(t, p, rowsEvent(big))
	if v := values(big); v[0] != strings.Repeat("A", 3<<20) || v[3] != "B" || v[5] != "Y" {
		t.Error("a large value")
	}
	if _, err := p.Inspect(context.Background(), rowsEvent(batch(threeColumns, []string{strings.Repeat("a", 9<<20), "1", "x"}))); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a value beyond the limit: %v", err)
	}
	b := batch(threeColumns, slices.Repeat([][]string{{"s", "1", null}}, 300)...)
	ask(t, long, rowsEvent(b)) // 600 KB of patches for a room of 16 KiB
	for i, v := range values(b) {
		if i%3 != 1 && len(v) != 1000 {
			t.Fatalf("cell %d has %d bytes", i, len(v))
		}
	}
}

func TestTexts(t *testing.T) {
	p := guest(t, "")
	e := event(core.KindResult)
	e.Result = &core.Result{Status: "error", Texts: []core.Text{{Field: "M", Value: "no secret here"}, {Field: "D"}, {Field: "H", Value: "fine"}}}
	if v := ask(t, p, e); !v.Changed || e.Result.Texts[0].Value != "no **** here" || e.Result.Texts[2].Value != "fine" {
		t.Errorf("%+v %+v", v, e.Result.Texts)
	}
	e = event(core.KindBytes)
	e.Bytes = []byte("a secret!")
	if v := ask(t, p, e); !v.Changed || string(e.Bytes) != "a ****!" {
		t.Errorf("%+v %q", v, e.Bytes)
	}
}

func TestGuestFailures(t *testing.T) {
	for mode, want := range map[string]string{"panic": "unreachable", "loop": "in time", "edit": "out of contract"} {
		p := guest(t, mode)
		for range 3 {
			_, err := p.Inspect(context.Background(), event(core.KindCommand))
			if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), `wasm: plugin "test": `) {
				t.Errorf("%s: %v", mode, err)
			}
		}
		if p.pool.live > 1 || len(p.pool.free) != p.pool.live {
			t.Errorf("%s: %d instances live, %d free: a broken one was kept", mode, p.pool.live, len(p.pool.free))
		}
	}
	_, err := newHost(t).Load(context.Background(), Config{Name: "x", Module: guestModule, Config: map[string]any{"mode": "refuse"}})
	if err == nil || !strings.Contains(err.Error(), "mode cannot be refuse") {
		t.Errorf("%v", err)
	}
}

// TestHostile runs guests written by hand that do what no compiler would write.
func TestHostile(t *testing.T) {
	loop := []byte{0x03, 0x40, 0x0c, 0, 0x0b}                             // loop br 0 end
	recursion := []byte{0x20, 0, 0x20, 1, 0x10, 4}                        // weir_on_batch(a, b)
	fibonacci := join([]byte{0x20, 0, 0x20, 1, 0x10, 4, 0x1a}, recursion) // twice, so that the stack is not the first limit
	depth := join([]byte{0x20, 1, 0x45, 0x04, 0x7e}, i64const(0), []byte{0x05, 0x20, 0}, []byte{0x20, 1}, i32const(1), []byte{0x6b, 0x10, 4, 0x1a, 0x20, 0, 0x20, 1}, i32const(1), []byte{0x6b, 0x10, 4, 0x0b})
	fill := join([]byte{0x03, 0x40}, i32const(0), i32const(0), i32const(8*65536), []byte{0xfc, 11, 0, 0x0c, 0, 0x0b}, i64const(0))
	growForever := join([]byte{0x03, 0x40}, i32const(1), []byte{0x40, 0, 0x1a, 0x0c, 0, 0x0b}, i64const(0))
	writeOut := func(text string) (code []byte) { // to where the frame says its out region is
		for i, c := range []byte(text) {
			code = join(code, []byte{0x20, 0, 0x20, 0, 0x28, 2, 60, 0x6a}, i32const(int32(c)), []byte{0x3a, 0}, appendU32(nil, uint32(i)))
		}
		return code
	}
	le := func(n ...uint32) string {
		var b []byte
		for _, x := range n {
			b = binary.LittleEndian.AppendUint32(b, x)
		}
		return string(b)
	}
	for _, c := range []struct {
		name string
		code []byte
		want string
	}{
		{"pass", result(0, 0), ""},
		{"endless loop", join(loop, result(0, 0)), "in time"},
		{"exponential recursion", depth, "in time"},
		{"infinite recursion", recursion, ""},
		{"branching recursion", fibonacci, ""},
		{"endless bulk fill", fill, "in time"},
		{"grows for ever", growForever, "in time"},
		{"unreachable", []byte{0}, "unreachable"},
		{"divides by zero", join(i32const(1), i32const(0), []byte{0x6d, 0xac}), "divide by zero"},
		{"reads out of bounds", join(i32const(-4), []byte{0x28, 2, 0, 0xac}), "out of bounds"},
		{"unknown verdict", result(77, 0), "verdict 77"},
		{"need more", result(5, 0), "verdict 5"},
		{"own error", result(-7, 0), "code -7"},
		{"always more room", result(-2, 0), ""},
		{"pass with something", result(0, 1), "out of contract"},
		{"too many changed", result(1, 1000), "out of contract"},
		{"answer too long", result(3, 1<<20), "out of contract"},
		{"answer far too long", result(2, 1<<31), "out of contract"},
		{"deny without a rule", result(3, 0), "without a rule"},
		{"hold rows", join(writeOut("rule"), result(4, 4)), "only commands can wait"},
		{"patch cut off", result(2, 5), "cut off"},
		{"patch of no cell", join(writeOut(le(99, 0)), result(2, 8)), "names cell 99"},
		{"patch out of order", join(writeOut(le(1, 0, 0, 0)), result(2, 16)), "names cell 0"},
		{"patch too long", join(writeOut(le(0, 50)), result(2, 8)), "longer than the list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := load(t, Config{Module: hand(c.code), Limits: Limits{Rows: 30 * time.Millisecond, MemoryPages: 64}, noSelfTest: true})
			b := batch(threeColumns, []string{"one", "1", "x"})
			before := slices.Clone(b.Data)
			start := time.Now()
			_, err := p.Inspect(context.Background(), rowsEvent(b))
			took := time.Since(start)
			switch {
			case c.name == "pass":
				if err != nil {
					t.Error(err)
				}
			case err == nil || !strings.Contains(err.Error(), c.want):
				t.Errorf("got %v, want %q", err, c.want)
			}
			if took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
			if !bytes.Equal(b.Data, before) || len(b.Patches) > 0 {
				t.Error("the batch was changed")
			}
			if err != nil && len(p.pool.free) > 0 {
				t.Error("the instance was kept")
			}
			runtime.GC() // must not hang: the guest is gone
			// and the next event is asked of a new instance
			if _, again := p.Inspect(context.Background(), rowsEvent(b)); (again == nil) != (err == nil) {
				t.Errorf("again: %v", again)
			}
		})
	}
	t.Run("patches are bounded to cells", func(t *testing.T) {
		p := load(t, Config{Module: hand(join(writeOut(le(0, 3)+"abc\x00"+le(2, nullCell)), result(2, 20))), noSelfTest: true})
		b := batch(threeColumns, []string{"one", "1", "x"})
		ask(t, p, rowsEvent(b))
		if got := values(b); !slices.Equal(got, []string{"abc", "1", null}) {
			t.Errorf("%q", got)
		}
	})
	t.Run("writes between the cells", func(t *testing.T) {
		// fills the whole data region, and says that it changed one cell
		code := join([]byte{0x20, 0, 0x20, 0, 0x28, 2, 52, 0x6a}, i32const('Z'), []byte{0x20, 0, 0x28, 2, 56}, []byte{0xfc, 11, 0}, result(1, 1))
		p := load(t, Config{Module: hand(code), noSelfTest: true})
		b := batch(threeColumns, []string{"one", "1", "x"}, []string{null, "22", ""})
		ask(t, p, rowsEvent(b))
		if got := values(b); !slices.Equal(got, []string{"ZZZ", "Z", "Z", null, "ZZ", ""}) || bytes.Count(b.Data, []byte(".....")) != 6 {
			t.Errorf("%q %q", got, b.Data)
		}
	})
}

func TestRefusesAtLoad(t *testing.T) {
	without := func(name string) func(*module) {
		return func(m *module) {
			for i := range m.funcs {
				if m.funcs[i].export == name {
					m.funcs[i].export = ""
				}
			}
		}
	}
	describe := func(text string) func(*module) {
		return func(m *module) {
			m.data = []byte(text)
			m.funcs[1].code = i64const(1024<<32 | int64(len(text)))
		}
	}
	initialise := func(code []byte) func(*module) {
		return func(m *module) { m.funcs = append(m.funcs, fn{typ: tVoid, code: code, export: "_initialize"}) }
	}
	extra := func(id byte, body ...byte) func(*module) {
		return func(m *module) { m.extra = map[byte][]byte{id: body} }
	}
	pass := result(0, 0)
	for _, c := range []struct {
		name   string
		module []byte
		want   string
	}{
		{"nothing", nil, "no WebAssembly module"},
		{"text", []byte("hello, this is no module"), "no WebAssembly module"},
		{"cut off", hand(pass)[:60], "too early"},
		{"a component", []byte{0, 'a', 's', 'm', 0x0d, 0, 1, 0}, "no WebAssembly module"},
		{"no version", hand(pass, without("weir_abi_v1")), "another version of the contract"},
		{"no batch", hand(pass, without("weir_on_batch")), "does not export weir_on_batch"},
		{"no buffer", hand(pass, without("weir_buffer")), "does not export weir_buffer"},
		{"wrong type", hand(pass, func(m *module) { m.funcs[0].typ, m.funcs[0].code = tI64, i64const(0) }), "wrong type"},
		{"no memory", hand(pass, func(m *module) { m.noMemory, m.data = true, nil }), "memories"},
		{"too much memory", hand(pass, func(m *module) { m.pages = 5000 }), "pages of memory"},
		{"strange import", hand(pass, func(m *module) { m.imports = [][2]string{{"env", "system"}} }), "env.system"},
		{"unknown host function", hand(pass, func(m *module) { m.imports = [][2]string{{"weir_v1", "exec"}} }), "weir_v1.exec"},
		{"imports the tick", hand(pass, func(m *module) { m.imports = [][2]string{{"weir", "tick"}} }), "gateway's own"},
		{"exports the fuel", hand(pass, func(m *module) { m.funcs = append(m.funcs, fn{typ: tVoid, export: "weir.fuel"}) }), "gateway's own name"},
		{"names the fuel", hand(join([]byte{0x42, 0, 0x24, 0}, pass)), "global does not exist"},
		{"start section", hand(pass, extra(secStart, 0)), "start section"},
		{"huge table", hand(pass, extra(secTable, 1, 0x70, 0, 0x80, 0x80, 0x80, 0x18)), "a table has"},
		{"grows a table", hand(join([]byte{0xd0, 0x70, 0x41, 1, 0xfc, 15, 0, 0x1a}, pass)), "table.grow"},
		{"threads", hand(join([]byte{0xfe, 0x03, 0x00}, pass)), "not supported"},
		{"tail call", hand([]byte{0x20, 0, 0x20, 1, 0x12, 4}), "not supported"},
		{"huge body", hand(join(bytes.Repeat([]byte{0x01}, maxBody), pass)), "a body of"},
		{"wrong types inside", hand(i32const(1)), "does not compile"},
		{"no manifest", hand(pass, describe("")), "manifest"},
		{"manifest out of memory", hand(pass, func(m *module) { m.funcs[1].code = i64const(-1<<32 | 100) }), "memory that it does not have"},
		{"manifest too long", hand(pass, func(m *module) { m.funcs[1].code = i64const(1 << 30) }), "at most 65536"},
		{"manifest unknown key", hand(pass, describe(strings.Replace(handManifest, `"mutates"`, `"mutable"`, 1))), "mutable"},
		{"other abi", hand(pass, describe(strings.Replace(handManifest, `"abi":1`, `"abi":2`, 1))), "speaks 1"},
		{"no subscription", hand(pass, describe(`{"name":"x","version":"1","abi":1,"mutates":false,"subscribe":[]}`)), "subscribes to nothing"},
		{"unknown kind", hand(pass, describe(strings.Replace(handManifest, `"rows"`, `"lines"`, 1))), "no kind"},
		{"unknown class", hand(pass, describe(strings.Replace(handManifest, `"*"`, `"type:words"`, 1))), "type:words"},
		{"state", hand(pass, describe(strings.Replace(handManifest, `"abi":1`, `"abi":1,"state":"sticky"`, 1))), "say stateless or connection"},
		{"state without its exports", hand(pass, describe(strings.Replace(handManifest, `"abi":1`, `"abi":1,"state":"connection"`, 1))), "does not export weir_open"},
		{"no room", hand(pass, func(m *module) { m.funcs[3].code = i32const(65536 * 7) }), "gave no room"},
		{"room at zero", hand(pass, func(m *module) { m.funcs[3].code = i32const(0) }), "gave no room"},
		{"crooked room", hand(pass, func(m *module) { m.funcs[3].code = i32const(65537) }), "gave no room"},
		{"refuses its config", hand(pass, func(m *module) { m.funcs[2].code = i32const(-3) }), "code -3"},
		{"traps at start", hand(pass, initialise([]byte{0})), "does not start"},
		{"loops at start", hand(pass, initialise([]byte{0x03, 0x40, 0x0c, 0, 0x0b})), "in time"},
		{"loops in describe", hand(pass, func(m *module) { m.funcs[1].code = join([]byte{0x03, 0x40, 0x0c, 0, 0x0b}, i64const(0)) }), "in time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			_, err := newHost(t).Load(context.Background(), Config{Name: "bad", Module: c.module, Limits: Limits{Start: 50 * time.Millisecond}})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), `wasm: plugin "bad": `) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if d := time.Since(start); d > 3*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
	h := newHost(t)
	if _, err := h.Load(context.Background(), Config{Name: "x", Module: hand(pass), OnError: "pass"}); err == nil || !strings.Contains(err.Error(), "allow_unmasked") {
		t.Errorf("on_error pass of a plugin that changes values: %v", err)
	}
	if _, err := h.Load(context.Background(), Config{Name: "x", Module: hand(pass), OnError: "maybe"}); err == nil {
		t.Error("on_error maybe")
	}
}

func TestCacheDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	h, err := Open(context.Background(), HostConfig{CacheDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	_ = h.Close(context.Background())
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
	_ = os.Chmod(dir, 0o755)
	if _, err := Open(context.Background(), HostConfig{CacheDir: dir}); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a cache that others can write: %v", err)
	}
}

func TestConcurrentAndClose(t *testing.T) {
	p := load(t, Config{Module: guestModule, Config: map[string]any{"mode": "upper"}, Limits: Limits{Instances: 3}})
	var wg sync.WaitGroup
	for g := range 12 {
		wg.Go(func() {
			for i := range 40 {
				s := fmt.Sprintf("g%di%d", g, i)
				b := batch(threeColumns, []string{s, "1", "x"})
				if _, err := p.Inspect(context.Background(), rowsEvent(b)); err != nil {
					t.Error(err)
				}
				if v := values(b); v[0] != strings.ToUpper(s) {
					t.Errorf("%q became %q", s, v[0])
				}
			}
		})
	}
	wg.Wait()
	if p.pool.live > 3 {
		t.Errorf("%d instances", p.pool.live)
	}
	// nobody waits for ever
	var held []*instance
	for range 3 {
		in, err := p.pool.get(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if in == nil {
			if in, err = p.instantiate(context.Background(), true); err != nil {
				t.Fatal(err)
			}
		}
		held = append(held, in)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.Inspect(ctx, event(core.KindCommand)); err == nil {
		t.Error("there was a fourth instance")
	}
	for _, in := range held {
		p.pool.put(in)
	}
	ask(t, p, event(core.KindCommand))

	q := guest(t, "")
	if err := q.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Inspect(context.Background(), event(core.KindCommand)); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("after Close: %v", err)
	}
}

func TestMetricsAndLog(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	h, err := Open(context.Background(), HostConfig{CacheDir: cacheDir, Metrics: reg, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Close(context.Background()) }()
	p, err := h.Load(context.Background(), Config{Name: "m", Module: guestModule, Config: map[string]any{"mode": "panic"}, noSelfTest: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close(context.Background()) }()
	_, _ = p.Inspect(context.Background(), event(core.KindCommand))
	if !strings.Contains(log.String(), "panic: asked to") {
		t.Errorf("log: %s", log.String())
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			labels := ""
			for _, l := range m.Label {
				labels += " " + l.GetValue()
			}
			got[f.GetName()+labels] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{"weir_plugin_errors_total trap m": 1, "weir_plugin_discards_total m": 1, "weir_plugin_own_total seen m": 1, "weir_plugin_instances m": 0} {
		if got[name] != want {
			t.Errorf("%s = %v, want %v (%v)", name, got[name], want, got)
		}
	}
}

// TestFuelDoesNotChangeMeaning runs the same work with and without fuel.
func TestFuelDoesNotChangeMeaning(t *testing.T) {
	for _, noFuel := range []bool{true, false} {
		p := load(t, Config{Module: guestModule, Config: map[string]any{"mode": "patch"}, noFuel: noFuel})
		b := batch(threeColumns, slices.Repeat([][]string{{"one", "1", "x"}}, 700)...)
		ask(t, p, rowsEvent(b))
		want := slices.Repeat([]string{"<a>one", "1", null}, 700)
		if !slices.Equal(values(b), want) {
			t.Errorf("without fuel %v: wrong", noFuel)
		}
	}
}

// FuzzInstrument: what comes out of the rewriting is valid if what went in was.
func FuzzInstrument(f *testing.F) {
	f.Add(hand(result(0, 0)))
	f.Add(hand([]byte{0x03, 0x40, 0x0c, 0, 0x0b, 0x42, 0}))
	f.Add(hand([]byte{0x20, 0, 0x20, 1, 0x10, 4}))
	f.Add(hand([]byte{0x20, 0, 0x45, 0x04, 0x40, 0x42, 1, 0x0f, 0x0b, 0x20, 0, 0x20, 1, 0x10, 4}))
	f.Add([]byte{})
	compiles := func(b []byte) bool {
		r := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfigInterpreter())
		defer func() { _ = r.Close(context.Background()) }()
		_, err := r.CompileModule(context.Background(), b)
		return err == nil
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		out, _, err := instrument(b, true)
		if err == nil && !bytes.HasPrefix(out, magic) {
			t.Error("no module came out")
		}
		if err != nil {
			return
		}
		plain, _, err := instrument(b, false)
		if err != nil {
			t.Fatal(err)
		}
		if compiles(plain) && !compiles(out) {
			t.Error("it compiles as it is, and does not when it is rewritten")
		}
	})
}

func FuzzPatches(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 0, 0, 0, 'x', 0, 0, 0}, 3)
	f.Fuzz(func(t *testing.T, b []byte, cells int) {
		last := -1
		list, err := parsePatches(b, cells, nil)
		for _, p := range list {
			if err == nil && (p.cell <= last || p.cell >= cells) {
				t.Errorf("cell %d after %d of %d", p.cell, last, cells)
			}
			last = p.cell
		}
	})
}

func BenchmarkCall(b *testing.B) {
	for _, noFuel := range []bool{true, false} {
		name := map[bool]string{true: "plain", false: "fuel"}[noFuel]
		hp := load(b, Config{Module: hand(result(0, 0)), noFuel: noFuel})
		gp := load(b, Config{Module: guestModule, noFuel: noFuel})
		for kind, p := range map[string]*Plugin{"hand": hp, "go": gp} {
			e := event(core.KindCommand)
			b.Run("command/"+kind+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := p.Inspect(context.Background(), e); err != nil {
						b.Fatal(err)
					}
				}
			})
			in, _ := p.pool.get(context.Background())
			b.Run("bare/"+kind+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				view, _ := in.mod.Memory().Read(in.ptr, 256)
				(&frame{kind: kindClose, attrsOff: 72, cellsOff: 72, dataOff: 72, outOff: 72, total: 256, outCap: 100}).header(view)
				in.begin(context.Background(), time.Hour)
				for b.Loop() {
					if in.fuel != nil {
						in.fuel.Set(slice)
					}
					in.stack[0], in.stack[1] = uint64(in.ptr), 256
					if err := in.call(in.batch); err != nil {
						b.Fatal(err)
					}
				}
			})
			p.pool.put(in)
		}
	}
}
