package terminal

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Transcript writes what stood on a terminal as plain lines: what was overwritten or erased is gone, as it was for who
// looked, and nothing that is written can drive the terminal that shows it. Where a program had the whole screen, one line
// says so. It keeps one line in memory.
type Transcript struct {
	out  *bufio.Writer
	seq  sequences
	line line
}

// NewTranscript returns one that writes to out. Columns is the width of the terminal; 0: not known.
func NewTranscript(out io.Writer, columns int) *Transcript {
	t := &Transcript{out: bufio.NewWriter(out)}
	t.line.columns = columns
	t.line.ended = func(cells []rune) { t.write(cells) }
	t.line.screen = func(on bool) {
		if on {
			_, _ = t.out.WriteString("[a program has the whole screen]\n")
		}
	}
	return t
}

// Write reads what a terminal was sent.
func (t *Transcript) Write(p []byte) (int, error) {
	t.seq.feed(p, &t.line)
	return len(p), t.out.Flush()
}

// Resize says that the terminal has another width.
func (t *Transcript) Resize(columns int) { t.line.columns = max(columns, 0) }

// Close writes the line that has no end.
func (t *Transcript) Close() error {
	if len(t.line.cells) > 0 {
		t.line.end()
	}
	return t.out.Flush()
}

func (t *Transcript) write(cells []rune) {
	_, _ = t.out.WriteString(strings.TrimRight(Safe(string(cells)), " ") + "\n")
}

// Text is the transcript of a whole recording.
func Text(output []byte) string {
	var b strings.Builder
	t := NewTranscript(&b, 0)
	_, _ = t.Write(output)
	_ = t.Close()
	return b.String()
}

// Safe spells every character that a terminal would obey, that nobody sees, or that changes the order in which others
// are read. Line ends and tabs stay.
func Safe(s string) string {
	if strings.IndexFunc(s, dangerous) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !dangerous(r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}

func dangerous(r rune) bool {
	return r < 0x20 && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == 0xad || r == 0x61c || r == 0x180e || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e ||
		r >= 0x2060 && r <= 0x206f || r == 0xfeff || r >= 0xfff9 && r <= 0xfffb || r >= 0xe0000 && r <= 0xe0fff
}
