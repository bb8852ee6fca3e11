package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
)

const smuggled = `select '\' , ' ; delete from s.victim ; -- '`

// TestAttackStartup is PG-10, PG-11, PG-40, PG-44 and PG-48: what a startup packet can bring along. The control is a
// direct connection: no gateway of ours passes it on.
func TestAttackStartup(t *testing.T) {
	t.Parallel()
	r := newGround(t)
	direct := func(t *testing.T, params, sql string) error {
		c, err := pgx.Connect(t.Context(), server.URL(r.database)+params)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close(context.Background()) }()
		_, err = c.PgConn().Exec(t.Context(), sql).ReadAll()
		return err
	}
	for _, c := range []struct{ id, name, params, sql string }{
		{"PG-10", "a parameter", "&standard_conforming_strings=off", smuggled},
		{"PG-10", "options", "&options=-c%20standard_conforming_strings%3Doff", smuggled},
		{"PG-10", "options without a blank", "&options=-cstandard_conforming_strings%3Doff", smuggled},
		{"PG-10", "a long option", "&options=--standard-conforming-strings%3Doff", smuggled},
		{"PG-10", "letter case", "&options=-c%20Standard_Conforming_Strings%3D0", smuggled},
		{"PG-10", "the second of two", "&options=-c%20geqo%3Doff%20-c%20standard_conforming_strings%3Dno", smuggled},
		{"PG-12", "the encoding", "&options=-c%20client_encoding%3DSJIS", "select E'\x95\x5c' ; delete from s.victim ; -- '"},
		{"PG-37", "the role", "&options=-c%20role%3Dattack_role", ""},
		{"PG-44", "replication=database", "&replication=database", "IDENTIFY_SYSTEM"},
		{"PG-44", "replication=true", "&replication=true", "IDENTIFY_SYSTEM"},
		{"PG-44", "replication=on", "&replication=on", "IDENTIFY_SYSTEM"},
		{"PG-44", "replication=1", "&replication=1", "SHOW wal_level"},
		{"PG-44", "a slot", "&replication=database", "CREATE_REPLICATION_SLOT " + r.database + " TEMPORARY PHYSICAL"},
		{"PG-44", "a backup", "&replication=database", "BASE_BACKUP ( LABEL 'x', CHECKPOINT 'fast', WAL false, VERIFY_CHECKSUMS false, MANIFEST 'no', PROGRESS true, MAX_RATE 1048576 )"},
	} {
		t.Run(c.id+"/startup "+c.name, func(t *testing.T) {
			conn, err := pgx.Connect(t.Context(), r.guarded.url(c.params))
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != "42501" {
				t.Errorf("guarded: %v", err)
			}
			if err == nil {
				_ = conn.Close(context.Background())
			}
			if c.name == "a backup" {
				return // it would take the whole cluster
			}
			if err := direct(t, c.params, c.sql); err != nil {
				t.Errorf("control: %v", err)
			}
			if strings.Contains(c.sql, "delete") {
				if r.victims(t) != 0 {
					t.Error("control: no harm is done")
				}
				r.restore(t, false)
			}
		})
	}
	for _, c := range []struct{ name, params string }{ // the same list as for SET
		{"debug messages", "&client_min_messages=debug5"},
		{"debug messages in the options", "&options=-c%20client_min_messages%3Dlog"},
		{"trees of statements", "&options=-c%20debug_print_parse%3Don"},
		{"row security", "&row_security=off"},
		{"triggers", "&options=--session-replication-role%3Dreplica"},
		{"the server's log", "&options=-c%20log_statement%3Dall"},
		{"functions before the server's own", "&search_path=s,pg_catalog"},
		{"functions before the server's own, quoted", "&options=-c%20search_path%3Ds,%22pg_catalog%22"},
	} {
		t.Run("PG-63/startup "+c.name, func(t *testing.T) {
			mark := r.mark(t)
			conn, err := pgx.Connect(t.Context(), r.guarded.url(c.params))
			if refusedAs(err) == nil {
				t.Errorf("guarded: %v", err)
			}
			if err == nil {
				_ = conn.Close(context.Background())
			}
			if rules := mark.denials(); len(rules) != 1 {
				t.Errorf("recorded: %q", rules)
			}
			if err := direct(t, c.params, "select 1"); err != nil {
				t.Errorf("control: %v", err)
			}
		})
	}
	t.Run("PG-00/startup what drivers say", func(t *testing.T) {
		for _, params := range []string{
			"&application_name=x", "&datestyle=ISO,%20MDY&timezone=UTC&extra_float_digits=2&client_encoding=UTF8", "&search_path=s,public",
			"&options=-c%20statement_timeout%3D5s%20-c%20search_path%3D%22s%22", "&client_min_messages=warning",
		} {
			conn, err := pgx.Connect(t.Context(), r.guarded.url(params))
			if err != nil {
				t.Errorf("%s: %v", params, err)
				continue
			}
			_ = conn.Close(context.Background())
		}
	})
	t.Run("PG-11/PGOPTIONS", func(t *testing.T) {
		psql := func(url string) string {
			cmd := exec.CommandContext(t.Context(), server.Program("psql"), "-X", "-d", url, "-c", smuggled)
			cmd.Env = append(os.Environ(), "PGOPTIONS=-c standard_conforming_strings=off", "LC_ALL=C")
			out, _ := cmd.CombinedOutput()
			return string(out)
		}
		if out := psql(r.guarded.url("")); !strings.Contains(out, "standard_conforming_strings") || r.victims(t) != 5 {
			t.Errorf("guarded: %s", out)
		}
		if out := psql(server.URL(r.database)); r.victims(t) != 0 {
			t.Errorf("control: %s", out)
		}
		r.restore(t, false)
	})
	t.Run("PG-11/alter database", func(t *testing.T) { // by somebody beside the gateway: it pins the value at sign-in
		if _, err := r.side.Exec(t.Context(), "alter database "+r.database+" set standard_conforming_strings = off"); err != nil {
			t.Fatal(err)
		}
		p := r.guarded.player(t, pgx.QueryExecModeSimpleProtocol)
		if rows, err := p.play(smuggled); err != nil || rows != 1 { // one select, of two texts
			t.Errorf("guarded: %d rows, %v", rows, err)
		}
		if n := r.victims(t); n != 5 {
			t.Errorf("guarded: %d rows", n)
		}
		if err := direct(t, "", smuggled); err != nil || r.victims(t) != 0 {
			t.Errorf("control: %v", err)
		}
		r.restore(t, false)
	})
	t.Run("PG-40/startup search path", func(t *testing.T) {
		for _, params := range []string{"&search_path=s", "&options=-c%20search_path%3Ds"} {
			for _, g := range []*testGate{r.guarded, r.open} {
				c, err := pgx.Connect(t.Context(), g.url(params))
				if err != nil {
					t.Fatal(err)
				}
				_, err = c.Exec(t.Context(), "delete from victim where a > 0")
				if g == r.guarded && (refusedAs(err) == nil || r.victims(t) != 5) || g == r.open && r.victims(t) != 0 {
					t.Errorf("%s: guarded %v: %v", params, g == r.guarded, err)
				}
				_ = c.Close(context.Background())
			}
			r.restore(t, false)
		}
	})
	t.Run("PG-48/other database", func(t *testing.T) {
		for _, name := range []string{"postgres", "template1", "attack_template"} {
			c, err := pgx.Connect(t.Context(), strings.Replace(r.guarded.url(""), "/orders", "/"+name, 1))
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != "3D000" {
				t.Errorf("guarded: %s: %v", name, err)
			}
			if err == nil {
				_ = c.Close(context.Background())
			}
		}
	})
}

// reloaded is a chain that a reload replaces, as the gateway does for the sessions that are open.
type reloaded struct{ now atomic.Pointer[chain.Chain] }

func (r *reloaded) Inspect(ctx context.Context, e *core.Event) (core.Verdict, error) {
	return r.now.Load().Inspect(ctx, e)
}

func (r *reloaded) Subscription() core.Subscription { return r.now.Load().Subscription() }

// TestAttackReload is PG-19: what was prepared under other rules is judged by those that are in force when it runs.
func TestAttackReload(t *testing.T) {
	t.Parallel()
	r := newGround(t)
	rules, err := attackRules()
	if err != nil {
		t.Fatal(err)
	}
	before, err := chain.New(chain.Step{Name: "before", Plugin: masking(nil)})
	if err != nil {
		t.Fatal(err)
	}
	simple := func(sql string) func(*player) error {
		return func(p *player) error { _, err := p.play(sql); return err }
	}
	for _, c := range []struct {
		name         string
		prepare, run func(*player) error
		leak         bool
	}{
		{"PREPARE, EXECUTE", simple("prepare d as delete from s.victim"), simple("execute d"), false},
		{"Parse, Bind", func(p *player) error {
			_, err := p.PgConn().Prepare(context.Background(), "d", "delete from s.victim", nil)
			return err
		}, func(p *player) error {
			return p.PgConn().ExecPrepared(context.Background(), "d", nil, nil, nil).Read().Err
		}, false},
		{"Parse, EXECUTE", func(p *player) error {
			_, err := p.PgConn().Prepare(context.Background(), "d", "delete from s.victim", nil)
			return err
		}, simple("execute d"), false},
		{"cursor", simple("begin; declare d cursor for select s.wipe()"), simple("fetch d; commit"), false},
		{"a mask on what was prepared", simple("prepare d as select y from s.vv"), simple("execute d"), true},
		{"a mask on a cursor that is open", simple("begin; declare d cursor for select email from s.customers; fetch 0 d"), simple("fetch all d"), true},
	} {
		t.Run("PG-19/"+c.name, func(t *testing.T) {
			for _, reload := range []bool{true, false} {
				swap := &reloaded{}
				swap.now.Store(before)
				g := startGate(t, withChain(swap), func(g *testGate) { g.target.Upstream.Database = r.database })
				p := g.player(t, pgx.QueryExecModeSimpleProtocol)
				if err := c.prepare(p); err != nil {
					t.Fatal(err)
				}
				if reload {
					swap.now.Store(rules)
				}
				err := c.run(p)
				leaked := p.sees(canaries...) != ""
				switch {
				case reload && leaked, !reload && c.leak && !leaked:
					t.Errorf("reload %v: leaked %v, %v", reload, leaked, err)
				case c.leak && err != nil:
					t.Errorf("reload %v: %v", reload, err)
				case !c.leak && reload && (refusedAs(err) == nil || r.victims(t) != 5), !c.leak && !reload && r.victims(t) != 0:
					t.Errorf("reload %v: %v, %d rows", reload, err, r.victims(t))
				}
				_ = p.Close(context.Background())
			}
			r.restore(t, false)
		})
	}
}

// TestAttackExtended is PG-20, PG-21, PG-23 and PG-30: what needs messages of its own.
func TestAttackExtended(t *testing.T) {
	t.Parallel()
	r := newGround(t)
	ctx := t.Context()
	t.Run("PG-20/a name from long ago", func(t *testing.T) {
		for _, g := range []*testGate{r.guarded, r.open} {
			guarded, mark := g == r.guarded, r.mark(t)
			p := g.player(t, pgx.QueryExecModeExec)
			_, err := p.PgConn().Prepare(ctx, "d", "delete from s.victim", nil)
			if guarded && refusedAs(err) == nil || !guarded && err != nil {
				t.Errorf("guarded %v: Parse: %v", guarded, err)
			}
			if rules := mark.denials(); guarded && len(rules) != 1 {
				t.Errorf("recorded: %q", rules)
			}
			for range 100 {
				batch := &pgx.Batch{}
				for range 10 {
					batch.Queue("select 1")
				}
				if err := p.SendBatch(ctx, batch).Close(); err != nil {
					t.Fatal(err)
				}
			}
			err = p.PgConn().ExecPrepared(ctx, "d", nil, nil, nil).Read().Err
			var pe *pgconn.PgError
			if guarded && (!errors.As(err, &pe) || pe.Code != "26000") || !guarded && (err != nil || r.victims(t) != 0) {
				t.Errorf("guarded %v: Bind: %v", guarded, err)
			}
			if guarded {
				mark.holds(t, "delete from s.victim")
			}
		}
		r.restore(t, false)
	})
	for _, c := range []struct {
		name     string
		def, run func(p *player, sql string) error
	}{
		{
			"Parse, then EXECUTE", func(p *player, sql string) error { _, err := p.PgConn().Prepare(ctx, "n", sql, nil); return err },
			func(p *player, _ string) error { _, err := p.play("execute n"); return err },
		},
		{
			"PREPARE, then Bind", func(p *player, sql string) error { _, err := p.play("prepare n as " + sql); return err },
			func(p *player, _ string) error { return p.PgConn().ExecPrepared(ctx, "n", nil, nil, nil).Read().Err },
		},
		{
			"PREPARE, then Bind binary", func(p *player, sql string) error { _, err := p.play("prepare n as " + sql); return err },
			func(p *player, _ string) error {
				return p.PgConn().ExecPrepared(ctx, "n", nil, nil, []int16{1}).Read().Err
			},
		},
	} {
		t.Run("PG-21/"+c.name, func(t *testing.T) {
			for _, g := range []*testGate{r.guarded, r.open} {
				guarded, mark := g == r.guarded, r.mark(t)
				p := g.player(t, pgx.QueryExecModeExec)
				const sql = "select y from s.vv"
				if err := c.def(p, sql); err != nil {
					t.Fatal(err)
				}
				p.sees()
				if err := c.run(p, sql); err != nil {
					t.Errorf("guarded %v: %v", guarded, err)
				}
				if leaked := p.sees(canaries...) != ""; leaked == guarded {
					t.Errorf("guarded %v: leaked %v", guarded, leaked)
				}
				if guarded {
					mark.holds(t)
					n := 0
					for _, rec := range mark.recorded() {
						if rec.Kind == core.KindCommand && strings.Contains(string(rec.Facts), `"name":"s.customers"`) {
							n++
						}
					}
					if n != 2 {
						t.Errorf("%d commands of the record say which table it is, want both", n)
					}
				}
				// what is refused when its text is seen has no name to be run by
				if err := c.def(p, "delete from s.victim"); guarded && err == nil {
					t.Error("guarded: the text passed")
				}
			}
		})
	}
	t.Run("PG-23/a query before the Sync", func(t *testing.T) {
		for _, g := range []*testGate{r.guarded, r.open} {
			c := g.dial()
			c.signIn()
			c.send(append(message('P', "n1\x00select 41 + 1\x00\x00\x00"), message('Q', "select 1\x00")...))
			if got := c.until('Z'); got != "1TDCZ" {
				t.Errorf("guarded %v: %q", g == r.guarded, got)
			}
			c.send(append(append(append(message('B', "\x00n1\x00\x00\x00\x00\x00\x00\x00"), message('E', "\x00\x00\x00\x00\x00")...), message('S', "")...), message('X', "")...))
			if got := c.rest(); !strings.Contains(got, "42") || strings.Contains(got, "ERROR") {
				t.Errorf("guarded %v: %q", g == r.guarded, got)
			}
		}
	})
	for _, name := range []string{"s.g()", "s.wipe()", "pg_catalog.pg_read_file(text)", "pg_catalog.pg_read_binary_file(text)", "pg_catalog.lo_unlink(oid)"} {
		t.Run("PG-30/"+name, func(t *testing.T) {
			var oid uint32
			if err := r.side.QueryRow(ctx, "select '"+name+"'::regprocedure::oid").Scan(&oid); err != nil {
				t.Fatal(err)
			}
			body := binary.BigEndian.AppendUint32(nil, oid)
			args := "\x00\x00\x00\x00\x00\x00"
			switch {
			case strings.Contains(name, "text"):
				args = "\x00\x00\x00\x01\x00\x00\x00\x04/etc\x00\x00"
			case strings.Contains(name, "oid"):
				args = "\x00\x00\x00\x01\x00\x00\x00\x0570009\x00\x00"
			}
			for _, g := range []*testGate{r.guarded, r.open} {
				guarded, mark := g == r.guarded, r.mark(t)
				c := g.dial()
				c.signIn()
				c.send(message('F', string(body)+args))
				c.send(message('Q', "select 'still here'\x00"))
				c.send(message('X', ""))
				got := c.rest()
				ran := strings.Contains(got, "V\x00") || strings.Contains(got, "2F") // a value, or the function's own error
				if !strings.Contains(got, "still here") || guarded != strings.Contains(got, "C42501") {
					t.Errorf("guarded %v: %q", guarded, got)
				}
				if guarded {
					mark.holds(t)
					if rules := mark.denials(); len(rules) != 1 {
						t.Errorf("recorded: %q", rules)
					}
				}
				switch {
				case guarded || ran:
				case name == "s.wipe()" && r.victims(t) == 0:
				case strings.Contains(got, "Is a directory"), strings.Contains(got, "large object 70009 does not exist"): // it ran
				default:
					t.Errorf("control: %q", got)
				}
				if name == "s.g()" && strings.Contains(got, canaries[0]) == guarded {
					t.Errorf("guarded %v: %q", guarded, got)
				}
			}
			r.restore(t, false)
		})
	}
}

// TestAttackTime is PG-47: statements without end stop at the target's limits. The control runs until it is cancelled.
func TestAttackTime(t *testing.T) {
	t.Parallel()
	r := newGround(t)
	rules, err := attackRules()
	if err != nil {
		t.Fatal(err)
	}
	limited := startGate(t, withChain(rules), func(g *testGate) {
		g.target.Upstream.Database = r.database
		g.target.Limits.StatementTimeout, g.target.Limits.Rows = 250*time.Millisecond, 2000
	})
	for _, c := range []struct{ name, sql, code string }{
		{"series", "select count(*) from generate_series(1, 1000000000000)", "57014"},
		{"cross join", "select count(*) from generate_series(1, 100000) a, generate_series(1, 100000) b, generate_series(1, 100000) c", "57014"},
		{"recursion", "with recursive r(n) as (select 1 union all select n + 1 from r where n < 0 or n > 0) select max(n::numeric) from r where n < 0", "57014"},
		{"regular expression", `select count(*) from generate_series(1, 100000000) g where repeat('ab', 2000 + g % 3) ~ '(a|b)*(x|y)(a|b)*\1'`, "57014"},
		{"many rows", "select g from generate_series(1, 100000) g", "54000"},
	} {
		t.Run("PG-47/"+c.name, func(t *testing.T) {
			t.Parallel()
			p := limited.player(t, pgx.QueryExecModeSimpleProtocol)
			start := time.Now()
			_, err := p.play(c.sql)
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != c.code || time.Since(start) > 8*time.Second {
				t.Errorf("guarded: %v after %v", err, time.Since(start))
			}
			if rows, err := p.play("select 1"); err != nil || rows != 1 {
				t.Errorf("guarded: select 1: %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
			defer cancel()
			free := r.open.player(t, pgx.QueryExecModeSimpleProtocol)
			rows, err := free.PgConn().Exec(ctx, c.sql).ReadAll()
			if c.code == "54000" {
				if err != nil && !errors.Is(err, context.DeadlineExceeded) || err == nil && len(rows[0].Rows) != 100000 {
					t.Errorf("control: %v", err)
				}
			} else if err == nil {
				t.Error("control: it ended by itself")
			}
		})
	}
}
