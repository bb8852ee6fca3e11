package weir.guardrails_test

import data.weir.guardrails

asked(effects) := {"event": {"kind": "command", "command": {"effects": effects}}, "identity": {"groups": ["agents"]}}

test_reading_passes if count(guardrails.deny) == 0 with input as asked(["read"])

test_own_session_passes if count(guardrails.deny) == 0 with input as asked(["session", "read"])

test_each_other_effect_is_refused if {
	every effect in ["write", "ddl", "privilege", "file", "process", "network", "admin", "unknown"] {
		some d in guardrails.deny with input as asked(["read", effect])
		d.rule == "read-only"
	}
}

test_the_reason_names_them if {
	some d in guardrails.deny with input as asked(["ddl", "write"])
	d.reason == "this does more than read: ddl, write"
}

test_exempt_groups_write if {
	count(guardrails.deny) == 0 with input as asked(["write"]) with data.read_only.exempt_groups as ["agents"]
}

test_answers_are_not_judged if {
	count(guardrails.deny) == 0 with input as object.union(asked(["write"]), {"event": {"kind": "columns"}})
}
