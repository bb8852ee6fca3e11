package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// server is the PostgreSQL that the package's tests share.
var server *postgrestest.Server

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue { // they wait more than they compute
		_ = f.Value.Set(strconv.Itoa(3 * runtime.GOMAXPROCS(0)))
	}
	warm := make(chan error, 1)
	go func() { warm <- protocol.Warm(context.Background()) }() // or the first statement waits for the grammar
	var err error
	server, err = postgrestest.Start(context.Background(), postgrestest.Options{
		Log: os.Stderr, Settings: map[string]string{"log_statement": "all", "log_min_messages": "warning", "log_line_prefix": "db=%d|%a|"},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if _, err := server.Psql(context.Background(), "postgres", fixture); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := <-warm; err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	code := m.Run()
	if err := server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

const fixture = `
create schema s;
create table s.customers (id int primary key, email text unique, ssn text, note varchar(40));
insert into s.customers values (1, 'ada@example.com', '123-45-6789', 'first'), (2, 'bob@example.org', '987-65-4321', null);
create table s.victim (a int);
insert into s.victim select generate_series(1, 5);
create table s.wide as select g as id, 'name ' || g as name, 'u' || g || '@example.com' as email, g * 1.5 as total from generate_series(1, 20000) g;
create function s.g() returns text language sql as $$ select email from s.customers where id = 1 $$;
`

const token = "the-token-of-the-test"

// testGate is a gateway reduced to what a handler needs.
type testGate struct {
	t       *testing.T
	target  *core.Target
	tls     *tls.Config
	chain   core.Plugin
	journal *memory
	drain   chan struct{}
	run     *core.Run
	// approvals is the queue of held commands; nil: what is held is refused.
	approvals core.Approvals

	addr    string
	caPool  *x509.CertPool
	mu      sync.Mutex
	errs    []error
	handler core.Handler
	open    *core.Session
}

type option func(*testGate)

func withChain(p core.Plugin) option { return func(g *testGate) { g.chain = p } }

// startGate serves one target on a free port until the test ends.
func startGate(t *testing.T, options ...option) *testGate {
	t.Helper()
	g := &testGate{t: t, journal: &memory{}, drain: make(chan struct{}), target: &core.Target{
		Name: "orders", Protocol: "postgres", Record: core.LevelFull, Promise: core.PromiseStrict,
		Upstream: core.Upstream{Address: server.Addr(), Database: "postgres"},
		Credential: func(context.Context, core.Identity) (core.Credential, error) {
			return core.Credential{User: server.User, Password: server.Password}, nil
		},
		Limits: core.Limits{MaxFrame: 16 << 20},
	}}
	for _, o := range options {
		o(g)
	}
	var err error
	if g.handler == nil {
		if g.handler, err = protocol.Handler([]*core.Target{g.target}); err != nil {
			t.Fatal(err)
		}
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
	})
	return g
}

// protocol is shared: its parser takes a second to load.
var protocol = New()

func (g *testGate) TLS() *tls.Config { return g.tls }

func (g *testGate) Target(name string) (*core.Target, bool) {
	return g.target, name == "" || name == g.target.Name
}

func (g *testGate) Open(ctx context.Context, h core.Hello) (*core.Session, error) {
	if h.Token != token {
		return nil, fmt.Errorf("%w: no token of ours", core.ErrUnauthenticated)
	}
	h.Token = ""
	s := &core.Session{ID: core.NewID(time.Now()), Protocol: "postgres", Target: h.Target, Hello: h, Started: time.Now(), Identity: core.Identity{Subject: "tester"}}
	r := &memoryRecorder{m: g.journal}
	s.Begin(core.SessionConfig{Chain: g.chain, Recorder: r, Draining: g.drain, Run: g.run, Approvals: g.approvals})
	g.mu.Lock()
	g.open = s
	g.mu.Unlock()
	if v := s.Check(ctx, &core.Event{Kind: core.KindOpen, Direction: core.FromClient}); v.Deny != nil {
		return nil, errors.Join(v.Deny, s.Close(core.EndRefused, v.Deny.Rule))
	}
	return s, nil
}

// url returns a connection URL through the gateway.
func (g *testGate) url(params string) string {
	return "postgres://agent:" + token + "@" + g.addr + "/orders?sslmode=disable&connect_timeout=10" + params
}

func (g *testGate) connect(mode pgx.QueryExecMode) *pgx.Conn {
	g.t.Helper()
	config, err := pgx.ParseConfig(g.url(""))
	if err != nil {
		g.t.Fatal(err)
	}
	config.DefaultQueryExecMode = mode
	conn, err := pgx.ConnectConfig(context.Background(), config)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// memory is a journal in memory.
type memory struct {
	mu      sync.Mutex
	records []core.Record
	ends    []core.End
	lost    bool
	settled core.Mark
}

type memoryRecorder struct {
	m    *memory
	told core.Mark // the highest that Settled was asked about
}

func (r *memoryRecorder) Record(_ context.Context, rec *core.Record) (core.Mark, error) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	if r.m.lost {
		return 0, core.ErrJournalLost
	}
	c := *rec
	c.Facts = append([]byte(nil), rec.Facts...)
	c.Wire = append([]byte(nil), rec.Wire...)
	c.Decisions = append([]core.Decision(nil), rec.Decisions...)
	r.m.records = append(r.m.records, c)
	return core.Mark(len(r.m.records)), nil
}

func (r *memoryRecorder) Settle(_ context.Context, m core.Mark) error {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	if r.m.lost {
		return core.ErrJournalLost
	}
	r.m.settled = max(r.m.settled, m)
	return nil
}

// Settled makes every third mark wait, now and then for nothing.
func (r *memoryRecorder) Settled(m core.Mark, then func()) bool {
	r.m.mu.Lock()
	first := m%3 == 0 && m > r.told
	r.told = max(r.told, m)
	r.m.mu.Unlock()
	switch {
	case !first:
		return true
	case m%2 == 0:
		then()
	default:
		go then()
	}
	return false
}

func (r *memoryRecorder) Seal(end core.End) error {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	r.m.ends = append(r.m.ends, end)
	return nil
}

// all returns the records so far.
func (m *memory) all() []core.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.records)
}

// clientBytes returns what the record says the client was sent.
func (m *memory) clientBytes() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []byte
	for _, r := range m.records {
		if r.Direction != core.FromClient {
			out = append(out, r.Wire...)
		}
	}
	return out
}

func (m *memory) text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, r := range m.records {
		fmt.Fprintf(&b, "%d %s %s %s %q\n", r.Seq, r.Direction, r.Kind, r.Facts, r.Wire)
	}
	return b.String()
}

// guard is a chain for tests: it refuses some effects, and masks some columns, by fixed rules.
type guard struct {
	deny func(e *core.Event) *core.Denial
	mask map[string]string // column: what to put in its place
}

func (g guard) Inspect(_ context.Context, e *core.Event) (v core.Verdict, err error) {
	if g.deny != nil {
		v.Deny = g.deny(e)
	}
	switch e.Kind {
	case core.KindColumns:
		for i, c := range e.Columns {
			if _, ok := g.mask[c.Name]; ok {
				e.Exchange.Plan.Watch = append(e.Exchange.Plan.Watch, i)
				e.Exchange.Plan.Masks = append(e.Exchange.Plan.Masks, core.ColumnMask{Column: i})
			}
		}
	case core.KindRows:
		n := len(e.Rows.Watch)
		for i := range e.Rows.Cells {
			if _, ok := e.Rows.Value(i); ok {
				e.Rows.Set(i, []byte(g.mask[e.Rows.Columns[e.Rows.Watch[i%n]].Name]))
				v.Changed = true
			}
		}
	}
	return v, nil
}

// noWrites refuses DDL and writes without WHERE.
func noWrites(e *core.Event) *core.Denial {
	if e.Kind != core.KindCommand {
		return nil
	}
	c := e.Command()
	switch {
	case c.HasEffect(core.EffectDDL):
		return &core.Denial{Step: "test", Rule: "no-ddl", Reason: "schema changes go through migrations", Hint: "open a migration"}
	case !c.Where:
		return &core.Denial{Step: "test", Rule: "no-unbounded-write", Reason: "a write must say which rows", Hint: "add a WHERE"}
	}
	return nil
}

// serverTLS gives a gate a certificate for 127.0.0.1.
func withTLS(t *testing.T) option {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gate"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return func(g *testGate) {
		g.caPool = x509.NewCertPool()
		g.caPool.AddCert(parsed)
		g.tls = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	}
}
