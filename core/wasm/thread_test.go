package wasm

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/tetratelabs/wazero"
)

// dispatcher makes a function as Go's compiler does: a loop around a table of branches by local 1, with so many blocks of
// code. code gives that of a block,
// around which that many others are open, then the loop, and then a block to leave it by.
func dispatcher(blocks int, code func(block, around int) []byte) []byte {
	out := []byte{0x02, 0x40, 0x03, 0x40}
	for range blocks {
		out = append(out, 0x02, 0x40)
	}
	out = appendU32(append(out, 0x20, 1, 0x0e), uint32(blocks-1))
	for i := range blocks {
		out = appendU32(out, uint32(i))
	}
	for i := range blocks {
		out = append(append(out, 0x0b), code(i, blocks-1-i)...)
	}
	return append(out, 0x0b, 0x0b)
}

// note appends a number to what local 2 holds.
func note(n int) []byte {
	return join([]byte{0x20, 2}, i32const(31), []byte{0x6c}, i32const(int32(n)), []byte{0x6a, 0x21, 2})
}

// jump sets the number of the next block, and goes to the loop.
func jump(to, out int) []byte {
	return appendU32(append(join(i32const(int32(to)), []byte{0x21, 1}), 0x0c), uint32(out))
}

// run calls a module's function of one i32.
func run(t testing.TB, module []byte, arg uint64) (uint64, error) {
	t.Helper()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	defer r.Close(ctx)
	if _, err := r.NewHostModuleBuilder(tickModule).NewFunctionBuilder().WithFunc(func() {}).Export(tickName).Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	m, err := r.Instantiate(ctx, module)
	if err != nil {
		return 0, err
	}
	got, err := m.ExportedFunction("f").Call(ctx, arg)
	if err != nil {
		return 0, err
	}
	return got[0], nil
}

func oneFunction(code []byte) []byte {
	return (&module{funcs: []fn{{typ: tI32I32, locals: []byte{3}, code: append(code, 0x20, 2), export: "f"}}}).bytes()
}

// TestThreads: a jump whose block is known goes there at once; one that is not, or that leads back, is left as it is; and the
// function does what it did.
func TestThreads(t *testing.T) {
	leave := func(around int) []byte { return appendU32([]byte{0x0c}, uint32(around+1)) } // out of the loop
	for name, c := range map[string]struct {
		code   []byte
		direct int
	}{
		"forward": {dispatcher(4, func(i, around int) []byte {
			if i == 0 {
				return join(note(1), jump(2, around))
			}
			return join(note(10+i), leave(around))
		}), 1},
		"within an if": {dispatcher(4, func(i, around int) []byte {
			if i == 0 {
				return join([]byte{0x20, 0, 0x04, 0x40}, jump(2, around+1), []byte{0x0b}, note(5), jump(3, around))
			}
			return join(note(10+i), leave(around))
		}), 2},
		"back, until a count is over": {dispatcher(3, func(i, around int) []byte {
			if i == 1 {
				return join(note(3), []byte{0x20, 0, 0x45, 0x04, 0x40}, jump(2, around+1), []byte{0x0b}, []byte{0x20, 0}, i32const(1), []byte{0x6b, 0x21, 0}, jump(1, around))
			}
			if i == 0 {
				return note(9)
			}
			return leave(around)
		}), 1},
		"to the default": {dispatcher(3, func(i, around int) []byte {
			if i == 0 {
				return jump(77, around)
			}
			return join(note(20+i), leave(around))
		}), 1},
		"by another local": {dispatcher(3, func(i, around int) []byte {
			if i == 0 {
				return join([]byte{0x20, 2}, []byte{0x45, 0x04, 0x40}, note(1), i32const(2), []byte{0x21, 3, 0x0c}, appendU32(nil, uint32(around+1)), []byte{0x0b}, jump(1, around))
			}
			return join(note(30+i), leave(around))
		}), 1},
		"with something in between": {dispatcher(3, func(i, around int) []byte {
			if i == 0 {
				return join([]byte{0x20, 2}, []byte{0x45, 0x04, 0x40}, note(1), i32const(1), []byte{0x21, 1}, i32const(2), []byte{0x1a, 0x0c}, appendU32(nil, uint32(around+1)), []byte{0x0b}, leave(around))
			}
			return join(note(40+i), leave(around))
		}), 0},
		"to a loop without a table": {[]byte{0x03, 0x40, 0x20, 1, 0x04, 0x40, 0x05, 0x41, 1, 0x21, 1, 0x0c, 1, 0x0b, 0x0b}, 0},
		"a table behind other code": {join([]byte{0x03, 0x40}, note(3), []byte{0x02, 0x40, 0x02, 0x40, 0x20, 1, 0x0e, 1, 0, 1, 0x0b, 0x41, 1, 0x21, 1, 0x0c, 1, 0x0b, 0x0b}), 0},
		"to a block of the same depth as one that is closed": {
			// The loop's table leads out of its first block; the jump stands in another at the same place.
			[]byte{0x03, 0x40, 0x02, 0x40, 0x02, 0x40, 0x20, 1, 0x0e, 1, 0, 1, 0x0b, 0x02, 0x40, 0x20, 2, 0x0d, 0, 0x41, 1, 0x21, 2, 0x41, 0, 0x21, 1, 0x0c, 2, 0x0b, 0x0b, 0x0b}, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := oneFunction(c.code)
			fueled, p, err := instrument(m, true)
			if err != nil {
				t.Fatal(err)
			}
			if p.direct != c.direct {
				t.Errorf("%d jumps are direct, want %d", p.direct, c.direct)
			}
			for arg := range uint64(3) {
				want, err := run(t, m, arg)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := run(t, fueled, arg); err != nil || got != want {
					t.Errorf("of %d: %d, %v; want %d", arg, got, err, want)
				}
			}
		})
	}
}

// TestThreadsRandom: functions of random jumps do what they did.
func TestThreadsRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	direct := 0
	for range 300 {
		blocks := 2 + rnd.IntN(9)
		code := dispatcher(blocks, func(i, around int) []byte {
			var b []byte
			for range 1 + rnd.IntN(3) {
				// Each turn takes one of what there is; where there is none left, it is over.
				b = join(b, note(i+1), []byte{0x20, 0, 0x45, 0x04, 0x40}, appendU32([]byte{0x0c}, uint32(around+2)), []byte{0x0b},
					[]byte{0x20, 0}, i32const(1), []byte{0x6b, 0x21, 0})
				to := rnd.IntN(blocks + 1)
				switch rnd.IntN(4) {
				case 0:
					b = join(b, []byte{0x20, 2}, i32const(int32(rnd.IntN(7)+1)), []byte{0x70, 0x04, 0x40}, jump(to, around+1), []byte{0x0b})
				case 1:
					b = join(b, []byte{0x02, 0x40, 0x20, 2}, i32const(int32(rnd.IntN(5)+1)), []byte{0x70, 0x0d, 0}, jump(to, around+1), []byte{0x0b})
				case 2:
					b = join(b, []byte{0x03, 0x40, 0x20, 2}, i32const(3), []byte{0x70, 0x04, 0x40}, jump(to, around+2), []byte{0x0b, 0x0b})
				default:
					b = join(b, []byte{0x20, 2}, i32const(int32(rnd.IntN(blocks)+1)), []byte{0x70, 0x21, 1})
				}
			}
			if rnd.IntN(2) == 0 {
				b = append(b, jump(rnd.IntN(blocks), around)...)
			}
			return b
		})
		m := oneFunction(code)
		fueled, p, err := instrument(m, true)
		if err != nil {
			t.Fatal(err)
		}
		direct += p.direct
		for _, arg := range []uint64{0, 1, 2, 5, 40} {
			want, err := run(t, m, arg)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := run(t, fueled, arg); err != nil || got != want {
				t.Fatalf("of %d: %d, %v; want %d: %x", arg, got, err, want, code)
			}
		}
	}
	if direct < 300 {
		t.Errorf("only %d jumps were made direct", direct)
	}
}

// TestThreadsOfGo: what Go compiles has the form that is looked for; if a later version has another, guests are slower, and
// this says so.
func TestThreadsOfGo(t *testing.T) {
	m, err := os.ReadFile("../../sdk/go/examples/mask/mask.wasm")
	if err != nil {
		t.Skipf("%v: make sdks builds it", err)
	}
	_, p, err := instrument(m, true)
	if err != nil {
		t.Fatal(err)
	}
	all := bytes.Count(m, []byte{0x21, 0, 0x0c}) // local.set 0, br
	if t.Logf("%d of about %d jumps are direct", p.direct, all); p.direct < all/3 {
		t.Error("they are too few")
	}
}
