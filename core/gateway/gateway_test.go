package gateway

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-gateway/weir/core"
)

func TestMain(m *testing.M) {
	const shared = "github.com/weir-gateway/weir/core/reactor." // lives as long as the process
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(shared+"(*Reactor).watch"), goleak.IgnoreAnyFunction(shared+"(*loop).lead"))
}

// lines is a small protocol: the first line is "target token", each further line is a command and is echoed.
type lines struct {
	handlers atomic.Int64
	warmed   chan struct{}
	bad      string // a target that Handler refuses
}

func (*lines) Name() string { return "lines" }

func (p *lines) Warm(context.Context) error { close(p.warmed); return nil }

func (p *lines) Handler(targets []*core.Target) (core.Handler, error) {
	p.handlers.Add(1)
	for _, t := range targets {
		if t.Name == p.bad {
			return nil, errors.New("lines: bad target " + t.Name)
		}
	}
	return lineHandler{}, nil
}

type lineHandler struct{}

func (lineHandler) Serve(ctx context.Context, conn net.Conn, g core.Gate) error {
	defer conn.Close()
	bare := conn
	stop := context.AfterFunc(ctx, func() { _ = bare.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	encrypted := false
	if c := g.TLS(); c != nil {
		t := tls.Server(conn, c)
		conn, encrypted = t, true
	}
	in := bufio.NewScanner(conn)
	if !in.Scan() {
		return in.Err()
	}
	name, token, _ := strings.Cut(in.Text(), " ")
	target, ok := g.Target(name)
	if !ok {
		fmt.Fprintf(conn, "no: target %s\n", name)
		return nil
	}
	s, err := g.Open(ctx, core.Hello{Target: target, Token: token, TLS: encrypted, User: "u"})
	if err != nil {
		fmt.Fprintf(conn, "no: %v\n", err)
		return err
	}
	fmt.Fprintf(conn, "ok %s\n", s.ID)
	for in.Scan() {
		switch in.Text() {
		case "panic":
			panic("a bug")
		case "leave":
			return nil
		case "stubborn": // heeds nothing
			stop()
			_ = conn.SetReadDeadline(time.Time{})
			_, _ = io.Copy(io.Discard, conn)
			return s.Close(core.EndKilled, "at last")
		}
		v := s.Check(ctx, &core.Event{Kind: core.KindCommand, Direction: core.FromClient, Exchange: &core.Exchange{Command: &core.Command{Action: in.Text(), Status: core.StatusKnown}}})
		if v.Deny != nil {
			fmt.Fprintf(conn, "denied %s\n", v.Deny.Rule)
			continue
		}
		fmt.Fprintf(conn, "%s\n", in.Text())
	}
	if ctx.Err() != nil {
		return s.Close(core.EndKilled, context.Cause(ctx).Error())
	}
	return s.Close(core.EndClosed, "")
}

// memory is a journal in memory.
type memory struct {
	mu     sync.Mutex
	kept   map[string]*memoryRecorder
	order  []string
	fails  atomic.Bool
	settle atomic.Bool // Settle fails
}

type memoryRecorder struct {
	j       *memory
	session *core.Session
	mu      sync.Mutex
	records []core.Record
	end     core.End
}

func (m *memory) Open(s *core.Session) (core.Recorder, error) {
	if m.fails.Load() {
		return nil, core.ErrJournalLost
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &memoryRecorder{j: m, session: s}
	if m.kept == nil {
		m.kept = map[string]*memoryRecorder{}
	}
	m.kept[s.ID] = r
	m.order = append(m.order, s.ID)
	return r, nil
}

func (r *memoryRecorder) Record(_ context.Context, rec *core.Record) (core.Mark, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := *rec
	c.Facts = append([]byte(nil), rec.Facts...)
	r.records = append(r.records, c)
	return core.Mark(len(r.records)), nil
}

func (r *memoryRecorder) Settle(context.Context, core.Mark) error {
	if r.j.settle.Load() {
		return core.ErrJournalLost
	}
	return nil
}

func (r *memoryRecorder) Settled(core.Mark, func()) bool { return true }

func (r *memoryRecorder) Seal(end core.End) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end = end
	return nil
}

// ends lists how the sessions ended, in the order in which they were opened.
func (m *memory) ends() (out []core.End) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range m.order {
		r := m.kept[id]
		r.mu.Lock()
		out = append(out, r.end)
		r.mu.Unlock()
	}
	return out
}

// sessions lists what was recorded, in the order in which it was opened.
func (m *memory) sessions() (out []*core.Session) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range m.order {
		out = append(out, m.kept[id].session)
	}
	return out
}

func (m *memory) last() *memoryRecorder {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.order) == 0 {
		return nil
	}
	return m.kept[m.order[len(m.order)-1]]
}

// names is a verifier: the token is the subject.
type names struct{}

func (names) Verify(_ context.Context, token string) (core.Identity, error) {
	switch {
	case token == "odd":
		return core.Identity{}, errors.New("some inside that holds s3cret")
	case token == "soon":
		return core.Identity{Subject: "soon", Expires: time.Now().Add(-2 * time.Minute)}, nil
	case token == "bound":
		return core.Identity{Subject: "bound", Targets: []string{"other"}, Run: "run-1"}, nil
	case strings.HasPrefix(token, "good"):
		return core.Identity{Subject: token, Run: "run-1", Expires: time.Now().Add(time.Hour)}, nil
	}
	return core.Identity{}, fmt.Errorf("names: nobody is called that: %w", core.ErrUnauthenticated)
}

// access denies the subject "good-but-not-here", and every command "drop".
type access struct{ forgot atomic.Int64 }

func (*access) Inspect(_ context.Context, e *core.Event) (core.Verdict, error) {
	switch {
	case e.Kind == core.KindOpen && e.Session.Identity.Subject == "good-but-not-here":
		return core.Verdict{Deny: &core.Denial{Step: "access", Rule: "not-here"}}, nil
	case e.Kind == core.KindOpen && e.Session.Identity.Subject == "good-with-approval":
		return core.Verdict{Hold: &core.Hold{Rule: "ask", Approvers: []string{"dba"}}}, nil
	case e.Kind == core.KindCommand && e.Command().Action == "drop":
		return core.Verdict{Deny: &core.Denial{Rule: "no-drop"}}, nil
	}
	return core.Verdict{}, nil
}

func (a *access) Forget(*core.Session) { a.forgot.Add(1) }

type rig struct {
	*Gateway
	t       *testing.T
	journal *memory
	lines   *lines
	chain   *access
	log     *logged
	stop    context.CancelFunc
	done    chan error
}

type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func target(name, listen string, chain core.Plugin) Target {
	return Target{Target: &core.Target{Name: name, Protocol: "lines", Record: core.LevelFull}, Listen: listen, Chain: chain}
}

const anyPort = "127.0.0.1:0"

func start(t *testing.T, change func(*Config, *Settings)) *rig {
	t.Helper()
	r := &rig{t: t, journal: &memory{}, lines: &lines{warmed: make(chan struct{})}, chain: &access{}, log: &logged{}, done: make(chan error, 1)}
	ready := make(chan struct{})
	c := Config{
		Name: "gw", Boot: "b", Protocols: []core.Protocol{r.lines}, Journal: r.journal, Admin: "127.0.0.1:0",
		Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Ready: func([]Listener) { close(ready) },
	}
	s := Settings{Targets: []Target{target("one", anyPort, r.chain)}, Verifier: names{}}
	if change != nil {
		change(&c, &s)
	}
	var err error
	if r.Gateway, err = New(c, s); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	go func() { r.done <- r.Run(ctx) }()
	select {
	case <-ready:
	case err := <-r.done:
		t.Fatal(err)
	}
	t.Cleanup(func() { r.end() })
	return r
}

// end stops the gateway and returns what Run said.
func (r *rig) end() error {
	r.stop()
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(20 * time.Second):
		r.t.Error("Run does not return")
		return nil
	}
}

type talk struct {
	net.Conn
	in *bufio.Reader
	t  *testing.T
}

func (r *rig) dial() *talk {
	r.t.Helper()
	c, err := net.Dial("tcp", r.Listeners()[0].Address.String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return &talk{c, bufio.NewReader(c), r.t}
}

// say sends a line and returns the answer, or "gone".
func (k *talk) say(line string) string {
	k.t.Helper()
	_ = k.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintln(k, line); err != nil {
		return "gone"
	}
	return k.hear()
}

func (k *talk) hear() string {
	s, err := k.in.ReadString('\n')
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			k.t.Error("no answer")
		}
		return "gone"
	}
	return strings.TrimSpace(s)
}

func (k *talk) want(line, prefix string) {
	k.t.Helper()
	if got := k.say(line); !strings.HasPrefix(got, prefix) {
		k.t.Errorf("%q: got %q, want %q", line, got, prefix)
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Errorf("never: %s", what)
}

func (r *rig) get(path string) (int, string) {
	r.t.Helper()
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + r.AdminAddr().String() + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

func TestSession(t *testing.T) {
	r := start(t, nil)
	<-r.lines.warmed
	k := r.dial()
	k.want("one good", "ok ")
	k.want("select", "select")
	k.want("drop", "denied no-drop")
	if code, body := r.get("/api/v1/sessions"); code != 200 || !strings.Contains(body, `"identity":"good","target":"one","protocol":"lines","run":"run-1"`) || !strings.Contains(body, `"commands":2,"rows":0,"denied":1`) {
		t.Errorf("%d %s", code, body)
	}
	_ = k.Close()
	eventually(t, "sealed", func() bool { return fmt.Sprint(r.journal.ends()) == "[closed]" })
	eventually(t, "forgotten", func() bool { return r.chain.forgot.Load() == 1 && len(r.Sessions()) == 0 })
	_, metrics := r.get("/metrics")
	for _, want := range []string{
		`weir_gateway_sessions{target="one"} 0`, `weir_gateway_sessions_total{end="closed",target="one"} 1`, `weir_session_commands_total{target="one"} 2`,
		`weir_session_denied_total{target="one"} 1`, `weir_gateway_connections_total{protocol="lines"} 1`, "weir_gateway_ready 1",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no metric %s", want)
		}
	}
	open := string(r.journal.last().records[0].Facts)
	if !strings.Contains(open, `"gateway":"gw","boot":"b"`) || strings.Contains(open, "token") {
		t.Errorf("facts of the opening: %s", open)
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct{ line, answer, reason, rule string }{
		{"one nobody", "no: names: nobody is called that", "identity", "not-signed-in"},
		{"one odd", "no: gateway: not signed in", "identity", "not-signed-in"},
		{"one bound", "no: refused by rule token-target", "token-target", "token-target"},
		{"one good-but-not-here", "no: refused by rule not-here", "access", "not-here"},
		{"one good-with-approval", "no: refused by rule ask", "access", ""},
		{"two good", "no: target two", "", ""},
	} {
		t.Run(tc.line, func(t *testing.T) {
			r := start(t, nil)
			k := r.dial()
			k.want(tc.line, tc.answer)
			if got := k.hear(); got != "gone" {
				t.Errorf("still there: %s", got)
			}
			if tc.reason == "" {
				return
			}
			eventually(t, "refusal recorded", func() bool { return fmt.Sprint(r.journal.ends()) == "[refused]" })
			facts := string(r.journal.last().records[0].Facts)
			if tc.rule != "" && !strings.Contains(facts, `"rule":"`+tc.rule) {
				t.Errorf("facts: %s", facts)
			}
			if _, m := r.get("/metrics"); !strings.Contains(m, fmt.Sprintf(`weir_gateway_refused_total{reason=%q} 1`, tc.reason)) {
				t.Errorf("not counted")
			}
			if strings.Contains(facts, "s3cret") {
				t.Error("an inside text was recorded")
			}
		})
	}
}

func TestExpiredToken(t *testing.T) {
	r := start(t, func(_ *Config, s *Settings) { s.Targets[0].Chain = nil })
	k := r.dial()
	k.want("one soon", "ok")
	k.want("select", "denied token-expired")
	k.want("select", "denied token-expired") // and the connection stays
}

func TestSessionLimit(t *testing.T) {
	r := start(t, func(_ *Config, s *Settings) { s.Targets[0].Target.Limits.Sessions = 2 })
	a, b := r.dial(), r.dial()
	a.want("one good", "ok")
	b.want("one good", "ok")
	r.dial().want("one good", "no: refused by rule limit-sessions")
	_ = a.Close()
	eventually(t, "room again", func() bool { return strings.HasPrefix(r.dial().say("one good"), "ok") })
}

func TestConnectionLimit(t *testing.T) {
	r := start(t, func(c *Config, _ *Settings) { c.Limits.Connections = 1 })
	a := r.dial()
	a.want("one good", "ok")
	if got := r.dial().say("one good"); got != "gone" {
		t.Errorf("got %q", got)
	}
	a.want("still", "still")
	if _, m := r.get("/metrics"); !strings.Contains(m, `weir_gateway_refused_total{reason="connections"} 1`) {
		t.Error("not counted")
	}
}

func TestSlowSignIn(t *testing.T) {
	r := start(t, func(_ *Config, s *Settings) { s.Targets[0].Target.Limits.SignIn = 100 * time.Millisecond })
	k := r.dial()
	before := time.Now()
	_ = k.SetDeadline(time.Now().Add(30 * time.Second))
	if got := k.hear(); got != "gone" || time.Since(before) > 3*time.Second {
		t.Errorf("got %q after %v", got, time.Since(before))
	}
	k = r.dial()
	k.want("one good", "ok")
	time.Sleep(200 * time.Millisecond)
	k.want("still", "still")
}

func TestPanic(t *testing.T) {
	r := start(t, nil)
	other, k := r.dial(), r.dial()
	other.want("one good", "ok")
	k.want("one good", "ok")
	if got := k.say("panic"); got != "gone" {
		t.Errorf("got %q", got)
	}
	other.want("still", "still")
	eventually(t, "sealed", func() bool { return fmt.Sprint(r.journal.ends()) == "[ error]" })
	if !strings.Contains(r.log.String(), "a bug") || !strings.Contains(r.log.String(), "lineHandler") {
		t.Error("the panic and its stack are not in the log")
	}
	k = r.dial()
	k.want("one good", "ok")
	_ = k.say("leave")
	eventually(t, "what the protocol left open is sealed", func() bool { return fmt.Sprint(r.journal.ends()) == "[ error error]" })
}

func TestJournalLost(t *testing.T) {
	r := start(t, func(c *Config, _ *Settings) { c.Lost = nil })
	r.journal.fails.Store(true)
	r.dial().want("one good", "no: gateway: the journal is lost")
	r.dial().want("one nobody", "no: gateway: the journal is lost")
	r.journal.fails.Store(false)
	r.journal.settle.Store(true)
	r.dial().want("one good", "no: gateway: the journal is lost")
	eventually(t, "sealed", func() bool { return fmt.Sprint(r.journal.ends()) == "[journal-lost]" })
	r.journal.settle.Store(false)
	r.dial().want("one good", "ok")
}

func TestReady(t *testing.T) {
	var lost atomic.Bool
	r := start(t, func(c *Config, _ *Settings) {
		c.Lost = func() error {
			if lost.Load() {
				return errors.New("disk full")
			}
			return nil
		}
	})
	if code, body := r.get("/readyz"); code != 200 {
		t.Error(code, body)
	}
	lost.Store(true)
	if code, body := r.get("/readyz"); code != 503 || !strings.Contains(body, "disk full") {
		t.Error(code, body)
	}
	if code, _ := r.get("/healthz"); code != 200 {
		t.Error(code)
	}
	for name, change := range map[string]func(*http.Request){
		"another name":  func(q *http.Request) { q.Host = "evil.example:80" },
		"another site":  func(q *http.Request) { q.Header.Set("Sec-Fetch-Site", "cross-site") },
		"other machine": func(q *http.Request) { q.Host = "10.0.0.1" },
	} {
		q, _ := http.NewRequest(http.MethodGet, "http://"+r.AdminAddr().String()+"/api/v1/sessions", nil)
		change(q)
		res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(q)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", name, res.Status)
		}
	}
}

func TestDrain(t *testing.T) {
	r := start(t, func(_ *Config, s *Settings) { s.Targets[0].Target.Limits.Drain = 300 * time.Millisecond })
	busy, done, unsigned := r.dial(), r.dial(), r.dial()
	busy.want("one good", "ok")
	done.want("one good", "ok")
	address := r.Listeners()[0].Address.String()
	before := time.Now()
	r.stop()
	eventually(t, "the listener is closed", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	busy.want("select", "select") // open sessions go on
	_ = done.Close()
	_ = unsigned.SetDeadline(time.Now().Add(time.Second))
	if got := unsigned.hear(); got != "gone" {
		t.Errorf("unsigned: %q", got)
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if took := time.Since(before); took < 250*time.Millisecond || took > 3*time.Second {
		t.Errorf("drained in %v", took)
	}
	if got := fmt.Sprint(r.journal.ends()); got != "[killed closed]" {
		t.Errorf("ends: %s", got)
	}
}

func TestReload(t *testing.T) {
	released := make(chan string, 4)
	var first Settings
	r := start(t, func(_ *Config, s *Settings) {
		s.Release = func() { released <- "first" }
		first = *s
	})
	old := r.dial()
	old.want("one good", "ok")
	if err := r.Reload(Settings{Targets: []Target{target("one", "127.0.0.1:0", nil), {Target: &core.Target{Name: "x", Protocol: "gopher"}, Listen: anyPort}}, Verifier: names{}}); err == nil || !strings.Contains(err.Error(), `does not speak "gopher"`) {
		t.Fatalf("bad reload: %v", err)
	}
	taken, err := net.Listen("tcp", anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := target("two", taken.Addr().String(), nil)
	busy.Where = "weir.yaml:7"
	if err := r.Reload(Settings{Targets: append([]Target{busy}, first.Targets...), Verifier: names{}}); err == nil || !strings.Contains(err.Error(), "weir.yaml:7: "+taken.Addr().String()+" is in use") {
		t.Fatalf("bad reload: %v", err)
	}
	r.dial().want("one good-but-not-here", "no: refused by rule not-here") // nothing has changed

	if err := r.Reload(Settings{Targets: []Target{target("one", anyPort, nil)}, Verifier: names{}, Release: func() { released <- "second" }}); err != nil {
		t.Fatal(err)
	}
	old.want("drop", "drop") // an open session follows the rules
	fresh := r.dial()
	fresh.want("one good-but-not-here", "ok")
	fresh.want("drop", "drop")
	select {
	case who := <-released:
		t.Fatalf("%s settings were released while in use", who)
	case <-time.After(50 * time.Millisecond):
	}
	_ = old.Close()
	if who := <-released; who != "first" {
		t.Errorf("released %s", who)
	}
	before := r.Listeners()[0].Address.String()
	if err := r.Reload(Settings{Targets: []Target{target("one", "localhost:0", nil)}, Verifier: names{}, Release: func() { released <- "third" }}); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", before); err == nil {
		_ = c.Close()
		t.Error("the old address is still open")
	}
	fresh.want("still", "still")
	r.dial().want("one good", "ok")
	_ = fresh.Close()
	if who := <-released; who != "second" {
		t.Errorf("released %s", who)
	}
}

func TestShared(t *testing.T) {
	r := start(t, func(_ *Config, s *Settings) { s.Targets = append(s.Targets, target("two", "", nil)) })
	r.dial().want("two good", "ok")
	r.dial().want("one good", "ok")
	r.dial().want(" good", "no: target") // which one?
	if got := fmt.Sprint(r.Listeners()[0].Targets); got != "[one two]" {
		t.Error(got)
	}
}

func TestNewRefuses(t *testing.T) {
	p := &lines{bad: "bad"}
	_, err := New(Config{Journal: &memory{}, Protocols: []core.Protocol{p}}, Settings{Targets: []Target{
		target("bad", anyPort, nil), target("twice", anyPort, nil), target("twice", anyPort, nil),
		{Target: &core.Target{Name: "g", Protocol: "gopher"}, Listen: anyPort},
	}})
	for _, want := range []string{"there is no verifier", "lines: bad target bad", "target twice stands twice", `does not speak "gopher"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if _, err := New(Config{}, Settings{}); err == nil {
		t.Error("no journal, and no error")
	}
}

func TestAdminOnLoopbackOnly(t *testing.T) {
	g, err := New(Config{Journal: &memory{}, Admin: "0.0.0.0:0"}, Settings{Verifier: names{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "not on loopback") {
		t.Error(err)
	}
}

func TestThrottle(t *testing.T) {
	now := time.Unix(1000, 0)
	th := newThrottle(func() time.Time { return now })
	for i := range freeFailures {
		if tell, delay := th.failed("a", ""); !tell || delay != 0 {
			t.Fatalf("failure %d: %v %v", i, tell, delay)
		}
	}
	if tell, delay := th.failed("a", ""); tell || delay != time.Second {
		t.Errorf("one too many: %v %v", tell, delay)
	}
	for range 100 {
		th.failed("a", "")
	}
	if _, delay := th.failed("a", ""); delay != maxDelay {
		t.Errorf("delay %v", delay)
	}
	if tell, delay := th.failed("b", ""); !tell || delay != 0 {
		t.Errorf("another source: %v %v", tell, delay)
	}
	now = now.Add(window)
	if tell, delay := th.failed("a", ""); !tell || delay != 0 {
		t.Errorf("a minute later: %v %v", tell, delay)
	}
	told := 0
	for i := range 3 * maxSources {
		if tell, _ := th.failed(fmt.Sprint(i), ""); tell {
			told++
		}
	}
	if told > maxToldOverall || len(th.sources) > maxSources {
		t.Errorf("%d told, %d sources kept", told, len(th.sources))
	}
}

func TestFailedSignInsSlowDown(t *testing.T) {
	r := start(t, nil)
	for range freeFailures {
		r.dial().want("one nobody", "no:")
	}
	before := time.Now()
	r.dial().want("one nobody", "no:")
	if took := time.Since(before); took < 900*time.Millisecond {
		t.Errorf("answered in %v", took)
	}
	before = time.Now()
	r.dial().want("one good", "ok") // a token that holds is never delayed
	if took := time.Since(before); took > 500*time.Millisecond {
		t.Errorf("a good token took %v", took)
	}
	if n := len(r.journal.ends()); n != freeFailures+1 {
		t.Errorf("%d sessions recorded, want %d", n, freeFailures+1)
	}
}

func TestSources(t *testing.T) {
	for a, want := range map[string]string{
		"10.1.2.3:5": "10.1.2.3 false", "127.0.0.2:5": "127.0.0.2 true", "[::1]:5": "::1 true", "[2001:db8:1:2:3:4:5:6]:7": "2001:db8:1:2::/64 false",
		"[::ffff:10.0.0.1]:1": "10.0.0.1 false",
	} {
		addr, err := net.ResolveTCPAddr("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		source, local := sourceOf(addr)
		if got := fmt.Sprint(source, " ", local); got != want {
			t.Errorf("%s: %s, want %s", a, got, want)
		}
	}
}

func TestUnsignedPerSource(t *testing.T) {
	reg := newRegistry()
	l := &listener{}
	limits := Limits{UnsignedPerSource: 2}.withDefaults()
	clients := make([]*client, 4)
	for i := range clients {
		clients[i] = &client{listener: l, source: "10.0.0.1"}
	}
	for i, want := range []string{"", "", "unsigned-connections"} {
		if got := reg.admit(clients[i], limits); got != want {
			t.Errorf("client %d: %q", i, got)
		}
	}
	clients[0].signedIn = true
	reg.opened(clients[0], &core.Session{}, true)
	if got := reg.admit(clients[2], limits); got != "" {
		t.Errorf("after a sign-in: %q", got)
	}
	reg.remove(clients[0])
	reg.remove(clients[1])
	reg.remove(clients[2])
	if len(reg.unsigned) != 0 || len(reg.clients) != 0 || len(reg.listeners) != 0 {
		t.Errorf("left behind: %v %v %v", reg.unsigned, reg.clients, reg.listeners)
	}
	near := &client{listener: l, source: "127.0.0.1", local: true}
	for range 5 {
		if got := reg.admit(near, limits); got != "" {
			t.Errorf("loopback: %q", got)
		}
	}
}

func TestClearTextOverANetwork(t *testing.T) {
	r := start(t, nil)
	r.mu.RLock()
	s := r.now.served[anyPort]
	r.mu.RUnlock()
	one := s.targets["one"].Target
	conn, other := net.Pipe()
	defer conn.Close()
	defer other.Close()
	for _, tc := range []struct {
		name       string
		local, tls bool
		ok         bool
	}{{"network, clear", false, false, false}, {"network, TLS", false, true, true}, {"loopback, clear", true, false, true}} {
		c := &client{g: r.Gateway, served: s, conn: conn, source: "10.0.0.1", local: tc.local, signIn: time.NewTimer(time.Hour)}
		session, err := c.Open(t.Context(), core.Hello{Target: one, Token: "good", TLS: tc.tls, Client: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}})
		var d *core.Denial
		switch {
		case tc.ok && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case tc.ok:
			_ = session.Close(core.EndClosed, "")
		case !errors.As(err, &d) || d.Rule != "tls-required":
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if _, err := (&client{g: r.Gateway, served: s, conn: conn}).Open(t.Context(), core.Hello{Target: &core.Target{Name: "one"}}); err == nil {
		t.Error("a target of nobody's was opened")
	}
}
