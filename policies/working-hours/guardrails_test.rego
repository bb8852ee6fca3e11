package weir.guardrails_test

import data.weir.guardrails

asked(effect, at, groups) := {
	"event": {"kind": "command", "command": {"effects": [effect]}},
	"identity": {"groups": groups},
	"time": at,
}

# 2026-11-23 is a Monday; Lisbon is on UTC then. 2026-07-06 is a Monday, and Lisbon an hour ahead.

test_in_hours if count(guardrails.deny) == 0 with input as asked("write", "2026-11-23T10:00:00Z", ["agents"])

test_at_night if {
	some d in guardrails.deny with input as asked("write", "2026-11-23T23:10:00Z", ["agents"])
	d.rule == "working-hours"
}

test_first_minute if count(guardrails.deny) == 0 with input as asked("write", "2026-11-23T08:00:00Z", [])

test_last_minute if count(guardrails.deny) == 0 with input as asked("write", "2026-11-23T18:59:59Z", [])

test_the_minute_after if count(guardrails.deny) == 1 with input as asked("write", "2026-11-23T19:00:00Z", [])

test_summer_time if count(guardrails.deny) == 0 with input as asked("write", "2026-07-06T07:30:00Z", [])

test_sunday if count(guardrails.deny) == 1 with input as asked("write", "2026-11-22T10:00:00Z", [])

test_reading_at_night if count(guardrails.deny) == 0 with input as asked("read", "2026-11-23T23:10:00Z", [])

test_on_call if count(guardrails.deny) == 0 with input as asked("write", "2026-11-23T23:10:00Z", ["on-call"])

test_no_days_no_hours if {
	count(guardrails.deny) == 1 with input as asked("write", "2026-11-23T10:00:00Z", []) with data.working_hours.days as []
}
