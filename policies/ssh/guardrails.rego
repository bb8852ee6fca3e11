# METADATA
# title: SSH
# description: >
#   For targets of the protocol ssh: what a command would do is read from its text as a shell would read it, and refused when it destroys, takes
#   keys, becomes somebody else, installs, or talks to other hosts; files moved by sftp and scp are held to the same lists. What a
#   shell has to be told before it can be judged is refused. Of a line typed into a terminal it is known only as far as the keys tell: the target's
#   mode exec-only is the wall. The lists are in data.yaml, and `exempt` gives a group its way with one rule.
package weir.guardrails

# METADATA
# title: A command that cannot be read
# description: Code from a variable, a pipe, base64, another language, an editor; a computed name. Also of lines typed into a terminal.
# custom: {rule: ssh-unreadable}
deny contains {
	"rule": "ssh-unreadable",
	"reason": sprintf("what this would run cannot be told: %s", [object.get(input.event.command, "reason", "no reason is given")]),
	"hint": "name the programs and the paths plainly, one command at a time, or put the script on the host and run it by its path",
} if {
	asked
	unreadable
	not exempt("ssh-unreadable")
}

# METADATA
# title: A vital tree is removed, moved away, or given to somebody else
# custom: {rule: ssh-destroy}
deny contains {
	"rule": "ssh-destroy",
	"reason": sprintf("%s and what is in it would be removed, moved or given to others", [name]),
	"hint": "name the files that you mean",
} if {
	asked
	not exempt("ssh-destroy")
	some resource in input.event.command.resources
	resource.kind == "path"
	loses(resource)
	name := lower(resource.name)
	vital(name)
}

# METADATA
# title: A disk, a file system or all processes are destroyed
# custom: {rule: ssh-disk}
deny contains {
	"rule": "ssh-disk",
	"reason": sprintf("%s writes to disks or makes file systems, or ends everything", [resource.name]),
	"hint": "this is not done over this gateway",
} if {
	asked
	not exempt("ssh-disk")
	some resource in input.event.command.resources
	resource.kind == "program"
	resource.name in data.ssh.destroyers
}

# METADATA
# title: A disk is written to as it is
# custom: {rule: ssh-disk}
deny contains {
	"rule": "ssh-disk",
	"reason": sprintf("%s is a disk", [resource.name]),
	"hint": "write to a file",
} if {
	asked
	not exempt("ssh-disk")
	some resource in input.event.command.resources
	resource.kind == "path"
	changes(resource)
	some pattern in data.ssh.disks
	glob.match(pattern, ["/"], lower(resource.name))
}

# METADATA
# title: A function that makes more and more of itself
# custom: {rule: ssh-fork-bomb}
deny contains {
	"rule": "ssh-fork-bomb",
	"reason": "a function calls itself: it would make processes without an end",
	"hint": "use a loop",
} if {
	asked
	not exempt("ssh-fork-bomb")
	some resource in input.event.command.resources
	resource.kind == "function"
	"recurse" in resource.use
}

# METADATA
# title: The machine is stopped or started again
# custom: {rule: ssh-power}
deny contains {
	"rule": "ssh-power",
	"reason": sprintf("%s stops the machine", [resource.name]),
	"hint": "ask who runs the machine",
} if {
	asked
	not exempt("ssh-power")
	some resource in input.event.command.resources
	resource.kind == "program"
	resource.name in data.ssh.power
}

# METADATA
# title: Files with keys and passwords
# description: Read, written, linked, moved or sent; by a pattern, by a tree that holds one, by sftp and scp, too.
# custom: {rule: ssh-secrets}
deny contains {
	"rule": "ssh-secrets",
	"reason": sprintf("%s holds keys or passwords, or may", [resource.name]),
	"hint": "ask for what you need them for, not for the file",
} if {
	asked
	not exempt("ssh-secrets")
	some resource in input.event.command.resources
	resource.kind == "path"
	secret(resource)
}

# METADATA
# title: Files that control the system or the account
# custom: {rule: ssh-control}
deny contains {
	"rule": "ssh-control",
	"reason": sprintf("%s belongs to the system, or decides what runs when somebody signs in", [resource.name]),
	"hint": "write below your own directory",
} if {
	asked
	not exempt("ssh-control")
	some resource in input.event.command.resources
	resource.kind == "path"
	changes(resource)
	controls(placed(lower(resource.name)))
}

# METADATA
# title: Somebody else's rights
# description: sudo, su and their like, and files that run with the rights of their owner.
# custom: {rule: ssh-privilege}
deny contains {
	"rule": "ssh-privilege",
	"reason": sprintf("%s takes the rights of somebody else", [resource.name]),
	"hint": "do it as the account that you have, or ask for one that may",
} if {
	asked
	not exempt("ssh-privilege")
	some resource in input.event.command.resources
	resource.kind == "program"
	becomes(resource)
}

# METADATA
# title: Accounts and who may sign in
# custom: {rule: ssh-accounts}
deny contains {
	"rule": "ssh-accounts",
	"reason": sprintf("%s changes who may sign in", [resource.name]),
	"hint": "ask who runs the machine",
} if {
	asked
	not exempt("ssh-accounts")
	some resource in input.event.command.resources
	resource.kind == "program"
	resource.name in data.ssh.accounts
}

# METADATA
# title: Packages are installed or removed
# custom: {rule: ssh-packages}
deny contains {
	"rule": "ssh-packages",
	"reason": sprintf("%s changes what is installed, and runs what the packages bring", [resource.name]),
	"hint": "ask for an image that has them",
} if {
	asked
	not exempt("ssh-packages")
	some resource in input.event.command.resources
	resource.kind == "program"
	"install" in resource.use
}

# METADATA
# title: Administration of the machine
# description: Services, mounts, firewalls, kernel modules, containers.
# custom: {rule: ssh-admin}
deny contains {
	"rule": "ssh-admin",
	"reason": "this administers the machine",
	"hint": "ask who runs the machine",
} if {
	asked
	not exempt("ssh-admin")
	"admin" in input.event.command.effects
}

# METADATA
# title: Other hosts
# description: Programs that connect elsewhere, and forwards. Hosts in data.yaml may be reached.
# custom: {rule: ssh-network}
deny contains {
	"rule": "ssh-network",
	"reason": "this talks to other hosts",
	"hint": "open a target of its own for the other host",
} if {
	asked
	not exempt("ssh-network")
	"network" in input.event.command.effects
	not near
}

asked if {
	input.event.kind == "command"
	input.target.protocol == "ssh"
}

exempt(rule) if {
	some group in input.identity.groups
	group in data.ssh.exempt[rule]
}

unreadable if input.event.command.status == "incomplete"

# Of a line typed into a terminal the facts are known as far as they can be; why they may miss something stands beside.
unreadable if {
	input.event.command.status == "known"
	object.get(input.event.command, "reason", "") != ""
}

changes(resource) if "write" in resource.use

changes(resource) if "delete" in resource.use

# What takes a tree, or by a pattern all that is in one.
loses(resource) if {
	"tree" in resource.use
	some use in ["delete", "owner", "mode"]
	use in resource.use
}

loses(resource) if {
	"delete" in resource.use
	"glob" in resource.use
}

# sftp's own: a directory is renamed, which takes all that is in it.
loses(resource) if {
	input.event.command.action in {"sftp rename", "sftp posix-rename"}
	"write" in resource.use
}

vital(name) if name in data.ssh.vital

vital(name) if trimmed(name) in data.ssh.vital

vital(name) if trimmed(name) in {"", "/", ".", ".."}

# a step above is above all that is known
vital(name) if startswith(name, "../")

vital(name) if {
	some tree in data.ssh.vital
	glob.match(name, ["/"], tree)
}

trimmed(name) := trim_suffix(trim_suffix(trim_suffix(name, "**"), "*"), "/")

secret(resource) if {
	touches(resource)
	name := placed(lower(resource.name))
	some pattern in data.ssh.secrets
	glob.match(pattern, ["/"], name)
	not public(name)
}

# A pattern of the client's own: it is held against what it may take in.
secret(resource) if {
	"glob" in resource.use
	touches(resource)
	some example in data.ssh.examples
	glob.match(resource.name, ["/"], example)
	spelt(resource.name, example)
}

# A tree that holds one. The place where a command begins is not held to be one, or nobody could search there.
secret(resource) if {
	"tree" in resource.use
	touches(resource)
	top := trim_suffix(resource.name, "/")
	some example in data.ssh.examples
	startswith(example, concat("", [top, "/"]))
}

# Names that are only listed give nothing away.
touches(resource) if {
	some use in resource.use
	use in {"read", "write", "delete"}
}

# A shell's * does not stand for names that begin with a point; ** is for whatever find finds.
spelt(_, example) if {
	not contains(example, "/.")
	not startswith(example, ".")
}

spelt(pattern, _) if contains(pattern, "**")

spelt(pattern, _) if contains(pattern, "/.")

spelt(pattern, _) if startswith(pattern, ".")

# A path that begins nowhere begins in the account's home, where a command does.
placed(name) := name if {
	some head in ["/", "~"]
	startswith(name, head)
}

placed(name) := concat("", ["~/", name]) if {
	not startswith(name, "/")
	not startswith(name, "~")
}

public(name) if {
	some pattern in data.ssh.public
	glob.match(pattern, ["/"], name)
}

controls(name) if {
	some pattern in data.ssh.control
	glob.match(pattern, ["/"], name)
	not free(name)
}

free(name) if {
	some pattern in data.ssh.devices
	glob.match(pattern, ["/"], name)
}

becomes(resource) if resource.name in data.ssh.others

becomes(resource) if "setuid" in resource.use

# All that it connects to is named, and may be reached.
near if {
	hosts := {resource.name | some resource in input.event.command.resources; resource.kind == "host"}
	count(hosts) > 0
	every host in hosts {
		reachable(host)
	}
	count({name | some name in programs; name in data.ssh.unnamed}) == 0
}

# Files that come and go by this channel go no further.
near if {
	programs in [{"scp"}, {"rsync"}]
	not outward
}

near if {
	count(programs) > 0
	every program in programs {
		program in data.ssh.network
	}
}

programs := {base(resource.name) | some resource in input.event.command.resources; resource.kind == "program"}

base(name) := split(name, "/")[count(split(name, "/")) - 1]

outward if {
	some resource in input.event.command.resources
	resource.kind == "host"
}

reachable(host) if {
	some pattern in data.ssh.hosts
	glob.match(pattern, ["."], host)
}
