package opa

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
)

// What OPA's compiler makes of a policy is changed before it is run:
//
//   - A built-in function that OPA's runtime has itself answers NULL, which is undefined, where strict evaluation fails. So
//     the policy's own functions call each through a wrapper that traps on NULL. Whatever traps is asked of topdown.
//   - Topdown finds numbers among the names of a document, and texts among the places of an array, which a guest does not:
//     such a look-up traps.
//   - The runtime knows fewer letters than topdown: what has others than those of ASCII is lowered and raised by the host.
//   - Topdown goes through sets and objects in order, and a guest as they lie: where an array is made, which shows it, the
//     host is asked for the order.
//   - Each round of a loop is counted, in the policy and in the runtime, and the host is asked now and then whether there
//     is time left. wazero's own way, WithCloseOnContextDone, costs several times the run.
//   - The memory is the module's own, since wazero's hosts provide functions only.
//   - Code that nothing calls is left out of what is compiled to machine code.
//
// The policy's functions may call what is known here and nothing else, so that a new version of OPA which calls something
// new is noticed, and such a policy stays on topdown.

const (
	fuelExport  = "weir.fuel"
	stackExport = "weir.stack"
	slice       = 50_000 // rounds of loops between two looks at the clock
	// in place of the number of a built-in function
	tickID  = -1
	nextID  = -2
	lowerID = -3
	upperID = -4
)

func set(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

// kept are the exports that the host calls.
var kept = set("memory", "eval", "builtins", "entrypoints", "opa_malloc", "opa_value_parse", "opa_heap_ptr_get", "opa_heap_ptr_set")

// planned are the names of functions that OPA's planner makes of rules, and made those that its compiler adds.
var (
	planned = regexp.MustCompile(`^g[0-9]+\.`)
	made    = set("eval", "builtins", "entrypoints", "_initialize")
)

// rewriting says what of it is done; tests turn parts off.
type rewriting struct{ trap, count bool }

// What is left out besides, though it is reached: what writes JSON, through a table, and what puts an error into words. It
// traps instead, as the error does.
const (
	unwanted        = "opa_json_writer_"
	opaRuntimeError = "opa_runtime_error"
)

const (
	secCustom = iota
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
	nSections
)

var magic = []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

// guestCode is a module while it is rewritten.
type guestCode struct {
	rewriting
	sections [nSections][]byte
	names    map[uint32]string // of functions
	byName   map[string]uint32

	imports  uint32   // functions that are imported
	types    []uint32 // of the functions that are defined
	params   []uint32 // of each function type
	globals  uint32
	stack    uint32   // the global that points to the stack
	tick     uint32   // opa_builtin0
	roots    []uint32 // functions that the host or a table reaches
	bodies   [][]byte
	wrappers map[uint32]uint32 // of a runtime's function that a policy calls
	added    []added
}

// added is a function that is called in place of one of the runtime's.
type added struct {
	native uint32
	body   []byte
}

// rewrite returns a compiled policy as it is run.
func rewrite(module []byte, how rewriting) (out []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			b, ok := r.(broken)
			if !ok {
				panic(r)
			}
			err = b.error
		}
	}()
	if !bytes.HasPrefix(module, magic) {
		return nil, errors.New("it is no WebAssembly module")
	}
	g := &guestCode{rewriting: how, names: map[uint32]string{}, byName: map[string]uint32{}, wrappers: map[uint32]uint32{}}
	for r := (&codeReader{b: module[len(magic):]}); !r.done(); {
		id := r.byte()
		body := r.take(r.u32())
		switch {
		case id == secCustom:
			g.readNames(body)
		case id >= nSections || g.sections[id] != nil:
			fail("section %d is not expected", id)
		default:
			g.sections[id] = body
		}
	}
	g.readTypes()
	g.moveMemory()
	g.readFunctions()
	g.readGlobals()
	g.readExports()
	g.readElements()
	g.rewriteCode()
	out = append(out, magic...)
	for id, body := range g.sections {
		if id != secCustom && body != nil {
			out = append(appendU32(append(out, byte(id)), uint32(len(body))), body...)
		}
	}
	return out, nil
}

func (g *guestCode) readNames(b []byte) {
	r := &codeReader{b: b}
	if r.name() != "name" {
		return
	}
	for !r.done() {
		kind := r.byte()
		sub := &codeReader{b: r.take(r.u32())}
		if kind != 1 {
			continue
		}
		for range sub.u32() {
			i := sub.u32()
			name := sub.name()
			g.names[i] = name
			if _, twice := g.byName[name]; !twice {
				g.byName[name] = i
			}
		}
	}
}

func (g *guestCode) readTypes() {
	r := &codeReader{b: g.sections[secType]}
	for range r.u32() {
		if r.byte() != 0x60 {
			fail("a type is no function's")
		}
		n := r.u32()
		r.take(n)
		r.take(r.u32())
		g.params = append(g.params, n)
	}
}

// moveMemory makes the imported memory one of the module's own.
func (g *guestCode) moveMemory() {
	r := &codeReader{b: g.sections[secImport]}
	var rest, memory []byte
	for range r.u32() {
		at := r.i
		from, name := r.name(), r.name()
		kind := r.byte()
		if kind == 2 && memory == nil && from == "env" {
			start := r.i
			if r.byte() == 1 {
				r.u32()
			}
			r.u32()
			memory = r.b[start:r.i]
			continue
		}
		r.u32()
		if kind != 0 || from != "env" {
			fail("it imports %s.%s", from, name)
		}
		g.names[g.imports], g.byName[name] = name, g.imports
		g.imports++
		rest = append(rest, r.b[at:r.i]...)
	}
	if memory == nil {
		fail("it has no memory")
	}
	g.sections[secImport] = append(appendU32(nil, g.imports), rest...)
	g.sections[secMemory] = append([]byte{1}, memory...)
	g.tick = g.index("opa_builtin0")
}

func (g *guestCode) index(name string) uint32 {
	i, ok := g.byName[name]
	if !ok {
		fail("it has no function %s", name)
	}
	return i
}

func (g *guestCode) readFunctions() {
	r := &codeReader{b: g.sections[secFunction]}
	for range r.u32() {
		t := r.u32()
		if int(t) >= len(g.params) {
			fail("a function has no type")
		}
		g.types = append(g.types, t)
	}
	if s := g.sections[secStart]; s != nil {
		g.roots = append(g.roots, (&codeReader{b: s}).u32())
	}
	// What a name does not tell could be a rule whose calls go around the wrappers.
	first := g.imports + uint32(len(g.types))
	for i, name := range g.names {
		if planned.MatchString(name) && i < first {
			first = i
		}
	}
	for i := first; i < g.imports+uint32(len(g.types)); i++ {
		if !g.policys(i) {
			fail("function %d has the name %q, which is unknown", i, g.names[i])
		}
	}
}

// policys reports whether a function is made of the policy, rather than part of OPA's runtime.
func (g *guestCode) policys(i uint32) bool {
	return planned.MatchString(g.names[i]) || made[g.names[i]]
}

// readGlobals finds the stack pointer, the only thing besides the memory that a guest changes, and adds the counter. That
// begins high: while an instance is made, nobody looks at the clock.
func (g *guestCode) readGlobals() {
	r := &codeReader{b: g.sections[secGlobal]}
	g.globals = r.u32()
	start, stacks := r.i, 0
	for i := range g.globals {
		if kind := r.byte(); r.byte() == 1 {
			if stacks++; kind != 0x7f || stacks > 1 {
				fail("it has more variables than a stack pointer")
			}
			g.stack = i
		}
		if r.byte() != 0x41 {
			fail("a global has an unknown value")
		}
		r.skipLEB()
		if r.byte() != 0x0b {
			fail("a global has an unknown value")
		}
	}
	if stacks == 0 {
		fail("it has no stack pointer")
	}
	g.sections[secGlobal] = append(append(appendU32(nil, g.globals+1), r.b[start:]...), 0x7f, 1, 0x41, 0x80, 0x80, 0x80, 0x80, 4, 0x0b)
}

func (g *guestCode) readExports() {
	r := &codeReader{b: g.sections[secExport]}
	var rest []byte
	n := uint32(2)
	for range r.u32() {
		at := r.i
		name := r.name()
		kind, i := r.byte(), r.u32()
		if !kept[name] {
			continue
		}
		if kind == 0 {
			g.roots = append(g.roots, i)
		}
		n++
		rest = append(rest, r.b[at:r.i]...)
	}
	if int(n) != len(kept)+2 {
		fail("it does not export what is called")
	}
	rest = appendU32(append(appendName(rest, fuelExport), 3), g.globals)
	rest = appendU32(append(appendName(rest, stackExport), 3), g.stack)
	g.sections[secExport] = append(appendU32(nil, n), rest...)
}

// readElements notes what a table reaches.
func (g *guestCode) readElements() {
	if g.sections[secElement] == nil {
		return
	}
	r := &codeReader{b: g.sections[secElement]}
	for range r.u32() {
		if r.u32() != 0 || r.byte() != 0x41 {
			fail("a segment of a table has an unknown form")
		}
		r.skipLEB()
		if r.byte() != 0x0b {
			fail("a segment of a table has an unknown form")
		}
		for range r.u32() {
			if i := r.u32(); !strings.HasPrefix(g.names[i], unwanted) {
				g.roots = append(g.roots, i)
			}
		}
	}
}

func (g *guestCode) rewriteCode() {
	r := &codeReader{b: g.sections[secCode]}
	if int(r.u32()) != len(g.types) {
		fail("functions and bodies do not add up")
	}
	for range g.types {
		g.bodies = append(g.bodies, r.take(r.u32()))
	}
	written := make([][]byte, len(g.types))
	for len(g.roots) > 0 {
		i := g.roots[len(g.roots)-1]
		g.roots = g.roots[:len(g.roots)-1]
		if i < g.imports {
			continue
		}
		if int(i-g.imports) >= len(g.bodies) {
			fail("a function does not exist")
		}
		if written[i-g.imports] == nil && g.names[i] != opaRuntimeError {
			written[i-g.imports] = g.body(i)
		}
	}
	out := appendU32(nil, uint32(len(written)+len(g.added)))
	functions := appendU32(nil, uint32(len(written)+len(g.added)))
	for i, b := range written {
		if b == nil {
			b = []byte{0, opUnreachable, opEnd}
		}
		out = append(appendU32(out, uint32(len(b))), b...)
		functions = appendU32(functions, g.types[i])
	}
	for _, a := range g.added {
		out = append(appendU32(out, uint32(len(a.body))), a.body...)
		functions = appendU32(functions, g.types[a.native-g.imports])
	}
	g.sections[secCode], g.sections[secFunction] = out, functions
}

// code returns a reader of a function's instructions, behind its locals.
func (g *guestCode) code(i uint32) *codeReader {
	r := &codeReader{b: g.bodies[i-g.imports]}
	for range r.u32() {
		r.u32()
		r.byte()
	}
	return r
}

// body rewrites one function.
func (g *guestCode) body(i uint32) []byte {
	r, policys := g.code(i), g.policys(i)
	makes := policys && g.makesArrays(i)
	out := make([]byte, 0, len(r.b)+len(r.b)/8)
	out = append(out, r.b[:r.i]...)
	for depth := 1; depth > 0; {
		at := r.i
		op := r.byte()
		switch op {
		case opBlock, opLoop, opIf:
			depth++
		case opEnd:
			depth--
		case opCall:
			out = appendU32(append(out, op), g.called(r.u32(), policys, makes))
			continue
		}
		r.skip(op)
		out = append(out, r.b[at:r.i]...)
		if op == opLoop && g.count {
			out = g.round(out)
		}
	}
	if !r.done() {
		fail("a function has code behind its end")
	}
	return out
}

// round counts one round of a loop, and calls the host when the count is used up.
func (g *guestCode) round(out []byte) []byte {
	out = appendU32(append(out, opGlobalGet), g.globals)
	out = append(out, opConst, 1, opSub)
	out = appendU32(append(out, opGlobalSet), g.globals)
	out = appendU32(append(out, opGlobalGet), g.globals)
	out = append(out, opConst, 0, opLess, opIf, noResult, opConst, tickID&0x7f, opConst, 0)
	return append(appendU32(append(out, opCall), g.tick), opDrop, opEnd)
}
