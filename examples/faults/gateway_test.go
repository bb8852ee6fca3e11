//go:build linux

package faults_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const access = `package weir.access

import rego.v1

allow if "agents" in input.identity.groups

allow if "support" in input.identity.groups
`

const guardrails = `package weir.guardrails

import rego.v1

deny contains {"rule": "no-ddl", "reason": "schema changes go through migrations", "hint": "open a migration"} if {
	"ddl" in input.event.command.effects
}

mask contains {"column": "email", "with": "partial"} if {
	not "support" in input.identity.groups
}
`

// setup says how a gateway differs from the ordinary one of these tests.
type setup struct {
	upstream string // host:port; default: the shared server
	password string // that the gateway has for it; default: the right one
	limits   string // of the target, in YAML's flow style without braces
	target   string // further lines of the target, indented by four
	more     string // further lines of the file
	chain    string // default: [guardrails]
	plugins  string
	data     string   // default: data beside the file
	args     []string // of weir serve
	user     *syscall.Credential
	edit     func(config string) string
}

// gateway is a weir process with a folder of its own.
type gateway struct {
	setup
	t      testing.TB
	dir    string
	config string
	data   string
	listen string
	admin  string

	process *process
	tokens  []string // that must be found nowhere
}

// process is one run of weir serve.
type process struct {
	*exec.Cmd
	out    output
	exited chan struct{}
}

// output is what a process has printed so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// prepare writes the files of a gateway and starts nothing. When the test ends, what it left is audited.
func prepare(t testing.TB, s setup) *gateway {
	t.Helper()
	g := &gateway{setup: s, t: t}
	if keep := os.Getenv("WEIR_KEEP"); keep != "" { // a folder: what gateways leave stays in it
		var err error
		if g.dir, err = os.MkdirTemp(keep, filepath.Base(t.Name())+"-"); err != nil {
			t.Fatal(err)
		}
	} else {
		g.dir = t.TempDir()
	}
	g.config, g.data = filepath.Join(g.dir, "weir.yaml"), filepath.Join(g.dir, "data")
	if s.data != "" {
		g.data = s.data
	}
	g.listen, g.admin = freePort(t), freePort(t)
	if g.upstream == "" {
		g.upstream = upstream.Addr()
	}
	if g.password == "" {
		g.password = password
	}
	if g.chain == "" {
		g.chain = "[guardrails]"
	}
	if !strings.Contains(g.limits, "drain") {
		g.limits += ", drain: 3s"
	}
	g.write("policies/access.rego", access)
	g.write("policies/guardrails.rego", guardrails)
	g.write("weir.yaml", g.yaml())
	t.Cleanup(g.audit)
	return g
}

// yaml is the configuration. Line numbers that tests name are of this text.
func (g *gateway) yaml() string {
	text := fmt.Sprintf(`data: %s
listen: {admin: %q}
policies:
  - {name: guardrails, path: policies, timeout: 5s} # the machine may be busy
chain: %s
targets:
  - name: orders
    protocol: postgres
    listen: %q
    upstream: {address: %q, database: orders, tls: disable}
    credential: {user: app, password: "${env:UPSTREAM_PASSWORD}"}
    limits: {%s}
%s%s%s`, g.data, g.admin, g.chain, g.listen, g.upstream, strings.TrimPrefix(g.limits, ", "), g.target, g.plugins, g.more)
	if g.edit != nil {
		text = g.edit(text)
	}
	return text
}

func (g *gateway) write(name, text string) {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// start runs a gateway until the test ends.
func start(t testing.TB, s setup) *gateway {
	t.Helper()
	g := prepare(t, s)
	g.serve()
	return g
}

// serve starts the process and waits until it is ready.
func (g *gateway) serve() {
	g.t.Helper()
	g.launch()
	deadline := time.Now().Add(30 * time.Second)
	for !strings.Contains(g.process.out.String(), "weir: ready") {
		select {
		case <-g.process.exited:
			g.t.Fatalf("weir serve ended: %v\n%s", g.process.ProcessState, g.process.out.String())
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("weir serve is not ready:\n%s", g.process.out.String())
		}
	}
}

// launch starts the process.
func (g *gateway) launch() {
	g.t.Helper()
	p := &process{Cmd: g.weir(append([]string{"serve"}, g.args...)...), exited: make(chan struct{})}
	p.Stdout, p.Stderr = &p.out, &p.out
	if err := p.Start(); err != nil {
		g.t.Fatal(err)
	}
	go func() { _ = p.Wait(); close(p.exited) }()
	g.process = p
}

// weir is a command with the gateway's configuration.
func (g *gateway) weir(args ...string) *exec.Cmd {
	c := command(program, append(args, "-c", g.config)...)
	c.Env = append(os.Environ(), "UPSTREAM_PASSWORD="+g.password, "NO_COLOR=1")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if g.user != nil {
		c.SysProcAttr.Credential = g.user
	}
	return c
}

// run runs a command to its end and returns what it printed, and its exit code.
func (g *gateway) run(args ...string) (stdout, stderr string, code int) {
	g.t.Helper()
	c := g.weir(args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		g.t.Fatalf("weir %v: %v", args, err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// signal sends the process a signal.
func (g *gateway) signal(s syscall.Signal) {
	g.t.Helper()
	if err := g.process.Process.Signal(s); err != nil {
		g.t.Fatal(err)
	}
}

// wait waits for the process to end and returns its exit code.
func (g *gateway) wait(limit time.Duration) int {
	g.t.Helper()
	select {
	case <-g.process.exited:
	case <-time.After(limit):
		g.signal(syscall.SIGQUIT) // where it hangs
		<-g.process.exited
		g.t.Fatalf("weir serve did not end within %v:\n%s", limit, g.process.out.String())
	}
	code := g.process.ProcessState.ExitCode()
	return code
}

// stop ends the process politely and demands that it ends well.
func (g *gateway) stop() {
	g.t.Helper()
	g.signal(syscall.SIGTERM)
	if code := g.wait(30 * time.Second); code != 0 {
		g.t.Errorf("weir serve ended with %d:\n%s", code, tail(g.process.out.String(), 30))
	}
}

// kill ends the process as a crash would.
func (g *gateway) kill() {
	g.t.Helper()
	g.signal(syscall.SIGKILL)
	<-g.process.exited
}

func (g *gateway) running() bool {
	if g.process == nil {
		return false
	}
	select {
	case <-g.process.exited:
		return false
	default:
		return true
	}
}

// log waits until the process has printed a text, and returns all that it printed.
func (g *gateway) log(text string) string {
	g.t.Helper()
	var all string
	eventually(g.t, 5*time.Second, "the log says "+strconv.Quote(text), func() bool {
		all = g.process.out.String()
		return strings.Contains(all, text)
	}, func() string { return all })
	return all
}

// audit is the end of every test: the gateway stops well, everything that it recorded can be verified and is sealed,
// and no secret is in what it printed or kept.
func (g *gateway) audit() {
	defer func() {
		if g.t.Failed() && g.process != nil {
			g.t.Logf("the gateway's last words:\n%s", tail(g.process.out.String(), 30))
		}
	}()
	if g.running() {
		g.stop()
	}
	if _, err := os.Stat(filepath.Join(g.data, "keys", "ledger.pub")); err == nil {
		if r := g.verify(); !r.OK || len(r.Open) > 0 {
			g.t.Errorf("at the end of the test: %+v", r)
		}
	}
	secrets := append([]string{g.password, password}, g.tokens...)
	if g.process != nil {
		for _, s := range secrets {
			if shows(g.process.out.String(), s) {
				g.t.Errorf("a secret (%.8s…) is in the log", s)
			}
		}
	}
	for _, found := range scan(g.t, g.data, secrets...) {
		g.t.Errorf("a secret is in %s", found)
	}
}

// report is what weir verify --all -o json prints.
type report struct {
	OK                        bool
	Sessions, Blocks, Records int
	Open                      []string // without a seal
	Problems                  []any
}

func (g *gateway) verify() (r report) {
	g.t.Helper()
	out, errs, code := g.run("verify", "--all", "-o", "json")
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		g.t.Fatalf("weir verify: %v: %s%s", err, out, errs)
	}
	if (code == 0) != r.OK || code > 1 {
		g.t.Errorf("weir verify ended with %d and says %+v", code, r)
	}
	return r
}

// session is a line of weir sessions -o json.
type session struct {
	ID, Identity, Target, Run, End string
	Started                        time.Time
	Ended                          *time.Time
	Commands, Rows, Denied         int64
	Verified                       bool
}

func (g *gateway) sessions(args ...string) []session {
	g.t.Helper()
	out, errs, code := g.run(append([]string{"sessions", "-o", "json"}, args...)...)
	if code != 0 {
		g.t.Fatalf("weir sessions ended with %d: %s", code, errs)
	}
	var list []session
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		g.t.Fatalf("weir sessions: %v\n%s", err, out)
	}
	return list
}

// sealed waits until the one session of an identity has its end in the index.
func (g *gateway) sealed(identity string) session {
	g.t.Helper()
	var last []session
	eventually(g.t, 30*time.Second, "the session of "+identity+" is sealed", func() bool {
		last = g.sessions("--identity", identity)
		return len(last) == 1 && last[0].End != ""
	}, func() string { return fmt.Sprint(last) })
	return last[0]
}

// rss is the process's resident memory, in bytes.
func (g *gateway) rss() int64 {
	g.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.process.Process.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				g.t.Fatal(err)
			}
			return n << 10
		}
	}
	g.t.Fatal("no VmRSS")
	return 0
}

// small waits until what compiling the grammar took is back with the system, and returns the memory in use then:
// without that, growth would hide in it.
func (g *gateway) small() (rss int64) {
	g.t.Helper()
	steady := 0
	eventually(g.t, 10*time.Second, "the gateway is small", func() bool {
		last := rss
		rss = g.rss()
		if steady++; rss > 250<<20 || max(rss, last)-min(rss, last) > 2<<20 {
			steady = 0
		}
		time.Sleep(50 * time.Millisecond)
		return steady >= 6
	}, func() string { return fmt.Sprint(rss>>20, " MiB") })
	return rss
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually waits for a condition.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool, last func() string) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s\n%s", limit, what, last())
		}
	}
}

func nothing() string { return "" }

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// contains demands each of the texts.
func contains(t testing.TB, where, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not say %q:\n%s", where, w, text)
		}
	}
}
