package terminal

import (
	"io"
	"strconv"
	"unicode/utf8"
)

// Screen draws on a terminal what another terminal was sent, and nothing that reaches past the screen: see Cast.
type Screen struct {
	out   io.Writer
	clean cleaner
}

// NewScreen returns one that draws on out.
func NewScreen(out io.Writer) *Screen { return &Screen{out: out} }

// Write draws a piece of what was sent. Pieces may end anywhere.
func (s *Screen) Write(p []byte) (int, error) {
	if _, err := io.WriteString(s.out, s.clean.of(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close gives the terminal back as it was: without colours and margins, with its cursor, on its usual screen.
func (s *Screen) Close() error {
	_, err := io.WriteString(s.out, "\x1b[?1049l\x1b[0m\x1b[r\x1b[?7h\x1b[?6l\x1b[?25h\r\n")
	return err
}

// cleaner lets through what draws on a screen, and nothing else.
type cleaner struct {
	seq sequences
	out []byte
}

func (c *cleaner) of(p []byte) string {
	c.out = c.out[:0]
	c.seq.feed(p, c)
	return string(c.out)
}

func (c *cleaner) print(r rune) { c.out = utf8.AppendRune(c.out, r) }

func (c *cleaner) control(b byte) {
	if b >= 0x07 && b <= '\r' {
		c.out = append(c.out, b)
	}
}

func (c *cleaner) single(final byte) {
	switch final {
	case '7', '8', 'D', 'E', 'M', 'c', '=', '>':
		c.out = append(c.out, 0x1b, final)
	}
}

func (c *cleaner) sequence(prefix, final byte, numbers []int) {
	switch final {
	case '@', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'P', 'S', 'T', 'X', 'Z', '`', 'a', 'd', 'e', 'f', 'g', 'm', 'r', 's', 'u':
		if prefix != 0 {
			return
		}
	case 'h', 'l':
		if prefix == '?' {
			for _, n := range numbers {
				switch n {
				case 1, 6, 7, 12, 25, 47, 1047, 1048, 1049: // no mouse, no focus, no bracketed paste
				default:
					return
				}
			}
		} else if prefix != 0 {
			return
		}
	default: // questions (c, n, q, t, x), key modes, and what is not known
		return
	}
	c.out = append(c.out, 0x1b, '[')
	if prefix != 0 {
		c.out = append(c.out, prefix)
	}
	for i, n := range numbers {
		if i > 0 {
			c.out = append(c.out, ';')
		}
		if n > 0 || len(numbers) > 1 || prefix != 0 {
			c.out = strconv.AppendInt(c.out, int64(n), 10)
		}
	}
	c.out = append(c.out, final)
}
