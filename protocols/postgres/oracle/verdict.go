package main

import (
	"context"
	"sort"
	"strings"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// verdict is what comes of one text.
type verdict string

const (
	agree    verdict = "agree"
	conceded verdict = "conceded" // Weir says that it does not know, and so refuses
	wrong    verdict = "WRONG"    // Weir says that it knows, and misses something
	skipped  verdict = "skipped"  // the server has not understood it either
)

// class is what log_statement counts a text as.
type class int

const (
	other class = iota
	ddl
	mod
)

// judge compares Weir's reading of the texts of one server with the server's own.
type judge struct {
	reader   *sql.Reader
	prepared map[string]map[string]*core.Command // by session and name
	classes  map[string]class                    // by text, where the server told one
}

func newJudge(classes map[string]class) *judge {
	return &judge{reader: sql.NewReader(), prepared: map[string]map[string]*core.Command{}, classes: classes}
}

// facts is what Weir's Postgres path makes of a text: EXECUTE does what its name was given.
func (j *judge) facts(session, text string) *core.Command {
	script := j.reader.Read(context.Background(), text)
	command := script.Command
	bodies := j.prepared[session]
	if bodies == nil {
		bodies = map[string]*core.Command{}
		j.prepared[session] = bodies
	}
	for _, s := range script.Statements {
		if s.Prepare != "" && s.Body != nil {
			bodies[s.Prepare] = s.Body
		}
		if s.Execute == "" {
			continue
		}
		body := bodies[s.Execute]
		if body == nil {
			body = &core.Command{Status: core.StatusIncomplete, Reason: "no statement has that name", Effects: []core.Effect{core.EffectUnknown}}
		}
		command = sql.Union(text, []*core.Command{command, body})
	}
	return command
}

// judge returns the verdict, and what Weir misses.
func (j *judge) judge(a *asked) (v verdict, misses []string) {
	if !a.parsed {
		if !strings.Contains(a.failed, "syntax error") { // it is remembered all the same
			j.facts(a.session, a.text)
		}
		return skipped, nil
	}
	command := j.facts(a.session, a.text)
	if command.Status != core.StatusKnown || command.HasEffect(core.EffectUnknown) {
		return conceded, nil
	}
	for name := range a.writes {
		if !touches(command, name, true) {
			misses = append(misses, "writes "+name)
		}
	}
	for name := range a.reads {
		if !touches(command, name, false) {
			misses = append(misses, "uses "+name)
		}
	}
	plainExplain := command.Action == "explain" && len(a.writes) == 0 // which runs nothing
	has := func(effects ...core.Effect) bool {
		for _, e := range effects {
			if command.HasEffect(e) {
				return true
			}
		}
		return false
	}
	if a.changes && !has(core.EffectWrite) {
		misses = append(misses, "effect write")
	}
	switch j.classes[a.text] {
	case ddl:
		if !has(core.EffectDDL, core.EffectPrivilege, core.EffectAdmin) && !plainExplain {
			misses = append(misses, "effect ddl, privilege or admin")
		}
	case mod:
		if !has(core.EffectWrite) && !plainExplain {
			misses = append(misses, "effect write")
		}
	}
	if len(misses) > 0 {
		sort.Strings(misses)
		return wrong, misses
	}
	return agree, nil
}

// reading are the uses of a table that change nothing of it.
var reading = map[string]bool{"read": true, "explain": true, "lock": true, "maintain": true}

// touches reports whether a command names a relation, as one that it changes or in any way. A name that Weir gives
// without a schema stands for every relation of that name.
func touches(c *core.Command, relation string, change bool) bool {
	schema, name, _ := strings.Cut(relation, ".")
	for _, r := range c.Resources {
		if r.Kind != "table" || r.Name != relation && r.Name != name && !(schema == "?" && strings.HasSuffix(r.Name, "."+name)) {
			continue
		}
		if !change {
			return true
		}
		for _, use := range r.Use {
			if !reading[use] {
				return true
			}
		}
	}
	return false
}
