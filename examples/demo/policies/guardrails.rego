# METADATA
# title: The demo's guardrails
# description: What the agents of the demo may do with the orders database.
package weir.guardrails

import rego.v1

command := input.event.command

deny contains {
	"rule": "no-ddl",
	"reason": "schema changes go through migrations",
	"hint": "open a migration for the platform team instead",
} if {
	"ddl" in command.effects
}

deny contains {
	"rule": "no-unbounded-write",
	"reason": "a write has to say which rows it changes",
	"hint": "add a WHERE that names the rows",
} if {
	"write" in command.effects
	not command.where
}

mask contains {"column": column, "with": "partial"} if {
	some column in {"email", "phone"}
	not "support" in input.identity.groups
}

mask contains {"column": "api_key", "with": "redact"}
