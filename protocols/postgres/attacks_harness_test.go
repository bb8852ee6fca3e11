package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
	"github.com/weir-gateway/weir/core/opa"
)

// The attacks are tests with an ID of their own, PG-nn, in their names. Each runs twice on a database that is its group's
// own: guarded, where it must come to nothing, and with the guard off, where it must do its harm, or it proves nothing.
// The guard is the profile strict as it is shipped, with the fixture's columns in its list of masks, and the house rules
// of testdata/attacks, which keep rows of s from being removed.

// canaries are the values that nobody behind the guard may see.
var canaries = []string{"ada@example.com", "123-45-6789"}

const attackFixture = `
drop schema if exists s cascade; drop schema if exists w cascade;
create schema s;
create table s.customers (id int primary key, email text unique, ssn text check (length(ssn) > 3));
insert into s.customers values (1, 'ada@example.com', '123-45-6789');
create table s.victim (a int);
insert into s.victim select generate_series(1, 5);
create view s.v as select id, email from s.customers;
create view s.vv as select id as x, lower(email) as y from s.v;
create view s.renamed as select email as contact, id from s.customers;
create materialized view s.mv as select id, email from s.customers;
create table s.part (id int, email text) partition by range (id);
create table s.part_1 partition of s.part for values from (0) to (10);
insert into s.part values (1, 'ada@example.com');
create table s.child () inherits (s.customers);
insert into s.child values (2, 'ada@example.com', '123-45-6789');
create table s.made (id int, email text, kept text generated always as (email || '') stored, size int generated always as (length(email) + 4711) stored);
insert into s.made values (1, 'ada@example.com');
create view s.vmade as select kept from s.made;
create function s.f() returns setof s.customers language sql as 'select * from only s.customers';
create function s.g() returns text language plpgsql as $$ declare r text; begin execute 'select email from s.customers where id = 1' into r; return r; end $$;
create function s.wipe() returns int language sql as 'delete from s.victim; select 1';
create function s.wiped(c s.customers) returns int language sql as 'delete from s.victim; select 1';
create function s.wipe2(int, int) returns int language sql as 'delete from s.victim; select 1';
create operator s.@#@ (function = s.wipe2, leftarg = int, rightarg = int);
create procedure s.p() language sql as 'delete from s.victim';
create function s.shout() returns int language plpgsql as $$ declare e text; begin select email into e from only s.customers; raise notice 'it is %', e; raise exception 'it is %', e using detail = e, hint = e; end $$;
create type s.pair as (a text, b text);
create schema w;
create table w.notes (id int primary key, body text, email text);
insert into w.notes values (1, 'one', 'visible@example.org'), (2, 'two', null), (3, '', 'x@example.org');
create table w.lines (line text);
create sequence w.seq;
analyze s.customers; analyze w.notes;
`

var attackPolicy = flag.String("attack-rules", "", "a folder of rules that the attacks are played against, instead of strict and the house rules")

// attackMasks stand in the place of strict's list, so that a column of the same name elsewhere is not masked.
const attackMasks = `masks:
    - {column: s.customers.email, with: redact}
    - {column: s.customers.ssn, with: redact}
    - {column: s.part.email, with: redact}
    - {column: s.made.email, with: redact}
`

// attackRules loads the rules once.
var attackRules = sync.OnceValues(func() (*chain.Chain, error) {
	load := func(c opa.Config) (chain.Step, error) {
		policy, err := opa.Load(context.Background(), c)
		return chain.Step{Name: c.Name, Plugin: policy}, err
	}
	if *attackPolicy != "" {
		step, err := load(opa.Config{Name: "attacks", Path: *attackPolicy})
		if err != nil {
			return nil, err
		}
		return chain.New(step)
	}
	files := fstest.MapFS{}
	for _, name := range []string{"guardrails.rego", "data.yaml"} {
		b, err := os.ReadFile("../../policies/strict/" + name)
		if err != nil {
			return nil, err
		}
		if name == "data.yaml" {
			list := regexp.MustCompile(`masks:\n( +- .*\n)+`)
			if len(list.FindAll(b, -1)) != 1 {
				return nil, errors.New("the list of masks is not in data.yaml as it was")
			}
			b = list.ReplaceAllLiteral(b, []byte(attackMasks))
		}
		files[name] = &fstest.MapFile{Data: b}
	}
	strict, err := load(opa.Config{Name: "strict", FS: files})
	if err != nil {
		return nil, err
	}
	house, err := load(opa.Config{Name: "house", Path: "testdata/attacks"})
	if err != nil {
		return nil, err
	}
	return chain.New(strict, house)
})

// ground is where a group of attacks is played.
type ground struct {
	t             *testing.T
	database      string
	side          *pgx.Conn // of the operator, past every gateway
	guarded, open *testGate
	inside, free  *player
}

var grounds struct {
	sync.Mutex
	n int
}

// newGround makes a database with the fixture, and a gateway to it with and without the guard.
func newGround(t *testing.T) *ground {
	t.Helper()
	rules, err := attackRules()
	if err != nil {
		t.Fatal(err)
	}
	grounds.Lock()
	if grounds.n == 0 {
		_, err = server.Psql(t.Context(), "postgres", "create role attack_role; create role agent login; create database attack_template")
		if err == nil {
			_, err = server.Psql(t.Context(), "attack_template", "set client_min_messages = error;"+attackFixture)
		}
	}
	grounds.n++
	r := &ground{t: t, database: fmt.Sprintf("attack_%d", grounds.n)}
	if err == nil {
		_, err = server.Psql(t.Context(), "postgres", "create database "+r.database+" template attack_template")
	}
	grounds.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if r.side, err = pgx.Connect(t.Context(), server.URL(r.database)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.side.Close(context.Background()) })
	here := func(g *testGate) { g.target.Upstream.Database = r.database }
	r.guarded = startGate(t, withChain(rules), here)
	r.open = startGate(t, here, func(g *testGate) { g.target.AllowIncomplete = true })
	return r
}

// restore brings the fixture back, all of it or the rows of the victim.
func (r *ground) restore(t *testing.T, all bool) {
	t.Helper()
	sql := "set client_min_messages = error; set session_replication_role = default; truncate s.victim; insert into s.victim select generate_series(1, 5)"
	var there bool
	if err := r.side.QueryRow(t.Context(), "select to_regclass('s.victim') is not null").Scan(&there); err != nil {
		t.Fatal(err)
	}
	if all || !there {
		sql = "set client_min_messages = error;" + attackFixture
	}
	if _, err := r.side.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
}

// asks is a yes or no question of the operator.
func (r *ground) asks(t *testing.T, sql string) bool {
	t.Helper()
	var yes *bool
	if err := r.side.QueryRow(t.Context(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&yes); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return yes != nil && *yes
}

func (r *ground) victims(t *testing.T) (n int) {
	t.Helper()
	if err := r.side.QueryRow(t.Context(), "select case when to_regclass('s.victim') is null then -1 else (xpath('//c/text()', query_to_xml('select count(*) as c from s.victim', false, true, '')))[1]::text::int end", pgx.QueryExecModeSimpleProtocol).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// player is a client whose received bytes are kept.
type player struct {
	*pgx.Conn
	mu   sync.Mutex
	seen bytes.Buffer
}

func (g *testGate) player(t *testing.T, mode pgx.QueryExecMode) *player {
	t.Helper()
	config, err := pgx.ParseConfig(g.url(""))
	if err != nil {
		t.Fatal(err)
	}
	p := &player{}
	config.DefaultQueryExecMode = mode
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return tap{c, &p.mu, &p.seen}, err
	}
	if p.Conn, err = pgx.ConnectConfig(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	return p
}

// sees reports whether one of the texts is in what the client has received since the last call.
func (p *player) sees(texts ...string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.seen.String()
	p.seen.Reset()
	return firstOf(got, texts...)
}

func firstOf(in string, texts ...string) string {
	for _, s := range texts {
		if strings.Contains(in, s) {
			return s
		}
	}
	return ""
}

// play says one thing by the simple protocol and returns the error, and how many rows came.
func (p *player) play(sql string) (rows int, err error) {
	results, err := p.PgConn().Exec(context.Background(), sql).ReadAll()
	for _, r := range results {
		rows += len(r.Rows)
		if err == nil {
			err = r.Err
		}
	}
	return rows, err
}

// since is what has been logged and recorded from a moment on.
type since struct {
	r       *ground
	log     int64
	records int
}

func (r *ground) mark(t *testing.T) since {
	t.Helper()
	info, err := os.Stat(server.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	return since{r, info.Size(), len(r.guarded.journal.all())}
}

// logged returns the upstream's log of this database, with lines that belong together joined as they were said.
func (s since) logged(t *testing.T) string {
	t.Helper()
	f, err := os.Open(server.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(s.log, 0); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	ours := false
	for _, line := range strings.Split(b.String(), "\n") {
		if rest, ok := strings.CutPrefix(line, "\t"); ok {
			if ours {
				out.WriteString("\n" + rest)
			}
			continue
		}
		if ours = strings.HasPrefix(line, "db="+s.r.database+"|"); ours {
			out.WriteString("\n" + line)
		}
	}
	return out.String()
}

// denials lists the rules of the denials that were recorded.
func (s since) denials() (rules []string) {
	for _, r := range s.recorded() {
		_, after, ok := strings.Cut(string(r.Facts), `"denied":{`)
		if !ok {
			continue
		}
		_, after, _ = strings.Cut(after, `"rule":"`)
		rule, _, _ := strings.Cut(after, `"`)
		rules = append(rules, rule)
	}
	return rules
}

func (s since) recorded() []core.Record {
	return s.r.guarded.journal.all()[s.records:]
}

// holds checks what must be so after any guarded attack: the victim is whole, the upstream has not heard the texts, and
// the record holds no canary.
func (s since) holds(t *testing.T, unheard ...string) {
	t.Helper()
	if n := s.r.victims(t); n != 5 {
		t.Errorf("s.victim has %d rows", n)
	}
	log := s.logged(t)
	for _, text := range unheard {
		if strings.Contains(log, text) {
			t.Errorf("the upstream heard %q:\n%s", text, log)
		}
	}
	for _, r := range s.recorded() {
		if r.Direction == core.FromClient {
			continue
		}
		if c := firstOf(string(r.Wire)+string(r.Facts), canaries...); c != "" {
			t.Errorf("%s is in the record: %s %s", c, r.Kind, r.Facts)
		}
	}
}

// attack is one case. By the harm it says how the control shows it: "" that rows of s.victim are gone, "leak" that the
// client sees a canary, "runs" that the server does it, "same: SQL" and "side: SQL" by a question of the session or the
// operator; "none: why" is for what the server itself refuses.
type attack struct {
	id, name string
	steps    []string // said in order by one session; at least one of them is refused
	harm     string
	dirty    bool // the control leaves more behind than a missing row
}

func (a attack) String() string { return a.id + "/" + a.name }

// refusedAs returns the error as Weir's refusal, or nil.
func refusedAs(err error) *pgconn.PgError {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "42501" && strings.HasPrefix(pe.Detail, "rule ") {
		return pe
	}
	return nil
}

// run plays the cases of a group, one after the other.
func (r *ground) run(cases []attack) {
	for _, a := range cases {
		r.t.Run(a.String(), func(t *testing.T) {
			r.guardedPlay(t, a)
			r.control(t, a)
		})
	}
}

func (r *ground) guardedPlay(t *testing.T, a attack) {
	t.Helper()
	p := r.inside
	if p == nil || p.IsClosed() || len(a.steps) > 1 { // what a session keeps stays within the case
		p = r.guarded.player(r.t, pgx.QueryExecModeSimpleProtocol)
		if len(a.steps) == 1 {
			r.inside = p
		} else {
			defer func() { _ = p.Close(context.Background()) }()
		}
	}
	p.sees()
	before := r.mark(t)
	var unheard []string
	for _, sql := range a.steps {
		rows, err := p.play(sql)
		pe := refusedAs(err)
		if pe == nil {
			if len(a.steps) == 1 {
				t.Errorf("guarded: %q is not refused: %v", sql, err)
			}
			continue
		}
		unheard = append(unheard, sql)
		if rows > 0 {
			t.Errorf("guarded: %q was refused and gave %d rows", sql, rows)
		}
	}
	if len(unheard) == 0 {
		t.Errorf("guarded: nothing of it is refused")
	}
	if p.PgConn().TxStatus() == 'E' {
		if _, err := p.play("rollback"); err != nil {
			t.Errorf("guarded: rollback: %v", err)
		}
	}
	if p.PgConn().TxStatus() == 'T' {
		_, _ = p.play("commit")
	}
	if rows, err := p.play("select 1"); err != nil || rows != 1 {
		t.Errorf("guarded: select 1 afterwards: %v", err)
	}
	if c := p.sees(canaries...); c != "" {
		t.Errorf("guarded: the client saw %s", c)
	}
	if rules := before.denials(); len(rules) != len(unheard) || firstOf(","+strings.Join(rules, ",")+",", ",,") != "" {
		t.Errorf("guarded: %d refusals, recorded with rules %q", len(unheard), rules)
	}
	before.holds(t, unheard...)
}

func (r *ground) control(t *testing.T, a attack) {
	t.Helper()
	if strings.HasPrefix(a.harm, "none: ") {
		return
	}
	p := r.free
	if p == nil || p.IsClosed() {
		p = r.open.player(r.t, pgx.QueryExecModeSimpleProtocol)
		r.free = p
	}
	p.sees()
	var last error
	for _, sql := range a.steps {
		_, last = p.play(sql)
	}
	harmed := false
	switch kind, question, _ := strings.Cut(a.harm, ": "); kind {
	case "":
		harmed = r.victims(t) != 5
	case "leak":
		harmed = p.sees(canaries...) != ""
	case "runs":
		harmed = last == nil
	case "same":
		var yes *bool
		err := p.QueryRow(t.Context(), question).Scan(&yes)
		harmed = err == nil && yes != nil && *yes
		if err != nil {
			last = err
		}
	case "side":
		harmed = r.asks(t, question)
	default:
		t.Fatalf("no such harm: %s", a.harm)
	}
	if !harmed {
		t.Errorf("control: no harm is done: %v", last)
	}
	if p.PgConn().TxStatus() != 'I' {
		_, _ = p.play("rollback")
	}
	if _, err := p.play("reset session authorization; reset role"); err == nil {
		_, err = p.play("discard all")
		if err != nil {
			r.free = nil
		}
	}
	if a.harm == "" || a.dirty {
		r.restore(t, a.dirty)
	}
}

func repeat(s string, n int) string { return strings.Repeat(s, n) }

// textOf is a decoded value as the server would write it.
func textOf(v any) string {
	if b, ok := v.([]byte); ok {
		return fmt.Sprintf(`\x%x`, b)
	}
	return fmt.Sprint(v)
}

func readFull(c net.Conn, b []byte) (int, error) { return io.ReadFull(c, b) }

// splitting is an upstream that is a real one for the catalog, and for a client gives one answer in two pieces.
func splitting(t *testing.T, database, answer string, at *atomic.Int64) option {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	serve := func(c net.Conn) {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		first, err := readPacket(c, nil)
		if err != nil {
			return
		}
		if bytes.Contains(first, []byte("weir catalog")) {
			s, err := net.Dial("tcp", server.Addr())
			if err != nil {
				return
			}
			defer s.Close()
			_, _ = s.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(first)+4)), first...))
			go func() { _, _ = io.Copy(s, c); _ = s.(*net.TCPConn).CloseWrite() }()
			_, _ = io.Copy(c, s)
			return
		}
		_, _ = io.WriteString(c, hello)
		cut := at.Load()
		var b [512]byte
		if n, err := c.Read(b[:]); err != nil || b[0] != 'Q' {
			t.Errorf("the upstream was sent %q: %v", b[:n], err)
			return
		}
		_, _ = io.WriteString(c, answer[:cut])
		time.Sleep(time.Millisecond)
		_, _ = io.WriteString(c, answer[cut:])
		_, _ = io.Copy(io.Discard, c)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return func(g *testGate) { g.target.Upstream.Address, g.target.Upstream.Database = l.Addr().String(), database }
}

// withCredential gives a gate another credential for its upstream.
func withCredential(user, password string) option {
	return func(g *testGate) {
		g.target.Credential = func(context.Context, core.Identity) (core.Credential, error) {
			return core.Credential{User: user, Password: password}, nil
		}
	}
}
