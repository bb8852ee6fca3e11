package weir.guardrails_test

import data.weir.guardrails

ask(action, effects, where, resources) := {
	"event": {"kind": "command", "command": {"action": action, "effects": effects, "where": where, "resources": resources, "status": "known"}},
	"identity": {"subject": "loop", "groups": ["agents"], "kind": "agent"},
	"target": {"name": "t", "protocol": "any", "labels": {}},
}

table(uses) := [object.union({"kind": "table", "name": "s.people", "use": ["read"], "columns": ["id", "email"]}, uses)]

rules(question) := {d.rule | some d in guardrails.deny with input as question}

test_reading_passes if rules(ask("select", ["read"], true, table({}))) == set()

test_bounded_write_passes if rules(ask("update", ["write"], true, table({"indirect": ["id"]}))) == set()

test_transactions_pass if rules(ask("transaction", ["session"], true, [])) == set()

test_unbounded_write if rules(ask("delete", ["write"], false, table({}))) == {"no-unbounded-write"}

test_ddl if rules(ask("create table", ["ddl"], true, [])) == {"no-ddl"}

test_every_refused_effect if {
	every effect in ["privilege", "file", "process", "network", "admin"] {
		rules(ask("x", ["read", effect], true, [])) == {sprintf("no-%s", [effect])}
	}
}

test_incomplete if {
	question := object.union(ask("do", ["unknown"], true, []), {"event": {"command": {"status": "incomplete"}}})
	rules(question) == {"incomplete", "no-unknown"}
}

test_unknown_without_a_function if rules(ask("x", ["unknown"], true, [])) == {"no-unknown"}

stranger := [{"kind": "function", "name": "shop.total", "use": ["call", "unknown"]}]

test_functions_are_listed if rules(ask("select", ["read", "unknown"], true, stranger)) == {"no-unknown", "function-not-listed"}

test_a_listed_function_passes if {
	rules(ask("select", ["read", "unknown"], true, stranger)) == set() with data.strict.functions as ["shop.total"]
}

test_one_of_two_is_listed if {
	two := array.concat(stranger, [{"kind": "operator", "name": "@@@@", "use": ["call", "unknown"]}])
	rules(ask("select", ["read", "unknown"], true, two)) == {"no-unknown", "function-not-listed"} with data.strict.functions as ["shop.total"]
}

test_closed_functions if {
	every name in ["pg_catalog.set_config", "pg_catalog.pg_notify", "pg_catalog.lo_get", "pg_catalog.loread", "pg_catalog.pg_advisory_lock", "pg_catalog.setval"] {
		rules(ask("select", ["read"], true, [{"kind": "function", "name": name, "use": ["call"]}])) == {"function-closed"}
	}
}

test_other_functions_pass if {
	every name in ["pg_catalog.lower", "pg_catalog.lower_inc", "pg_catalog.nextval", "pg_catalog.now"] {
		rules(ask("select", ["read"], true, [{"kind": "function", "name": name, "use": ["call"]}])) == set()
	}
}

test_channels if {
	rules(ask("listen", ["session"], true, [])) == {"no-channels"}
	rules(ask("multiple", ["session"], true, [{"kind": "channel", "name": "c", "use": ["notify"]}])) == {"no-channels"}
}

test_locks if rules(ask("lock", ["session"], true, table({"use": ["lock"]}))) == {"no-lock"}

test_settings if {
	rules(ask("set", ["session"], true, [{"kind": "setting", "name": "TimeZone", "use": ["write"]}])) == set()
	rules(ask("set", ["session"], true, [{"kind": "setting", "name": "row_security", "use": ["write"]}])) == {"setting-not-listed"}
	rules(ask("set", ["session"], true, [{"kind": "setting", "name": "", "use": ["write"]}])) == {"setting-not-listed"}
}

test_a_list_is_missing if {
	every list in ["tabular", "masks", "closed_functions", "refuse"] {
		"lists-missing" in rules(ask("select", ["read"], true, table({}))) with data.strict as object.remove(data.strict, [list])
	}
}

test_verbose_settings if {
	verbose := [{"kind": "setting", "name": "client_min_messages", "use": ["write", "verbose"]}]
	rules(ask("set", ["session"], true, verbose)) == {"setting-verbose"}
	rules(ask("set", ["session"], true, [{"kind": "setting", "name": "client_min_messages", "use": ["write"]}])) == set()
	rules(ask("set", ["session"], true, verbose)) == set() with data.strict.exempt as {"setting-verbose": ["agents"]}
}

test_masked_uses if {
	every how in ["indirect", "copied", "transformed"] {
		rules(ask("select", ["read"], true, table({how: ["email"]}))) == {sprintf("masked-%s", [how])}
		rules(ask("select", ["read"], true, table({how: ["EMAIL"]}))) == {sprintf("masked-%s", [how])}
		rules(ask("select", ["read"], true, table({how: ["*"]}))) == {sprintf("masked-%s", [how])}
		rules(ask("select", ["read"], true, table({how: ["id", "emails", "mail"]}))) == set()
	}
}

test_masks_with_tables if {
	every pattern, want in {"people.email": 1, "s.people.email": 1, "other.email": 0, "x.people.email": 0, "eople.email": 0, "db.s.people.email": 1} {
		masks := [{"column": pattern, "with": "redact"}]
		count(rules(ask("select", ["read"], true, table({"indirect": ["email"]})))) == want with data.strict.masks as masks
		count(rules(ask("select", ["read"], true, table({"indirect": ["*"]})))) == want with data.strict.masks as masks
	}
}

test_any_column_of_any_table if {
	masks := [{"column": "other.email", "with": "redact"}]
	rules(ask("select", ["read"], true, table({"copied": ["*.*"]}))) == {"masked-copied"} with data.strict.masks as masks
}

test_who_sees_clear_may_use_them if {
	rules(ask("select", ["read"], true, table({"indirect": ["email"]}))) == set() with data.strict.clear_groups as ["agents"]
}

test_the_exempt_pass if {
	rules(ask("create table", ["ddl"], true, [])) == set() with data.strict.exempt as {"no-ddl": ["agents"]}
	rules(ask("select", ["read"], true, table({"indirect": ["email"]}))) == set() with data.strict.exempt as {"masked-indirect": ["agents"]}
}

test_every_refusal_says_why_and_what_instead if {
	everything := array.concat(table({"indirect": ["email"], "copied": ["email"], "transformed": ["email"], "use": ["lock"]}), stranger)
	denials := guardrails.deny with input as ask("listen", ["ddl", "file", "write", "admin", "unknown"], false, everything)
	count(denials) == 11
	every d in denials {
		d.reason != ""
		d.hint != ""
	}
}

test_masks if {
	masks := guardrails.mask with input as ask("select", ["read"], true, [])
	{"column": "email", "with": "partial", "rule": "personal-data"} in masks
}

test_masks_at_columns_too if {
	question := object.union(ask("select", ["read"], true, []), {"event": {"kind": "columns", "columns": [{"name": "ssn", "type": "text"}]}})
	count(guardrails.mask) > 10 with input as question
}

test_answers_are_limited if {
	guardrails.limit == {{"rows": 10000, "time": "30s", "rule": "bounds"}} with input as ask("select", ["read"], true, [])
}
