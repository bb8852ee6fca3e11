# The policy that is measured: six groups of rules, over the 1,000 entries of data.house.tables.
package weir.guardrails

command := input.event.command

# 1. Tables belong to teams.
deny contains {"rule": "table-of-others", "reason": sprintf("%s belongs to %s", [resource.name, entry.team])} if {
	some resource in command.resources
	entry := data.house.tables[resource.name]
	not entry.team in input.identity.groups
	some use in resource.use
	not use in entry.open
}

# 2. Nothing but data.
deny contains {"rule": sprintf("no-%s", [effect]), "hint": "open a migration"} if {
	some effect in command.effects
	effect in data.house.refused
}

# 3. No write without a condition.
deny contains {"rule": "no-unbounded-write", "reason": "every row"} if {
	"write" in command.effects
	command.where == false
	some resource in command.resources
	resource.kind == "table"
}

# 4. Agents call functions of the list only.
deny contains {"rule": "function-not-listed", "reason": resource.name} if {
	input.identity.kind == "agent"
	some resource in command.resources
	resource.kind == "function"
	not resource.name in data.house.functions
}

# 5. Columns that are personal are masked.
mask contains {"column": column, "with": "partial", "rule": "personal"} if {
	some resource in command.resources
	some column in data.house.tables[resource.name].personal
	not "support" in input.identity.groups
}

# 6. Bounds and level.
limit contains {"rows": rows, "rule": "bounded"} if {
	some resource in command.resources
	rows := data.house.tables[resource.name].rows
}

record := "metadata" if input.target.labels.risk == "low"
