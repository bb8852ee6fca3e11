# METADATA
# title: Read only
# description: >
#   Commands may read, and may change what belongs to their own session, such as settings and transactions. Everything
#   else is refused, whatever the other policies of the chain say. Groups in data.yaml are exempt.
package weir.guardrails

# METADATA
# title: Nothing but reading
# description: An effect that nobody can tell counts as one that changes something.
# custom: {rule: read-only}
deny contains {
	"rule": "read-only",
	"reason": sprintf("this does more than read: %s", [concat(", ", beyond)]),
	"hint": "ask for the same with a command that only reads",
} if {
	input.event.kind == "command"
	count(beyond) > 0
	not exempt
}

beyond := {e | some e in input.event.command.effects; not e in {"read", "session"}}

exempt if {
	some group in input.identity.groups
	group in data.read_only.exempt_groups
}
