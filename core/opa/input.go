package opa

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"hash/maphash"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/weir-gateway/weir/core"
)

// The input is built as OPA's own values, and only as much of it as some rule can read. What belongs to a command,
// an identity or a target is built once and shared.

// digest stands for a value in the key of a kept verdict: two 64-bit hashes with seeds that nobody outside knows.
type digest [2]uint64

var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

func digestOf(b []byte) digest { return digest{maphash.Bytes(seeds[0], b), maphash.Bytes(seeds[1], b)} }

// commandPart is what is kept for a command.
type commandPart struct {
	digest digest
	object atomic.Pointer[ast.Object] // without the parameters; built when first evaluated
}

// of returns the command as OPA sees it.
func (part *commandPart) of(c *core.Command) ast.Object {
	if o := part.object.Load(); o != nil {
		return *o
	}
	o := commandObject(c)
	part.object.Store(&o)
	return o
}

// maxKeptText bounds the memory of kept commands: longer ones are read each time.
const maxKeptText = 8 << 10

func (p *Policy) commandPart(c *core.Command) *commandPart {
	if !p.reads.has(1) { // nobody reads the text: all commands of one shape are alike
		c = c.Shape()
	}
	if part, ok := p.commands.get(c); ok {
		return part
	}
	part := &commandPart{}
	b := make([]byte, 0, 512)
	text := func(s string) { b = append(binary.AppendUvarint(b, uint64(len(s))), s...) }
	list := func(n int) { b = binary.AppendUvarint(b, uint64(n)) }
	// The order and the lengths make two commands that differ in a part that is read differ here.
	for i, s := range [...]string{0: c.Action, 1: c.Text, 2: c.Fingerprint, 6: string(c.Status), 7: c.Reason} {
		if p.reads.has(i) {
			text(s)
		}
	}
	if p.reads.has(3) {
		list(len(c.Effects))
		for _, e := range c.Effects {
			text(string(e))
		}
	}
	if p.reads.has(4) {
		list(len(c.Resources))
		for i := range c.Resources {
			r := &c.Resources[i]
			text(r.Kind)
			text(r.Name)
			list(len(r.Use))
			for _, u := range r.Use {
				text(u)
			}
			for _, names := range [...][]string{r.Columns, r.Indirect, r.Copied, r.Transformed} {
				list(len(names))
				for _, n := range names {
					text(n)
				}
			}
		}
	}
	if p.reads.has(5) && c.Where {
		b = append(b, 1)
	}
	part.digest = digestOf(b)
	if len(c.Text) <= maxKeptText {
		p.commands.put(c, part)
	}
	return part
}

// sessionPart is what is kept for a session.
type sessionPart struct {
	identity, target             digest
	identityTerm, targetTerm     *ast.Term
	idTerm, runTerm, startedTerm *ast.Term
	clientTerm                   *ast.Term

	text              []byte // of identity and target, for a guest
	own               digest // of what is this session's only
	tables, runTables atomic.Pointer[tablesPart]
}

func (p *Policy) sessionPart(s *core.Session) *sessionPart {
	if part, ok := p.sessions.Load(s); ok {
		return part.(*sessionPart)
	}
	part := p.newSessionPart(s)
	p.sessions.Store(s, part)
	return part
}

func (p *Policy) newSessionPart(s *core.Session) *sessionPart {
	id, t := &s.Identity, s.Target
	part := &sessionPart{
		idTerm: ast.StringTerm(s.ID), runTerm: ast.StringTerm(s.Run), startedTerm: ast.StringTerm(timeText(s.Started)),
		clientTerm: ast.StringTerm(clientOf(s)),
		identityTerm: object(
			pair("subject", ast.StringTerm(id.Subject)), pair("issuer", ast.StringTerm(id.Issuer)),
			pair("groups", stringArray(id.Groups)), pair("kind", ast.StringTerm(id.Kind)), pair("claims", anyTerm(id.Claims)),
		),
		targetTerm: object(pair("name", ast.StringTerm(t.Name)), pair("protocol", ast.StringTerm(s.Protocol)), pair("labels", labels(t.Labels))),
	}
	var b []byte
	for i, field := range []any{id.Subject, id.Issuer, id.Groups, id.Kind, id.Claims} {
		if p.identifies.has(i) {
			j, err := json.Marshal(field)
			if err != nil { // claims that are no JSON: nobody else's verdict is used
				j = []byte(s.ID)
			}
			b = append(append(b, j...), byte(i))
		}
	}
	part.identity = digestOf(b)
	b = b[:0]
	j, _ := json.Marshal([]any{t.Name, s.Protocol, t.Labels})
	part.target = digestOf(append(b, j...))
	j, _ = json.Marshal([]string{s.ID, s.Run, timeText(s.Started), clientOf(s)})
	part.own = digestOf(j)
	if p.guest != nil {
		part.text = p.sessionText(s, part)
	}
	return part
}

// input builds the document for one event.
func (p *Policy) input(q *question, e *core.Event, part *sessionPart, st *state) ast.Value {
	f := &q.footprint
	event := make([][2]*ast.Term, 0, 8)
	event = append(event, pair("kind", ast.StringTerm(e.Kind.String())), pair("direction", ast.StringTerm(e.Direction.String())))
	if e.Stage != "" {
		event = append(event, pair("stage", ast.StringTerm(e.Stage)))
	}
	if c := e.Command(); c != nil && f.reads("event.command") {
		o := p.commandPart(c).of(c)
		if f.params && len(e.Params) > 0 {
			o = withParams(o, e.Params)
		}
		event = append(event, pair("command", ast.NewTerm(o)))
	}
	if e.Columns != nil && f.columns || f.reads("event.columns") && e.Kind == core.KindColumns {
		event = append(event, pair("columns", columnTerms(e.Columns)))
	}
	if e.Result != nil && f.reads("event.result") {
		event = append(event, pair("result", resultObject(e.Result)))
	}
	if name := e.Session.Protocol; e.Detail != nil && !reserved[name] && f.reads("event."+name) {
		event = append(event, pair(name, anyTerm(e.Detail)))
	}
	in := make([][2]*ast.Term, 0, 6)
	in = append(in, pair("event", ast.ObjectTerm(event...)), pair("identity", part.identityTerm), pair("target", part.targetTerm))
	if f.reads("session") {
		in = append(in, pair("session", sessionObject(e.Session, part, st)))
	}
	if run := e.Session.OfRun(); run != nil && f.reads("run") {
		in = append(in, pair("run", runObject(run, st)))
	}
	if f.reads("time") {
		in = append(in, pair("time", ast.StringTerm(timeText(e.Time))))
	}
	return ast.NewObject(in...)
}

func resultObject(r *core.Result) *ast.Term {
	return object(pair("status", ast.StringTerm(r.Status)), pair("tag", ast.StringTerm(r.Tag)), pair("code", ast.StringTerm(r.Code)), pair("rows", number(r.Rows)))
}

// reserved are the names under event that a protocol's own object cannot take.
var reserved = map[string]bool{"": true, "kind": true, "direction": true, "stage": true, "command": true, "columns": true, "result": true}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func pair(key string, value *ast.Term) [2]*ast.Term {
	return [2]*ast.Term{ast.InternedTerm(key), value}
}

func object(pairs ...[2]*ast.Term) *ast.Term { return ast.ObjectTerm(pairs...) }

func stringArray(list []string) *ast.Term {
	terms := make([]*ast.Term, len(list))
	for i, s := range list {
		terms[i] = ast.StringTerm(s)
	}
	return ast.ArrayTerm(terms...)
}

func labels(m map[string]string) *ast.Term {
	o := ast.NewObject()
	for k, v := range m {
		o.Insert(ast.StringTerm(k), ast.StringTerm(v))
	}
	return ast.NewTerm(o)
}

// anyTerm turns JSON-like values into a term. What is no JSON becomes an empty object, on which no rule can rely.
func anyTerm(m map[string]any) *ast.Term {
	if m == nil {
		return ast.ObjectTerm()
	}
	v, err := ast.InterfaceToValue(m)
	if err != nil {
		return ast.ObjectTerm()
	}
	return ast.NewTerm(v)
}

func commandObject(c *core.Command) ast.Object {
	effects := make([]*ast.Term, len(c.Effects))
	for i, e := range c.Effects {
		effects[i] = ast.StringTerm(string(e))
	}
	resources := make([]*ast.Term, len(c.Resources))
	for i, r := range c.Resources {
		parts := [][2]*ast.Term{pair("kind", ast.StringTerm(r.Kind)), pair("name", ast.StringTerm(r.Name)), pair("use", stringArray(r.Use)), pair("columns", stringArray(r.Columns))}
		for _, used := range usedOf(&c.Resources[i]) {
			if len(used.columns) > 0 {
				parts = append(parts, pair(used.how, stringArray(used.columns)))
			}
		}
		resources[i] = object(parts...)
	}
	return ast.NewObject(
		pair("action", ast.StringTerm(c.Action)), pair("text", ast.StringTerm(c.Text)), pair("fingerprint", ast.StringTerm(c.Fingerprint)),
		pair("effects", ast.ArrayTerm(effects...)), pair("resources", ast.ArrayTerm(resources...)),
		pair("where", ast.BooleanTerm(c.Where)), pair("status", ast.StringTerm(string(statusOf(c)))), pair("reason", ast.StringTerm(c.Reason)),
	)
}

func statusOf(c *core.Command) core.Status {
	if c.Status == "" {
		return core.StatusIncomplete
	}
	return c.Status
}

// usedColumns is one way in which columns are used besides being asked for.
type usedColumns struct {
	how     string
	columns []string
}

func usedOf(r *core.Resource) [3]usedColumns {
	return [...]usedColumns{{"indirect", r.Indirect}, {"copied", r.Copied}, {"transformed", r.Transformed}}
}

// paramTerms are the parameters: texts, null, or {"hex": …} for what is no text.
func paramTerms(params []core.Param) *ast.Term {
	terms := make([]*ast.Term, len(params))
	for i, p := range params {
		switch {
		case p.Value == nil:
			terms[i] = ast.NullTerm()
		case p.Binary || !utf8.Valid(p.Value):
			terms[i] = object(pair("hex", ast.StringTerm(hex.EncodeToString(p.Value))))
		default:
			terms[i] = ast.StringTerm(string(p.Value))
		}
	}
	return ast.ArrayTerm(terms...)
}

// withParams returns a copy of a command with its parameters.
func withParams(o ast.Object, params []core.Param) ast.Object {
	out := ast.NewObject(pair("params", paramTerms(params)))
	o.Foreach(func(k, v *ast.Term) { out.Insert(k, v) })
	return out
}

func columnTerms(columns []core.Column) *ast.Term {
	origin := func(o *core.Origin) *ast.Term {
		return object(pair("table", ast.StringTerm(o.Table)), pair("column", ast.StringTerm(o.Column)))
	}
	terms := make([]*ast.Term, len(columns))
	for i := range columns {
		c := &columns[i]
		lineage := make([]*ast.Term, len(c.Lineage))
		for j := range c.Lineage {
			lineage[j] = origin(&c.Lineage[j])
		}
		pairs := [][2]*ast.Term{pair("name", ast.StringTerm(c.Name)), pair("type", ast.StringTerm(c.Type)), pair("lineage", ast.ArrayTerm(lineage...))}
		if c.Origin != nil {
			pairs = append(pairs, pair("origin", origin(c.Origin)))
		}
		terms[i] = ast.ObjectTerm(pairs...)
	}
	return ast.ArrayTerm(terms...)
}

// columnsDigest hashes what columnTerms shows.
func columnsDigest(columns []core.Column) (d digest) {
	for i := range d {
		var h maphash.Hash
		h.SetSeed(seeds[i])
		text := func(s string) {
			n := len(s)
			_, _ = h.Write([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
			_, _ = h.WriteString(s)
		}
		for j := range columns {
			c := &columns[j]
			text(c.Name)
			text(c.Type)
			if c.Origin != nil {
				_ = h.WriteByte(1)
				text(c.Origin.Table)
				text(c.Origin.Column)
			} else {
				_ = h.WriteByte(0)
			}
			_ = h.WriteByte(byte(len(c.Lineage)))
			_ = h.WriteByte(byte(len(c.Lineage) >> 8))
			for k := range c.Lineage {
				text(c.Lineage[k].Table)
				text(c.Lineage[k].Column)
			}
		}
		d[i] = h.Sum64()
	}
	return d
}
