package shell

import "strings"

// rules judge what a program is asked to do. A name that ends with a point is for all programs that begin so.
var rules map[string]func(name string, args []word) *Finding

func init() {
	rules = map[string]func(string, []word) *Finding{
		"rm": rm, "find": find, "chmod": chmod, "chown": owner, "chgrp": owner, "dd": dd, "kill": kill, "git": git, "systemctl": systemctl, "init": runlevel,
		"telinit": runlevel, "kubectl": kubectl, "oc": kubectl, "aws": aws, "gcloud": cloud, "az": cloud, "usermod": usermod, "crontab": crontab, "history": history,
		"unset": unset, "nc": netcat, "ncat": netcat, "netcat": netcat, "socat": socat, "iptables": flush, "ip6tables": flush, "nft": flush, "terraform": terraform,
		"tofu": terraform, "docker": docker, "podman": docker, "truncate": truncate, "mv": move, "zpool": volumes, "zfs": volumes, "cryptsetup": volumes,
		"python.": inline, "perl": inline, "ruby": inline, "php": inline, "python": inline, "python3": inline, "bash": interactive, "sh": interactive, "zsh": interactive,
		"pkill": killall, "killall": killall, "helm": helm, "gh": gh,
	}
	always := func(names, category, why string) {
		for name := range set(names) {
			rules[name] = func(string, []word) *Finding { return &Finding{category, why} }
		}
	}
	always("mkfs mkfs. mke2fs wipefs fdisk sfdisk sgdisk cfdisk parted lvremove vgremove pvremove blkdiscard hdparm mkswap", Disk, "it changes file systems or partitions")
	always("shred srm wipe", Destroy, "it removes files so that nobody gets them back")
	always("shutdown reboot halt poweroff", Power, "it stops the machine")
	always("userdel deluser groupdel visudo useradd adduser chpasswd passwd", Account, "it changes who may sign in")
	always("setenforce auditctl aa-teardown", Protection, "it switches off a protection")
	always("ufw", Protection, "it changes the firewall")
	always("killall5", Kill, "it ends all processes")
	always("dropdb", Infrastructure, "it removes a database")
}

// flags reports whether an option is there: a letter of a short one, or a long one.
func flags(args []word, letters string, long ...string) bool {
	for _, a := range args {
		t := a.text
		if t == "--" {
			return false
		}
		if strings.HasPrefix(t, "--") {
			for _, l := range long {
				if t == l || strings.HasPrefix(t, l+"=") {
					return true
				}
			}
		} else if len(t) > 1 && t[0] == '-' && strings.ContainsAny(t[1:], letters) {
			return true
		}
	}
	return false
}

// operands are the words that are no options.
func operands(args []word) (out []string) {
	only := false
	for _, a := range args {
		switch {
		case a.text == "--" && !only:
			only = true
		case only || !strings.HasPrefix(a.text, "-") || a.text == "-":
			out = append(out, a.text)
		}
	}
	return out
}

var roots = set("bin boot dev etc home lib lib64 opt proc root run sbin srv sys usr var Users System Library Windows")

// vital reports whether a path is the root, a home, a whole tree of the system, or all that is here.
func vital(p string) bool {
	if open, end := strings.IndexByte(p, '{'), strings.IndexByte(p, '}'); open >= 0 && open < end && strings.Contains(p[open:end], ",") {
		for alternative := range strings.SplitSeq(p[open+1:end], ",") {
			if vital(p[:open] + alternative + p[end+1:]) {
				return true
			}
		}
	}
	for strings.Contains(p, "/./") {
		p = strings.ReplaceAll(p, "/./", "/")
	}
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	p = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(p, "/"), "/."), "/")
	switch p {
	case "", ".", "..", "*", "./*", "../*", "~", "~/*", "$HOME", "${HOME}", "$HOME/*", "${HOME}/*", "/*", ".*", "$PWD", "$PWD/*", "../..", "/..", "~root", "$()", "$()/*":
		return true
	}
	if strings.HasPrefix(p, "$") { // $DIR/* is /* where DIR is not set
		rest := strings.TrimLeftFunc(strings.TrimPrefix(p, "$"), func(r rune) bool { return r == '{' || r == '}' || !notName(r) })
		return rest == "/*"
	}
	top := strings.TrimSuffix(strings.TrimPrefix(p, "/"), "/*")
	if strings.HasPrefix(p, "/") && roots[top] {
		return true
	}
	rest, under := strings.CutPrefix(p, "/var/")
	return under && (rest == "lib" || rest == "log" || rest == "lib/*" || rest == "log/*")
}

func rm(_ string, args []word) *Finding {
	if flags(args, "", "--no-preserve-root") {
		return &Finding{Destroy, "rm is told to remove the root"}
	}
	recursive := flags(args, "rR", "--recursive")
	for _, p := range operands(args) {
		if vital(p) && (recursive || strings.HasSuffix(p, "*")) {
			return &Finding{Destroy, "rm would remove a home, the system, or all that is here"}
		}
		if trace(p) {
			return &Finding{Traces, "it removes logs or a history"}
		}
	}
	return nil
}

func move(_ string, args []word) *Finding {
	if o := operands(args); len(o) > 1 && (vital(o[0]) && strings.HasPrefix(o[0], "/") || o[len(o)-1] == "/dev/null") {
		return &Finding{Destroy, "mv would take away a part of the system, or move files into nothing"}
	}
	return nil
}

func find(_ string, args []word) *Finding {
	removes := false
	for i, a := range args {
		removes = removes || a.text == "-delete" || (a.text == "-exec" || a.text == "-execdir") && i+1 < len(args) && (base(args[i+1].text) == "rm" || base(args[i+1].text) == "shred")
	}
	narrowed := false
	for _, a := range args {
		switch a.text {
		case "-name", "-iname", "-path", "-regex", "-mtime", "-mmin", "-size", "-empty", "-user", "-newer":
			narrowed = true
		}
	}
	if !removes {
		return nil
	}
	for _, a := range args {
		if strings.HasPrefix(a.text, "-") || a.text == "(" || a.text == "!" {
			break
		}
		if vital(a.text) && (!narrowed || strings.HasPrefix(a.text, "/")) {
			return &Finding{Destroy, "find would remove a home, the system, or all that is here"}
		}
	}
	return nil
}

func chmod(_ string, args []word) *Finding {
	o := operands(args)
	for _, a := range args { // chmod -x is a mode
		if len(o) == 0 || strings.HasPrefix(a.text, "-") && a.text != "-R" && a.text != "-v" && a.text != "-f" {
			continue
		}
		break
	}
	if len(o) == 0 {
		return nil
	}
	mode, recursive := o[0], flags(args, "R", "--recursive")
	if len(mode) == 4 && numeric(mode) && mode[0] >= '2' || strings.Contains(mode, "+s") || strings.Contains(mode, "=s") {
		return &Finding{Permission, "it makes a program run with the rights of another"}
	}
	open := mode == "777" || mode == "0777" || mode == "666" || mode == "a+rwx" || mode == "ugo+rwx" || mode == "o+w" || mode == "a+w" || mode == "+w" || mode == "000" || mode == "0"
	for _, p := range o[1:] {
		if recursive && vital(p) || open && (recursive || vital(p) || strings.HasPrefix(p, "/etc/")) {
			return &Finding{Permission, "it opens or closes files for everybody"}
		}
	}
	return nil
}

func owner(_ string, args []word) *Finding {
	if o := operands(args); flags(args, "R", "--recursive") && len(o) > 1 {
		for _, p := range o[1:] {
			if vital(p) {
				return &Finding{Permission, "it changes the owner of a whole tree"}
			}
		}
	}
	return nil
}

// device reports whether a path is a disk.
func device(p string) bool {
	rest, ok := strings.CutPrefix(p, "/dev/")
	if !ok {
		return false
	}
	for _, d := range [...]string{"sd", "hd", "vd", "xvd", "nvme", "mmcblk", "mapper/", "dm-", "disk", "md", "mem", "kmem", "rdisk", "loop"} {
		if strings.HasPrefix(rest, d) {
			return true
		}
	}
	return false
}

func dd(_ string, args []word) *Finding {
	for _, a := range args {
		if p, ok := strings.CutPrefix(a.text, "of="); ok && device(p) {
			return &Finding{Disk, "dd would write over a disk"}
		}
	}
	return nil
}

func volumes(name string, args []word) *Finding {
	if o := operands(args); len(o) > 0 && (o[0] == "destroy" || o[0] == "erase" || o[0] == "luksErase" || o[0] == "luksFormat") {
		return &Finding{Disk, name + " would destroy a volume"}
	}
	return nil
}

// written judges a redirection.
func written(p string) *Finding {
	switch {
	case device(p):
		return &Finding{Disk, "it writes over a disk"}
	case strings.Contains(p, "/dev/tcp/"), strings.Contains(p, "/dev/udp/"):
		return &Finding{ReverseShell, "it connects a command with another machine"}
	case accounts(p):
		return &Finding{Account, "it writes to a file that says who may sign in"}
	case trace(p):
		return &Finding{Traces, "it writes over logs or a history"}
	}
	return nil
}

func accounts(p string) bool {
	return p == "/etc/passwd" || p == "/etc/shadow" || p == "/etc/group" || p == "/etc/sudoers" || strings.HasPrefix(p, "/etc/sudoers.d/") ||
		strings.HasSuffix(p, "/.ssh/authorized_keys") || strings.HasPrefix(p, "/etc/pam.d/") || strings.HasPrefix(p, "/etc/cron")
}

func trace(p string) bool {
	b := base(p)
	return b == ".bash_history" || b == ".zsh_history" || b == ".history" || strings.HasPrefix(p, "/var/log/") && p != "/var/log/" && !strings.HasSuffix(p, ".gz") ||
		p == "/var/log" || b == "wtmp" || b == "lastlog"
}

func truncate(_ string, args []word) *Finding {
	for _, p := range operands(args) {
		if trace(p) {
			return &Finding{Traces, "it empties logs or a history"}
		}
		if device(p) {
			return &Finding{Disk, "it writes over a disk"}
		}
	}
	return nil
}

func history(_ string, args []word) *Finding {
	if flags(args, "cd") {
		return &Finding{Traces, "it removes the history"}
	}
	return nil
}

func unset(_ string, args []word) *Finding {
	for _, p := range operands(args) {
		if p == "HISTFILE" {
			return &Finding{Traces, "it switches the history off"}
		}
	}
	return nil
}

func kill(_ string, args []word) *Finding {
	for i, a := range args {
		if i > 0 && (a.text == "-1" || a.text == "1" || a.text == "0") || i == 0 && len(args) == 1 && a.text == "-1" {
			if args[i-min(i, 1)].text != "-n" && args[i-min(i, 1)].text != "-s" {
				return &Finding{Kill, "it ends all processes, or the first"}
			}
		}
	}
	return nil
}

func killall(_ string, args []word) *Finding {
	if flags(args, "u") || flags(args, "f") && len(operands(args)) > 0 && (operands(args)[0] == "." || operands(args)[0] == ".*") {
		return &Finding{Kill, "it ends all processes of somebody"}
	}
	return nil
}

func systemctl(_ string, args []word) *Finding {
	o := operands(args)
	if len(o) == 0 {
		return nil
	}
	switch o[0] {
	case "poweroff", "reboot", "halt", "kexec", "emergency", "rescue":
		return &Finding{Power, "it stops the machine"}
	case "stop", "disable", "mask":
		for _, unit := range o[1:] {
			switch strings.TrimSuffix(unit, ".service") {
			case "firewalld", "ufw", "nftables", "iptables", "auditd", "apparmor", "falco", "fail2ban", "rsyslog", "systemd-journald", "sshd":
				return &Finding{Protection, "it switches off a protection"}
			}
		}
	}
	return nil
}

func runlevel(_ string, args []word) *Finding {
	if o := operands(args); len(o) > 0 && (o[0] == "0" || o[0] == "6") {
		return &Finding{Power, "it stops the machine"}
	}
	return nil
}

func flush(name string, args []word) *Finding {
	o := operands(args)
	if flags(args, "FX", "--flush") || name == "nft" && len(o) > 0 && (o[0] == "flush" || o[0] == "delete") {
		return &Finding{Protection, "it empties the firewall"}
	}
	for i, a := range args {
		if (a.text == "-P" || a.text == "--policy") && i+2 < len(args) && args[i+2].text == "ACCEPT" {
			return &Finding{Protection, "it opens the firewall"}
		}
	}
	return nil
}

func usermod(_ string, args []word) *Finding {
	return &Finding{Account, "it changes what a user may do"}
}

func crontab(_ string, args []word) *Finding {
	if flags(args, "r") {
		return &Finding{Destroy, "it removes all timed jobs"}
	}
	return nil
}

func netcat(_ string, args []word) *Finding {
	if flags(args, "ec", "--exec", "--sh-exec") {
		return &Finding{ReverseShell, "it connects a program with another machine"}
	}
	return nil
}

func socat(_ string, args []word) *Finding {
	for _, a := range args {
		if t := strings.ToLower(a.text); strings.HasPrefix(t, "exec:") || strings.HasPrefix(t, "system:") {
			return &Finding{ReverseShell, "it connects a program with another machine"}
		}
	}
	return nil
}

func interactive(_ string, args []word) *Finding {
	for _, a := range args {
		if strings.Contains(a.text, "/dev/tcp/") {
			return &Finding{ReverseShell, "it connects a shell with another machine"}
		}
	}
	return nil
}

// inline judges a program in the arguments of an interpreter, by the few words that such an attack needs.
func inline(_ string, args []word) *Finding {
	for i, a := range args {
		if a.text != "-c" && a.text != "-e" && a.text != "-r" || i+1 >= len(args) {
			continue
		}
		code := args[i+1].text
		contains := func(words ...string) bool {
			for _, w := range words {
				if strings.Contains(code, w) {
					return true
				}
			}
			return false
		}
		switch {
		case contains("socket", "Socket", "fsockopen") && contains("subprocess", "pty.spawn", "/bin/sh", "/bin/bash", "exec", "dup2"):
			return &Finding{ReverseShell, "it connects a shell with another machine"}
		case contains("shutil.rmtree('/", `shutil.rmtree("/`, "rm -rf /", "rm -fr /", "remove_dir('/"):
			return &Finding{Destroy, "it removes a whole tree"}
		}
	}
	return nil
}

func git(_ string, args []word) *Finding {
	o := operands(args)
	if len(o) == 0 || o[0] != "push" {
		return nil
	}
	if flags(args, "fd", "--force", "--delete", "--mirror", "--prune") {
		return &Finding{Infrastructure, "git would take away what others have"}
	}
	for _, ref := range o[1:] {
		if strings.HasPrefix(ref, "+") || strings.HasPrefix(ref, ":") {
			return &Finding{Infrastructure, "git would take away what others have"}
		}
	}
	return nil
}

func kubectl(_ string, args []word) *Finding {
	o := operands(args)
	if len(o) == 0 {
		return nil
	}
	switch o[0] {
	case "delete":
		if flags(args, "", "--all", "--all-namespaces") || flags(args, "A") {
			return &Finding{Infrastructure, "it removes all of a cluster's objects"}
		}
		for _, kind := range o[1:] {
			switch strings.SplitN(kind, "/", 2)[0] {
			case "ns", "namespace", "namespaces", "pv", "pvc", "persistentvolume", "persistentvolumeclaim", "node", "nodes", "crd", "crds":
				return &Finding{Infrastructure, "it removes a part of the cluster"}
			}
		}
	case "drain", "cordon":
		return &Finding{Infrastructure, "it takes a node out of the cluster"}
	}
	return nil
}

func aws(_ string, args []word) *Finding {
	o := operands(args)
	for i, w := range o {
		if strings.HasPrefix(w, "terminate-") || strings.HasPrefix(w, "delete-") && i > 0 || w == "rb" && i > 0 && o[0] == "s3" ||
			w == "rm" && i > 0 && o[0] == "s3" && flags(args, "", "--recursive") {
			return &Finding{Infrastructure, "it removes what stands in the cloud"}
		}
	}
	return nil
}

func cloud(_ string, args []word) *Finding {
	for _, w := range operands(args) {
		if w == "delete" || w == "purge" {
			return &Finding{Infrastructure, "it removes what stands in the cloud"}
		}
	}
	return nil
}

func terraform(_ string, args []word) *Finding {
	if o := operands(args); len(o) > 0 && (o[0] == "destroy" || o[0] == "apply" && flags(args, "", "--destroy") || o[0] == "apply" && hasWord(args, "-destroy")) {
		return &Finding{Infrastructure, "it removes what stands in the cloud"}
	}
	return nil
}

func hasWord(args []word, w string) bool {
	for _, a := range args {
		if a.text == w {
			return true
		}
	}
	return false
}

func docker(_ string, args []word) *Finding {
	o := operands(args)
	switch {
	case len(o) > 1 && o[1] == "prune" && flags(args, "a", "--all", "--volumes"):
		return &Finding{Infrastructure, "it removes all containers, images or volumes"}
	case len(o) > 1 && o[0] == "volume" && o[1] == "rm":
		return &Finding{Infrastructure, "it removes a volume"}
	case flags(args, "", "--privileged"):
		return &Finding{Permission, "the container could do anything to the machine"}
	}
	for _, a := range args {
		if a.text == "/:/host" || strings.HasPrefix(a.text, "/:/") {
			return &Finding{Permission, "the container could do anything to the machine"}
		}
	}
	return nil
}

func helm(_ string, args []word) *Finding {
	if o := operands(args); len(o) > 0 && (o[0] == "uninstall" || o[0] == "delete") {
		return &Finding{Infrastructure, "it removes a release"}
	}
	return nil
}

func gh(_ string, args []word) *Finding {
	if o := operands(args); len(o) > 1 && o[1] == "delete" && (o[0] == "repo" || o[0] == "release" || o[0] == "secret") {
		return &Finding{Infrastructure, "it removes a repository, or a part of it"}
	}
	return nil
}

// quiet are programs that only say a path, and open no file.
var quiet = set("echo printf ls stat file test [ [[ true which type dirname basename git cd mkdir touch")

// touches looks for files with secrets among the arguments of whatever program.
func touches(name string, args []word) *Finding {
	if quiet[name] {
		return nil
	}
	for _, a := range args {
		p := strings.TrimPrefix(strings.TrimPrefix(a.text, "@"), "file://")
		if _, v, ok := strings.Cut(p, "=@"); ok {
			p = v
		}
		switch {
		case device(p) && (name == "tee" || name == "cp" || name == "mv" || name == "install" || name == "rsync"):
			return &Finding{Disk, "it writes over a disk"}
		case (name == "tee" || name == "sed" || name == "cp" || name == "install") && accounts(p) && name != "sed":
			return &Finding{Account, "it writes to a file that says who may sign in"}
		case p == "/etc/shadow" || p == "/etc/gshadow" || strings.HasPrefix(p, "/proc/") && strings.HasSuffix(p, "/environ"),
			strings.Contains(p, "/.ssh/id_") && !strings.HasSuffix(p, ".pub") && name != "ssh" && name != "ssh-keygen" && name != "ssh-add" && name != "scp" && name != "chmod",
			strings.HasSuffix(p, "/.aws/credentials"), strings.HasSuffix(p, "/.kube/config") && name != "kubectl", strings.HasSuffix(p, "/.netrc"), strings.HasSuffix(p, "/.pgpass"),
			strings.HasSuffix(p, "/.docker/config.json"), strings.HasSuffix(p, "/.git-credentials"), strings.HasSuffix(p, "/etc/kubernetes/admin.conf"),
			strings.Contains(p, "169.254.169.254"):
			return &Finding{SecretFiles, "it reads keys or passwords of the machine"}
		}
	}
	return nil
}
