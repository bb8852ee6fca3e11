# METADATA
# title: Budgets
# description: >
#   A session has so many commands, rows and bytes, by the kind of identity in data.yaml, and so have all sessions of a run
#   together at one gateway. A loop that has lost its way ends there, and takes no more with it than that, also when it
#   connects again. An answer is bounded by the rows and bytes that are left when it is asked for.
package weir.guardrails

# METADATA
# title: The commands of a session are used up
# custom: {rule: budget-commands}
deny contains {
	"rule": "budget-commands",
	"reason": sprintf("this session has had its %d commands", [session.commands]),
	"hint": "end the session, and look at what the loop is doing",
} if {
	input.event.kind == "command"
	input.session.commands >= session.commands
}

# METADATA
# title: The rows of a session are used up
# custom: {rule: budget-rows}
deny contains {
	"rule": "budget-rows",
	"reason": sprintf("this session has had its %d rows", [session.rows]),
	"hint": "ask for totals instead of rows, in a new session",
} if {
	reads
	input.session.rows >= session.rows
}

# METADATA
# title: The bytes of a session are used up
# custom: {rule: budget-bytes}
deny contains {
	"rule": "budget-bytes",
	"reason": sprintf("this session has had its %d bytes", [session.bytes]),
	"hint": "ask for fewer or smaller columns, in a new session",
} if {
	reads
	input.session.bytes_to_client >= session.bytes
}

# METADATA
# title: The commands of a run are used up
# custom: {rule: budget-run-commands}
deny contains {
	"rule": "budget-run-commands",
	"reason": sprintf("this run has had its %d commands", [run.commands]),
	"hint": "end the run, and look at what the loop is doing",
} if {
	input.event.kind == "command"
	input.run.commands >= run.commands
}

# METADATA
# title: The rows of a run are used up
# custom: {rule: budget-run-rows}
deny contains {
	"rule": "budget-run-rows",
	"reason": sprintf("this run has had its %d rows", [run.rows]),
	"hint": "ask for totals instead of rows, in a new run",
} if {
	reads
	input.run.rows >= run.rows
}

# METADATA
# title: The bytes of a run are used up
# custom: {rule: budget-run-bytes}
deny contains {
	"rule": "budget-run-bytes",
	"reason": sprintf("this run has had its %d bytes", [run.bytes]),
	"hint": "ask for fewer or smaller columns, in a new run",
} if {
	reads
	input.run.bytes_to_client >= run.bytes
}

# METADATA
# title: An answer has no more rows than the session has left
# custom: {rule: budget-rows}
limit contains {"rows": session.rows - input.session.rows, "rule": "budget-rows"} if {
	input.event.kind == "command"
	session.rows > input.session.rows
}

# METADATA
# title: An answer has no more rows than the run has left
# custom: {rule: budget-run-rows}
limit contains {"rows": run.rows - input.run.rows, "rule": "budget-run-rows"} if {
	input.event.kind == "command"
	run.rows > input.run.rows
}

# METADATA
# title: An answer has no more bytes than the session has left
# custom: {rule: budget-bytes}
limit contains {"bytes": session.bytes - input.session.bytes_to_client, "rule": "budget-bytes"} if {
	input.event.kind == "command"
	session.bytes > input.session.bytes_to_client
}

# METADATA
# title: An answer has no more bytes than the run has left
# custom: {rule: budget-run-bytes}
limit contains {"bytes": run.bytes - input.run.bytes_to_client, "rule": "budget-run-bytes"} if {
	input.event.kind == "command"
	run.bytes > input.run.bytes_to_client
}

# METADATA
# title: A change gives back one row at most when none is left
# custom: {rule: "budget-rows, budget-run-rows"}
limit contains {"rows": 1, "rule": rule} if {
	input.event.kind == "command"
	some rule in used_up
}

used_up contains "budget-rows" if input.session.rows >= session.rows

used_up contains "budget-run-rows" if input.run.rows >= run.rows

# METADATA
# title: A kind of identity without a budget
# description: Nobody is without one by mistake.
# custom: {rule: budget-missing}
deny contains {
	"rule": "budget-missing",
	"reason": "no budget is written down for this kind of identity",
	"hint": "ask the operator to add it",
} if {
	not session
}

deny contains {
	"rule": "budget-missing",
	"reason": "no budget of runs is written down for this kind of identity",
	"hint": "ask the operator to add it",
} if {
	input.run.id
	not run
}

session := data.budgets.session[input.identity.kind]

run := data.budgets.run[input.identity.kind]

# What is asked for its answer.
reads if {
	input.event.kind == "command"
	"read" in input.event.command.effects
}
