// Package terminal understands as much of what a terminal is sent as it takes to say what stood on it: the present line,
// what was typed there, and a transcript that is safe to read. It is best effort, and no wall: a program may draw one
// thing and do another. What a program with the whole screen does is not claimed to be understood at all.
//
// All is bounded: a line has MaxLine characters, a sequence maxSequence bytes of which anything is kept.
package terminal

import "unicode/utf8"

// MaxLine bounds a line, in characters. What is beyond it is dropped.
const MaxLine = 4096

const (
	maxParameters = 16
	maxParameter  = 1 << 16
)

// sequences parts a stream in characters and sequences (ECMA-48, and xterm's use of it).
type sequences struct {
	state   state
	prefix  byte // < = > ? of a control sequence
	middle  byte
	numbers [maxParameters]int
	count   int
	rune    [utf8.UTFMax]byte // of a character, those bytes that are here
	have    int
}

type state uint8

const (
	ground     state = iota
	escape           // after ESC
	control          // in a control sequence: CSI
	text             // in OSC, DCS, SOS, PM, APC: until BEL or ST
	textEscape       // an ESC in it
	skipOne          // after ESC and an intermediate: a final byte comes
)

// drawn is what a stream does to a terminal.
type drawn interface {
	print(r rune)
	control(b byte)                             // CR, LF, BS, HT, FF, VT
	sequence(prefix, final byte, numbers []int) // CSI
	single(final byte)                          // ESC c, ESC M …
}

// feed reads a piece of the stream. Pieces may end anywhere.
func (s *sequences) feed(p []byte, d drawn) {
	for _, b := range p {
		s.byte(b, d)
	}
}

func (s *sequences) byte(b byte, d drawn) {
	if s.have > 0 || b >= utf8.RuneSelf {
		s.wide(b, d)
		return
	}
	s.plain(rune(b), d)
}

// wide gathers a character of several bytes. One that is none is U+FFFD, also when it is overlong.
func (s *sequences) wide(b byte, d drawn) {
	if s.have > 0 && b&0xc0 != 0x80 { // the one before has no end
		s.have = 0
		s.plain(utf8.RuneError, d)
		s.byte(b, d)
		return
	}
	s.rune[s.have] = b
	s.have++
	if s.have < len(s.rune) && !utf8.FullRune(s.rune[:s.have]) {
		return
	}
	r, n := utf8.DecodeRune(s.rune[:s.have])
	rest := s.rune
	have := s.have
	s.have = 0
	s.plain(r, d)
	for _, x := range rest[n:have] {
		s.byte(x, d)
	}
}

// plain is one character, or a step in a sequence.
func (s *sequences) plain(r rune, d drawn) {
	switch {
	case s.state == text || s.state == textEscape:
		switch {
		case r == 0x07 || r == 0x9c || r == 0x18 || r == 0x1a || s.state == textEscape && r == '\\':
			s.state = ground
		case r == 0x1b:
			s.state = textEscape
		case s.state == textEscape: // ESC and something else: the text was cut short
			s.state = escape
			s.plain(r, d)
		}
		return
	case r == 0x18 || r == 0x1a:
		s.state = ground
		return
	case r == 0x1b:
		s.state = escape
		return
	case r < 0x20:
		d.control(byte(r)) // also within a sequence
		return
	case r >= 0x80 && r < 0xa0: // C1
		s.begin(r)
		return
	}
	switch s.state {
	case escape:
		s.second(r, d)
	case skipOne:
		if r < 0x20 || r > 0x2f {
			s.state = ground
		}
	case control:
		s.parameter(r, d)
	default:
		if r != 0x7f {
			d.print(r)
		}
	}
}

// begin is a control of eight bits.
func (s *sequences) begin(r rune) {
	switch r {
	case 0x9b:
		s.state, s.prefix, s.middle, s.count, s.numbers = control, 0, 0, 0, [maxParameters]int{}
	case 0x90, 0x98, 0x9d, 0x9e, 0x9f:
		s.state = text
	default:
		s.state = ground
	}
}

func (s *sequences) second(r rune, d drawn) {
	switch {
	case r == '[':
		s.begin(0x9b)
	case r == ']' || r == 'P' || r == 'X' || r == '^' || r == '_':
		s.state = text
	case r >= 0x20 && r <= 0x2f:
		s.state = skipOne
	default:
		s.state = ground
		if r < 0x7f {
			d.single(byte(r))
		}
	}
}

func (s *sequences) parameter(r rune, d drawn) {
	switch {
	case r >= '0' && r <= '9':
		if s.count < maxParameters {
			s.numbers[s.count] = min(s.numbers[s.count]*10+int(r-'0'), maxParameter)
		}
	case r == ';' || r == ':':
		s.count = min(s.count+1, maxParameters)
	case r >= '<' && r <= '?':
		s.prefix = byte(r)
	case r >= 0x20 && r <= 0x2f:
		s.middle = byte(r)
	case r >= 0x40 && r <= 0x7e:
		s.state = ground
		if s.middle == 0 {
			d.sequence(s.prefix, byte(r), s.numbers[:min(s.count+1, maxParameters)])
		}
	default:
		s.state = ground
	}
}
