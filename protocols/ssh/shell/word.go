package shell

import (
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"mvdan.cc/sh/v3/syntax"
)

// field is one word of a command as the program would get it.
type field struct {
	text   string
	known  bool // text is all of it, but for what glob says
	glob   bool // text is a pattern: the shell puts names in its place, or a number or a date stands where * is
	quoted bool // some of it is in quotes
	moves  bool // it comes from a variable or another command, not from the letters of the text alone
}

// variable is what a name may stand for, wherever in the text it is used.
type variable struct {
	values  []string
	unknown bool
}

// fields are the words that a word may become: by braces, by variables with several values, by spaces in them.
func (s *script) fields(w *syntax.Word) []field {
	if w == nil {
		return nil
	}
	split := *w
	split.Parts = append([]syntax.WordPart(nil), w.Parts...)
	if braces := s.text[min(int(w.Pos().Offset()), len(s.text)):min(int(w.End().Offset()), len(s.text))]; strings.Count(braces, "{") > maxBraces {
		s.unsure("braces or variables become too many words")
		return []field{{text: "*"}}
	}
	syntax.SplitBraces(&split)
	out := s.expand(&split)
	if len(out) > maxFields {
		s.unsure("braces or variables become too many words")
		out = out[:maxFields]
	}
	return out
}

func (s *script) expand(w *syntax.Word) []field {
	var done []field
	open := []field{{known: true}} // the ways in which the present word may begin
	empty := true                  // nothing has been put into it
	grow := func(texts []field) {
		var next []field
		for _, o := range open {
			for _, t := range texts {
				f := field{o.text + t.text, o.known && t.known, o.glob || t.glob, o.quoted || t.quoted, o.moves || t.moves}
				if len(f.text) > maxValue*4 {
					f.text, f.known = f.text[:maxValue], false
				}
				if next = append(next, f); len(next) > maxFields {
					open = next
					return
				}
			}
		}
		open = next
	}
	end := func() {
		done = append(done, kept(open)...)
		open, empty = []field{{known: true, moves: true}}, true
	}
	for _, part := range w.Parts {
		switch p := part.(type) {
		case *syntax.Lit:
			text, glob := unescape(p.Value, false)
			s.history(p.Value)
			grow([]field{{text: text, known: true, glob: glob, quoted: strings.Contains(p.Value, `\`)}})
			empty = empty && p.Value == ""
		case *syntax.SglQuoted:
			f := field{text: p.Value, known: true, quoted: true}
			if p.Dollar {
				f.text, f.known = ansi(p.Value)
			}
			grow([]field{f})
			empty = false
		case *syntax.DblQuoted:
			grow(s.quoted(p))
			empty = false
		case *syntax.BraceExp:
			grow(s.braces(p))
			empty = false
		case *syntax.ParamExp:
			values := s.parameter(p)
			if !spaced(values) {
				grow(values)
				empty = empty && len(values) == 1 && values[0].text == "" && values[0].known
				continue
			}
			if len(values) > 1 { // which piece stands beside what is around it depends on the value
				end()
				for _, v := range values {
					for _, word := range strings.Fields(v.text) {
						done = append(done, field{text: word, moves: true})
					}
				}
				continue
			}
			v := values[0] // without quotes the spaces in a value part words
			if v.text[0] == ' ' || v.text[0] == '\t' || v.text[0] == '\n' {
				end()
			}
			for i, word := range strings.Fields(v.text) {
				if i > 0 {
					end()
				}
				v.text = word
				grow([]field{v})
				empty = false
			}
			if last := values[0].text[len(values[0].text)-1]; last == ' ' || last == '\t' || last == '\n' {
				end()
			}
		case *syntax.CmdSubst:
			grow([]field{s.substituted(p)})
			empty = false
		case *syntax.ArithmExp:
			grow([]field{{text: "*", known: true, glob: true, moves: true}})
			empty = false
		case *syntax.ProcSubst:
			grow([]field{{text: "/dev/fd/63", known: true, moves: true}})
			empty = false
		case *syntax.ExtGlob:
			grow([]field{{text: "*", known: true, glob: true}})
			empty = false
		default:
			grow([]field{{text: "*"}})
			empty = false
		}
		if len(done) > maxFields {
			break
		}
	}
	if !empty || len(done) == 0 && len(w.Parts) > 0 && !open[0].moves {
		done = append(done, open...)
	}
	return done
}

// spaced reports whether a value has what parts words.
func spaced(values []field) bool {
	for _, v := range values {
		if v.known && strings.ContainsAny(v.text, " \t\n") {
			return true
		}
	}
	return false
}

// kept are the words that have something in them.
func kept(open []field) (out []field) {
	for _, o := range open {
		if o.text != "" || o.quoted {
			out = append(out, o)
		}
	}
	return out
}

// quoted is what stands in double quotes: one word, whatever is in it.
func (s *script) quoted(q *syntax.DblQuoted) []field {
	out := []field{{known: true, quoted: true}}
	for _, part := range q.Parts {
		var more []field
		switch p := part.(type) {
		case *syntax.Lit:
			text, _ := unescape(p.Value, true)
			s.history(p.Value)
			more = []field{{text: text, known: true}}
		case *syntax.ParamExp:
			more = s.parameter(p)
			if name := p.Param; name != nil && (name.Value == "@" || name.Value == "*") {
				more = []field{{text: "*", moves: true}}
			}
		case *syntax.CmdSubst:
			more = []field{s.substituted(p)}
		case *syntax.ArithmExp:
			more = []field{{text: "*", known: true, glob: true, moves: true}}
		default:
			more = []field{{text: "*"}}
		}
		var next []field
		for _, o := range out {
			for _, m := range more {
				if next = append(next, field{o.text + m.text, o.known && m.known, o.glob || m.glob, true, o.moves || m.moves}); len(next) > maxFields {
					return next
				}
			}
		}
		out = next
	}
	return out
}

func (s *script) braces(b *syntax.BraceExp) []field {
	if b.Sequence {
		return s.sequence(b)
	}
	var out []field
	for _, e := range b.Elems {
		if len(e.Parts) == 0 {
			out = append(out, field{known: true})
			continue
		}
		if out = append(out, s.expand(e)...); len(out) > maxFields {
			break
		}
	}
	return out
}

// sequence is {1..9} or {a..e}.
func (s *script) sequence(b *syntax.BraceExp) []field {
	if len(b.Elems) < 2 {
		return []field{{text: "*"}}
	}
	from, to, step := b.Elems[0].Lit(), b.Elems[1].Lit(), 1
	if len(b.Elems) > 2 {
		step, _ = strconv.Atoi(b.Elems[2].Lit())
	}
	a, errA := strconv.Atoi(from)
	z, errZ := strconv.Atoi(to)
	letters := errA != nil || errZ != nil
	if letters && len(from) == 1 && len(to) == 1 {
		a, z = int(from[0]), int(to[0])
	} else if letters {
		return []field{{text: "*"}}
	}
	if !letters { // numbers of any length, with zeros before them: none is a name that matters
		return []field{{text: "*", known: true, glob: true}}
	}
	if step = max(step, -step, 1); a > z {
		a, z = z, a
		step = 1
	}
	var out []field
	for i := a; i <= z && len(out) < 64; i += step {
		out = append(out, field{text: string(rune(i)), known: true})
	}
	return out
}

// fixed are variables whose values are known well enough wherever the command runs.
var fixed = map[string]field{
	"HOME": {text: "~", known: true}, "PWD": {text: ".", known: true}, "IFS": {text: " ", known: true},
	"?": number, "$": number, "#": number, "!": number, "RANDOM": number, "SECONDS": number, "UID": number, "EUID": number, "PPID": number,
	"LINENO": number, "EPOCHSECONDS": number, "OPTIND": number,
}

var number = field{text: "*", known: true, glob: true}

// parameter is what a variable may stand for.
func (s *script) parameter(p *syntax.ParamExp) []field {
	unknown := []field{{text: "*", moves: true}}
	if p.Length {
		return []field{{text: "*", known: true, glob: true, moves: true}}
	}
	if p.Param == nil || p.Excl || p.Width || p.IsSet || p.Flags != nil || p.Index != nil || p.Slice != nil || p.Repl != nil || p.Names != 0 || p.Exp != nil || len(p.Modifiers) > 0 {
		return unknown
	}
	v := s.variables[p.Param.Value]
	if v == nil {
		if f, ok := fixed[p.Param.Value]; ok {
			f.moves = true
			return []field{f}
		}
		return unknown
	}
	if v.unknown || len(v.values) == 0 {
		return unknown
	}
	out := make([]field, 0, len(v.values))
	for _, text := range v.values {
		out = append(out, field{text: text, known: true, glob: strings.ContainsAny(text, "*?["), moves: true})
	}
	return out
}

// harmless programs print a name, a number or a date, and no path.
var harmless = words("whoami hostname nproc uname id date wc")

// substituted is what another command prints.
func (s *script) substituted(c *syntax.CmdSubst) field {
	if len(c.Stmts) == 1 && len(c.Stmts[0].Redirs) == 0 {
		if call, ok := c.Stmts[0].Cmd.(*syntax.CallExpr); ok && len(call.Assigns) == 0 && len(call.Args) > 0 && harmless[call.Args[0].Lit()] {
			for _, a := range call.Args[1:] {
				for _, f := range s.fields(a) {
					if !f.known || strings.ContainsAny(f.text, "/\n") || strings.HasPrefix(f.text, "-f") || strings.HasPrefix(f.text, "--f") {
						return field{text: "*", moves: true}
					}
				}
			}
			return field{text: "*", known: true, glob: true, moves: true}
		}
	}
	return field{text: "*", moves: true}
}

// history finds what an interactive shell would replace by an earlier command.
func (s *script) history(lit string) {
	for i := 0; i < len(lit)-1; i++ {
		switch {
		case lit[i] == '\\':
			i++
		case lit[i] == '!' && lit[i+1] != '=' && lit[i+1] != '(' && lit[i+1] != ' ':
			s.unsure("an exclamation mark would bring back an earlier command in an interactive shell")
			return
		}
	}
}

// unescape takes the backslashes out of a literal, and reports whether what is left is a pattern.
func unescape(lit string, quotes bool) (string, bool) {
	var b strings.Builder
	glob := false
	for i := 0; i < len(lit); i++ {
		c := lit[i]
		if c == '\\' && i+1 < len(lit) {
			next := lit[i+1]
			if next == '\n' {
				i++
				continue
			}
			if !quotes || strings.IndexByte("$`\"\\", next) >= 0 {
				b.WriteByte(next)
				i++
				continue
			}
		}
		glob = glob || !quotes && (c == '*' || c == '?' || c == '[')
		b.WriteByte(c)
	}
	return b.String(), glob && b.String() != "["
}

// ansi decodes $'…'.
func ansi(q string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(q); i++ {
		if q[i] != '\\' || i+1 >= len(q) {
			b.WriteByte(q[i])
			continue
		}
		i++
		digits := func(from, most, base int) int {
			n := 0
			for n < most && from+n < len(q) {
				if _, err := strconv.ParseUint(q[from+n:from+n+1], base, 8); err != nil {
					break
				}
				n++
			}
			return n
		}
		value := func(from, n, base int) rune {
			v, _ := strconv.ParseUint(q[from:from+n], base, 32)
			return rune(v)
		}
		switch c := q[i]; c {
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case '\\', '\'', '"', '?':
			b.WriteByte(c)
		case 'x':
			n := digits(i+1, 2, 16)
			if n == 0 {
				b.WriteString(`\x`)
				continue
			}
			v := value(i+1, n, 16)
			if v == 0 {
				return b.String(), false // bash ends the text here, others do not
			}
			b.WriteByte(byte(v))
			i += n
		case 'u', 'U':
			most := 4
			if c == 'U' {
				most = 8
			}
			n := digits(i+1, most, 16)
			if n == 0 {
				b.WriteByte('\\')
				b.WriteByte(c)
				continue
			}
			b.WriteRune(value(i+1, n, 16))
			i += n
		case '0', '1', '2', '3', '4', '5', '6', '7':
			n := digits(i, 3, 8)
			v := value(i, n, 8)
			if v == 0 {
				return b.String(), false
			}
			b.WriteByte(byte(v))
			i += n - 1
		case 'a', 'b', 'e', 'E', 'f', 'r', 'v', 'c':
			b.WriteByte(' ')
			return b.String(), false // a control character in a name: whoever does that hides something
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	return b.String(), utf8.ValidString(b.String())
}

// tidy is a path without steps that lead nowhere, and without the ways of /proc to the root.
func tidy(p string) string {
	if p == "" {
		return p
	}
	c := path.Clean(p)
	for {
		rest, ok := strings.CutPrefix(c, "/proc/")
		if !ok {
			return c
		}
		pid, rest, _ := strings.Cut(rest, "/")
		if _, err := strconv.Atoi(pid); err != nil && pid != "self" && pid != "thread-self" && pid != "*" {
			return c
		}
		if rest != "root" && !strings.HasPrefix(rest, "root/") {
			return c
		}
		c = path.Clean("/" + strings.TrimPrefix(rest, "root"))
	}
}

func words(list string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(list) {
		m[w] = true
	}
	return m
}
