package weir.guardrails

# Programs that nobody runs by way of Weir.
forbidden := {"rm", "dd", "mkfs", "shutdown", "reboot"}

deny contains {
	"rule": "no-destruction",
	"reason": sprintf("%s is not run here", [resource.name]),
	"hint": "move the files to /var/trash instead",
} if {
	some resource in input.event.command.resources
	resource.kind == "program"
	resource.name in forbidden
}

# What changes what the host is made of waits for somebody.
hold contains {
	"rule": "mounts",
	"reason": "this changes what is mounted",
	"approvers": ["operators"],
} if {
	some resource in input.event.command.resources
	resource.kind == "program"
	resource.name in {"mount", "umount"}
}

# An agent says its commands one by one: what is typed into a shell cannot be judged for certain.
deny contains {
	"rule": "no-shell-for-agents",
	"reason": "a shell is for people",
	"hint": "say the command: ssh … COMMAND",
} if {
	input.event.command.action == "shell"
	"agents" in input.identity.groups
}
