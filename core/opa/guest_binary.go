package opa

import "fmt"

// broken is thrown where a module is not as OPA's compiler makes it.
type broken struct{ error }

func fail(format string, args ...any) { panic(broken{fmt.Errorf(format, args...)}) }

// codeReader reads the binary format.
type codeReader struct {
	b []byte
	i int
}

func (r *codeReader) done() bool { return r.i >= len(r.b) }

func (r *codeReader) byte() byte {
	if r.done() {
		fail("the module ends too early")
	}
	r.i++
	return r.b[r.i-1]
}

func (r *codeReader) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)-r.i) {
		fail("the module ends too early")
	}
	r.i += int(n)
	return r.b[r.i-int(n) : r.i]
}

func (r *codeReader) u32() (v uint32) {
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte()
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	fail("a number is too long")
	return 0
}

func (r *codeReader) skipLEB() {
	for range 10 {
		if r.byte() < 0x80 {
			return
		}
	}
	fail("a number is too long")
}

func (r *codeReader) name() string { return string(r.take(r.u32())) }

// skip passes over the operands of an instruction.
func (r *codeReader) skip(op byte) {
	switch {
	case op <= 0x01, op == 0x05, op == 0x0b, op == 0x0f, op == 0x1a, op == 0x1b, op >= 0x45 && op <= 0xc4:
	case op >= 0x02 && op <= 0x04, op == 0x0c, op == 0x0d, op >= 0x20 && op <= 0x24, op == 0x3f, op == 0x40, op == 0x41, op == 0x42:
		r.skipLEB()
	case op == 0x0e:
		for range r.u32() {
			r.u32()
		}
		r.u32()
	case op == 0x11, op >= 0x28 && op <= 0x3e:
		r.u32()
		r.u32()
	case op == 0x43:
		r.take(4)
	case op == 0x44:
		r.take(8)
	case op == 0xfc:
		switch sub := r.u32(); {
		case sub <= 7:
		case sub == 8, sub == 10:
			r.u32()
			r.u32()
		case sub == 9, sub == 11:
			r.u32()
		default:
			fail("instruction 0xfc %d is not known", sub)
		}
	default:
		fail("instruction 0x%x is not known", op)
	}
}

func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendName(b []byte, s string) []byte { return append(appendU32(b, uint32(len(s))), s...) }
