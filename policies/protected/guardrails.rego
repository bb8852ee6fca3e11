# METADATA
# title: Protected resources
# description: >
#   Tables, paths and whatever else a command names can be protected: by a pattern over the name, for the uses and
#   the groups that data.yaml lists. What is protected and may be meant by a command that cannot be read is refused.
package weir.guardrails

# METADATA
# title: A protected resource
# description: The first entry that covers the resource and the use decides; groups that it lists may go on.
# custom: {rule: protected}
deny contains {
	"rule": "protected",
	"reason": sprintf("%s is protected against %s", [resource.name, use]),
	"hint": entry.hint,
} if {
	some resource in input.event.command.resources
	some use in resource.use
	some entry in data.protected.resources
	named(entry, resource.name)
	covers(entry, use)
	not allowed(entry)
}

# METADATA
# title: Protected resources and what cannot be read
# custom: {rule: protected-unreadable}
deny contains {
	"rule": "protected-unreadable",
	"reason": "this command cannot be read for certain, and something here is protected",
	"hint": "say it in a simpler way",
} if {
	input.event.command.status == "incomplete"
	count(data.protected.resources) > 0
}

named(entry, name) if glob.match(entry.name, ["."], lower(name))

# A name without a schema may be of any.
named(entry, name) if {
	not contains(name, ".")
	parts := split(entry.name, ".")
	glob.match(parts[count(parts) - 1], ["."], lower(name))
}

covers(entry, use) if use in entry.uses

covers(entry, _) if "*" in entry.uses

allowed(entry) if {
	some group in input.identity.groups
	group in entry.groups
}
