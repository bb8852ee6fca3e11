package shell

import "strings"

// moved is cd: what is relative after it may lie there.
func moved(s *script, _ string, args []field, _ input) {
	_, rest := syntaxOf{}.options(args)
	if len(rest) == 0 {
		return // home, or where it was
	}
	d := rest[0]
	if !d.known || d.glob || d.text == "-" {
		s.lost = true
		return
	}
	if !strings.HasPrefix(d.text, "/") && !strings.HasPrefix(d.text, "~") {
		for _, at := range append([]string(nil), s.dirs...) {
			s.at(tidy(at + "/" + d.text))
		}
	}
	s.at(tidy(d.text))
}

func (s *script) at(dir string) {
	if dir == "." || dir == "" || contains(s.dirs, dir) {
		return
	}
	if len(s.dirs) >= 16 {
		s.lost = true
		return
	}
	s.dirs = append(s.dirs, dir)
}

// trap runs a text later.
func trap(s *script, _ string, args []field, _ input) {
	_, rest := syntaxOf{}.options(args)
	if len(rest) > 1 && rest[0].text != "-" && rest[0].text != "" {
		s.textOf(rest[0])
	}
}

// renaming is alias and its like: after it a name may mean another program.
func renaming(s *script, name string, args []field, _ input) {
	if len(args) == 0 || name == "unalias" || name == "hash" && args[0].text == "-r" {
		return
	}
	if name == "alias" {
		for _, a := range args {
			if _, value, ok := strings.Cut(a.text, "="); ok {
				s.textOf(field{text: value, known: a.known, moves: a.moves})
			}
		}
	}
	s.unsure(name + " changes what names of programs mean")
}

// settings are builtins that change a shell's ways.
func settings(s *script, name string, args []field, _ input) {
	switch name {
	case "bind", "complete", "compgen", "fc":
		if len(args) > 0 {
			s.unsure(name + " may run programs")
		}
	case "set", "shopt":
		for _, a := range args {
			if a.text == "expand_aliases" || a.text == "extdebug" || a.text == "lastpipe" {
				s.unsure("an option changes what names of programs mean")
			}
		}
	case "export":
		for _, a := range args {
			if key, _, ok := strings.Cut(a.text, "="); ok && decides[key] || !a.known {
				s.unsure("a variable decides what runs")
			}
		}
	}
}

// later is a program that runs others at another time.
func later(s *script, name string, args []field, _ input) {
	opts, rest := syntaxOf{short: "ufq"}.options(args)
	if name == "crontab" {
		if _, list := given(opts, "l"); list {
			return
		}
		if _, remove := given(opts, "r"); remove {
			s.effect(write)
			return
		}
	}
	for _, a := range rest {
		if name == "crontab" {
			s.path(a, "read")
		}
	}
	s.unsure(name + " runs programs later")
}
