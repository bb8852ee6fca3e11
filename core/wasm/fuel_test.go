package wasm

import (
	"errors"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// repeat is code that runs some other so many times, with local 2 for the count.
func repeat(n int32, code ...byte) []byte {
	return join(i32const(n), []byte{0x21, 2, 0x03, 0x40}, code, []byte{0x20, 2}, i32const(1), []byte{0x6b, 0x22, 2, 0x0d, 0, 0x0b})
}

// TestFuel: what a guest does is charged, however it spreads it over loops and calls, and what it takes ahead it gives back.
func TestFuel(t *testing.T) {
	short := func(m *module) { // a function with a loop of ten rounds
		m.funcs = append(m.funcs, fn{typ: tVoid, locals: []byte{3}, code: repeat(10)})
	}
	early := func(m *module) { // one that leaves its loop, and the function, from within
		m.funcs = append(m.funcs, fn{typ: tVoid, locals: []byte{3}, code: []byte{0x03, 0x40, 0x0f, 0x0b}})
	}
	for _, c := range []struct {
		name        string
		code        []byte
		with        func(*module)
		least, most int64 // units
	}{
		{"nothing", nil, nil, 1, 40},
		{"a loop", repeat(1000), nil, 5_000, 8_000},
		{"a thousand calls of a short loop", repeat(1000, 0x10, 5), short, 50_000, 90_000},
		{"a thousand calls that leave a loop early", repeat(1000, 0x10, 5), early, 8_000, 20_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			var with []func(*module)
			if c.with != nil {
				with = append(with, c.with)
			}
			p := load(t, Config{Module: hand(join(c.code, result(0, 0)), with...), noSelfTest: true, Limits: Limits{Command: time.Minute}})
			ask(t, p, event(core.KindCommand))
			in := p.pool.free[0]
			used := int64(in.spent) + slice - int64(in.fuel.Get())
			if used < c.least || used > c.most {
				t.Errorf("charged %d, want %d to %d", used, c.least, c.most)
			}
		})
	}
	// Endless, in ways in which each loop and each call is short.
	for name, c := range map[string]struct {
		code []byte
		with func(*module)
	}{
		"calls of a short loop for ever": {[]byte{0x03, 0x40, 0x10, 5, 0x0c, 0, 0x0b}, short},
		"calls of a trap-free leaf":      {[]byte{0x03, 0x40, 0x10, 5, 0x0c, 0, 0x0b}, func(m *module) { m.funcs = append(m.funcs, fn{typ: tVoid}) }},
		"recursion out of loops": {
			// n levels, of which each calls the next from a loop of ten rounds: 10^n calls
			join(i32const(40), []byte{0x10, 5, 0x1a}),
			func(m *module) {
				m.funcs = append(m.funcs, fn{typ: tI32I32, locals: []byte{3}, code: join([]byte{0x20, 0, 0x45, 0x04, 0x40}, i32const(0), []byte{0x0f, 0x0b},
					repeat(10, join([]byte{0x20, 0}, i32const(1), []byte{0x6b, 0x10, 5, 0x1a})...), i32const(0))})
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := load(t, Config{Module: hand(join(c.code, result(0, 0)), c.with), noSelfTest: true, Limits: Limits{Command: 20 * time.Millisecond}})
			start := time.Now()
			if _, err := p.Inspect(t.Context(), event(core.KindCommand)); !errors.Is(err, errDeadline) {
				t.Errorf("%v", err)
			}
			if d := time.Since(start); d > time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}
