# METADATA
# title: Standard guardrails
# description: >
#   Reading and bounded writing pass; schema changes, unbounded writes and whatever reaches beyond the data are
#   refused; columns that are named like personal data are masked. The rules read effects and resources, which every
#   protocol fills in, and never a statement's text. The lists are in data.yaml.
package weir.guardrails

effects := {e | some e in input.event.command.effects}

resources := object.get(input.event.command, "resources", [])

# METADATA
# title: No schema changes
# custom: {rule: no-ddl}
deny contains {
	"rule": "no-ddl",
	"reason": "this changes the schema, and schema changes go through migrations",
	"hint": "write a migration and have it reviewed; reading the catalog to see the present schema is allowed",
} if {
	"ddl" in effects
	not exempt("no-ddl")
}

# METADATA
# title: No write without saying which rows
# description: >
#   A command of several statements counts as unbounded when any of those that change or remove rows has no
#   condition. A write whose resources are not known counts as well.
# custom: {rule: no-unbounded-write}
deny contains {
	"rule": "no-unbounded-write",
	"reason": "this changes or removes every row of a table",
	"hint": "add a WHERE condition that names the rows; if all rows are meant, ask a person to do it",
} if {
	"write" in effects
	input.event.command.where == false
	reaches_rows
	not exempt("no-unbounded-write")
}

reaches_rows if {
	some r in resources
	r.kind in data.standard.tabular
}

reaches_rows if count(resources) == 0

# METADATA
# title: Nothing beyond the data
# description: Privileges, files of the server, processes, other hosts, server administration, and what nobody can tell.
# custom: {rule: no-privilege, no-file, no-process, no-network, no-admin, no-unknown}
deny contains {
	"rule": rule,
	"reason": refusal.reason,
	"hint": refusal.hint,
} if {
	some effect, refusal in data.standard.refuse
	effect in effects
	rule := sprintf("no-%s", [effect])
	not exempt(rule)
}

# METADATA
# title: Personal data is masked
# description: By the column's name, wherever the target says the value comes from. Some groups see it in clear.
mask contains {
	"column": m.column,
	"with": m.with,
	"rule": "personal-data",
} if {
	some m in data.standard.masks
	not sees_clear
}

sees_clear if {
	some group in input.identity.groups
	group in data.standard.clear_groups
}

# METADATA
# title: No answer without an end
limit contains {"rows": data.standard.rows, "rule": "rows"} if input.event.kind == "command"

# exempt reports whether one of the identity's groups may do what a rule refuses.
exempt(rule) if {
	some group in input.identity.groups
	group in data.standard.exempt[rule]
}
