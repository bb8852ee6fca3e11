package shell

import (
	"strings"

	"github.com/weir-gateway/weir/core"
)

// wrapped says how a program that runs another is called: its options, and how many words of its own come first.
type wrapped struct {
	syntaxOf
	effects []core.Effect
	skip    int
	assigns bool   // NAME=VALUE may stand before the command
	code    string // options that are code of their own: letters and names
	lone    bool   // without a command it opens a shell
}

var wrappers = map[string]wrapped{
	"sudo": {
		syntaxOf: syntaxOf{short: "ugCDhpRrtTU", long: "user group chdir host prompt role type other-user chroot close-from command-timeout"},
		effects:  []core.Effect{rights}, assigns: true, code: "s i e shell login edit",
	},
	"doas":               {syntaxOf: syntaxOf{short: "uCa"}, effects: []core.Effect{rights}, code: "s C"},
	"pkexec":             {syntaxOf: syntaxOf{long: "user"}, effects: []core.Effect{rights}, lone: true},
	"run0 dzdo sudoedit": {syntaxOf: syntaxOf{short: "u", long: "user"}, effects: []core.Effect{rights}, lone: true},
	"env":                {syntaxOf: syntaxOf{short: "uCS", long: "unset chdir split-string"}, effects: []core.Effect{read}, assigns: true, code: "S split-string"},
	"nohup setsid":       {},
	"nice":               {syntaxOf: syntaxOf{short: "n", long: "adjustment"}},
	"ionice chrt":        {syntaxOf: syntaxOf{short: "cnpP", long: "class classdata"}},
	"taskset":            {syntaxOf: syntaxOf{short: "p"}, skip: 1},
	"numactl cpulimit prlimit cgexec eatmydata catchsegv proxychains proxychains4 torsocks torify firejail faketime fakeroot dbus-run-session dbus-launch xvfb-run daemonize": {effects: []core.Effect{unknown}},
	"timeout":                     {syntaxOf: syntaxOf{short: "ks", long: "kill-after signal"}, skip: 1},
	"time":                        {syntaxOf: syntaxOf{short: "fo", long: "format output"}},
	"stdbuf":                      {syntaxOf: syntaxOf{short: "ioe", long: "input output error"}},
	"unbuffer":                    {},
	"watch":                       {syntaxOf: syntaxOf{short: "nd", long: "interval"}},
	"command":                     {},
	"builtin":                     {},
	"exec":                        {syntaxOf: syntaxOf{short: "a"}},
	"strace ltrace":               {syntaxOf: syntaxOf{short: "abeEIoOpPsSuUX", long: "trace output"}},
	"chroot":                      {syntaxOf: syntaxOf{long: "userspec groups"}, effects: []core.Effect{admin}, skip: 1, lone: true},
	"nsenter":                     {syntaxOf: syntaxOf{short: "tSG", long: "target"}, effects: []core.Effect{admin}, lone: true},
	"unshare":                     {syntaxOf: syntaxOf{short: "SGRw", long: "root wd"}, effects: []core.Effect{admin}, lone: true},
	"setpriv capsh":               {effects: []core.Effect{rights}, code: "c", lone: true},
	"systemd-run":                 {syntaxOf: syntaxOf{short: "upEMHtGS", long: "unit property setenv machine host slice uid gid description on-active on-calendar working-directory"}, effects: []core.Effect{admin}, code: "S shell"},
	"systemd-nspawn":              {syntaxOf: syntaxOf{short: "DiMu"}, effects: []core.Effect{admin}, lone: true},
	"start-stop-daemon":           {effects: []core.Effect{admin}, code: "exec startas x a S start"},
	"flock":                       {syntaxOf: syntaxOf{short: "wEc", long: "timeout command"}, skip: 1, code: "c command"},
	"ssh-agent":                   {syntaxOf: syntaxOf{short: "aEtPO"}},
	"tini dumb-init gosu su-exec": {skip: 0, effects: []core.Effect{unknown}, code: "-"},
	"ld-linux-x86-64.so.2 ld-linux.so.2 ld-linux-aarch64.so.1 ld.so ld-musl-x86_64.so.1 ld-musl-aarch64.so.1": {syntaxOf: syntaxOf{long: "library-path preload audit argv0"}, code: "preload audit"},
	"coproc":                  {},
	"perf valgrind heaptrack": {effects: []core.Effect{unknown}, code: "-"},
}

// wrapper reads the command that a program runs.
func wrapper(w wrapped) func(*script, string, []field, input) {
	codes := strings.Fields(w.code)
	w.stop = true
	return func(s *script, name string, args []field, in input) {
		opts, rest := w.options(args)
		for _, o := range opts {
			if _, runs := given([]option{o}, codes...); runs && len(codes) > 0 {
				switch {
				case (name == "env" || name == "flock" || name == "capsh") && o.has && o.value.known:
					s.inner(o.value.text)
					if name == "env" {
						s.unsure("env parts a text into words by rules of its own")
					}
				default:
					s.unsure("an option of " + name + " opens a shell, an editor or another program")
				}
			}
			if name == "command" && (o.name == "v" || o.name == "V") {
				return // asks where a program is
			}
		}
		if w.assigns {
			for len(rest) > 0 && strings.IndexByte(rest[0].text, '=') > 0 {
				key, _, _ := strings.Cut(rest[0].text, "=")
				if decides[key] || strings.HasPrefix(key, "LD_") || strings.HasPrefix(key, "BASH_FUNC") || !plain(key) {
					s.unsure("the variable " + safeName(key) + " decides what runs")
				}
				rest = rest[1:]
			}
		}
		if name == "chroot" && len(rest) > 0 {
			s.path(rest[0], "read", "tree")
			s.unsure("in another root names mean other programs and paths")
		}
		if name == "flock" && len(rest) > 0 {
			s.path(rest[0], "write")
			if len(rest) > 2 && rest[1].text == "-c" {
				s.textOf(rest[2])
				return
			}
		}
		if len(rest) < w.skip {
			return
		}
		rest = rest[w.skip:]
		if len(rest) == 0 {
			if w.lone {
				s.unsure(name + " opens a shell")
			}
			return
		}
		if name == "watch" {
			s.joined(rest)
			return
		}
		if name == "builtin" || name == "command" || name == "exec" {
			rest[0].moves = rest[0].moves || !rest[0].known
		}
		s.run(rest, in)
	}
}

func safeName(s string) string {
	if plain(s) && len(s) < 64 {
		return s
	}
	return "given"
}

// textOf reads one word that another shell runs.
func (s *script) textOf(f field) {
	if !f.known {
		s.unsure("a command for another shell is known only when it runs")
		return
	}
	if f.moves {
		s.unsure("a command for another shell comes from a variable")
	}
	s.inner(f.text)
}

// shellC is sh -c TEXT, sh FILE, or sh alone, which runs what it reads.
func shellC(s *script, name string, args []field, in input) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case !a.known:
			s.unsure("a script is known only when it runs")
			s.effect(unknown)
			return
		case a.text == "-" || a.text == "--":
			continue
		case strings.HasPrefix(a.text, "--"):
			switch a.text {
			case "--rcfile", "--init-file":
				if i++; i < len(args) {
					s.path(args[i], "read")
				}
				s.unsure("a shell reads a script of its own first")
			case "--version", "--help":
				return
			}
			continue
		case len(a.text) > 1 && (a.text[0] == '-' || a.text[0] == '+'):
			if strings.Contains(a.text, "c") && a.text[0] == '-' {
				// -c may be followed by more options: bash -c -e TEXT
				for i++; i < len(args) && len(args[i].text) > 1 && (args[i].text[0] == '-' || args[i].text[0] == '+') && args[i].known; i++ {
					if strings.HasSuffix(args[i].text, "o") || strings.HasSuffix(args[i].text, "O") {
						i++
					}
				}
				if i >= len(args) {
					return
				}
				s.textOf(args[i])
				if len(args) > i+1 {
					for _, f := range args[i+1:] {
						if !f.known || code(f.text) {
							s.unsure("a parameter of a shell is known only when it runs")
						}
					}
				}
				return
			}
			if strings.ContainsAny(a.text, "oO") {
				i++
			}
			if strings.Contains(a.text, "s") && a.text[0] == '-' {
				i = len(args)
			}
			continue
		default:
			s.resource("program", tidy(a.text), "run")
			s.path(a, "read", "run")
			s.effect(unknown)
			return
		}
	}
	s.effect(unknown)
	s.unsure(name + " runs what it reads")
	if in.given && in.literal {
		s.inner(in.text)
	}
}

// interpreter is one of another language: a file of it may run, what stands in the command cannot be read here.
func interpreter(s *script, name string, args []field, _ input) {
	if name == "bc" || name == "dc" {
		s.effect(read)
		for _, a := range args {
			s.path(a, "read")
		}
		return
	}
	for _, a := range args {
		switch {
		case !a.known:
			s.unsure("what " + name + " runs is known only when it runs")
			return
		case a.text == "--version" || a.text == "-V" || a.text == "--help" || a.text == "-version":
			if len(args) == 1 {
				return
			}
		case a.text == "-":
			s.unsure(name + " runs what it reads")
			return
		case strings.HasPrefix(a.text, "-"):
			if a.text == "-u" || a.text == "-B" || a.text == "-O" || a.text == "-E" && strings.HasPrefix(name, "python") || a.text == "-s" || a.text == "-S" || a.text == "-w" {
				continue
			}
			s.unsure(name + " is given code, or options that are code")
			return
		default:
			s.resource("program", tidy(a.text), "run")
			s.path(a, "read", "run")
			return
		}
	}
	s.unsure(name + " runs what it reads")
}

// editor is a program from which any other can be run.
func editor(s *script, name string, args []field, _ input) {
	s.unsure(name + " runs whatever it is told to")
	for _, a := range args {
		if a.known && !strings.HasPrefix(a.text, "-") && !strings.HasPrefix(a.text, "+") {
			s.path(a, "read", "write")
		}
	}
}

func opens(s *script, name string, _ []field, _ input) {
	s.unsure(name + " opens another way to a shell")
}

// eval reads its words once more.
func eval(s *script, _ string, args []field, _ input) {
	s.unsure("eval runs a text that is made while it runs")
	for _, a := range args {
		if !a.known {
			return
		}
	}
	if len(args) > 0 {
		s.joined(args)
	}
}

// source runs a file in the same shell: what it defines is not seen.
func source(s *script, _ string, args []field, _ input) {
	s.unsure("a script that is read in may define what other names mean")
	if len(args) > 0 && args[0].known {
		s.path(args[0], "read", "run")
	}
}

// su runs a text as somebody else.
func su(s *script, name string, args []field, in input) {
	g := syntaxOf{short: "cCgGsuwT", long: "command session-command group supp-group shell user whitelist-environment", stop: name == "runuser"}
	opts, rest := g.options(args)
	if o, ok := given(opts, "c", "command", "C", "session-command"); ok {
		s.textOf(o.value)
		return
	}
	if _, shell := given(opts, "s", "shell"); shell {
		s.unsure(name + " is told which shell to run")
	}
	if _, user := given(opts, "u", "user"); name == "runuser" && user && len(rest) > 0 {
		s.run(rest, in)
		return
	}
	s.unsure(name + " opens a shell")
}

// applets are many programs in one.
func applets(s *script, _ string, args []field, in input) {
	if len(args) == 0 || strings.HasPrefix(args[0].text, "--") && args[0].known {
		return
	}
	s.run(args, in)
}

// xargs gives a program words that nobody has seen.
func xargs(s *script, name string, args []field, in input) {
	g := syntaxOf{short: "IndLPsEaj", long: "replace max-args delimiter max-lines max-procs max-chars eof arg-file jobs", stop: true}
	opts, rest := g.options(args)
	if o, ok := given(opts, "a", "arg-file"); ok {
		s.path(o.value, "read")
	}
	if len(rest) == 0 {
		return
	}
	if name == "parallel" {
		s.unsure("parallel makes texts for a shell of what it reads")
		for i, a := range rest {
			if strings.HasPrefix(a.text, ":::") {
				rest = rest[:i]
				break
			}
		}
		if len(rest) == 0 {
			return
		}
	}
	mark := "{}"
	if o, ok := given(opts, "I", "replace"); ok && o.has && o.value.text != "" {
		mark = o.value.text
	}
	s.given(name, rest, mark, field{text: "*"}, in)
}

// given runs a command with words that come from elsewhere, at its end or in the place of a mark.
func (s *script) given(by string, command []field, mark string, words field, in input) {
	command = append([]field(nil), command...)
	put := false
	for i := range command {
		if strings.Contains(command[i].text, mark) {
			if i > 0 && command[i].text == mark {
				command[i] = words
			} else {
				command[i].known = false
			}
			put = true
		}
	}
	if !put && words.text == "*" {
		command = append(command, words)
	}
	n := base(command[0].text)
	if shells[n] || interpreters[n] || n == "eval" || editors[n] {
		s.unsure(by + " gives a shell or an interpreter what it has found")
	}
	s.run(command, in)
}

// find looks, removes and runs others under the paths that stand first.
func find(s *script, _ string, args []field, in input) {
	i := 0
	for i < len(args) && args[i].known && (args[i].text == "-L" || args[i].text == "-H" || args[i].text == "-P" || strings.HasPrefix(args[i].text, "-O")) {
		i++
	}
	var roots []field
	for i < len(args) && !strings.HasPrefix(args[i].text, "-") && args[i].text != "(" && args[i].text != "!" {
		roots = append(roots, args[i])
		i++
	}
	if len(roots) == 0 {
		roots = []field{{text: ".", known: true}}
	}
	use := []string{"list", "tree"}
	for ; i < len(args); i++ {
		a := args[i]
		if !a.known {
			if strings.HasPrefix(a.text, "-") || a.text == "*" && !a.quoted {
				s.unsure("what find does is known only when it runs")
			}
			continue
		}
		switch a.text {
		case "-delete":
			use = append(use, "delete")
		case "-fprint", "-fprint0", "-fls", "-fprintf":
			if i+1 < len(args) {
				s.path(args[i+1], "write")
			}
		case "-files0-from":
			s.unsure("which paths are taken is read from a list")
		case "-exec", "-execdir", "-ok", "-okdir":
			end := i + 1
			for end < len(args) && args[end].text != ";" && (args[end].text != "+" || args[end-1].text != "{}") {
				end++
			}
			if command := args[i+1 : end]; len(command) > 0 {
				for _, r := range roots {
					r.glob = true
					r.text = strings.TrimSuffix(r.text, "/") + "/**"
					s.given("find", command, "{}", r, in)
				}
				n := base(command[0].text)
				if u := programs[n]; u != nil && (n == "rm" || n == "shred" || n == "unlink" || n == "rmdir") {
					use = append(use, "delete")
				}
			}
			i = end
		}
	}
	for _, r := range roots {
		s.path(r, use...)
	}
}
