package sql

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core"
)

// shelf is a catalog of a few relations.
type shelf []*Relation

func (f shelf) Relations(schema, name string) (out []*Relation) {
	for _, r := range f {
		if r.Name == name && (schema == "" || schema == r.Schema) {
			out = append(out, r)
		}
	}
	return out
}

var people = shelf{
	{Schema: "s", Name: "people", Columns: []string{"id", "email", "ssn", "note"}},
	{Schema: "s", Name: "orders", Columns: []string{"id", "person", "total"}},
	{Schema: "s", Name: "child", Columns: []string{"id", "email", "ssn", "note", "age"}, Parents: []string{"s.people"}},
	{Schema: "s", Name: "v", Columns: []string{"id", "contact"}, View: "SELECT id, email AS contact FROM s.people WHERE ssn IS NOT NULL"},
	{Schema: "s", Name: "vv", Columns: []string{"x", "y"}, View: "SELECT id AS x, lower(contact) AS y FROM s.v"},
	{Schema: "a", Name: "twice", Columns: []string{"id", "email"}},
	{Schema: "b", Name: "twice", Columns: []string{"id", "secret"}},
}

// TestUses: what decides, what is copied and what is transformed. An entry is kind:table.column; columns that are only
// shown are told by their table's list of columns (c:).
func TestUses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"select email from people", "c:people.email"},
		{"select * from people", "c:people.* c:people.email c:people.id c:people.note c:people.ssn"},
		{"select p.note from people p where p.email like 'a%'", "c:people.email c:people.note i:people.email"},
		{"select note from people where ssn between 'a' and 'b'", "c:people.note c:people.ssn i:people.ssn"},
		{"select note from people order by ssn limit 1", "c:people.note c:people.ssn i:people.ssn"},
		{"select note, email from people order by 2", "c:people.email c:people.note i:people.email"},
		{"select note, email from people order by 1", "c:people.email c:people.note i:people.note"},
		{"select note, email as z from people order by z desc", "c:people.email c:people.note i:people.email"},
		{"select note, lower(email) as z from people group by z, 1", "c:people.email c:people.note i:people.email i:people.note t:people.email"},
		{"select count(*) from people group by email", "c:people.email i:people.email"},
		{"select count(*) from people group by grouping sets ((email), ())", "c:people.email i:people.email"},
		{"select 1 from people having max(email) > 'a'", "c:people.email i:people.email"},
		{"select distinct on (email) id from people", "c:people.email c:people.id i:people.email"},
		{"select distinct note from people", "c:people.note"},
		{"select o.total from orders o join people p on p.email = o.person", "c:orders.person c:orders.total c:people.email i:orders.person i:people.email"},
		{"select total from orders join people using (id)", "c:orders.id c:orders.total c:people.id i:orders.id i:people.id"},
		{"select total from orders natural join people", "c:orders.id c:orders.total c:people.id i:orders.id i:people.id"},
		{"select total, email from orders, people where person = email", "c:orders.person c:orders.total c:people.email i:orders.person i:people.email"},
		{"select 1/(case when email like 'a%' then 0 else 1 end) from people", "c:people.email i:people.email t:people.email"},
		{"select case when id > 1 then note end from people", "c:people.id c:people.note i:people.id t:people.id t:people.note"},
		{"select row_number() over (partition by note order by ssn) from people", "c:people.note c:people.ssn i:people.note i:people.ssn t:people.note t:people.ssn"},
		{"select count(*) filter (where email > 'a') from people", "c:people.email i:people.email t:people.email"},
		{"select sum(id) over w from people window w as (order by email)", "c:people.email c:people.id i:people.email t:people.id"},
		{"select id from people limit (select length(email) from people limit 1)", "c:people.email c:people.id i:people.email t:people.email"},
		{"select lower(email), id from people", "c:people.email c:people.id t:people.email"},
		{"select email::text from people", "c:people.email t:people.email"},
		{"select (select email from people limit 1)", "c:people.email t:people.email"},
		{"select x from (select email as x from people) q where x = 'a'", "c:people.email i:people.email"},
		{"with q as (select id, email e from people) select id from q where e like 'a%'", "c:people.email c:people.id i:people.email"},
		{"with recursive r(a) as (select email from people union select a from r where a > 'x') select 1 from r", "c:people.email i:people.email"},
		{"select j.total from (orders o join people p using (id)) j where j.email = 'a'", "c:orders.id c:orders.total c:people.email c:people.id i:orders.id i:people.email i:people.id"},
		{"select q.total from (select * from orders join people using (id)) q where q.email = 'a'", "c:orders.* c:orders.id c:orders.person c:orders.total c:people.* c:people.email c:people.id c:people.note c:people.ssn i:orders.id i:people.email i:people.id"},
		{"select id from people union select id from people order by 1", "c:people.id i:people.id"},
		{"select id from people where exists (select 1 from people where email = 'a')", "c:people.email c:people.id i:people.email"},
		{"select id from people where id in (select id from people where ssn = 'a')", "c:people.id c:people.ssn i:people.id i:people.ssn"},
		{"select contact from v where contact > 'a'", "c:people.email c:v.contact i:people.email i:v.contact"},
		{"select x from vv where y = 'a'", "c:people.email c:people.id c:vv.x c:vv.y i:people.email i:vv.y"},
		{"select age from child where email = 'a'", "c:child.age c:child.email c:people.age c:people.email i:child.email i:people.email"},
		{"insert into orders select id, email, 1 from people where ssn = 'a'", "c:people.email c:people.id c:people.ssn i:people.ssn p:people.email p:people.id"},
		{"insert into orders (id, person) select id, lower(email) from people", "c:orders.id c:orders.person c:people.email c:people.id p:people.email p:people.id t:people.email"},
		{"insert into people (email) values ('a')", "c:people.email"},
		{"insert into people (email) values ('a') on conflict (id) do update set email = excluded.email", "c:people.email c:people.id i:people.id"},
		{"insert into people (note) values ('a') on conflict do nothing returning lower(email)", "c:people.email c:people.note t:people.email"},
		{"insert into people (note) values ('a') on conflict (id) do update set note = people.email where people.ssn = 'x'", "c:people.email c:people.id c:people.note c:people.ssn i:people.id i:people.ssn p:people.email"},
		{"update people set note = email where id = 1", "c:people.email c:people.id c:people.note i:people.id p:people.email"},
		{"update people set email = 'a' where id = 1", "c:people.email c:people.id i:people.id"},
		{"update orders set person = p.email from people p where p.id = orders.id", "c:orders.id c:orders.person c:people.email c:people.id i:orders.id i:people.id p:people.email"},
		{"update orders set (person, total) = (select email, 1 from people limit 1) where id = 1", "c:orders.id c:orders.person c:orders.total c:people.email i:orders.id p:people.email"},
		{"update orders set id = id where exists (select from people where email = 'a')", "c:orders.id c:people.email i:people.email p:orders.id"},
		{"delete from orders using people p where p.email = person returning total", "c:orders.person c:orders.total c:people.email i:orders.person i:people.email"},
		{"merge into orders o using people p on o.person = p.email when matched and p.ssn = 'a' then update set total = p.id when not matched then insert (person) values (p.note)", "c:orders.person c:orders.total c:people.email c:people.id c:people.note c:people.ssn i:orders.person i:people.email i:people.ssn p:people.id p:people.note"},
		{"create table x as select email from people", "c:people.email p:people.email"},
		{"create materialized view x as select lower(email) from people", "c:people.email p:people.email t:people.email"},
		{"select email into x from people", "c:people.email p:people.email"},
		{"copy people (id, email) to '/tmp/x'", "c:people.email c:people.id p:people.email p:people.id"},
		{"copy (select email from people) to program 'cat'", "c:people.email p:people.email"},
		{"copy (select email from people where ssn = 'a') to stdout", "c:people.email c:people.ssn i:people.ssn"},
		{"copy people (id, email) to stdout", "c:people.email c:people.id"},
		{"copy people (id) from stdin where email = 'a'", "c:people.email c:people.id i:people.email"},
		{"explain analyze select id from people where email = 'a'", "c:people.email c:people.id i:people.email"},
		{"prepare p as select id from people where email = $1", "c:people.email c:people.id i:people.email"},
		{"declare c cursor for select id from people order by email", "c:people.email c:people.id i:people.email"},
		{"with w as (insert into orders (person) select email from people returning id) select id from w", "c:orders.id c:orders.person c:people.email p:people.email"},
		{"select q.e from people p, lateral (select p.email as e) q where q.e = 'a'", "c:people.email i:people.email"},
		{"select j from people p, jsonb_each(to_jsonb(p)) j(a, j) where a = 'x'", "c:people.email c:people.id c:people.note c:people.ssn i:people.email i:people.id i:people.note i:people.ssn t:people.email t:people.id t:people.note t:people.ssn"},
		{"select id from twice where secret = 'a'", "c:twice.id c:twice.secret i:twice.secret"},
		{"select nothing from people where nowhere = 1", "c:people.nothing c:people.nowhere i:people.nowhere"},
		{"select a from missing where b = 1", "c:missing.a c:missing.b i:missing.b"},
		{"select id, a from people, missing where b = 1", "c:missing.a c:missing.b c:missing.id c:people.id i:missing.b"},
		{"select 1 from pg_stats where most_common_vals::text like '%a%'", "c:pg_stats.*.* i:pg_stats.*.*"},
		{"select relname from pg_class where relname = 'people'", ""},
		{"select 1; select id from people where email = 'a'", "c:people.email c:people.id i:people.email"},
	} {
		script := reader.Read(t.Context(), c.text)
		var tables []core.Resource
		for _, r := range script.Command.Resources { // as the catalog resolves them
			found := people.Relations("", r.Name)
			for _, rel := range found {
				r.Name = rel.Schema + "." + rel.Name
				tables = append(tables, r)
			}
			if len(found) == 0 {
				tables = append(tables, r)
			}
		}
		got := map[string]bool{}
		for _, r := range reader.Uses(t.Context(), c.text, people).Spread(tables) {
			if r.Kind != "table" || strings.HasPrefix(r.Name, "pg_catalog.") && r.Name != "pg_catalog.pg_stats" {
				continue
			}
			name := r.Name[strings.LastIndexByte(r.Name, '.')+1:]
			for kind, columns := range map[string][]string{"c": r.Columns, "i": r.Indirect, "p": r.Copied, "t": r.Transformed} {
				for _, col := range columns {
					got[fmt.Sprintf("%s:%s.%s", kind, name, col)] = true
				}
			}
		}
		want := map[string]bool{}
		for _, w := range strings.Fields(c.want) {
			want[w] = true
		}
		for w := range want {
			if !got[w] {
				t.Errorf("%s: %s is missing", c.text, w)
			}
		}
		for g := range got {
			if !want[g] {
				t.Errorf("%s: %s is too much", c.text, g)
			}
		}
	}
}

// TestUsesOfDeepText: what is nested too deeply may use everything, and takes no time.
func TestUsesOfDeepText(t *testing.T) {
	deep := "select id from people"
	for i := range 55 {
		deep = fmt.Sprintf("select id from (%s) q%d where id > 0", deep, i)
	}
	if u := reader.Uses(t.Context(), deep, people); len(u.Indirect) != 1 || u.Indirect[0] != Anything {
		t.Errorf("%+v", u)
	}
	nested := "1"
	for range 40 {
		nested = "case when (select " + nested + ") > 0 then (select 1) else 0 end"
	}
	reader.Uses(t.Context(), "select "+nested+" from people", people)
	recursive := "select email a from people"
	for i := range 30 {
		recursive = fmt.Sprintf("with recursive r%d as (%s) select a from r%d where a > 'x'", i, recursive, i)
	}
	if u := reader.Uses(t.Context(), recursive, people); !strings.Contains(fmt.Sprint(u.Indirect), "{s.people email}") {
		t.Errorf("%+v", u)
	}
}

// TestPlacesAreNotShared: ORDER BY 1 and ORDER BY 2 use other columns, though they differ in a literal only.
func TestPlacesAreNotShared(t *testing.T) {
	a, b := reader.Read(t.Context(), "select id, email from people where id = 1 order by 1"), reader.Read(t.Context(), "select id, email from people where id = 1 order by 2")
	if a.Command.Shape() == b.Command.Shape() {
		t.Error("they share facts")
	}
	a, b = reader.Read(t.Context(), "select id, email from people where id = 1 order by id"), reader.Read(t.Context(), "select id, email from people where id = 2 order by id")
	if a.Command.Shape() != b.Command.Shape() {
		t.Error("they share no facts")
	}
}
