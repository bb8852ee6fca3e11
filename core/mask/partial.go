package mask

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/weir-gateway/weir/core"
)

// makePartial keeps a little of a value. Without arguments it shows the first letter and the domain of an e-mail
// address, the last four digits of a payment card, and the first character of anything else. With first and last it
// shows so many characters at each end, whatever the value is. A value that is not longer than what would be shown
// is hidden whole. The result has as many characters as the value, and partial of it is itself.
func makePartial(a args, class core.Class, _ *Key) (Func, error) {
	first, err := a.number("first", 0, 0, 64)
	if err != nil {
		return nil, err
	}
	last, err := a.number("last", 0, 0, 64)
	if err != nil {
		return nil, err
	}
	char := []byte("*")
	if c, ok := a["char"]; ok {
		if utf8.RuneCountInString(c) != 1 || !utf8.ValidString(c) || c < " " {
			return nil, fmt.Errorf("argument char is %q: give one character", c)
		}
		char = []byte(c)
	}
	explicit := first > 0 || last > 0
	switch {
	case class == core.ClassJSON:
		return constant("****", class, false)
	case class == core.ClassNumber:
		return func(dst, v []byte) ([]byte, bool) { return zeroDigits(dst, v, last) }, nil
	case !plain(class):
		return toNull, nil
	case explicit:
		return func(dst, v []byte) ([]byte, bool) { return keepEnds(dst, v, first, last, char), true }, nil
	}
	return func(dst, v []byte) ([]byte, bool) {
		if at := emailAt(v); at > 0 {
			return append(keepEnds(dst, v[:at], 1, 0, char), v[at:]...), true
		}
		if isCard(v, char) {
			return keepDigits(dst, v, 4, char), true
		}
		return keepEnds(dst, v, 1, 0, char), true
	}, nil
}

// keepEnds shows the first and last characters and hides the rest. Bytes that are not UTF-8 count as one each.
func keepEnds(dst, v []byte, first, last int, char []byte) []byte {
	n := utf8.RuneCount(v)
	if n <= first+last {
		first, last = 0, 0
	}
	for i := 0; len(v) > 0; i++ {
		_, size := utf8.DecodeRune(v)
		if i < first || i >= n-last {
			dst = append(dst, v[:size]...)
		} else {
			dst = append(dst, char...)
		}
		v = v[size:]
	}
	return dst
}

// keepDigits hides the digits but the last ones, and keeps what is between them.
func keepDigits(dst, v []byte, last int, char []byte) []byte {
	n := 0
	for _, c := range v {
		if c != ' ' && c != '-' {
			n++
		}
	}
	for i := 0; i < len(v); {
		_, size := utf8.DecodeRune(v[i:])
		switch c := v[i]; {
		case c == ' ' || c == '-':
			dst = append(dst, c)
		case n > last:
			dst = append(dst, char...)
			n -= size
		default:
			dst = append(dst, v[i:i+size]...)
			n -= size
		}
		i += size
	}
	return dst
}

// zeroDigits turns the digits of a number into 0 but the last ones, so that it stays a number of the same length.
// What is not written in digits (NaN, Infinity, an exponent) becomes NULL.
func zeroDigits(dst, v []byte, last int) ([]byte, bool) {
	n := 0
	for i, c := range v {
		switch {
		case c >= '0' && c <= '9':
			n++
		case c == '.' || c == '-' && i == 0:
		default:
			return dst, false
		}
	}
	if n <= last {
		last = 0
	}
	for _, c := range v {
		if c >= '0' && c <= '9' {
			if n > last {
				c = '0'
			}
			n--
		}
		dst = append(dst, c)
	}
	return dst, true
}

// emailAt returns where the @ of an e-mail address is, or -1 when v is none: one @, something before it, and a
// domain of letters, digits, hyphens and at least one dot after it.
func emailAt(v []byte) int {
	at := bytes.IndexByte(v, '@')
	if at < 1 || bytes.IndexByte(v[at+1:], '@') >= 0 || bytes.ContainsAny(v[:at], " \t\r\n<>,;:\"(){}[]") {
		return -1
	}
	dot, label := false, 0
	for _, c := range v[at+1:] {
		switch {
		case c == '.':
			if label == 0 {
				return -1
			}
			dot, label = true, 0
		case c == '-' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80:
			label++
		default:
			return -1
		}
	}
	if !dot || label == 0 {
		return -1
	}
	return at
}

// isCard reports whether v looks like a payment card number: 13 to 19 digits, in groups or not, with a right check
// digit. What partial left of one counts as well.
func isCard(v, char []byte) bool {
	if len(v) < 13 || len(v) > 19*utf8.UTFMax+18 {
		return false
	}
	var digits [19]byte
	n, hidden := 0, 0
	for i := 0; i < len(v); {
		c := v[i]
		switch {
		case c == ' ' || c == '-':
			i++
			continue
		case n == len(digits):
			return false
		case c >= '0' && c <= '9':
			digits[n] = c - '0'
			n, i = n+1, i+1
		case bytes.HasPrefix(v[i:], char):
			n, i, hidden = n+1, i+len(char), hidden+1
		default:
			return false
		}
	}
	if n < 13 {
		return false
	}
	if hidden > 0 {
		return hidden == n-4
	}
	sum := 0
	for i := range n {
		d := int(digits[n-1-i])
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}
