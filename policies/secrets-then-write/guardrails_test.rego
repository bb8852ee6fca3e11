package weir.guardrails_test

import data.weir.guardrails

asked(effects, read) := {
	"event": {"kind": "command", "command": {"status": "known", "effects": effects, "resources": []}},
	"identity": {"groups": ["agents"]},
	"session": {"tables_read": read, "tables_complete": true},
}

of_run(effects, read) := object.union(asked(effects, []), {"run": {"id": "r", "tables_read": [{"target": "vault", "name": read}], "tables_complete": true}})

by(groups, ask) := object.union(ask, {"identity": {"groups": groups}})

of(resource, ask) := object.union(ask, {"event": {"command": {"resources": [resource]}}})

rules contains d.rule if some d in guardrails.deny

test_nothing_read if count(rules) == 0 with input as asked(["write"], [])

test_other_tables_read if count(rules) == 0 with input as asked(["write"], ["public.orders", "public.secrets_of_cooking"])

test_a_secret_was_read if rules == {"secrets-then-write"} with input as asked(["read", "write"], ["public.orders", "public.secrets"])

test_it_is_named if {
	some d in guardrails.deny with input as asked(["write"], ["public.secrets"])
	d.reason == "public.secrets was read, and nothing is changed after that"
}

test_in_capitals if rules == {"secrets-then-write"} with input as asked(["write"], ["public.SECRETS"])

test_a_name_without_a_schema if rules == {"secrets-then-write"} with input as asked(["write"], ["api_keys"])

test_statistics_hold_values if {
	every name in ["pg_catalog.pg_stats", "pg_catalog.pg_statistic", "pg_stats", "pg_catalog.pg_stats_ext_exprs"] {
		rules == {"secrets-then-write"} with input as asked(["write"], [name])
	}
}

test_the_catalog_holds_none if count(rules) == 0 with input as asked(["write"], ["pg_catalog.pg_class", "pg_catalog.pg_stat_activity"])

test_its_own_answer if count(rules) == 0 with input as object.union(asked(["unknown"], ["public.secrets"]), {"event": {"kind": "columns"}})

test_a_name_without_a_schema_of_one if rules == {"secrets-then-write"} with input as asked(["write"], ["payroll"]) with data.secrets_then_write.tables as ["hr.payroll"]

test_reading_goes_on if count(rules) == 0 with input as asked(["read"], ["public.secrets"])

test_transactions_go_on if count(rules) == 0 with input as asked(["session"], ["public.secrets"])

test_every_change if {
	every effect in ["write", "ddl", "privilege", "file", "process", "network", "admin", "unknown"] {
		rules == {"secrets-then-write"} with input as asked([effect], ["public.secrets"])
	}
}

test_in_another_session_of_the_run if rules == {"secrets-then-write"} with input as of_run(["write"], "app.credentials")

test_other_tables_of_the_run if count(rules) == 0 with input as of_run(["write"], "app.orders")

test_by_the_same_command if rules == {"secrets-then-write"} with input as of({"kind": "table", "name": "public.secrets", "use": ["read"]}, asked(["read", "write"], []))

test_changed_by_what_it_holds if rules == {"secrets-then-write"} with input as of({"kind": "table", "name": "public.secrets", "use": ["write", "update"]}, asked(["write"], []))

test_filled_in if count(rules) == 0 with input as of({"kind": "table", "name": "public.secrets", "use": ["write", "insert"]}, asked(["write"], []))

test_nobody_kept_account if rules == {"secrets-then-write-unknown"} with input as object.union(asked(["write"], []), {"session": {"tables_complete": false}})

test_nor_of_the_run if rules == {"secrets-then-write-unknown"} with input as object.union(of_run(["write"], "t"), {"run": {"tables_complete": false}})

test_no_facts_at_all if rules == {"secrets-then-write-unknown"} with input as object.remove(asked(["write"], []), ["session"])

test_reading_when_in_doubt if count(rules) == 0 with input as object.union(asked(["read"], []), {"session": {"tables_complete": false}})

test_what_cannot_be_read if rules == {"secrets-then-write"} with input as object.union(asked(["read"], ["public.secrets"]), {"event": {"command": {"status": "incomplete"}}})

test_those_who_may if count(rules) == 0 with input as by(["security"], asked(["write"], ["public.secrets"]))

test_without_its_lists if rules == {"secrets-then-write-unknown"} with input as asked(["write"], []) with data.secrets_then_write as {"groups": []}
