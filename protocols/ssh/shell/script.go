package shell

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/weir-gateway/weir/core"
)

// script is one text while it is read. What it says of variables holds wherever in the text they are used.
type script struct {
	*reader
	text      string
	depth     int
	variables map[string]*variable
	functions map[string]bool
	dirs      []string // where it may be, beside where it began
	lost      bool     // it may be somewhere that is not known
}

func (s *script) read(file *syntax.File) {
	// what is assigned first: a use may stand before it, in a loop or a function
	syntax.Walk(file, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.FuncDecl:
			if n.Name != nil {
				s.functions[n.Name.Value] = true
			}
		case *syntax.Assign:
			s.assign(n)
		case *syntax.WordIter:
			s.loop(n)
		case *syntax.ParamExp:
			if n.Exp != nil && n.Param != nil && (n.Exp.Op == syntax.AssignUnset || n.Exp.Op == syntax.AssignUnsetOrNull) {
				s.set(n.Param.Value, nil)
			}
		case *syntax.BinaryArithm, *syntax.UnaryArithm: // x=1, x++ change variables
			syntax.Walk(n, func(n syntax.Node) bool {
				if w, ok := n.(*syntax.Word); ok && syntax.ValidName(w.Lit()) {
					s.set(w.Lit(), nil)
				}
				return true
			})
			return false
		case *syntax.CallExpr:
			s.taken(n)
		}
		return true
	})
	var functions []string
	syntax.Walk(file, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Stmt:
			for _, redirect := range n.Redirs {
				s.redirect(redirect)
			}
			if call, ok := n.Cmd.(*syntax.CallExpr); ok {
				s.simple(call, n.Redirs)
			}
		case *syntax.TestClause, *syntax.ArithmCmd, *syntax.ArithmExp, *syntax.LetClause:
			s.evaluated(n)
		case *syntax.BinaryCmd:
			if n.Op == syntax.Pipe || n.Op == syntax.PipeAll {
				s.piped(n)
			}
		case *syntax.FuncDecl:
			if n.Name != nil {
				functions = append(functions, n.Name.Value)
				s.function(n)
			}
		case *syntax.DeclClause:
			s.effect(core.EffectSession)
			for _, a := range n.Args {
				s.separators(a)
				if a.Naked && a.Value != nil && strings.HasPrefix(a.Value.Lit(), "-") && strings.Contains(a.Value.Lit(), "n") {
					s.unsure("a variable stands for another one")
				}
				if a.Naked && a.Value != nil && a.Value.Lit() == "" {
					s.unsure("which variable is set is known only when it runs")
				}
			}
			if n.Variant != nil && n.Variant.Value == "nameref" {
				s.unsure("a variable stands for another one")
			}
		case *syntax.ParamExp:
			if n.Excl {
				s.unsure("a variable is named by another one")
			}
			if n.Exp != nil && n.Exp.Op == syntax.OtherParamOps {
				s.unsure("a variable's value is read as code")
			}
		}
		return true
	})
}

// set adds a value to what a variable may stand for. Without any it is not known.
func (s *script) set(name string, values []field) {
	v := s.variables[name]
	if v == nil {
		v = &variable{}
		s.variables[name] = v
	}
	if values == nil {
		v.unknown = true
	}
	for _, f := range values {
		if !f.known || f.glob && f.moves || len(v.values) >= 64 {
			v.unknown = true
			return
		}
		if code(f.text) {
			s.unsure("a variable holds code")
		}
		v.values = append(v.values, f.text)
	}
}

func (s *script) assign(a *syntax.Assign) {
	if a.Name == nil {
		return
	}
	if decides[a.Name.Value] || strings.HasPrefix(a.Name.Value, "LD_") || strings.HasPrefix(a.Name.Value, "DYLD_") || strings.HasPrefix(a.Name.Value, "BASH_FUNC") {
		s.unsure("the variable " + a.Name.Value + " decides what runs")
	}
	switch {
	case a.Naked:
	case a.Append || a.Index != nil || a.Array != nil:
		s.set(a.Name.Value, nil)
	case a.Value == nil:
		s.set(a.Name.Value, []field{{known: true}})
	default:
		values := s.whole(a.Value)
		s.set(a.Name.Value, values)
	}
}

// separators finds that what parts words is changed. IFS= read is not: it holds for one command only.
func (s *script) separators(a *syntax.Assign) {
	if a.Name != nil && a.Name.Value == "IFS" && !a.Naked {
		s.unsure("the variable IFS decides how words are parted")
	}
}

// code reports whether a text has what a shell would run, were it to read the text once more.
func code(text string) bool { return strings.Contains(text, "$(") || strings.Contains(text, "`") }

// evaluated finds code in what is computed or compared: an index is read once more, and what it holds is run.
func (s *script) evaluated(n syntax.Node) {
	syntax.Walk(n, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.SglQuoted:
			if code(n.Value) {
				s.unsure("an index holds code")
			}
		case *syntax.Lit:
			if text, _ := unescape(n.Value, false); code(text) {
				s.unsure("an index holds code")
			}
		case *syntax.CmdSubst:
			return false
		}
		return true
	})
}

// whole is the value of a word that is not parted by spaces: what is assigned.
func (s *script) whole(w *syntax.Word) []field {
	q := &syntax.DblQuoted{}
	for _, p := range w.Parts {
		switch p := p.(type) {
		case *syntax.Lit:
			text, _ := unescape(p.Value, false)
			q.Parts = append(q.Parts, &syntax.Lit{Value: strings.NewReplacer(`\`, `\\`).Replace(text)})
		case *syntax.SglQuoted:
			text := p.Value
			if p.Dollar {
				var ok bool
				if text, ok = ansi(p.Value); !ok {
					return nil
				}
			}
			q.Parts = append(q.Parts, &syntax.Lit{Value: strings.NewReplacer(`\`, `\\`).Replace(text)})
		case *syntax.DblQuoted:
			q.Parts = append(q.Parts, p.Parts...)
		default:
			q.Parts = append(q.Parts, p)
		}
	}
	return s.quoted(q)
}

// decides are variables by which a shell or a program chooses what it runs.
var decides = words("PATH ENV BASH_ENV PROMPT_COMMAND PS0 PS1 PS4 SHELLOPTS BASHOPTS SHELL EDITOR VISUAL PAGER MANPAGER LESSOPEN LESSCLOSE BROWSER " +
	"GIT_SSH GIT_SSH_COMMAND GIT_EDITOR GIT_PAGER GIT_EXTERNAL_DIFF GIT_PROXY_COMMAND GIT_ASKPASS GIT_EXEC_PATH GIT_CONFIG_COUNT GIT_TEMPLATE_DIR SSH_ASKPASS SUDO_ASKPASS RSYNC_RSH " +
	"PYTHONSTARTUP PYTHONPATH PERL5OPT PERL5LIB PERL5DB RUBYOPT RUBYLIB NODE_OPTIONS NODE_PATH JAVA_TOOL_OPTIONS TAR_OPTIONS MAKEFLAGS GREP_OPTIONS FCEDIT CDPATH")

// loop is for NAME in WORDS.
func (s *script) loop(w *syntax.WordIter) {
	if w.Name == nil {
		return
	}
	if !w.InPos.IsValid() {
		s.set(w.Name.Value, nil)
		return
	}
	for _, item := range w.Items {
		for _, f := range s.fields(item) {
			if f.known && f.glob && !f.moves { // names that match a pattern: the pattern stands for them
				s.set(w.Name.Value, []field{{text: f.text, known: true}})
				continue
			}
			s.set(w.Name.Value, []field{f})
		}
	}
}

// taken marks the variables that a program sets: read x, printf -v x, mapfile, getopts.
func (s *script) taken(c *syntax.CallExpr) {
	if len(c.Args) == 0 {
		return
	}
	switch c.Args[0].Lit() {
	case "read", "mapfile", "readarray", "getopts", "printf", "unset", "wait", "builtin", "command", "eval":
		for _, a := range c.Args[1:] {
			if n := a.Lit(); syntax.ValidName(n) {
				s.set(n, nil)
			}
		}
	case "export", "declare", "local", "readonly", "typeset":
		for _, a := range c.Args[1:] {
			if name, _, ok := strings.Cut(a.Lit(), "="); ok {
				s.set(name, nil)
			}
		}
	}
}

// function looks at one that takes a program's name, and at one that calls itself.
func (s *script) function(f *syntax.FuncDecl) {
	name := f.Name.Value
	use := []string{"define"}
	if _, known := programs[name]; known || builtins[name] {
		s.unsure("a function takes the name of the program " + name)
	}
	syntax.Walk(f.Body, func(n syntax.Node) bool {
		if c, ok := n.(*syntax.CallExpr); ok && len(c.Args) > 0 && c.Args[0].Lit() == name {
			use = append(use, "recurse")
			return false
		}
		return true
	})
	if len(use) > 1 {
		s.unsure("a function calls itself")
		use = use[:2]
	}
	s.resource("function", name, use...)
}

// redirect is > FILE and its like.
func (s *script) redirect(r *syntax.Redirect) {
	var use []string
	switch r.Op.String() {
	case ">", ">>", ">|", "&>", "&>>", ">!", ">>|":
		use = []string{"write"}
	case "<":
		use = []string{"read"}
	case "<>":
		use = []string{"read", "write"}
	case ">&", "<&":
		fields := s.fields(r.Word)
		if len(fields) == 1 && fields[0].known && (fields[0].text == "-" || strings.Trim(fields[0].text, "0123456789-") == "" || fields[0].glob && fields[0].moves) {
			return
		}
		use = []string{"write"}
	default: // << and <<<
		return
	}
	for _, f := range s.fields(r.Word) {
		s.path(f, use...)
	}
}

// simple is one simple command: assignments, a program, words.
func (s *script) simple(c *syntax.CallExpr, redirects []*syntax.Redirect) {
	if len(c.Args) == 0 {
		s.effect(core.EffectSession)
		for _, a := range c.Assigns {
			s.separators(a)
		}
		return
	}
	var args []field
	for _, w := range c.Args {
		args = append(args, s.fields(w)...)
	}
	in := input{}
	for _, r := range redirects {
		if r.Hdoc != nil {
			in.text, in.literal = s.literal(r.Hdoc)
			in.given = true
		} else if r.Op == syntax.WordHdoc {
			in.text, in.literal = s.literal(r.Word)
			in.given = true
		}
	}
	if len(args) == 0 {
		s.unsure("the name of a program is known only when it runs")
		return
	}
	for _, p := range c.Args[0].Parts {
		switch p.(type) {
		case *syntax.Lit, *syntax.SglQuoted, *syntax.DblQuoted:
		default:
			args[0].moves = true
		}
	}
	if q, ok := single(c.Args[0]); ok && q { // "$X" in quotes
		args[0].moves = args[0].moves || !args[0].known
	}
	s.run(args, in)
}

func single(w *syntax.Word) (quoted, ok bool) {
	if len(w.Parts) != 1 {
		return false, false
	}
	_, quoted = w.Parts[0].(*syntax.DblQuoted)
	return quoted, true
}

// literal is the text of a here-document, where all of it is known.
func (s *script) literal(w *syntax.Word) (string, bool) {
	if w == nil {
		return "", false
	}
	f := s.whole(w)
	if len(f) != 1 {
		return "", false
	}
	return f[0].text, f[0].known && !f[0].moves
}

// piped reads what echo and printf hand to a shell.
func (s *script) piped(b *syntax.BinaryCmd) {
	from, ok := last(b.X).(*syntax.CallExpr)
	if !ok || len(from.Args) < 2 {
		return
	}
	to, ok := b.Y.Cmd.(*syntax.CallExpr)
	if !ok || len(to.Args) == 0 {
		return
	}
	name := base(from.Args[0].Lit())
	if name != "echo" && name != "printf" {
		return
	}
	runs := false
	for _, a := range to.Args {
		if shells[base(a.Lit())] {
			runs = true
		}
	}
	if !runs {
		return
	}
	var parts []string
	for _, a := range from.Args[1:] {
		for _, f := range s.fields(a) {
			if len(parts) > 0 || !strings.HasPrefix(f.text, "-") {
				parts = append(parts, f.text)
			}
		}
	}
	s.unsure("a shell runs what it reads from a pipe")
	s.script(strings.Join(parts, " "), s.depth+1)
}

// last is the command whose output a pipe takes.
func last(st *syntax.Stmt) syntax.Command {
	if b, ok := st.Cmd.(*syntax.BinaryCmd); ok && (b.Op == syntax.Pipe || b.Op == syntax.PipeAll) {
		return last(b.Y)
	}
	return st.Cmd
}
