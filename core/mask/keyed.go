package mask

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/weir-gateway/weir/core"
)

// Key makes hashes and tokens that cannot be guessed from the value without it. Its String hides it.
type Key struct{ pool sync.Pool }

// NewKey returns a Key. Give it 32 random bytes, the same ones on every gateway whose hashes must agree.
func NewKey(secret []byte) *Key {
	secret = bytes.Clone(secret)
	k := &Key{}
	k.pool.New = func() any { return &mac{h: hmac.New(sha256.New, secret)} }
	return k
}

// String never shows the key.
func (k *Key) String() string { return "***" }

// GoString never shows the key.
func (k *Key) GoString() string { return "***" }

type mac struct {
	h   hash.Hash
	sum [sha256.Size]byte
	in  [8]byte
}

// block computes one block of the stream that belongs to a use and a value.
func (m *mac) block(use byte, n uint32, value []byte) []byte {
	m.h.Reset()
	m.in[0] = use
	binary.LittleEndian.PutUint32(m.in[1:], n)
	m.h.Write(m.in[:5])
	m.h.Write(value)
	return m.h.Sum(m.sum[:0])
}

const (
	useHash byte = iota + 1
	useToken
)

// makeHash writes the first hexadecimal digits (length, 16 by default) of a keyed HMAC-SHA-256: equal values have
// equal hashes, and without the key nobody can try out values.
func makeHash(a args, class core.Class, k *Key) (Func, error) {
	length, err := a.number("length", 16, 8, 64)
	if err != nil {
		return nil, err
	}
	switch {
	case class == core.ClassUUID:
		return func(dst, v []byte) ([]byte, bool) { return k.uuid(dst, useHash, v), true }, nil
	case class == core.ClassJSON:
		return func(dst, v []byte) ([]byte, bool) {
			return append(k.hex(append(dst, '"'), v, length), '"'), true
		}, nil
	case !plain(class):
		return toNull, nil
	}
	return func(dst, v []byte) ([]byte, bool) { return k.hex(dst, v, length), true }, nil
}

func (k *Key) hex(dst, v []byte, length int) []byte {
	m := k.pool.Get().(*mac)
	at := len(dst)
	dst = hex.AppendEncode(dst, m.block(useHash, 0, v))
	k.pool.Put(m)
	return dst[:at+length]
}

func (k *Key) uuid(dst []byte, use byte, v []byte) []byte {
	m := k.pool.Get().(*mac)
	b := m.block(use, 0, v)
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80 // RFC 9562 section 5.8: version 8
	for i, end := range [...]int{4, 6, 8, 10, 16} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, b[[...]int{0, 4, 6, 8, 10}[i]:end])
	}
	k.pool.Put(m)
	return dst
}

// makeTokenise writes another value of the same shape: a digit for a digit, a letter for a letter of the same case,
// the rest as it is. Equal values have equal tokens. Two values may share a token, and very short values have few to
// choose from: for those use hash. In a number the first digit becomes 1 (or stays 0), so that it never outgrows its
// type.
func makeTokenise(_ args, class core.Class, k *Key) (Func, error) {
	switch {
	case class == core.ClassUUID:
		return func(dst, v []byte) ([]byte, bool) { return k.uuid(dst, useToken, v), true }, nil
	case class == core.ClassJSON:
		return makeHash(nil, class, k)
	case class == core.ClassNumber:
		return func(dst, v []byte) ([]byte, bool) {
			for i, c := range v {
				if (c < '0' || c > '9') && c != '.' && (c != '-' || i > 0) {
					return dst, false // NaN, Infinity, an exponent
				}
			}
			return k.token(dst, v, true), true
		}, nil
	case !plain(class):
		return toNull, nil
	}
	return func(dst, v []byte) ([]byte, bool) { return k.token(dst, v, false), true }, nil
}

func (k *Key) token(dst, v []byte, number bool) []byte {
	m := k.pool.Get().(*mac)
	defer k.pool.Put(m)
	at := len(dst)
	var stream []byte
	blocks, used, lead := uint32(0), 0, number
	next := func() int {
		if used+2 > len(stream) {
			stream, used = m.block(useToken, blocks, v), 0
			blocks++
		}
		n := int(stream[used])<<8 | int(stream[used+1]) // 16 bits keep the bias of a remainder under 0.1 %
		used += 2
		return n
	}
	for rest := v; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r >= '0' && r <= '9':
			d := byte('0' + next()%10)
			if lead {
				d = min(byte(r), '1')
				lead = false
			}
			dst = append(dst, d)
		case r == utf8.RuneError && size == 1:
			dst = append(dst, byte('a'+next()%26)) // not UTF-8: nothing of it is shown
		case unicode.IsUpper(r):
			dst = append(dst, byte('A'+next()%26))
		case unicode.IsLetter(r):
			dst = append(dst, byte('a'+next()%26))
		case unicode.IsDigit(r), unicode.IsNumber(r), unicode.IsMark(r):
			dst = append(dst, byte('0'+next()%10))
		default:
			dst = append(dst, rest[:size]...)
		}
		rest = rest[size:]
	}
	if !number && bytes.Equal(dst[at:], v) { // by chance: move every letter and digit on by one
		for i := at; i < len(dst); i++ {
			switch c := dst[i]; {
			case c >= '0' && c <= '9':
				dst[i] = '0' + (c-'0'+1)%10
			case c >= 'a' && c <= 'z':
				dst[i] = 'a' + (c-'a'+1)%26
			case c >= 'A' && c <= 'Z':
				dst[i] = 'A' + (c-'A'+1)%26
			}
		}
	}
	return dst
}

var _ fmt.GoStringer = (*Key)(nil)
