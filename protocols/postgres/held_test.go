package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/approval"
)

// holding holds every command that writes to a table of a schema, as long as it is on.
type holding struct {
	schema string
	off    atomic.Bool
	denies atomic.Bool
}

func (h *holding) Inspect(_ context.Context, e *core.Event) (v core.Verdict, err error) {
	if e.Kind != core.KindCommand && e.Kind != core.KindColumns || h.off.Load() || !e.Command().HasEffect(core.EffectWrite) {
		return v, nil
	}
	for _, r := range e.Command().Resources {
		if strings.HasPrefix(r.Name, h.schema+".") {
			v.Hold = &core.Hold{Rule: "risky", Reason: "it writes", Approvers: []string{"dba"}}
		}
	}
	if v.Hold != nil && h.denies.Load() {
		v = core.Verdict{Deny: &core.Denial{Rule: "no-more"}}
	}
	return v, nil
}

var dana = core.Identity{Subject: "dana", Issuer: "corp", Groups: []string{"dba"}, Kind: "human"}

// held is a gate whose chain holds writes to a schema of its own, which has a table rows of ten rows.
type held struct {
	*testGate
	rule   *holding
	queue  *approval.Queue
	schema string
	direct *pgx.Conn
}

var heldSchemas atomic.Int64

func startHeld(t *testing.T, h core.Holding, options ...option) *held {
	t.Helper()
	ns, err := natsserver.NewServer(&natsserver.Options{DontListen: true, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	if !ns.ReadyForConnections(10 * time.Second) {
		t.Fatal("no NATS")
	}
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	conn, err := nats.Connect("", nats.InProcessServer(ns))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	x := &held{schema: fmt.Sprint("held", heldSchemas.Add(1)), queue: approval.New(approval.Config{JetStream: js})}
	t.Cleanup(x.queue.Close)
	x.rule = &holding{schema: x.schema}
	x.testGate = startGate(t, append([]option{withChain(x.rule), func(g *testGate) { g.approvals, g.target.Hold = x.queue, h }}, options...)...)
	x.direct, err = pgx.Connect(context.Background(), fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable", server.User, server.Password, server.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.direct.Close(context.Background()) })
	x.exec(x.direct, fmt.Sprintf("create schema %[1]s; create table %[1]s.rows (id int primary key, note text); insert into %[1]s.rows select g, 'note ' || g from generate_series(1, 10) g", x.schema))
	return x
}

func (x *held) exec(c *pgx.Conn, text string) {
	x.t.Helper()
	if _, err := c.PgConn().Exec(context.Background(), text).ReadAll(); err != nil {
		x.t.Fatal(err)
	}
}

// rows asks the server itself.
func (x *held) rows() (n int) {
	x.t.Helper()
	if err := x.direct.QueryRow(context.Background(), "select count(*) from "+x.schema+".rows").Scan(&n); err != nil {
		x.t.Fatal(err)
	}
	return n
}

// waiting waits until n commands wait, and returns them.
func (x *held) waiting(n int) (list []core.Approval) {
	x.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		all, err := x.queue.List(context.Background(), dana)
		if err != nil {
			x.t.Fatal(err)
		}
		list = slices.DeleteFunc(all, func(a core.Approval) bool { return a.State != core.ApprovalWaiting })
		if len(list) == n {
			return list
		}
		if time.Now().After(deadline) {
			x.t.Fatalf("%d commands wait, not %d: %+v", len(list), n, list)
		}
	}
}

func (x *held) answer(id string, yes bool, reason string) {
	x.t.Helper()
	if _, err := x.queue.Decide(context.Background(), dana, id, yes, reason); err != nil {
		x.t.Fatal(err)
	}
}

// run runs a statement in the background, in the way of a mode.
func run(c *pgx.Conn, text string, args ...any) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), text, args...)
		done <- err
	}()
	return done
}

func ended(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on waiting")
		return nil
	}
}

// refusedBy checks that an error is a refusal, and returns it.
func refusedBy(t *testing.T, err error, rule string) *pgconn.PgError {
	t.Helper()
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Detail != "rule "+rule {
		t.Fatalf("%v, not refused by rule %s", err, rule)
	}
	return e
}

// TestHoldNobodyAsks is the control: without the rule the same statements run at once.
func TestHoldNobodyAsks(t *testing.T) {
	t.Parallel()
	x := startHeld(t, core.Holding{Mode: core.HoldWait, Wait: time.Minute})
	x.rule.off.Store(true)
	if err := ended(t, run(x.connect(pgx.QueryExecModeExec), "delete from "+x.schema+".rows where id = $1", 1)); err != nil || x.rows() != 9 {
		t.Errorf("%v, %d rows", err, x.rows())
	}
	x.waiting(0)
}

// TestHoldWait: a parked command does not reach the server, holds up nobody else, runs once when it is approved, and
// not at all when it is denied.
func TestHoldWait(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		for _, encrypted := range []bool{false, true} {
			if encrypted && mode != pgx.QueryExecModeExec {
				continue
			}
			t.Run(fmt.Sprint(mode, " encrypted ", encrypted), func(t *testing.T) {
				t.Parallel()
				var options []option
				if encrypted {
					options = append(options, withTLS(t))
				}
				x := startHeld(t, core.Holding{Mode: core.HoldWait, Wait: time.Minute}, options...)
				var mu sync.Mutex
				var notices []string
				url := x.url("")
				if encrypted {
					url = strings.Replace(url, "sslmode=disable", "sslmode=require", 1)
				}
				config, err := pgx.ParseConfig(url)
				if err != nil {
					t.Fatal(err)
				}
				config.DefaultQueryExecMode = mode
				config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { mu.Lock(); notices = append(notices, n.Message); mu.Unlock() }
				c, err := pgx.ConnectConfig(context.Background(), config)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close(context.Background())
				done := run(c, "delete from "+x.schema+".rows where id = $1", 3)
				a := x.waiting(1)[0]
				if x.rows() != 10 {
					t.Fatal("a parked command reached the server")
				}
				config2, err := pgx.ParseConfig(url)
				if err != nil {
					t.Fatal(err)
				}
				other, err := pgx.ConnectConfig(context.Background(), config2)
				if err != nil {
					t.Fatal(err)
				}
				defer other.Close(context.Background())
				beside := func() {
					t.Helper()
					ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
					defer cancel()
					for range 50 {
						var n int
						if err := other.QueryRow(ctx, "select 1").Scan(&n); err != nil {
							t.Fatalf("another session beside a parked one: %v", err)
						}
					}
				}
				beside()
				select {
				case err := <-done:
					t.Fatalf("it did not wait: %v", err)
				default:
				}
				x.answer(a.ID, true, "change 4711")
				if err := ended(t, done); err != nil || x.rows() != 9 {
					t.Fatalf("approved: %v, %d rows", err, x.rows())
				}
				mu.Lock()
				if mode != pgx.QueryExecModeCacheStatement && (len(notices) != 1 || !strings.Contains(notices[0], a.ID)) {
					t.Errorf("notices: %q", notices)
				}
				mu.Unlock()
				record := x.journal.text()
				for _, want := range []string{`"held"`, "waiting for approval " + a.ID, "approved risky " + a.ID + " by dana (corp)", "change 4711"} {
					if !strings.Contains(record, want) && !strings.Contains(decided(x.journal), want) {
						t.Errorf("the record has no %q:\n%s", want, decided(x.journal))
					}
				}
				done = run(c, "delete from "+x.schema+".rows where id = $1", 3) // the same again is held anew
				b := x.waiting(1)[0]
				if b.ID == a.ID {
					t.Error("one approval, two runs")
				}
				beside()
				x.answer(b.ID, false, "once is enough")
				if e := refusedBy(t, ended(t, done), "risky"); !strings.Contains(e.Message, "denied by dana: once is enough") {
					t.Errorf("denied: %q", e.Message)
				}
				var n int
				if err := c.QueryRow(context.Background(), "select 7").Scan(&n); err != nil || n != 7 {
					t.Errorf("the connection is not usable after it: %v", err)
				}
			})
		}
	}
}

// decided lists the decisions of a journal.
func decided(m *memory) string {
	var b strings.Builder
	for _, r := range m.all() {
		for _, d := range r.Decisions {
			fmt.Fprintln(&b, d.Action, d.Rule, d.Detail)
		}
	}
	return b.String()
}

// TestHoldEnds: what ends the waiting of a parked command other than an answer. It never runs.
func TestHoldEnds(t *testing.T) {
	t.Parallel()
	gone := func(t *testing.T, x *held) {
		x.waiting(0)
		if x.rows() != 10 {
			t.Error("it ran")
		}
	}
	t.Run("nobody answers", func(t *testing.T) {
		t.Parallel()
		x := startHeld(t, core.Holding{Mode: core.HoldWait, Wait: 700 * time.Millisecond})
		e := refusedBy(t, ended(t, run(x.connect(pgx.QueryExecModeExec), "delete from "+x.schema+".rows")), "risky")
		if !strings.Contains(e.Message, "nobody answered in time") || e.Code != "42501" {
			t.Errorf("%s %s", e.Code, e.Message)
		}
		gone(t, x)
	})
	t.Run("the client hangs up", func(t *testing.T) {
		t.Parallel()
		x := startHeld(t, core.Holding{Mode: core.HoldWait, Wait: time.Minute})
		c := x.dial() // a driver would cancel as well
		c.signIn()
		c.send(message('Q', "delete from "+x.schema+".rows\x00"))
		c.send(message('X', "")) // something unread before the end
		a := x.waiting(1)[0]
		_ = c.conn.Close()
		gone(t, x)
		if _, err := x.queue.Decide(context.Background(), dana, a.ID, true, ""); !errors.Is(err, core.ErrNoApproval) {
			t.Errorf("answered after that: %v", err)
		}
		gone(t, x)
	})
	t.Run("the client cancels", func(t *testing.T) {
		t.Parallel()
		x := startHeld(t, core.Holding{Mode: core.HoldWait, Wait: time.Minute})
		c := x.connect(pgx.QueryExecModeExec)
		done := run(c, "delete from "+x.schema+".rows")
		x.waiting(1)
		if err := c.PgConn().CancelRequest(context.Background()); err != nil {
			t.Fatal(err)
		}
		if e := refusedBy(t, ended(t, done), core.RuleCancelled); e.Code != "57014" {
			t.Errorf("%s %s", e.Code, e.Message)
		}
		gone(t, x)
		if _, err := c.Exec(context.Background(), "select 1"); err != nil {
			t.Error(err)
		}
	})
	t.Run("the gateway stops", func(t *testing.T) {
		t.Parallel()
		x := startHeld(t, core.Holding{Mode: core.HoldWait, Wait: time.Minute})
		c := x.connect(pgx.QueryExecModeExec)
		x.exec(c, "begin")
		done := run(c, "delete from "+x.schema+".rows")
		x.waiting(1)
		close(x.drain)
		if e := refusedBy(t, ended(t, done), "risky"); !strings.Contains(e.Message, "the gateway is stopping") {
			t.Error(e.Message)
		}
		gone(t, x)
	})
	t.Run("a command that waits is not idle", func(t *testing.T) {
		t.Parallel()
		for _, o := range [][]option{nil, {withTLS(t)}} {
			x := startHeld(t, core.Holding{Mode: core.HoldWait, Wait: time.Minute}, append(o, func(g *testGate) { g.target.Limits.Idle = 300 * time.Millisecond })...)
			config, err := pgx.ParseConfig(x.url(""))
			if err != nil {
				t.Fatal(err)
			}
			if o != nil {
				config, err = pgx.ParseConfig(strings.Replace(x.url(""), "sslmode=disable", "sslmode=require", 1))
			}
			if err != nil {
				t.Fatal(err)
			}
			c, err := pgx.ConnectConfig(context.Background(), config)
			if err != nil {
				t.Fatal(err)
			}
			done := run(c, "delete from "+x.schema+".rows where id = 1")
			a := x.waiting(1)[0]
			time.Sleep(700 * time.Millisecond)
			x.answer(a.ID, true, "")
			if err := ended(t, done); err != nil || x.rows() != 9 {
				t.Errorf("%v, %d rows", err, x.rows())
			}
			if _, err := c.Exec(context.Background(), "select 1"); err != nil {
				t.Errorf("after it: %v", err)
			}
			_ = c.Close(context.Background())
		}
	})
	t.Run("the rules refuse it by now", func(t *testing.T) {
		t.Parallel()
		x := startHeld(t, core.Holding{Mode: core.HoldWait, Wait: time.Minute})
		done := run(x.connect(pgx.QueryExecModeExec), "delete from "+x.schema+".rows")
		a := x.waiting(1)[0]
		x.rule.denies.Store(true)
		x.answer(a.ID, true, "")
		refusedBy(t, ended(t, done), "no-more")
		gone(t, x)
	})
	t.Run("the rules hold it no more", func(t *testing.T) {
		t.Parallel()
		x := startHeld(t, core.Holding{Mode: core.HoldWait, Wait: time.Minute})
		done := run(x.connect(pgx.QueryExecModeExec), "delete from "+x.schema+".rows where id = 1")
		a := x.waiting(1)[0]
		x.rule.off.Store(true)
		x.answer(a.ID, true, "")
		if err := ended(t, done); err != nil || x.rows() != 9 {
			t.Errorf("%v, %d rows", err, x.rows())
		}
	})
}

// TestHoldRefuse: the command is refused with an id, and runs once when it comes again after it was approved.
func TestHoldRefuse(t *testing.T) {
	t.Parallel()
	x := startHeld(t, core.Holding{Mode: core.HoldRefuse, Wait: time.Minute, Valid: time.Minute})
	c := x.connect(pgx.QueryExecModeExec)
	try := func(text string, args ...any) error { return ended(t, run(c, text, args...)) }
	one := "delete from " + x.schema + ".rows where id = $1"
	e := refusedBy(t, try(one, 1), "risky")
	a := x.waiting(1)[0]
	if e.Code != "42501" || !strings.Contains(e.Hint, "weir approvals approve "+a.ID) || !strings.Contains(e.Hint, "dba") {
		t.Errorf("%+v", e)
	}
	if a.Text != one || string(a.Params) != `["1"]` || a.Identity != "tester" || a.Target != "orders" || len(a.Digest) != 64 {
		t.Errorf("%+v", a)
	}
	refusedBy(t, try(one, 1), "risky") // asks for nothing new
	if again := x.waiting(1)[0]; again.ID != a.ID {
		t.Error("a repeat has an id of its own")
	}
	x.answer(a.ID, true, "")
	refusedBy(t, try(one, 2), "risky")                                            // other parameters
	refusedBy(t, try("delete from "+x.schema+".rows where id =  $1", 1), "risky") // another text
	refusedBy(t, try("delete from "+x.schema+".rows where id = 1"), "risky")
	if x.rows() != 10 {
		t.Fatal("one of them ran")
	}
	if err := try(one, 1); err != nil || x.rows() != 9 {
		t.Fatalf("approved: %v", err)
	}
	refusedBy(t, try(one, 1), "risky") // used once
	if d := decided(x.journal); !strings.Contains(d, "asked risky "+a.ID) || !strings.Contains(d, "approved risky "+a.ID+" by dana (corp)") {
		t.Errorf("the record: %s", d)
	}
}

// TestHoldMeanings: what is said by a name is approved as what the name stood for.
func TestHoldMeanings(t *testing.T) {
	t.Parallel()
	for _, k := range []struct{ name, first, other, use string }{
		{"PREPARE", "prepare p as delete from %s.rows where id = 1", "prepare p as delete from %s.rows where id > 1", "execute p"},
		{"PREPARE with values", "prepare p(int) as delete from %s.rows where id = $1", "prepare p(int) as delete from %s.rows where id >= $1", "execute p(1)"},
	} {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			x := startHeld(t, core.Holding{Mode: core.HoldRefuse})
			c := x.connect(pgx.QueryExecModeSimpleProtocol)
			// PREPARE itself writes nothing, but says so: hold only what runs.
			prepare := func(text string) {
				x.rule.off.Store(true)
				x.exec(c, "deallocate all")
				x.exec(c, fmt.Sprintf(text, x.schema))
				x.rule.off.Store(false)
			}
			use := func() error { return ended(t, run(c, k.use)) }
			prepare(k.first)
			refusedBy(t, use(), "risky")
			a := x.waiting(1)[0]
			if !strings.Contains(a.Text, "delete from "+x.schema) {
				t.Errorf("nobody is told what it stands for: %q", a.Text)
			}
			x.answer(a.ID, true, "")
			prepare(k.other)
			refusedBy(t, use(), "risky")
			if x.rows() != 10 {
				t.Fatal("an approval of another statement was used")
			}
			prepare(k.first)
			if err := use(); err != nil || x.rows() != 9 {
				t.Errorf("%v, %d rows", err, x.rows())
			}
		})
	}
}

// TestHoldInPipeline: a held command in the middle of a pipeline is refused in its turn, and nothing after it runs.
func TestHoldInPipeline(t *testing.T) {
	t.Parallel()
	for _, mode := range []core.HoldMode{core.HoldRefuse, core.HoldWait} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			x := startHeld(t, core.Holding{Mode: mode, Wait: time.Minute})
			c := x.connect(pgx.QueryExecModeExec)
			b := &pgx.Batch{}
			b.Queue("select 1")
			b.Queue("delete from "+x.schema+".rows where id = $1", 1)
			b.Queue("select 2")
			type result struct {
				first, second, third error
			}
			done := make(chan result, 1)
			go func() {
				r := c.SendBatch(context.Background(), b)
				var out result
				_, out.first = r.Exec()
				_, out.second = r.Exec()
				_, out.third = r.Exec()
				_ = r.Close()
				done <- out
			}()
			if mode == core.HoldWait {
				a := x.waiting(1)[0]
				if x.rows() != 10 {
					t.Error("it ran")
				}
				x.answer(a.ID, true, "")
			}
			out := <-done
			switch {
			case mode == core.HoldWait && (out != result{} || x.rows() != 9):
				t.Errorf("%+v, %d rows", out, x.rows())
			case mode == core.HoldRefuse:
				refusedBy(t, out.second, "risky")
				if out.first != nil || out.third == nil || x.rows() != 10 {
					t.Errorf("%+v, %d rows", out, x.rows())
				}
			}
		})
	}
}

// TestHoldCopy: COPY FROM STDIN waits before the client is asked for its data.
func TestHoldCopy(t *testing.T) {
	t.Parallel()
	x := startHeld(t, core.Holding{Mode: core.HoldWait, Wait: time.Minute})
	c := x.connect(pgx.QueryExecModeSimpleProtocol)
	done := make(chan error, 1)
	go func() {
		_, err := c.PgConn().CopyFrom(context.Background(), strings.NewReader("11\televen\n12\ttwelve\n"), "copy "+x.schema+".rows from stdin")
		done <- err
	}()
	a := x.waiting(1)[0]
	x.answer(a.ID, true, "")
	if err := ended(t, done); err != nil || x.rows() != 12 {
		t.Errorf("%v, %d rows", err, x.rows())
	}
}

// TestHoldSecret: a command that holds a secret shows nothing of it, and is bound to it all the same.
func TestHoldSecret(t *testing.T) {
	t.Parallel()
	x := startHeld(t, core.Holding{Mode: core.HoldRefuse})
	rule := func(_ context.Context, e *core.Event) (v core.Verdict, err error) {
		if e.Kind == core.KindCommand && e.Command().HasEffect(core.EffectPrivilege) {
			v.Hold = &core.Hold{Rule: "role", Approvers: []string{"dba"}}
		}
		return v, nil
	}
	g := startGate(t, withChain(inspects(rule)), func(g *testGate) { g.approvals = x.queue })
	c := g.connect(pgx.QueryExecModeSimpleProtocol)
	x.exec(x.direct, "create role "+x.schema+" login password 'before'")
	text := "alter role " + x.schema + " password 'hunter-%d'"
	refusedBy(t, ended(t, run(c, fmt.Sprintf(text, 1))), "role")
	a := x.waiting(1)[0]
	if strings.Contains(fmt.Sprintf("%+v", a), "hunter") || a.Digest != "" || !a.Secret {
		t.Errorf("shown: %+v", a)
	}
	x.answer(a.ID, true, "")
	refusedBy(t, ended(t, run(c, fmt.Sprintf(text, 2))), "role") // another password
	if err := ended(t, run(c, fmt.Sprintf(text, 1))); err != nil {
		t.Error(err)
	}
	if strings.Contains(g.journal.text(), "hunter") {
		t.Error("the password is in the record")
	}
	x.exec(x.direct, "drop role "+x.schema)
}

type inspects func(context.Context, *core.Event) (core.Verdict, error)

func (f inspects) Inspect(ctx context.Context, e *core.Event) (core.Verdict, error) { return f(ctx, e) }
