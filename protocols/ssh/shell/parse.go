// Package shell reads what a client asks a remote shell to run, and says what it would do: the programs, the paths, the
// hosts, and what they are used for.
//
// The text is parsed as bash does it, and never run. What cannot be told from the text alone makes the command
// incomplete, with a reason: programs whose names are computed, code that comes from a variable, a pipe or the standard
// input, code in another language, what redefines programs, and paths that are known only when the command runs.
//
// Limits. Links are not followed: a path is what the text says. A script that lies on the host, an alias in the
// account's profile and what a program does by its own configuration are not seen; a program that is not in the table
// has the effect unknown. The account's login shell is taken for one of the Bourne family.
package shell

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"unicode/utf8"

	"mvdan.cc/sh/v3/syntax"

	"github.com/weir-gateway/weir/core"
)

// The bounds of what is read. What is beyond them is incomplete.
const (
	MaxText      = 64 << 10 // bytes of a text
	maxNesting   = 64       // parentheses and braces within each other
	maxKeywords  = 2000     // words that begin something which may hold another of its kind
	maxDepth     = 8        // commands within commands: sh -c, sudo, ssh
	maxResources = 512
	maxCalls     = 4096 // simple commands, those within others counted again
	maxWraps     = 32   // programs that run others, in a row
	maxBraces    = 64   // in one word
	maxFields    = 512  // words that one word may become
	maxValue     = 4096 // bytes of one
)

// Parse says what a text would do when a shell runs it. It never fails: what cannot be read is incomplete.
func Parse(text string) *core.Command {
	r := &reader{effects: map[core.Effect]bool{core.EffectProcess: true}, seen: map[string]int{}}
	r.script(text, 0)
	sum := sha256.Sum256([]byte(text))
	c := &core.Command{
		Action: r.action, Text: text, Fingerprint: hex.EncodeToString(sum[:8]), Effects: []core.Effect{}, Resources: r.resources,
		Where: true, Status: core.StatusKnown,
	}
	if c.Action == "" {
		c.Action = "exec"
	}
	if c.Resources == nil {
		c.Resources = []core.Resource{}
	}
	for _, e := range core.Effects {
		if r.effects[e] {
			c.Effects = append(c.Effects, e)
		}
	}
	if r.reason != "" {
		c.Status, c.Reason = core.StatusIncomplete, r.reason
	}
	return c
}

// reader gathers the facts of one text and of those within it.
type reader struct {
	action    string
	named     bool // the first command has been seen
	effects   map[core.Effect]bool
	resources []core.Resource
	seen      map[string]int // kind and name of a resource: its place
	reason    string         // why the facts are incomplete: the first that was found
	calls     int
	wraps     int
}

// unsure makes the facts incomplete. The first reason stays.
func (r *reader) unsure(reason string) {
	if r.reason == "" {
		r.reason = reason
	}
}

func (r *reader) effect(effects ...core.Effect) {
	for _, e := range effects {
		r.effects[e] = true
	}
}

// resource adds one, or its uses to the one that is there.
func (r *reader) resource(kind, name string, use ...string) {
	if len(name) > maxValue {
		name = strings.ToValidUTF8(name[:maxValue], "")
		r.unsure("a name is too long")
	}
	if name == "" {
		r.unsure("a name is empty")
		return
	}
	key := kind + "\x00" + name
	i, known := r.seen[key]
	if !known {
		if len(r.resources) >= maxResources {
			r.unsure("it names too many things")
			return
		}
		i = len(r.resources)
		r.seen[key] = i
		r.resources = append(r.resources, core.Resource{Kind: kind, Name: name, Use: []string{}})
	}
	for _, u := range use {
		if !contains(r.resources[i].Use, u) {
			r.resources[i].Use = append(r.resources[i].Use, u)
		}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// script reads a text that a shell runs.
func (r *reader) script(text string, depth int) {
	switch {
	case depth > maxDepth:
		r.unsure("commands stand within commands, too deep to be read")
		return
	case len(text) > MaxText:
		r.unsure("the command is too long to be read")
		return
	case !utf8.ValidString(text):
		r.unsure("the command is not text in UTF-8")
		text = strings.ToValidUTF8(text, "\uFFFD")
	case strings.ContainsFunc(text, func(c rune) bool { return c < ' ' && c != '\n' && c != '\t' || c == 0x7f }):
		// shells keep a carriage return as a part of the word before it, and parsers of scripts drop it
		r.unsure("the command has control characters, which shells read differently")
	}
	if nested(text) {
		r.unsure("parentheses or words such as if stand within each other, too deep to be read")
		return
	}
	file, err := parse(text, syntax.LangBash)
	if err != nil {
		if file, _ = parse(text, syntax.LangPOSIX); file == nil {
			file = partial(text)
		}
		r.unsure("a shell could not read it: " + said(err))
		if file == nil {
			return
		}
	}
	s := &script{reader: r, text: text, depth: depth, variables: map[string]*variable{}, functions: map[string]bool{}}
	s.read(file)
}

func parse(text string, lang syntax.LangVariant) (*syntax.File, error) {
	return syntax.NewParser(syntax.Variant(lang)).Parse(strings.NewReader(text), "")
}

// partial is as much of a text as can be read: its facts are better than none.
func partial(text string) *syntax.File {
	file, _ := syntax.NewParser(syntax.RecoverErrors(8)).Parse(strings.NewReader(text), "")
	return file
}

// said is what is wrong with a text, without a piece of it.
func said(err error) string {
	var p syntax.ParseError
	var l syntax.LangError
	switch {
	case errors.As(err, &p):
		if i := strings.IndexByte(p.Text, '`'); i >= 0 {
			return "syntax error at " + p.Pos.String()
		}
		return p.Text
	case errors.As(err, &l):
		return "syntax error at " + l.Pos.String()
	}
	return "syntax error"
}

// nested reports whether a text may be too deep for the parser, which calls itself for what is within.
func nested(text string) bool {
	depth, ticks := 0, 0
	for i := range len(text) {
		switch text[i] {
		case '(', '{':
			if depth++; depth > maxNesting {
				return true
			}
		case ')', '}':
			depth = max(0, depth-1)
		case '`', '\\':
			if text[i] == '\\' && (i+1 >= len(text) || text[i+1] != '`') {
				continue
			}
			if ticks++; ticks > 4*maxNesting {
				return true
			}
		}
	}
	if strings.Contains(text, "((") && strings.Count(text, "-")+strings.Count(text, "~")+strings.Count(text, "!")+strings.Count(text, "?") > 2*maxKeywords {
		return true // operators of arithmetic, each of which may hold the next
	}
	words := 0
	for w := range strings.FieldsSeq(text) {
		switch w {
		case "if", "while", "until", "for", "case", "select", "time", "coproc", "!", "[[", "do", "then", "else", "elif", "function", "-", "~", "+":
			words++
		}
	}
	return words > maxKeywords
}
