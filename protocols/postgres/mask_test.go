package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
)

// masking is a step that names fixed masks, as a policy would.
type masking []core.Mask

func (m masking) Inspect(_ context.Context, e *core.Event) (core.Verdict, error) {
	return core.Verdict{Masks: m}, nil
}

func (masking) Subscription() core.Subscription {
	return core.Subscription{Kinds: core.KindSet(core.KindColumns)}
}

func maskingChain(t *testing.T, columns ...string) core.Plugin {
	t.Helper()
	var m masking
	for _, c := range columns {
		m = append(m, core.Mask{Column: c, With: "redact"})
	}
	ch, err := chain.New(chain.Step{Name: "masks", Plugin: m})
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// TestMasksLeaveOthersAlone: PG-73, and that counting and other columns stay as they are.
func TestMasksLeaveOthersAlone(t *testing.T) {
	if _, err := server.Psql(t.Context(), "postgres", "drop schema if exists m2 cascade; create schema m2; create table m2.people (id int, email text, note text); insert into m2.people values (1, 'canary@example.com', 'plain'); create table m2.other (email text, n int); insert into m2.other values ('visible@example.com', 1)"); err != nil {
		t.Fatal(err)
	}
	g := startGate(t, withChain(maskingChain(t, "m2.people.email")))
	for name, mode := range modes {
		c := g.connect(mode)
		for sql, want := range map[string]string{
			"select email from m2.other":                                     "visible@example.com",
			"select note from m2.people":                                     "plain",
			"select upper(note) from m2.people":                              "PLAIN",
			"select count(*)::text from m2.people":                           "1",
			"select o.email from m2.other o join m2.people p on p.id = o.n":  "visible@example.com",
			"select upper(o.email) from m2.other o, m2.people p":             "VISIBLE@EXAMPLE.COM",
			"select count(email)::text || note from m2.people group by note": "",
			"select relname::text from pg_class where relname = 'pg_class'":  "pg_class",
			"select current_user::text":                                      "postgres",
			"show server_encoding":                                           "UTF8",
		} {
			var got *string
			if err := c.QueryRow(t.Context(), sql).Scan(&got); err != nil {
				t.Errorf("%s: %s: %v", name, sql, err)
				continue
			}
			if want == "" { // a masked value: anything but itself
				if got != nil && *got == "1plain" {
					t.Errorf("%s: %s: %q", name, sql, *got)
				}
				continue
			}
			if got == nil || *got != want {
				t.Errorf("%s: %s: %v, want %s", name, sql, got, want)
			}
		}
	}
}

// TestMaskFollowsTheCatalog: PG-68. Columns are added, dropped, renamed and tables made anew between two requests, by
// this session and by another.
func TestMaskFollowsTheCatalog(t *testing.T) {
	t.Parallel()
	g := startGate(t, withChain(maskingChain(t, "m3.people.email")))
	c := g.connect(pgx.QueryExecModeSimpleProtocol)
	beside := func(sql string) {
		t.Helper()
		if _, err := server.Psql(t.Context(), "postgres", sql); err != nil {
			t.Fatal(err)
		}
	}
	check := func(sql string) {
		t.Helper()
		rows, err := c.Query(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			for _, v := range rows.RawValues() {
				if strings.Contains(string(v), "canary") {
					t.Errorf("leaks: %s", sql)
				}
			}
		}
		if rows.Err() != nil {
			t.Fatal(rows.Err())
		}
	}
	beside("drop schema if exists m3 cascade; create schema m3; create table m3.people (id int, email text); insert into m3.people values (1, 'canary')")
	check("select * from m3.people")
	for i := range 20 {
		beside(fmt.Sprintf("alter table m3.people drop column email cascade; alter table m3.people add column x%d int; alter table m3.people add column email text; update m3.people set email = 'canary'", i))
		check("select email as a from m3.people")
		beside("drop table m3.people cascade; create table m3.people (email text, id int); insert into m3.people values ('canary', 1)")
		check("select lower(email) from m3.people")
		beside(fmt.Sprintf("create view m3.v%d as select email as n from m3.people", i))
		check(fmt.Sprintf("select n from m3.v%d", i))
		for _, own := range []string{
			"alter table m3.people rename column id to z", "alter table m3.people rename column z to id",
			fmt.Sprintf("create table m3.w%d (email text)", i), "begin; alter table m3.people add column k int; commit",
			"alter table m3.people drop column k",
		} {
			if _, err := c.Exec(t.Context(), own); err != nil {
				t.Fatal(err)
			}
			check("select * from m3.people")
		}
	}
}

// TestCatalogOutOfReach: when the gateway cannot ask what columns are, it hides them all.
func TestCatalogOutOfReach(t *testing.T) {
	g := startGate(t, withChain(maskingChain(t, "s.customers.email")))
	c := g.connect(pgx.QueryExecModeExec)
	var note *string
	if err := c.QueryRow(t.Context(), "select note from s.customers where id = 1").Scan(&note); err != nil || note == nil || *note != "first" {
		t.Fatal(note, err)
	}
	for _, cat := range g.handler.(*handler).catalogs.m {
		cat.mu.Lock()
		cat.credential.Password = "wrong"
		if cat.conn != nil {
			_ = cat.conn.conn.Close()
			cat.conn = nil
		}
		cat.mu.Unlock()
		cat.changed()
	}
	if err := c.QueryRow(t.Context(), "select note from s.customers where id = 1").Scan(&note); err != nil || note != nil && *note == "first" {
		t.Fatal("shown though nobody knows what it is:", note, err)
	}
}

// TestCursorsAndExecute: the names of SQL and those of the protocol are one namespace, for masks as well.
func TestCursorsAndExecute(t *testing.T) {
	g := startGate(t, withChain(maskingChain(t, "s.customers.email")))
	c := g.connect(pgx.QueryExecModeSimpleProtocol)
	for _, sql := range []string{
		"begin; declare cur cursor for select id, lower(email) from s.customers; fetch all from cur; commit",
		"prepare p1 as select id, lower(email) as e from s.customers", "execute p1",
	} {
		res, err := c.PgConn().Exec(t.Context(), sql).ReadAll()
		if err != nil {
			t.Fatal(sql, err)
		}
		for _, r := range res {
			for _, row := range r.Rows {
				if strings.Contains(string(row[1]), "@") || len(row[0]) == 0 {
					t.Errorf("%s: %q", sql, row)
				}
			}
		}
	}
	if _, err := c.Exec(t.Context(), "execute nobody"); err == nil {
		t.Error("an unknown name passed")
	} else if pe := (*pgconn.PgError)(nil); !errors.As(err, &pe) || pe.Code != "42501" {
		t.Error(err)
	}
	_, _ = c.PgConn().CopyTo(t.Context(), io.Discard, "copy s.customers (id) to stdout")
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestErrorsHideValues: PG-62. Where a mask is in force, what a server says when something fails loses the values; where
// none is, it is as the server said it.
func TestErrorsHideValues(t *testing.T) {
	attempts := []string{
		"select email::int from s.customers", "insert into s.customers select 9, email from s.customers where id = 1",
		"update s.customers set id = null where id = 1", "select email::uuid from s.customers", "select email::inet from s.customers",
		"select email::date from s.customers", "select email::json from s.customers", "select 1/(length(email) - length(email)) from s.customers",
	}
	on, off := startGate(t, withChain(maskingChain(t, "s.customers.email"))), startGate(t, withChain(maskingChain(t)))
	for name, mode := range modes {
		guarded, open, leaked := on.connect(mode), off.connect(mode), 0
		for _, sql := range attempts {
			_, err := guarded.Exec(t.Context(), sql)
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || strings.Contains(fmt.Sprintf("%+v", *pe), "example.com") {
				t.Errorf("%s: %s: %+v", name, sql, err)
			}
			if _, err := open.Exec(t.Context(), sql); errors.As(err, &pe) && strings.Contains(fmt.Sprintf("%+v", *pe), "example.com") {
				leaked++
			}
		}
		if leaked < 4 {
			t.Errorf("%s: the control leaks in %d cases only", name, leaked)
		}
	}
	if strings.Contains(on.journal.text(), "@example.com") {
		t.Error("a value is in the record")
	}
}
