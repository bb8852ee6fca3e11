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

const maskFixture = `
create schema m;
create table m.people (id int primary key, email text, ssn text, note text);
insert into m.people values (1, 'canary@example.com', '123-45-6789', 'plain');
create view m.v as select id, email from m.people;
create view m.vv as select id as x, lower(email) as y from m.v;
create view m.renamed as select email as contact, note from m.people;
create materialized view m.mv as select id, email from m.people;
create table m.root (id int, email text) partition by range (id);
create table m.leaf partition of m.root for values from (0) to (10);
insert into m.root values (1, 'canary@example.com');
create table m.child () inherits (m.people);
insert into m.child values (2, 'canary@example.com', '1', 'c');
create function m.f() returns setof m.people language sql as 'select * from m.people';
create function m.g() returns text language sql as 'select email from m.people limit 1';
create table m.other (email text, n int);
insert into m.other values ('visible@example.com', 1);
create type m.pair as (a text, b text);
analyze m.people;
`

// TestMaskedColumnsStayMasked tries the ways to read one column (attacks PG-50 to PG-55, PG-61). In each of them the
// canary is in the answer with the guard off, and in nothing that the client or the record sees with it on.
func TestMaskedColumnsStayMasked(t *testing.T) {
	if _, err := server.Psql(t.Context(), "postgres", maskFixture); err != nil {
		t.Fatal(err)
	}
	queries := []string{
		// PG-50: the server tells the origin
		"select email from m.people", "select email as x from m.people", "select * from m.people", "table m.people",
		"select x from (select email as x from m.people) q", "with q as (select email from m.people) select * from q",
		"with q as materialized (select email from m.people) select * from q", "select distinct email from m.people",
		"select email from m.people group by email", "select q.email from m.people p, lateral (select p.email) q",
		"select b.email from m.people a join m.people b using (id)", "select email from only m.people for update",
		"select (people).email from m.people", "update m.people set note = note returning email",
		"with u as (update m.people set note = note returning email) select email from u",
		// PG-51: views, materialized views, partitions, children
		"select email from m.v", "select y from m.vv", "select contact from m.renamed", "select email from m.mv",
		"select email from m.root", "select email from m.leaf", "select email from m.child", "select * from m.vv",
		// PG-53: expressions
		"select (select email from m.people limit 1)", "select email from m.people union all select 'z'", "select email || '' from m.people",
		"select email::varchar(50) from m.people", `select email collate "C" from m.people`, "select lower(email) from m.people",
		"select left(email, 20) from m.people", "select translate(email, 'X', 'Y') from m.people", "select replace(email, 'X', 'Y') from m.people",
		"select format('%s', email) from m.people", "select concat(email, '') from m.people", "select quote_literal(email) from m.people",
		"select coalesce(email, '') from m.people", "select case when true then email end from m.people", "select nullif(email, '') from m.people",
		"select greatest(email, '') from m.people", "select max(email) from m.people", "select string_agg(email, ',') from m.people",
		"select array_agg(email) from m.people", "select json_agg(email) from m.people", "select mode() within group (order by email) from m.people",
		"select first_value(email) over () from m.people", "select regexp_replace(email, 'X', 'Y') from m.people",
		"select split_part(email || ' x', ' ', 1) from m.people", "select trim(email) from m.people", "select email::text::bytea::text::text from m.people where false union select email from m.people",
		// PG-54: structures
		"select to_json(p)::text from m.people p", "select row_to_json(p) from m.people p", "select p from m.people p", "select p::text from m.people p",
		"select jsonb_build_object('a', email) from m.people", "select xmlelement(name a, email) from m.people", "select array[email] from m.people",
		"select unnest(array[email]) from m.people", "values ((select email from m.people limit 1))", "select row(email, 1) from m.people",
		"select (row(email, 'b')::m.pair).a from m.people", "select to_jsonb(p) -> 'email' from m.people p", "select hstore from (select email as hstore from m.people) q",
		"select * from json_each_text((select row_to_json(p) from m.people p limit 1))", "select table_to_xml('m.people', true, true, '')",
		"select query_to_xml('select email from m.people', true, true, '')",
		// PG-55: functions
		"select * from m.f()", "select (m.f()).email", "select m.g()", "select email from m.f()", "select upper(m.g())", "select * from m.g() q",
		// statistics hold values
		"select most_common_vals from pg_stats where schemaname = 'm'", "select histogram_bounds::text, most_common_vals::text from pg_catalog.pg_stats where tablename = 'people'",
		"with recursive r(a, b) as (select id::text, email from m.people union select b, b from r) select a from r",
		"select q.* from (select 1, lower(email) from m.people) q", "select j.* from (m.people a join m.v b using (id)) j",
		"with victim as (select * from m.people) select victim.* from victim", "select x.e from (values (1)) v(i) cross join lateral (select email e from m.people) x",
	}
	leaks := func(c *pgx.Conn, mode pgx.QueryExecMode, sql string) (leaked, failed bool) {
		rows, err := c.Query(context.Background(), sql, mode)
		if err != nil {
			return false, true
		}
		defer rows.Close()
		for rows.Next() {
			for _, v := range rows.RawValues() {
				leaked = leaked || strings.Contains(strings.ToLower(string(v)), "canary")
			}
		}
		return leaked, rows.Err() != nil
	}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			on := startGate(t, withChain(maskingChain(t, "m.people.email", "m.root.email")), func(g *testGate) { g.target.AllowIncomplete = true })
			off := startGate(t, func(g *testGate) { g.target.AllowIncomplete = true })
			guarded, open := on.connect(mode), off.connect(mode)
			for _, sql := range queries {
				if leaked, _ := leaks(guarded, mode, sql); leaked {
					t.Errorf("leaks: %s", sql)
				}
				leaked, failed := leaks(open, mode, sql)
				if !leaked && !failed && !strings.Contains(sql, "pg_stats") {
					t.Errorf("the control does not leak: %s", sql)
				}
				if guarded.PgConn().TxStatus() != 'I' {
					t.Fatalf("%s: the connection is out of step", sql)
				}
			}
			for _, r := range on.journal.records { // what the client typed is not what it got
				if r.Direction != core.FromClient && strings.Contains(strings.ToLower(string(r.Wire)), "canary") {
					t.Errorf("in the record: %s %s", r.Kind, r.Facts)
				}
			}
		})
	}
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
