# METADATA
# title: Strict guardrails
# description: >
#   All that the profile standard refuses, and what it only hides: a column that is masked may not decide about an answer,
#   be copied, or be worked with. What is not known is refused: commands that cannot be read, functions that are not on the
#   list, settings that are not on the list. The rules read effects and resources, never a statement's text. The lists are
#   in data.yaml; one list of columns is for the masks and for the rules about them.
package weir.guardrails

command := input.event.command

effects := {e | some e in command.effects}

resources := object.get(command, "resources", [])

asked if input.event.kind == "command"

# METADATA
# title: Nothing without the lists
# description: A rule that reads a list which is not there would not fire.
# custom: {rule: lists-missing}
deny contains {
	"rule": "lists-missing",
	"reason": sprintf("the profile's data.yaml has no list %q", [list]),
	"hint": "ask the operator to put it back; it may be empty",
} if {
	some list in ["tabular", "masks", "closed_functions", "refuse"]
	not data.strict[list]
}

# METADATA
# title: Nothing that cannot be read
# description: Also where the target lets incomplete commands pass. Blocks of code and procedures are such commands.
# custom: {rule: incomplete}
deny contains {
	"rule": "incomplete",
	"reason": "nobody can tell for certain what this does",
	"hint": "say it in a simpler way, as plain statements; code that runs on the server cannot be read",
} if {
	asked
	object.get(command, "status", "incomplete") != "known"
	not exempt("incomplete")
}

# METADATA
# title: No schema changes
# custom: {rule: no-ddl}
deny contains {
	"rule": "no-ddl",
	"reason": "this changes the schema, and schema changes go through migrations",
	"hint": "write a migration and have it reviewed; reading the catalog to see the present schema is allowed",
} if {
	"ddl" in effects
	not exempt("no-ddl")
}

# METADATA
# title: No write without saying which rows
# custom: {rule: no-unbounded-write}
deny contains {
	"rule": "no-unbounded-write",
	"reason": "this changes or removes every row of a table",
	"hint": "add a WHERE condition that names the rows; if all rows are meant, ask a person to do it",
} if {
	"write" in effects
	command.where == false
	reaches_rows
	not exempt("no-unbounded-write")
}

reaches_rows if {
	some r in resources
	r.kind in data.strict.tabular
}

reaches_rows if count(resources) == 0

# METADATA
# title: Nothing beyond the data
# custom: {rule: no-privilege, no-file, no-process, no-network, no-admin}
deny contains {
	"rule": rule,
	"reason": refusal.reason,
	"hint": refusal.hint,
} if {
	some effect, refusal in data.strict.refuse
	effect in effects
	rule := sprintf("no-%s", [effect])
	not exempt(rule)
}

# METADATA
# title: No effect that nobody knows
# description: A function of the list is known to whoever put it there.
# custom: {rule: no-unknown}
deny contains {
	"rule": "no-unknown",
	"reason": "nobody can tell what this does",
	"hint": "say it in a simpler way, without calling code that cannot be read",
} if {
	"unknown" in effects
	not only_listed
	not exempt("no-unknown")
}

only_listed if {
	command.status == "known"
	strangers := [r | some r in resources; "unknown" in r.use]
	count(strangers) > 0
	every r in strangers {
		listed(r)
	}
}

listed(r) if {
	r.kind == "function"
	r.name in data.strict.functions
}

# METADATA
# title: Only functions of the list
# custom: {rule: function-not-listed}
deny contains {
	"rule": "function-not-listed",
	"reason": sprintf("%s %s is not on the list of what may be called", [r.kind, r.name]),
	"hint": "use the target's built-in functions, or ask the operator to put this one on the list",
} if {
	some r in resources
	"unknown" in r.use
	not listed(r)
	not exempt("function-not-listed")
}

# METADATA
# title: No built-in function that reaches beyond the statement
# custom: {rule: function-closed}
deny contains {
	"rule": "function-closed",
	"reason": sprintf("%s reaches beyond this statement", [r.name]),
	"hint": "read and write tables; settings are changed with SET, as far as the list of settings goes",
} if {
	some r in resources
	r.kind == "function"
	some pattern in data.strict.closed_functions
	glob.match(pattern, null, r.name)
	not exempt("function-closed")
}

# METADATA
# title: No messages to other sessions
# custom: {rule: no-channels}
deny contains {
	"rule": "no-channels",
	"reason": "this sends to other sessions or listens to them",
	"hint": "poll a table instead",
} if {
	channels
	not exempt("no-channels")
}

channels if {
	some r in resources
	r.kind == "channel"
}

channels if command.action in {"listen", "notify", "unlisten"}

# METADATA
# title: No locks on whole tables
# custom: {rule: no-lock}
deny contains {
	"rule": "no-lock",
	"reason": "this locks others out of a table",
	"hint": "use a transaction; SELECT … FOR UPDATE locks single rows",
} if {
	some r in resources
	"lock" in r.use
	not exempt("no-lock")
}

# METADATA
# title: Only settings of the list
# custom: {rule: setting-not-listed}
deny contains {
	"rule": "setting-not-listed",
	"reason": sprintf("the setting %q is not on the list of what may be changed", [r.name]),
	"hint": "leave the session as it is, or ask the operator to put the setting on the list",
} if {
	some r in resources
	r.kind == "setting"
	"write" in r.use
	not lower(r.name) in data.strict.settings
	not exempt("setting-not-listed")
}

# METADATA
# title: No setting that makes the server talkative
# description: Debug messages show statements as the server sees them, with their values, and what functions note.
# custom: {rule: setting-verbose}
deny contains {
	"rule": "setting-verbose",
	"reason": sprintf("this value of the setting %q makes the server tell what it does inside", [r.name]),
	"hint": "notice, warning and error may be chosen",
} if {
	some r in resources
	r.kind == "setting"
	"verbose" in r.use
	not exempt("setting-verbose")
}

# METADATA
# title: A masked column decides nothing
# description: A condition, a join, a group or an order tells something of a value without showing it.
# custom: {rule: masked-indirect}
deny contains {
	"rule": "masked-indirect",
	"reason": sprintf("%s is masked, and here it decides about the answer", [used.name]),
	"hint": "leave it out of conditions, joins, GROUP BY, ORDER BY and CASE; look rows up by their key instead",
} if {
	some used in used_as("indirect")
	not exempt("masked-indirect")
}

# METADATA
# title: A masked column is not copied
# description: In another table, file or view it would go by another name, and nobody would mask it there.
# custom: {rule: masked-copied}
deny contains {
	"rule": "masked-copied",
	"reason": sprintf("%s is masked, and this writes its values somewhere else", [used.name]),
	"hint": "copy the other columns, and refer to the row by its key; values that you give yourself may be written",
} if {
	some used in used_as("copied")
	not exempt("masked-copied")
}

# METADATA
# title: A masked column is shown as it is or not at all
# description: A part, a length or a hash of a value tells something of it.
# custom: {rule: masked-transformed}
deny contains {
	"rule": "masked-transformed",
	"reason": sprintf("%s is masked, and this works with its values", [used.name]),
	"hint": "select the column by itself: it comes masked; or leave it out of expressions, casts and functions",
} if {
	some used in used_as("transformed")
	not exempt("masked-transformed")
}

# used_as returns the columns that are masked and used in one way, with the name to tell.
used_as(how) := {{"name": name} |
	not sees_clear
	some r in resources
	some column in object.get(r, how, [])
	some m in data.strict.masks
	means(m.column, r.name, column)
	name := sprintf("%s.%s", [r.name, column])
}

# means reports whether a mask's column is this column of this table. "*" is any column of the table, "*.*" any that there
# is.
means(_, _, "*.*")

means(pattern, table, column) if {
	column != "*"
	full := lower(sprintf("%s.%s", [table, column]))
	endswith(sprintf(".%s", [full]), sprintf(".%s", [lower(pattern)]))
}

means(pattern, table, column) if { # the target said less than the mask: a table without its schema
	column != "*"
	endswith(sprintf(".%s", [lower(pattern)]), lower(sprintf(".%s.%s", [table, column])))
}

means(pattern, _, "*") if not contains(pattern, ".")

means(pattern, table, "*") if {
	parts := split(lower(pattern), ".")
	of := concat(".", array.slice(parts, 0, count(parts) - 1))
	of != ""
	same_table(of, lower(table))
}

same_table(a, b) if endswith(sprintf(".%s", [b]), sprintf(".%s", [a]))

same_table(a, b) if endswith(sprintf(".%s", [a]), sprintf(".%s", [b]))

# METADATA
# title: Personal data is masked
# description: By the column's name, wherever the target says the value comes from. Some groups see it in clear.
mask contains {
	"column": m.column,
	"with": m.with,
	"rule": "personal-data",
} if {
	some m in data.strict.masks
	not sees_clear
}

sees_clear if {
	some group in input.identity.groups
	group in data.strict.clear_groups
}

# METADATA
# title: No answer without an end
limit contains {"rows": data.strict.rows, "time": data.strict.time, "rule": "bounds"} if asked

# exempt reports whether one of the identity's groups may do what a rule refuses.
exempt(rule) if {
	some group in input.identity.groups
	group in data.strict.exempt[rule]
}
