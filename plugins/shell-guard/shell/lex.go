// Package shell reads command lines as a POSIX shell would, as far as it takes to tell what they run, and judges them.
package shell

import "strings"

// word is one word of a command, quotes removed.
type word struct {
	text   string
	quoted bool // some of it was in quotes
	// computed says that the shell makes it while it runs: it has a $(…), `…` or $'…' in it.
	computed bool
}

// redirect is where output goes.
type redirect struct{ target string }

// simple is one simple command.
type simple struct {
	words     []word
	redirects []redirect
	piped     bool   // its input is the output of the command before it
	input     string // what <<< or a here-document gives it
}

// script is what a command line runs.
type script struct {
	commands []simple
	nested   []string // what stood in $(…), `…` and <(…)
	substs   []string // of them what stood in <(…), by the command that reads it
	bad      bool     // a quote or a parenthesis has no end
}

const operators = ";&|()\n<>"

type lexer struct {
	s    string
	i    int
	out  *script
	cur  simple
	vars map[string]string // those that the line itself sets
	here []string          // the ends of the here-documents that begin at the next line
}

// read splits a text into its simple commands.
func read(s string) *script {
	l := &lexer{s: s, out: &script{}, vars: map[string]string{}}
	l.run()
	return l.out
}

func (l *lexer) end(piped bool) {
	words := l.cur.words
	if len(words) > 1 && (words[0].text == "export" || words[0].text == "local" || words[0].text == "readonly" || words[0].text == "declare") {
		words = words[1:]
	}
	for _, w := range words { // assignments that are a command of their own
		name, value, ok := strings.Cut(w.text, "=")
		if !ok || name == "" || strings.IndexFunc(name, notName) >= 0 || w.computed {
			break
		}
		l.vars[name] = value
	}
	if len(l.cur.words) > 0 || len(l.cur.redirects) > 0 {
		l.out.commands = append(l.out.commands, l.cur)
	}
	l.cur = simple{piped: piped}
}

func (l *lexer) run() {
	for l.i < len(l.s) {
		switch c := l.s[l.i]; {
		case c == ' ' || c == '\t' || c == '\r':
			l.i++
		case c == '\\' && l.i+1 < len(l.s) && l.s[l.i+1] == '\n':
			l.i += 2
		case c == '#' && (l.i == 0 || blank(l.s[l.i-1])):
			for l.i < len(l.s) && l.s[l.i] != '\n' {
				l.i++
			}
		case c == '|':
			l.i++
			piped := true
			if l.i < len(l.s) && (l.s[l.i] == '|' || l.s[l.i] == '&') {
				piped = l.s[l.i] == '&' // |& pipes as well
				l.i++
			}
			l.end(piped)
		case c == '<' && l.at(1) == '(', c == '>' && l.at(1) == '(':
			l.i += 2
			inner := l.until(')')
			l.out.nested, l.out.substs = append(l.out.nested, inner), append(l.out.substs, inner)
			l.cur.words = append(l.cur.words, word{text: "<(" + inner + ")", computed: true})
		case c == '>' || c == '<' || c == '&' && l.at(1) == '>':
			l.redirect()
		case c == '\n' && len(l.here) > 0:
			l.i++
			for _, end := range l.here {
				l.cur.input += l.document(end)
			}
			l.here = nil
			l.end(false)
		case c == ';' || c == '&' || c == '\n' || c == '(' || c == ')':
			l.i++
			l.end(false)
		default:
			w := l.word()
			switch w.text {
			case "{", "}", "!", "then", "do", "else", "elif", "if", "while", "until", "done", "fi":
				if !w.quoted && len(l.cur.words) == 0 {
					continue // what follows is a command
				}
			}
			if numeric(w.text) && !w.quoted && l.i < len(l.s) && (l.s[l.i] == '>' || l.s[l.i] == '<') {
				continue // 2>
			}
			l.cur.words = append(l.cur.words, w)
		}
	}
	l.end(false)
}

func (l *lexer) at(n int) byte {
	if l.i+n < len(l.s) {
		return l.s[l.i+n]
	}
	return 0
}

// document reads a here-document, up to the line that is its end.
func (l *lexer) document(end string) string {
	start := l.i
	for l.i < len(l.s) {
		line := l.s[l.i:]
		if n := strings.IndexByte(line, '\n'); n >= 0 {
			line = line[:n+1]
		}
		at := l.i
		l.i += len(line)
		if strings.TrimSpace(line) == end {
			return l.s[start:at]
		}
	}
	return l.s[start:l.i]
}

func (l *lexer) redirect() {
	output, here := false, 0
	if strings.HasPrefix(l.s[l.i:], "<<<") {
		here = 3
	} else if strings.HasPrefix(l.s[l.i:], "<<") {
		here = 2
		if l.at(2) == '-' {
			l.i++
		}
	}
	for l.i < len(l.s) && (l.s[l.i] == '>' || l.s[l.i] == '<' || l.s[l.i] == '&' || l.s[l.i] == '|' && output) {
		output = output || l.s[l.i] == '>'
		l.i++
	}
	for l.i < len(l.s) && (l.s[l.i] == ' ' || l.s[l.i] == '\t') {
		l.i++
	}
	if l.i < len(l.s) && !has(operators, l.s[l.i]) {
		w := l.word()
		switch {
		case here == 3:
			l.cur.input += w.text
		case here == 2:
			l.here = append(l.here, w.text)
		case output:
			l.cur.redirects = append(l.cur.redirects, redirect{w.text})
		}
	}
}

func (l *lexer) word() (w word) {
	var b []byte
	for l.i < len(l.s) {
		c := l.s[l.i]
		switch {
		case blank(c) || has(operators, c):
			w.text = string(b)
			return w
		case c == '\\':
			l.i++
			if l.i < len(l.s) {
				if l.s[l.i] != '\n' {
					b = append(b, l.s[l.i])
				}
				l.i++
			}
		case c == '\'':
			w.quoted = true
			l.i++
			start := l.i
			for l.i < len(l.s) && l.s[l.i] != '\'' {
				l.i++
			}
			b = append(b, l.s[start:l.i]...)
			if l.i == len(l.s) {
				l.out.bad = true
			}
			l.i++
		case c == '"':
			w.quoted = true
			b = l.double(b, &w)
		case c == '`' || c == '$':
			b = l.dollar(b, &w)
		default:
			b = append(b, c)
			l.i++
		}
	}
	w.text = string(b)
	return w
}

// double reads what is between " and ".
func (l *lexer) double(b []byte, w *word) []byte {
	for l.i++; l.i < len(l.s); {
		switch c := l.s[l.i]; {
		case c == '"':
			l.i++
			return b
		case c == '\\' && l.i+1 < len(l.s):
			b = append(b, l.s[l.i+1])
			l.i += 2
		case c == '`' || c == '$' && l.at(1) != '\'' && l.at(1) != '"':
			b = l.dollar(b, w)
		default:
			b = append(b, c)
			l.i++
		}
	}
	l.out.bad = true
	return b
}

// dollar reads what begins with a $ or a `. What the shell would run is kept apart.
func (l *lexer) dollar(b []byte, w *word) []byte {
	switch {
	case l.s[l.i] == '`':
		l.i++
		l.out.nested = append(l.out.nested, l.until('`'))
		w.computed = true
		return append(b, "$()"...)
	case l.at(1) == '(' && l.at(2) == '(': // arithmetic
		l.i += 3
		l.until(')')
		if l.i < len(l.s) && l.s[l.i] == ')' {
			l.i++
		}
		return append(b, '0')
	case l.at(1) == '(':
		l.i += 2
		l.out.nested = append(l.out.nested, l.until(')'))
		w.computed = true
		return append(b, "$()"...)
	case l.at(1) == '\'':
		w.computed, w.quoted = true, true
		l.i += 2
		for l.i < len(l.s) && l.s[l.i] != '\'' {
			if l.s[l.i] == '\\' {
				l.i++
			}
			l.i++
		}
		l.i++
		return append(b, "$''"...)
	case l.at(1) == '{':
		start := l.i
		for l.i < len(l.s) && l.s[l.i] != '}' {
			l.i++
		}
		l.i = min(l.i+1, len(l.s))
		if value, ok := l.vars[strings.Trim(l.s[start:l.i], "${}")]; ok {
			return append(b, value...)
		}
		return append(b, l.s[start:l.i]...)
	}
	l.i++
	start := l.i
	for l.i < len(l.s) && !notName(rune(l.s[l.i])) {
		l.i++
	}
	if value, ok := l.vars[l.s[start:l.i]]; ok {
		return append(b, value...)
	}
	return append(append(b, '$'), l.s[start:l.i]...)
}

// until returns what stands before the end of a $(…), and steps behind it.
func (l *lexer) until(end byte) string {
	start, depth := l.i, 0
	for ; l.i < len(l.s); l.i++ {
		switch c := l.s[l.i]; {
		case c == '\\':
			l.i++
		case c == end && depth == 0:
			inner := l.s[start:l.i]
			l.i++
			return inner
		case c == '(' && end == ')':
			depth++
		case c == ')' && end == ')':
			depth--
		case (c == '\'' || c == '"') && end == ')':
			for l.i++; l.i < len(l.s) && l.s[l.i] != c; l.i++ {
				if c == '"' && l.s[l.i] == '\\' {
					l.i++
				}
			}
		}
	}
	l.out.bad = true
	l.i = len(l.s)
	return l.s[min(start, len(l.s)):]
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func has(set string, c byte) bool {
	for i := range len(set) {
		if set[i] == c {
			return true
		}
	}
	return false
}

func numeric(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
