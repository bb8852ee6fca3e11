// Package token gives values others of the same form, by a key: a digit stays a digit, a capital a capital, and what is neither a
// letter nor a digit stays as it is. The same value always has the same token, and two values of ASCII characters never share
// one, so that tables can be joined and counted by tokens. Without the key nobody gets from a token to its value.
//
// It is a Feistel network of ten rounds in the manner of FF1 (NIST SP 800-38G), over characters instead of one number, with
// HMAC-SHA-256 as its function.
package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"unicode/utf8"
)

const (
	rounds = 10
	// leastDomain is how many values of a form there must be: of fewer, all could be tried (SP 800-38G, appendix A).
	leastDomain = 1_000_000
	// block is how many characters are moved together; the next ones depend on them.
	block = 128
	// MaxLength bounds a value, in bytes: what is longer is a text, and no name or number.
	MaxLength = 4096
)

// hidden stands for values that cannot have a token. Its length does not tell theirs.
const hidden = "******"

// Tokeniser makes tokens. It is for one goroutine.
type Tokeniser struct {
	mac   hash.Hash
	sum   []byte
	shape []byte // what the network does not see of a value
	half  []byte
	chars []char
}

// char is one character that is replaced.
type char struct {
	at, size     int // in the value
	value, radix uint32
	first        byte // of its alphabet
}

// New returns a Tokeniser.
func New(key []byte) *Tokeniser { return &Tokeniser{mac: hmac.New(sha256.New, key)} }

// Token appends the token of a value. A value with so few letters and digits that all could be tried, and one that is too long,
// becomes six stars.
func (t *Tokeniser) Token(to, value []byte) []byte {
	if len(value) == 0 {
		return to
	}
	if len(value) > MaxLength || !t.read(value) {
		return append(to, hidden...)
	}
	state := t.keyed('s', t.shape, nil)
	for begin := 0; begin < len(t.chars); {
		end := min(begin+block, len(t.chars))
		if len(t.chars)-end < 8 { // no block of a few
			end = len(t.chars)
		}
		t.half = t.half[:0]
		for _, c := range t.chars[begin:end] {
			t.half = append(t.half, byte(c.value))
		}
		next := t.keyed('b', state[:], t.half)
		t.encrypt(t.chars[begin:end], state)
		begin, state = end, next
	}
	at := 0
	for _, c := range t.chars {
		to = append(append(to, value[at:c.at]...), c.first+byte(c.value))
		at = c.at + c.size
	}
	return append(to, value[at:]...)
}

// read splits a value into what is replaced and its shape. It reports whether there are enough values of this form.
func (t *Tokeniser) read(value []byte) bool {
	t.chars, t.shape = t.chars[:0], t.shape[:0]
	domain := uint64(1)
	for at := 0; at < len(value); {
		r, n := utf8.DecodeRune(value[at:])
		c := char{at: at, size: n, radix: 26, first: 'a'}
		switch {
		case r >= '0' && r <= '9':
			c.value, c.radix, c.first = uint32(r-'0'), 10, '0'
			t.shape = append(t.shape, '0')
		case r >= 'a' && r <= 'z':
			c.value = uint32(r - 'a')
			t.shape = append(t.shape, 'a')
		case r >= 'A' && r <= 'Z':
			c.value, c.first = uint32(r-'A'), 'A'
			t.shape = append(t.shape, 'A')
		case r >= utf8.RuneSelf: // a letter of another alphabet, or no UTF-8: it tells too much to stay
			c.value = uint32(r) % 26
			t.shape = append(append(t.shape, 0), value[at:at+n]...)
		default:
			t.shape = append(t.shape, 1, byte(r))
			at += n
			continue
		}
		at += n
		if domain < leastDomain {
			domain *= uint64(c.radix)
		}
		t.chars = append(t.chars, c)
	}
	return domain >= leastDomain
}

// encrypt runs the network over a block: in each round one half is moved, character by character, by what the other says.
func (t *Tokeniser) encrypt(chars []char, state [sha256.Size]byte) {
	middle := len(chars) / 2
	for round := range byte(rounds) {
		moved, by := chars[:middle], chars[middle:]
		if round%2 == 1 {
			moved, by = by, moved
		}
		t.half = append(t.half[:0], round, 0)
		for _, c := range by {
			t.half = append(t.half, byte(c.value))
		}
		var sum [sha256.Size]byte
		for i := range moved {
			if i%8 == 0 {
				t.half[1] = byte(i / 8)
				sum = t.keyed('r', state[:16], t.half) // so that it is one block of SHA-256
			}
			move := binary.BigEndian.Uint32(sum[i%8*4:])
			moved[i].value = (moved[i].value + move%moved[i].radix) % moved[i].radix
		}
	}
}

// keyed is HMAC over two parts; use keeps its purposes apart.
func (t *Tokeniser) keyed(use byte, a, b []byte) (out [sha256.Size]byte) {
	var head [5]byte
	head[0] = use
	binary.BigEndian.PutUint32(head[1:], uint32(len(a)))
	t.mac.Reset()
	t.mac.Write(head[:])
	t.mac.Write(a)
	t.mac.Write(b)
	t.sum = t.mac.Sum(t.sum[:0])
	copy(out[:], t.sum)
	return out
}
