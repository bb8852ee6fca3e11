package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// ordinary are statements that a loop says on an ordinary day. The rules that refuse the attacks must let them pass, and
// their answers must be the server's. None shows a masked column.
var ordinary = []struct{ id, sql string }{
	{"PG-03", "/* /* */ delete from s.victim */ select 1"},
	{"PG-03", "select 1 -- ; delete from s.victim"},
	{"PG-03", "/* ; drop table s.victim; */ select 'a'"},
	{"PG-03", "select/**/1/**/+/**/1"},
	{"PG-08", "select $a$;delete from s.victim;$a$"},
	{"PG-08", "select $$ do $x$ $x$; $$"},
	{"PG-08", "select ';delete from s.victim;'"},
	{"PG-08", `select E'\'; delete from s.victim; --'`},
	{"PG-08", `select '\' , ' ; delete from s.victim ; -- '`},
	{"PG-08", `select 1 as "; delete from s.victim"`},
	{"PG-08", `select U&'d\0061ta'`},
	{"PG-15", "explain (costs off) delete from s.victim"},
	{"PG-15", "explain (analyze off, costs off) delete from s.victim"},
	{"PG-00", "select 1"},
	{"PG-00", ""},
	{"PG-00", ";"},
	{"PG-00", "select 1; select 2"},
	{"PG-00", "select id, body from w.notes order by id"},
	{"PG-00", "select count(*), max(length(body)), bool_or(body is null) from w.notes"},
	{"PG-00", "select n.id, v.a from w.notes n join s.victim v on v.a = n.id order by 1"},
	{"PG-00", "select n.id from w.notes n left join lateral (select a from s.victim where a = n.id) x on true order by 1"},
	{"PG-00", "with a as (select id from w.notes), b as (select a from s.victim) select * from a, b order by 1, 2 limit 3"},
	{"PG-00", "with recursive r(n) as (select 1 union all select n + 1 from r where n < 10) select sum(n) from r"},
	{"PG-00", "select id, row_number() over (order by id desc), lag(id) over w from w.notes window w as (order by id) order by 1"},
	{"PG-00", "select case when id > 1 then 'many' else 'one' end, coalesce(body, '-') from w.notes order by id"},
	{"PG-00", "select a from s.victim where a in (1, 2) or a between 4 and 9 or a = any (array[3]) order by a desc offset 1"},
	{"PG-00", "select distinct on (a % 2) a % 2, a from s.victim order by a % 2, a"},
	{"PG-00", "select a from s.victim union select 9 except select 1 intersect select 1 order by 1"},
	{"PG-00", "select grouping(a), a, count(*) from s.victim group by rollup (a) order by 1, 2"},
	{"PG-00", "select array_agg(a order by a), string_agg(a::text, ',' order by a), json_agg(a order by a) from s.victim"},
	{"PG-00", `select '{"a": {"b": [1, 2]}}'::jsonb #> '{a,b}' -> 1, '{"a": 1}'::jsonb @> '{}', jsonb_path_query('[1, 2]', '$[*]')`},
	{"PG-00", "select '2026-01-31'::date + interval '1 month', date_trunc('day', timestamp '2026-01-31 12:00'), extract(year from date '2026-01-31')"},
	{"PG-00", "select regexp_replace('abc', 'b', 'x'), substring('abc' from 2), 'abc' like 'a%', 'abc' ~ 'c$', position('b' in 'abc')"},
	{"PG-00", "select (row(1, 'x')).f2, (array[1, 2, 3])[2:3], '(1,2)'::point <-> '(3,4)'::point, '[1,3)'::int4range && '[2,5)'"},
	{"PG-00", "select * from generate_series(1, 3) with ordinality as g(n, i)"},
	{"PG-00", "select x.id from w.notes x where exists (select from s.victim v where v.a = x.id) order by x.id"},
	{"PG-00", "values (1, 'a'), (2, 'b')"},
	{"PG-00", "table w.notes"},
	{"PG-00", "select email from w.notes order by id"},
	{"PG-00", "select upper(n.email) from w.notes n order by n.id"},
	{"PG-00", "begin; insert into w.notes values (9, 'nine') returning id; rollback"},
	{"PG-00", "begin; insert into w.notes values (1, 'x') on conflict (id) do update set body = excluded.body returning body; rollback"},
	{"PG-00", "begin; update w.notes set body = 'x' where id = 1 returning id, body; rollback"},
	{"PG-00", "begin; update s.victim set a = a + 10 where a = 1 returning a; rollback"},
	{"PG-00", "begin; delete from w.notes where id = 1 returning id; rollback"},
	{"PG-00", "begin; merge into w.notes n using (values (1)) x(id) on n.id = x.id when matched then update set body = 'm'; rollback"},
	{"PG-00", "begin; savepoint a; select 1; rollback to a; release a; commit"},
	{"PG-00", "begin isolation level serializable read only; select 1; commit"},
	{"PG-00", "prepare q(int) as select $1 + 1; execute q(41); deallocate q"},
	{"PG-00", "begin; declare c cursor for select a from s.victim order by a; fetch 2 from c; move 1 in c; fetch all from c; close c; commit"},
	{"PG-00", "set application_name = 'loop'; show application_name"},
	{"PG-00", "set local timezone = 'UTC'; select current_setting('timezone') is not null"},
	{"PG-00", "set search_path = w; select count(*) from notes"},
	{"PG-00", "show server_version_num"},
	{"PG-00", "select table_name from information_schema.tables where table_schema = 'w' order by 1"},
	{"PG-00", "select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = 's.customers'::regclass and attnum > 0 order by attnum"},
	{"PG-00", "select relname, relkind from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 's' order by 1"},
	{"PG-00", "select pg_get_viewdef('s.v'::regclass), obj_description('s.v'::regclass), has_table_privilege('s.v', 'select')"},
	{"PG-00", "select rolname from pg_roles where rolname = 'agent'"},
	{"PG-00", "select name, setting from pg_settings where name in ('server_encoding', 'max_identifier_length') order by 1"},
	{"PG-00", "select count(*) >= 1 from pg_stat_activity"},
	{"PG-00", "select count(*) >= 1, bool_or(a.pid = pg_backend_pid()), max(a.state) is null from pg_stat_activity a where datname is null"},
	{"PG-00", "select datname is null, backend_type from pg_stat_activity where backend_type = 'checkpointer'"},
	{"PG-00", "explain (costs off) select * from w.notes where id = 1"},
	{"PG-00", "select current_user = session_user, current_schema is not null, version() like 'PostgreSQL%'"},
	{"PG-00", "select gen_random_uuid() is not null, now() is not null, random() < 1"},
	{"PG-00", "select id from s.customers order by id"},
	{"PG-00", "select count(*) from s.customers"},
	{"PG-00", "copy (select a from s.victim order by a) to stdout"},
	{"PG-00", "copy w.notes (id, body) to stdout with (format csv, header)"},
}

// TestOrdinaryStatements holds the rules of the attack tests against what must pass.
func TestOrdinaryStatements(t *testing.T) {
	t.Parallel()
	r := newGround(t)
	answer := func(c *pgx.Conn, sql string) string {
		_, _ = c.PgConn().Exec(context.Background(), "discard all; rollback").ReadAll()
		results, err := c.PgConn().Exec(context.Background(), sql).ReadAll()
		if err != nil {
			return err.Error()
		}
		out := ""
		for _, res := range results {
			out += res.CommandTag.String() + "\n"
			for _, row := range res.Rows {
				out += fmt.Sprintf("%q\n", row)
			}
		}
		return out
	}
	p := r.guarded.player(t, pgx.QueryExecModeSimpleProtocol)
	for _, c := range ordinary {
		t.Run(c.id+"/passes "+c.sql, func(t *testing.T) {
			want, got := answer(r.side, c.sql), answer(p.Conn, c.sql)
			if want != got {
				t.Errorf("the server: %s\nguarded: %s", want, got)
			}
		})
	}
	for _, c := range ordinary { // and by the extended protocol, where it is one statement
		if results, err := r.side.PgConn().Exec(t.Context(), c.sql).ReadAll(); err != nil || len(results) != 1 || strings.HasPrefix(results[0].CommandTag.String(), "COPY") {
			continue
		}
		want, got := r.side.PgConn().ExecParams(t.Context(), c.sql, nil, nil, nil, nil).Read(), p.PgConn().ExecParams(t.Context(), c.sql, nil, nil, nil, nil).Read()
		if fmt.Sprintf("%q %v", want.Rows, want.Err) != fmt.Sprintf("%q %v", got.Rows, got.Err) {
			t.Errorf("%s: the server: %q %v\nguarded: %q %v", c.sql, want.Rows, want.Err, got.Rows, got.Err)
		}
	}
	if n := r.victims(t); n != 5 {
		t.Errorf("s.victim has %d rows", n)
	}
}
