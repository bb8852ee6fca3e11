package weir.commands_test

import data.weir.guardrails

run(program) := {
	"event": {"kind": "command", "command": {"action": program, "resources": [{"kind": "program", "name": program, "use": ["run"]}]}},
	"identity": {"groups": ["agents"]},
}

test_rm_is_refused if count(guardrails.deny) == 1 with input as run("rm")

test_ls_is_not if count(guardrails.deny) == 0 with input as run("ls")

test_mounts_are_held if count(guardrails.hold) == 1 with input as run("mount")

test_agents_get_no_shell if count(guardrails.deny) == 1 with input as {
	"event": {"kind": "command", "command": {"action": "shell"}},
	"identity": {"groups": ["agents"]},
}
