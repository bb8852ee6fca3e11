package wasm

// The engine lets a stack grow to a hundred megabytes before it stops a recursion, and copies it on the way there. So
// the rewriting also counts how deep the calls are. It need not count all of them: every recursion goes through a
// function that calls indirectly, or through one at which a cycle of direct calls closes. Only those count, by what
// their frames may take, when they are entered and when they return; everything else costs nothing.

const (
	depthExport = "weir.depth"
	// maxDepth is in units of a small frame. It keeps ordinary recursion below ten megabytes or so.
	maxDepth = 40_000
)

// graph finds the functions that have to count, and those with loops. body i is that of the i-th function that the guest
// defines.
func (w *rewriter) graph(bodies [][]byte, shapes []shape) {
	calls := make([][]uint32, len(bodies))
	counts := make([]bool, len(bodies))
	var scratch []byte
	for i, b := range bodies {
		r := &reader{b: b}
		for range r.u32() {
			r.u32()
			r.byte()
		}
		for depth := 1; depth > 0; {
			op := r.byte()
			switch op {
			case 0x02, 0x04:
				depth++
			case 0x03:
				depth++
				shapes[i].loops = true
			case 0x0b:
				depth--
			case 0x10:
				if f := (&reader{b: r.b, i: r.i}).u32(); f >= w.nImports {
					calls[i] = append(calls[i], f-w.nImports)
				}
			case 0x11:
				counts[i] = true
			}
			scratch = w.instruction(r, scratch[:0], op)
		}
	}
	w.cycles(calls, counts)
	for i := range shapes {
		shapes[i].counts = counts[i]
	}
}

// cycles marks the functions to which a search through the calls comes back while it is still among their callees:
// without them, no cycle of direct calls is left. Functions that count already need not be searched.
func (w *rewriter) cycles(calls [][]uint32, counts []bool) {
	const (
		fresh = iota
		open
		done
	)
	state := make([]uint8, len(calls))
	type visit struct {
		f    uint32
		next int
	}
	var path []visit
	for i := range calls {
		if state[i] != fresh || counts[i] {
			continue
		}
		state[i] = open
		path = append(path[:0], visit{f: uint32(i)})
		for len(path) > 0 {
			v := &path[len(path)-1]
			if v.next == len(calls[v.f]) {
				state[v.f] = done
				path = path[:len(path)-1]
				continue
			}
			f := calls[v.f][v.next]
			v.next++
			switch {
			case counts[f]:
			case state[f] == open:
				counts[f] = true
			case state[f] == fresh:
				state[f] = open
				path = append(path, visit{f: f})
			}
		}
	}
}

// weight is what a function's frame counts: for its variables, and for what its code may keep besides.
func weight(locals uint64, body int) uint32 { return uint32(1 + locals/8 + uint64(body)/1024) }

// enter adds a frame, and asks the host when there are too many.
func (w *rewriter) enter(out []byte, weight uint32) []byte {
	out = w.count(out, int64(weight))
	out = appendU32(append(out, 0x23), w.nGlobals+1) // global.get depth
	out = appendSigned(append(out, 0x41), maxDepth)  // i32.const
	out = append(out, 0x4b, 0x04, 0x40)              // i32.gt_u, if
	out = appendU32(append(out, 0x10), w.nImports)   // call tick
	return append(out, 0x0b)                         // end
}

// count adds to the depth.
func (w *rewriter) count(out []byte, n int64) []byte {
	out = appendU32(append(out, 0x23), w.nGlobals+1)
	out = appendSigned(append(out, 0x41), n)
	out = append(out, 0x6a) // i32.add
	return appendU32(append(out, 0x24), w.nGlobals+1)
}

func appendSigned(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
