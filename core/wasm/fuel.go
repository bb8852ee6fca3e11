package wasm

import (
	"errors"
	"fmt"
	"slices"
)

// A guest is interrupted by its own code: at load time every function entry and every loop header gets a few
// instructions that take the cost of what follows, and call the host's tick when there is none left. Fuel is in a global;
// a function with loops takes an advance of it into a local, which the loops use up in a register, and gives back what is
// left when it returns. As it is taken ahead, no depth of calls hides any use. tick looks at the deadline, lets other goroutines run, and refills. This stops loops and recursion alike, at a
// small price; wazero's own WithCloseOnContextDone costs about ten times the guest's run time and does not stop
// recursion.
//
// The rewriting adds function types, one imported function (weir.tick, behind the guest's own imports, so that the
// index of every function the guest defines grows by one), two globals and their exports. All of that is appended, and a
// guest that names an index beyond its own is refused, so that it can neither read nor fill its fuel. On the way the jumps of
// Go's guests are made shorter (thread.go).

const (
	fuelExport = "weir.fuel"
	tickModule = "weir"
	tickName   = "tick"
)

// slice is how many units a guest runs between two looks at the deadline: some 20 µs of ordinary code. A stretch costs
// its instructions, but no more than maxCost: a compiler that puts a whole function into one loop (Go does) would
// otherwise be charged for what it does not run. The longest stretch that a body can hold runs about 20 µs, so that
// even the worst guest is looked at every 15 ms or so.
const (
	slice   = 200_000
	maxCost = 256
	advance = 4096
)

// importedFunc is what a guest wants of its host.
type importedFunc struct{ module, name string }

// parsed is what the rewriting learned of a module.
type parsed struct {
	imports     []importedFunc
	memories    int
	memoryPages uint32 // the least it starts with
	custom      map[string][]byte
	direct      int // jumps that need no table any more
}

// section ids of the binary format.
const (
	secCustom byte = iota
	secType
	secImport
	secFunction
	secTable
	secMemory
	secGlobal
	secExport
	secStart
	secElement
	secCode
	secData
	secDataCount
)

// order is the place of each section in a module.
var order = [...]int{secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secGlobal: 6, secExport: 7, secStart: 8, secElement: 9, secDataCount: 10, secCode: 11, secData: 12}

var magic = []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

// rewriter holds what is known of a module while it is rewritten.
type rewriter struct {
	parsed
	fuel       bool
	params     []uint32 // how many parameters each type has
	arity      []uint32 // and how many results besides
	results    [][]byte // what each type returns, as a block that returns it says it
	functions  []uint32 // the type of each function the guest defines
	nImports   uint32
	nGlobals   uint32
	tickType   uint32
	sections   [secDataCount + 1][]byte
	has        [secDataCount + 1]bool
	insertions []insertion
	effort     uint64 // so far
}

// instrument checks a module and returns it with fuel. With fuel false it is only checked; custom sections go in
// either case.
func instrument(module []byte, fuel bool) (out []byte, p *parsed, err error) {
	defer func() {
		if r := recover(); r != nil {
			m, ok := r.(malformed)
			if !ok {
				panic(r)
			}
			out, p, err = nil, nil, m.error
		}
	}()
	if len(module) > maxModule {
		return nil, nil, fmt.Errorf("it has %d bytes: at most %d are taken", len(module), maxModule)
	}
	if len(module) < len(magic) || !slices.Equal(module[:len(magic)], magic) {
		return nil, nil, errors.New("it is no WebAssembly module of version 1")
	}
	w := &rewriter{fuel: fuel}
	w.custom = map[string][]byte{}
	w.split(module[len(magic):])
	w.types()
	w.importsSection()
	w.functionSection()
	w.tables()
	w.memorySection()
	w.globals()
	w.exports()
	if w.has[secStart] {
		fail("it has a start section: export _initialize instead")
	}
	w.elements()
	if w.has[secData] {
		most((&reader{b: w.sections[secData]}).u32(), maxSegments, "segments of data")
	}
	w.code()
	return w.join(), &w.parsed, nil
}

func (w *rewriter) split(b []byte) {
	r := &reader{b: b}
	last := 0
	for !r.done() {
		id := r.byte()
		body := r.take(r.u32())
		if id == secCustom {
			c := &reader{b: body}
			name := c.name()
			if _, twice := w.custom[name]; twice && name == ManifestSection {
				fail("it has two sections %s", name)
			}
			if name == ManifestSection {
				w.custom[name] = c.b[c.i:]
			}
			continue
		}
		if int(id) >= len(order) {
			fail("section %d is not known", id)
		}
		if order[id] <= last {
			fail("section %d is at the wrong place", id)
		}
		last = order[id]
		w.sections[id], w.has[id] = body, true
	}
}

func (w *rewriter) join() []byte {
	out := slices.Clone(magic)
	ids := []byte{secType, secImport, secFunction, secTable, secMemory, secGlobal, secExport, secElement, secDataCount, secCode, secData}
	for _, id := range ids {
		if w.has[id] {
			out = append(out, id)
			out = appendU32(out, uint32(len(w.sections[id])))
			out = append(out, w.sections[id]...)
		}
	}
	return out
}

// extend writes a section back with more entries at its end.
func (w *rewriter) extend(id byte, entries uint32, body []byte, more ...byte) {
	b := appendU32(make([]byte, 0, len(body)+len(more)+5), entries)
	w.sections[id], w.has[id] = append(append(b, body...), more...), true
}

func (w *rewriter) types() {
	r := &reader{b: w.sections[secType]}
	n := uint32(0)
	if w.has[secType] {
		n = r.u32()
	}
	start := r.i
	var more []byte // () -> () for tick, and what blocks of several results need
	all := n
	add := func(results []byte) uint32 {
		more = append(appendU32(append(more, 0x60, 0), uint32(len(results))), results...)
		all++
		return all - 1
	}
	w.tickType = add(nil)
	most(n, maxTypes, "types")
	for range n {
		if r.byte() != 0x60 {
			fail("a type is no function type")
		}
		params := r.u32()
		most(params, maxParams, "parameters of a function")
		r.take(params)
		results := r.take(r.u32())
		most(uint32(len(results)), maxResults, "results of a function")
		w.params = append(w.params, params)
		w.arity = append(w.arity, params+uint32(len(results)))
		switch len(results) {
		case 0:
			results = []byte{0x40}
		case 1:
		default:
			results = appendSigned(nil, int64(add(results)))
		}
		w.results = append(w.results, results)
	}
	r.end()
	if w.fuel {
		w.extend(secType, all, r.b[start:r.i], more...)
	}
}

func (w *rewriter) importsSection() {
	r := &reader{b: w.sections[secImport]}
	n := uint32(0)
	if w.has[secImport] {
		n = r.u32()
	}
	most(n, maxImports, "imports")
	start := r.i
	for range n {
		f := importedFunc{module: r.name(), name: r.name()}
		if kind := r.byte(); kind != 0 {
			fail("it imports %s.%s, which is no function", f.module, f.name)
		}
		r.u32()
		if f.module == tickModule {
			fail("it imports %s.%s: that module is the gateway's own", f.module, f.name)
		}
		w.imports = append(w.imports, f)
	}
	r.end()
	w.nImports = n
	if w.fuel {
		more := appendU32(append(appendName(appendName(nil, tickModule), tickName), 0), w.tickType)
		w.extend(secImport, n+1, r.b[start:r.i], more...)
	}
}

func (w *rewriter) functionSection() {
	if !w.has[secFunction] {
		return
	}
	r := &reader{b: w.sections[secFunction]}
	n := r.u32()
	most(n, maxFunctions, "functions")
	for range n {
		t := r.u32()
		if int(t) >= len(w.params) {
			fail("a function has no type")
		}
		w.functions = append(w.functions, t)
	}
	r.end()
}

func (w *rewriter) tables() {
	if !w.has[secTable] {
		return
	}
	r := &reader{b: w.sections[secTable]}
	n, all := r.u32(), uint32(0)
	most(n, maxTables, "tables")
	for range n {
		if t := r.byte(); t != 0x70 && t != 0x6f {
			fail("a table has an unknown type")
		}
		least, _ := r.limits()
		if least > maxTable {
			fail("a table has %d entries: at most %d are taken", least, maxTable)
		}
		all += least
	}
	most(all, maxTable, "entries of tables")
	r.end()
}

func (w *rewriter) memorySection() {
	if !w.has[secMemory] {
		return
	}
	r := &reader{b: w.sections[secMemory]}
	for range r.u32() {
		w.memories++
		w.memoryPages, _ = r.limits()
	}
	r.end()
}

func (w *rewriter) globals() {
	r := &reader{b: w.sections[secGlobal]}
	n := uint32(0)
	if w.has[secGlobal] {
		n = r.u32()
	}
	most(n, maxGlobals, "globals")
	w.nGlobals = n
	var out []byte
	for range n {
		out = append(out, r.byte(), r.byte()) // type, mutability
		out = w.constant(r, out)
	}
	r.end()
	if w.fuel {
		w.extend(secGlobal, n+2, out, 0x7e, 1, 0x42, 0, 0x0b, 0x7f, 1, 0x41, 0, 0x0b) // fuel: i64, mutable, 0; depth: i32, mutable, 0
	}
}

// constant copies an initialising expression.
func (w *rewriter) constant(r *reader, out []byte) []byte {
	for {
		op := r.byte()
		switch op {
		case 0x0b, 0x23, 0x41, 0x42, 0x43, 0x44, 0xd0, 0xd2:
			out = w.instruction(r, out, op)
		case 0xfd:
			at := r.i
			if r.u32() != 12 {
				fail("an initialising expression is not constant")
			}
			r.take(16)
			out = append(append(out, op), r.b[at:r.i]...)
		default:
			fail("an initialising expression is not constant")
		}
		if op == 0x0b {
			return out
		}
	}
}

// function returns the new index of a function.
func (w *rewriter) function(i uint32) uint32 {
	if int(i) >= int(w.nImports)+len(w.functions) {
		fail("a function does not exist")
	}
	if w.fuel && i >= w.nImports {
		return i + 1
	}
	return i
}

func (w *rewriter) exports() {
	if !w.has[secExport] {
		fail("it exports nothing")
	}
	r := &reader{b: w.sections[secExport]}
	n := r.u32()
	most(n, maxExports, "exports")
	var out []byte
	for range n {
		name := r.name()
		kind, index := r.byte(), r.u32()
		if name == fuelExport || name == depthExport {
			fail("it exports %s, which is the gateway's own name", name)
		}
		switch kind {
		case 0:
			index = w.function(index)
		case 3:
			w.global(index)
		}
		out = appendU32(append(appendName(out, name), kind), index)
	}
	r.end()
	if w.fuel {
		more := appendU32(append(appendName(nil, fuelExport), 3), w.nGlobals)
		w.extend(secExport, n+2, out, appendU32(append(appendName(more, depthExport), 3), w.nGlobals+1)...)
	}
}

func (w *rewriter) global(i uint32) {
	if i >= w.nGlobals {
		fail("a global does not exist")
	}
}

func (w *rewriter) elements() {
	if !w.has[secElement] {
		return
	}
	r := &reader{b: w.sections[secElement]}
	n, all := r.u32(), uint32(0)
	most(n, maxTable, "table segments")
	out := make([]byte, 0, len(r.b))
	for range n {
		flag := r.u32()
		if flag > 7 {
			fail("a table segment has an unknown form")
		}
		out = appendU32(out, flag)
		if flag&1 == 0 { // active
			if flag&2 != 0 {
				out = appendU32(out, r.u32())
			}
			out = w.constant(r, out)
		}
		if flag&3 != 0 {
			out = append(out, r.byte()) // kind or type
		}
		entries := r.u32()
		most(entries, maxTable, "entries of a table segment")
		all += entries
		most(all, maxTable, "entries of table segments")
		out = appendU32(out, entries)
		for range entries {
			if flag&4 != 0 {
				out = w.constant(r, out)
			} else {
				out = appendU32(out, w.function(r.u32()))
			}
		}
	}
	r.end()
	w.extend(secElement, n, out)
}

// insertion is where the cost of a stretch of code has to be written once it is known.
type insertion struct {
	at    int
	cost  uint32
	ahead uint32 // more that is taken at the same time
}

func (w *rewriter) code() {
	if !w.has[secCode] {
		return
	}
	r := &reader{b: w.sections[secCode]}
	n := r.u32()
	if int(n) != len(w.functions) {
		fail("functions and bodies do not add up")
	}
	bodies := make([][]byte, n)
	for i := range bodies {
		size := r.u32()
		if size > maxBody {
			fail("a function has a body of %d bytes: at most %d are taken", size, maxBody)
		}
		bodies[i] = r.take(size)
	}
	r.end()
	shapes := make([]shape, n)
	if w.fuel {
		w.graph(bodies, shapes)
	}
	out := make([]byte, 0, len(r.b)+len(r.b)/4)
	var body []byte
	for i, b := range bodies {
		body = w.body(&reader{b: b}, w.functions[i], shapes[i], body[:0])
		out = append(appendU32(out, uint32(len(body))), body...)
	}
	w.extend(secCode, n, out)
}

// costPlace is a cost of zero in a form that can be overwritten by any cost below 1<<20.
var costPlace = []byte{0x80, 0x80, 0x00}

// shape is what the rewriting of a function depends on.
type shape struct {
	counts bool // it counts its depth
	loops  bool // it has loops
}

// body rewrites one function. One that has something to do when it is left has its code in a block of its results, so that
// whatever leaves it comes by the end.
func (w *rewriter) body(r *reader, typ uint32, s shape, out []byte) []byte {
	// Two i32 of our own stand behind the function's: the length of a bulk operation while it is charged, and what is left
	// of the advance.
	groups, locals := r.u32(), uint64(w.params[typ])
	start := r.i
	for range groups {
		locals += uint64(r.u32())
		r.byte()
	}
	if locals > maxLocals {
		fail("a function has %d locals: at most %d are taken", locals, maxLocals)
	}
	length, left := uint32(locals), uint32(locals)+1
	if w.fuel {
		out = append(appendU32(out, groups+1), r.b[start:r.i]...)
		out = append(out, 2, 0x7f)
	} else {
		out = append(appendU32(out, groups), r.b[start:r.i]...)
	}

	w.insertions = w.insertions[:0]
	var frames []int // for each open block, the stretch that its end returns to; -1: the same
	current := -1
	cost := func(ahead uint32) { // the operand of a constant
		out = append(out, costPlace...)
		w.insertions = append(w.insertions, insertion{len(out) - len(costPlace), 1, ahead})
		current = len(w.insertions) - 1
	}
	frame, wrapped := weight(locals, len(r.b)), s.counts || s.loops
	if w.fuel {
		out = append(appendU32(append(out, 0x23), w.nGlobals), 0x42) // global.get fuel, i64.const
		if s.loops {
			cost(advance)
			out = appendU32(append(appendSigned(append(w.charge(out), 0x41), advance), 0x21), left) // i32.const, local.set
		} else {
			cost(0)
			out = w.charge(out)
		}
	}
	if s.counts {
		out = w.enter(out, frame)
	}
	if wrapped {
		out = append(append(out, 0x02), w.results[typ]...)
	}
	var work work
	threads := newThreads()
	for depth := 1; depth > 0; {
		op := r.byte()
		work.add(w, r, op)
		ahead, direct := threads.see(r, op)
		if w.fuel {
			w.insertions[current].cost++
		}
		switch op {
		case 0x02, 0x04: // block, if
			frames = append(frames, -1)
			depth++
		case 0x03: // loop
			frames = append(frames, current)
			depth++
			out = w.instruction(r, out, op)
			if w.fuel {
				out = append(appendU32(append(out, 0x20), left), 0x41) // local.get, i32.const
				cost(0)
				out = w.again(out, left)
			}
			continue
		case 0x0b: // end
			depth--
			if n := len(frames); n > 0 {
				if frames[n-1] >= 0 {
					current = frames[n-1]
				}
				frames = frames[:n-1]
			}
		case 0x0f: // return
			if wrapped {
				out = appendU32(append(out, 0x0c), uint32(depth-1))
				continue
			}
		case 0x0c: // br
			if direct && w.fuel {
				r.u32()
				w.direct++
				out = appendU32(append(out, op), ahead)
				continue
			}
		case 0xfc:
			if w.fuel {
				out = w.bulk(r, out, length)
			}
		}
		out = w.instruction(r, out, op)
	}
	if s.loops { // what is left of the advance goes back
		out = appendU32(append(out, 0x23), w.nGlobals) // global.get fuel
		out = appendU32(append(out, 0x20), left)       // local.get
		out = append(out, 0xac, 0x7c)                  // i64.extend_i32_s, i64.add
		out = appendU32(append(out, 0x24), w.nGlobals) // global.set fuel
	}
	if s.counts {
		out = w.count(out, -int64(frame))
	}
	if wrapped {
		out = append(out, 0x0b)
	}
	if !r.done() {
		fail("a function has code behind its end")
	}
	effort := work.effort(locals)
	if w.effort += effort; effort > maxEffort || w.effort > maxEfforts {
		fail("its code would take too long to compile: a function has %d branches, %d ways out of tables of branches, %d locals and %d accesses of memory (split it)", work.branches, work.ways, locals, work.accesses)
	}
	for _, in := range w.insertions {
		c := min(in.cost, maxCost) + in.ahead
		out[in.at], out[in.at+1], out[in.at+2] = byte(c)|0x80, byte(c>>7)|0x80, byte(c>>14)
	}
	return out
}

// charge ends a charge: what is on the stack is fuel and cost. Below zero the host is asked.
func (w *rewriter) charge(out []byte) []byte {
	out = append(out, 0x7d)                        // i64.sub
	out = appendU32(append(out, 0x24), w.nGlobals) // global.set fuel
	out = appendU32(append(out, 0x23), w.nGlobals) // global.get fuel
	out = append(out, 0x42, 0, 0x53, 0x04, 0x40)   // i64.const 0, i64.lt_s, if
	out = appendU32(append(out, 0x10), w.nImports) // call tick
	return append(out, 0x0b)                       // end
}

// again charges another round of a loop: what is on the stack is what is left of the advance, and the cost. Where nothing is
// left there is another advance.
func (w *rewriter) again(out []byte, left uint32) []byte {
	out = appendU32(append(out, 0x6b, 0x22), left)                                      // i32.sub, local.tee
	out = append(out, 0x41, 0, 0x48, 0x04, 0x40)                                        // i32.const 0, i32.lt_s, if
	out = appendU32(append(out, 0x20), left)                                            // local.get
	out = appendU32(append(appendSigned(append(out, 0x41), advance), 0x6a, 0x21), left) // i32.const, i32.add, local.set
	out = appendU32(append(out, 0x23), w.nGlobals)                                      // global.get fuel
	out = w.charge(appendSigned(append(out, 0x42), advance))                            // i64.const
	return append(out, 0x0b)                                                            // end
}

// bulk charges one unit for eight bytes (or entries) of a bulk operation, whose length is on top of the stack.
func (w *rewriter) bulk(r *reader, out []byte, local uint32) []byte {
	sub := (&reader{b: r.b, i: r.i}).u32()
	switch sub {
	case 8, 10, 11, 12, 14, 17:
	default:
		return out
	}
	out = appendU32(append(out, 0x21), local)      // local.set
	out = appendU32(append(out, 0x23), w.nGlobals) // global.get fuel
	out = appendU32(append(out, 0x20), local)      // local.get
	out = append(out, 0xad, 0x42, 3, 0x88)         // i64.extend_i32_u, i64.const 3, i64.shr_u
	out = w.charge(out)
	return appendU32(append(out, 0x20), local) // local.get
}

// instruction copies one instruction whose opcode was read, with the new indexes.
func (w *rewriter) instruction(r *reader, out []byte, op byte) []byte {
	at := r.i
	switch {
	case op <= 0x01, op == 0x05, op == 0x0b, op == 0x0f, op == 0x1a, op == 0x1b, op >= 0x45 && op <= 0xc4, op == 0xd1:
	case op >= 0x02 && op <= 0x04:
		r.skipLEB(5) // a block type
	case op == 0x0c, op == 0x0d, op == 0x25, op == 0x26, op >= 0x20 && op <= 0x22:
		r.u32()
	case op == 0x0e:
		for range r.u32() {
			r.u32()
		}
		r.u32()
	case op == 0x10, op == 0xd2:
		return appendU32(append(out, op), w.function(r.u32()))
	case op == 0x11:
		r.u32()
		r.u32()
	case op == 0x1c:
		r.take(r.u32())
	case op == 0x23, op == 0x24:
		w.global(r.u32())
	case op >= 0x28 && op <= 0x3e:
		r.u32()
		r.u32()
	case op == 0x3f, op == 0x40, op == 0xd0:
		r.byte()
	case op == 0x41:
		r.skipLEB(5)
	case op == 0x42:
		r.skipLEB(10)
	case op == 0x43:
		r.take(4)
	case op == 0x44:
		r.take(8)
	case op == 0xfc:
		switch sub := r.u32(); {
		case sub <= 7:
		case sub == 8, sub == 10, sub == 12, sub == 14:
			r.u32()
			r.u32()
		case sub == 9, sub == 11, sub == 13, sub == 16, sub == 17:
			r.u32()
		case sub == 15:
			fail("it uses table.grow, whose memory cannot be bounded")
		default:
			fail("instruction 0xfc %d is not supported", sub)
		}
	case op == 0xfd:
		switch sub := r.u32(); {
		case sub <= 11, sub == 92, sub == 93:
			r.u32()
			r.u32()
		case sub == 12, sub == 13:
			r.take(16)
		case sub >= 21 && sub <= 34:
			r.byte()
		case sub >= 84 && sub <= 91:
			r.u32()
			r.u32()
			r.byte()
		case sub <= 255:
		default:
			fail("instruction 0xfd %d is not supported", sub)
		}
	default:
		fail("instruction 0x%x is not supported (threads, tail calls and exceptions are not)", op)
	}
	return append(append(out, op), r.b[at:r.i]...)
}
