package ssh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/ssh/sshtest"
)

// server is the sshd that the package's tests share.
var server *sshtest.Server

func TestMain(m *testing.M) {
	var err error
	if server, err = sshtest.Start(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

const token = "the-token-of-the-test"

// testGate is a gateway reduced to what a handler needs.
type testGate struct {
	t         testing.TB
	target    *core.Target
	settings  settings
	chain     core.Plugin
	journal   *memory
	drain     chan struct{}
	approvals core.Approvals
	expires   time.Time
	addr      string
	handler   core.Handler
	dir       string // of keys and files for clients

	mu     sync.Mutex
	errs   []error
	hellos []core.Hello
}

type option func(*testGate)

func withChain(p core.Plugin) option { return func(g *testGate) { g.chain = p } }

func with(f func(*settings)) option { return func(g *testGate) { f(&g.settings) } }

// startGate serves one target, web, on a free port until the test ends.
func startGate(t testing.TB, options ...option) *testGate {
	t.Helper()
	g := &testGate{
		t: t, journal: &memory{}, drain: make(chan struct{}), dir: t.TempDir(), settings: settings{HostKeys: []string{server.HostKey}},
		target: &core.Target{
			Name: "web", Protocol: "ssh", Record: core.LevelFull, Promise: core.PromiseStrict, AllowIncomplete: true,
			Upstream: core.Upstream{Address: server.Addr},
			Credential: func(context.Context, core.Identity) (core.Credential, error) {
				return core.Credential{User: server.User, Password: string(server.Key)}, nil
			},
		},
	}
	g.target.Decode = func(v any) error {
		keys := v.(*settings).keys
		*v.(*settings) = g.settings
		v.(*settings).keys = keys
		return nil
	}
	for _, o := range options {
		o(g)
	}
	var err error
	if g.handler, err = New().Handler([]*core.Target{g.target}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				if err := g.handler.Serve(ctx, conn, g); err != nil {
					g.mu.Lock()
					g.errs = append(g.errs, err)
					g.mu.Unlock()
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		cancel()
		wg.Wait()
		g.secrets()
	})
	return g
}

func (g *testGate) TLS() *tls.Config { return nil }

func (g *testGate) Target(name string) (*core.Target, bool) {
	return g.target, name == "" || name == g.target.Name
}

func (g *testGate) Key(purpose string) ([]byte, error) {
	k := sha256.Sum256([]byte("a key for tests: " + purpose))
	return k[:], nil
}

func (g *testGate) Open(ctx context.Context, h core.Hello) (*core.Session, error) {
	g.mu.Lock()
	g.hellos = append(g.hellos, h)
	g.mu.Unlock()
	if h.Token != token {
		return nil, fmt.Errorf("%w: no token of ours", core.ErrUnauthenticated)
	}
	h.Token = ""
	s := &core.Session{
		ID: core.NewID(time.Now()), Protocol: "ssh", Target: h.Target, Hello: h, Started: time.Now(),
		Identity: core.Identity{Subject: "tester", Expires: g.expires},
	}
	s.Begin(core.SessionConfig{Chain: g.chain, Recorder: &memoryRecorder{m: g.journal}, Draining: g.drain, Approvals: g.approvals})
	if v := s.Check(ctx, &core.Event{Kind: core.KindOpen, Direction: core.FromClient}); v.Deny != nil {
		return nil, errors.Join(v.Deny, s.Close(core.EndRefused, v.Deny.Rule))
	}
	return s, nil
}

// secrets looks for the token and the target's key in what was kept and in what would be logged: neither may be there.
func (g *testGate) secrets() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.journal.mu.Lock()
	defer g.journal.mu.Unlock()
	body := strings.Split(string(server.Key), "\n")[3]
	for _, secret := range []string{token, body} {
		for _, r := range g.journal.records {
			if bytes.Contains(r.Facts, []byte(secret)) || bytes.Contains(r.Wire, []byte(secret)) {
				g.t.Errorf("a secret is in the record: %s", r.Facts)
			}
		}
		for _, err := range g.errs {
			if strings.Contains(err.Error(), secret) {
				g.t.Error("a secret is in an error")
			}
		}
	}
}

// signIns is how many tokens were looked at.
func (g *testGate) signIns() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.hellos)
}

// failed waits for the first error of a client.
func (g *testGate) failed() error {
	for range 1000 {
		g.mu.Lock()
		errs := g.errs
		g.mu.Unlock()
		if len(errs) > 0 {
			return errs[0]
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// hostKey is what clients have to see.
func (g *testGate) hostKey() ssh.PublicKey {
	own, err := keysOf(g.Key)
	if err != nil {
		g.t.Fatal(err)
	}
	return own.host.PublicKey()
}

// dial signs in with x/crypto's client.
func (g *testGate) dial(auth ...ssh.AuthMethod) (*ssh.Client, error) {
	if len(auth) == 0 {
		auth = []ssh.AuthMethod{ssh.Password(token)}
	}
	return ssh.Dial("tcp", g.addr, &ssh.ClientConfig{User: "web", Auth: auth, HostKeyCallback: ssh.FixedHostKey(g.hostKey()), Timeout: 10 * time.Second})
}

func (g *testGate) client() *ssh.Client {
	g.t.Helper()
	c, err := g.dial()
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = c.Close() })
	return c
}

// run runs one command with x/crypto's client.
func (g *testGate) run(c *ssh.Client, command, stdin string) (stdout, stderr string, err error) {
	g.t.Helper()
	s, err := c.NewSession()
	if err != nil {
		return "", "", err
	}
	defer func() { _ = s.Close() }()
	var out, errs bytes.Buffer
	s.Stdin, s.Stdout, s.Stderr = strings.NewReader(stdin), &out, &errs
	err = s.Run(command)
	return out.String(), errs.String(), err
}

// openssh returns the arguments by which OpenSSH's clients reach the gate with a certificate.
func (g *testGate) openssh() []string {
	g.t.Helper()
	key := filepath.Join(g.dir, "id")
	host, port, _ := net.SplitHostPort(g.addr)
	if _, err := os.Stat(key); err != nil {
		private, public, err := sshtest.NewKey()
		if err != nil {
			g.t.Fatal(err)
		}
		cert, _, err := g.run(g.client(), certificateCommand, public)
		if err != nil {
			g.t.Fatal(err)
		}
		known := "[" + host + "]:" + port + " " + string(ssh.MarshalAuthorizedKey(g.hostKey()))
		for name, content := range map[string]string{"id": string(private), "id-cert.pub": cert, "known": known} {
			if err := os.WriteFile(filepath.Join(g.dir, name), []byte(content), 0o600); err != nil {
				g.t.Fatal(err)
			}
		}
	}
	return []string{
		"-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityFile=" + key, "-o", "CertificateFile=" + key + "-cert.pub",
		"-o", "UserKnownHostsFile=" + filepath.Join(g.dir, "known"), "-o", "StrictHostKeyChecking=yes", "-o", "Port=" + port, "-o", "LogLevel=ERROR",
	}
}

// tool runs a program and returns what it has said.
func (g *testGate) tool(stdin string, name string, args ...string) (stdout, stderr string, err error) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK=", "DISPLAY=")
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (g *testGate) ssh(stdin string, args ...string) (stdout, stderr string, err error) {
	g.t.Helper()
	return g.tool(stdin, "ssh", append(g.openssh(), args...)...)
}

// memory is a journal in memory. What it keeps beside the records' heads may be bounded.
type memory struct {
	mu      sync.Mutex
	records []core.Record
	ends    []core.End
	lost    bool
	hold    func() // called by Settle, outside of the lock
	brief   bool   // keep no wire bytes, and no facts of bytes
	settled core.Mark
}

type memoryRecorder struct{ m *memory }

func (r *memoryRecorder) Record(_ context.Context, rec *core.Record) (core.Mark, error) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	if r.m.lost {
		return 0, core.ErrJournalLost
	}
	c := core.Record{Seq: rec.Seq, Time: rec.Time, Kind: rec.Kind, Direction: rec.Direction}
	if !r.m.brief {
		c.Facts, c.Wire, c.Decisions = bytes.Clone(rec.Facts), bytes.Clone(rec.Wire), slices.Clone(rec.Decisions)
	}
	if !r.m.brief || len(r.m.records) < 1000 {
		r.m.records = append(r.m.records, c)
	}
	return core.Mark(rec.Seq + 1), nil
}

func (r *memoryRecorder) Settle(_ context.Context, m core.Mark) error {
	r.m.mu.Lock()
	hold := r.m.hold
	r.m.mu.Unlock()
	if hold != nil {
		hold()
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	if r.m.lost {
		return core.ErrJournalLost
	}
	r.m.settled = max(r.m.settled, m)
	return nil
}

func (r *memoryRecorder) Settled(core.Mark, func()) bool { return true }

func (r *memoryRecorder) Seal(end core.End) error {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	r.m.ends = append(r.m.ends, end)
	return nil
}

// text is the whole record.
func (m *memory) text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, r := range m.records {
		fmt.Fprintf(&b, "%d %s %s %s %q\n", r.Seq, r.Direction, r.Kind, r.Facts, r.Wire)
	}
	return b.String()
}

// said is what the record has of a direction's data, stderr apart.
func (m *memory) said(way core.Direction, extended bool) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, r := range m.records {
		if h := headSize(extended); r.Kind == core.KindBytes && r.Direction == way && len(r.Wire) > h && (r.Wire[0] == msgExtendedData) == extended {
			b.Write(r.Wire[h:])
		}
	}
	return b.String()
}

// ended waits until so many sessions are sealed.
func (m *memory) ended(t *testing.T, n int) []core.End {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		m.mu.Lock()
		ends := slices.Clone(m.ends)
		m.mu.Unlock()
		if len(ends) >= n {
			return ends
		}
		if time.Now().After(until) {
			t.Fatalf("%d sessions of %d are over", len(ends), n)
		}
	}
}

// guard is a chain of one function.
type guard func(e *core.Event) *core.Denial

func (g guard) Inspect(_ context.Context, e *core.Event) (v core.Verdict, _ error) {
	v.Deny = g(e)
	return v, nil
}

// deny refuses commands that have a text in theirs.
func deny(part string) guard {
	return func(e *core.Event) *core.Denial {
		if c := e.Command(); e.Kind == core.KindCommand && strings.Contains(c.Text, part) {
			return &core.Denial{Step: "test", Rule: "no-such-thing", Reason: "the test says so", Hint: "do something else"}
		}
		return nil
	}
}
