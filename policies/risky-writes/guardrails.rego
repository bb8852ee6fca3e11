# METADATA
# title: Approval for risky writes
# description: >
#   Changes whose size nobody can tell beforehand, changes of schema and privileges, and changes of listed tables wait until
#   somebody in data.yaml has approved them (`weir approvals`). What another policy of the chain denies stays denied: put
#   this beside `observe` or rules of your own. Groups and approved runs in data.yaml go on by themselves.
package weir.guardrails

# METADATA
# title: A change of every row
# description: Without a condition, by TRUNCATE, or with one that is always true.
# custom: {rule: risky-unbounded}
hold contains {
	"rule": "risky-unbounded",
	"reason": "this changes every row of a table",
	"approvers": data.risky_writes.approvers,
} if {
	risky_write
	input.event.command.where == false
}

# METADATA
# title: A change of as many rows as another table gives, or the client sends
# description: INSERT … SELECT, UPDATE and DELETE by a subquery, MERGE, COPY FROM.
# custom: {rule: risky-bulk}
hold contains {
	"rule": "risky-bulk",
	"reason": "how many rows this changes depends on data that is not in the statement",
	"approvers": data.risky_writes.approvers,
} if {
	risky_write
	bulk
}

# METADATA
# title: What is risky by itself
# description: The effects in data.yaml.
# custom: {rule: risky-effect}
hold contains {
	"rule": "risky-effect",
	"reason": sprintf("this does more than change rows: %s", [concat(", ", found)]),
	"approvers": data.risky_writes.approvers,
} if {
	waits
	found := {e | some e in input.event.command.effects; e in data.risky_writes.effects}
	count(found) > 0
}

# METADATA
# title: A change of a listed table
# custom: {rule: risky-table}
hold contains {
	"rule": "risky-table",
	"reason": sprintf("changes of %s are approved one by one", [resource.name]),
	"approvers": data.risky_writes.approvers,
} if {
	risky_write
	some resource in input.event.command.resources
	"write" in resource.use
	some pattern in data.risky_writes.tables
	glob.match(pattern, ["."], lower(resource.name))
}

waits if {
	input.event.kind == "command"
	not exempt
}

risky_write if {
	waits
	"write" in input.event.command.effects
}

bulk if input.event.command.action == "copy"

bulk if {
	some resource in input.event.command.resources
	resource.kind == "table"
	"read" in resource.use
}

exempt if {
	some group in input.identity.groups
	group in data.risky_writes.groups
}

exempt if input.session.run in data.risky_writes.runs
