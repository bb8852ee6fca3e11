package weir.guardrails_test

import data.weir.guardrails

small := {"agent": {"commands": 3, "rows": 10}}

asked(kind, commands, rows, effect) := {
	"event": {"kind": "command", "command": {"effects": [effect]}},
	"identity": {"kind": kind},
	"session": {"commands": commands, "rows": rows},
}

rules contains d.rule if some d in guardrails.deny

test_within if count(rules) == 0 with input as asked("agent", 2, 9, "read") with data.budgets as small

test_commands_used_up if rules == {"budget-commands"} with input as asked("agent", 3, 0, "write") with data.budgets as small

test_rows_used_up if rules == {"budget-rows"} with input as asked("agent", 1, 10, "read") with data.budgets as small

test_writing_without_rows if count(rules) == 0 with input as asked("agent", 1, 10, "write") with data.budgets as small

test_what_is_left if {
	some l in guardrails.limit with input as asked("agent", 1, 4, "read") with data.budgets as small
	l.rows == 6
}

test_nobody_without_a_budget if rules == {"budget-missing"} with input as asked("robot", 0, 0, "read") with data.budgets as small

test_shipped_for_each_kind if {
	every kind in ["agent", "service", "human"] {
		count(rules) == 0 with input as asked(kind, 0, 0, "read")
	}
}
