package wasm

// Go compiles a function to one loop around a table of branches: a jump sets the number of a block of code and goes to the
// start of the loop, which looks the number up. Each jump, also one that only leads forward, so pays for the table, for the
// fuel of a turn, and for what the engine has to put in order where a loop begins. Where such a jump leads forward
// its target is the end of a block that is still open, so the rewriting lets it go there at once:
//
//	loop                                     ;; a table leads to the blocks' ends by their number in x
//	  block block … local.get x br_table …
//	  …
//	  i32.const n  local.set x  br loop      ;; becomes  i32.const n  local.set x  br block
//
// It means the same in any module: only jumps are changed whose number is known, to where the table would lead them.
// What jumps back still turns the loop, and is charged for it.

// noBlock is a target that is no block within the loop.
const noBlock = -1

// opening is a block, loop or if that is open.
type opening struct {
	serial int   // which of the function's it is, from 0
	local  int64 // of a loop that begins with a table: whose value is looked up in it; -1: there is none
	table  []int // the serials of the blocks that it leads out of; the last is the default
}

// threads follows the code of a function.
type threads struct {
	open   []opening
	serial int
	begun  int   // which of open is the loop that has just begun, with nothing but blocks since; -1: none
	looked int64 // the local that was read since then; -1: none
	number int64 // the constant that the last instruction gave, or the one before, and
	set    int64 // the local that it was then set to; -1: none
}

func newThreads() threads { return threads{begun: -1, looked: -1, number: -1, set: -1} }

// see follows the next instruction, whose opcode was read from r, and leaves r where it is. For a branch that may lead
// elsewhere at once it says how many openings out.
func (t *threads) see(r *reader, op byte) (out uint32, ok bool) {
	at := reader{b: r.b, i: r.i}
	begun, looked, number, set := t.begun, t.looked, t.number, t.set
	t.begun, t.looked, t.number, t.set = -1, -1, -1, -1
	switch op {
	case 0x02, 0x03, 0x04: // block, loop, if
		plain := at.byte() == 0x40
		switch {
		case op == 0x02 && plain && looked < 0:
			t.begun = begun
		case op == 0x03 && plain:
			t.begun = len(t.open)
		}
		t.open = append(t.open, opening{serial: t.serial, local: -1})
		t.serial++
	case 0x0b: // end
		if n := len(t.open); n > 0 {
			t.open = t.open[:n-1]
		}
	case 0x20: // local.get
		if begun >= 0 && looked < 0 {
			t.begun, t.looked = begun, int64(at.u32())
		}
	case 0x0e: // br_table
		if looked >= 0 {
			t.open[begun].local, t.open[begun].table = looked, t.table(&at, begun)
		}
	case 0x41: // i32.const; no function has a block of a larger number
		if low := at.byte(); low < 0x40 {
			t.number = int64(low)
		} else if low >= 0x80 {
			if high := at.byte(); high < 0x40 {
				t.number = int64(low&0x7f) | int64(high)<<7
			}
		}
	case 0x21: // local.set
		if number >= 0 && set < 0 {
			t.number, t.set = number, int64(at.u32())
		}
	case 0x0c: // br
		if set >= 0 {
			return t.target(at.u32(), number, set)
		}
	}
	return 0, false
}

// table reads where a table of branches leads that stands behind the blocks that a loop begins with.
func (t *threads) table(at *reader, loop int) []int {
	n := at.u32()
	if int(n) >= len(at.b) {
		panic(malformed{errTruncated})
	}
	all := make([]int, 0, n+1)
	for range n + 1 {
		to := noBlock // the loop itself, or what is around it
		if out := at.u32(); int64(out) < int64(len(t.open)-1-loop) {
			to = t.open[len(t.open)-1-int(out)].serial
		}
		all = append(all, to)
	}
	return all
}

// target says how far out a branch to a loop leads when a local has a number, if that block is still open.
func (t *threads) target(out uint32, number, local int64) (uint32, bool) {
	n := len(t.open)
	if int64(out) >= int64(n) {
		return 0, false
	}
	loop := n - 1 - int(out)
	l := &t.open[loop]
	if l.local != local {
		return 0, false
	}
	block := l.table[min(int(number), len(l.table)-1)]
	for i := n - 1; i > loop && block != noBlock; i-- {
		if t.open[i].serial == block {
			return uint32(n - 1 - i), true
		}
	}
	return 0, false
}
