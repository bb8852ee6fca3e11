package shell

import (
	"strings"

	"github.com/weir-gateway/weir/core"
)

// program is what is known of one: what it does, and how its words are read.
type program struct {
	effects []core.Effect
	// call reads its words; nil: they say nothing about paths, hosts or other programs.
	call func(s *script, name string, args []field, in input)
}

// input is what a command is given to read by the text itself.
type input struct {
	text           string
	given, literal bool
}

// The table of programs. What is not in it has the effect unknown.
var programs map[string]*program

const (
	read    = core.EffectRead
	write   = core.EffectWrite
	network = core.EffectNetwork
	admin   = core.EffectAdmin
	rights  = core.EffectPrivilege
	session = core.EffectSession
	unknown = core.EffectUnknown
)

// builtins are the words of a shell that a function should not take the name of.
var builtins = words("cd echo test [ printf read exec eval source . command builtin export set unset trap type kill wait exit return umask ulimit alias unalias hash enable shopt true false")

// shells run a text; interpreters run one in a language that is not read here.
var (
	shells       = words("sh bash dash ash zsh ksh ksh93 mksh rbash rksh lksh posh yash")
	interpreters = words("python python2 python3 perl ruby node nodejs deno bun php lua luajit tclsh wish expect Rscript R julia ghci irb jshell groovy scala guile osascript pwsh powershell fish csh tcsh elvish nu xonsh ipython pypy pypy3 bc dc")
	// hosts that a program talks to by itself, and editors and multiplexers, which run whatever they are told to.
	editors = words("vi vim nvim view vimdiff ex ed emacs nano pico joe mcedit screen tmux byobu gdb lldb mc ranger irssi mutt w3m lynx links ftp lftp rlwrap script expect dialog")
)

func init() {
	programs = map[string]*program{}
	add := func(names string, call func(*script, string, []field, input), effects ...core.Effect) {
		for name := range words(names) {
			programs[name] = &program{effects, call}
		}
	}
	// what only looks
	add("echo : true false date uptime whoami id groups who w last lastlog uname arch nproc free vmstat iostat mpstat ps pgrep pidof pstree printenv locale sleep expr yes tput clear reset "+
		"seq basename dirname factor lsblk lscpu lspci lsusb lsmod getent getconf getopt logname users tty cal ncal numfmt shuf jobs type which whereis whatis apropos ldconfig df top htop "+
		"ss netstat lsof findmnt blkid dpkg-query locale-gen sar", nil, read)
	add("hostname hostnamectl timedatectl localectl loginctl journalctl dmesg sysctl ip ifconfig route arp iw ethtool", looker, read)
	add("printf test [ read mapfile readarray unset let declare typeset local readonly getopts wait", quiet, session)
	add("export set shopt ulimit umask exit logout return break continue shift times bg fg disown suspend dirs stty bind complete compgen compopt history caller fc", settings, session)
	add("alias unalias enable hash", renaming, session)
	add("cd pushd popd chdir", moved, session)
	add("trap", trap, session)
	add("pwd", nil, read)
	add("kill killall pkill killall5 renice", nil, core.EffectProcess)

	// files; see paths.go
	for name, f := range files {
		add(name, filer(f), f.effects...)
	}
	add("find", find, read)
	add("dd", dd, read, write)
	add("tar bsdtar", tar, read, write)
	add("sed gsed ssed", sed, read)
	add("awk gawk mawk nawk", awk, read)
	add("scp", scp, read, write, network)
	add("rsync", rsync, read, write)
	add("sftp-server internal-sftp", serves, read, write)
	add("git-upload-pack git-upload-archive", gitServer, read)
	add("git-receive-pack", gitServer, read, write)
	add("git-shell", shellC, unknown)
	add("git", git, read, write)

	// hosts; see hosts.go
	add("ssh slogin autossh dbclient mosh", ssh, network)
	add("sftp", remote, network, read, write)
	add("curl", curl, network)
	add("wget aria2c", wget, network, write)
	add("nc ncat netcat telnet socat openssl", netcat, network)
	add("ping ping6 traceroute tracepath mtr dig nslookup host whois nmap masscan arping hping3 tcpdump tshark ab wrk http https httpie xh websocat grpcurl ssh-keyscan iperf iperf3 rdate ntpdate ftp lftp", remote, network)
	add("psql mysql mariadb mongo mongosh redis-cli sqlite3 mysqldump pg_dump pg_dumpall pg_restore mongodump clickhouse-client cqlsh", database, network, unknown)
	add("ssh-keygen ssh-add ssh-agent ssh-copy-id gpg gpg2 age pass", keys, read, write)

	// administration
	add("systemctl service rc-service initctl supervisorctl reboot shutdown halt poweroff init telinit useradd adduser userdel deluser usermod groupadd groupdel groupmod addgroup delgroup gpasswd "+
		"chage mount umount swapon swapoff mkswap losetup iptables ip6tables nft ufw firewall-cmd modprobe insmod rmmod depmod update-grub grub-install update-initramfs dpkg-reconfigure "+
		"mkfs mkfs. mke2fs setenforce auditctl aa-teardown setsebool semanage fdisk sfdisk sgdisk cfdisk parted gparted wipefs blkdiscard hdparm mdadm lvcreate lvremove vgcreate vgremove pvcreate pvremove lvextend "+
		"zpool zfs cryptsetup kexec chsh chfn newusers vipw vigr update-alternatives update-rc.d chkconfig tune2fs e2fsck fsck resize2fs xfs_growfs quotaoff", nil, admin)
	add("passwd chpasswd visudo setcap setfacl newgrp sg", nil, admin, rights)
	add("crontab at batch atrm", later, admin)
	add("apt apt-get aptitude dpkg dnf yum rpm zypper pacman apk snap flatpak brew emerge nix-env port pip pip2 pip3 pipx uv conda mamba npm yarn pnpm gem cargo go composer cpan cpanm luarocks", packages, write, network)
	add("make cmake ninja gmake bazel mvn gradle ant rake tox pytest just npx bunx uvx", builder, unknown)
	add("docker podman nerdctl kubectl oc crictl ctr lxc machinectl", container, admin, network)
	add("aws gcloud az gsutil terraform tofu helm vault consul nomad ansible ansible-playbook salt puppet gh glab doctl s3cmd rclone", nil, network, unknown)

	// what runs others; see inside.go
	for name := range shells {
		add(name, shellC)
	}
	for name := range interpreters {
		add(name, interpreter, unknown)
	}
	for name := range editors {
		add(name, editor, read, write, unknown)
	}
	for name, w := range wrappers {
		add(name, wrapper(w), w.effects...)
	}
	add("eval", eval, session)
	add("source .", source, session)
	add("su runuser", su, rights)
	add("busybox toybox", applets)
	add("xargs parallel", xargs)
	add("mosh-server tmate ttyd gotty", opens, unknown, network)
}

// run reads one command: the program, and by its place in the table what its words mean.
func (s *script) run(args []field, in input) {
	if s.calls++; s.calls > maxCalls {
		s.unsure("it has too many commands")
		return
	}
	if s.wraps++; s.wraps > maxWraps {
		s.unsure("commands stand within commands, too deep to be read")
	} else {
		s.program(args, in)
	}
	s.wraps--
}

func (s *script) program(args []field, in input) {
	head := args[0]
	name := base(head.text)
	if !s.named {
		s.named = true
		if head.known && !head.glob && plain(name) {
			s.action = actionOf(name)
		}
	}
	switch {
	case !head.known:
		s.unsure("the name of a program is known only when it runs")
		s.effect(unknown)
		return
	case head.moves:
		s.unsure("the name of a program comes from a variable or another command")
	case head.glob:
		s.unsure("the name of a program is a pattern")
		s.effect(unknown)
		return
	case !plain(name):
		s.unsure("the name of a program has characters that are not usual in one")
		s.effect(unknown)
	}
	if name == "" {
		s.unsure("the name of a program is empty")
		return
	}
	if s.functions[head.text] {
		return // its body is read where it is defined
	}
	s.resource("program", name, "run")
	if name != head.text {
		s.resource("program", tidy(head.text), "run")
	}
	p := programs[name]
	if p == nil {
		if family, _, dotted := strings.Cut(name, "."); dotted {
			p = programs[family+"."]
		}
	}
	if p == nil {
		p = programs[versionless(name)]
	}
	if p == nil {
		s.effect(unknown)
		return
	}
	s.effect(p.effects...)
	if p.call != nil {
		p.call(s, name, args[1:], in)
	}
}

// actionOf is the word for a program: the servers of file transfers go by the name of the protocol.
func actionOf(name string) string {
	if name == "sftp-server" || name == "internal-sftp" {
		return "sftp"
	}
	return name
}

// versionless is python for python3.11.
func versionless(name string) string {
	t := strings.TrimRight(name, "0123456789.-")
	if t == name || t == "" {
		return name
	}
	return t
}

// plain reports whether a name is one that programs have, in letters that look like no others.
func plain(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"'`$\\<>|&;(){}*?", c) >= 0 {
			return false
		}
	}
	return len(name) < 256
}

func base(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }

// path adds one that is read or written, by every name that it may have.
func (s *script) path(f field, use ...string) {
	p := f.text
	if !f.known {
		s.unsure("a path is known only when it runs")
		return
	}
	if p == "" || p == "-" {
		return
	}
	switch p = tidy(p); p {
	case "/dev/null", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/tty", "/dev/zero", "/dev/random", "/dev/urandom":
		return
	}
	if strings.HasPrefix(p, "/dev/fd/") || strings.HasPrefix(p, "/proc/self/fd/") {
		return
	}
	s.effect(core.EffectFile)
	for _, u := range use {
		switch u {
		case "read", "list":
			s.effect(read)
		case "write", "delete":
			s.effect(write)
		}
	}
	if f.glob {
		use = append(use[:len(use):len(use)], "glob")
	}
	for _, proto := range [...]string{"/dev/tcp/", "/dev/udp/"} {
		if rest, ok := strings.CutPrefix(p, proto); ok {
			host, _, _ := strings.Cut(rest, "/")
			s.effect(network)
			s.resource("host", host, "connect")
			return
		}
	}
	if strings.HasPrefix(p, "/") || strings.HasPrefix(p, "~") {
		s.resource("path", p, use...)
		return
	}
	if s.lost {
		s.unsure("in which directory a path lies is known only when it runs")
	}
	s.resource("path", p, use...)
	for _, d := range s.dirs {
		s.resource("path", tidy(d+"/"+p), use...)
	}
}
