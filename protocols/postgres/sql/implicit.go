package sql

import (
	"slices"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// Some functions run without being written as a call, and some relations do more than hold rows.

// attribute notes a part that is selected from a value. The server takes (x).name for name(x) where x has no such
// column, and t.name as well (manual, "Function Calls" and "Using Composite Types in Queries"): a function that does
// something is one, however it is written.
func (w *walker) attribute(name string) {
	w.out.Selected = addAll(w.out.Selected, []string{name})
	effect, known := functionEffect("", name)
	if !known || effect == core.EffectRead {
		return
	}
	full := name
	if !fromExtension(name) {
		full = "pg_catalog." + name
	}
	w.resource("function", full, "call")
	w.effect(effect)
	if effect == core.EffectUnknown {
		w.unsure("%s runs a text or reads a table that its argument names", name)
	}
}

// attributes notes all parts of an indirection, or of a column's name, that may be one.
func (w *walker) attributes(parts []any) {
	for _, p := range parts {
		if s, ok := asNode(p)["String"]; ok {
			w.attribute(text(asNode(s)["sval"]))
		}
	}
}

// operators are those of pg_catalog, and those that extensions of PostgreSQL's own distribution and pgvector bring.
var operators = func() map[string]bool {
	m := map[string]bool{}
	for _, o := range strings.Fields(`!! !~ !~* !~~ !~~* # ## #- #> #>> % & && &< &<| &> * *< *<= *<> *= *> *>= + - -> ->> -|- /
		< <-> << <<= <<| <= <> <@ <^ = > >= >> >>= >^ ? ?# ?& ?- ?-| ?| ?|| @ @-@ @> @? @@ @@@ ^ ^@ | |&> |/ |>> || ||/ ~ ~*
		~<=~ ~<~ ~= ~>=~ ~>~ ~~ ~~* != !
		%> <% %>> <<% <->> <<-> <->>> <<<-> %% %# #= <=> <#> <+> <~> <%> <#=> ~> ?~ ^< ^> @<@ @@> <@@ !=- =~ ^~ ^?`) {
		m[o] = true
	}
	return m
}()

// operator notes an operator that is not the server's own: it is a function by another name.
func (w *walker) operator(v any) {
	parts := names(v)
	if len(parts) == 0 {
		return
	}
	name := parts[len(parts)-1]
	if strings.Trim(name, "+-*/<>=~!@#%^&|`?") != "" { // BETWEEN and its like
		return
	}
	schema := strings.Join(parts[:len(parts)-1], ".")
	if schema == "pg_catalog" || schema == "" && operators[name] {
		return
	}
	if schema != "" {
		name = schema + "." + name
	}
	w.resource("operator", name, "call", "unknown")
	w.effect(core.EffectUnknown)
}

// Relations of the server whose reading shows its files or secrets.
var (
	filesShown   = []string{"pg_hba_file_rules", "pg_ident_file_mappings", "pg_file_settings"}
	secretsShown = []string{"pg_authid", "pg_shadow", "pg_user_mapping", "pg_largeobject", "pg_config"}
)

// activity is pg_stat_activity: what others have said may hold any value, and the rest tells of sessions only.
func activity(name, schema string) *item {
	it := &item{name: name, schema: schema, open: true, all: opaque(), columns: []output{{name: "query", from: opaque()}}}
	for _, c := range strings.Fields(`datid datname pid leader_pid usesysid usename application_name client_addr client_hostname
		client_port backend_start xact_start query_start state_change wait_event_type wait_event state backend_xid backend_xmin
		query_id backend_type`) {
		it.columns = append(it.columns, output{name: c, from: origins{}})
	}
	return it
}

// system notes what it means to use one of the server's own relations.
func (w *walker) system(full string, uses []string) {
	name, ok := systemRelation(full)
	switch {
	case !ok:
		return
	case slices.Contains(filesShown, name):
		w.effect(core.EffectFile)
	case slices.Contains(secretsShown, name):
		w.effect(core.EffectAdmin)
	}
	if !slices.Contains(uses, "write") {
		return
	}
	if name == "pg_settings" { // its rule is set_config
		w.unsure("a write to pg_settings changes settings")
		return
	}
	w.effect(core.EffectDDL, core.EffectPrivilege, core.EffectAdmin)
}
