package index

import (
	"hash/maphash"
	"strings"
	"unicode"

	"github.com/weir-gateway/weir/core"
)

// Bounds of what one session adds to the words that can be searched: its first ones are taken.
const (
	maxWords    = 4000    // different ones
	maxExamined = 1 << 20 // bytes of parameters and answers that are looked at
	minWord     = 2       // bytes of one
	maxWord     = 64
)

// answers are the words of what a session sent as parameters and got back.
type answers struct {
	reader   core.Reader
	columns  []core.Column // of the rows that come
	shape    []byte        // the facts that said so: a loop's answers have the same ones again and again
	known    map[uint64]struct{}
	fresh    []string // known, and not stored yet
	examined int
	full     bool // a bound is reached
}

var seed = maphash.MakeSeed()

// room reports whether so many bytes may still be looked at.
func (a *answers) room(n int) bool {
	if a.full {
		return false
	}
	if a.examined += n; a.examined > maxExamined {
		a.end()
	}
	return !a.full
}

func (a *answers) end() { a.full, a.known, a.columns, a.shape = true, nil, nil, nil }

// text takes the words of a text.
func (a *answers) text(s string) {
	if a.full {
		return
	}
	eachWord(s, func(w string) bool {
		h := maphash.String(seed, w)
		if _, ok := a.known[h]; ok {
			return true
		}
		if a.known == nil {
			a.known = map[uint64]struct{}{}
		}
		a.known[h] = struct{}{}
		a.fresh = append(a.fresh, strings.Clone(w))
		if len(a.known) >= maxWords {
			a.end()
		}
		return !a.full
	})
}

// rows takes the words of rows.
func (a *answers) rows(wire []byte) {
	if a.reader == nil || len(wire) == 0 || !a.room(len(wire)) {
		return
	}
	rows, _ := a.reader.ReadRows(a.columns, wire) // what can be read
	for _, row := range rows {
		for _, v := range row {
			if v != nil {
				a.text(*v)
			}
		}
	}
}

// take returns what is to be stored.
func (a *answers) take() string {
	s := strings.Join(a.fresh, " ")
	a.fresh = a.fresh[:0]
	return s
}

// joint reports whether a character may stand inside a word, between others: such words are also taken from each of
// their parts on.
func joint(r rune) bool { return strings.ContainsRune("@._+-:/", r) }

func inWord(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r)
}

// eachWord calls f with the words of a text in lower case, until f says no: ana@example.com, and then also example.com
// and com, and ana and example. Longer ones than maxWord bytes are left out.
func eachWord(s string, f func(string) bool) {
	s = strings.ToLower(s)
	for w := range strings.FieldsFuncSeq(s, func(r rune) bool { return !inWord(r) && !joint(r) }) {
		w = strings.TrimFunc(w, joint)
		for w != "" {
			at := strings.IndexFunc(w, joint)
			if at < 0 {
				if !say(w, f) {
					return
				}
				break
			}
			if !say(w, f) || !say(w[:at], f) {
				return
			}
			w = strings.TrimLeftFunc(w[at:], joint)
		}
	}
}

func say(w string, f func(string) bool) bool {
	return len(w) < minWord || len(w) > maxWord || f(w)
}

// asked are the words of a question; none: it has none that could be found.
func asked(s string) (out []string) {
	for w := range strings.FieldsFuncSeq(strings.ToLower(s), func(r rune) bool { return !inWord(r) && !joint(r) }) {
		w = strings.TrimFunc(w, joint)
		switch {
		case w == "":
		case len(w) < minWord || len(w) > maxWord:
			return nil
		default:
			out = append(out, w)
		}
	}
	return out
}
