# METADATA
# title: Who may open what
# description: >
#   Lets an identity open a target when one of its groups is listed for it in data.yaml, by the target's name or by
#   one of its labels. Copy the folder and write your own groups. Without this package, or one like it, in the chain,
#   every recognised identity may open every target.
package weir.access

# METADATA
# title: A group is listed for the target
allow if {
	some group in input.identity.groups
	some grant in data.access.grants
	grant.group == group
	covers(grant)
}

covers(grant) if grant.target == input.target.name

covers(grant) if grant.target == "*"

covers(grant) if {
	some name, value in grant.labels
	input.target.labels[name] == value
}

# METADATA
# title: Agents stay off what is marked as for people
# description: A target with the label `people-only` is never opened by an agent, whatever its groups.
deny contains {
	"rule": "people-only",
	"reason": "this target is for people, not for agents",
	"hint": "ask a person to do this, or use another target",
} if {
	input.identity.kind == "agent"
	input.target.labels["people-only"] == "true"
}
