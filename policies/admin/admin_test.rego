package weir.admin_test

import data.weir.admin

asks(groups, kind, action, changes, detail) := {
	"event": {"kind": "open", "admin": {"action": action, "object": "x", "operator": false, "changes": changes, "client": "127.0.0.1:5", "detail": detail}},
	"identity": {"subject": "ada", "issuer": "corp", "groups": groups, "kind": kind},
}

may(groups, action) if {
	admin.allow with input as asks(groups, "human", action, true, {})
	count(admin.deny) == 0 with input as asks(groups, "human", action, true, {})
}

test_viewers_look if {
	every action in ["status.show", "sessions.list", "sessions.show", "tokens.list", "holds.list", "locks.list"] {
		may(["weir-viewers"], action)
	}
}

test_viewers_change_nothing if {
	every action in ["sessions.end", "reload", "tokens.issue", "tokens.revoke", "tokens.restore", "holds.hold", "holds.release", "locks.release", "approvals.approve"] {
		not may(["weir-viewers"], action)
	}
}

test_approvers_answer if may(["dba"], "approvals.approve")

test_approvers_deny if may(["weir-approvers"], "approvals.deny")

test_approvers_end_no_session if not may(["weir-approvers"], "sessions.end")

test_operators_do_all if {
	every action in ["sessions.end", "reload", "tokens.issue", "holds.release", "what.comes"] {
		may(["weir-operators"], action)
	}
}

test_strangers_do_nothing if {
	every action in ["status.show", "sessions.list", "sessions.end", "reload", "approvals.approve"] {
		not may(["analysts"], action)
	}
}

test_strangers_see_their_approvals if may([], "approvals.list")

test_key if admin.allow with input as {"event": {"admin": {"action": "reload", "operator": true, "changes": true}}, "identity": {"groups": [], "kind": "human"}}

test_agents_change_nothing if {
	some d in admin.deny with input as asks(["weir-operators"], "agent", "sessions.end", true, {})
	d.rule == "agents-change-nothing"
}

test_agents_look if {
	count(admin.deny) == 0 with input as asks(["weir-operators"], "agent", "sessions.list", false, {})
}

test_no_groups_of_others if {
	some d in admin.deny with input as asks(["weir-operators"], "human", "tokens.issue", true, {"groups": ["dba"]})
	d.rule == "groups-of-your-own"
}

test_groups_of_your_own if {
	count(admin.deny) == 0 with input as asks(["weir-operators", "dba"], "human", "tokens.issue", true, {"groups": ["dba"]})
}

test_a_kind_of_actions if {
	admin.allow with input as asks(["ops"], "human", "sessions.end", true, {})
		with data.admin.roles as {"r": ["sessions.*"]}
		with data.admin.groups as {"r": ["ops"]}
}

test_not_another_kind if {
	not admin.allow with input as asks(["ops"], "human", "sessionsx.end", true, {})
		with data.admin.roles as {"r": ["sessions.*"]}
		with data.admin.groups as {"r": ["ops"]}
}
