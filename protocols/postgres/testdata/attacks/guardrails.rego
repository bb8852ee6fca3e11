# METADATA
# title: What the attack tests are refused by
# description: >
#   A loop may read, insert and change single rows in schema s; it may not remove anything, run code that cannot be
#   seen, or reach beyond the data, and it never sees the columns email and ssn of s.
package weir.guardrails

command := input.event.command

effects := {e | some e in command.effects}

resources := object.get(command, "resources", [])

deny contains {"rule": "no-delete", "reason": "rows of s are not removed", "hint": "mark them instead"} if {
	some r in resources
	r.kind == "table"
	startswith(lower(r.name), "s.")
	some use in r.use
	use in {"delete", "truncate"}
}

deny contains {"rule": "no-unbounded-write", "reason": "a write must say which rows", "hint": "add a WHERE"} if {
	"write" in effects
	command.where == false
}

deny contains {"rule": sprintf("no-%s", [effect]), "reason": "this reaches beyond the data", "hint": "ask a person"} if {
	some effect in {"ddl", "privilege", "file", "process", "network", "admin", "unknown"}
	effect in effects
}

deny contains {"rule": "no-setting", "reason": "this setting is not for loops", "hint": "leave it as it is"} if {
	some r in resources
	r.kind == "setting"
	not r.name in data.attacks.settings
}

deny contains {"rule": "no-lock", "reason": "a lock keeps others out", "hint": "change single rows"} if {
	some r in resources
	"lock" in r.use
}

deny contains {"rule": "no-channel", "reason": "channels go past the rules", "hint": "poll a table"} if {
	some r in resources
	r.kind == "channel"
}

deny contains {"rule": "no-such-function", "reason": "this function goes past the rules", "hint": "use a table"} if {
	some r in resources
	r.kind == "function"
	some pattern in data.attacks.functions
	glob.match(pattern, [], r.name)
}

# What decides about an answer, or goes somewhere else, is told as well as what is shown.
deny contains {"rule": "no-inference", "reason": "a masked column decides about the answer", "hint": "leave it out of the condition"} if {
	some r in resources
	r.kind == "table"
	some column in array.concat(object.get(r, "indirect", []), object.get(r, "copied", []))
	some mask_name in data.attacks.masks
	hides(mask_name, r.name, column)
}

hides(mask_name, table, column) if mask_name == sprintf("%s.%s", [table, column])

hides(mask_name, table, "*") if startswith(mask_name, sprintf("%s.", [table]))

mask contains {"column": column, "with": "redact", "rule": "personal-data"} if some column in data.attacks.masks

limit contains {"rows": 50000, "rule": "rows"} if input.event.kind == "command"
