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
	Pause         time.Duration // the longest pause that a player is to make; 0: as it was
}

// NewCast writes the header.
func NewCast(out io.Writer, h Header) (*Cast, error) {
	c := &Cast{out: bufio.NewWriter(out), start: h.Start}
	head := struct {
		Version   int               `json:"version"`
		Width     int               `json:"width"`
		Height    int               `json:"height"`
		Timestamp int64             `json:"timestamp,omitempty"`
		Idle      float64           `json:"idle_time_limit,omitempty"`
		Title     string            `json:"title,omitempty"`
		Env       map[string]string `json:"env,omitempty"`
	}{Version: 2, Width: size(h.Columns, 80), Height: size(h.Rows, 24), Timestamp: h.Start.Unix(), Idle: h.Pause.Seconds(), Title: Safe(h.Title)}
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
