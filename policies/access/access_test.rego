package weir.access_test

import data.weir.access

question(groups, kind, name, labels) := {
	"event": {"kind": "open"},
	"identity": {"subject": "x", "groups": groups, "kind": kind},
	"target": {"name": name, "labels": labels},
}

test_by_name if access.allow with input as question(["analysts"], "human", "orders", {})

test_by_star if access.allow with input as question(["dba"], "human", "anything", {})

test_by_label if access.allow with input as question(["agents"], "agent", "x", {"risk": "low"})

test_not_another_target if not access.allow with input as question(["analysts"], "human", "billing", {})

test_not_another_label if not access.allow with input as question(["agents"], "agent", "x", {"risk": "high"})

test_not_without_groups if not access.allow with input as question([], "human", "orders", {})

test_people_only if {
	some d in access.deny with input as question(["dba"], "agent", "x", {"people-only": "true"})
	d.rule == "people-only"
}

test_people_only_lets_people_in if {
	count(access.deny) == 0 with input as question(["dba"], "human", "x", {"people-only": "true"})
}
