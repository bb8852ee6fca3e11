package shell

import "strings"

// packages are managers of packages: installing runs what the packages bring.
func packages(s *script, name string, args []field, in input) {
	for i, a := range args {
		if i > 3 {
			break
		}
		switch a.text {
		case "install", "add", "upgrade", "update", "remove", "purge", "uninstall", "erase", "dist-upgrade", "full-upgrade", "autoremove", "reinstall", "i", "ci", "-S", "-R", "-i", "-U", "-r", "-P", "--install", "--remove", "--purge", "localinstall", "get", "build-dep", "-Syu", "-Sy", "-Su":
			s.effect(admin)
			s.resource("program", name, "run", "install")
		case "run", "exec", "x", "test", "start", "build", "generate", "dlx", "create", "run-script":
			s.effect(unknown)
			if a.text == "exec" || a.text == "x" || a.text == "dlx" {
				s.unsure("what " + name + " runs is not in the text")
			}
		}
		if name != "go" && (a.text == "-o" || strings.HasPrefix(a.text, "-o") || a.text == "-c" || strings.HasPrefix(a.text, "--config") || strings.HasPrefix(a.text, "-oDpkg") || strings.HasPrefix(a.text, "-oAPT")) && strings.HasPrefix(name, "apt") {
			s.unsure("an option of apt may run a program")
		}
	}
	_ = in
}

// builder runs what a file of its own says.
func builder(s *script, name string, args []field, _ input) {
	for i, a := range args {
		switch {
		case name == "make" && (strings.HasPrefix(a.text, "--eval") || a.text == "-E" || a.text == "-f" && i+1 < len(args) && args[i+1].text == "-" || a.text == "-f-" || strings.HasPrefix(a.text, "SHELL=")):
			s.unsure("make is given rules in the command")
		case name == "make" && a.text == "-f" && i+1 < len(args), name == "make" && a.text == "-C" && i+1 < len(args):
			s.path(args[i+1], "read")
		case name == "cmake" && (a.text == "-P" || a.text == "-E"):
			s.unsure("cmake is given a script or a command")
		case name == "npx" || name == "bunx" || name == "uvx":
			s.unsure("what " + name + " runs is not in the text")
		}
	}
}

// container runs what stands after the name of a container.
func container(s *script, name string, args []field, in input) {
	for i, a := range args {
		if !a.known {
			s.unsure("what " + name + " does is known only when it runs")
			return
		}
		if a.text == "--" && i+1 < len(args) {
			s.run(args[i+1:], in)
			return
		}
	}
	if len(args) == 0 {
		return
	}
	verb := args[0].text
	if verb == "container" && len(args) > 1 {
		verb = args[1].text
		args = args[1:]
	}
	if verb != "exec" && verb != "run" && verb != "shell" && verb != "debug" {
		return
	}
	g := syntaxOf{short: "euwvpnlhamcf", long: "env user workdir volume publish name network label hostname entrypoint env-file mount add-host cpus memory restart platform gpus cap-add cap-drop device security-opt pid ipc tmpfs container namespace context", stop: true}
	opts, rest := g.options(args[1:])
	for _, o := range opts {
		switch o.name {
		case "v", "volume", "mount":
			from, _, _ := strings.Cut(o.value.text, ":")
			if strings.HasPrefix(from, "/") {
				f := o.value
				f.text = from
				s.path(f, "read", "write", "tree")
			}
		case "privileged", "entrypoint", "cap-add", "device", "security-opt", "pid":
			s.effect(rights)
		}
	}
	if len(rest) > 1 {
		s.run(rest[1:], in)
		return
	}
	s.unsure("what the container runs is not in the text")
}

// keys are programs that read and write keys.
func keys(s *script, name string, args []field, in input) {
	opts, rest := syntaxOf{short: "fCtNPbDIsOrmaoiR", long: "output recipient identity homedir import-options"}.options(args)
	for _, o := range opts {
		switch o.name {
		case "f", "i", "identity":
			if o.has {
				s.path(o.value, "read")
			}
		case "o", "output":
			if o.has {
				s.path(o.value, "write")
			}
		}
	}
	if name == "ssh-agent" && len(rest) > 0 {
		s.run(rest, in)
		return
	}
	if name == "ssh-copy-id" {
		s.effect(network)
		for _, a := range rest {
			s.host(a)
		}
		return
	}
	for _, o := range opts {
		if name == "ssh-keygen" && o.name == "D" || name == "ssh-add" && o.name == "s" {
			s.unsure("an option loads a library")
		}
	}
	for _, a := range rest {
		s.path(a, "read")
	}
}
