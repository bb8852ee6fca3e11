package shell

import (
	"strings"

	"github.com/weir-gateway/weir/core"
)

// fileUse says what a program does with the files that it names.
type fileUse struct {
	effects []core.Effect
	syntaxOf
	use    []string            // of each operand
	last   []string            // of the last one, where there are two or more
	skip   int                 // operands before the files: a mode, an owner, a pattern
	unless string              // options after which nothing is skipped
	deep   string              // options that make it take whole trees: letters
	tree   bool                // it always does
	values map[string][]string // options whose value is a path, and its uses
}

func looks(f fileUse) fileUse {
	f.effects, f.use = []core.Effect{read}, []string{"read"}
	return f
}

// lists is for programs that tell the names of files, and nothing of what is in them.
func lists(f fileUse) fileUse {
	f.effects, f.use = []core.Effect{read}, []string{"list"}
	return f
}

func writes(f fileUse, use ...string) fileUse {
	f.effects, f.use = []core.Effect{write}, use
	return f
}

var files = map[string]fileUse{
	"cat tac nl rev od hexdump xxd strings file stat readlink realpath md5sum sha1sum sha224sum sha256sum sha384sum sha512sum b2sum cksum sum wc zcat bzcat xzcat zstdcat " +
		"namei lsattr getfacl getfattr objdump readelf nm size ldd ldconfig less more most zless zmore bat tailf": looks(fileUse{syntaxOf: syntaxOf{short: "AjNtnewP", long: "format"}}),
	"head tail":          looks(fileUse{syntaxOf: syntaxOf{short: "ncs", long: "lines bytes pid sleep-interval"}}),
	"base64 base32 fold": looks(fileUse{syntaxOf: syntaxOf{short: "w", long: "wrap"}}),
	"ls dir vdir tree du lsd exa eza": lists(fileUse{
		syntaxOf: syntaxOf{short: "ILPTw", long: "ignore width max-depth exclude block-size time-style color sort"}, deep: "R recursive",
	}),
	"grep egrep fgrep rgrep zgrep rg ag ack": looks(fileUse{
		syntaxOf: syntaxOf{short: "ABCDdefmgt", long: "regexp file max-count after-context before-context context include exclude glob type color"},
		skip:     1, unless: "e f regexp file files", deep: "r R recursive dereference-recursive", values: map[string][]string{"f": {"read"}, "file": {"read"}},
	}),
	"jq yq xmllint": looks(fileUse{
		syntaxOf: syntaxOf{short: "LfI", long: "indent from-file"}, skip: 1, unless: "f from-file",
		values: map[string][]string{"f": {"read"}, "from-file": {"read"}},
	}),
	"cut paste join comm column expand unexpand fmt pr tsort uniq": looks(fileUse{syntaxOf: syntaxOf{short: "bcdfstwNol12aev", long: "delimiter fields characters bytes output-delimiter"}}),
	"sort": looks(fileUse{
		syntaxOf: syntaxOf{short: "kotSTm", long: "key output field-separator buffer-size temporary-directory compress-program files0-from"},
		values:   map[string][]string{"o": {"write"}, "output": {"write"}, "files0-from": {"read"}},
	}),
	"diff cmp sdiff diff3 colordiff": looks(fileUse{syntaxOf: syntaxOf{short: "CUxXWL", long: "exclude label width"}, deep: "r recursive"}),
	"tr":                             {effects: []core.Effect{read}, skip: 1 << 20},

	"rm unlink": writes(fileUse{deep: "r R recursive"}, "delete"),
	"shred srm wipe": writes(fileUse{syntaxOf: syntaxOf{short: "ns", long: "iterations size random-source"}},
		"write", "delete"),
	"rmdir":        writes(fileUse{}, "delete"),
	"mkdir":        writes(fileUse{syntaxOf: syntaxOf{short: "mZ", long: "mode"}}, "write"),
	"mkfifo mknod": writes(fileUse{syntaxOf: syntaxOf{short: "m", long: "mode"}}, "write"),
	"touch":        writes(fileUse{syntaxOf: syntaxOf{short: "drt", long: "date reference"}}, "write"),
	"tee sponge":   writes(fileUse{}, "write"),
	"truncate":     writes(fileUse{syntaxOf: syntaxOf{short: "sr", long: "size reference"}}, "write"),
	"mktemp":       {effects: []core.Effect{write}},
	"fallocate":    writes(fileUse{syntaxOf: syntaxOf{short: "lo", long: "length offset"}}, "write"),
	"patch":        writes(fileUse{syntaxOf: syntaxOf{short: "dipoBDFrVxYz", long: "strip input directory"}, values: map[string][]string{"i": {"read"}, "input": {"read"}, "d": {"write", "tree"}, "directory": {"write", "tree"}, "o": {"write"}}}, "write"),
	"split csplit": {effects: []core.Effect{read, write}, syntaxOf: syntaxOf{short: "abClnt", long: "suffix-length bytes lines number filter"}, use: []string{"read"}, last: []string{"write"}},
	"strip":        writes(fileUse{syntaxOf: syntaxOf{short: "o"}, values: map[string][]string{"o": {"write"}}}, "read", "write"),
	"gzip bzip2 xz zstd lz4 compress gunzip bunzip2 unxz unzstd": {effects: []core.Effect{read, write}, syntaxOf: syntaxOf{short: "SoT", long: "suffix"}, use: []string{"read", "write"}, deep: "r recursive", values: map[string][]string{"o": {"write"}}},
	"zip":                                {effects: []core.Effect{read, write}, syntaxOf: syntaxOf{short: "bnPtxi"}, use: []string{"read"}, deep: "r R recurse-paths"},
	"unzip 7z 7za unrar cpio unsquashfs": {effects: []core.Effect{read, write}, syntaxOf: syntaxOf{short: "dP"}, use: []string{"read", "write"}, values: map[string][]string{"d": {"write"}}},

	"cp": {
		effects: []core.Effect{read, write}, syntaxOf: syntaxOf{short: "tS", long: "target-directory suffix"}, use: []string{"read"}, last: []string{"write"}, deep: "r R a recursive archive",
		values: map[string][]string{"t": {"write"}, "target-directory": {"write"}},
	},
	"install": {
		effects: []core.Effect{read, write}, syntaxOf: syntaxOf{short: "gmotS", long: "group mode owner target-directory suffix"}, use: []string{"read"}, last: []string{"write"},
		values: map[string][]string{"t": {"write"}, "target-directory": {"write"}},
	},
	"mv rename": {
		effects: []core.Effect{read, write}, syntaxOf: syntaxOf{short: "tS", long: "target-directory suffix"}, use: []string{"read", "delete"}, last: []string{"write"}, tree: true,
		values: map[string][]string{"t": {"write"}, "target-directory": {"write"}},
	},
	// a link to a file is a second way to it: that it is made counts as reading what it leads to
	"ln link symlink": {
		effects: []core.Effect{write}, syntaxOf: syntaxOf{short: "tS", long: "target-directory suffix"}, use: []string{"read"}, last: []string{"write"},
		values: map[string][]string{"t": {"write"}, "target-directory": {"write"}},
	},
	"chmod":       {effects: []core.Effect{write, rights}, syntaxOf: syntaxOf{long: "reference"}, use: []string{"write", "mode"}, skip: 1, unless: "reference", deep: "R recursive"},
	"chown chgrp": {effects: []core.Effect{write, rights}, syntaxOf: syntaxOf{long: "reference from"}, use: []string{"write", "owner"}, skip: 1, unless: "reference", deep: "R recursive"},
	"chattr":      {effects: []core.Effect{write, rights}, use: []string{"write", "mode"}, skip: 1, deep: "R"},
}

// filer reads the words of a program by its fileUse.
func filer(f fileUse) func(*script, string, []field, input) {
	unless, deep := strings.Fields(f.unless), strings.Fields(f.deep)
	return func(s *script, name string, args []field, _ input) {
		opts, rest := f.options(args)
		if name == "chmod" && len(rest) < 2 { // chmod -w file: a mode that looks like an option
			rest = args
		}
		if program, hidden := given(opts, "compress-program", "filter", "unzip-command"); hidden && (name == "sort" || name == "split" || name == "csplit") {
			if program.has && program.value.known {
				s.inner(program.value.text)
			} else {
				s.unsure("an option names a program that is known only when it runs")
			}
		}
		if _, hidden := given(opts, "TT", "unzip-command"); name == "zip" && hidden {
			s.unsure("an option of zip runs a program")
		}
		if _, hidden := given(opts, "pre"); name == "rg" && hidden {
			s.unsure("an option of rg runs a program")
		}
		for _, o := range opts {
			if use, ok := f.values[o.name]; ok && o.has {
				s.path(o.value, use...)
			}
			if o.name == "reference" && o.has {
				s.path(o.value, "read")
			}
		}
		skip := f.skip
		if _, not := given(opts, unless...); not {
			skip = 0
		}
		_, tree := given(opts, deep...)
		tree = tree || f.tree || name == "rgrep" || name == "rg" || name == "ag" || name == "ack"
		_, aimed := given(opts, "t", "target-directory")
		for i, a := range rest {
			if i < skip {
				continue
			}
			use := f.use
			if len(f.last) > 0 && i == len(rest)-1 && len(rest)-skip > 1 && !aimed {
				s.path(a, f.last...)
				continue
			}
			if tree {
				use = append(use[:len(use):len(use)], "tree")
			}
			s.path(a, use...)
		}
		if name == "chmod" && len(rest) > 0 && rest[0].known && setsID(rest[0].text) {
			s.resource("program", "chmod", "setuid")
		}
	}
}

// setsID reports whether a mode makes a file run with the rights of its owner or group.
func setsID(mode string) bool {
	if strings.Trim(mode, "01234567") == "" {
		t := strings.TrimLeft(mode, "0")
		return len(t) == 4 && t[0] >= '2'
	}
	for clause := range strings.SplitSeq(mode, ",") {
		if i := strings.IndexAny(clause, "+="); i >= 0 && strings.Contains(clause[i:], "s") {
			return true
		}
	}
	return false
}

// dd reads if= and writes of=.
func dd(s *script, _ string, args []field, _ input) {
	for _, a := range args {
		key, value, _ := strings.Cut(a.text, "=")
		f := a
		f.text = value
		switch {
		case key == "if":
			s.path(f, "read")
		case key == "of":
			s.path(f, "write")
		case !a.known && !strings.Contains(a.text, "="):
			s.path(f, "write")
		}
	}
}

// tar takes its options with and without a dash, and may run programs.
func tar(s *script, _ string, args []field, _ input) {
	if len(args) > 0 && args[0].known && args[0].text != "" && args[0].text[0] != '-' { // tar cf x.tar dir
		letters := args[0].text
		spread := []field{}
		rest := args[1:]
		for i := range len(letters) {
			o := args[0]
			o.text = "-" + letters[i:i+1]
			spread = append(spread, o)
			if strings.IndexByte("fCTXbgIKLNVF", letters[i]) >= 0 && len(rest) > 0 {
				spread = append(spread, rest[0])
				rest = rest[1:]
			}
		}
		args = append(spread, rest...)
	}
	g := syntaxOf{short: "fCTXbgIKLNVFH", long: "file directory files-from exclude-from exclude use-compress-program to-command checkpoint-action info-script new-volume-script rsh-command owner group mode transform strip-components listed-incremental"}
	opts, rest := g.options(args)
	_, extract := given(opts, "x", "extract", "get")
	_, list := given(opts, "t", "list")
	var dirs []string
	for _, o := range opts {
		switch o.name {
		case "f", "file":
			if extract || list {
				s.path(o.value, "read")
			} else {
				s.path(o.value, "write")
			}
			if o.value.known && strings.Contains(o.value.text, ":") {
				s.effect(network)
				s.resource("host", hostOf(o.value.text[:strings.IndexByte(o.value.text, ':')]), "connect")
			}
		case "C", "directory":
			if extract {
				s.path(o.value, "write", "tree")
			} else if o.value.known {
				dirs = append(dirs, o.value.text)
			} else {
				s.path(o.value, "read")
			}
		case "T", "files-from", "X", "exclude-from":
			s.path(o.value, "read")
			if o.name == "T" || o.name == "files-from" {
				s.unsure("which paths are taken is read from a list")
			}
		case "I", "use-compress-program", "to-command", "F", "info-script", "new-volume-script", "rsh-command":
			if o.has && o.value.known {
				s.inner(o.value.text)
			} else {
				s.unsure("an option of tar names a program that is known only when it runs")
			}
		default:
			if strings.HasPrefix(o.name, "checkpoint-a") {
				s.unsure("an option of tar runs a program")
			}
		}
	}
	for _, a := range rest {
		use := []string{"read", "tree"}
		if extract {
			use = []string{"write"}
		}
		if list {
			continue
		}
		s.path(a, use...)
		for _, d := range dirs {
			if a.known && !strings.HasPrefix(a.text, "/") {
				in := a
				in.text = d + "/" + a.text
				s.path(in, use...)
			}
		}
	}
	if extract {
		s.effect(write)
	}
}

// sed changes files with -i, and its own language writes files and runs programs.
func sed(s *script, _ string, args []field, in input) {
	g := syntaxOf{short: "efl", long: "expression file line-length"}
	opts, rest := g.options(args)
	var programs []field
	from := false
	for _, o := range opts {
		switch o.name {
		case "e", "expression":
			programs, from = append(programs, o.value), true
		case "f", "file":
			from = true
			s.path(o.value, "read")
			s.unsure("a program of sed is in a file")
		}
	}
	if !from && len(rest) > 0 {
		programs, rest = rest[:1], rest[1:]
	}
	for _, p := range programs {
		if !p.known || sedRuns(p.text) {
			s.unsure("a program of sed may run others, or write files")
		}
	}
	use := []string{"read"}
	if _, inPlace := given(opts, "i", "in-place"); inPlace {
		s.effect(write)
		use = []string{"read", "write"}
	}
	for _, a := range rest {
		s.path(a, use...)
	}
	_ = in
}

// sedRuns reports whether a program of sed is not plainly one that prints, deletes or substitutes.
func sedRuns(program string) bool {
	for line := range strings.FieldsFuncSeq(program, func(c rune) bool { return c == '\n' || c == ';' }) {
		l := strings.TrimLeft(strings.TrimSpace(line), "0123456789,$!+~ ")
		if strings.HasPrefix(l, "/") { // an address by a pattern
			parts := strings.SplitN(l[1:], "/", 2)
			if len(parts) < 2 {
				return true
			}
			l = strings.TrimLeft(parts[1], "0123456789,$!+~I ")
			if strings.HasPrefix(l, "/") {
				if parts = strings.SplitN(l[1:], "/", 2); len(parts) < 2 {
					return true
				}
				l = strings.TrimLeft(parts[1], "!I ")
			}
		}
		l = strings.TrimLeft(l, "{} ")
		switch {
		case l == "" || strings.Trim(l, "pdqDPGghHxNn=} ") == "" || strings.HasPrefix(l, "q") || strings.HasPrefix(l, "Q"):
		case l[0] == 's' || l[0] == 'y':
			if len(l) < 4 {
				return true
			}
			parts := strings.Split(strings.ReplaceAll(l, `\`+l[1:2], ""), l[1:2])
			if len(parts) < 4 || strings.ContainsAny(parts[len(parts)-1], "ewW") {
				return true
			}
		case l[0] == 'a' || l[0] == 'i' || l[0] == 'c':
			return false // the rest of the text is put in
		default:
			return true
		}
	}
	return false
}

// awk runs programs by system(), pipes and redirections.
func awk(s *script, _ string, args []field, _ input) {
	g := syntaxOf{short: "FfvEeilo", long: "field-separator file assign source exec include"}
	opts, rest := g.options(args)
	var programs []field
	from := false
	for _, o := range opts {
		switch o.name {
		case "f", "file", "E", "exec", "i", "include", "l":
			from = true
			s.path(o.value, "read")
			s.unsure("a program of awk is in a file")
		case "e", "source":
			programs, from = append(programs, o.value), true
		}
	}
	if !from && len(rest) > 0 {
		programs, rest = rest[:1], rest[1:]
	}
	for _, p := range programs {
		if !p.known || awkRuns(p.text) {
			s.unsure("a program of awk may run others, or open files")
			s.effect(unknown)
		}
	}
	for _, a := range rest {
		if name, _, assigned := strings.Cut(a.text, "="); assigned && !strings.Contains(name, "/") {
			continue
		}
		s.path(a, "read")
	}
}

func awkRuns(program string) bool {
	for _, word := range [...]string{"system", "getline", "|", ">>", "print >", "@load", "@include", "@", "ENVIRON", "ARGV", "close(", "extension"} {
		if strings.Contains(program, word) && !(word == "|" && strings.Count(program, "|") == 2*strings.Count(program, "||")) {
			return true
		}
	}
	// > compares, or sends to a file: only one that stands in a condition before { or between parentheses compares
	for i := range len(program) {
		if program[i] == '>' && (i+1 >= len(program) || program[i+1] != '=') && strings.Contains(program[:i], "print") {
			return true
		}
	}
	return false
}

// looker is a program that looks, and administers when it is given one of some words.
func looker(s *script, name string, args []field, _ input) {
	for _, a := range args {
		switch a.text {
		case "add", "del", "delete", "set", "flush", "replace", "change", "append", "up", "down", "restart", "terminate-session", "terminate-user", "kill-session", "kill-user",
			"set-hostname", "hostname", "set-time", "set-timezone", "set-ntp", "set-locale", "set-keymap", "-w", "--write", "-p", "--system", "-C", "-c", "--clear", "--flush", "--rotate":
			s.effect(admin)
		}
		if strings.HasPrefix(a.text, "--vacuum") || name == "sysctl" && strings.Contains(a.text, "=") || !a.known {
			s.effect(admin)
		}
		if name == "ip" && (a.text == "exec" || strings.HasPrefix(a.text, "-b") || strings.HasPrefix(a.text, "-force")) {
			s.unsure("ip is told to run another program, or a list of commands")
		}
	}
	if name == "hostname" && len(args) > 0 && !strings.HasPrefix(args[0].text, "-") {
		s.effect(admin)
	}
}

// quiet are builtins that take names of variables, whose indexes a shell reads as code.
func quiet(s *script, name string, args []field, _ input) {
	for i, a := range args {
		if code(a.text) && (name != "printf" || i > 0 && args[i-1].text == "-v") {
			s.unsure("an index holds code")
		}
	}
	if (name == "mapfile" || name == "readarray") && len(args) > 0 {
		for _, a := range args {
			if strings.HasPrefix(a.text, "-C") {
				s.unsure("a callback of " + name + " is code")
			}
		}
	}
}
