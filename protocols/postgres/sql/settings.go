package sql

import "strings"

// pinnedSetting returns the setting that a query of pg_settings is about, when its condition is no other than
// name = 'the setting', and "" otherwise. pg_dump changes settings so that not every server has:
//
//	SELECT set_config(name, 'view', false) FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'
//
// Whatever relation goes by the name pg_settings, a row that passes has the setting's name in that column.
func pinnedSetting(f node) string {
	from := list(f["fromClause"])
	if len(from) != 1 || text(inner(from[0], "RangeVar")["relname"]) != "pg_settings" {
		return ""
	}
	where := inner(f["whereClause"], "A_Expr")
	if text(where["kind"]) != "AEXPR_OP" || !isColumn(where["lexpr"], "name") {
		return ""
	}
	if op := names(where["name"]); len(op) != 1 || op[0] != "=" {
		return ""
	}
	if !isConst(where["rexpr"]) {
		return ""
	}
	setting, _ := constant(where["rexpr"])
	return setting
}

// isColumn reports whether an expression is a column of that name, without a table before it.
func isColumn(v any, name string) bool {
	fields := names(inner(v, "ColumnRef")["fields"])
	return len(fields) == 1 && fields[0] == name
}

// settingUse says how a setting is used: written, and also verbose where the value may make the server tell its client what
// it does inside: what it thinks of a statement, and what functions note for its log.
func settingUse(name, value string, fixed bool) []string {
	if name != "client_min_messages" {
		return []string{"write"}
	}
	switch value = strings.ToLower(value); {
	case fixed && (value == "default" || value == "notice" || value == "warning" || value == "error"):
		return []string{"write"}
	}
	return []string{"write", "verbose"}
}

// hidesCatalog reports whether a search path may put another schema before pg_catalog. A path that does not name
// pg_catalog has it first; one that names it later lets any function, operator or relation stand in front of the server's
// own. To take a name for two is the safe mistake.
func hidesCatalog(path string) bool {
	_, later, ok := strings.Cut(strings.ToLower(path), ",")
	return ok && strings.Contains(later, "pg_catalog")
}
