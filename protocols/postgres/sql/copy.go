package sql

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/weir-gateway/weir/core"
)

// Copy is a COPY that goes over the connection.
type Copy struct {
	From    bool
	Table   string
	Columns []string
	Format  string // text, csv or binary
	// How a row stands in the data, of text and csv (manual, "COPY").
	Header                   bool
	Delimiter, Quote, Escape byte
	Null                     string
	ForceQuote               []string // names of columns; "*" is all of them
	// Unclear says why the data cannot be taken apart; it is empty where it can.
	Unclear string
	// Select is a query whose columns are those of a COPY TO STDOUT, in order, or empty when none can be given. A query of
	// the statement's own stands where it stands there, so that errors name the same places. Of a table without a list of
	// columns it has the generated ones as well, which COPY leaves out.
	Select string
}

// copy reads COPY.
func (w *walker) copy(f node) {
	from, _ := f["is_from"].(bool)
	program, _ := f["is_program"].(bool)
	file := text(f["filename"])
	use, uses := "read", []string{"read"}
	if from {
		use, uses = "write", []string{"write", "insert"}
		w.effect(core.EffectWrite)
	} else {
		w.effect(core.EffectRead)
	}
	c := &Copy{From: from}
	if r := asNode(f["relation"]); len(r) > 0 {
		w.table(r, uses...)
		c.Table = qualified(text(r["schemaname"]), text(r["relname"]))
	}
	for _, a := range list(f["attlist"]) {
		c.Columns = append(c.Columns, text(inner(a, "String")["sval"]))
	}
	w.refs = append(w.refs, c.Columns...)
	w.star = w.star || len(c.Columns) == 0 && f["relation"] != nil
	c.options(list(f["options"]))
	switch {
	case program:
		w.effect(core.EffectProcess, core.EffectFile)
	case file != "":
		w.effect(core.EffectFile)
		w.resource("file", file, use)
	default:
		w.out.Copy = c
		c.Select = selectOf(w.command.Text, f, c)
	}
	w.walk(f["query"])
	w.walk(f["whereClause"])
}

// selectOf returns the query that gives what a COPY TO STDOUT gives.
func selectOf(text string, f node, c *Copy) string {
	r := asNode(f["relation"])
	switch {
	case c.From:
		return ""
	case len(r) == 0:
		start, end, ok := parenthesised(text)
		if !ok {
			return ""
		}
		return strings.Repeat(" ", utf8.RuneCountInString(text[:start])) + text[start:end]
	}
	columns := "*"
	if len(c.Columns) > 0 {
		quoted := make([]string, len(c.Columns))
		for i, n := range c.Columns {
			quoted[i] = identifier(n)
		}
		columns = strings.Join(quoted, ", ")
	}
	name := identifier(fmt.Sprint(r["relname"]))
	if schema, ok := r["schemaname"].(string); ok {
		name = identifier(schema) + "." + name
	}
	return "select " + columns + " from only " + name
}

// identifier quotes a name.
func identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// options reads the WITH list. The grammar has brought the old spellings to the new ones.
func (c *Copy) options(options []any) {
	c.Format, c.Null = "text", ""
	given := map[string]string{}
	for _, o := range options {
		d := inner(o, "DefElem")
		name := text(d["defname"])
		switch value, ok := constant(d["arg"]); {
		case name == "force_quote":
			c.ForceQuote = names(inner(d["arg"], "List")["items"])
			if _, all := asNode(d["arg"])["A_Star"]; all {
				c.ForceQuote = []string{"*"}
			}
		case name == "header" && d["arg"] == nil:
			given[name] = "true"
		case !ok:
			c.Unclear = "its option " + name + " is not written out"
		default:
			given[name] = value
		}
	}
	if v, ok := given["format"]; ok {
		c.Format = strings.ToLower(v)
	}
	c.Delimiter, c.Null = '\t', `\N`
	switch c.Format {
	case "text", "binary":
	case "csv":
		c.Delimiter, c.Quote, c.Null = ',', '"', ""
	default:
		c.Unclear = "its format is not known"
	}
	character := func(name string, to *byte) {
		if v, ok := given[name]; ok {
			if len(v) != 1 {
				c.Unclear = "its option " + name + " is not one character"
				return
			}
			*to = v[0]
		}
	}
	character("delimiter", &c.Delimiter)
	character("quote", &c.Quote)
	c.Escape = c.Quote
	character("escape", &c.Escape)
	for name, v := range given {
		switch name {
		case "format", "delimiter", "quote", "escape", "freeze":
		case "null":
			c.Null = v
		case "header":
			switch strings.ToLower(v) {
			case "true", "on", "1":
				c.Header = true
			case "false", "off", "0":
			default:
				c.Unclear = "its option header is not known"
			}
		case "encoding":
			if !pinnedTo("client_encoding", v) {
				c.Unclear = "its encoding is not UTF8"
			}
		default:
			c.Unclear = "its option " + name + " is not known"
		}
	}
}
