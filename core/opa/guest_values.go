package opa

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Values go into a guest as text, which its own parser reads, and come out of it as they lie in its memory: that is the
// layout of value.h in OPA's runtime.

const (
	maxDepth = 128 // of a value, in both directions
	// of a number
	maxDigits = 400
	maxNodes  = 1 << 20 // that are read for one operand or answer
)

// appendValue writes a value so that the guest's parser reads the same; false where it would not.
func appendValue(b []byte, v ast.Value, depth int) (_ []byte, ok bool) {
	if depth > maxDepth {
		return b, false
	}
	switch v := v.(type) {
	case ast.Null:
		return append(b, "null"...), true
	case ast.Boolean:
		return strconv.AppendBool(b, bool(v)), true
	case ast.Number:
		return append(b, v...), same(string(v))
	case ast.String:
		return appendText(b, string(v))
	case *ast.Array:
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			if b, ok = appendValue(b, v.Elem(i).Value, depth+1); !ok {
				return b, false
			}
		}
		return append(b, ']'), true
	case ast.Set:
		if v.Len() == 0 {
			return append(b, "set()"...), true
		}
		first := true
		ok = true
		b = append(b, '{')
		v.Until(func(t *ast.Term) bool {
			if !first {
				b = append(b, ',')
			}
			first = false
			b, ok = appendValue(b, t.Value, depth+1)
			return !ok
		})
		return append(b, '}'), ok
	case ast.Object:
		first := true
		ok = true
		b = append(b, '{')
		v.Until(func(k, x *ast.Term) bool {
			if !first {
				b = append(b, ',')
			}
			first = false
			if b, ok = appendValue(b, k.Value, depth+1); ok {
				b, ok = appendValue(append(b, ':'), x.Value, depth+1)
			}
			return !ok
		})
		return append(b, '}'), ok
	}
	return b, false
}

// same reports whether a number is the same to both engines. Topdown finds the second element of an array at 1.0, and at 1e0;
// a guest does not, so it gets no whole number in another form than 1.
func same(number string) bool {
	digits := strings.TrimPrefix(number, "-")
	whole, fraction, split := strings.Cut(digits, ".")
	if len(digits) > maxDigits || strings.ContainsAny(digits, "eE") {
		return false
	}
	return number != "-0" && (!split || strings.Trim(fraction, "0") != "") && whole != ""
}

// appendText writes a string as JSON. One that is no UTF-8 would be another one in the guest.
func appendText(b []byte, s string) ([]byte, bool) {
	if !utf8.ValidString(s) {
		return b, false
	}
	b = append(b, '"')
	from := 0
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			b = append(b, s[from:i]...)
			b = append(b, '\\', 'u', '0', '0', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
			from = i + 1
		}
	}
	return append(append(b, s[from:]...), '"'), true
}

// appendDocument writes a document of JSON, and stops beyond so many bytes.
func appendDocument(b []byte, v any, depth, most int) (_ []byte, ok bool) {
	if depth > maxDepth || len(b) > most {
		return b, false
	}
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), true
	case bool:
		return strconv.AppendBool(b, v), true
	case string:
		return appendText(b, v)
	case json.Number:
		return append(b, v...), same(string(v))
	case []any:
		b = append(b, '[')
		for i, x := range v {
			if i > 0 {
				b = append(b, ',')
			}
			if b, ok = appendDocument(b, x, depth+1, most); !ok {
				return b, false
			}
		}
		return append(b, ']'), true
	case map[string]any:
		b = append(b, '{')
		first := true
		for k, x := range v {
			if !first {
				b = append(b, ',')
			}
			first = false
			if b, ok = appendText(b, k); !ok {
				return b, false
			}
			if b, ok = appendDocument(append(b, ':'), x, depth+1, most); !ok {
				return b, false
			}
		}
		return append(b, '}'), len(b) <= most
	}
	t, err := ast.InterfaceToValue(v)
	if err != nil {
		return b, false
	}
	return appendValue(b, t, depth)
}

// The types of values in a guest's memory.
const (
	guestNull = 1 + iota
	guestBoolean
	guestNumber
	guestString
	guestArray
	guestObject
	guestSet
	guestStringInterned
	guestBooleanInterned
)

var errValue = errors.New("the guest's memory holds no such value")

// valueReader reads values from a guest's memory. It throws errValue where there is none.
type valueReader struct {
	mem   []byte
	nodes int
}

// reading reads from a guest's memory.
func reading(mem []byte, read func(*valueReader)) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if r != errValue { //nolint:errorlint // thrown as it is
				panic(r)
			}
			err = errValue
		}
	}()
	read(&valueReader{mem: mem, nodes: maxNodes})
	return nil
}

// readValue returns the value at an address.
func readValue(mem []byte, at uint32) (v ast.Value, err error) {
	err = reading(mem, func(r *valueReader) { v = r.value(at, 0) })
	return v, err
}

func (r *valueReader) bytes(at, n uint32) []byte {
	if uint64(at)+uint64(n) > uint64(len(r.mem)) {
		panic(errValue)
	}
	return r.mem[at : at+n]
}

func (r *valueReader) word(at uint32) uint32 { return binary.LittleEndian.Uint32(r.bytes(at, 4)) }

func (r *valueReader) value(at uint32, depth int) ast.Value {
	if r.nodes--; r.nodes < 0 || depth > maxDepth || at == 0 {
		panic(errValue)
	}
	head := r.bytes(at, 2)
	switch head[0] {
	case guestNull:
		return ast.NullValue
	case guestBoolean, guestBooleanInterned:
		return ast.Boolean(head[1] != 0)
	case guestNumber:
		if head[1] == 1 {
			return ast.Number(strconv.FormatInt(int64(binary.LittleEndian.Uint64(r.bytes(at+8, 8))), 10))
		}
		return ast.Number(r.bytes(r.word(at+8), r.word(at+12)))
	case guestString, guestStringInterned:
		return ast.String(r.bytes(r.word(at+8), r.word(at+4)))
	case guestArray:
		from, n := r.word(at+4), r.word(at+8)
		r.bytes(from, 0)
		terms := make([]*ast.Term, 0, min(n, 1024))
		for i := range n {
			terms = append(terms, ast.NewTerm(r.value(r.word(from+8*i+4), depth+1)))
		}
		return ast.NewArray(terms...)
	case guestObject:
		o := ast.NewObject()
		r.buckets(at, func(elem uint32) uint32 {
			o.Insert(ast.NewTerm(r.value(r.word(elem), depth+1)), ast.NewTerm(r.value(r.word(elem+4), depth+1)))
			return r.word(elem + 8)
		})
		return o
	case guestSet:
		s := ast.NewSet()
		r.buckets(at, func(elem uint32) uint32 {
			s.Add(ast.NewTerm(r.value(r.word(elem), depth+1)))
			return r.word(elem + 4)
		})
		return s
	}
	panic(errValue)
}

// buckets goes through a hash table; read reads an element and returns the next of its chain.
func (r *valueReader) buckets(at uint32, read func(elem uint32) (next uint32)) {
	from, n := r.word(at+4), r.word(at+8)
	if r.word(at+12) == 0 {
		return
	}
	for i := range n {
		for elem := r.word(from + 4*i); elem != 0; {
			elem = read(elem)
		}
	}
}
