# METADATA
# title: The house rules of the attack tests
# description: >
#   Strict refuses what nobody should do, and lets a loop change and remove single rows. Here no row of schema s is removed:
#   a rule that an operator writes beside the profile, and that has to hold however the statement names its table.
package weir.guardrails

deny contains {"rule": "no-delete", "reason": "rows of s are not removed", "hint": "mark them instead"} if {
	some r in input.event.command.resources
	r.kind == "table"
	startswith(lower(r.name), "s.")
	some use in r.use
	use in {"delete", "truncate"}
}
