package wasm

import (
	"errors"
	"slices"
	"testing"

	"github.com/weir-gateway/weir/core"
)

// TestDepth: recursion of every kind ends before it takes much of a stack, and what is within bounds goes on as it was,
// whichever way a function returns.
func TestDepth(t *testing.T) {
	table := func(m *module) {
		m.extra = map[byte][]byte{secTable: {1, 0x70, 0, 1}, secElement: {1, 0, 0x41, 0, 0x0b, 1, 4}}
	}
	wrong := []byte{0x04, 0x40, 0, 0x0b} // if unreachable
	expect := func(n int32) []byte { return join(i32const(n), []byte{0x47}, wrong) }
	down := join([]byte{0x20, 0}, i32const(1), []byte{0x6b}) // n - 1
	helper := func(typ byte, code []byte) func(*module) {
		return func(m *module) { m.funcs = append(m.funcs, fn{typ: typ, code: code}) }
	}
	for _, c := range []struct {
		name  string
		batch []byte
		with  []func(*module)
		deep  bool
	}{
		{"direct", []byte{0x20, 0, 0x20, 1, 0x10, 4}, nil, true},
		{"mutual", []byte{0x20, 0, 0x20, 1, 0x10, 5}, []func(*module){helper(tII64, []byte{0x20, 0, 0x20, 1, 0x10, 6}), helper(tII64, []byte{0x20, 0, 0x20, 1, 0x10, 4})}, true},
		{"indirect", []byte{0x20, 0, 0x20, 1, 0x41, 0, 0x11, tII64, 0}, []func(*module){table}, true},
		{"through a helper that calls indirectly", []byte{0x20, 0, 0x20, 1, 0x10, 5}, []func(*module){table, helper(tII64, []byte{0x20, 0, 0x20, 1, 0x41, 0, 0x11, tII64, 0})}, true},
		{"two results, by return", join(i32const(1000), []byte{0x10, 5}, expect(9), expect(7), result(0, 0)), []func(*module){
			helper(tTwo, join([]byte{0x20, 0, 0x45, 0x04, 0x40}, i32const(7), i32const(9), []byte{0x0f, 0x0b}, down, []byte{0x10, 5})),
		}, false},
		{"by a branch to the function", join(i32const(0), []byte{0x10, 5}, expect(5), result(0, 0)), []func(*module){
			helper(tI32I32, join([]byte{0x02, 0x40}, i32const(5), []byte{0x20, 0, 0x0d, 1, 0x1a, 0x0b, 0x20, 0}, i32const(1), []byte{0x6a, 0x10, 5})),
		}, false},
		{"by a table of branches", join(i32const(3), []byte{0x10, 5}, expect(8), result(0, 0)), []func(*module){
			helper(tI32I32, join([]byte{0x03, 0x40}, i32const(8), []byte{0x20, 0, 0x45, 0x0e, 1, 1, 1, 0x0b}, down, []byte{0x10, 5})),
		}, false},
		{"nothing, by the end", join([]byte{0x10, 5}, result(0, 0)), []func(*module){
			helper(tVoid, join(i32const(0), []byte{0x04, 0x40, 0x10, 5, 0x0f, 0x0b})),
		}, false},
		{"deep, and within bounds", join(i32const(30_000), []byte{0x10, 5}, expect(1), result(0, 0)), []func(*module){
			helper(tI32I32, join([]byte{0x20, 0, 0x45, 0x04, 0x40}, i32const(1), []byte{0x0f, 0x0b}, down, []byte{0x10, 5})),
		}, false},
		{"deeper", join(i32const(50_000), []byte{0x10, 5}, expect(1), result(0, 0)), []func(*module){
			helper(tI32I32, join([]byte{0x20, 0, 0x45, 0x04, 0x40}, i32const(1), []byte{0x0f, 0x0b}, down, []byte{0x10, 5})),
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := load(t, Config{Module: hand(c.batch, c.with...), noSelfTest: true})
			if c.deep {
				if _, err := p.Inspect(t.Context(), event(core.KindCommand)); !errors.Is(err, errStack) {
					t.Errorf("%v", err)
				}
				return
			}
			for range 50 {
				ask(t, p, event(core.KindCommand))
			}
			if d := p.pool.free[0].mod.ExportedGlobal(depthExport).Get(); d != 0 {
				t.Errorf("%d frames are left", d)
			}
			plain := load(t, Config{Module: hand(c.batch, c.with...), noFuel: true}) // the same without the rewriting
			ask(t, plain, event(core.KindCommand))
		})
	}
	named := hand(join([]byte{0x41, 0, 0x24, 1}, result(0, 0)))
	if _, _, err := instrument(named, true); err == nil {
		t.Error("a guest names the depth")
	}
	if _, _, err := instrument(hand(result(0, 0), func(m *module) { m.funcs = append(m.funcs, fn{typ: tVoid, export: depthExport}) }), true); err == nil {
		t.Error("a guest exports a depth of its own")
	}
}

// TestCycles: without the functions that count, no cycle of calls is left.
func TestCycles(t *testing.T) {
	for name, calls := range map[string][][]uint32{
		"none":         {{1, 2}, {2}, nil},
		"self":         {{0}},
		"two":          {{1}, {0}},
		"figure eight": {{1, 2}, {0}, {3}, {0}},
		"nested":       {{1}, {2, 1}, {3}, {1, 0}},
		"apart":        {{1}, {0}, {3}, {2}, {4}},
		"dense":        {{0, 1, 2, 3}, {0, 1, 2, 3}, {0, 1, 2, 3}, {0, 1, 2, 3}},
	} {
		counts := make([]bool, len(calls))
		(&rewriter{}).cycles(calls, counts)
		// what is left must be without cycles: take leaves away until nothing is left
		gone := slices.Clone(counts)
		for range calls {
			for i := range calls {
				leaf := true
				for _, f := range calls[i] {
					leaf = leaf && gone[f]
				}
				gone[i] = gone[i] || leaf
			}
		}
		if slices.Contains(gone, false) {
			t.Errorf("%s: %v leaves a cycle", name, counts)
		}
		if name == "none" && slices.Contains(counts, true) {
			t.Errorf("%s: %v", name, counts)
		}
	}
}
