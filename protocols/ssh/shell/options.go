package shell

import "strings"

// option is one option of a program, with its value where it has one.
type option struct {
	name  string // a letter, or a long name without the dashes
	value field
	has   bool // there is a value
}

// syntaxOf says which options of a program take a value: letters, and long names with spaces between them.
type syntaxOf struct {
	short, long string
	stop        bool // the first word that is no option ends them: what follows is a command
	single      bool // long names have one dash: find, java
}

// options parts the words of a program in options and others. A word that is known only when it runs counts as no
// option; what follows "--" does not either.
func (g syntaxOf) options(args []field) (opts []option, rest []field) {
	long := words(g.long)
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a.text == "--" && a.known:
			return opts, append(rest, args[i+1:]...)
		case !a.known && !strings.HasPrefix(a.text, "-") || len(a.text) < 2 || a.text[0] != '-':
			if g.stop {
				return opts, append(rest, args[i:]...)
			}
			rest = append(rest, a)
		case strings.HasPrefix(a.text, "--") || g.single:
			name, value, has := strings.Cut(strings.TrimLeft(a.text, "-"), "=")
			o := option{name: name, has: has, value: a}
			o.value.text = value
			if !has && long[name] && i+1 < len(args) {
				i++
				o.value, o.has = args[i], true
			}
			opts = append(opts, o)
		default:
			for k := 1; k < len(a.text); k++ {
				o := option{name: a.text[k : k+1]}
				if strings.IndexByte(g.short, a.text[k]) >= 0 {
					if k+1 < len(a.text) {
						o.value, o.has = a, true
						o.value.text = a.text[k+1:]
					} else if i+1 < len(args) {
						i++
						o.value, o.has = args[i], true
					}
					opts = append(opts, o)
					break
				}
				opts = append(opts, o)
			}
		}
	}
	return opts, rest
}

// given returns the option of one of the names. A long one may be cut short, as getopt_long allows.
func given(opts []option, names ...string) (option, bool) {
	for _, o := range opts {
		for _, n := range names {
			if o.name == n || len(o.name) > 2 && len(n) > 1 && strings.HasPrefix(n, o.name) {
				return o, true
			}
		}
	}
	return option{}, false
}

// doubtful reports whether one of the words may be an option that is not seen.
func doubtful(args []field) bool {
	for _, a := range args {
		if !a.known && (a.text == "*" || strings.HasPrefix(a.text, "-")) {
			return true
		}
	}
	return false
}
