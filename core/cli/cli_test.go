package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
)

// echo is a small protocol: the first line is a token, each further line is a command and is echoed.
type echo struct{}

func (echo) Name() string { return "echo" }

func (echo) Handler(targets []*core.Target) (core.Handler, error) {
	for _, t := range targets {
		var s struct {
			Loud bool `yaml:"loud"`
		}
		if err := t.Decode(&s); err != nil {
			return nil, err
		}
	}
	return echoHandler{}, nil
}

type echoHandler struct{}

func (echoHandler) Serve(ctx context.Context, conn net.Conn, g core.Gate) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	in := bufio.NewScanner(conn)
	in.Scan()
	t, _ := g.Target("")
	s, err := g.Open(ctx, core.Hello{Target: t, Token: in.Text()})
	if err != nil {
		fmt.Fprintln(conn, "no:", err)
		return err
	}
	if _, err := t.Credential(ctx, s.Identity); err != nil {
		return s.Close(core.EndError, "no credential")
	}
	fmt.Fprintln(conn, "ok", s.ID)
	for in.Scan() {
		c := &core.Command{Action: "say", Text: in.Text(), Status: core.StatusKnown, Effects: []core.Effect{core.EffectRead}}
		if strings.HasPrefix(in.Text(), "drop") {
			c.Effects = []core.Effect{core.EffectDDL}
		}
		if name, ok := strings.CutPrefix(in.Text(), "read "); ok {
			c.Resources = []core.Resource{{Kind: "table", Name: name, Use: []string{"read"}}}
		}
		x := &core.Exchange{Command: c}
		if v := s.Check(ctx, &core.Event{Kind: core.KindCommand, Direction: core.FromClient, Exchange: x, Wire: in.Bytes()}); v.Deny != nil {
			fmt.Fprintln(conn, "denied", v.Deny.Rule)
			continue
		}
		v := s.Check(ctx, &core.Event{Kind: core.KindResult, Direction: core.FromUpstream, Exchange: x, Result: &core.Result{Status: "ok"}, Wire: in.Bytes()})
		if s.Settle(ctx, v.Mark) != nil {
			return s.Close(core.EndJournalLost, "")
		}
		fmt.Fprintln(conn, in.Text())
	}
	return s.Close(core.EndClosed, "gone")
}

var testPolicies = fstest.MapFS{"small/rules.rego": {Data: []byte(`package weir.access
allow if "staff" in input.identity.groups
`)}, "small/guardrails.rego": {Data: []byte(`package weir.guardrails
deny contains {"rule": "no-ddl", "reason": "no", "hint": "ask"} if "ddl" in input.event.command.effects
`)}}

var testBuild = Build{Protocols: []core.Protocol{echo{}}, Policies: testPolicies, Version: "test"}

const canary = "c4n4ry-5b1e77"

// place is a folder with a configuration.
type place struct {
	t      *testing.T
	dir    string
	config string
	typed  io.Writer // what a person types to weir login
}

func newPlace(t *testing.T) *place {
	t.Helper()
	t.Setenv("WEIR_TEST_PASSWORD", canary)
	p := &place{t: t, dir: t.TempDir()}
	p.config = filepath.Join(p.dir, "weir.yaml")
	p.write(fmt.Sprintf(`data: ./data
listen: {admin: "127.0.0.1:%d"}
policies:
  - {name: small, path: "builtin:small"}
chain: [small]
targets:
  - name: one
    protocol: echo
    listen: 127.0.0.1:0
    upstream: {address: "127.0.0.1:1", tls: disable}
    credential: {user: app, password: "${env:WEIR_TEST_PASSWORD}"}
`, freePort(t)))
	return p
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (p *place) text() string {
	b, err := os.ReadFile(p.config)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

func (p *place) write(text string) {
	p.t.Helper()
	if err := os.WriteFile(p.config, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) replace(old, fresh string) {
	p.t.Helper()
	text := p.text()
	if !strings.Contains(text, old) {
		p.t.Fatalf("the configuration does not hold %q", old)
	}
	p.write(strings.Replace(text, old, fresh, 1))
}

// weir runs a command and returns its exit code and output.
func (p *place) weir(args ...string) (code int, stdout, stderr string) {
	p.t.Helper()
	var out, err bytes.Buffer
	p.t.Setenv("WEIR_CONFIG", p.config)
	code = run(p.t.Context(), testBuild, args, &out, &err)
	return code, out.String(), err.String()
}

// must is weir with exit code 0; it returns stdout.
func (p *place) must(args ...string) string {
	p.t.Helper()
	code, out, err := p.weir(args...)
	if code != 0 {
		p.t.Fatalf("weir %v: exit %d\n%s%s", args, code, out, err)
	}
	return out
}

// syncBuffer is written by a gateway while a test reads it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *syncBuffer) wait(t *testing.T, text string) {
	t.Helper()
	eventually(t, text, func() bool { return strings.Contains(s.String(), text) })
	if t.Failed() {
		t.Fatal(s.String())
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 3000 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("never: %s", what)
}

type running struct {
	log  *syncBuffer
	hup  chan os.Signal
	stop func() error
	addr string
}

// serve runs the gateway of p.
func (p *place) serve() *running {
	p.t.Helper()
	return p.serveAs(roleAll)
}

func (p *place) serveAs(role string) *running {
	p.t.Helper()
	r := &running{log: &syncBuffer{}, hup: make(chan os.Signal, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	a := &app{Build: testBuild, out: &bytes.Buffer{}, err: r.log}
	go func() {
		done <- a.runGateway(ctx, p.config, role, slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})), r.hup)
	}()
	r.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(30 * time.Second):
			p.t.Error("the gateway does not stop")
			return nil
		}
	})
	p.t.Cleanup(func() { _ = r.stop() })
	r.log.wait(p.t, "weir: ready")
	_, rest, _ := strings.Cut(r.log.String(), "weir: echo on ")
	r.addr, _, _ = strings.Cut(rest, " ")
	return r
}

func (r *running) talk(t *testing.T, lines ...string) (conn net.Conn, answers []string) {
	t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(conn)
	for _, l := range lines {
		fmt.Fprintln(conn, l)
		s, _ := in.ReadString('\n')
		answers = append(answers, strings.TrimSpace(s))
	}
	return conn, answers
}

func TestWhole(t *testing.T) {
	p := newPlace(t)
	p.must("check")
	if _, err := os.Stat(filepath.Join(p.dir, "data")); err == nil {
		t.Fatal("check has made the data folder")
	}
	r := p.serve()
	token := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff", "--run", "r7"))
	conn, got := r.talk(t, token, "hello world", "drop everything", "again")
	if len(got) != 4 || !strings.HasPrefix(got[0], "ok ") || got[1] != "hello world" || got[2] != "denied no-ddl" || got[3] != "again" {
		t.Fatalf("got %q", got)
	}
	id := strings.TrimPrefix(got[0], "ok ")
	_, refused := r.talk(t, strings.TrimSpace(p.must("token", "--subject", "eve")))
	if !strings.HasPrefix(refused[0], "no: refused by rule") {
		t.Errorf("no group, and %q", refused)
	}
	if open := p.list("--identity", "ada"); len(open) != 1 || open[0]["id"] != id || open[0]["ended"] != nil {
		t.Errorf("while open: %v", open)
	}
	_ = conn.Close()
	eventually(t, "archived", func() bool { s := p.list("--identity", "ada"); return len(s) == 1 && s[0]["end"] == "closed" })
	s := p.list("--grep", "hello world")
	if len(s) != 1 || len(s[0]) != 12 || s[0]["target"] != "one" || s[0]["protocol"] != "echo" || s[0]["run"] != "r7" || s[0]["commands"] != 3.0 || s[0]["denied"] != 1.0 {
		t.Errorf("index: %v", s)
	}
	eventually(t, "both with a denial are archived", func() bool { return len(p.list("--denied")) == 2 })
	if text := p.must("sessions"); !strings.Contains(text, "IDENTITY") || !strings.Contains(text, id) {
		t.Error(text)
	}
	for _, args := range [][]string{{"show", id}, {"replay", id}, {"replay", id, "--format", "json"}, {"show", id, "-o", "json"}} {
		if text := p.must(args...); !strings.Contains(text, "hello world") || !strings.Contains(text, "no-ddl") {
			t.Errorf("%v:\n%s", args, text)
		}
	}
	if code, _, text := p.weir("show", "01aaaaaaaaaaaaaaaaaaaaaaaa"); code != exitNo || !strings.Contains(text, "there is no session") {
		t.Errorf("unknown session: %d %s", code, text)
	}
	eventually(t, "verified beside the gateway", func() bool {
		code, out, _ := p.weir("verify", "--all")
		return code == 0 && strings.HasPrefix(out, "verified: ") && !strings.HasPrefix(out, "verified: 1 ")
	})
	if err := r.stop(); err != nil {
		t.Error(err)
	}

	// Without the gateway the same commands work, and a copy of the archive is enough to verify.
	if out := p.must("verify", id); !strings.HasPrefix(out, "verified: 1 session,") {
		t.Error(out)
	}
	dir := filepath.Join(p.dir, "data")
	if out := p.must("verify", "--all", "--archive", filepath.Join(dir, "archive"), "--key", filepath.Join(dir, "keys", "ledger.pub")); !strings.HasPrefix(out, "verified: ") {
		t.Error(out)
	}
	if len(p.list()) != 2 {
		t.Error("the index is gone")
	}
	p.noSecrets(r.log.String(), token)
	p.tampered(dir, id)

	// A restart takes up what is there.
	r = p.serve()
	if _, got := r.talk(t, token, "once more"); got[1] != "once more" {
		t.Errorf("after a restart: %q", got)
	}
}

// list is sessions -o json.
func (p *place) list(args ...string) (out []map[string]any) {
	p.t.Helper()
	text := p.must(append([]string{"sessions", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		p.t.Fatalf("%v\n%s", err, text)
	}
	return out
}

// noSecrets looks for the upstream's secret and the client's token in everything that was written.
func (p *place) noSecrets(log, token string) {
	p.t.Helper()
	look := func(where string, b []byte) {
		for _, secret := range []string{canary, token, token[len(token)-40:]} {
			if bytes.Contains(b, []byte(secret)) {
				p.t.Errorf("a secret is in %s", where)
			}
		}
	}
	look("the log", []byte(log))
	_ = filepath.WalkDir(filepath.Join(p.dir, "data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		look(path, b)
		info, _ := d.Info()
		if strings.HasSuffix(path, ".key") && info.Mode().Perm() != 0o600 {
			p.t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if info, _ := os.Stat(filepath.Join(p.dir, "data")); info.Mode().Perm() != 0o700 {
		p.t.Errorf("data has mode %v", info.Mode())
	}
}

// tampered changes one bit of each stored byte range in turn; verify must say so.
func (p *place) tampered(dir, id string) {
	p.t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "archive", "*.weir"))
	if err != nil || len(files) == 0 {
		p.t.Fatalf("no archive: %v", err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		p.t.Fatal(err)
	}
	at := bytes.Index(b, []byte(id))
	if at < 0 {
		at = len(b) / 2
	}
	for _, i := range []int{at, len(b) / 2, len(b) - 1} {
		c := bytes.Clone(b)
		c[i] ^= 1
		if err := os.WriteFile(files[0], c, 0o600); err != nil {
			p.t.Fatal(err)
		}
		if code, out, _ := p.weir("verify", "--all"); code != exitNo || !strings.Contains(out, "NOT verified") {
			p.t.Errorf("byte %d changed: exit %d\n%s", i, code, out)
		}
	}
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.must("verify", "--all")
}

func TestReload(t *testing.T) {
	p := newPlace(t)
	r := p.serve()
	token := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff"))
	r.hup <- syscall.SIGHUP
	r.log.wait(t, "cli: reloaded")
	good := p.text()
	for _, bad := range []struct{ old, fresh, want string }{
		{"protocol: echo", "protocol: gopher", `weir.yaml:8: targets[0].protocol: this build does not speak \"gopher\"`},
		{"builtin:small", "builtin:large", `there is no builtin policy \"large\"`},
		{"data: ./data", "data: ./other", "cannot be changed by a reload (restart the gateway)"},
		{"chain: [small]", "chain: [smal]", "did you mean small?"},
		{"chain: [small]", "chain: [small", "is not YAML"},
	} {
		p.replace(bad.old, bad.fresh)
		r.hup <- syscall.SIGHUP
		r.log.wait(t, bad.want)
		p.write(good)
	}
	if _, got := r.talk(t, token, "drop"); got[1] != "denied no-ddl" {
		t.Errorf("after bad reloads: %q", got)
	}
	p.replace("    listen:", "    chain: []\n    listen:")
	p.replace("chain: [small]\n", "")
	p.replace("policies:\n  - {name: small, path: \"builtin:small\"}\n", "")
	r.hup <- syscall.SIGHUP
	r.log.wait(t, "reload\" warning=")
	eventually(t, "the new chain", func() bool { _, got := r.talk(t, token, "drop"); return got[1] == "drop" })
}

func TestCheck(t *testing.T) {
	for _, tc := range []struct{ name, old, fresh, want string }{
		{"key", "upstream:", "upstrem:", "weir.yaml:10: targets[0].upstrem: unknown key (did you mean upstream?)"},
		{"protocol", "protocol: echo", "protocol: gopher", `weir.yaml:8: targets[0].protocol: this build does not speak "gopher" (it speaks: echo)`},
		{"builtin", "builtin:small", "builtin:tiny", `weir.yaml:4: policies[0].path: there is no builtin policy "tiny" (builtin policies are: small)`},
		{"no policy", "builtin:small", "none/", "weir.yaml:4: policies[0].path:"},
		{"environment", "WEIR_TEST_PASSWORD", "WEIR_TEST_NOTHING", "weir.yaml:11: targets[0].credential.password: credential: the environment variable WEIR_TEST_NOTHING is not set"},
		{"vault", "${env:WEIR_TEST_PASSWORD}", "${vault:a#b}", "weir.yaml:11: targets[0].credential.password: credential: there is no Vault here"},
		{"settings", "    listen:", "    echo: {laud: true}\n    listen:", "weir.yaml:9: targets[0].echo.laud: unknown key (did you mean loud?)"},
		{"certificate", "listen: {", "listen: {tls: {cert: a.pem, key: a.key}, ", "weir.yaml:2: listen.tls: gateway: certificate"},
		{"ca", "tls: disable", "ca: none.pem", "weir.yaml:10: targets[0].upstream.ca: cannot be read"},
		{"plugin", "chain: [small]", "plugins: [{name: p, wasm: none.wasm}]\nchain: [small, p]", "weir.yaml:5: plugins[0].wasm:"},
		{"builtin plugin", "chain: [small]", "plugins: [{name: p, wasm: \"builtin:none\"}]\nchain: [small, p]", `there is no builtin plugin "none"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPlace(t)
			p.replace(tc.old, tc.fresh)
			code, out, err := p.weir("check")
			if code != exitUse || !strings.Contains(err, tc.want) || out != "" {
				t.Errorf("exit %d\n%s%s\nwant %s", code, out, err, tc.want)
			}
			if strings.Contains(err, canary) {
				t.Error("a secret is shown")
			}
			code, out, _ = p.weir("check", "-o", "json")
			var report struct {
				OK       bool
				Problems []map[string]any
			}
			if e := json.Unmarshal([]byte(out), &report); e != nil || code != exitUse || report.OK || len(report.Problems) == 0 {
				t.Errorf("json: exit %d, %v\n%s", code, e, out)
			}
			if code, _, err := p.weir("serve"); code != exitUse || !strings.Contains(err, tc.want) {
				t.Errorf("serve: exit %d\n%s", code, err)
			}
		})
	}
}

func TestEveryProblemInOneRun(t *testing.T) {
	p := newPlace(t)
	p.replace("builtin:small", "rules")
	p.replace("protocol: echo", "protocol: gopher")
	p.replace("tls: disable", "tsl: disable")
	rules := filepath.Join(p.dir, "rules")
	if err := os.Mkdir(rules, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(rules, "a.rego"), []byte("package weir.guardrails\n\ndeny contains x if { y := 1 }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, err := p.weir("check")
	for _, want := range []string{"a.rego:3", "does not speak", "upstream.tsl: unknown key"} {
		if code != exitUse || !strings.Contains(err, want) {
			t.Errorf("exit %d, no %q in\n%s", code, want, err)
		}
	}
}

func TestToken(t *testing.T) {
	p := newPlace(t)
	var made struct{ Token, Subject, Expires string }
	if err := json.Unmarshal([]byte(p.must("token", "--subject", "ada", "--ttl", "10m", "--kind", "agent", "--target", "one", "-o", "json")), &made); err != nil || strings.Count(made.Token, ".") != 2 || made.Subject != "ada" {
		t.Errorf("%v %+v", err, made)
	}
	for want, args := range map[string][]string{
		`required flag(s) "subject" not set`:       {"token"},
		"longer than a service token may be valid": {"token", "--subject", "a", "--ttl", "48h"},
		`has no target "two"`:                      {"token", "--subject", "a", "--target", "two"},
		"is not human, service or agent":           {"token", "--subject", "a", "--kind", "robot"},
		`"5" has no unit`:                          {"token", "--subject", "a", "--ttl", "5"},
	} {
		if code, out, err := p.weir(args...); code != exitUse || out != "" || !strings.Contains(err, want) {
			t.Errorf("%v: exit %d\n%s%s", args, code, out, err)
		}
	}
	p.replace("data: ./data", "data: ./data\nidentity: {oidc: [{name: x, issuer: \"https://x.example\", audience: weir}], service_tokens: {enabled: false}}")
	if code, _, err := p.weir("token", "--subject", "a"); code != exitUse || !strings.Contains(err, "service tokens are off") {
		t.Errorf("exit %d %s", code, err)
	}
}

func TestWrongUse(t *testing.T) {
	p := newPlace(t)
	for want, args := range map[string][]string{
		"unknown command":                    {"sreve"},
		"unknown flag":                       {"check", "--fast"},
		"--output is text or json":           {"sessions", "-o", "xml"},
		"--format is text or json or csv":    {"replay", "x", "--format", "xml"},
		"--speed cannot be negative":         {"replay", "x", "--speed", "-1"},
		"--since: \"yesterday\" is not":      {"sessions", "--since", "yesterday"},
		"verify needs session ids, or --all": {"verify"},
		"accepts 1 arg":                      {"show"},
		"--log-format is text or json":       {"serve", "--log-format", "xml"},
		"--log-level is debug":               {"serve", "--log-level", "loud"},
		"there is no such file":              {"sessions", "-c", "/nowhere/weir.yaml"},
	} {
		if code, _, err := p.weir(args...); code != exitUse || !strings.Contains(err, want) {
			t.Errorf("%v: exit %d, %s", args, code, err)
		}
	}
	for _, tt := range []struct {
		want string
		args []string
	}{
		{"no gateway answers", []string{"sessions"}},
		{"there is no archive", []string{"show", "x"}},
		{"there is no archive", []string{"verify", "--all"}},
	} {
		if code, _, err := p.weir(tt.args...); code != exitUnreachable || !strings.Contains(err, tt.want) {
			t.Errorf("%v: exit %d, %s", tt.args, code, err)
		}
	}
}

func TestPortInUse(t *testing.T) {
	p := newPlace(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p.replace("listen: 127.0.0.1:0", "listen: "+l.Addr().String())
	code, _, text := p.weir("serve")
	if code != exitUnreachable || !strings.Contains(text, "weir.yaml:9: "+l.Addr().String()+" is in use by another process") {
		t.Errorf("exit %d\n%s", code, text)
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	a := &app{Build: testBuild, out: &bytes.Buffer{}, err: &bytes.Buffer{}}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "help" {
			return
		}
		if c.Example == "" || c.Short == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		if c.Name() != "completion" {
			for _, sub := range c.Commands() {
				walk(sub)
			}
		}
	}
	walk(a.root())
	p := newPlace(t)
	if out := p.must("version"); !strings.HasPrefix(out, "weir test ") || !strings.Contains(out, "speaks echo") {
		t.Error(out)
	}
	if out := p.must("completion", "bash"); !strings.Contains(out, "weir") {
		t.Error(out)
	}
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"": {}, "1h": now.Add(-time.Hour), "7d": now.Add(-7 * 24 * time.Hour), "2026-11-01T10:00:00Z": time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC),
		"2026-11-01": time.Date(2026, 11, 1, 0, 0, 0, 0, time.Local),
	} {
		if got, err := moment("--since", s, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	if err := a.table([]string{"A", "LONG"}, [][]string{{"x\x1b[31m", "1"}, {"日本", "2"}}); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Contains(got, "\x1b") || !strings.HasSuffix(got, "日本    2\n") {
		t.Errorf("%q", got)
	}
	for n, want := range map[int64]string{0: "0 bytes", 1: "1 byte", 2048: "2.0 KiB", 5 << 30: "5.0 GiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s", n, got)
		}
	}
}
