package weir.guardrails_test

import data.weir.guardrails

ask(effects, where, resources) := {
	"event": {"kind": "command", "command": {"action": "x", "effects": effects, "where": where, "resources": resources}},
	"identity": {"subject": "loop", "groups": ["agents"], "kind": "agent"},
	"target": {"name": "t", "protocol": "any", "labels": {}},
}

table := [{"kind": "table", "name": "s.t", "use": ["write"]}]

rules(question) := {d.rule | some d in guardrails.deny with input as question}

test_reading_passes if rules(ask(["read"], true, table)) == set()

test_session_settings_pass if rules(ask(["session"], true, [])) == set()

test_bounded_write_passes if rules(ask(["read", "write"], true, table)) == set()

test_unbounded_write if rules(ask(["write"], false, table)) == {"no-unbounded-write"}

test_unbounded_write_of_a_collection if {
	rules(ask(["write"], false, [{"kind": "collection", "name": "c", "use": ["write"]}])) == {"no-unbounded-write"}
}

test_unbounded_write_of_who_knows_what if rules(ask(["write"], false, [])) == {"no-unbounded-write"}

test_a_written_path_has_no_rows if rules(ask(["write"], false, [{"kind": "path", "name": "/x", "use": ["write"]}])) == set()

test_reading_without_condition_passes if rules(ask(["read"], false, table)) == set()

test_ddl if rules(ask(["ddl"], true, table)) == {"no-ddl"}

test_every_refused_effect if {
	every effect in ["privilege", "file", "process", "network", "admin", "unknown"] {
		rules(ask(["read", effect], true, [])) == {sprintf("no-%s", [effect])}
	}
}

test_several_at_once if rules(ask(["ddl", "file", "write"], false, table)) == {"no-ddl", "no-file", "no-unbounded-write"}

test_the_exempt_pass if {
	rules(ask(["ddl"], true, table)) == set() with data.standard.exempt as {"no-ddl": ["agents"]}
}

test_every_refusal_says_why_and_what_instead if {
	denials := guardrails.deny with input as ask(["ddl", "file", "write", "admin"], false, table)
	count(denials) == 4
	every d in denials {
		d.reason != ""
		d.hint != ""
	}
}

test_masks if {
	masks := guardrails.mask with input as ask(["read"], true, table)
	{"column": "email", "with": "partial", "rule": "personal-data"} in masks
	{"column": "ssn", "with": "redact", "rule": "personal-data"} in masks
}

test_masks_at_columns_too if {
	question := object.union(ask(["read"], true, table), {"event": {"kind": "columns", "columns": [{"name": "ssn", "type": "text"}]}})
	count(guardrails.mask) > 10 with input as question
}

test_some_groups_see_clear if {
	count(guardrails.mask) == 0 with input as ask(["read"], true, table) with data.standard.clear_groups as ["agents"]
}

test_rows_are_limited if guardrails.limit == {{"rows": 100000, "rule": "rows"}} with input as ask(["read"], true, table)
