package weir.guardrails_test

import data.weir.guardrails
import rego.v1

command(effects, where) := {
	"event": {"kind": "command", "command": {"effects": effects, "where": where}},
	"identity": {"groups": ["agents"]},
}

rules(effects, where) := found if {
	found := {d.rule | some d in guardrails.deny} with input as command(effects, where)
}

test_reads_pass if rules(["read"], true) == set()

test_ddl_is_refused if rules(["ddl"], true) == {"no-ddl"}

test_a_write_needs_a_where if rules(["write"], false) == {"no-unbounded-write"}

test_a_write_with_where_passes if rules(["write"], true) == set()

test_support_sees_addresses if {
	not {"column": "email", "with": "partial"} in guardrails.mask with input as object.union(command(["read"], true), {"identity": {"groups": ["support"]}})
}
