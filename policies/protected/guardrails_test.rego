package weir.guardrails_test

import data.weir.guardrails

asked(name, use, groups) := {
	"event": {"kind": "command", "command": {"status": "known", "resources": [{"kind": "table", "name": name, "use": [use]}]}},
	"identity": {"groups": groups},
}

test_reading_secrets if {
	some d in guardrails.deny with input as asked("public.secrets", "read", ["agents"])
	d.rule == "protected"
	d.reason == "public.secrets is protected against read"
}

test_in_capitals if {
	some d in guardrails.deny with input as asked("public.SECRETS", "read", ["agents"])
	d.rule == "protected"
}

test_without_its_schema if {
	some d in guardrails.deny with input as asked("secrets", "read", ["agents"])
	d.rule == "protected"
}

test_another_without_its_schema if count(guardrails.deny) == 0 with input as asked("recipes", "read", ["agents"])

test_those_who_may if count(guardrails.deny) == 0 with input as asked("public.secrets", "read", ["security"])

test_other_tables if count(guardrails.deny) == 0 with input as asked("public.orders", "write", ["agents"])

test_a_name_that_only_begins_so if count(guardrails.deny) == 0 with input as asked("public.secrets_of_cooking", "read", ["agents"])

test_writing_the_audit if {
	some d in guardrails.deny with input as asked("audit.events", "write", ["security"])
	d.hint == "nobody changes the audit's tables"
}

test_reading_the_audit if count(guardrails.deny) == 0 with input as asked("audit.events", "read", ["agents"])

test_what_cannot_be_read if {
	some d in guardrails.deny with input as {"event": {"kind": "command", "command": {"status": "incomplete", "resources": []}}, "identity": {"groups": []}}
	d.rule == "protected-unreadable"
}
