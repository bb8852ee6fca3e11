package weir.guardrails_test

import data.weir.guardrails

ask(effects, where, groups) := {
	"event": {"kind": "command", "command": {"effects": effects, "where": where}},
	"identity": {"groups": groups},
}

rules(effects, where) := {d.rule | some d in guardrails.deny with input as ask(effects, where, ["analysts"])}

test_reading_passes if rules(["read"], true) == set()

test_a_write_with_a_condition_passes if rules(["write"], true) == set()

test_a_write_without_one_does_not if rules(["write"], false) == {"no-unbounded-write"}

test_schema_changes_do_not if rules(["ddl"], true) == {"no-ddl"}

email := {"column": "email", "with": "partial"}

test_email_is_masked if email in guardrails.mask with input as ask(["read"], true, ["analysts"])

test_support_sees_it if not email in guardrails.mask with input as ask(["read"], true, ["analysts", "support"])

test_answers_are_bounded if guardrails.limit == {{"rows": 10000}} with input as ask(["read"], true, [])
