package weir.guardrails_test

import data.weir.guardrails

asked(action, effects, where, resources) := {
	"event": {"kind": "command", "command": {"action": action, "effects": effects, "where": where, "resources": resources}},
	"identity": {"groups": ["agents"]},
	"session": {"run": "run-7"},
}

table(name, use) := {"kind": "table", "name": name, "use": use}

one_row := asked("delete", ["write"], true, [table("public.orders", ["write", "delete"])])

every_row := asked("delete", ["write"], false, [table("public.orders", ["write", "delete"])])

from_another := asked("insert", ["read", "write"], true, [table("public.orders", ["write", "insert"]), table("public.old", ["read"])])

from_the_client := asked("copy", ["write"], true, [table("public.orders", ["write", "insert"])])

schema := asked("drop", ["ddl"], true, [table("public.orders", ["drop"])])

rules contains h.rule if some h in guardrails.hold

test_one_row_passes if count(rules) == 0 with input as one_row

test_reading_passes if count(rules) == 0 with input as asked("select", ["read"], true, [table("public.orders", ["read"])])

test_copy_to_the_client_passes if count(rules) == 0 with input as asked("copy", ["read"], true, [table("public.orders", ["read"])])

test_every_row_waits if rules == {"risky-unbounded"} with input as every_row

test_from_another_table_waits if rules == {"risky-bulk"} with input as from_another

test_copy_from_the_client_waits if rules == {"risky-bulk"} with input as from_the_client

test_schema_changes_wait if rules == {"risky-effect"} with input as schema

test_listed_tables_wait if rules == {"risky-table"} with input as one_row with data.risky_writes.tables as ["public.*"]

test_other_tables_do_not if count(rules) == 0 with input as one_row with data.risky_writes.tables as ["billing.*"]

test_each_has_approvers if {
	every i in [every_row, from_another, schema] {
		{["boss"]} == {h.approvers | some h in guardrails.hold} with input as i with data.risky_writes.approvers as ["boss"]
	}
}

test_an_approved_run_goes_on if {
	every i in [every_row, from_another, from_the_client, schema] {
		count(rules) == 0 with input as i with data.risky_writes.runs as ["run-7"]
	}
}

test_another_run_does_not if count(rules) == 1 with input as every_row with data.risky_writes.runs as ["run-8"]

test_no_run_is_no_approved_run if {
	count(rules) == 1 with input as object.union(every_row, {"session": {"run": ""}}) with data.risky_writes.runs as ["run-7"]
}

test_exempt_groups_go_on if count(rules) == 0 with input as every_row with data.risky_writes.groups as ["agents"]

test_answers_do_not_wait if count(rules) == 0 with input as object.union(every_row, {"event": {"kind": "columns"}})
