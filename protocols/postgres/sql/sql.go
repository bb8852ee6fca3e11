// Package sql reads PostgreSQL statements with the server's own grammar and says what they do, in the words of core.
//
// The grammar is libpg_query, run in a WebAssembly sandbox by wasilibs/go-pgquery: no cgo, and hostile text stays in
// there. A parse costs tens of microseconds, so what was read is cached by text. RATIONALE.md says why this parser.
package sql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/wasilibs/go-pgquery/parser"

	"github.com/weir-gateway/weir/core"
)

// Limits of what is read. A text beyond them is incomplete.
const (
	maxText        = 1 << 20 // bytes of one text
	cacheTexts     = 8192    // texts kept
	cacheText      = 16 << 10
	maxParsers     = 2 // each takes about 80 MB
	parserPatience = 50 * time.Millisecond
)

// Script is everything that one text asks for.
type Script struct {
	// Command is the whole text as one command: the union of what its statements do.
	Command    *core.Command
	Statements []Statement

	shaped bool // nothing in it depends on the value of a literal
}

// Statement is what a codec has to know of one statement beside its facts.
type Statement struct {
	Command *core.Command
	Copy    *Copy
	// Prepare and Execute name a prepared statement: PREPARE name AS …, EXECUTE name.
	Prepare, Execute string
	// Declare and Fetch name a cursor: DECLARE name CURSOR FOR …, FETCH … FROM name.
	Declare, Fetch string
	// Forget reports DEALLOCATE and DISCARD: of the name, or of all when Deallocate is "*".
	Deallocate string
	// Body is what a prepared statement or a cursor will do when it runs.
	Body *core.Command
	// SearchPath reports that the statement changes how names are resolved.
	SearchPath bool
	// Selected are the names of parts that are selected from values: columns, or functions of the database, which only
	// its catalog can tell.
	Selected []string
}

// Reader reads statements. It is safe for concurrent use.
type Reader struct {
	cache   *lru.Cache[string, *Script]
	shapes  *lru.Cache[string, *Script] // by normalised text
	free    chan struct{}               // a token for each parser that is not at work
	parsers atomic.Int32
	// compiled is set by the first parse, which compiles the grammar: one beside it would compile it a second time.
	compiled atomic.Bool
}

// NewReader returns a Reader with an empty cache.
func NewReader() *Reader {
	cache, err := lru.New[string, *Script](cacheTexts)
	if err != nil {
		panic(err) // only for a size below one
	}
	shapes, err := lru.New[string, *Script](cacheTexts)
	if err != nil {
		panic(err)
	}
	r := &Reader{cache: cache, shapes: shapes, free: make(chan struct{}, maxParsers)}
	r.parsers.Store(1)
	r.free <- struct{}{}
	return r
}

// Warm compiles the grammar, which takes a second or more of processor time, so that no session has to wait for it.
func (r *Reader) Warm(ctx context.Context) error {
	_, err := r.parse(ctx, "select 1")
	return err
}

// Read says what text does. It never fails: what cannot be read is a command with incomplete facts.
func (r *Reader) Read(ctx context.Context, text string) *Script {
	if s, ok := r.cache.Get(text); ok {
		return s
	}
	var room [512]byte
	key, ok := normalise(room[:0], text)
	if ok {
		if s, ok := r.shapes.Get(string(key)); ok {
			c := s.Command.WithText(strings.Clone(text))
			return &Script{Command: c, Statements: []Statement{{Command: c, Selected: s.Statements[0].Selected}}}
		}
	}
	s, cacheable := r.read(ctx, text)
	if !cacheable || len(text) > cacheText {
		return s
	}
	if ok && s.shaped {
		r.shapes.Add(string(key), s)
	} else {
		r.cache.Add(strings.Clone(text), s)
	}
	return s
}

func (r *Reader) read(ctx context.Context, text string) (s *Script, cacheable bool) {
	switch {
	case len(text) > maxText:
		return incomplete(text[:256]+" …", fmt.Sprintf("the text is longer than %d bytes", maxText)), false
	case !utf8.ValidString(text):
		return incomplete(strings.ToValidUTF8(text, "�"), "the text is not UTF-8"), true
	}
	core.WillWait(ctx)
	tree, err := r.parse(ctx, text)
	if err != nil {
		if ctx.Err() != nil {
			return incomplete(text, "the parser had no time"), false
		}
		return incomplete(text, "it does not parse: "+clip(err.Error(), 200)), true
	}
	return script(text, tree), true
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// Unreadable is the script of a text that cannot be read, and why.
func Unreadable(text, reason string) *Script {
	return incomplete(strings.ToValidUTF8(clip(text, maxText), "�"), reason)
}

// incomplete is a script of which nothing can be said. Its text may hold anything, so it may hold a secret.
func incomplete(text, reason string) *Script {
	c := &core.Command{
		Action: "unknown", Text: text, Effects: []core.Effect{core.EffectUnknown},
		Status: core.StatusIncomplete, Reason: reason,
	}
	if mayHoldSecret(text) {
		c.Secret, c.Text = true, withheld("unknown")
	}
	return &Script{Command: c, Statements: []Statement{{Command: c}}}
}

// parsed is what libpg_query returns.
type parsed struct {
	Stmts []struct {
		Stmt map[string]any `json:"stmt"`
		At   int            `json:"stmt_location"`
		Len  int            `json:"stmt_len"`
	} `json:"stmts"`
}

var errParser = errors.New("the parser failed")

// borrow takes a parser. Another one costs a second of processor time and 80 MB, so there is one only after somebody
// has waited for longer than usual statements take.
func (r *Reader) borrow(ctx context.Context) error {
	select {
	case <-r.free:
		return nil
	default:
	}
	wait := time.NewTimer(parserPatience)
	defer wait.Stop()
	for {
		select {
		case <-r.free:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-wait.C:
			if n := r.parsers.Load(); n < maxParsers && r.compiled.Load() && r.parsers.CompareAndSwap(n, n+1) {
				return nil
			}
		}
	}
}

// parse runs the grammar, at most maxParsers at a time.
func (r *Reader) parse(ctx context.Context, text string) (p *parsed, err error) {
	if err := r.borrow(ctx); err != nil {
		return nil, err
	}
	defer func() {
		r.free <- struct{}{}
		if e := recover(); e != nil {
			p, err = nil, errParser
		}
	}()
	if strings.IndexByte(text, 0) >= 0 {
		return nil, errors.New("it holds a NUL")
	}
	if tooDeep(text) {
		return nil, errors.New("it nests too deeply")
	}
	tree, err := parser.ParseToJSON(text)
	r.compiled.Store(true)
	if err != nil {
		return nil, err
	}
	p = new(parsed)
	if err := json.Unmarshal([]byte(tree), p); err != nil {
		return nil, errParser
	}
	return p, nil
}

// script turns a parse tree into facts.
func script(text string, p *parsed) *Script {
	s := &Script{}
	if len(p.Stmts) == 0 { // comments and blanks only
		c := &core.Command{Action: "empty", Text: text, Where: true, Status: core.StatusKnown, Effects: []core.Effect{}}
		c.Fingerprint = fingerprint(nil)
		return &Script{Command: c}
	}
	for _, raw := range p.Stmts {
		one := text
		if raw.Len > 0 && raw.At >= 0 && raw.At+raw.Len <= len(text) {
			one = text[raw.At : raw.At+raw.Len]
		} else if raw.At > 0 && raw.At <= len(text) {
			one = text[raw.At:]
		}
		if len(p.Stmts) == 1 {
			one = text
		}
		s.Statements = append(s.Statements, statement(one, raw.Stmt))
	}
	if len(s.Statements) == 1 {
		s.Command = s.Statements[0].Command
		s.shaped = shaped(s.Command) && !places(p.Stmts[0].Stmt)
		return s
	}
	commands := make([]*core.Command, len(s.Statements))
	for i := range s.Statements {
		commands[i] = s.Statements[i].Command
	}
	s.Command = Union(text, commands)
	return s
}

// Prepared returns what statement i executes by a name that a statement before it in the same text prepares, or nil.
func (s *Script) Prepared(i int) *core.Command {
	if i < 0 || i >= len(s.Statements) || s.Statements[i].Execute == "" {
		return nil
	}
	for j := i - 1; j >= 0; j-- {
		if p := &s.Statements[j]; p.Prepare == s.Statements[i].Execute {
			return p.Body
		}
	}
	return nil
}

// WithFunctions returns s with those parts that are selected from values as calls of functions of the database of which
// nothing is known. Where none of them is, that is s itself.
func (s *Script) WithFunctions(is func(c *core.Command, name string) bool) *Script {
	changed := false
	out := &Script{Command: s.Command, Statements: slices.Clone(s.Statements)}
	for i := range out.Statements {
		st := &out.Statements[i]
		var calls []core.Resource
		for _, name := range st.Selected {
			if is(st.Command, name) {
				calls = append(calls, core.Resource{Kind: "function", Name: name, Use: []string{"call", "unknown"}})
			}
		}
		if len(calls) == 0 {
			continue
		}
		changed = true
		call := &core.Command{Action: st.Command.Action, Effects: []core.Effect{core.EffectUnknown}, Resources: calls, Where: true, Status: core.StatusKnown}
		st.Command = Union(st.Command.Text, []*core.Command{st.Command, call})
		if st.Body != nil {
			st.Body = Union(st.Body.Text, []*core.Command{st.Body, call})
		}
	}
	if !changed {
		return s
	}
	if len(out.Statements) == 1 {
		out.Command = out.Statements[0].Command
		return out
	}
	commands := make([]*core.Command, len(out.Statements))
	for i := range out.Statements {
		commands[i] = out.Statements[i].Command
	}
	out.Command = Union(s.Command.Text, commands)
	return out
}

// Union folds several commands into one that does all they do.
func Union(text string, commands []*core.Command) *core.Command {
	u := &core.Command{Text: text, Where: true, Status: core.StatusKnown, Effects: []core.Effect{}}
	var prints []string
	for _, c := range commands {
		switch u.Action {
		case "", c.Action:
			u.Action = c.Action
		default:
			u.Action = "multiple"
		}
		for _, e := range c.Effects {
			if !u.HasEffect(e) {
				u.Effects = append(u.Effects, e)
			}
		}
		for _, r := range c.Resources {
			u.Resources = addResource(u.Resources, r)
		}
		u.Where = u.Where && c.Where
		if c.Status != core.StatusKnown && u.Status == core.StatusKnown {
			u.Status, u.Reason = core.StatusIncomplete, c.Reason
		}
		if c.Secret {
			u.Secret, u.Text = true, withheld(c.Action)
		}
		prints = append(prints, c.Fingerprint)
	}
	sortEffects(u.Effects)
	u.Fingerprint = fingerprint(prints)
	return u
}

func sortEffects(list []core.Effect) {
	slices.SortFunc(list, func(a, b core.Effect) int {
		return slices.Index(core.Effects, a) - slices.Index(core.Effects, b)
	})
}

func addResource(list []core.Resource, r core.Resource) []core.Resource {
	for i := range list {
		if list[i].Kind == r.Kind && list[i].Name == r.Name {
			list[i].Use = addAll(list[i].Use, r.Use)
			list[i].Columns = addAll(list[i].Columns, r.Columns)
			list[i].Indirect = addAll(list[i].Indirect, r.Indirect)
			list[i].Copied = addAll(list[i].Copied, r.Copied)
			list[i].Transformed = addAll(list[i].Transformed, r.Transformed)
			return list
		}
	}
	r.Use = addAll(nil, r.Use) // the list's own copy
	r.Columns = addAll(nil, r.Columns)
	r.Indirect, r.Copied, r.Transformed = addAll(nil, r.Indirect), addAll(nil, r.Copied), addAll(nil, r.Transformed)
	return append(list, r)
}

func addAll(list, more []string) []string {
next:
	for _, m := range more {
		for _, l := range list {
			if l == m {
				continue next
			}
		}
		list = append(list, m)
	}
	return list
}

// mayHoldSecret is asked of texts that could not be read.
func mayHoldSecret(text string) bool {
	return strings.Contains(strings.ToLower(text), "password")
}

func withheld(action string) string { return action + " … (the text is withheld: it holds a secret)" }
