package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/modfile"

	"github.com/weir-gateway/weir/core/opa"
	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// What is printed in a document is done here, in the document's order. The word behind three backticks says how:
//
//	sh            runs in one shell, whose folder and variables last; every command must succeed
//	sh fails      the last command must fail
//	sh serve      runs in the background until the end, and must get ready
//	text          what the block before prints, line by line and in this order; … stands for anything
//	rego FILE     and any other language with a file's name: the file is written
//	diff FILE     the file is changed: each - line is there, + lines come after the line before them
//	yaml          a whole configuration: weir check must find it good
type block struct {
	kind, arg string
	lines     []string
	at        string // FILE:LINE
}

func (b block) text() string { return strings.Join(b.lines, "\n") + "\n" }

func readBlocks(t *testing.T, file string) (blocks []block) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var open *block
	for i, line := range strings.Split(string(text), "\n") {
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open != nil:
			blocks = append(blocks, *open)
			open = nil
		case fence:
			open = &block{at: fmt.Sprintf("%s:%d", file, i+1)}
			open.kind, open.arg, _ = strings.Cut(info, " ")
		case open != nil:
			open.lines = append(open.lines, line)
		}
	}
	if open != nil {
		t.Fatalf("%s: the block has no end", open.at)
	}
	return blocks
}

// elsewhere are the lines of README.md that the test does not run as they stand, and what it runs instead.
var elsewhere = map[string]string{
	"make test":                            "",                              // this is it
	"make demo":                            "",                              // TestDemo
	"make build":                           "",                              // weir on the PATH is the binary under test
	"export WEIR=$PWD PATH=$PWD/bin:$PATH": "cd $CLONE && export WEIR=$PWD", // in each terminal
	"kill -HUP $(pgrep -x weir)":           "",                              // sent to the test's own gateway
}

// approvalID is an id in an example; the test says the one that was given last.
var (
	approvalID    = regexp.MustCompile(`\b[0-9a-z]{4}-[0-9a-z]{4}-[0-9a-z]{4}\b`)
	givenApproval = regexp.MustCompile("weir approvals approve ([0-9a-z-]+)`")
)

var sessionID = regexp.MustCompile(`\b01[0-9a-z]{24}\b`)

// TestReadme walks the newcomer's path: every block of README.md, in order.
func TestReadme(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	t.Parallel()
	server, err := postgrestest.Start(t.Context(), postgrestest.Options{Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	listen, admin := mustPort(t), mustPort(t)
	here := strings.NewReplacer("15432", listen, "5432", fmt.Sprint(server.Port), "8480", admin)
	home := t.TempDir()
	clone, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	sh := newShell(t, "HOME="+home, "CLONE="+clone, "PGPASSWORD="+server.Password, "PATH="+server.Bin+":"+os.Getenv("PATH"))
	gateway := &gatewayOf{}
	t.Cleanup(func() {
		if gateway.running != nil {
			_ = gateway.stop(syscall.SIGTERM)
		}
		if t.Failed() {
			t.Log(gateway.log())
		}
	})
	var last block
	printed, checked, sessions, approval := "", false, 0, ""
	for _, b := range readBlocks(t, "README.md") {
		if t.Failed() {
			return
		}
		t.Log(b.at, b.kind, b.arg)
		switch b.kind {
		case "sh":
			last, checked = b, true
			if b.arg == "serve" {
				dir := strings.TrimSpace(sh.must(t, "pwd"))
				password := strings.TrimSpace(sh.must(t, "echo $ORDERS_PASSWORD"))
				if err := gateway.start(dir, []string{"ORDERS_PASSWORD=" + password}); err != nil {
					t.Fatal(err)
				}
				printed = gateway.log()
				continue
			}
			if strings.Contains(b.text(), "weir s") || strings.Contains(b.text(), "weir re") || strings.Contains(b.text(), "weir ver") {
				waitForArchive(t, strings.TrimSpace(sh.must(t, "pwd")), sessions)
			}
			printed, checked = "", false
			for i, line := range b.lines {
				if strings.HasPrefix(line, "kill -HUP") {
					reload(t, gateway)
				}
				if instead, special := elsewhere[line]; special {
					line = instead
				}
				if line == "" {
					continue
				}
				line = here.Replace(line)
				if sessionID.MatchString(line) {
					line = sessionID.ReplaceAllString(line, latestDenied(t, strings.TrimSpace(sh.must(t, "pwd"))))
				}
				if strings.HasPrefix(line, "weir approvals ") {
					line = approvalID.ReplaceAllString(line, approval)
				}
				out, code := sh.run(t, line)
				checked = true
				if given := givenApproval.FindStringSubmatch(out); given != nil {
					approval = given[1]
				}
				if strings.HasPrefix(line, "psql ") && gateway.running != nil {
					sessions++
				}
				printed += out
				if wants := b.arg == "fails" && i == len(b.lines)-1; wants != (code != 0) {
					t.Fatalf("%s: %s\nexit %d\n%s", b.at, line, code, out)
				}
			}
			if strings.Contains(b.text(), "cp -r examples/quickstart") { // the ports of this test, not the usual ones
				file := filepath.Join(home, "weir-quickstart", "weir.yaml")
				text, err := os.ReadFile(file)
				if err == nil {
					err = os.WriteFile(file, []byte(here.Replace(string(text))), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		case "text":
			if last.kind == "sh" && checked {
				compare(t, b, here.Replace(b.text()), printed)
			}
		case "yaml": // a part of a configuration: it has to pass beside what there is
			dir := strings.TrimSpace(sh.must(t, "pwd"))
			text, err := os.ReadFile(filepath.Join(dir, "weir.yaml"))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "part.yaml"), append(text, "\n"+b.text()+"\n"...), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			sh.must(t, "S3_ACCESS_KEY=a S3_SECRET_KEY=b weir check -c part.yaml && rm part.yaml")
		case "diff":
			patch(t, filepath.Join(strings.TrimSpace(sh.must(t, "pwd")), b.arg), b)
		default:
			if b.arg == "" {
				t.Errorf("%s: what is to be done with a block of %q?", b.at, b.kind)
				continue
			}
			file := filepath.Join(strings.TrimSpace(sh.must(t, "pwd")), b.arg)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(b.text()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	report, err := opa.Test(t.Context(), filepath.Join(home, "weir-quickstart", "policies"))
	if err != nil || !report.OK() || report.Pass < 12 {
		t.Errorf("the policies' tests: %v %+v", err, report)
	}
	if err := gateway.stop(syscall.SIGTERM); err != nil {
		t.Errorf("weir serve: %v", err)
	}
}

// TestDemo runs make demo and compares what it prints with README.md.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	var shown block
	blocks := readBlocks(t, "README.md")
	for i, b := range blocks {
		if b.kind == "sh" && strings.TrimSpace(b.text()) == "make demo" {
			shown = blocks[i+1]
		}
	}
	if shown.kind != "text" {
		t.Fatal("README.md does not show make demo and what it prints")
	}
	out, err := exec.CommandContext(t.Context(), "make", "demo").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	compare(t, shown, shown.text(), string(out))
	for _, secret := range []string{"4111111111111111", "5500005555555559", "@example.com |"} {
		for _, line := range strings.Split(string(out), "\n") {
			if strings.Contains(line, secret) && !strings.Contains(line, "***") {
				t.Errorf("the demo shows %q in clear: %s", secret, line)
			}
		}
	}
}

// TestDocuments checks what the other documents tell people to run.
func TestDocuments(t *testing.T) {
	for _, file := range []string{"CONTRIBUTING.md", "SECURITY.md", "RATIONALE.md", "protocols/postgres/README.md", "protocols/ssh/README.md", "policies/README.md", "examples/agent-loop/README.md", "core/identity/README.md", "core/gateway/ADMIN.md"} {
		for _, b := range readBlocks(t, file) {
			switch b.kind {
			case "sh":
				for _, line := range b.lines {
					if line != "make demo" { // TestDemo
						checkCommand(t, b, line)
					}
				}
			case "yaml":
				checkConfig(t, b)
			}
		}
	}
}

// TestLibraries: RATIONALE.md names each module that something here imports, or runs as a tool, and no other.
func TestLibraries(t *testing.T) {
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	use := func(path string) {
		longest := ""
		for _, r := range mod.Require {
			if (path == r.Mod.Path || strings.HasPrefix(path, r.Mod.Path+"/")) && len(r.Mod.Path) > len(longest) {
				longest = r.Mod.Path
			}
		}
		if longest != "" {
			used[longest] = true
		}
	}
	for _, tool := range mod.Tool {
		use(tool.Path)
	}
	err = filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (strings.HasPrefix(e.Name(), ".") && path != "." || e.Name() == "testdata"):
			return filepath.SkipDir
		case e.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			use(strings.Trim(i.Path.Value, `"`))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	rationale, err := os.ReadFile("RATIONALE.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllSubmatch(rationale, -1) {
		told[string(m[1])] = true
	}
	for m := range used {
		if !told[m] {
			t.Errorf("RATIONALE.md does not say why %s is used, and under which licence", m)
		}
	}
	for m := range told {
		if !used[m] {
			t.Errorf("RATIONALE.md speaks of %s, which nothing imports", m)
		}
	}
}

// checkCommand checks a command without running the tests inside a test: a target that make knows, or a go test of a
// package with a test of that name.
func checkCommand(t *testing.T, b block, line string) {
	t.Helper()
	line, _, _ = strings.Cut(line, " #")
	words := strings.Fields(line)
	for len(words) > 0 && strings.Contains(words[0], "=") {
		words = words[1:]
	}
	switch {
	case len(words) == 0:
	case words[0] == "make":
		if out, err := exec.CommandContext(t.Context(), "make", append([]string{"-n"}, words[1:]...)...).CombinedOutput(); err != nil {
			t.Errorf("%s: %s: %s", b.at, line, out)
		}
	case len(words) > 2 && words[0] == "go" && words[1] == "test":
		folder := words[len(words)-1]
		name := regexp.MustCompile(`-(?:run|fuzz) '?\^?(\w+)`).FindStringSubmatch(line)
		if found := testsIn(t, strings.TrimSuffix(folder, "/...")); len(found) == 0 || name != nil && !strings.Contains(found, "func "+name[1]) {
			t.Errorf("%s: %s: there is no such test", b.at, line)
		}
	case len(words) > 1 && words[0] == "weir" && words[1] == "policy": // it changes nothing
		if out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %s: %v: %s", b.at, line, err, out)
		}
	default:
		t.Errorf("%s: %s: how is that to be checked?", b.at, line)
	}
}

func testsIn(t *testing.T, folder string) string {
	t.Helper()
	var all strings.Builder
	_ = filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			b, err := os.ReadFile(path)
			all.Write(b)
			return err
		}
		return err
	})
	return all.String()
}

func checkConfig(t *testing.T, b block) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(file, []byte(b.text()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "weir", "check", "-c", file)
	cmd.Env = os.Environ()
	for _, m := range envReference.FindAllStringSubmatch(b.text(), -1) {
		cmd.Env = append(cmd.Env, m[1]+"=x")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", b.at, err, out)
	}
}

// compare finds each line that a document shows in what was printed, in order. Spaces, ids, times and the numbers of
// records, blocks and sessions may differ, and … stands for anything.
func compare(t *testing.T, b block, shown, printed string) {
	t.Helper()
	got := strings.Split(plainly(printed), "\n")
	at := 0
	for i, line := range strings.Split(strings.TrimSpace(plainly(shown)), "\n") {
		if line == "" || line == "…" {
			continue
		}
		want := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*") + "$")
		found := at
		for found < len(got) && !want.MatchString(got[found]) {
			found++
		}
		if found == len(got) {
			t.Fatalf("%s: line %d is not printed: %s\n%s", b.at, i+1, line, printed)
		}
		at = found + 1
	}
}

var (
	instant = regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?`)
	spaces  = regexp.MustCompile(`[ \t]+`)
	counts  = regexp.MustCompile(`record \d+|\d+ (records?|blocks?|sessions?)`)
	lining  = regexp.MustCompile(`-{2,}`)
)

func plainly(s string) string {
	s = instant.ReplaceAllString(sessionID.ReplaceAllString(s, "ID"), "TIME")
	s = counts.ReplaceAllString(s, "COUNT")
	var lines []string
	for _, line := range strings.Split(s, "\n") {
		lines = append(lines, strings.TrimSpace(lining.ReplaceAllString(spaces.ReplaceAllString(line, " "), "--")))
	}
	return strings.Join(lines, "\n")
}

// patch changes a file as a diff block without line numbers says.
func patch(t *testing.T, file string, b block) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines, at := strings.Split(string(text), "\n"), 0
	for _, d := range b.lines {
		if d == "" {
			continue
		}
		sign, want := d[0], d[1:]
		if sign == '+' {
			lines = append(lines[:at], append([]string{want}, lines[at:]...)...)
			at++
			continue
		}
		for at < len(lines) && lines[at] != want {
			at++
		}
		switch {
		case at == len(lines):
			t.Fatalf("%s: %s does not hold the line %q", b.at, file, want)
		case sign == '-':
			lines = append(lines[:at], lines[at+1:]...)
		default:
			at++
		}
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reload sends SIGHUP to the test's own gateway and waits for it to have had its effect.
func reload(t *testing.T, g *gatewayOf) {
	t.Helper()
	before := strings.Count(g.log(), "cli: reload")
	if err := g.running.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for range 400 {
		if strings.Count(g.log(), "cli: reload") > before {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatal("the gateway does not reload")
}

type listed struct {
	ID, End string
	Denied  int
}

func sessionsIn(t *testing.T, dir string) (list []listed) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "weir", "sessions", "-o", "json")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &list)
	}
	if err != nil {
		t.Fatalf("weir sessions: %v\n%s", err, out)
	}
	return list
}

// waitForArchive returns when n sessions are over and archived.
func waitForArchive(t *testing.T, dir string, n int) {
	t.Helper()
	for range 200 {
		over := 0
		for _, s := range sessionsIn(t, dir) {
			if s.End != "" {
				over++
			}
		}
		if over >= n {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("there are not %d sessions that are over", n)
}

func latestDenied(t *testing.T, dir string) (id string) {
	t.Helper()
	for _, s := range sessionsIn(t, dir) {
		if s.Denied > 0 {
			id = s.ID
		}
	}
	return id
}

func mustPort(t *testing.T) string {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// shell is one bash, in which blocks run one after the other, as in a terminal.
type shell struct {
	in   io.Writer
	out  *bufio.Reader
	kill func() error
}

// patience is how long one line may take; the longest builds a plugin.
const patience = 5 * time.Minute

const mark = "\x01done\x01"

func newShell(t *testing.T, env ...string) *shell {
	t.Helper()
	goenv, err := exec.CommandContext(t.Context(), "go", "env", "GOCACHE", "GOMODCACHE", "GOPATH").Output()
	if err != nil {
		t.Fatal(err)
	}
	places := strings.Split(string(goenv), "\n")
	cmd := exec.CommandContext(t.Context(), "bash", "--noprofile", "--norc")
	cmd.Env = append(os.Environ(), append(env, "GOCACHE="+places[0], "GOMODCACHE="+places[1], "GOPATH="+places[2], "TZ=UTC", "PAGER=cat")...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return &shell{in: in, out: bufio.NewReader(out), kill: cmd.Process.Kill}
}

// run runs lines and returns what they print, on stdout and stderr, and the last one's exit code.
func (s *shell) run(t *testing.T, lines string) (string, int) {
	t.Helper()
	if _, err := fmt.Fprintf(s.in, "{ %s\n} </dev/null 2>&1; printf '%s%%d\\n' $?\n", lines, mark); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { _ = s.kill() })
	defer late.Stop()
	var printed bytes.Buffer
	for {
		line, err := s.out.ReadString('\n')
		before, code, over := strings.Cut(line, mark)
		printed.WriteString(before)
		if err != nil {
			t.Fatalf("the shell ended: %v\n%s", err, printed.String())
		}
		if over {
			n := 0
			_, _ = fmt.Sscan(code, &n)
			return printed.String(), n
		}
	}
}

func (s *shell) must(t *testing.T, lines string) string {
	t.Helper()
	out, code := s.run(t, lines)
	if code != 0 {
		t.Fatalf("%s: exit %d\n%s", lines, code, out)
	}
	return out
}
