package postgres

import (
	"context"
	"slices"
	"strings"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// functionsQuery lists the functions of the database that can be written as a part of their argument.
const functionsQuery = `
select distinct p.proname from pg_catalog.pg_proc p
where p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace and p.prokind = 'f'
  and p.pronargs >= 1 and p.pronargs - p.pronargdefaults <= 1
limit 100000`

// called finds the calls of functions that a script writes as parts of a value: the server takes t.name for name(t) when
// t has no such column. When the catalog cannot be read, nobody can tell them from columns.
func (c *catalog) called(ctx context.Context, s *sql.Script) *sql.Script {
	if c == nil || !slices.ContainsFunc(s.Statements, func(st sql.Statement) bool { return len(st.Selected) > 0 }) {
		return s
	}
	reading, cancel := c.reading(ctx)
	defer cancel()
	n, anything := &named{ctx: reading, facts: c.now()}, c.routines.Load() || s.Command.Action == "multiple" && s.Command.HasEffect(core.EffectDDL)
	functions, err := n.singleArgument(ctx)
	if err != nil {
		return sql.Unreadable(s.Command.Text, "the functions of its database cannot be looked up now")
	}
	return s.WithFunctions(func(command *core.Command, name string) bool {
		return (anything || functions[name]) && !n.hasColumn(command, name)
	})
}

// singleArgument returns the names of the functions that functionsQuery finds.
func (f *facts) singleArgument(ctx context.Context) (map[string]bool, error) {
	f.mu.Lock()
	functions := f.functions
	f.mu.Unlock()
	if functions != nil {
		return functions, nil
	}
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	f.catalog.mu.Lock()
	rows, err := f.catalog.query(ctx, functionsQuery)
	f.catalog.mu.Unlock()
	if err != nil {
		return nil, err
	}
	functions = make(map[string]bool, len(rows))
	for _, row := range rows {
		if len(row) == 1 && row[0] != nil {
			functions[*row[0]] = true
		}
	}
	f.mu.Lock()
	f.functions = functions
	f.mu.Unlock()
	return functions, nil
}

// hasColumn reports whether one of the command's tables has a column of that name: then it is what is meant.
func (n *named) hasColumn(command *core.Command, name string) bool {
	for _, r := range command.Resources {
		if r.Kind != "table" {
			continue
		}
		schema, table, ok := strings.Cut(r.Name, ".")
		if !ok {
			schema, table = "", r.Name
		}
		for _, rel := range n.Relations(schema, table) {
			if slices.Contains(rel.Columns, name) {
				return true
			}
		}
	}
	return false
}
