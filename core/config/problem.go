package config

import (
	"fmt"
	"sort"
	"strings"
)

// Problem is one thing that is wrong, where, and what to do about it.
type Problem struct {
	File string `json:"file"` // empty: the text says where
	Line int    `json:"line"` // 0 when no line is to blame
	Path string `json:"path"` // of the value within the file: targets[0].listen
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

// String is one line: file:line: path: text (hint).
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Text)
	if p.Hint != "" {
		b.WriteString(" (" + p.Hint + ")")
	}
	return b.String()
}

// Problems is an error: everything that is wrong with a file, in the order of its lines.
type Problems []Problem

// Error is one line a problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Sort puts the problems in the order of their lines.
func (ps Problems) Sort() {
	sort.SliceStable(ps, func(i, j int) bool { return ps[i].Line < ps[j].Line })
}

// lineOf finds the line of path, or of the nearest parent that has one.
func lineOf(lines map[string]int, path string) int {
	for {
		if n, ok := lines[path]; ok {
			return n
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return lines[""]
		}
		path = path[:i]
	}
}

// nearest returns the word of known that differs least from word, if it differs little enough to be meant.
func nearest(word string, known []string) string {
	best, bestDistance := "", min(3, 1+len(word)/4)+1
	for _, k := range known {
		d := distance(word, k)
		if d == 2 && sameLetters(word, k) {
			d = 1
		}
		if d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete or replace.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 { // nobody means a word that long
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

// sameLetters reports whether two words differ by the order of their letters only: the most common slip.
func sameLetters(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	var count [256]int
	for i := range len(a) {
		count[a[i]]++
		count[b[i]]--
	}
	return count == [256]int{}
}

func hintNearest(word string, known []string) string {
	if n := nearest(word, known); n != "" {
		return "did you mean " + n + "?"
	}
	return ""
}
