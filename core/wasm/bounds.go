package wasm

// The compiler runs in the gateway's own process and cannot be stopped, so what would take it long, or much memory, is refused
// before. All these are well above what compilers make: the largest guest in Go of this repository has 1,800 functions, 18 types,
// 9 exports, 31,000 segments of data, and comes to 19 million of maxEfforts and 4 million of maxEffort.
const (
	maxModule    = 16 << 20
	maxBody      = 128 << 10
	maxFunctions = 40_000
	maxLocals    = 4096
	maxTypes     = 4096
	maxParams    = 128
	maxResults   = 16
	maxImports   = 256
	maxExports   = 4096
	maxGlobals   = 10_000
	maxTables    = 16
	maxTable     = 1 << 16 // entries of all of them, and of what fills them
	maxSegments  = 100_000 // of data
)

// What a function costs the compiler, in units of a quarter of a microsecond at worst: with the square of its branches, and with these
// times its locals; with the square of what its tables of branches have; and for each instruction that may trap or calls.
const (
	maxEffort  = 12_000_000
	maxEfforts = 48_000_000
)

// most fails where there is more of something than is taken.
func most(n, limit uint32, what string) {
	if n > limit {
		fail("it has %d %s: at most %d are taken", n, what, limit)
	}
}

// work is what a function has of the things that the compiler's time depends on.
type work struct {
	branches, ways, accesses, calls, others uint64
	widest                                  uint64 // values that a block takes and returns
}

func (x *work) add(w *rewriter, r *reader, op byte) {
	switch {
	case op >= 0x02 && op <= 0x04: // block, loop, if
		x.branches++
		if t := r.peek(); t&0x40 == 0 || t&0x80 != 0 { // an index of a type, and not 0x40 or a type of values
			if i := (&reader{b: r.b, i: r.i}).u32(); int(i) < len(w.arity) {
				x.widest = max(x.widest, uint64(w.arity[i]))
			}
		}
	case op == 0x0d: // br_if
		x.branches++
	case op == 0x0e: // br_table
		x.branches++
		x.ways += uint64((&reader{b: r.b, i: r.i}).u32())
	case op == 0x10:
		x.calls++
	case op == 0x11, op == 0x25, op == 0x26, op >= 0x28 && op <= 0x40, // call_indirect, tables, memory
		op >= 0x6d && op <= 0x70, op >= 0x7f && op <= 0x82, op >= 0xa8 && op <= 0xb1, op >= 0xfc: // divisions, conversions, the others
		x.accesses++
	default:
		x.others++
	}
}

func (x *work) effort(locals uint64) uint64 {
	return x.branches*(x.branches+16*(locals+x.widest)) + x.ways*x.ways/128 + 32*x.accesses + 16*x.calls + x.others
}
