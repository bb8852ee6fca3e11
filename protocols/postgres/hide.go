package postgres

import (
	"context"
	"regexp"
	"strings"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// What a server says when something fails quotes values of its data: a cast of a masked column to a number fails with
// the value in the message, a violated constraint with the whole row in the detail. So where a mask is in force, errors
// and notices lose whatever the client did not say itself and the server does not name in a field of its own.
// Names, types and the client's own literals stay: they are what a loop needs to put its statement right.

// hiddenText stands for what was taken out.
const hiddenText = "(hidden)"

// masks reports whether a mask is in force for a command's answers: whether a column of which nothing is known would be
// masked. The chain is asked, which costs what a verdict on columns costs; errors and notices are few.
func (c *connection) masks(ctx context.Context, x *core.Exchange) bool {
	if !c.session.Judges(core.KindColumns) {
		return false
	}
	command := &core.Command{Where: true, Status: core.StatusKnown}
	if x != nil && x.Command != nil {
		command = x.Command
	}
	anything := []core.Column{{Name: "?column?", Type: "text", Lineage: []core.Origin{sql.Anything}}}
	probe := &core.Exchange{Command: command, Columns: anything}
	v := c.session.Ask(ctx, &core.Event{Kind: core.KindColumns, Direction: core.FromUpstream, Exchange: probe, Columns: anything})
	return v.Deny != nil || len(probe.Plan.Masks) > 0
}

// hide takes the values out of an error or notice that answers head. It returns the frame as it was when there are none.
func hide(frame, b []byte, head reply) (newFrame, newBody []byte) {
	var s said
	s.add(head)
	code, file := "", ""
	fields(b, func(typ byte, v []byte) {
		switch typ {
		case 'C':
			code = string(v)
		case 'F':
			file = string(v)
		case 's', 't', 'c', 'd', 'n':
			s.names = append(s.names, string(v))
		}
	})
	out, at := beginFrame(nil, frame[0])
	changed := false
	fields(b, func(typ byte, v []byte) {
		text := string(v)
		switch typ {
		case 'M':
			text = s.message(code, file, text)
			if text == "" {
				text = "the message of a function is hidden: it may hold a masked value"
			}
		case 'H':
			text = s.message(code, file, text)
		case 'D':
			text = s.detail(file, text)
		case 'W', 'q':
			if !s.has(text) {
				text = ""
			}
		}
		changed = changed || text != string(v)
		if text != "" || len(v) == 0 {
			out = append(append(append(out, typ), text...), 0)
		}
	})
	if !changed {
		return frame, b
	}
	out = endFrame(append(out, 0), at)
	return out, out[headerSize:]
}

// hideNotification takes the payload out of a notification, which any session of the database may have sent: nobody can
// tell whether a column that has to be masked is in it.
func hideNotification(frame, b []byte) (newFrame, newBody []byte) {
	cb := body{b: b}
	cb.i32()
	channel, payload := cb.str(), cb.str()
	if len(payload) == 0 || cb.err != nil {
		return frame, b
	}
	out, at := beginFrame(nil, 'A')
	out = append(append(append(out, b[:4]...), channel...), 0)
	out = endFrame(append(append(out, hiddenText...), 0), at)
	return out, out[headerSize:]
}

// openSettings are the reported settings that take a text which nobody checks, or hardly: a function may have put a value
// of a column there. The others have few values, and those are the server's own.
var openSettings = map[string]bool{"application_name": true, "search_path": true, "TimeZone": true}

// holdsText reports whether a ParameterStatus has a value that may be any text. A time zone with a slash is the name of
// a file of the server's.
func holdsText(b []byte) bool {
	cb := body{b: b}
	name, value := string(cb.str()), string(cb.str())
	if name == "TimeZone" && (value == "UTC" || value == "GMT" || strings.Contains(value, "/") && !strings.ContainsAny(value, "<>")) {
		return false
	}
	return openSettings[name] && value != ""
}

// hideSetting takes the value out of a ParameterStatus, unless the client said it.
func hideSetting(frame, b []byte, head reply) (newFrame, newBody []byte) {
	var s said
	s.add(head)
	cb := body{b: b}
	name, value := cb.str(), cb.str()
	if s.has(string(value)) || cb.err != nil {
		return frame, b
	}
	out, at := beginFrame(nil, 'S')
	out = append(append(out, name...), 0)
	out = endFrame(append(append(out, hiddenText...), 0), at)
	return out, out[headerSize:]
}

// said is what the client knows already, since it said it, and what are names in any case.
type said struct {
	texts []string // in lower case
	names []string
}

// add takes in what a message of the client said.
func (s *said) add(head reply) {
	if x := head.exchange; x != nil && x.Command != nil {
		s.command(x.Command)
	}
	if head.script != nil {
		s.command(head.script.Command)
	}
	if head.stmt != nil && head.stmt.script != nil {
		s.command(head.stmt.script.Command)
	}
	if p := head.portal; p != nil {
		for _, v := range p.params {
			if !v.Binary {
				s.texts = append(s.texts, strings.ToLower(string(v.Value)))
			}
		}
		for _, m := range p.statements {
			if m.script != nil {
				s.command(m.script.Command)
			}
		}
	}
}

func (s *said) command(c *core.Command) {
	if c == nil {
		return
	}
	s.texts = append(s.texts, strings.ToLower(c.Text))
	for _, r := range c.Resources {
		s.names = append(s.names, r.Name, r.Name[strings.LastIndexByte(r.Name, '.')+1:])
		s.names = append(s.names, r.Columns...)
	}
}

// has reports whether a part of a message is a name, or stands in what the client said, as whole words.
func (s *said) has(part string) bool {
	for _, n := range s.names {
		if n == part {
			return true
		}
	}
	part = strings.ToLower(part)
	if part == "" {
		return true
	}
	for _, text := range s.texts {
		for from := 0; ; {
			i := strings.Index(text[from:], part)
			if i < 0 {
				break
			}
			i += from
			end := i + len(part)
			if !(i > 0 && wordy(text[i-1]) && wordy(part[0])) && !(end < len(text) && wordy(text[end]) && wordy(part[len(part)-1])) {
				return true
			}
			from = i + 1
		}
	}
	return false
}

func wordy(b byte) bool {
	return b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= 0x80
}

// joints are what the server itself says between two quoted names (src/backend, ereport). Anything else between two
// quotation marks may be a part of a value that has such marks in it.
var joints = map[string]bool{
	" of relation ": true, " on table ": true, " for table ": true, " for relation ": true, " in schema ": true, " of type ": true,
	" violates foreign key constraint ": true, " violates check constraint ": true, " and ": true, " or ": true, ", ": true,
	" does not exist in ": true, " is not a member of ": true, " inherits from table ": true, " to ": true, " from ": true,
}

// plain are the codes whose messages hold names and counts of the protocol only.
var plain = map[string]bool{
	"08P01": true, // protocol violation
	"26000": true, // no such prepared statement
	"34000": true, // no such portal
	"42P03": true, // a portal of that name is there
	"42P05": true, // a prepared statement of that name is there
}

// message hides what is quoted, and numbers. It is empty when all of the text has to go.
func (s *said) message(code, file, text string) string {
	if plain[code] || s.has(text) {
		return text
	}
	if strings.HasPrefix(file, "pl") { // RAISE and its like in pl_exec.c, plperl.c, plpy_elog.c: any text at all
		return ""
	}
	first, last := strings.IndexByte(text, '"'), strings.LastIndexByte(text, '"')
	switch {
	case first < 0:
		return s.numbers(text)
	case first == last:
		return s.numbers(text[:first]) + hiddenText
	}
	return s.numbers(text[:first]) + `"` + s.quoted(text[first+1:last]) + `"` + s.numbers(text[last+1:])
}

// quoted is what stands between the first and the last quotation mark of a message: one thing, or several with the
// server's words between them.
func (s *said) quoted(text string) string {
	if s.has(text) {
		return text
	}
	parts := strings.Split(text, `"`)
	for i, p := range parts {
		switch {
		case i%2 == 1 && !joints[p]:
			return hiddenText
		case i%2 == 0 && !s.has(p):
			parts[i] = hiddenText
		}
	}
	return strings.Join(parts, `"`)
}

var (
	number = regexp.MustCompile(`[0-9]+`)
	// sized is a type with its size, which is never taken from data.
	sized = regexp.MustCompile(`\b(?:character|character varying|bit|bit varying|numeric|time|timestamp|interval)\([0-9]+(?:,[0-9]+)?\)|\bint[248]\b|\bfloat[48]\b|\bUTF8\b`)
)

// numbers hides the numbers that the client did not say.
func (s *said) numbers(text string) string {
	replace := func(part string) string {
		return number.ReplaceAllStringFunc(part, func(n string) string {
			if s.has(n) {
				return n
			}
			return hiddenText
		})
	}
	var b strings.Builder
	at := 0
	for _, m := range sized.FindAllStringIndex(text, -1) {
		b.WriteString(replace(text[at:m[0]]))
		b.WriteString(text[m[0]:m[1]])
		at = m[1]
	}
	b.WriteString(replace(text[at:]))
	return b.String()
}

// keyDetail is what is said of a violated key. The groups take as much as they can, so that what a value says is never
// taken for the server's own words.
var keyDetail = regexp.MustCompile(`^(?s)Key \((.*)\)=\((.*)\) (already exists\.|is not present in table "[^"]*"\.|is still referenced from table "[^"]*"\.)$`)

// detail is made of values, so only what is known to be none of them stays.
func (s *said) detail(file, text string) string {
	if s.has(text) {
		return text
	}
	if strings.HasPrefix(file, "pl") {
		return ""
	}
	if strings.HasPrefix(text, "Failing row contains (") {
		return "Failing row contains " + hiddenText + "."
	}
	m := keyDetail.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	columns, values, rest := m[1], m[2], m[3]
	for _, column := range strings.Split(columns, ", ") {
		if !s.has(strings.Trim(column, `"`)) {
			columns = strings.Trim(hiddenText, "()")
			break
		}
	}
	if !s.has(values) {
		values = strings.Trim(hiddenText, "()")
	}
	return "Key (" + columns + ")=(" + values + ") " + rest
}
