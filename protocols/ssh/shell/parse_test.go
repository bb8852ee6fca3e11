package shell

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// ordinary are commands of a day's work: all of them can be read.
var ordinary = []struct{ text, action, effects, resources string }{
	{"ls -la", "ls", "read process", "program:ls:run"},
	{"cat /etc/hostname", "cat", "read file process", "program:cat:run path:/etc/hostname:read"},
	{"/usr/bin/cat x", "cat", "read file process", "program:cat:run program:/usr/bin/cat:run path:x:read"},
	{"cp a b", "cp", "read write file process", "program:cp:run path:a:read path:b:write"},
	{"cp -t dir a b", "cp", "read write file process", "program:cp:run path:dir:write path:a:read path:b:read"},
	{"cp -- -a b", "cp", "read write file process", "program:cp:run path:-a:read path:b:write"},
	{"mv a b", "mv", "read write file process", "program:mv:run path:a:read+delete+tree path:b:write"},
	{"rm a", "rm", "write file process", "program:rm:run path:a:delete"},
	{"rm --recursive a", "rm", "write file process", "program:rm:run path:a:delete+tree"},
	{"rm --rec a", "rm", "write file process", "program:rm:run path:a:delete+tree"},
	{"rm a -fr", "rm", "write file process", "program:rm:run path:a:delete+tree"},
	{"rm *.o", "rm", "write file process", "program:rm:run path:*.o:delete+glob"},
	{"mkdir -p a/b", "mkdir", "write file process", "program:mkdir:run path:a/b:write"},
	{"echo x >> log", "echo", "read write file process", "path:log:write program:echo:run"},
	{"sort -o out in", "sort", "read write file process", "program:sort:run path:out:write path:in:read"},
	{"grep -rn needle src", "grep", "read file process", "program:grep:run path:src:read+tree"},
	{"grep -e a -f pats x", "grep", "read file process", "program:grep:run path:pats:read path:x:read"},
	{"sed -i 's/a/b/g' x", "sed", "read write file process", "program:sed:run path:x:read+write"},
	{"sed -n '/a/,/b/p' x", "sed", "read file process", "program:sed:run path:x:read"},
	{"awk '{print $1}' x", "awk", "read file process", "program:awk:run path:x:read"},
	{"awk -F: '$3 > 100 {print $1}' x", "awk", "read file process", "program:awk:run path:x:read"},
	{"chmod +x run.sh", "chmod", "write privilege file process", "program:chmod:run path:run.sh:write+mode"},
	{"chmod -x run.sh", "chmod", "write privilege file process", "program:chmod:run path:run.sh:write+mode"},
	{"chown -R me:me d", "chown", "write privilege file process", "program:chown:run path:d:write+owner+tree"},
	{"tar xzf a.tgz -C /opt", "tar", "read write file process", "program:tar:run path:a.tgz:read path:/opt:write+tree"},
	{"dd if=a of=b bs=1M", "dd", "read write file process", "program:dd:run path:a:read path:b:write"},
	{"ssh -i key -p 22 me@host uptime", "ssh", "read file process network", "program:ssh:run path:key:read host:host:connect program:uptime:run"},
	{"curl -fsSL https://example.com/x -o /tmp/x", "curl", "write file process network", "program:curl:run path:/tmp/x:write host:example.com:connect"},
	{"wget https://example.com/x", "wget", "write file process network", "program:wget:run path:*:write+glob host:example.com:connect"},
	{"ping -c 3 10.0.0.1", "ping", "process network", "program:ping:run host:10.0.0.1:connect"},
	{"scp -t /srv/in", "scp", "read write file process network", "program:scp:run path:/srv/in:write"},
	{"scp -r -f /srv/out", "scp", "read write file process network", "program:scp:run path:/srv/out:read+tree"},
	{"rsync --server -vlogDtpre.iLsfxCIvu . /srv/in/", "rsync", "read write file process", "program:rsync:run path:/srv/in:write+tree"},
	{"rsync --server --sender -vlogDtpre.iLsfxCIvu . /srv/out", "rsync", "read write file process", "program:rsync:run path:/srv/out:read+tree"},
	{"rsync -av a host:b", "rsync", "read write file process network", "program:rsync:run path:a:read+tree host:host:connect"},
	{"git-upload-pack '/srv/x.git'", "git-upload-pack", "read file process", "program:git-upload-pack:run path:/srv/x.git:read+tree"},
	{"git-receive-pack '/srv/x.git'", "git-receive-pack", "read write file process", "program:git-receive-pack:run path:/srv/x.git:read+write+tree"},
	{"/usr/lib/openssh/sftp-server", "sftp", "read write process", "program:sftp-server:run program:/usr/lib/openssh/sftp-server:run"},
	{"git status", "git", "read write process", "program:git:run"},
	{"systemctl restart nginx", "systemctl", "process admin", "program:systemctl:run"},
	{"apt-get install -y jq", "apt-get", "write process network admin", "program:apt-get:run+install"},
	{"sudo apt install jq", "sudo", "write privilege process network admin", "program:sudo:run program:apt:run+install"},
	{"python3 run.py --all", "python3", "read file process unknown", "program:python3:run program:run.py:run path:run.py:read+run"},
	{"./build.sh", "build.sh", "process unknown", "program:build.sh:run"},
	{"frobnicate --now", "frobnicate", "process unknown", "program:frobnicate:run"},
	{`tar czf backup-$(date +%F).tgz src`, "tar", "read write file process", "program:tar:run path:backup-*.tgz:write+glob path:src:read+tree program:date:run"},
	{`for i in 1 2; do echo $i > f$i; done`, "echo", "read write file process", "path:f1:write path:f2:write program:echo:run"},
	{`while IFS= read -r l; do echo "$l"; done < list`, "read", "read session file process", "path:list:read program:read:run program:echo:run"},
	{"git commit -m 'rm -rf / is gone'", "git", "read write process", "program:git:run"},
	{"echo 'done!'", "echo", "read process", "program:echo:run"},
	{"test -f x && echo yes", "test", "read session process", "program:test:run program:echo:run"},
	{"[ -d /srv ] || mkdir /srv", "[", "write session file process", "program:[:run program:mkdir:run path:/srv:write"},
	{"ls 2>&1 | head -n 3", "ls", "read process", "program:ls:run program:head:run"},
	{"ls 2>/dev/null", "ls", "read process", "program:ls:run"},
	{"A=1", "exec", "session process", ""},
	{"", "exec", "process", ""},
	{"# nothing", "exec", "process", ""},
	{"find . -name '*.go' -type f", "find", "read file process", "program:find:run path:.:list+tree"},
	{"xargs echo", "xargs", "read process", "program:xargs:run program:echo:run"},
	{"docker ps", "docker", "process network admin", "program:docker:run"},
	{"command -v git", "command", "process", "program:command:run"},
	{"ln -s a b", "ln", "write read file process", "program:ln:run path:a:read path:b:write"},
	{"cd /srv && ls", "cd", "read session process", "program:cd:run program:ls:run"},
	{"cat <<E > x\nbody {} $((1+1))\nE", "cat", "read write file process", "path:x:write program:cat:run"},
}

func TestOrdinary(t *testing.T) {
	t.Parallel()
	for _, o := range ordinary {
		c := Parse(o.text)
		if c.Status != core.StatusKnown {
			t.Errorf("%q is incomplete: %s", o.text, c.Reason)
		}
		if c.Action != o.action {
			t.Errorf("%q: action %q", o.text, c.Action)
		}
		if c.Text != o.text || c.Fingerprint == "" || !c.Where {
			t.Errorf("%q: %+v", o.text, c)
		}
		var effects []string
		for _, e := range c.Effects {
			effects = append(effects, string(e))
		}
		want := strings.Fields(o.effects)
		slices.Sort(want)
		if sorted := slices.Sorted(slices.Values(effects)); !slices.Equal(sorted, want) {
			t.Errorf("%q: effects %v, not %v", o.text, sorted, want)
		}
		var got []string
		for _, r := range c.Resources {
			got = append(got, r.Kind+":"+r.Name+":"+strings.Join(r.Use, "+"))
		}
		named := strings.Fields(o.resources)
		slices.Sort(named)
		slices.Sort(got)
		for _, n := range named {
			if !slices.Contains(got, n) {
				t.Errorf("%q: %s is missing in %v", o.text, n, got)
			}
		}
		if len(got) > len(named)+1 { // ./x also goes by its path
			t.Errorf("%q: %v", o.text, got)
		}
	}
}

// TestReasonsHoldNoText: a reason goes to the client and into logs.
func TestReasonsHoldNoText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`hunter2 "`, `$hunter2`, "cat <<hunter2\nx", `bash -c "$(hunter2)"`, `hunter2() { hunter2; }`, "echo ${hunter2", "if hunter2", `((hunter2`} {
		if c := Parse(text); strings.Contains(c.Reason, "hunter2") || c.Status == core.StatusKnown {
			t.Errorf("%q: %s: %s", text, c.Status, c.Reason)
		}
	}
}

// TestBounds: what is made to take long is refused soon.
func TestBounds(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"braces":     strings.Repeat("{a,b}", 4000),
		"brace sets": "cat " + strings.Repeat("{a,b,c,d,e,f,g,h}", 30),
		"sequence":   "cat {1..999999999}{1..999999999}",
		"variables":  "A=xx;" + strings.Repeat("A=$A$A;", 4000) + "cat $A",
		"loops":      strings.Repeat("for a in 1 2 3 4 5 6 7 8; do ", 300) + "cat $a" + strings.Repeat("; done", 300),
		"ifs":        strings.Repeat("if ", 20000),
		"nots":       strings.Repeat("! ", 30000) + "ls",
		"ands":       strings.Repeat("a && ", 12000) + "a",
		"pipes":      strings.Repeat("a | ", 15000) + "a",
		"backticks":  strings.Repeat("`", 30001),
		"escaped":    strings.Repeat("\\`", 30001),
		"arithmetic": "echo $((" + strings.Repeat("-~", 30000) + "1))",
		"tests":      "[[ " + strings.Repeat("! ", 30000) + "x ]]",
		"quotes":     strings.Repeat(`"$(`, 20000),
		"paths":      "cat " + strings.Repeat("a", 60000),
		"dirs":       strings.Repeat("cd a; cat b; ", 4000),
		"documents":  strings.Repeat("cat <<E\n", 8000),
		"evals":      strings.Repeat("eval ", 12000) + "ls",
		"sudos":      strings.Repeat("sudo ", 12000) + "ls",
		"wide":       strings.Repeat("sh -c 'sh -c \"ls;ls;ls;ls;ls;ls;ls;ls\"';", 1400),
		"redirects":  strings.Repeat(">a", 30000),
		"else":       strings.Repeat("((1", 20000),
		"ternary":    "echo $((" + strings.Repeat("1?", 30000) + "1))",
		"globs":      strings.Repeat("@(", 60),
		"subst":      strings.Repeat("${a:-", 12000),
	} {
		start := time.Now()
		c := Parse(text)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%s took %s", name, took)
		} else {
			t.Logf("%s: %s: %s %s, %d resources", name, took.Round(time.Microsecond), c.Status, c.Reason, len(c.Resources))
		}
		if len(c.Facts()) > 8<<20 {
			t.Errorf("%s: %d bytes of facts", name, len(c.Facts()))
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, a := range attacks {
		if len(a.text) < 2000 {
			f.Add(a.text)
		}
	}
	for _, o := range ordinary {
		f.Add(o.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := Parse(text)
		if c.Text != text || c.Action == "" || c.Fingerprint == "" || !slices.Contains(c.Effects, core.EffectProcess) {
			t.Fatalf("%+v", c)
		}
		if (c.Status == core.StatusIncomplete) != (c.Reason != "") || c.Status == "" {
			t.Fatalf("%s: %q", c.Status, c.Reason)
		}
		if len(c.Resources) > maxResources || !json.Valid(c.Facts()) {
			t.Fatalf("%d resources", len(c.Resources))
		}
		for _, r := range c.Resources {
			if r.Name == "" || len(r.Use) == 0 || len(r.Name) > maxValue {
				t.Fatalf("%+v", r)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for name, text := range map[string]string{"short": "ls -la /srv", "ordinary": `cd /srv/app && git pull && sudo systemctl restart app 2>&1 | tee -a /tmp/log`} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Parse(text)
			}
		})
	}
}
