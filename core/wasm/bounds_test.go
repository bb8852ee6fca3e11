package wasm

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// retyped is a guest with other types behind its own.
func retyped(n int, types []byte) []byte {
	h := hand(result(0, 0))
	r := &reader{b: h[len(magic):]}
	r.byte()
	own := (&reader{b: r.take(r.u32())}).b[1:]
	m := section(append([]byte(nil), magic...), secType, join(appendU32(nil, uint32(n+len(asmTypes))), own, types))
	return append(m, h[len(magic)+r.i:]...)
}

// TestBounds: a module that the compiler would take long for, or much memory, does not get to it; one just within the bounds
// is done in seconds and some hundred MiB. With the bounds off, br_table below takes 7 s for one function, and more than four
// minutes for a hundred; the entries of a table segment take 2.6 GiB; the types do not end.
func TestBounds(t *testing.T) {
	leb := func(n int) []byte { return appendU32(nil, uint32(n)) }
	rep := func(n int, p ...byte) []byte { return bytes.Repeat(p, n) }
	pass := result(0, 0)
	const full = maxBody - 64
	functions := func(n int, code []byte) []byte {
		return hand(pass, func(m *module) {
			for range n {
				m.funcs = append(m.funcs, fn{typ: tVoid, locals: []byte{1}, code: code})
			}
		})
	}
	extra := func(id byte, content []byte) []byte {
		return hand(pass, func(m *module) { m.extra = map[byte][]byte{id: content} })
	}
	table := func(ways int) []byte { // of branches
		return join([]byte{0x02, 0x40}, i32const(0), []byte{0x0e}, leb(ways), rep(ways, 0), []byte{0, 0x0b})
	}
	branches := func(n int) []byte { return join([]byte{0x02, 0x40}, rep(n, 0x41, 0, 0x0d, 0), []byte{0x0b}) }
	for _, c := range []struct {
		name   string
		module []byte
		want   string // of the refusal; empty: it loads
	}{
		{"types", retyped(5_000_000, rep(5_000_000, 0x60, 0, 0)), "5000012 types"},
		{"parameters", retyped(1, join([]byte{0x60}, leb(1_000_000), rep(1_000_000, 0x7f), []byte{0})), "1000000 parameters"},
		{"results", retyped(1, join([]byte{0x60, 0}, leb(1_000_000), rep(1_000_000, 0x7f))), "1000000 results"},
		{"imports", hand(pass, func(m *module) {
			for range 300 {
				m.imports = append(m.imports, [2]string{hostModule, "log"})
			}
		}), "300 imports"},
		{"exports", hand(pass, func(m *module) {
			for i := range 5000 {
				m.funcs = append(m.funcs, fn{typ: tVoid, export: fmt.Sprint("x", i)})
			}
		}), "exports: at most"},
		{"globals", extra(secGlobal, join(leb(3_000_000), rep(3_000_000, 0x7f, 0, 0x41, 0, 0x0b))), "3000000 globals"},
		{"tables", extra(secTable, join(leb(17), rep(17, 0x70, 0, 1))), "17 tables"},
		{"entries of tables", extra(secTable, join(leb(2), []byte{0x70, 0}, leb(maxTable), []byte{0x70, 0, 1})), "entries of tables"},
		{"entries of a table segment", extra(secElement, join([]byte{1, 1, 0}, leb(15_000_000), rep(15_000_000, 0))), "15000000 entries of a table segment"},
		{"entries of table segments", extra(secElement, join([]byte{2, 1, 0}, leb(maxTable), rep(maxTable, 0), []byte{1, 0, 1, 0})), "65537 entries of table segments"},
		{"table segments", extra(secElement, join(leb(4_000_000), rep(4_000_000, 1, 0, 0))), "4000000 table segments"},
		{"segments of data", section(hand(pass, func(m *module) { m.data = nil }), secData, join(leb(2_000_000), rep(2_000_000, 0, 0x41, 0, 0x0b, 0))), "2000000 segments of data"},
		{"a table of branches", functions(1, table(full-20)), "take too long"},
		{"tables of branches", functions(100, table(full-20)), "take too long"},
		{"branches out of a block", functions(1, branches(30_000)), "take too long"},
		{"accesses of memory", functions(120, rep(full/6, 0x41, 0, 0x28, 2, 0, 0x1a)), "take too long"},
		{"calls", functions(120, rep(full/2, 0x10, 5)), "take too long"},

		{"many functions, within", functions(39_000, nil), ""},
		{"a table of branches, within", functions(1, table(38_000)), ""},
		{"branches out of a block, within", functions(1, branches(3_400)), ""},
		{"nested blocks, within", functions(1, join(rep(3_400, 0x41, 0, 0x04, 0x40), rep(3_400, 0x0b))), ""},
		{"a deep stack, within", functions(1, join(rep(20_000, 0x20, 0, 0x28, 2, 0), rep(19_999, 0x6a), []byte{0x1a})), ""},
		{"calls, within", functions(1, rep(full/2, 0x10, 5)), ""},
		{"custom sections", hand(pass, func(m *module) {
			for i := range 100_000 {
				m.custom = append(m.custom, [2]string{fmt.Sprint(i), ""})
			}
		}), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := Open(t.Context(), HostConfig{}) // no cache: it is compiled
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = h.Close(context.Background()) }()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			p, err := h.Load(t.Context(), Config{Name: "b", Module: c.module, noSelfTest: true})
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if err == nil {
				defer func() { _ = p.Close(context.Background()) }()
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 512 {
				t.Errorf("it took %d MiB", mib)
			}
		})
	}
}
