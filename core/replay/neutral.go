package replay

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// oneLine makes a text safe for a listing: one line, at most width characters, and nothing in it that a terminal
// would obey or that would change the order in which a person reads it.
func oneLine(s string, width int) string {
	s = cap1(s)
	var b strings.Builder
	n := 0
	space := false
	for i, r := range s {
		if r == ' ' || r == '\n' || r == '\t' || r == '\r' {
			space = n > 0
			continue
		}
		if n >= width {
			b.WriteString("…")
			break
		}
		if space {
			b.WriteByte(' ')
			n++
			space = false
		}
		n += writeRune(&b, s, i, r)
	}
	return b.String()
}

// Neutral makes a text of several lines safe for a terminal: line ends and tabs stay, all other control characters are
// shown as what they are.
func Neutral(s string) string {
	s = cap1(s)
	var b strings.Builder
	b.Grow(len(s))
	for i, r := range s {
		switch {
		case r == '\n' || r == '\t':
			b.WriteRune(r)
		case r == '\r' && strings.HasPrefix(s[i:], "\r\n"):
		default:
			writeRune(&b, s, i, r)
		}
	}
	return b.String()
}

func cap1(s string) string {
	if len(s) > maxShown {
		return s[:maxShown]
	}
	return s
}

// writeRune writes the rune at s[i], or how it is spelt when it is not one to be shown, and returns its width.
func writeRune(b *strings.Builder, s string, i int, r rune) int {
	spelt := ""
	switch {
	case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
		spelt = fmt.Sprintf(`\x%02x`, s[i])
	case r < 0x20 || r == 0x7f:
		spelt = fmt.Sprintf(`\x%02x`, r)
	case r >= 0x80 && r < 0xa0, // C1 controls
		r == 0x061c, r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f, // zero width, bidi, line ends
		r == 0xfeff, r >= 0xfff9 && r <= 0xfffb, r == 0x00ad:
		spelt = fmt.Sprintf(`\u%04x`, r)
	case r >= 0xe0000 && r <= 0xe007f: // tags: invisible text
		spelt = fmt.Sprintf(`\U%08x`, r)
	default:
		b.WriteRune(r)
		return 1
	}
	b.WriteString(spelt)
	return len(spelt)
}
