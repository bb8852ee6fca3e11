package sql

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
