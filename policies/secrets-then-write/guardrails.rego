# METADATA
# title: No write after reading a secret
# description: >
#   Once a session has read a table that data.yaml lists, it changes nothing any more, and neither do the other sessions
#   of its run at this gateway: what was read has nowhere to go. A command that does both at once is refused, too. Where
#   it cannot be told what was read, a write is refused.
package weir.guardrails

# METADATA
# title: A secret table was read before, or is read by the same command
# description: In this session, in another one of its run, or here.
# custom: {rule: secrets-then-write}
deny contains {
	"rule": "secrets-then-write",
	"reason": sprintf("%s was read, and nothing is changed after that", [min(secrets)]),
	"hint": "write in a session and a run that have not read it, or ask the security team",
} if {
	changes
	count(secrets) > 0
}

# METADATA
# title: It cannot be told what was read before
# description: >
#   A command passed that cannot be read for certain or called a function that nobody knows, there were too many
#   tables, or nobody kept account from the beginning.
# custom: {rule: secrets-then-write-unknown}
deny contains {
	"rule": "secrets-then-write-unknown",
	"reason": "it cannot be told which tables were read before, so nothing is changed",
	"hint": "write in a new session, and a new run, before anything that Weir cannot read for certain",
} if {
	changes
	unknown
}

# What changes something, or may: each effect but reading and settings of the session. Its answer is not asked about:
# what was read then has it among it.
changes if {
	input.event.kind == "command"
	some effect in input.event.command.effects
	not effect in {"read", "session"}
	not exempt
}

changes if {
	input.event.kind == "command"
	input.event.command.status == "incomplete"
	not exempt
}

exempt if {
	some group in input.identity.groups
	group in data.secrets_then_write.groups
}

secrets contains name if {
	some name in input.session.tables_read
	secret(name)
}

secrets contains table.name if {
	some table in input.run.tables_read
	secret(table.name)
}

secrets contains resource.name if {
	some resource in input.event.command.resources
	resource.kind == "table"
	not resource.use == ["write", "insert"] # filling it in tells nothing of it
	secret(resource.name)
}

secret(name) if {
	some pattern in data.secrets_then_write.tables
	glob.match(pattern, ["."], lower(name))
}

# A name without a schema may be of any.
secret(name) if {
	not contains(name, ".")
	some pattern in data.secrets_then_write.tables
	parts := split(pattern, ".")
	glob.match(parts[count(parts) - 1], ["."], lower(name))
}

unknown if not known

known if {
	input.session.tables_complete
	known_of_run
}

known_of_run if input.run.tables_complete

known_of_run if not input.run.id # the token was made for no run

# Without its lists it would protect nothing.
unknown if not data.secrets_then_write.tables
