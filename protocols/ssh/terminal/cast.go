package terminal

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode/utf8"
)

// Cast writes a recording as asciicast v2 (docs.asciinema.org/manual/asciicast/v2). The player of a cast obeys what is in it,
// as the terminal did that it was made from: what it shows is for a player that keeps to itself. Sequences that reach past
// the screen - the clipboard, the title, links, questions that a terminal answers - are left out.
type Cast struct {
	out   *bufio.Writer
	start time.Time
	rest  []byte // of a character whose other bytes come later
	clean cleaner
}

// Header is the first line of a cast.
type Header struct {
	Columns, Rows int
	Start         time.Time
	Title         string
	Term          string
}

// NewCast writes the header.
func NewCast(out io.Writer, h Header) (*Cast, error) {
	c := &Cast{out: bufio.NewWriter(out), start: h.Start}
	head := struct {
		Version   int               `json:"version"`
		Width     int               `json:"width"`
		Height    int               `json:"height"`
		Timestamp int64             `json:"timestamp,omitempty"`
		Title     string            `json:"title,omitempty"`
		Env       map[string]string `json:"env,omitempty"`
	}{Version: 2, Width: size(h.Columns, 80), Height: size(h.Rows, 24), Timestamp: h.Start.Unix(), Title: Safe(h.Title)}
	if h.Term != "" {
		head.Env = map[string]string{"TERM": Safe(h.Term)}
	}
	b, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	_, _ = c.out.Write(append(b, '\n'))
	return c, c.out.Flush()
}

func size(n, otherwise int) int {
	if n < 1 || n > 10_000 {
		return otherwise
	}
	return n
}

// Output is what the terminal was sent.
func (c *Cast) Output(at time.Time, p []byte) error {
	p = append(c.rest, p...)
	n := len(p)
	for k := 1; k < utf8.UTFMax && k <= len(p); k++ { // keep the beginning of a character for the next piece
		if b := p[len(p)-k]; b >= 0xc0 {
			if !utf8.FullRune(p[len(p)-k:]) {
				n = len(p) - k
			}
			break
		}
	}
	c.rest = append([]byte(nil), p[n:]...)
	if text := c.clean.of(p[:n]); text != "" {
		return c.event(at, "o", text)
	}
	return nil
}

// Input is what was typed, as Typed.Keys gives it: without what was not shown.
func (c *Cast) Input(at time.Time, p []byte) error { return c.event(at, "i", string(p)) }

// Resize is another size of the terminal.
func (c *Cast) Resize(at time.Time, columns, rows int) error {
	return c.event(at, "r", strconv.Itoa(size(columns, 80))+"x"+strconv.Itoa(size(rows, 24)))
}

// Mark is a place that a player can go to.
func (c *Cast) Mark(at time.Time, label string) error { return c.event(at, "m", Safe(label)) }

func (c *Cast) event(at time.Time, kind, text string) error {
	b, err := json.Marshal(text)
	if err != nil {
		return err
	}
	seconds := max(at.Sub(c.start), 0).Seconds()
	if _, err := fmt.Fprintf(c.out, "[%.6f, %q, %s]\n", seconds, kind, b); err != nil {
		return err
	}
	return c.out.Flush()
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
