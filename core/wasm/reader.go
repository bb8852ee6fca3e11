package wasm

import (
	"errors"
	"fmt"
)

var errTruncated = errors.New("the module ends too early")

// malformed is thrown by the reader and caught by instrument.
type malformed struct{ error }

func fail(format string, args ...any) { panic(malformed{fmt.Errorf(format, args...)}) }

// reader reads the binary format; it throws where the module ends too early.
type reader struct {
	b []byte
	i int
}

func (r *reader) done() bool { return r.i >= len(r.b) }

// end fails where a section goes on behind what it holds.
func (r *reader) end() {
	if !r.done() {
		fail("a section has bytes behind its end")
	}
}

func (r *reader) byte() byte {
	if r.i >= len(r.b) {
		panic(malformed{errTruncated})
	}
	c := r.b[r.i]
	r.i++
	return c
}

// peek returns the next byte without taking it.
func (r *reader) peek() byte {
	if r.i >= len(r.b) {
		panic(malformed{errTruncated})
	}
	return r.b[r.i]
}

func (r *reader) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)-r.i) {
		panic(malformed{errTruncated})
	}
	p := r.b[r.i : r.i+int(n)]
	r.i += int(n)
	return p
}

func (r *reader) u32() uint32 {
	var v uint64
	for shift := 0; ; shift += 7 {
		if shift > 28 {
			fail("a number is longer than 32 bits")
		}
		c := r.byte()
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			break
		}
	}
	if v > 1<<32-1 {
		fail("a number is longer than 32 bits")
	}
	return uint32(v)
}

// skipLEB passes over a number of at most so many bytes.
func (r *reader) skipLEB(most int) {
	for range most {
		if r.byte() < 0x80 {
			return
		}
	}
	fail("a number is too long")
}

func (r *reader) name() string { return string(r.take(r.u32())) }

func (r *reader) limits() (least, most uint32) {
	flag := r.byte()
	if flag > 1 {
		fail("shared or 64-bit memories are not supported")
	}
	least = r.u32()
	most = 1<<32 - 1
	if flag == 1 {
		most = r.u32()
	}
	return least, most
}

func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendName(b []byte, s string) []byte { return append(appendU32(b, uint32(len(s))), s...) }
