# METADATA
# title: Who may read what was recorded
# description: >
#   For `admin.recordings`, not for a chain of targets. Which groups may read, and which targets' recordings are for fewer,
#   stands in data.yaml. Copy the folder and write your own groups. Whoever holds the gateway's own key may read, as without a
#   policy, and that they did is on record. What no rule allows is refused.
package weir.replay

import data.replay.readers
import data.replay.restricted

# METADATA
# title: Whoever holds the gateway's own key may read
allow if input.event.admin.operator

# METADATA
# title: Some groups may read
allow if {
	some group in readers
	group in input.identity.groups
}

# METADATA
# title: Some targets' recordings are for fewer
# custom:
#   rule: restricted-recordings
deny contains {
	"rule": "restricted-recordings",
	"reason": sprintf("recordings of the target %s are for other groups", [recording.target]),
	"hint": "ask who may read them to look",
} if {
	input.event.admin.operator == false
	some recording in input.event.admin.detail.recordings
	groups := restricted[recording.target]
	count([group | some group in groups; group in input.identity.groups]) == 0
}

# METADATA
# title: Where some targets are restricted, a reading has to say of what
# description: A search over more sessions than can be named may touch any target.
# custom:
#   rule: recordings-unnamed
deny contains {
	"rule": "recordings-unnamed",
	"reason": "it reads more recordings than can be judged one by one, and some are not for everybody",
	"hint": "name the sessions, at most 30",
} if {
	input.event.admin.operator == false
	count(restricted) > 0
	count(object.get(input.event.admin, ["detail", "recordings"], [])) == 0
}

# METADATA
# title: Agents do not read recordings
# custom:
#   rule: agents-read-nothing
deny contains {
	"rule": "agents-read-nothing",
	"reason": "an agent may not read what was recorded",
	"hint": "ask a person to look",
} if {
	input.identity.kind == "agent"
}
