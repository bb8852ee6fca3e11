package postgres

import (
	"context"
	"encoding/csv"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const errorFixture = `
create table s.orders (id int primary key, customer text references s.customers (email), amount int check (amount > 0), note text not null default '');
insert into s.orders values (1, 'ada@example.com', 5);
create table s.slots (who text, during int4range, exclude using gist (during with &&));
insert into s.slots values ('ada@example.com', '[1,5)');
create domain s.short as text check (length(value) < 5);
create table s.narrow (email varchar(5));
create function s.told(text) returns int language plpgsql as $$ begin raise notice 'told %', $1; return 1; end $$;
`

// TestAttackErrors is PG-62 and PG-63: what the server says when something fails quotes the values that it failed on. The
// SQLSTATE stays.
func TestAttackErrors(t *testing.T) {
	t.Parallel()
	r := newGround(t)
	if _, err := r.side.Exec(t.Context(), errorFixture, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	// The mask alone, so that what the rules would refuse fails in the server.
	masked := startGate(t, withChain(maskingChain(t, "s.customers.email", "s.customers.ssn")), func(g *testGate) {
		g.target.Upstream.Database, g.target.AllowIncomplete = r.database, true
	})
	for name, mode := range modes {
		inside, free := masked.player(t, mode), r.open.player(t, mode)
		for _, c := range []struct{ id, name, sql, code, tells string }{
			{"PG-62", "a cast to a number", "select email::int from only s.customers", "22P02", ""},
			{"PG-62", "a cast to a date", "select email::date from only s.customers", "22007", ""},
			{"PG-62", "a cast to a uuid", "select email::uuid from only s.customers", "22P02", ""},
			{"PG-62", "a cast to an address", "select email::inet from only s.customers", "22P02", ""},
			{"PG-62", "a cast to json", "select email::json from only s.customers", "22P02", "\"ada\""},
			{"PG-62", "a cast to a point", "select email::point from only s.customers", "22P02", ""},
			{"PG-62", "a cast to a boolean", "select email::bool from only s.customers", "22P02", ""},
			{"PG-62", "a cast to an interval", "select email::interval from only s.customers", "22007", ""},
			{"PG-62", "a cast to a range", "select email::int4range from only s.customers", "22P02", ""},
			{"PG-62", "a cast to a table", "select email::regclass from only s.customers", "3F000", "ada@example"},
			{"PG-62", "a cast to a quoted table", "select quote_ident(email)::regclass from only s.customers", "42P01", ""},
			{"PG-62", "a cast to bytes", `select ('\x' || email)::bytea from only s.customers`, "22023", "\"@\""},
			{"PG-62", "a number that is too large", "select replace(ssn, '-', '')::int2 from only s.customers", "22003", ""},
			{"PG-62", "an array", "select ('{' || email || '{')::text[] from only s.customers", "22P02", ""},
			{"PG-62", "an encoding", "select convert('x', email, 'UTF8') from only s.customers", "22023", ""},
			{"PG-62", "a setting", "select current_setting(email) from only s.customers", "", ""},
			{"PG-62", "a time zone", "select now() at time zone email from only s.customers", "22023", ""},
			{"PG-62", "a regular expression", "select 'x' ~ (email || '(') from only s.customers", "2201B", "2201B"},
			{"PG-62", "a duplicate key", "insert into s.customers select id + 10, email, ssn from only s.customers", "23505", ""},
			{"PG-62", "not null", "update only s.customers set id = null", "23502", ""},
			{"PG-62", "a check", "update only s.customers set ssn = left(ssn, 1)", "23514", ""},
			{"PG-62", "a foreign key", "update only s.customers set email = email || 'x'", "23503", ""},
			{"PG-62", "a foreign key from the other side", "insert into s.orders select 2, ssn, 1 from only s.customers", "23503", ""},
			{"PG-62", "a check that shows the row", "insert into s.orders select 3, email, -1 from only s.customers", "23514", ""},
			{"PG-62", "an exclusion", "insert into s.slots select email, '[2,3)' from only s.customers", "23P01", "[1,5)"},
			{"PG-62", "too long", "insert into s.narrow select email from only s.customers", "22001", "22001"},
			{"PG-62", "a domain", "select email::s.short from only s.customers", "23514", "23514"},
			{"PG-62", "raise exception", "select s.shout()", "P0001", ""},
			{"PG-62", "raise notice", "select s.told(email) from only s.customers", "", ""},
			{"PG-62", "division by zero", "select 1 / (length(email) - length(email)) from only s.customers", "22012", "22012"},
			{"PG-63", "notices of lower levels", "set client_min_messages = debug1; select s.told(email) from only s.customers; reset client_min_messages", "", ""},
		} {
			if strings.Contains(c.sql, ";") && mode != pgx.QueryExecModeSimpleProtocol {
				continue
			}
			t.Run(c.id+"/"+name+" "+c.name, func(t *testing.T) {
				said := map[*player]string{}
				for _, p := range []*player{inside, free} {
					p.sees()
					_, err := p.Exec(context.Background(), "begin", pgx.QueryExecModeSimpleProtocol)
					if err != nil {
						t.Fatal(err)
					}
					_, err = p.Exec(context.Background(), c.sql)
					var pe *pgconn.PgError
					if c.code != "" && (!errors.As(err, &pe) || pe.Code != c.code) {
						t.Errorf("guarded %v: %v", p == inside, err)
					}
					said[p] = p.seenText()
					_, _ = p.Exec(context.Background(), "rollback", pgx.QueryExecModeSimpleProtocol)
				}
				// What a code tells is an oracle, and stays; it is the inference rule's (PG-56) to refuse the statement.
				oracle := c.tells != "" && c.tells == c.code
				tells := append([]string{"123456789"}, canaries...)
				if c.tells != "" {
					tells = []string{c.tells}
				}
				if got := firstOf(said[inside], append(tells, canaries...)...); got != "" && !oracle {
					t.Errorf("guarded: it says %s: %q", got, said[inside])
				}
				if firstOf(said[free], tells...) == "" {
					t.Errorf("control: it says nothing: %q", said[free])
				}
			})
		}
	}
	if c := firstOf(string(masked.journal.clientBytes()), canaries...); c != "" {
		t.Errorf("PG-62: %s is in the record", c)
	}
}

// seenText returns what the client has received since the last call.
func (p *player) seenText() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.seen.String()
	p.seen.Reset()
	return s
}

// TestAttackInference is PG-56: what is told by which rows come, and by whether anything fails.
func TestAttackInference(t *testing.T) {
	t.Parallel()
	newGround(t).run(inferenceAttacks())
}

func inferenceAttacks() []attack {
	var all []attack
	for _, c := range []struct{ name, sql string }{
		{"like", "select id from s.customers where email like 'a%'"},
		{"equality", "select count(*) from s.customers where email = 'ada' || '@example.com'"},
		{"between", "select id from s.customers where ssn between '1' and '2'"},
		{"through a view", "select id from s.v where email like 'a%'"},
		{"through a view's expression", "select x from s.vv where y like 'a%'"},
		{"order by", "select id from s.customers order by ssn limit 1"},
		{"order by a column's place", "select id from (select id, ssn from s.customers) q order by q.ssn"},
		{"group by", "select count(*) from s.customers group by email"},
		{"having", "select id from s.customers group by id having max(email) > 'a'"},
		{"join on", "select a.id from s.customers a join (values ('a')) b(x) on a.email like b.x || '%'"},
		{"join using", "select c.id from s.customers c join w.notes n using (email)"},
		{"natural join", "select id from s.customers natural join (select 'x'::text as ssn, 1 as id) q"},
		{"error oracle", "select 1 / (case when email like 'z%' then 0 else 1 end) from s.customers where email like '%'"},
		{"filter", "select count(*) filter (where email like 'a%') from s.customers where ssn is not null"},
		{"exists", "select 1 where exists (select from s.customers where email like 'a%')"},
		{"in", "select 1 where 'x' not in (select email from s.customers)"},
		{"any", "select 1 where 'x' <> all (select email from s.customers)"},
		{"distinct on", "select distinct on (email) id from s.customers"},
		{"window order", "select id, row_number() over (order by ssn) from s.customers"},
		{"window partition", "select id, count(*) over (partition by left(ssn, 1)) from s.customers"},
		{"count of an update", "update s.victim set a = a where exists (select from s.customers where email like 'a%') and a = 1"},
		{"limit", "select 1 from generate_series(1, 50) limit (select ascii(ssn) from only s.customers)"},
		{"copied", "insert into w.lines select email from only s.customers"},
		{"copied by update", "update w.notes set body = (select email from only s.customers) where id = 1"},
		{"copied to its own table", "update s.customers set id = id where ssn like '1%'"},
		{"in a WITH", "with x as (select id from s.customers where email like 'a%') select * from x"},
		{"behind a union", "select 1 union all select id from s.customers where email like 'a%'"},
		{"a cursor", "begin; declare c cursor for select id from s.customers where email like 'a%'; fetch c; commit"},
		{"an explain", "explain analyze select id from s.customers where email like 'a%'"},
		{"copy", "copy (select id from s.customers where email like 'a%') to stdout"},
	} {
		a := one("PG-56", c.name, c.sql, "runs")
		a.dirty = strings.HasPrefix(c.name, "copied")
		all = append(all, a)
	}
	return all
}

// TestAttackCopy is PG-59: COPY sends lines without names.
func TestAttackCopy(t *testing.T) {
	t.Parallel()
	r := newGround(t)
	inside, free := r.guarded.player(t, pgx.QueryExecModeExec), r.open.player(t, pgx.QueryExecModeExec)
	for _, c := range []struct{ name, sql, want string }{
		{"text", "copy s.customers to stdout", ""},
		{"csv", "copy s.customers to stdout with csv", ""},
		{"csv with a header", "copy s.customers to stdout (format csv, header)", ""},
		{"binary", "copy s.customers to stdout (format binary)", ""},
		{"a query", "copy (select id, email from s.customers) to stdout", ""},
		{"an expression", "copy (select lower(email) from s.customers) to stdout", ""},
		{"a delimiter", "copy s.customers to stdout (delimiter '|', null 'none')", ""},
		{"a delimiter that the value holds", "copy s.customers to stdout (delimiter '@')", ""},
		{"quotes", "copy s.customers to stdout (format csv, quote '\"', force_quote *)", ""},
		{"a quote that the value holds", "copy s.customers to stdout (format csv, quote 'a', escape 'd', force_quote *)", ""},
		{"a column list", "copy s.customers (email) to stdout", ""},
		{"a column list in another order", "copy s.customers (ssn, id, email) to stdout", ""},
		{"an encoding", "copy s.customers to stdout (encoding 'UTF8')", ""},
		{"another encoding", "copy s.customers to stdout (encoding 'LATIN1')", ""},
		{"a view's query", "copy (table s.vv) to stdout", ""},
		{"a partition", "copy s.part_1 to stdout", ""},
		{"a child", "copy s.child to stdout", ""},
		{"update returning", "copy (update s.customers set ssn = ssn where id = 1 returning *) to stdout", ""},
		{"json", "copy (select row_to_json(c) from s.customers c) to stdout", ""},
		{"the old words", "copy s.customers to stdout with delimiter '|' null as 'x' csv quote as '''' escape as '\\'", ""},
		{"columns that are not masked", "copy s.customers (id) to stdout", "1\n"},
		{"another table", "copy (select body, email from w.notes where id = 1) to stdout", "one\tvisible@example.org\n"},
	} {
		t.Run("PG-59/"+c.name, func(t *testing.T) {
			var out strings.Builder
			before := r.mark(t)
			inside.sees()
			_, err := inside.PgConn().CopyTo(t.Context(), &out, c.sql)
			if c.want != "" && (err != nil || out.String() != c.want) {
				t.Errorf("guarded: %q %v", out.String(), err)
			}
			if c.want == "" && err != nil && refusedAs(err) == nil {
				t.Errorf("guarded: %v", err)
			}
			if leak := inside.sees(canaries...); leak != "" {
				t.Errorf("guarded: the client saw %s", leak)
			}
			for _, piece := range []string{"ample.com", "45-6789"} { // whatever the value is written like
				if strings.Contains(strings.ReplaceAll(out.String(), "d", ""), strings.ReplaceAll(piece, "d", "")) {
					t.Errorf("guarded: a piece of a value came: %q", out.String())
				}
			}
			if err := inside.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			before.holds(t)
			var shown strings.Builder
			if _, err := free.PgConn().CopyTo(t.Context(), &shown, c.sql); err != nil {
				t.Errorf("control: %v", err)
			}
			if c.want == "" && !strings.Contains(strings.ReplaceAll(shown.String(), "d", ""), "ample.com") && !strings.Contains(shown.String(), "6789") {
				t.Errorf("control: it shows %q", shown.String())
			}
			if strings.HasPrefix(c.name, "csv") && err == nil { // still CSV for whoever reads it
				if _, err := csv.NewReader(strings.NewReader(out.String())).ReadAll(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
