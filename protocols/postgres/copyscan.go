package postgres

import (
	"bytes"
	"encoding/binary"
)

// The data of a COPY is a stream: the messages that carry it may end anywhere (manual, "COPY Operations"). A copyScanner
// finds where its rows end, however it is cut, and looks at each byte once.
type copyScanner struct {
	kind  byte // of the format: t(ext), c(sv), b(inary)
	quote byte
	// escape stands before a quote within quotes, where that is not the quote itself.
	escape byte
	fields int // of each row of the binary format

	header  bool // a line of names comes before the rows
	quoted  bool // within quotes
	escaped bool // the next byte stands for itself

	phase copyPhase // of the binary format
	skip  int       // bytes that are passed over
	left  int       // fields of the row that are to come
	have  int
	part  [copySignature]byte // of a number that has not come whole
}

// copyItem is what a scanner has come to the end of.
type copyItem byte

const (
	copyNothing copyItem = iota // the bytes end within an item
	copyRow
	copyHeader
	copyTrailer
)

type copyPhase byte

const (
	copyAtSignature copyPhase = iota
	copyInExtension
	copyAtRow
	copyAtLength
	copyInValue
	copyAtEnd
)

// copyMagic is what the binary format begins with (manual, "COPY", "File Header"); flags and the length of an extension
// follow.
const (
	copyMagic     = "PGCOPY\n\xff\r\n\x00"
	copySignature = len(copyMagic) + 8
)

// next passes over b up to the end of the first item in it.
func (s *copyScanner) next(b []byte) (n int, item copyItem, err error) {
	switch s.kind {
	case 'b':
		return s.binary(b)
	case 'c':
		n = s.csv(b)
	default:
		n = s.text(b)
	}
	switch {
	case n < 0:
		return len(b), copyNothing, nil
	case s.header:
		s.header = false
		return n, copyHeader, nil
	}
	return n, copyRow, nil
}

// inside reports whether what was scanned so far ends within an item of the binary format.
func (s *copyScanner) inside() bool {
	return s.kind == 'b' && (s.phase != copyAtEnd && s.phase != copyAtRow || s.have > 0)
}

// text returns where the line ends, or -1. A line ends with a newline that no backslash stands before.
func (s *copyScanner) text(b []byte) int {
	from := 0
	if s.escaped && len(b) > 0 {
		from, s.escaped = 1, false
	}
	for {
		i := bytes.IndexByte(b[from:], '\n')
		end := from + i
		if i < 0 {
			end = len(b)
		}
		slashes := 0
		for slashes < end-from && b[end-1-slashes] == '\\' {
			slashes++
		}
		switch odd := slashes%2 == 1; {
		case i < 0:
			s.escaped = s.escaped || odd
			return -1
		case !odd:
			return end + 1
		}
		from = end + 1
	}
}

// csv returns where the line ends, or -1. A line ends with a newline that is not within quotes.
func (s *copyScanner) csv(b []byte) int {
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case s.escaped:
			s.escaped = false
		case s.quoted && c == s.escape && s.escape != s.quote:
			s.escaped = true
		case c == s.quote:
			s.quoted = !s.quoted
		case c == '\n' && !s.quoted:
			return i + 1
		}
	}
	return -1
}

// binary follows the lengths.
func (s *copyScanner) binary(b []byte) (n int, item copyItem, err error) {
	i := 0
	for {
		switch s.phase {
		case copyAtSignature:
			v := s.collect(b, &i, copySignature)
			if v == nil {
				return i, copyNothing, nil
			}
			flags, extension := binary.BigEndian.Uint32(v[len(copyMagic):]), int32(binary.BigEndian.Uint32(v[len(copyMagic)+4:]))
			if string(v[:len(copyMagic)]) != copyMagic || flags>>16 != 0 || extension < 0 {
				return i, copyNothing, violation("binary COPY data with another header")
			}
			s.phase, s.skip = copyInExtension, int(extension)
		case copyInExtension:
			if !s.pass(b, &i) {
				return i, copyNothing, nil
			}
			s.phase = copyAtRow
			return i, copyHeader, nil
		case copyAtRow:
			v := s.collect(b, &i, 2)
			if v == nil {
				return i, copyNothing, nil
			}
			switch count := int(int16(binary.BigEndian.Uint16(v))); {
			case count == -1:
				s.phase = copyAtEnd
				return i, copyTrailer, nil
			case count != s.fields:
				return i, copyNothing, violation("a row with another number of columns than announced")
			}
			if s.left = s.fields; s.left == 0 {
				return i, copyRow, nil
			}
			s.phase = copyAtLength
		case copyAtLength:
			v := s.collect(b, &i, 4)
			if v == nil {
				return i, copyNothing, nil
			}
			length := int32(binary.BigEndian.Uint32(v))
			if length < -1 {
				return i, copyNothing, violation("a value of a negative length")
			}
			s.phase, s.skip = copyInValue, max(int(length), 0)
		case copyInValue:
			if !s.pass(b, &i) {
				return i, copyNothing, nil
			}
			s.phase = copyAtLength
			if s.left--; s.left == 0 {
				s.phase = copyAtRow
				return i, copyRow, nil
			}
		default:
			if i < len(b) {
				return i, copyNothing, violation("COPY data after its end")
			}
			return i, copyNothing, nil
		}
	}
}

// collect returns the next n bytes, or nil when they have not all come.
func (s *copyScanner) collect(b []byte, i *int, n int) []byte {
	if s.have == 0 && len(b)-*i >= n {
		v := b[*i : *i+n]
		*i += n
		return v
	}
	k := copy(s.part[s.have:n], b[*i:])
	s.have += k
	*i += k
	if s.have < n {
		return nil
	}
	s.have = 0
	return s.part[:n]
}

// pass goes over what is to be skipped, and reports whether all of it has come.
func (s *copyScanner) pass(b []byte, i *int) bool {
	k := min(s.skip, len(b)-*i)
	s.skip -= k
	*i += k
	return s.skip == 0
}
