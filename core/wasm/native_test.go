package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
	native "github.com/weir-gateway/weir/plugins/pii/native"
)

// The plugin pii without a guest, against the guest: whoever changes one for the other has the same data and the same record.

func nativePII(t testing.TB, c Config) *Native {
	t.Helper()
	c.Name = "pii"
	p, err := newHost(t).Native(native.New(), c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// twins are the guest and the native plugin with one configuration, and the registries that they count in.
type twins struct {
	guest   *Plugin
	native  *Native
	metrics [2]*prometheus.Registry
}

func newTwins(t testing.TB, c Config) *twins {
	t.Helper()
	module, err := piiModule()
	if err != nil {
		t.Fatal(err)
	}
	w, hosts := &twins{}, [2]*Host{}
	for i := range hosts {
		w.metrics[i] = prometheus.NewRegistry()
		if hosts[i], err = Open(context.Background(), HostConfig{CacheDir: cacheDir, Metrics: w.metrics[i]}); err != nil {
			t.Fatal(err)
		}
	}
	c.Name, c.noSelfTest = "pii", true
	if w.native, err = hosts[1].Native(native.New(), c); err != nil {
		t.Fatal(err)
	}
	c.Module = module
	if w.guest, err = hosts[0].Load(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.guest.Close(context.Background())
		for _, h := range hosts {
			_ = h.Close(context.Background())
		}
	})
	return w
}

// counted are the counters that both have.
func (w *twins) counted(t testing.TB, i int) map[string]float64 {
	t.Helper()
	families, err := w.metrics[i].Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		switch f.GetName() {
		case "weir_plugin_calls_total", "weir_plugin_errors_total", "weir_plugin_rows_total", "weir_plugin_bytes_total", "weir_plugin_own_total":
			for _, m := range f.Metric {
				labels := ""
				for _, l := range m.Label {
					labels += " " + l.GetValue()
				}
				if n := m.GetCounter().GetValue(); n > 0 {
					got[f.GetName()+labels] = n
				}
			}
		}
	}
	return got
}

func copied(b *core.Batch) *core.Batch {
	c := *b
	c.Data, c.Cells, c.Patches = bytes.Clone(b.Data), append([]core.Cell(nil), b.Cells...), nil
	for _, p := range b.Patches {
		c.Patches = append(c.Patches, core.Patch{Cell: p.Cell, Value: bytes.Clone(p.Value)})
		if p.Value != nil && c.Patches[len(c.Patches)-1].Value == nil {
			c.Patches[len(c.Patches)-1].Value = []byte{}
		}
	}
	return &c
}

// ask asks both about the same batch, and returns what they say of it. What they leave is compared.
func (w *twins) ask(t testing.TB, b *core.Batch) (guest, own core.Verdict, after *core.Batch) {
	t.Helper()
	x, y := copied(b), copied(b)
	guest, err := w.guest.Inspect(context.Background(), rowsEvent(x))
	if err != nil {
		t.Fatal(err)
	}
	if own, err = w.native.Inspect(context.Background(), rowsEvent(y)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(x.Data, y.Data) || !reflect.DeepEqual(x.Patches, y.Patches) || x.Edited != y.Edited || !reflect.DeepEqual(x.Cells, y.Cells) {
		for i := range x.Cells {
			was, _ := b.Value(i)
			p, _ := x.Value(i)
			q, _ := y.Value(i)
			if !bytes.Equal(p, q) {
				t.Errorf("cell %d, %q: the guest leaves %q, the native one %q", i, was, p, q)
			}
		}
		t.Fatalf("edited %v and %v, patches %v and %v", x.Edited, y.Edited, x.Patches, y.Patches)
	}
	return guest, own, y
}

// pieces are what random values are made of: things to find, parts of them, what is masked already, and what looks alike.
var pieces = strings.Split("ada@example.com|a**@example.com|*@c.io|4111 1111 1111 1111|4111111111111112|DE89370400440532013000|123-45-6789|AKIAIOSFODNN7EXAMPLE|"+
	"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl|eyJ-|-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END|ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa|+49 30 1234567|"+
	"tel |192.168.10.7|2001:db8::1|AB123456C|12345678Z|postgres://app:s3cr3t@db/x|api_key=9f8e7d6c5b4a|password: |{\"k\": \"|\"}|, |@|.|:|-|(|3.14|2024-05-06|Ada|"+
	"the quick brown fox|\x00\xff\x01|é|*|\\n|\n|1|123456", "|")

func randomBatch(r *rand.Rand, rows int) *core.Batch {
	types := []string{"text", "int8", "jsonb", "_text", "numeric", "my_enum", "bytea", "uuid", "varchar"}
	b := &core.Batch{Rows: rows}
	for i := range 1 + r.IntN(6) {
		c := core.Column{Name: fmt.Sprint("c", i), Type: types[r.IntN(len(types))], Binary: r.IntN(3) == 0}
		if r.IntN(2) == 0 {
			c.Origin = &core.Origin{Table: "public.people", Column: fmt.Sprint("c", r.IntN(4))}
		}
		b.Columns = append(b.Columns, c)
		if r.IntN(5) > 0 {
			b.Watch = append(b.Watch, i)
		}
	}
	value := func() []byte {
		v := []byte{}
		for range r.IntN(5) {
			v = append(v, pieces[r.IntN(len(pieces))]...)
		}
		return v
	}
	for range rows * len(b.Watch) {
		b.Data = append(b.Data, "....."...)
		if r.IntN(8) == 0 {
			b.Cells = append(b.Cells, core.Cell{Len: -1})
			continue
		}
		v := value()
		b.Cells = append(b.Cells, core.Cell{Off: int32(len(b.Data)), Len: int32(len(v))})
		b.Data = append(b.Data, v...)
	}
	b.Edited = r.IntN(4) == 0
	if r.IntN(3) == 0 { // a step before was at it
		for i := range b.Cells {
			switch r.IntN(6) {
			case 0:
				b.Set(i, value())
			case 1:
				b.Set(i, nil)
			}
		}
	}
	return b
}

func TestNativePII(t *testing.T) {
	configs := []Config{
		{},
		{Config: map[string]any{"entities": []string{"EMAIL", "CARD"}}},
		{Config: map[string]any{"entities": []any{"SECRET"}}, Columns: []string{"c1", "people.c0", "public.people.c3"}},
		{Columns: []string{"nowhere"}},
	}
	r := rand.New(rand.NewPCG(1, 2))
	changed, patched := 0, 0
	for i, c := range configs {
		w := newTwins(t, c)
		if a, b := w.guest.Subscription(), w.native.Subscription(); !reflect.DeepEqual(a, b) {
			t.Errorf("they subscribe to %+v and %+v", a, b)
		}
		for range 400 {
			b := randomBatch(r, 1+r.IntN(20))
			guest, own, after := w.ask(t, b)
			if !reflect.DeepEqual(guest, own) {
				t.Fatalf("config %d: the guest says %+v, the native one %+v", i, guest, own)
			}
			if own.Changed {
				changed++
				if len(b.Patches) > 0 && !reflect.DeepEqual(b.Patches, after.Patches) {
					patched++
				}
			}
		}
		// Batches of many frames: the guest tells what it found by frame, and a number that is the same twice once.
		for range 5 {
			guest, own, _ := w.ask(t, randomBatch(r, 3000))
			if guest.Changed != own.Changed || len(guest.Decisions) < len(own.Decisions) {
				t.Errorf("config %d: the guest says %+v, the native one %+v", i, guest, own)
			}
		}
		if a, b := w.counted(t, 0), w.counted(t, 1); !reflect.DeepEqual(a, b) || i < 2 && b["weir_plugin_own_total masked pii"] == 0 {
			t.Errorf("config %d: the guest has counted\n%v, the native one\n%v", i, a, b)
		}
	}
	if changed < 400 || patched < 50 {
		t.Errorf("%d batches were changed, %d in what a step had put there: too few to compare", changed, patched)
	}
}

// TestNativeSharedPatch: what a step before has put into a cell may be its own for other cells, too, and is not written to.
func TestNativeSharedPatch(t *testing.T) {
	shared := []byte("write to ada@example.com instead")
	b := batch(threeColumns[:1], []string{"x"}, []string{"y"})
	b.Set(0, shared)
	b.Set(1, shared)
	v, err := nativePII(t, Config{}).Inspect(context.Background(), rowsEvent(b))
	if err != nil || !v.Changed || fmt.Sprint(v.Decisions) != "[{ finding EMAIL 2}]" || string(shared) != "write to ada@example.com instead" {
		t.Errorf("%+v %v %q", v, err, shared)
	}
	if got := values(b); got[0] != "write to a**@example.com instead" || got[1] != got[0] {
		t.Errorf("%q", got)
	}
}

// TestNativeConfig: what the guest's schema refuses is refused in the same words.
func TestNativeConfig(t *testing.T) {
	module, err := piiModule()
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	for _, bad := range []map[string]any{{"entities": []string{"NAME"}}, {"entities": "EMAIL"}, {"entities": []string{}}, {"entity": []string{"EMAIL"}}, {"entities": nil}} {
		_, guest := h.Load(context.Background(), Config{Name: "pii", Module: module, Config: bad})
		_, own := h.Native(native.New(), Config{Name: "pii", Config: bad})
		var c *ConfigError
		if guest == nil || own == nil || !errors.As(own, &c) || strings.TrimPrefix(guest.Error(), "wasm:") != strings.TrimPrefix(own.Error(), "native:") {
			t.Errorf("%v: the guest says %v, the native one %v", bad, guest, own)
		}
	}
	commands := &core.Native{Name: "x", Schema: "{}", Subscription: core.Subscription{Kinds: core.KindSet(core.KindCommand)}}
	if _, err := h.Native(commands, Config{Name: "x", Columns: []string{"a"}}); err == nil || !strings.Contains(err.Error(), "columns would do nothing") {
		t.Errorf("columns of one that sees none: %v", err)
	}
	m := nativePII(t, Config{}).Manifest()
	g := pii(t, Config{}).Manifest()
	if m.Name != g.Name || m.Version != g.Version || m.Mutates != g.Mutates || !reflect.DeepEqual(m.Subscribe, g.Subscribe) || !sameJSON(m.Schema, g.Schema) || m.Metrics[0].Name != g.Metrics[0].Name {
		t.Errorf("%+v\n%+v", m, g)
	}
}

// TestNativeLargeRow: a row of 60 MB is masked where it lies. The guest, as the control, is not given what is too large for it.
func TestNativeLargeRow(t *testing.T) {
	const size = 60 << 20
	value := bytes.Repeat([]byte("nothing to be found in a line like this one, of a long text. \n"), size/63)
	copy(value[len(value)-64:], " ada@example.com ")
	columns := []core.Column{{Name: "id", Type: "int8"}, {Name: "note", Type: "text"}}
	b := &core.Batch{Columns: columns, Watch: []int{0, 1}, Rows: 1, Data: append([]byte("1"), value...), Cells: []core.Cell{{Len: 1}, {Off: 1, Len: int32(len(value))}}}
	if _, err := pii(t, Config{}).Inspect(context.Background(), rowsEvent(b)); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("the guest: %v", err)
	}
	p := nativePII(t, Config{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	v, err := p.Inspect(context.Background(), rowsEvent(b))
	runtime.ReadMemStats(&after)
	if got, _ := b.Value(1); err != nil || !v.Changed || len(b.Patches) > 0 || !bytes.Contains(got, []byte(" a**@example.com ")) || !bytes.Equal(got[:size/2], value[:size/2]) {
		t.Errorf("%+v %v", v, err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("%d bytes were taken for a row of %d", took, size)
	}
}

// TestNativeFailures: an error is the step's, and a denial; so is a panic. Both are counted, and a caller that is gone is not served.
func TestNativeFailures(t *testing.T) {
	w := newTwins(t, Config{})
	b := batch(threeColumns, []string{"x", "1", "y"})
	b.Cells = b.Cells[:2]
	x := rowsEvent(b)
	_, err := w.native.Inspect(context.Background(), x)
	var cause interface{ Cause() string }
	if !errors.As(err, &cause) || cause.Cause() != "plugin" || !strings.Contains(err.Error(), `native: plugin "pii": a batch of 1 rows by 3 columns has 2 cells`) {
		t.Errorf("%v", err)
	}
	if _, guest := w.guest.Inspect(context.Background(), x); guest == nil || strings.TrimPrefix(guest.Error(), "wasm:") != strings.TrimPrefix(err.Error(), "native:") {
		t.Errorf("the guest says %v, the native one %v", guest, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	long := strings.Repeat("nothing ", 1<<18)
	if _, err := w.native.Inspect(ctx, rowsEvent(batch(threeColumns[:1], []string{long}, []string{long}))); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that is gone: %v", err)
	}
	b = batch(threeColumns[:1], []string{"x"})
	b.Cells[0].Off = 1 << 20 // not of its data
	e := rowsEvent(b)
	c, err := chain.Options{Log: slog.New(slog.DiscardHandler)}.New(chain.Step{Name: "pii", Plugin: w.native})
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := c.Inspect(context.Background(), &core.Event{Kind: core.KindColumns, Session: session, Exchange: e.Exchange, Columns: b.Columns}); v.Deny != nil {
		t.Fatalf("%+v", v.Deny)
	}
	if v, err := c.Inspect(context.Background(), e); err != nil || v.Deny == nil || v.Deny.Rule != "step-error" {
		t.Errorf("a panic: %+v %v", v, err)
	}
	if n := w.counted(t, 1); n["weir_plugin_errors_total plugin pii"] != 2 || n["weir_plugin_errors_total busy pii"] != 1 {
		t.Errorf("%v", n)
	}
	if got := c.Versions(); len(got) != 1 || got[0].Rule != "native:pii" || got[0].Detail != w.guest.Manifest().Version {
		t.Errorf("%+v", got)
	}
}

// FuzzNativePII: whatever bytes come, lengths stay, and what was not found is as it was.
func FuzzNativePII(f *testing.F) {
	for _, s := range pieces {
		f.Add([]byte(s), []byte("x"), uint8(1))
	}
	h, err := Open(context.Background(), HostConfig{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = h.Close(context.Background()) })
	p, err := h.Native(native.New(), Config{Name: "pii"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, a, c []byte, set uint8) {
		b := batch(threeColumns, []string{string(a), string(c), string(a)}, []string{string(c), string(a), null})
		if int(set) < len(b.Cells) {
			b.Set(int(set), bytes.Clone(c))
		}
		was := copied(b)
		v, err := p.Inspect(context.Background(), rowsEvent(b))
		if err != nil || v.Deny != nil {
			t.Fatal(v, err)
		}
		differs := false
		for i := range b.Cells {
			x, ok := was.Value(i)
			y, still := b.Value(i)
			if ok != still || len(x) != len(y) || i%3 == 1 && !bytes.Equal(x, y) {
				t.Fatalf("%q became %q", x, y)
			}
			differs = differs || !bytes.Equal(x, y)
		}
		if differs != v.Changed || differs && v.Decisions == nil {
			t.Fatalf("changed %v, and it says %+v", differs, v)
		}
	})
}
