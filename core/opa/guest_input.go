package opa

import (
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/weir-gateway/weir/core"
)

// The input of a guest is a text that is written right from the event: what input builds of OPA's values, without the
// fields that no rule reads. TestGuestInput holds the two together.

// shown are the fields that some rule reads.
type shown struct{ event, command, identity, target fields }

var (
	eventFields  = []string{"kind", "direction", "stage"}
	targetFields = []string{"name", "protocol", "labels"}
)

func shownBy(questions ...*question) (s shown) {
	for _, q := range questions {
		if q == nil {
			continue
		}
		for _, part := range []struct {
			of    string
			names []string
			set   *fields
		}{{"event.", eventFields, &s.event}, {"event.command.", commandFields, &s.command}, {"identity.", identityFields, &s.identity}, {"target.", targetFields, &s.target}} {
			for _, name := range part.names {
				if q.footprint.reads(part.of + name) {
					part.set.add(part.names, name)
				}
			}
		}
	}
	return s
}

// writer writes an object, and remembers whether all of it could be said.
type writer struct {
	b  []byte
	no bool // something cannot be written so that the guest reads the same
}

func (w *writer) key(name string) {
	if c := w.b[len(w.b)-1]; c != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(append(append(w.b, '"'), name...), '"', ':')
}

func (w *writer) open(name string) {
	w.key(name)
	w.b = append(w.b, '{')
}

func (w *writer) close() { w.b = append(w.b, '}') }

func (w *writer) string(s string) {
	if w.no = w.no || len(s) > maxGuestInput; w.no {
		return
	}
	b, ok := appendText(w.b, s)
	w.b, w.no = b, w.no || !ok
}

func (w *writer) text(name, value string) {
	w.key(name)
	w.string(value)
}

func (w *writer) texts(name string, list []string) {
	w.key(name)
	w.b = append(w.b, '[')
	for i, s := range list {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.string(s)
	}
	w.b = append(w.b, ']')
}

func (w *writer) value(name string, t *ast.Term) {
	w.key(name)
	b, ok := appendValue(w.b, t.Value, 0)
	w.b, w.no = b, w.no || !ok
}

// inputText writes the document for one event.
func (p *Policy) inputText(b []byte, q *question, e *core.Event, part *sessionPart, st *state) ([]byte, bool) {
	f := &q.footprint
	w := &writer{b: append(b, '{')}
	w.open("event")
	if p.shown.event.has(0) {
		w.text("kind", e.Kind.String())
	}
	if p.shown.event.has(1) {
		w.text("direction", e.Direction.String())
	}
	if p.shown.event.has(2) && e.Stage != "" {
		w.text("stage", e.Stage)
	}
	if c := e.Command(); c != nil && f.reads("event.command") {
		w.open("command")
		w.command(c, p.shown.command)
		if f.params && len(e.Params) > 0 {
			w.value("params", paramTerms(e.Params))
		}
		w.close()
	}
	if e.Columns != nil && f.columns || f.reads("event.columns") && e.Kind == core.KindColumns {
		w.value("columns", columnTerms(e.Columns))
	}
	if e.Result != nil && f.reads("event.result") {
		w.value("result", resultObject(e.Result))
	}
	if name := e.Session.Protocol; e.Detail != nil && !reserved[name] && f.reads("event."+name) {
		w.value(name, anyTerm(e.Detail))
	}
	w.close()
	w.b = append(append(w.b, ','), part.text...)
	w.no = w.no || part.text == nil
	if f.reads("session") {
		w.value("session", sessionObject(e.Session, part, st))
	}
	if run := e.Session.OfRun(); run != nil && f.reads("run") {
		w.value("run", runObject(run, st))
	}
	if f.reads("time") {
		w.text("time", timeText(e.Time))
	}
	w.close()
	return w.b, !w.no
}

// command writes the fields of a command.
func (w *writer) command(c *core.Command, show fields) {
	for i, name := range commandFields {
		if !show.has(i) {
			continue
		}
		switch name {
		case "action":
			w.text(name, c.Action)
		case "text":
			w.text(name, c.Text)
		case "fingerprint":
			w.text(name, c.Fingerprint)
		case "reason":
			w.text(name, c.Reason)
		case "status":
			w.text(name, string(statusOf(c)))
		case "where":
			w.key(name)
			w.b = strconv.AppendBool(w.b, c.Where)
		case "effects":
			w.key(name)
			w.b = append(w.b, '[')
			for i, e := range c.Effects {
				if i > 0 {
					w.b = append(w.b, ',')
				}
				w.string(string(e))
			}
			w.b = append(w.b, ']')
		case "resources":
			w.resources(c.Resources)
		}
	}
}

func (w *writer) resources(list []core.Resource) {
	w.key("resources")
	w.b = append(w.b, '[')
	for i := range list {
		r := &list[i]
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.b = append(w.b, '{')
		w.text("kind", r.Kind)
		w.text("name", r.Name)
		w.texts("use", r.Use)
		w.texts("columns", r.Columns)
		for _, used := range usedOf(r) {
			if len(used.columns) > 0 {
				w.texts(used.how, used.columns)
			}
		}
		w.close()
	}
	w.b = append(w.b, ']')
}

// sessionText is who asks and what of, as each event of a session has it; nil where the guest would read something else.
func (p *Policy) sessionText(s *core.Session, part *sessionPart) []byte {
	id := &s.Identity
	w := &writer{b: []byte("{")}
	w.open("identity")
	for i, name := range identityFields {
		if !p.shown.identity.has(i) {
			continue
		}
		switch name {
		case "subject":
			w.text(name, id.Subject)
		case "issuer":
			w.text(name, id.Issuer)
		case "groups":
			w.texts(name, id.Groups)
		case "kind":
			w.text(name, id.Kind)
		case "claims":
			w.value(name, anyTerm(id.Claims))
		}
	}
	w.close()
	w.open("target")
	for i, name := range targetFields {
		if p.shown.target.has(i) {
			w.value(name, part.targetTerm.Get(ast.StringTerm(name)))
		}
	}
	w.close()
	if w.no {
		return nil
	}
	return w.b[1:]
}
