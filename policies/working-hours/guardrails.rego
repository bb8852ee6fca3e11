# METADATA
# title: Working hours
# description: >
#   Changes pass in working hours only, by the clock of the place in data.yaml. Reading passes at any time. It is asked
#   for each command: a session that was opened in time does not go on in the night.
package weir.guardrails

# METADATA
# title: No changes outside working hours
# custom: {rule: working-hours}
deny contains {
	"rule": "working-hours",
	"reason": sprintf("changes are made on %s from %s to %s (%s)", [concat(", ", hours.days), hours.from, hours.to, hours.zone]),
	"hint": "come back then, or ask somebody who is on call",
} if {
	input.event.kind == "command"
	some effect in input.event.command.effects
	effect in hours.effects
	not now_is_in_hours
	not on_call
}

hours := data.working_hours

now := time.parse_rfc3339_ns(input.time)

now_is_in_hours if {
	time.weekday([now, hours.zone]) in hours.days
	[hour, minute, _] := time.clock([now, hours.zone])
	clock := sprintf("%02d:%02d", [hour, minute])
	clock >= hours.from
	clock < hours.to
}

on_call if {
	some group in input.identity.groups
	group in hours.on_call
}
