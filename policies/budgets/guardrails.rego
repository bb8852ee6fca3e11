# METADATA
# title: Budgets
# description: >
#   A session has so many commands and so many rows, by the kind of identity in data.yaml. A loop that has lost its way
#   ends there, and takes no more with it than that. An answer is bounded by what is left.
package weir.guardrails

# METADATA
# title: The commands of a session are used up
# custom: {rule: budget-commands}
deny contains {
	"rule": "budget-commands",
	"reason": sprintf("this session has had its %d commands", [budget.commands]),
	"hint": "end the session, and look at what the loop is doing",
} if {
	input.event.kind == "command"
	input.session.commands >= budget.commands
}

# METADATA
# title: The rows of a session are used up
# custom: {rule: budget-rows}
deny contains {
	"rule": "budget-rows",
	"reason": sprintf("this session has had its %d rows", [budget.rows]),
	"hint": "ask for totals instead of rows, in a new session",
} if {
	input.event.kind == "command"
	"read" in input.event.command.effects
	input.session.rows >= budget.rows
}

# METADATA
# title: An answer has no more rows than are left
# custom: {rule: budget-rows}
limit contains {"rows": budget.rows - input.session.rows, "rule": "budget-rows"} if {
	input.event.kind == "command"
	budget.rows > input.session.rows
}

# METADATA
# title: A kind of identity without a budget
# description: Nobody is without one by mistake.
# custom: {rule: budget-missing}
deny contains {
	"rule": "budget-missing",
	"reason": "no budget is written down for this kind of identity",
	"hint": "ask the operator to add it",
} if {
	not budget
}

budget := data.budgets[input.identity.kind]
