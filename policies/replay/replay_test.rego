package weir.replay_test

import data.weir.replay

asks(groups, kind, recordings) := {
	"event": {"kind": "open", "admin": {
		"action": "recordings.read", "object": "x", "operator": false, "changes": true, "client": "127.0.0.1:5",
		"detail": {"how": "show", "recordings": recordings},
	}},
	"identity": {"subject": "ada", "issuer": "corp", "groups": groups, "kind": kind},
}

of(target) := [{"session": "s", "identity": "bob", "target": target, "protocol": "postgres", "run": ""}]

test_readers_read if {
	i := asks(["auditors"], "human", of("orders"))
	replay.allow with input as i
	count(replay.deny) == 0 with input as i
}

test_others_do_not if not replay.allow with input as asks(["staff"], "human", of("orders"))

test_the_key_reads if {
	i := json.patch(asks([], "service", of("orders")), [{"op": "replace", "path": "/event/admin/operator", "value": true}])
	replay.allow with input as i
	count(replay.deny) == 0 with input as i with data.replay.restricted as {"orders": ["payroll-auditors"]}
}

test_restricted if {
	r := {"payroll": ["payroll-auditors"]}
	some d in replay.deny with input as asks(["auditors"], "human", of("payroll")) with data.replay.restricted as r
	d.rule == "restricted-recordings"
	count(replay.deny) == 0 with input as asks(["auditors", "payroll-auditors"], "human", of("payroll")) with data.replay.restricted as r
	count(replay.deny) == 0 with input as asks(["auditors"], "human", of("orders")) with data.replay.restricted as r
}

test_one_of_several_is_enough_to_refuse if {
	both := array.concat(of("orders"), of("payroll"))
	count(replay.deny) == 1 with input as asks(["auditors"], "human", both) with data.replay.restricted as {"payroll": ["payroll-auditors"]}
}

test_unnamed if {
	i := json.remove(asks(["auditors"], "human", []), ["/event/admin/detail/recordings"])
	some d in replay.deny with input as i with data.replay.restricted as {"payroll": ["payroll-auditors"]}
	d.rule == "recordings-unnamed"
	count(replay.deny) == 0 with input as i with data.replay.restricted as {}
}

test_agents_do_not if {
	some d in replay.deny with input as asks(["auditors"], "agent", of("orders"))
	d.rule == "agents-read-nothing"
}
