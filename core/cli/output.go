package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"github.com/mattn/go-runewidth"
)

// printJSON writes v for programs.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// table writes rows in aligned columns under their heads, for people. What is not for a terminal is made visible.
func (a *app) table(heads []string, rows [][]string) error {
	width := make([]int, len(heads))
	for i, h := range heads {
		width[i] = runewidth.StringWidth(h)
	}
	for _, r := range rows {
		for i := range r {
			r[i] = printable(r[i])
			width[i] = max(width[i], runewidth.StringWidth(r[i]))
		}
	}
	var b strings.Builder
	line := func(cells []string) {
		for i, c := range cells {
			b.WriteString(c)
			if i < len(cells)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-runewidth.StringWidth(c)+2))
			}
		}
		b.WriteByte('\n')
	}
	line(heads)
	for _, r := range rows {
		line(r)
	}
	_, err := fmt.Fprint(a.out, b.String())
	return err
}

// printable shows control characters by a replacement, so that recorded text cannot drive the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || (unicode.Is(unicode.Cf, r) && r != '\u200d') {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
