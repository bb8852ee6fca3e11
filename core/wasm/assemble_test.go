package wasm

// A small assembler: just enough to write guests by hand that no compiler would write.

type fn struct {
	typ    byte   // index into asmTypes
	locals []byte // how many, each an i32, as LEB; empty: none
	code   []byte // without the last end
	export string
}

const (
	tVoid    byte = iota // () -> ()
	tI32                 // () -> i32
	tI64                 // () -> i64
	tII32                // (i32 i32) -> i32
	tII64                // (i32 i32) -> i64
	tI32I32              // (i32) -> i32
	tI64Void             // (i64) -> ()
	tKVGet               // (i32 i32 i32 i32) -> i32
	tKVPut               // (i32 i32 i32 i32 i64) -> i32
	tKVIncr              // (i32 i32 i64 i64) -> i64
	tMetric              // (i32 i64) -> ()
	tTwo                 // (i32) -> (i32 i32)
)

var asmTypes = [][]byte{
	{0x60, 0, 0},
	{0x60, 0, 1, 0x7f},
	{0x60, 0, 1, 0x7e},
	{0x60, 2, 0x7f, 0x7f, 1, 0x7f},
	{0x60, 2, 0x7f, 0x7f, 1, 0x7e},
	{0x60, 1, 0x7f, 1, 0x7f},
	{0x60, 1, 0x7e, 0},
	{0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f},
	{0x60, 5, 0x7f, 0x7f, 0x7f, 0x7f, 0x7e, 1, 0x7f},
	{0x60, 4, 0x7f, 0x7f, 0x7e, 0x7e, 1, 0x7e},
	{0x60, 2, 0x7f, 0x7e, 0},
	{0x60, 1, 0x7f, 2, 0x7f, 0x7f},
}

// importTypes are the types of what a guest by hand may import; () -> () where none is given.
var importTypes = map[string]byte{"kv_get": tKVGet, "kv_put": tKVPut, "kv_incr": tKVIncr, "metric_add": tMetric}

type module struct {
	imports  [][2]string
	funcs    []fn
	pages    uint32
	data     []byte // at 1024
	extra    map[byte][]byte
	noMemory bool
	custom   [][2]string // name and content of custom sections
}

func (m *module) bytes() []byte {
	out := append([]byte(nil), magic...)
	b := appendU32(nil, uint32(len(asmTypes)))
	for _, t := range asmTypes {
		b = append(b, t...)
	}
	out = section(out, secType, b)
	if len(m.imports) > 0 {
		b = appendU32(nil, uint32(len(m.imports)))
		for _, i := range m.imports {
			b = append(appendName(appendName(b, i[0]), i[1]), 0, importTypes[i[1]])
		}
		out = section(out, secImport, b)
	}
	b = appendU32(nil, uint32(len(m.funcs)))
	for _, f := range m.funcs {
		b = append(b, f.typ)
	}
	out = section(out, secFunction, b)
	if x, ok := m.extra[secTable]; ok {
		out = section(out, secTable, x)
	}
	if !m.noMemory {
		out = section(out, secMemory, appendU32([]byte{1, 0}, max(m.pages, 8)))
	}
	if x, ok := m.extra[secGlobal]; ok {
		out = section(out, secGlobal, x)
	}
	n, exp := uint32(0), []byte(nil)
	if !m.noMemory {
		n, exp = 1, append(appendName(nil, "memory"), 2, 0)
	}
	for i, f := range m.funcs {
		if f.export != "" {
			n++
			exp = appendU32(append(appendName(exp, f.export), 0), uint32(i+len(m.imports)))
		}
	}
	out = section(out, secExport, append(appendU32(nil, n), exp...))
	for _, id := range []byte{secStart, secElement} {
		if x, ok := m.extra[id]; ok {
			out = section(out, id, x)
		}
	}
	b = appendU32(nil, uint32(len(m.funcs)))
	for _, f := range m.funcs {
		body := []byte{0}
		if len(f.locals) > 0 {
			body = append(append([]byte{1}, f.locals...), 0x7f)
		}
		body = append(append(body, f.code...), 0x0b)
		b = append(appendU32(b, uint32(len(body))), body...)
	}
	out = section(out, secCode, b)
	for _, c := range m.custom {
		out = section(out, secCustom, append(appendName(nil, c[0]), c[1]...))
	}
	if m.data != nil {
		d := append([]byte{1, 0, 0x41, 0x80, 0x08, 0x0b}, appendU32(nil, uint32(len(m.data)))...)
		out = section(out, secData, append(d, m.data...))
	}
	return out
}

func i32const(v int32) []byte { return sleb(0x41, int64(v)) }
func i64const(v int64) []byte { return sleb(0x42, v) }

func sleb(op byte, v int64) []byte {
	b := []byte{op}
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func join(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

const handManifest = `{"name":"hand","version":"1","abi":1,"mutates":true,"subscribe":[{"kinds":["command","rows"],"columns":["*"]}]}`

// hand returns a whole guest by hand whose batch function is code; the region is at 64 KiB.
func hand(batch []byte, change ...func(*module)) []byte {
	m := &module{data: []byte(handManifest), funcs: []fn{
		{typ: tI32, code: i32const(0), export: "weir_abi_v1"},
		{typ: tI64, code: i64const(1024<<32 | int64(len(handManifest))), export: "weir_describe"},
		{typ: tII32, code: i32const(0), export: "weir_configure"},
		{typ: tI32I32, code: i32const(65536), export: "weir_buffer"},
		{typ: tII64, locals: []byte{4}, code: batch, export: "weir_on_batch"},
	}}
	for _, c := range change {
		c(m)
	}
	return m.bytes()
}

func result(code int32, aux uint32) []byte {
	return i64const(int64(uint64(aux)<<32 | uint64(uint32(code))))
}
