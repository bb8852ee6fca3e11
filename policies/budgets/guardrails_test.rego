package weir.guardrails_test

import data.weir.guardrails

small := {
	"session": {"agent": {"commands": 3, "rows": 10, "bytes": 100}},
	"run": {"agent": {"commands": 5, "rows": 20, "bytes": 200}},
}

asked(kind, effect, session) := {
	"event": {"kind": "command", "command": {"effects": [effect]}},
	"identity": {"kind": kind},
	"session": object.union({"commands": 0, "rows": 0, "bytes_to_client": 0}, session),
}

of_run(run, ask) := object.union(ask, {"run": object.union({"id": "r", "commands": 0, "rows": 0, "bytes_to_client": 0}, run)})

rules contains d.rule if some d in guardrails.deny

test_within if count(rules) == 0 with input as asked("agent", "read", {"commands": 2, "rows": 9, "bytes_to_client": 99}) with data.budgets as small

test_commands_used_up if rules == {"budget-commands"} with input as asked("agent", "write", {"commands": 3}) with data.budgets as small

test_rows_used_up if rules == {"budget-rows"} with input as asked("agent", "read", {"rows": 10}) with data.budgets as small

test_bytes_used_up if rules == {"budget-bytes"} with input as asked("agent", "read", {"bytes_to_client": 100}) with data.budgets as small

test_writing_without_rows if count(rules) == 0 with input as asked("agent", "write", {"rows": 10, "bytes_to_client": 100}) with data.budgets as small

test_what_is_left if {
	limits := {l | some l in guardrails.limit} with input as of_run({"rows": 15}, asked("agent", "read", {"rows": 4})) with data.budgets as small
	limits == {
		{"rows": 6, "rule": "budget-rows"}, {"rows": 5, "rule": "budget-run-rows"},
		{"bytes": 100, "rule": "budget-bytes"}, {"bytes": 200, "rule": "budget-run-bytes"},
	}
}

test_a_change_may_give_back_one_row if {
	limits := {l | some l in guardrails.limit; l.rows} with input as of_run({"rows": 20}, asked("agent", "write", {"rows": 10})) with data.budgets as small
	limits == {{"rows": 1, "rule": "budget-rows"}, {"rows": 1, "rule": "budget-run-rows"}}
}

test_a_run_within if count(rules) == 0 with input as of_run({"commands": 4, "rows": 19, "bytes_to_client": 199}, asked("agent", "read", {})) with data.budgets as small

test_commands_of_a_run if rules == {"budget-run-commands"} with input as of_run({"commands": 5}, asked("agent", "write", {})) with data.budgets as small

test_rows_of_a_run if rules == {"budget-run-rows"} with input as of_run({"rows": 20}, asked("agent", "read", {})) with data.budgets as small

test_bytes_of_a_run if rules == {"budget-run-bytes"} with input as of_run({"bytes_to_client": 200}, asked("agent", "read", {})) with data.budgets as small

test_no_bound_where_none_is_written if count(rules) == 0 with input as asked("agent", "read", {"bytes_to_client": 1000000000000}) with data.budgets as {"session": {"agent": {"rows": 10}}}

test_nobody_without_a_budget if rules == {"budget-missing"} with input as asked("robot", "read", {}) with data.budgets as small

test_no_run_without_one if rules == {"budget-missing"} with input as of_run({}, asked("agent", "read", {})) with data.budgets as {"session": small.session}

test_shipped_for_each_kind if {
	every kind in ["agent", "service", "human"] {
		count(rules) == 0 with input as of_run({}, asked(kind, "read", {}))
	}
}
