package postgres

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// reading is one way to read a masked column.
type reading struct {
	id, sql string
	shows   string // what the control gives in place of the value, as SQL over its literal; empty: the value itself
}

// readings are PG-50 to PG-55, PG-67 and PG-70: in each the control shows the value, or what tells it.
func readings() (all []reading) {
	add := func(id string, list ...string) {
		for _, sql := range list {
			all = append(all, reading{id: id, sql: sql})
		}
	}
	// The server tells the origin.
	add("PG-50",
		"select email from s.customers", "select email as x from s.customers", "select * from s.customers", "table s.customers",
		"select x from (select email as x from s.customers) q", "with q as (select email from s.customers) select * from q",
		"with q as materialized (select email from s.customers) select * from q", "select distinct email from s.customers",
		"select email from s.customers group by email", "select q.email from s.customers p, lateral (select p.email) q",
		"select b.email from s.customers a join s.customers b using (id)", "select email from only s.customers for update",
		"select (customers).email from s.customers", "update s.customers set ssn = ssn returning email",
		"insert into s.customers values (77, null, '1234') returning (select email from only s.customers where id = 1)",
		"with u as (update s.customers set ssn = ssn returning email) select email from u",
		"select customers.* from s.customers", `select "email" from s."customers"`, "select email x from s.customers order by id limit 1",
		"begin; declare c cursor for select email from s.customers; fetch all from c; commit",
		"prepare q as select email from s.customers; execute q; deallocate q",
		"select * from s.customers natural join (select 1 as id) x", "select a.*, b.* from s.customers a, s.customers b")
	// Views, partitions, children.
	add("PG-51",
		"select email from s.v", "select y from s.vv", "select contact from s.renamed", "select email from s.mv", "select email from s.part",
		"select email from s.part_1", "select email from s.child", "select * from s.vv", "table s.renamed", "select r.contact || '' from s.renamed r",
		"select email from only s.child", "select * from s.customers where id = 2")
	// Columns that are computed from others.
	add("PG-51",
		"select kept from s.made", "select * from s.made", "select lower(kept) from s.made", "select kept from s.vmade", "select m.kept || '' from s.made m",
		"select m from s.made m", "update s.made set id = 1 returning kept")
	all = append(all, reading{"PG-51", "select size from s.made", "'4726'"}, reading{"PG-51", "select size + 0 from s.made", "'4726'"})
	// Expressions.
	add("PG-53",
		"select (select email from s.customers limit 1)", "select email from s.customers union all select 'z'", "select email || '' from s.customers",
		"select email::varchar(50) from s.customers", `select email collate "C" from s.customers`, "select lower(email) from s.customers",
		"select left(email, 20) from s.customers", "select translate(email, 'X', 'Y') from s.customers", "select replace(email, 'X', 'Y') from s.customers",
		"select format('%s', email) from s.customers", "select concat(email, '') from s.customers", "select quote_literal(email) from s.customers",
		"select coalesce(email, '') from s.customers", "select case when true then email end from s.customers", "select nullif(email, '') from s.customers",
		"select greatest(email, '') from s.customers", "select max(email) from s.customers", "select min(email) from s.customers", "select string_agg(email, ',') from s.customers",
		"select array_agg(email) from s.customers", "select json_agg(email) from s.customers", "select mode() within group (order by email) from s.customers",
		"select first_value(email) over () from s.customers", "select lag(email, 0) over (order by id) from s.customers", "select regexp_replace(email, 'X', 'Y') from s.customers",
		"select split_part(email || ' x', ' ', 1) from s.customers", "select trim(email) from s.customers", "select substr(email, 1) from s.customers",
		"select email from s.customers intersect select email from s.customers", "select overlay(email placing '' from 1 for 0) from s.customers",
		"select quote_ident(email) from s.customers", "select lpad(email, 30) from s.customers", "select (array[email])[1] from s.customers",
		"select email from (values (1)) v(i) cross join s.customers", "select (regexp_match(email, '.*'))[1] from s.customers",
		"select percentile_disc(0) within group (order by email) from s.customers", "select least(email, 'zzz') from s.customers",
		"select * from s.customers c join lateral (select c.email || '' as copy) x on true", "select concat_ws('-', id, email) from s.customers",
		"with recursive r(a, b) as (select id::text, email from s.customers union select b, b from r) select a from r")
	for _, f := range []string{
		"upper(%)", "reverse(%)", "md5(%)", "sha256(%::bytea)", "encode(%::bytea, 'base64')", "encode(%::bytea, 'hex')", "ascii(%)", "to_hex(ascii(%))",
		"length(%)", "octet_length(%)", "bit_length(%)", "hashtext(%)", "initcap(%)", "position('@' in %)", "strpos(%, 'example')", "substr(%, 5, 7)",
		"repeat(%, 2)", "array_to_string(string_to_array(%, '@'), '/')", "left(%, 3)", "right(%, 4)", "(% = 'ada@example.com')::int + 4711", "to_tsvector('simple', %)", "md5(md5(%))",
	} {
		id := "PG-53"
		if strings.HasPrefix(f, "left") || strings.HasPrefix(f, "right") || strings.HasPrefix(f, "substr") {
			id = "PG-70"
		}
		all = append(all, reading{id, "select (" + strings.ReplaceAll(f, "%", "email") + ") as f from only s.customers", strings.ReplaceAll(f, "%", "'ada@example.com'")})
	}
	// Structures.
	add("PG-54",
		"select to_json(p)::text from s.customers p", "select row_to_json(p) from s.customers p", "select p from s.customers p", "select p::text from s.customers p",
		"select to_jsonb(p) from s.customers p", "select jsonb_build_object('a', email) from s.customers", "select xmlelement(name a, email) from s.customers",
		"select xmlforest(email) from s.customers", "select array[email] from s.customers", "select unnest(array[email]) from s.customers",
		"values ((select email from s.customers limit 1))", "select row(email, 1) from s.customers", "select (row(email, 'b')::s.pair).a from s.customers",
		"select to_jsonb(p) -> 'email' from s.customers p", "select * from json_each_text((select row_to_json(p) from s.customers p limit 1))",
		"select table_to_xml('s.customers', true, true, '')", "select query_to_xml('select email from s.customers', true, true, '')",
		"select json_object_agg(id, email) from s.customers", "select array_to_string(array_agg(email), ',') from s.customers",
		"select * from jsonb_to_recordset((select jsonb_agg(p) from s.customers p)) as x(email text)", "select (json_populate_record(null::s.pair, json_build_object('a', email))).a from s.customers",
		"select array_to_json(array_agg(p)) from s.customers p", "select schema_to_xml('s', true, true, '')", "select cursor_to_xml('c', 1, true, true, '')",
		"select jsonb_path_query(to_jsonb(p), '$.email') from s.customers p", "select string_agg(p::text, '|') from s.customers p")
	// What other sessions have said.
	add("PG-54",
		"select query from pg_stat_activity", "select * from pg_stat_activity", "select string_agg(query, ',') from pg_catalog.pg_stat_activity", "select (pg_stat_get_activity(null)).query",
		"select query from pg_stat_get_activity(null)", "select pg_stat_get_backend_activity(i) from generate_series(1, 500) i", "select to_json(a) from pg_stat_activity a",
		"select a from pg_stat_activity a", "select q.said from (select query as said, pid from pg_stat_activity) q", "select lower(a.query) from pg_stat_activity a",
		"select (a).query from pg_stat_activity a", "select a.query from pg_stat_activity a union select 'x'")
	add("PG-55",
		"select * from s.f()", "select (s.f()).email", "select s.g()", "select email from s.f()", "select upper(s.g()) || s.g()", "select * from s.g() q",
		"select f.email from s.customers c, lateral s.f() f", "select array(select s.g())")
	// Piece by piece.
	all = append(all,
		reading{"PG-70", "select string_agg(substr(email, n, 1), ',') from only s.customers, generate_series(1, 15) n", "'a,d,a,@,e'"},
		reading{"PG-70", "select substr(email, n, 1) || '!' from only s.customers, generate_series(1, 15) n", "'@!'"},
		reading{"PG-70", "select regexp_split_to_table(email, '') || '?' from only s.customers", "'@?'"},
		reading{"PG-70", "select left(ssn, 3), right(ssn, 4) from only s.customers", "'6789'"},
		reading{"PG-70", "select left(ssn, 3) from only s.customers union all select right(ssn, 4) from only s.customers", "'6789'"},
		reading{"PG-70", "select ascii(substr(email, n, 1)) + 1000 from only s.customers, generate_series(4, 4) n", "1064"},
		reading{"PG-70", "select get_byte(email::bytea, 3) + 1000 from only s.customers", "1064"},
		reading{"PG-71", "select convert_to(email, 'UTF8') from only s.customers", "convert_to('ada@example.com', 'UTF8')"},
		reading{"PG-71", "select regexp_replace(ssn, '(.)', '\\1 ', 'g') from only s.customers", "'1 2 3 - 4 5'"},
		reading{"PG-71", "select replace(ssn, '-', '')::bigint + 1 from only s.customers", "'123456790'"},
		reading{"PG-71", "select translate(ssn, '0123456789', '０１２３４５６７８９') from only s.customers", "'１２３-４５'"},
		reading{"PG-71", "select regexp_replace(email, '(.)', '\\1'||chr(8205), 'g') from only s.customers", "'a'||chr(8205)||'d'"},
		reading{"PG-71", "select replace(ssn, '-', '')::float8 / 1e20 from only s.customers", "'1.23456789e-12'"},
		reading{"PG-71", "select replace(email, '@', '&#64;') from only s.customers", "'ada&#64;'"},
	)
	add("PG-72",
		"set bytea_output = 'escape'; select email::bytea from s.customers", "set datestyle = 'german'; select email from s.customers",
		"set extra_float_digits = 3; select lower(email) from s.customers", "set intervalstyle = 'iso_8601'; select email from s.v",
		"set timezone = 'Asia/Tokyo'; select max(email) from s.customers", "set lc_monetary = 'C'; table s.mv")
	return all
}

// TestMaskedColumnsStayMasked tries the ways to read a masked column. In each of them the canary is in the answer with the
// guard off, and in nothing that the client or the record sees with it on: it is masked, or the statement is refused.
func TestMaskedColumnsStayMasked(t *testing.T) {
	t.Parallel()
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newGround(t)
			r.guarded.target.AllowIncomplete = true // so that masks are tried, and not refusals of what cannot be read
			inside, free := r.guarded.player(t, mode), r.open.player(t, mode)
			for _, c := range readings() {
				if strings.Contains(c.sql, ";") && mode != pgx.QueryExecModeSimpleProtocol {
					continue
				}
				t.Run(c.id+"/"+c.sql, func(t *testing.T) {
					marker := canaries[0]
					if c.shows != "" {
						if err := r.side.QueryRow(t.Context(), "select ("+c.shows+")::text", pgx.QueryExecModeSimpleProtocol).Scan(&marker); err != nil {
							t.Fatal(err)
						}
					}
					others := func() { // what another session has said last
						if !strings.Contains(c.sql, "activity") {
							return
						}
						if _, err := r.side.Exec(t.Context(), "select 'ada@example.com'", pgx.QueryExecModeSimpleProtocol); err != nil {
							t.Fatal(err)
						}
					}
					others()
					before := r.mark(t)
					inside.sees()
					if got := strings.Join(values(inside, mode, c.sql), "\n"); strings.Contains(strings.ToLower(got), strings.ToLower(marker)) {
						t.Errorf("guarded: leaks %q", got)
					}
					if leak := inside.sees(canaries...); leak != "" {
						t.Errorf("guarded: the client saw %s", leak)
					}
					if s := inside.PgConn().TxStatus(); s != 'I' {
						_, _ = inside.play("rollback")
					}
					if rows, err := inside.play("select 1"); err != nil || rows != 1 {
						t.Errorf("guarded: out of step: %v", err)
					}
					before.holds(t)
					if c.id == "PG-54" && strings.Contains(c.sql, "cursor_to_xml") {
						return // there is no such cursor
					}
					if strings.HasPrefix(c.sql, "insert") {
						r.restoreCustomers(t)
					}
					others()
					got := strings.Join(values(free, mode, c.sql), "\n")
					if !strings.Contains(strings.ToLower(got), strings.ToLower(marker)) {
						t.Errorf("control: %q is not in %q", marker, got)
					}
					if strings.HasPrefix(c.sql, "insert") {
						r.restoreCustomers(t)
					}
				})
			}
		})
	}
}

func (r *ground) restoreCustomers(t *testing.T) {
	t.Helper()
	if _, err := r.side.Exec(t.Context(), "delete from only s.customers where id > 1"); err != nil {
		t.Fatal(err)
	}
}

// values says one thing and returns what came as text, row by row.
func values(p *player, mode pgx.QueryExecMode, sql string) (out []string) {
	if mode == pgx.QueryExecModeSimpleProtocol {
		results, _ := p.PgConn().Exec(context.Background(), sql).ReadAll()
		for _, r := range results {
			for _, row := range r.Rows {
				for _, v := range row {
					out = append(out, string(v))
				}
			}
		}
		return out
	}
	rows, err := p.Query(context.Background(), sql, mode)
	if err != nil {
		return nil
	}
	defer rows.Close()
	types := p.TypeMap()
	for rows.Next() {
		fields, raw := rows.FieldDescriptions(), rows.RawValues()
		for i, v := range raw {
			out = append(out, string(v))
			if fields[i].Format != 1 {
				continue
			}
			var x any
			if dt, ok := types.TypeForOID(fields[i].DataTypeOID); ok {
				if x, err = dt.Codec.DecodeValue(types, dt.OID, 1, v); err == nil {
					if plan := types.PlanScan(dt.OID, 1, &x); plan != nil {
						out = append(out, textOf(x))
					}
				}
			}
		}
	}
	return out
}
