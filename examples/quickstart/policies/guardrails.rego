# METADATA
# title: What may be done, and what is hidden
# description: Asked for each command, and again when the columns of an answer are known.
package weir.guardrails

command := input.event.command

# A refusal names its rule, says why, and tells the client what it can do instead.
deny contains {
	"rule": "no-ddl",
	"reason": "schema changes go through migrations",
	"hint": "write a migration and have it reviewed",
} if {
	"ddl" in command.effects
}

deny contains {
	"rule": "no-unbounded-write",
	"reason": "this changes every row of a table",
	"hint": "add a WHERE that names the rows",
} if {
	"write" in command.effects
	not command.where
}

# Support sees addresses in clear; nobody else does.
mask contains {"column": "email", "with": "partial"} if {
	not "support" in input.identity.groups
}

# No answer without an end.
limit contains {"rows": 10000} if input.event.kind == "command"
