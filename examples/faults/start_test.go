//go:build linux

package faults_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRefusesToStart: a gateway with something wrong says what, where and what to do, and does not start. What can be
// seen without starting, weir check says in the same words.
func TestRefusesToStart(t *testing.T) {
	replace := func(old, new string) func(string) string {
		return func(c string) string {
			if !strings.Contains(c, old) {
				panic("no " + old)
			}
			return strings.Replace(c, old, new, 1)
		}
	}
	plugin := func(wasm string) func(string) string {
		return func(c string) string {
			return strings.Replace(c, "chain: [guardrails]", "plugins:\n  - {name: custom, wasm: "+wasm+"}\nchain: [guardrails, custom]", 1)
		}
	}
	for _, c := range []struct {
		name   string
		setup  setup
		before func(t *testing.T, g *gateway)
		code   int
		want   []string // %c is the configuration file, %d the folder
		check  int      // what weir check ends with
	}{
		{
			name: "an unknown key", setup: setup{edit: replace("protocol: postgres", "protocl: postgres")},
			code: 2, want: []string{"%c:8: targets[0].protocl: unknown key (did you mean protocol?)", "problem"}, check: 2,
		},
		{
			name: "an unknown limit", setup: setup{edit: replace("drain: 3s", "drain: 3s, max_frames: 1MiB")},
			code: 2, want: []string{"%c:12: targets[0].limits.max_frames: unknown key (did you mean max_frame?)"}, check: 2,
		},
		{
			name: "no configuration", before: func(t *testing.T, g *gateway) { must(t, os.Remove(g.config)) },
			code: 2, want: []string{"%c: there is no such file (name it with -c or $WEIR_CONFIG)"}, check: 2,
		},
		{
			name: "no policies", setup: setup{edit: replace("path: policies", "path: polices")},
			code: 2, want: []string{"%c:4: policies[0].path:", "%d/polices", "no such file or directory"}, check: 2,
		},
		{
			name: "broken Rego", before: func(_ *testing.T, g *gateway) {
				g.write("policies/guardrails.rego", "package weir.guardrails\n\ndeny contains {\"rule\": } if true\n")
			},
			code: 2, want: []string{"%d/policies/guardrails.rego:3"}, check: 2,
		},
		{
			name: "Rego with a name that is not there", before: func(_ *testing.T, g *gateway) {
				g.write("policies/guardrails.rego", "package weir.guardrails\n\nimport rego.v1\n\ndeny contains {\"rule\": \"x\", \"reason\": nosuch} if true\n")
			},
			code: 2, want: []string{"%d/policies/guardrails.rego:5", "nosuch"}, check: 2,
		},
		{
			name: "a policy that answers nothing", before: func(t *testing.T, g *gateway) {
				must(t, os.Remove(filepath.Join(g.dir, "policies/access.rego")))
				g.write("policies/guardrails.rego", "package weir.guardrails\n\nimport rego.v1\n\ndney contains {\"rule\": \"x\"} if true\n")
			},
			code: 2, want: []string{"policies[0]", "weir.guardrails", "deny"}, check: 2,
		},
		{
			name: "a policy of another package", before: func(t *testing.T, g *gateway) {
				must(t, os.Remove(filepath.Join(g.dir, "policies/access.rego")))
				g.write("policies/guardrails.rego", "package guardrails\n\nimport rego.v1\n\ndeny contains {\"rule\": \"x\"} if true\n")
			},
			code: 2, want: []string{"policies[0]", "package", "weir"}, check: 2,
		},
		{
			name: "no plugin", setup: setup{edit: plugin("nosuch.wasm")},
			code: 2, want: []string{"%c:6: plugins[0].wasm:", "%d/nosuch.wasm", "no such file"}, check: 2,
		},
		{
			name: "a plugin that is not WebAssembly", setup: setup{edit: plugin("policies/access.rego")},
			code: 2, want: []string{"%c:6: plugins[0]", "custom", "WebAssembly"}, check: 2,
		},
		{
			name: "a plugin cut short", setup: setup{edit: plugin("short.wasm")},
			before: func(t *testing.T, g *gateway) {
				b, err := os.ReadFile(filepath.Join(root, "plugins/pii/pii.wasm"))
				must(t, err)
				g.write("short.wasm", string(b[:len(b)/2]))
			},
			code: 2, want: []string{"%c:6: plugins[0]", "custom"}, check: 2,
		},
		{
			name: "a step that nobody has", setup: setup{edit: replace("chain: [guardrails]", "chain: [guardrails, guadrails]")},
			code: 2, want: []string{"%c:5: chain[1]: there is no policy or plugin \"guadrails\" (did you mean guardrails?)"}, check: 2,
		},
		{
			name: "no credential", setup: setup{edit: replace("${env:UPSTREAM_PASSWORD}", "${env:UPSTREAM_PASSWORD_OF_NOBODY}")},
			code: 2, want: []string{"%c:11: targets[0].credential.password:", "UPSTREAM_PASSWORD_OF_NOBODY", "is not set"}, check: 2,
		},
		{
			name: "a port that is taken", before: func(t *testing.T, g *gateway) { occupy(t, g.listen) },
			code: 3, want: []string{"%c:9:", "is in use", "choose another port"}, check: 0,
		},
		{
			name: "an admin port that is taken", before: func(t *testing.T, g *gateway) { occupy(t, g.admin) },
			code: 3, want: []string{"%c:2:", "admin", "is in use", "choose another port"}, check: 0,
		},
		{
			name: "a data folder that is a file", before: func(_ *testing.T, g *gateway) { g.write("data", "") },
			code: 3, want: []string{"%d/data", "not a directory"}, check: 0,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := prepare(t, c.setup)
			if c.before != nil {
				c.before(t, g)
			}
			g.launch()
			code := g.wait(10 * time.Second)
			out := g.process.out.String()
			if code != c.code {
				t.Errorf("weir serve ended with %d, not %d", code, c.code)
			}
			for i, w := range c.want {
				c.want[i] = strings.NewReplacer("%c", g.config, "%d", g.dir).Replace(w)
			}
			contains(t, "weir serve", out, c.want...)
			quiet(t, out)
			_, errs, code := g.run("check")
			if code != c.check {
				t.Errorf("weir check ended with %d, not %d:\n%s", code, c.check, errs)
			}
			if c.check == 2 {
				contains(t, "weir check", errs, c.want...)
			}
		})
	}
}

var trace = regexp.MustCompile(`goroutine \d+ \[|panic:|0x[0-9a-f]{6,}`)

// quiet demands that an error is for people: short, and without the program's inside.
func quiet(t testing.TB, text string) {
	t.Helper()
	if trace.MatchString(text) || strings.Contains(text, "weir: ready") || strings.Count(text, "\n") > 12 || text == "" {
		t.Errorf("that is not an error that a person can use:\n%s", text)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func occupy(t *testing.T, address string) {
	l, err := net.Listen("tcp", address)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
}

// TestDataNotWritable: a gateway that could not record does not start.
func TestDataNotWritable(t *testing.T) {
	t.Parallel()
	g := prepare(t, setup{user: nobody()})
	must(t, os.Mkdir(g.data, 0o500))
	must(t, os.Chmod(g.dir, 0o755))
	for d := g.dir; strings.HasPrefix(d, os.TempDir()) && d != os.TempDir(); d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	if g.user != nil {
		must(t, os.Chown(g.data, int(g.user.Uid), int(g.user.Gid)))
	}
	g.launch()
	if code := g.wait(10 * time.Second); code != 3 {
		t.Errorf("weir serve ended with %d", code)
	}
	contains(t, "weir serve", g.process.out.String(), g.data, "permission denied")
	quiet(t, g.process.out.String())
}

// nobody is whom to run as so that modes of files count; nil when this process is no better.
func nobody() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: 65534, Gid: 65534}
}

// TestTwoGatewaysOneData: the second one says that the folder is taken; the first one does not notice.
func TestTwoGatewaysOneData(t *testing.T) {
	t.Parallel()
	g := start(t, setup{})
	c := g.open("first")
	second := prepare(t, setup{data: g.data})
	second.launch()
	if code := second.wait(10 * time.Second); code != 3 {
		t.Errorf("the second gateway ended with %d", code)
	}
	contains(t, "the second gateway", second.process.out.String(), g.data, "in use by another process")
	quiet(t, second.process.out.String())
	for i := range 20 {
		c.must(t, fmt.Sprintf("select %d", i))
	}
	c.bye()
	if s := g.sealed("first"); s.Commands != 20 || s.End != "closed" {
		t.Errorf("the first gateway's session: %+v", s)
	}
	second.process = nil // its audit would stop nobody, and verify what is the first one's
	second.data = t.TempDir()
}

// TestCheckStartsNothing: weir check leaves no trace.
func TestCheckStartsNothing(t *testing.T) {
	t.Parallel()
	g := prepare(t, setup{})
	out, errs, code := g.run("check")
	if code != 0 {
		t.Fatalf("weir check ended with %d: %s", code, errs)
	}
	contains(t, "weir check", out, g.config, "is good")
	if _, err := os.Stat(g.data); !os.IsNotExist(err) {
		t.Errorf("weir check made %s", g.data)
	}
}
