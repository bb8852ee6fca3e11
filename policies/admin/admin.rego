# METADATA
# title: Who may do what to the gateway
# description: >
#   For `admin.chain`, not for a chain of targets. Gives roles to groups: what each role may do, and which groups have it,
#   stands in data.yaml. Copy the folder and write your own groups. Whoever holds the gateway's own key may do everything,
#   as without a policy. What no rule allows is refused.
package weir.admin

import data.admin.groups as members
import data.admin.roles as grants

# METADATA
# title: Whoever holds the gateway's own key may do everything
allow if input.event.admin.operator

# METADATA
# title: A group has a role that lets it
allow if {
	some role in held
	some action in grants[role]
	covers(action)
}

# METADATA
# title: Everybody may look at approvals
# description: The queue shows to each what they have asked for, and what a rule names them to answer, and nothing else.
allow if input.event.admin.action in {"approvals.list", "approvals.show"}

# METADATA
# title: Agents look, and change nothing
# description: An agent with a person's groups, as in a run of theirs, does not get what the person may change.
# custom:
#   rule: agents-change-nothing
deny contains {
	"rule": "agents-change-nothing",
	"reason": "an agent may not change what the gateway does",
	"hint": "ask a person to do this",
} if {
	input.identity.kind == "agent"
	input.event.admin.changes
}

# METADATA
# title: Nobody gives out more than they have
# description: >
#   A token may only be made for groups that its maker is in, unless the maker holds the gateway's own key: who may make
#   tokens could otherwise be anybody.
# custom:
#   rule: groups-of-your-own
deny contains {
	"rule": "groups-of-your-own",
	"reason": sprintf("you are not in the group %s, so you cannot make a token that is", [group]),
	"hint": "leave the group out, or ask who holds the gateway's key",
} if {
	input.event.admin.action == "tokens.issue"
	input.event.admin.operator == false
	some group in input.event.admin.detail.groups
	not group in input.identity.groups
}

# The roles that an identity's groups have.
held contains role if {
	some role, names in members
	some name in names
	name in input.identity.groups
}

covers(action) if action == input.event.admin.action

covers("*")

# "sessions.*" is all about sessions.
covers(action) if {
	endswith(action, ".*")
	startswith(input.event.admin.action, trim_suffix(action, "*"))
}
