package shell

import (
	"net/netip"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// host adds one that a program connects to.
func (s *script) host(f field) {
	s.effect(network)
	if !f.known {
		s.unsure("a host is known only when it runs")
		return
	}
	if name := hostOf(f.text); name != "" && plain(name) {
		s.resource("host", name, "connect")
	}
}

// hostOf is the host in a URL, user@host, host:path or host:port.
func hostOf(t string) string {
	if scheme, rest, ok := strings.Cut(t, "://"); ok {
		if strings.EqualFold(scheme, "file") {
			return ""
		}
		t = rest
	}
	t, _, _ = strings.Cut(t, "/")
	t = t[strings.LastIndexByte(t, '@')+1:]
	t, _, _ = strings.Cut(t, "?")
	if rest, ok := strings.CutPrefix(t, "["); ok {
		t, _, _ = strings.Cut(rest, "]")
		return t
	}
	if _, err := netip.ParseAddr(t); err == nil {
		return t
	}
	t, _, _ = strings.Cut(t, ":")
	return strings.ToLower(t)
}

// elsewhere reports whether an operand of scp or rsync is on another host.
func elsewhere(t string) bool {
	if strings.Contains(t, "://") {
		return true
	}
	i := strings.IndexByte(t, ':')
	return i > 0 && !strings.Contains(t[:i], "/")
}

const sshValues = "BbcDEeFIiJLlmOopPQRSWw"

// ssh runs its last words on another host.
func ssh(s *script, name string, args []field, in input) {
	g := syntaxOf{short: sshValues, stop: true}
	opts, rest := g.options(args)
	s.sshOptions(opts)
	if len(rest) == 0 {
		if doubtful(args) {
			s.unsure("a host is known only when it runs")
		}
		return
	}
	s.host(rest[0])
	// ssh takes options after the host, too
	more, command := g.options(rest[1:])
	s.sshOptions(more)
	if name == "mosh" && len(command) == 0 {
		command = nil
	}
	if len(command) == 0 {
		if _, none := given(append(opts, more...), "N"); none {
			return
		}
		s.effect(unknown)
		s.unsure("what is typed into the shell on the other host is known only when it runs")
		if in.given && in.literal {
			s.script(in.text, s.depth+1)
		}
		return
	}
	s.joined(command)
}

func (s *script) sshOptions(opts []option) {
	for _, o := range opts {
		switch o.name {
		case "i", "F", "E", "S", "I":
			s.path(o.value, "read")
			if o.name == "F" || o.name == "I" {
				s.unsure("a configuration or a library of ssh may run programs")
			}
		case "J":
			for hop := range strings.SplitSeq(o.value.text, ",") {
				f := o.value
				f.text = hop
				s.host(f)
			}
		case "o":
			l := strings.ToLower(strings.TrimSpace(o.value.text))
			for _, word := range [...]string{"proxycommand", "localcommand", "permitlocalcommand", "knownhostscommand", "remotecommand", "proxyusefdpass", "pkcs11provider", "securitykeyprovider", "match", "include", "xauthlocation", "*"} {
				if !o.value.known || strings.HasPrefix(l, word) {
					s.unsure("an option of ssh runs a program")
				}
			}
		case "L", "R", "D", "W", "w":
			s.resource("host", o.value.text, "forward")
		}
	}
}

// joined reads words that another shell is given as one text, as ssh and su do.
func (s *script) joined(command []field) {
	parts := make([]string, len(command))
	for i, c := range command {
		if !c.known {
			s.unsure("a command for another shell is known only when it runs")
			return
		}
		parts[i] = c.text
	}
	s.inner(strings.Join(parts, " "))
}

// inner reads a text that another shell runs.
func (s *script) inner(text string) { s.script(text, s.depth+1) }

// scp is the client, and with -t and -f the server of the old protocol.
func scp(s *script, _ string, args []field, _ input) {
	g := syntaxOf{short: "cDFiJloPSX"}
	opts, rest := g.options(args)
	s.sshOptions(opts)
	if _, other := given(opts, "S", "D"); other {
		s.unsure("an option of scp runs a program")
	}
	use := []string{"read"}
	if _, tree := given(opts, "r"); tree {
		use = append(use, "tree")
	}
	_, to := given(opts, "t")
	_, from := given(opts, "f")
	for i, a := range rest {
		switch {
		case to:
			s.path(a, append([]string{"write"}, use[1:]...)...)
		case from:
			s.path(a, use...)
		case a.known && elsewhere(a.text):
			s.host(a)
		case i == len(rest)-1:
			s.path(a, "write")
		default:
			s.path(a, use...)
		}
	}
}

// rsync is the client, and with --server the server.
func rsync(s *script, _ string, args []field, _ input) {
	g := syntaxOf{short: "efTBM@", long: "rsh exclude include filter exclude-from include-from files-from rsync-path password-file log-file temp-dir partial-dir compare-dest copy-dest link-dest backup-dir timeout port chmod chown usermap groupmap bwlimit max-size min-size suffix out-format remote-option"}
	_, server := given(plainOptions(args), "server")
	if server {
		g.short = "TB" // -e.iLsfxC has letters of its own, not a program
		args = append([]field(nil), args...)
		for i, a := range args {
			if strings.HasPrefix(a.text, "-") && !strings.HasPrefix(a.text, "--") {
				args[i].text, _, _ = strings.Cut(a.text, "e.")
			}
		}
	}
	opts, rest := g.options(args)
	_, sender := given(opts, "sender")
	deletes := false
	for _, o := range opts {
		switch {
		case o.name == "e" && !server, o.name == "rsh":
			s.shellOption(o)
		case o.name == "rsync-path":
			s.shellOption(o)
		case strings.HasPrefix(o.name, "del"), o.name == "remove-source-files":
			deletes = true
		case o.name == "daemon", o.name == "config":
			s.unsure("a configuration of rsync decides what it does")
		case o.name == "exclude-from", o.name == "include-from", o.name == "password-file":
			s.path(o.value, "read")
		case o.name == "log-file", o.name == "backup-dir":
			s.path(o.value, "write")
		case o.name == "files-from":
			s.unsure("which paths are taken is read from a list")
		}
	}
	write := []string{"write", "tree"}
	if deletes {
		write = append(write, "delete")
	}
	if server && len(rest) > 0 && rest[0].text == "." { // the first is a place holder
		rest = rest[1:]
	}
	for i, a := range rest {
		switch {
		case server && sender:
			s.path(a, "read", "tree")
		case server:
			s.path(a, write...)
		case a.known && elsewhere(a.text):
			s.host(a)
		case i == len(rest)-1 && len(rest) > 1:
			s.path(a, write...)
		default:
			s.path(a, "read", "tree")
		}
	}
}

func plainOptions(args []field) []option {
	opts, _ := syntaxOf{}.options(args)
	return opts
}

// shellOption is an option that names a command: rsync -e 'ssh -p 22'.
func (s *script) shellOption(o option) {
	if !o.has || !o.value.known {
		s.unsure("an option names a program that is known only when it runs")
		return
	}
	f := strings.Fields(o.value.text)
	if len(f) > 0 && base(f[0]) == "ssh" || len(f) == 1 && (base(f[0]) == "rsync" || base(f[0]) == "rsh") {
		args := make([]field, 0, len(f))
		for _, w := range f[1:] {
			args = append(args, field{text: w, known: true})
		}
		opts, _ := syntaxOf{short: sshValues}.options(args)
		s.sshOptions(opts)
		s.resource("program", base(f[0]), "run")
		return
	}
	s.inner(o.value.text)
}

// serves is an sftp server: what it is asked is seen as it is asked.
func serves(s *script, _ string, args []field, _ input) {
	opts, _ := syntaxOf{short: "dflPpu"}.options(args)
	if o, ok := given(opts, "d"); ok {
		s.path(o.value, "read")
	}
}

// gitServer is the other side of a fetch or a push.
func gitServer(s *script, name string, args []field, _ input) {
	_, rest := syntaxOf{long: "timeout"}.options(args)
	for _, a := range rest {
		if name == "git-receive-pack" {
			s.path(a, "read", "write", "tree")
		} else {
			s.path(a, "read", "tree")
		}
	}
}

// git looks at what runs programs and at what talks to a host.
func git(s *script, _ string, args []field, in input) {
	g := syntaxOf{short: "cC", long: "git-dir work-tree namespace exec-path config-env super-prefix attr-source", stop: true}
	opts, rest := g.options(args)
	for _, o := range opts {
		switch o.name {
		case "c", "config-env":
			s.gitSetting(o.value)
		case "exec-path":
			if o.has {
				s.unsure("where git finds its programs is set")
			}
		case "C":
			if o.value.known {
				s.path(o.value, "read")
			}
		}
	}
	if len(rest) == 0 {
		return
	}
	if !rest[0].known {
		s.unsure("which command of git runs is known only when it runs")
		return
	}
	verb, words := rest[0].text, rest[1:]
	if verb == "upload-pack" || verb == "receive-pack" || verb == "upload-archive" {
		gitServer(s, "git-"+verb, words, in)
		return
	}
	for i, a := range words {
		for _, o := range [...]string{"--upload-pack", "--receive-pack", "--exec", "-x", "--extcmd", "--open-files-in-pager", "-O", "--upload-p", "--receive-p"} {
			if strings.HasPrefix(a.text, o) && (strings.HasPrefix(o, "--") || verb == "rebase" && o == "-x" || verb == "grep" && o == "-O" || verb == "difftool" && o == "-x") {
				s.unsure("an option of git runs a program")
			}
		}
		if strings.HasPrefix(a.text, "ext::") {
			s.unsure("an address of git runs a program")
		}
		if verb == "clone" && (a.text == "-c" || a.text == "--config") && i+1 < len(words) {
			s.gitSetting(words[i+1])
		}
		if verb == "clone" && (strings.HasPrefix(a.text, "-u") || strings.HasPrefix(a.text, "--template")) {
			s.unsure("an option of git runs a program")
		}
	}
	switch verb {
	case "clone", "fetch", "pull", "push", "ls-remote", "remote", "submodule":
		s.effect(network)
		for _, a := range words {
			if !strings.HasPrefix(a.text, "-") && (strings.Contains(a.text, "://") || strings.Contains(a.text, "@") && strings.Contains(a.text, ":")) {
				s.host(a)
			}
		}
	case "config":
		for _, a := range words {
			f := a
			f.text += "=x"
			s.gitSetting(f)
		}
	case "bisect", "filter-branch", "submodule--helper", "for-each-repo", "daemon", "instaweb", "mergetool", "hook":
		s.unsure("this command of git runs other programs")
	}
}

// gitSetting is a setting that may name a program.
func (s *script) gitSetting(f field) {
	key, _, _ := strings.Cut(strings.ToLower(f.text), "=")
	if !f.known {
		s.unsure("a setting of git is known only when it runs")
		return
	}
	for _, word := range [...]string{"alias.", "core.pager", "pager.", "core.editor", "sequence.editor", "core.sshcommand", "core.fsmonitor", "core.hookspath", "core.askpass", "core.gitproxy", "credential.", "diff.", "difftool.", "merge.", "mergetool.", "filter.", "gpg.", "include", "protocol.ext", "uploadpack.packobjectshook", "web.browser", "browser.", "man.", "http.proxy", "init.templatedir", "remote.", "url.", "trailer.", "sendemail.", "tar."} {
		if strings.HasPrefix(key, word) {
			s.unsure("a setting of git may run a program")
			return
		}
	}
}

// curl sends and fetches.
func curl(s *script, _ string, args []field, _ input) {
	g := syntaxOf{short: "AbcCdDeEFhHKmoPQrtTuUwxXyYz", long: "output upload-file data data-binary data-raw data-ascii data-urlencode form config header user user-agent cookie cookie-jar request url " +
		"cacert cert key proxy output-dir referer max-time connect-timeout retry range resolve connect-to dump-header write-out interface json trace trace-ascii netrc-file unix-socket abstract-unix-socket engine stderr limit-rate retry-delay preproxy socks5 socks5-hostname"}
	opts, rest := g.options(args)
	for _, o := range opts {
		at := o.value
		switch o.name {
		case "o", "output", "D", "dump-header", "c", "cookie-jar", "trace", "trace-ascii", "stderr", "output-dir":
			s.path(o.value, "write")
		case "T", "upload-file", "E", "cert", "key", "cacert", "netrc-file", "unix-socket":
			s.path(o.value, "read")
		case "K", "config":
			s.path(o.value, "read")
			s.unsure("a file of options decides what curl does")
		case "d", "data", "data-binary", "data-ascii", "json", "data-urlencode", "F", "form", "H", "header", "b", "cookie":
			i := strings.IndexAny(at.text, "@<")
			named := o.name == "F" || o.name == "form" || o.name == "data-urlencode"
			if i == 0 || i > 0 && named {
				at.text = at.text[i+1:]
				if named {
					at.text, _, _ = strings.Cut(at.text, ";")
				}
				s.path(at, "read")
				s.effect(write)
			}
		case "url":
			rest = append(rest, o.value)
		case "x", "proxy", "preproxy", "socks5", "socks5-hostname":
			s.host(o.value)
		case "O", "remote-name":
			s.path(field{text: "*", known: true, glob: true}, "write")
		case "engine":
			s.unsure("an option of curl loads a library")
		}
	}
	s.urls(rest)
}

// urls are what curl and wget fetch.
func (s *script) urls(list []field) {
	for _, u := range list {
		if scheme, p, ok := strings.Cut(u.text, "://"); ok && strings.EqualFold(scheme, "file") {
			u.text = p[max(0, strings.IndexByte(p, '/')):]
			s.path(u, "read")
			continue
		}
		if u.known || !strings.HasPrefix(u.text, "-") {
			if host := hostOf(u.text); !u.known && strings.Contains(u.text, "://") && !strings.Contains(host, "*") { // the host is known, the rest is not
				s.resource("host", host, "connect")
				continue
			}
			s.host(u)
		}
	}
}

func wget(s *script, _ string, args []field, _ input) {
	g := syntaxOf{short: "OoaiPtTUQeAaRDIXlwBd", long: "output-document output-file append-output input-file directory-prefix user-agent header post-file post-data body-file body-data execute tries timeout user password ca-certificate certificate private-key use-askpass load-cookies save-cookies config"}
	opts, rest := g.options(args)
	named := false
	for _, o := range opts {
		switch o.name {
		case "O", "output-document", "o", "output-file", "a", "append-output", "P", "directory-prefix", "save-cookies":
			named = named || o.name == "O" || o.name == "output-document"
			s.path(o.value, "write")
		case "post-file", "body-file", "load-cookies", "private-key", "certificate":
			s.path(o.value, "read")
		case "i", "input-file", "config":
			s.path(o.value, "read")
			s.unsure("a file decides what wget does")
		case "use-askpass", "e", "execute":
			s.unsure("an option of wget may run a program")
		}
	}
	if !named {
		s.path(field{text: "*", known: true, glob: true}, "write")
	}
	s.urls(rest)
}

// netcat connects, listens, and may hand the connection to a program.
func netcat(s *script, name string, args []field, _ input) {
	if name == "openssl" {
		openssl(s, args)
		return
	}
	if name == "socat" {
		_, rest := syntaxOf{short: "lLWtTb"}.options(args)
		for _, a := range rest {
			kind, what, _ := strings.Cut(a.text, ":")
			k := strings.ToLower(kind)
			switch {
			case !a.known, strings.HasPrefix(k, "exec"), strings.HasPrefix(k, "system"), strings.HasPrefix(k, "shell"), strings.HasPrefix(k, "pty"):
				s.unsure("socat hands a connection to a program")
			case strings.Contains(k, "connect"), k == "tcp", k == "tcp4", k == "tcp6", k == "udp", k == "ssl", k == "openssl":
				f := a
				f.text = what
				s.host(f)
			case strings.HasPrefix(k, "open"), strings.HasPrefix(k, "file"), strings.HasPrefix(k, "create"), strings.HasPrefix(k, "gopen"):
				f := a
				f.text, _, _ = strings.Cut(what, ",")
				s.path(f, "read", "write")
			}
		}
		return
	}
	opts, rest := syntaxOf{short: "cegIiMmOPpqsTVwXx", long: "exec sh-exec lua-exec source-port proxy"}.options(args)
	if _, hands := given(opts, "e", "c", "exec", "sh-exec", "lua-exec"); hands && name != "telnet" {
		s.unsure("a connection is handed to a program")
	}
	for _, a := range rest {
		if strings.Trim(a.text, "0123456789-") != "" {
			s.host(a)
			break
		}
	}
}

// openssl talks to hosts, and encrypts and decodes files.
func openssl(s *script, args []field) {
	for i, a := range args {
		if i+1 >= len(args) {
			break
		}
		switch a.text {
		case "-connect", "-host":
			s.host(args[i+1])
		case "-in", "-key", "-inkey", "-cert", "-CAfile", "-kfile":
			s.path(args[i+1], "read")
		case "-out", "-keyout":
			s.path(args[i+1], "write")
		case "-engine", "-provider":
			s.unsure("an option of openssl loads a library")
		}
	}
}

// remote is a program whose first operand is a host.
func remote(s *script, name string, args []field, _ input) {
	opts, rest := syntaxOf{short: "abcDFiIJlLmnoPpqRsStTwWX"}.options(args)
	if name == "sftp" {
		s.sshOptions(opts)
		if _, other := given(opts, "S", "D", "s"); other {
			s.unsure("an option of sftp runs a program")
		}
		s.effect(core.EffectFile)
	}
	if name == "nmap" {
		for _, a := range args {
			if strings.HasPrefix(a.text, "--script") || a.text == "--interactive" {
				s.unsure("a script of nmap is code")
			}
		}
	}
	if name == "tcpdump" || name == "tshark" {
		if _, runs := given(opts, "z"); runs {
			s.unsure("an option of " + name + " runs a program")
		}
		return
	}
	for _, a := range rest {
		if !a.known {
			s.host(a)
			return
		}
		if strings.ContainsAny(a.text, ".:@") || name != "http" && name != "https" && name != "httpie" {
			s.host(a)
			return
		}
	}
}

// database is a client with a language of its own, in which some words run programs.
func database(s *script, name string, args []field, in input) {
	opts, _ := syntaxOf{short: "hHUupPdcefnoa", long: "host command file execute"}.options(args)
	for _, o := range opts {
		switch o.name {
		case "h", "host":
			if o.has {
				s.host(o.value)
			}
		case "f", "file":
			if o.has && name != "redis-cli" {
				s.path(o.value, "read")
			}
		}
	}
	for _, text := range append(args, field{text: in.text, known: true}) {
		for _, word := range [...]string{`\!`, "system ", ".shell", ".system", "PROGRAM", "program", `\o |`, `\g |`, "shell ", ".open |", "edit", ".once |", ".output |", "load_extension"} {
			if strings.Contains(text.text, word) {
				s.unsure("the client of a database is told to run a program")
			}
		}
	}
}
