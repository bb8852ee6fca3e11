package sql

import (
	"strings"
	"testing"
)

// fixed is a catalog written down.
type fixed map[string]*Relation

func (f fixed) Relations(schema, name string) (out []*Relation) {
	for _, r := range f {
		if r.Name == name && (schema == "" || schema == r.Schema) {
			out = append(out, r)
		}
	}
	return out
}

var shop = fixed{
	"customers": {Schema: "s", Name: "customers", Columns: []string{"id", "email", "ssn", "note"}},
	"orders":    {Schema: "s", Name: "orders", Columns: []string{"id", "customer_id", "total"}},
	"v":         {Schema: "s", Name: "v", Columns: []string{"a", "b"}, View: "select c.id, lower(c.email) from s.customers c"},
	"vv":        {Schema: "s", Name: "vv", Columns: []string{"x", "y"}, View: "select v.b, v.a from s.v"},
	"made": {Schema: "s", Name: "made", Columns: []string{"id", "email", "twice", "asked", "broken"}, Generated: map[string]string{
		"twice": "(email || email)", "asked": "s.ask(id)", "broken": "(",
	}},
	"part": {Schema: "s", Name: "part", Columns: []string{"id", "email"}, Parents: []string{"s.customers"}},
}

// TestLineage: for each output column, what it may hold. * stands for anything.
func TestLineage(t *testing.T) {
	for _, c := range []struct{ sql, want string }{
		{"select id, email from s.customers", "id | email"},
		{"select 1, now(), count(*) from customers", " |  | "},
		{"select email as x, upper(email) from customers", "email | email"},
		{"select email||'', email::varchar(50), email collate \"C\", substr(email, 1, 3), md5(ssn) from customers", "email | email | email | email | ssn"},
		{"select coalesce(note, email), case when id = 1 then ssn else 'x' end, greatest(email, note) from customers", "email note | id ssn | email note"},
		{"select max(email), string_agg(email, ','), array_agg(ssn), json_agg(note) from customers", "email | email | ssn | note"},
		{"select row_to_json(c), to_jsonb(c.*), c::text, (c).email from customers c", "email id note ssn | email id note ssn | email id note ssn | email id note ssn"},
		{"select * from customers", "id | email | ssn | note"},
		{"select c.*, lower(c.email) from customers c", "id | email | ssn | note | email"},
		{"select lower(email), * from customers", "email | id | email | ssn | note"},
		{"select x from (select lower(email) as x, id from customers) q", "email"},
		{"select q.y from (select id, email from customers) q(x, y)", "email"},
		{"with q as (select email e, id i from customers) select i, e from q", "id | email"},
		{"with q(a, b) as materialized (select id, ssn from customers) select b from q", "ssn"},
		{"with recursive r(a, b) as (select id::text, email from customers union all select b, a from r) select a from r", "email id"},
		{"select note from customers union all select email from customers", "email note"},
		{"values ((select email from customers limit 1)), ('x')", "email"},
		{"select (select email from customers limit 1)", "email"},
		{"select exists (select email from customers)", ""},
		{"select email in (select note from customers) from customers", "email note"},
		{"select a from v", "id"},
		{"select b from v", "email"},
		{"select x, y from vv", "email | id"},
		{"select email from part", "email email"},
		{"select * from made", "id | email | email twice | * | *"},
		{"select lower(twice) || id from made", "email id twice"},
		{"select m from made m", "*"},
		{"select s.g()", "*"},
		{"select * from s.f()", "*"},
		{"select n from generate_series(1, 3) n", ""},
		{"select u from customers c, unnest(array[c.email]) u", "email"},
		{"select e.value from customers c, json_each_text(row_to_json(c)) e", "email id note ssn"},
		{"select query_to_xml('select 1', true, true, '')", "*"},
		{"select lo_get(1)", "*"},
		{"select most_common_vals from pg_stats", "*"},
		{"select relname from pg_class", ""},
		{"select x from nobody_knows", "*"},
		{"select o.total, c.email from orders o join customers c on c.id = o.customer_id", "total | email"},
		{"select total, upper(email) from orders join customers c on c.id = customer_id", "total | email"},
		{"select l.e from orders o, lateral (select email e from customers where id = o.customer_id) l", "email"},
		{"update customers set note = 'x' returning id, lower(email)", "id | email"},
		{"insert into orders values (1, 2, 3) returning *", "id | customer_id | total"},
		{"delete from orders using customers c where c.id = customer_id returning upper(c.email)", "email"},
		{"with d as (delete from customers where id = 1 returning email) select lower(email) from d", "email"},
		{"select first_value(email) over (order by id) from customers", "email id"},
		{"select nobody from customers", "*"},
		{"select array(select email from customers)", "email"},
		{"select xmlelement(name x, email) from customers", "email"},
		{"show server_version", ""},
	} {
		n := strings.Count(c.want, "|") + 1
		var got []string
		for _, col := range reader.Lineage(t.Context(), c.sql, 0, n, shop) {
			var names []string
			for _, o := range col {
				names = append(names, o.Column)
			}
			// The order of tables does not matter here.
			got = append(got, strings.Join(sorted(names), " "))
		}
		if s := strings.Join(got, " | "); s != c.want {
			t.Errorf("%s\n got  %q\n want %q", c.sql, s, c.want)
		}
	}
}

func sorted(s []string) []string {
	for i := range s {
		for j := i; j > 0 && s[j] < s[j-1]; j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
	return s
}

// TestLineageOfUncertainWidths: where stars make the places uncertain, the known ends stay exact and the rest is any.
func TestLineageOfUncertainWidths(t *testing.T) {
	got := reader.Lineage(t.Context(), "select o.total, x.*, lower(c.email) from orders o, customers c, json_to_recordset('[]') as x(a int, b int)", 0, 4, shop)
	if got[0][0].Column != "total" || got[3][0].Column != "email" || len(got[1]) != 0 || len(got[2]) != 0 {
		t.Errorf("%v", got)
	}
	got = reader.Lineage(t.Context(), "select * from customers join orders using (id)", 0, 6, shop)
	for i := range got {
		if len(got[i]) < 6 {
			t.Errorf("column %d: %v", i, got[i])
		}
	}
}

func FuzzLineage(f *testing.F) {
	if err := reader.Warm(f.Context()); err != nil { // or the first input seems to hang
		f.Fatal(err)
	}
	f.Add("select a, (select b from t2 where t2.x = t1.x) from t1, lateral (values (t1.a)) v", 2)
	f.Add("with recursive r as (select * from v union select * from r) table r", 1)
	f.Fuzz(func(t *testing.T, s string, n int) {
		n = max(0, min(n, 8))
		if got := reader.Lineage(t.Context(), s, 0, n, shop); len(got) != n {
			t.Fatal("not one entry a column")
		}
	})
}
