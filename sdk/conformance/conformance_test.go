// Package conformance runs the examples of every SDK against the same frames. It has a host of its own, small and without
// mercy, so that an error of the gateway's host and one of a guest cannot cancel each other out.
package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

var update = flag.Bool("update", false, "write each frame's hex into vectors.json from its parts")

const file = "vectors.json"

// value is a text, bytes as {"hex": "…"}, or null.
type value struct {
	b    []byte
	null bool
}

func (v *value) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil && string(b) != "null" {
		v.b = []byte(s)
		return nil
	}
	var h *struct {
		Hex string `json:"hex"`
	}
	err := json.Unmarshal(b, &h)
	if err != nil || h == nil {
		v.null = h == nil
		return err
	}
	v.b, err = hex.DecodeString(h.Hex)
	return err
}

type frame struct {
	Kind       uint16 `json:"kind"`
	Editable   bool   `json:"editable"`
	Rows       uint32 `json:"rows"`
	Columns    uint16 `json:"columns"`
	Attributes []struct {
		ID   uint16 `json:"id"`
		Text string `json:"text"`
		Hex  string `json:"hex"`
	} `json:"attributes"`
	Cells []*value `json:"cells"`
	Room  int      `json:"room"`
	// Spoil writes bytes at a place of the frame or over a cell's entry, or makes the header longer.
	Spoil []struct {
		At     int    `json:"at"`
		Cell   *int   `json:"cell"`
		Hex    string `json:"hex"`
		Header int    `json:"header"`
	} `json:"spoil"`
}

// build writes the frame's bytes, as sdk/ABI.md tells them.
func (f *frame) build() ([]byte, error) {
	le := binary.LittleEndian
	header := 72
	for _, s := range f.Spoil {
		header = max(header, s.Header)
	}
	var attributes, table, data []byte
	for _, a := range f.Attributes {
		v := []byte(a.Text)
		if a.Hex != "" {
			var err error
			if v, err = hex.DecodeString(a.Hex); err != nil {
				return nil, err
			}
		}
		attributes = append(le.AppendUint16(le.AppendUint16(attributes, a.ID), uint16(len(v))), v...)
		attributes = append(attributes, make([]byte, -len(attributes)&3)...)
	}
	for _, c := range f.Cells {
		n := uint32(0xffffffff)
		if c != nil {
			n = uint32(len(c.b))
		}
		table = le.AppendUint32(le.AppendUint32(table, uint32(len(data))), n)
		if c != nil {
			data = append(data, c.b...)
		}
	}
	b := make([]byte, header)
	flags := uint32(0)
	if f.Editable {
		flags = 1
	}
	part := func(field int, p []byte) {
		b = append(b, make([]byte, -len(b)&7)...)
		le.PutUint32(b[field:], uint32(len(b)))
		b = append(b, p...)
	}
	part(40, attributes)
	part(44, table)
	cells := int(le.Uint32(b[44:]))
	part(52, data)
	part(60, make([]byte, f.Room))
	le.PutUint32(b, 0x31494557)
	le.PutUint16(b[4:], uint16(header))
	le.PutUint16(b[6:], f.Kind)
	le.PutUint32(b[8:], uint32(len(b)))
	le.PutUint32(b[12:], flags)
	le.PutUint64(b[16:], 1<<40|7)
	le.PutUint64(b[24:], 1)
	le.PutUint32(b[32:], f.Rows)
	le.PutUint16(b[36:], f.Columns)
	le.PutUint16(b[38:], uint16(len(f.Attributes)))
	le.PutUint32(b[48:], uint32(len(f.Cells)))
	le.PutUint32(b[56:], uint32(len(data)))
	le.PutUint32(b[64:], uint32(f.Room))
	for _, s := range f.Spoil {
		x, err := hex.DecodeString(s.Hex)
		if err != nil {
			return nil, err
		}
		at := s.At
		if s.Cell != nil {
			at = cells + 8**s.Cell
		}
		copy(b[at:], x)
	}
	return b, nil
}

type vector struct {
	Name       string          `json:"name"`
	Plugin     string          `json:"plugin"`
	Config     json.RawMessage `json:"config"`
	ConfigText string          `json:"config_text"`
	Frame      frame           `json:"frame"`
	Hex        string          `json:"hex"`
	Expect     struct {
		Verdict  string             `json:"verdict"`
		Aux      *uint32            `json:"aux"`
		Cells    []*value           `json:"cells"`
		Patches  [][]any            `json:"patches"` // cell, text or null
		Texts    []string           `json:"texts"`
		Findings [][]string         `json:"findings"`
		Counters map[string]int64   `json:"counters"`
		Observed map[string][]int64 `json:"observed"`
	} `json:"expect"`
}

type vectors struct {
	Configurations []struct {
		Plugin   string `json:"plugin"`
		Text     string `json:"text"`
		Accepted bool   `json:"accepted"`
	} `json:"configurations"`
	Vectors []*vector `json:"vectors"`
}

var verdicts = map[string]int32{"pass": 0, "modified": 1, "patch": 2, "deny": 3, "hold": 4, "more room": -2}

func read(t *testing.T) *vectors {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	v := &vectors{}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestFrames: the hex of each vector is what its parts say.
func TestFrames(t *testing.T) {
	v := read(t)
	if *update {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range v.Vectors {
			f, err := x.Frame.build()
			if err != nil {
				t.Fatal(err)
			}
			name, err := json.Marshal(x.Name)
			if err != nil {
				t.Fatal(err)
			}
			at := bytes.Index(b, append([]byte(`"name": `), name...))
			if at < 0 {
				t.Fatalf("%s: its name is written in another way", x.Name)
			}
			line := at + bytes.IndexByte(b[at:], '\n') + 1
			rest := b[line:]
			if bytes.HasPrefix(bytes.TrimLeft(rest, " "), []byte(`"hex": `)) {
				rest = rest[bytes.IndexByte(rest, '\n')+1:]
			}
			b = append(fmt.Appendf(b[:line:line], "   \"hex\": \"%x\",\n", f), rest...)
		}
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, x := range v.Vectors {
		if f, err := x.Frame.build(); err != nil || hex.EncodeToString(f) != x.Hex {
			t.Errorf("%s: hex is not what the parts say (%v): go test ./sdk/conformance -run TestFrames -update", x.Name, err)
		}
	}
}

// packages are what a language needs.
var packages = []struct{ language, packages string }{
	{"go", "the Go toolchain"},
	{"c", "clang-19 lld-19"},
	{"rust", "rustc libstd-rust-dev-wasm32 lld-14"},
	{"assemblyscript", "nodejs npm"},
}

func TestConformance(t *testing.T) {
	v := read(t)
	for _, l := range packages {
		t.Run(l.language, func(t *testing.T) {
			t.Parallel()
			if _, err := os.Stat("../" + l.language); err != nil {
				t.Skipf("there is no SDK for %s yet", l.language)
			}
			guests := map[string]*guest{}
			for _, name := range []string{"pass", "mask", "block", "record"} {
				path := filepath.Join("..", l.language, "examples", name, name+".wasm")
				m, err := os.ReadFile(path)
				if err != nil {
					t.Skipf("%s is not built: it needs %s; then make sdks", path, l.packages)
				}
				guests[name] = compile(t, m)
			}
			for _, c := range v.Configurations {
				g := guests[c.Plugin].start(t)
				if code := g.configure(t, c.Text); (code == 0) != c.Accepted || code != 0 && len(g.errors) == 0 {
					t.Errorf("%s: config %s: code %d, %q", c.Plugin, c.Text, code, g.errors)
				}
			}
			for _, x := range v.Vectors {
				t.Run(x.Name, func(t *testing.T) { run(t, guests[x.Plugin], x) })
			}
			t.Run("a larger region", func(t *testing.T) { larger(t, guests["mask"]) })
			t.Run("its memory stays", func(t *testing.T) { stays(t, guests["record"], v) })
		})
	}
}

// run asks twice, on one instance: it keeps nothing of the first time.
func run(t *testing.T, from *guest, x *vector) {
	g := from.start(t)
	config := "{}"
	switch {
	case x.ConfigText != "":
		config = x.ConfigText
	case x.Config != nil:
		config = string(x.Config)
	}
	if code := g.configure(t, config); code != 0 {
		t.Fatalf("configure: %d %q", code, g.errors)
	}
	b, err := hex.DecodeString(x.Hex)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		code, aux, after := g.ask(t, b)
		judge(t, g, x, b, code, aux, after)
	}
}

func judge(t *testing.T, g *guest, x *vector, before []byte, code int32, aux uint32, after []byte) {
	t.Helper()
	e, le := &x.Expect, binary.LittleEndian
	if e.Verdict == "failed" {
		if code >= 0 || code == -2 || len(g.errors) == 0 {
			t.Errorf("verdict %d, %q: want a failure, and why", code, g.errors)
		}
		return
	}
	if want := verdicts[e.Verdict]; code != want {
		t.Fatalf("verdict %d %q, want %s", code, g.errors, e.Verdict)
	}
	if e.Aux != nil && aux != *e.Aux {
		t.Errorf("aux %d, want %d", aux, *e.Aux)
	}
	dataAt, outAt, room := int(le.Uint32(before[52:])), int(le.Uint32(before[60:])), int(le.Uint32(before[64:]))
	if !bytes.Equal(before[:dataAt], after[:dataAt]) {
		t.Error("it wrote into the head, the attributes or the cells")
	}
	if !x.Frame.Editable && !bytes.Equal(before[dataAt:outAt], after[dataAt:outAt]) {
		t.Error("it changed values that it may not")
	}
	for i, c := range e.Cells {
		at := int(le.Uint32(before[44:])) + 8*i
		off, n := int(le.Uint32(before[at:])), le.Uint32(before[at+4:])
		if c == nil || n == 0xffffffff {
			if c != nil || n != 0xffffffff {
				t.Errorf("cell %d: NULL or not", i)
			}
		} else if got := after[dataAt+off : dataAt+off+int(n)]; !bytes.Equal(got, c.b) {
			t.Errorf("cell %d: %q, want %q", i, got, c.b)
		}
	}
	if int(aux) > room && code > 1 {
		t.Fatalf("aux %d of %d", aux, room)
	}
	out := after[outAt:]
	if code > 1 {
		out = out[:aux]
	}
	if e.Texts != nil {
		got := bytes.SplitN(out, []byte{0}, 3)
		for i, want := range e.Texts {
			if len(got) != 3 || string(got[i]) != want {
				t.Errorf("it says %q, want %q", got, e.Texts)
				break
			}
		}
	}
	if e.Patches != nil {
		var got [][]any
		for len(out) >= 8 {
			cell, n := float64(le.Uint32(out)), le.Uint32(out[4:])
			out = out[8:]
			if n == 0xffffffff {
				got = append(got, []any{cell, nil})
				continue
			}
			got = append(got, []any{cell, string(out[:n])})
			out = out[(n+3)&^3:]
		}
		if !reflect.DeepEqual(got, e.Patches) || len(out) > 0 {
			t.Errorf("patches %v, want %v", got, e.Patches)
		}
	}
	if e.Findings != nil && (len(g.findings) != len(e.Findings) || len(e.Findings) > 0 && !reflect.DeepEqual(g.findings, e.Findings)) {
		t.Errorf("findings %q, want %q", g.findings, e.Findings)
	}
	if e.Counters != nil && !reflect.DeepEqual(g.counters, e.Counters) {
		t.Errorf("counters %v, want %v", g.counters, e.Counters)
	}
	if e.Observed != nil && !reflect.DeepEqual(g.observed, e.Observed) {
		t.Errorf("observed %v, want %v", g.observed, e.Observed)
	}
}

// stays asks so often that a library which leaks would show it.
func stays(t *testing.T, from *guest, v *vectors) {
	g := from.start(t)
	if code := g.configure(t, "{}"); code != 0 {
		t.Fatal(g.errors)
	}
	i := slices.IndexFunc(v.Vectors, func(x *vector) bool { return x.Name == "record: resources" })
	b, err := hex.DecodeString(v.Vectors[i].Hex)
	if err != nil {
		t.Fatal(err)
	}
	before := uint32(0)
	for n := range 4_000 {
		if code, _, _ := g.ask(t, b); code != 0 {
			t.Fatalf("verdict %d %q", code, g.errors)
		}
		if n == 1_000 {
			before = g.mod.Memory().Size()
		}
	}
	if after := g.mod.Memory().Size(); after > 2*before {
		t.Errorf("its memory grew from %d to %d bytes", before, after)
	}
}

// larger asks for more and more room, and then for a frame in it.
func larger(t *testing.T, from *guest) {
	g := from.start(t)
	if code := g.configure(t, "{}"); code != 0 {
		t.Fatal(g.errors)
	}
	text := bytes.Repeat([]byte("x"), 3<<20)
	f := frame{Kind: 3, Editable: true, Rows: 1, Columns: 1, Cells: []*value{{b: text}}, Room: 64}
	f.Attributes = append(f.Attributes, struct {
		ID   uint16 `json:"id"`
		Text string `json:"text"`
		Hex  string `json:"hex"`
	}{ID: 32, Text: "\x01\x02a\x00text\x00\x00"})
	b, err := f.build()
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []uint64{200 << 10, 1 << 20, uint64(len(b))} {
		if p := g.buffer(t, size); p == 0 || p%8 != 0 {
			t.Fatalf("the region of %d bytes is at %d", size, p)
		}
	}
	code, _, after := g.ask(t, b)
	at := binary.LittleEndian.Uint32(b[52:])
	if code != 1 || after[at] != 'x' || bytes.Count(after[at:int(at)+len(text)], []byte("*")) != len(text)-1 {
		t.Errorf("verdict %d %q", code, g.errors)
	}
}

// guest is a compiled module, and one instance of it.
type guest struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	mod      api.Module
	region   uint64
	size     uint64
	errors   []string
	findings [][]string
	counters map[string]int64
	observed map[string][]int64
}

type guestKey struct{}

func of(ctx context.Context) *guest { return ctx.Value(guestKey{}).(*guest) }

func compile(t *testing.T, module []byte) *guest {
	t.Helper()
	ctx := t.Context()
	g := &guest{runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithMemoryLimitPages(1024).WithCompilationCache(cache))}
	t.Cleanup(func() { _ = g.runtime.Close(context.Background()) })
	text := func(m api.Module, p, n uint32) []byte {
		b, ok := m.Memory().Read(p, n)
		if !ok {
			panic("a text outside of the memory")
		}
		return bytes.Clone(b)
	}
	b := g.runtime.NewHostModuleBuilder("weir_v1")
	b = b.NewFunctionBuilder().WithFunc(func(ctx context.Context, m api.Module, level int32, p, n uint32) {
		if s := text(m, p, n); level == 3 {
			of(ctx).errors = append(of(ctx).errors, string(s))
		}
	}).Export("log")
	b = b.NewFunctionBuilder().WithFunc(func(ctx context.Context, m api.Module, p, n uint32) {
		var words []string
		for _, w := range bytes.SplitN(text(m, p, n), []byte{0}, 2) {
			words = append(words, string(w))
		}
		of(ctx).findings = append(of(ctx).findings, words)
	}).Export("emit")
	b = b.NewFunctionBuilder().WithFunc(func(ctx context.Context, id uint32, delta int64) {
		of(ctx).counters[fmt.Sprint(id)] += delta
	}).Export("metric_add")
	b = b.NewFunctionBuilder().WithFunc(func(ctx context.Context, id uint32, x float64) {
		of(ctx).observed[fmt.Sprint(id)] = append(of(ctx).observed[fmt.Sprint(id)], int64(x))
	}).Export("metric_observe")
	b = b.NewFunctionBuilder().WithFunc(func() int64 { return 0 }).Export("now_ns")
	if _, err := b.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, g.runtime); err != nil {
		t.Fatal(err)
	}
	var err error
	if g.compiled, err = g.runtime.CompileModule(ctx, module); err != nil {
		t.Fatal(err)
	}
	return g
}

var cache = wazero.NewCompilationCache()

func (g *guest) start(t *testing.T) *guest {
	t.Helper()
	n := &guest{runtime: g.runtime}
	n.forget()
	var err error
	ctx := context.WithValue(t.Context(), guestKey{}, n)
	if n.mod, err = g.runtime.InstantiateModule(ctx, g.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.mod.Close(context.Background()) })
	n.buffer(t, 192<<10)
	return n
}

func (g *guest) forget() {
	g.errors, g.findings, g.counters, g.observed = nil, nil, map[string]int64{}, map[string][]int64{}
}

func (g *guest) call(t *testing.T, name string, args ...uint64) uint64 {
	t.Helper()
	r, err := g.mod.ExportedFunction(name).Call(context.WithValue(t.Context(), guestKey{}, g), args...)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return r[0]
}

func (g *guest) buffer(t *testing.T, least uint64) uint64 {
	g.region, g.size = g.call(t, "weir_buffer", least), least
	return g.region
}

func (g *guest) write(t *testing.T, b []byte) {
	t.Helper()
	if uint64(len(b)) > g.size || !g.mod.Memory().Write(uint32(g.region), b) {
		t.Fatal("the region is not there")
	}
}

func (g *guest) configure(t *testing.T, text string) int32 {
	t.Helper()
	g.write(t, []byte(text))
	return int32(uint32(g.call(t, "weir_configure", g.region, uint64(len(text)))))
}

// ask returns the verdict, aux, and the frame after the call.
func (g *guest) ask(t *testing.T, b []byte) (int32, uint32, []byte) {
	t.Helper()
	g.forget()
	g.write(t, b)
	r := g.call(t, "weir_on_batch", g.region, uint64(len(b)))
	after, ok := g.mod.Memory().Read(uint32(g.region), uint32(len(b)))
	if !ok {
		t.Fatal("the region is gone")
	}
	return int32(uint32(r)), uint32(r >> 32), bytes.Clone(after)
}
