package shell

import "strings"

// The categories of what is refused, in the order in which they are listed.
const (
	Destroy        = "destroy"        // rm -rf / and its like: what nobody gets back
	Disk           = "disk"           // file systems, partitions, devices
	Power          = "power"          // shutdown, reboot
	Permission     = "permission"     // everything for everybody, setuid, owners of whole trees
	Download       = "download"       // code from elsewhere, run as it comes
	ForkBomb       = "fork-bomb"      // a process that only makes more of itself
	ReverseShell   = "reverse-shell"  // a shell for somebody at the other end of a connection
	Account        = "account"        // users, sudo, who may sign in
	Kill           = "kill"           // all processes, or the first
	Protection     = "protection"     // firewalls and audit, switched off
	Traces         = "traces"         // logs and histories, removed
	SecretFiles    = "secret-files"   // keys and passwords of the machine
	Infrastructure = "infrastructure" // clusters, clouds, repositories
	Hidden         = "hidden"         // a program whose name is computed, or a line that cannot be read
	Program        = "program"        // one that the operator named
)

// Categories are all that can be left out. What is hidden is refused in any case.
var Categories = []string{
	Destroy, Disk, Power, Permission, Download, ForkBomb, ReverseShell, Account, Kill, Protection, Traces, SecretFiles, Infrastructure,
}

// Finding is why a command line is refused.
type Finding struct {
	Category string
	Why      string // a sentence, which holds nothing of the line but the names of well-known programs
}

// Judge reads command lines.
type Judge struct {
	Skip     map[string]bool // categories
	Programs map[string]bool // more programs to refuse
}

const (
	maxDepth = 8
	// MaxLength bounds a command line, in bytes.
	MaxLength = 64 << 10
)

// Line judges a command line, and returns nil if there is nothing against it.
func (j *Judge) Line(s string) *Finding {
	if len(s) > MaxLength {
		return &Finding{Hidden, "the command line is too long to be read"}
	}
	return j.line(s, 0)
}

func (j *Judge) line(s string, depth int) *Finding {
	if depth > maxDepth {
		return &Finding{Hidden, "commands stand within commands, too deep to be read"}
	}
	if f := j.keep(forkBomb(s)); f != nil {
		return f
	}
	t := read(s)
	if t.bad {
		return &Finding{Hidden, "a quote or a parenthesis has no end"}
	}
	for i := range t.commands {
		c := &t.commands[i]
		var before *simple
		if c.piped && i > 0 {
			before = &t.commands[i-1]
		}
		if f := j.command(c, before, t, depth); f != nil {
			return f
		}
	}
	for _, n := range t.nested {
		if f := j.line(n, depth+1); f != nil {
			return f
		}
	}
	return nil
}

// keep drops what the operator does not want to hear of.
func (j *Judge) keep(f *Finding) *Finding {
	if f == nil || j.Skip[f.Category] {
		return nil
	}
	return f
}

// wrappers run the command that follows them; the number is how many words of their own they have besides options.
var wrappers = map[string]int{
	"sudo": 0, "doas": 0, "env": 0, "nohup": 0, "nice": 0, "ionice": 0, "time": 0, "timeout": 1, "command": 0, "exec": 0, "builtin": 0, "busybox": 0,
	"unshare": 0, "nsenter": 0, "systemd-run": 0, "screen": 0, "toybox": 0, "xargs": 0, "setsid": 0, "stdbuf": 0, "chroot": 1, "unbuffer": 0, "strace": 0, "watch": 0, "parallel": 0, "flock": 1, "eval": 0,
}

// optionsWithValue are those of wrappers whose next word is not the command.
var optionsWithValue = map[string]string{
	"sudo": "ugCDhpRrtTU", "doas": "uC", "env": "uCS", "nice": "n", "ionice": "cnp", "timeout": "ks", "xargs": "IndLPsEa", "stdbuf": "ioe", "watch": "n",
	"strace": "eopsE", "parallel": "jI", "exec": "a", "flock": "wE",
}

var shells = set("sh bash zsh dash ksh ash fish su rbash runuser script")

var interpreters = set("python python2 python3 perl ruby node php lua")

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// base is the name of a program: of /bin/rm, rm.
func base(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }

// program strips assignments and wrappers off a command.
func program(words []word) []word {
	for len(words) > 0 {
		w := words[0].text
		if name, _, ok := strings.Cut(w, "="); ok && name != "" && !words[0].computed && strings.IndexFunc(name, notName) < 0 {
			words = words[1:]
			continue
		}
		own, is := wrappers[base(w)]
		if !is || len(words) == 1 {
			return words
		}
		name := base(w)
		words = words[1:]
		for len(words) > 0 && strings.HasPrefix(words[0].text, "-") && words[0].text != "-" {
			o := words[0].text
			words = words[1:]
			if o == "--" {
				break
			}
			if len(o) == 2 && strings.IndexByte(optionsWithValue[name], o[1]) >= 0 && len(words) > 0 {
				words = words[1:]
			}
		}
		for ; own > 0 && len(words) > 0; own-- {
			words = words[1:]
		}
	}
	return words
}

func notName(r rune) bool {
	return r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
}

func (j *Judge) command(c, before *simple, t *script, depth int) *Finding {
	for _, r := range c.redirects {
		if f := j.keep(written(r.target)); f != nil {
			return f
		}
	}
	words := program(c.words)
	if len(words) == 0 {
		return nil
	}
	head := words[0]
	name, args := base(head.text), words[1:]
	if computed(head) {
		for _, n := range t.nested {
			if f := j.line(n, depth+1); f != nil {
				return f
			}
		}
		if f := j.keep(runsDownload("eval", words, nil, t)); f != nil {
			return f
		}
		return &Finding{Hidden, "the name of a program is computed while the line runs"}
	}
	if j.Programs[name] {
		return &Finding{Program, "the program " + name + " is not to be used here"}
	}
	if f := j.keep(runsDownload(name, args, before, t)); f != nil {
		return f
	}
	rule := rules[name]
	if rule == nil {
		rule = rules[strings.SplitN(name, ".", 2)[0]+"."] // mkfs.ext4
	}
	if rule != nil {
		if f := j.keep(rule(name, args)); f != nil {
			return f
		}
	}
	if f := j.keep(touches(name, args)); f != nil {
		return f
	}
	if shells[name] {
		if f := j.line(c.input, depth+1); f != nil {
			return f
		}
		if before != nil && len(before.words) > 1 && (before.words[0].text == "echo" || before.words[0].text == "printf") {
			if f := j.line(joined(before.words[1:]), depth+1); f != nil {
				return f
			}
		}
	}
	return j.inside(name, head, args, depth)
}

// computed reports whether nobody can tell from the line which program a word is: it has an expansion, or a pattern.
func computed(head word) bool {
	return head.computed && !strings.HasPrefix(head.text, "<(") || strings.Contains(head.text, "${IFS") || strings.Contains(head.text, "$IFS") ||
		!head.quoted && (strings.ContainsAny(head.text, "*?") || strings.HasPrefix(head.text, "{") && strings.Contains(head.text, ",") ||
			strings.Contains(head.text, "[") && head.text != "[" && head.text != "[[")
}

// inside judges what a command is given to run: sh -c '…', ssh host …, find -exec …, COPY … PROGRAM '…'.
func (j *Judge) inside(name string, head word, args []word, depth int) *Finding {
	switch {
	case shells[name]:
		for i, a := range args {
			if strings.HasPrefix(a.text, "-") && !strings.HasPrefix(a.text, "--") && strings.HasSuffix(a.text, "c") && i+1 < len(args) {
				return j.line(args[i+1].text, depth+1)
			}
		}
	case name == "trap" && len(args) > 1:
		return j.line(args[0].text, depth+1)
	case name == "alias":
		for _, a := range args {
			if _, value, ok := strings.Cut(a.text, "="); ok {
				if f := j.line(value, depth+1); f != nil {
					return f
				}
			}
		}
	case name == "ssh":
		i := 0
		for i < len(args) && strings.HasPrefix(args[i].text, "-") {
			if o := args[i].text; len(o) == 2 && strings.IndexByte("bcDEeFIiJLlmOopQRSWw", o[1]) >= 0 {
				i++
			}
			i++
		}
		if i+1 < len(args) {
			return j.line(joined(args[i+1:]), depth+1)
		}
	case name == "find":
		for i, a := range args {
			if (a.text == "-exec" || a.text == "-execdir" || a.text == "-ok") && i+1 < len(args) {
				inner := &simple{words: args[i+1:]}
				return j.command(inner, nil, &script{}, depth+1)
			}
		}
	case name == "docker" || name == "podman" || name == "kubectl" || name == "nerdctl" || name == "oc":
		for i, a := range args {
			if (a.text == "--" || shells[base(a.text)]) && i+1 < len(args) {
				rest := args[i:]
				if a.text == "--" {
					rest = args[i+1:]
				}
				return j.command(&simple{words: rest}, nil, &script{}, depth+1)
			}
		}
	case head.quoted && len(args) == 0 && strings.ContainsAny(head.text, " ;|&"): // eval "…", a whole line in quotes
		return j.line(head.text, depth+1)
	}
	for i, a := range args {
		if strings.EqualFold(a.text, "program") && i+1 < len(args) && args[i+1].quoted {
			return j.line(args[i+1].text, depth+1)
		}
	}
	return nil
}

func joined(args []word) string {
	parts := make([]string, len(args))
	for i, a := range args {
		parts[i] = a.text
	}
	return strings.Join(parts, " ")
}

// forkBomb looks for a function that calls itself twice, in a pipe: f(){ f|f& };f
func forkBomb(s string) *Finding {
	open := strings.Index(s, "()")
	if open < 0 {
		return nil
	}
	squeezed := strings.Join(strings.Fields(s), "")
	open = strings.Index(squeezed, "(){")
	if open <= 0 {
		return nil
	}
	start := open
	for start > 0 && !has(operators+"{}", squeezed[start-1]) {
		start--
	}
	name := strings.TrimPrefix(squeezed[start:open], "function")
	if name != "" && strings.HasPrefix(squeezed[open+3:], name+"|"+name+"&") {
		return &Finding{ForkBomb, "the line makes processes without an end"}
	}
	return nil
}

// runsDownload looks for code that comes from elsewhere and goes into a shell.
func runsDownload(name string, args []word, before *simple, t *script) *Finding {
	if !shells[name] && !interpreters[name] && name != "source" && name != "." && name != "eval" {
		return nil
	}
	found := &Finding{Download, "what a download or a decoder prints is run as it comes"}
	if before != nil {
		if w := program(before.words); len(w) > 0 && fetches(base(w[0].text), w[1:]) {
			for _, a := range args { // an interpreter with a script of its own only reads data
				if interpreters[name] && !strings.HasPrefix(a.text, "-") || a.text == "-c" || a.text == "-m" || a.text == "-e" || a.text == "-ne" || a.text == "-pe" {
					return nil
				}
			}
			return found
		}
	}
	for _, n := range t.nested {
		inner := read(n)
		for i := range inner.commands {
			if w := program(inner.commands[i].words); len(w) > 0 && fetches(base(w[0].text), w[1:]) {
				for _, a := range args {
					if a.computed {
						return found
					}
				}
			}
		}
	}
	return nil
}

// fetches reports whether a program prints what somebody else wrote.
func fetches(name string, args []word) bool {
	switch name {
	case "curl", "wget", "fetch", "aria2c", "http", "lynx":
		return true
	case "base64", "base32", "xxd", "openssl", "uudecode":
		for _, a := range args {
			switch a.text {
			case "-d", "-D", "--decode", "-r", "-di", "-id":
				return true
			}
		}
	}
	return false
}
