package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
	"github.com/weir-gateway/weir/core/opa"
)

// strictRules is the profile as it is shipped.
var strictRules = sync.OnceValues(func() (*chain.Chain, error) {
	policy, err := opa.Load(context.Background(), opa.Config{Name: "strict", Path: "../../policies/strict"})
	if err != nil {
		return nil, err
	}
	return chain.New(chain.Step{Name: "strict", Plugin: policy})
})

const strictFixture = `
drop schema if exists st cascade;
create schema st;
create table st.people (id int primary key, email text, ssn text, note text);
insert into st.people values (1, 'canary@example.com', '123-45-6789', 'plain'), (2, 'other@example.com', '987-65-4321', 'other');
create table st.orders (id int primary key, person int, total int);
insert into st.orders values (1, 1, 10), (2, 2, 20);
create table st.victim (a int);
insert into st.victim values (1);
create table st.sink (a text, b text);
create table st.mails (email text);
insert into st.mails values ('canary@example.com');
create view st.v as select id, email as contact from st.people;
create view st.vv as select id, lower(contact) as y from st.v;
create table st.part (id int, email text) partition by range (id);
create table st.part_1 partition of st.part for values from (0) to (10);
insert into st.part values (1, 'canary@example.com');
create table st.child (age int) inherits (st.people);
create function st.g() returns text language sql as 'select email from st.people where id = 1';
create type st.pair as (a text, b text);
analyze st.people;
`

// observed is all that a client can see of an answer, and how long it took.
func observed(c *pgx.Conn, mode pgx.QueryExecMode, sql string) (seen, rule string, took time.Duration) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var b strings.Builder
	var tag pgconn.CommandTag
	rows, err := c.Query(ctx, sql, mode)
	if err == nil {
		for rows.Next() {
			for _, v := range rows.RawValues() {
				fmt.Fprintf(&b, "%q,", v)
			}
			b.WriteByte('\n')
		}
		rows.Close()
		tag, err = rows.CommandTag(), rows.Err()
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		fmt.Fprintf(&b, "%s %s", pe.Code, pe.Detail)
		rule = strings.TrimPrefix(pe.Detail, "rule ")
	} else if err != nil {
		b.WriteString(err.Error())
	}
	return b.String() + tag.String(), rule, time.Since(start)
}

func strictGates(t *testing.T) (on, off *testGate) {
	t.Helper()
	rules, err := strictRules()
	if err != nil {
		t.Fatal(err)
	}
	return startGate(t, withChain(rules)), startGate(t)
}

// TestStrictProfile is PG-56, and PG-53 and PG-54 under the profile strict. They share a fixture.
func TestStrictProfile(t *testing.T) {
	t.Parallel()
	if _, err := server.Psql(t.Context(), "postgres", strictFixture); err != nil {
		t.Fatal(err)
	}
	t.Run("PG-56 inference", strictInference)
	t.Run("PG-53 PG-54 expressions", strictExpressions)
	t.Run("copies", strictCopies)
	t.Run("reach", strictReach)
	t.Run("ordinary work", strictOrdinary)
}

// strictInference: questions whose answers differ with a value that is masked. Without a guard the right and the wrong
// guess can be told apart; with it both are refused in the same words.
func strictInference(t *testing.T) {
	on, off := strictGates(t)
	for name, mode := range modes {
		guarded, open := on.connect(mode), off.connect(mode)
		for _, c := range []struct {
			sql          string // %s: the guess
			right, wrong string
			rule         string
		}{
			{"select id from st.people where email like '%s'", "canary%", "zz%", "masked-indirect"},
			{"select id from st.people where ssn between '%s' and '5'", "1", "4", "masked-indirect"},
			{"select id from st.people order by ssn %s limit 1", "", "desc", "masked-indirect"},
			{"select id, ssn from st.people order by %s limit 1", "2", "2 desc", "masked-indirect"},
			{"select count(*) from st.people group by email, '%s'::text || email having min(id) = 1", "", "x", ""},
			{"select 1 from st.people having max(email) like '%s'", "other%", "zz%", "masked-indirect"},
			{"select p.id from st.people p join (values ('%s')) g(guess) on p.email = g.guess", "canary@example.com", "zz", "masked-indirect"},
			{"select p.id from st.people p join (select '%s'::text as email) g using (email)", "canary@example.com", "zz", "masked-indirect"},
			{"select p.id from st.people p natural join (select '%s'::text as email) g", "canary@example.com", "zz", "masked-indirect"},
			{"select 1/(case when email like '%s' then 0 else 1 end) from st.people", "canary%", "zz%", "masked-indirect"},
			{"select case when email like '%s' then pg_sleep(0.15) end from st.people", "canary%", "zz%", "masked-indirect"},
			{"select count(*) from st.people where id = 1 and exists (select from st.people where email like '%s')", "canary%", "zz%", "masked-indirect"},
			{"update st.victim set a = a where exists (select 1 from st.people where email like '%s')", "canary%", "zz%", "masked-indirect"},
			{"delete from st.victim where a = 77 or (select email from st.people where id = 1) like '%s' and a = 78 returning 1/0", "canary%", "zz%", ""},
			{"select id from st.v where contact like '%s'", "canary%", "zz%", "masked-indirect"},
			{"select id from st.vv where y like '%s'", "canary%", "zz%", "masked-indirect"},
			{"select id from st.part_1 where email like '%s'", "canary%", "zz%", "masked-indirect"},
			{"with q as (select id, email as e from st.people) select id from q where e like '%s'", "canary%", "zz%", "masked-indirect"},
			{"select x.id from (select * from st.people) x where x.email like '%s'", "canary%", "zz%", "masked-indirect"},
			{"select id from st.people where email in (select '%s'::text)", "canary@example.com", "zz", "masked-indirect"},
			{"select id from st.people where (email, 1) = ('%s', 1)", "canary@example.com", "zz", "masked-indirect"},
			{"select id from st.people p where p::text like '%s'", "%canary%", "zz%", "masked-indirect"},
			{"select id from st.people p where to_jsonb(p) @> '{\"email\": \"%s\"}'", "canary@example.com", "zz", "masked-indirect"},
			{"select sum(id) filter (where email like '%s') from st.people", "canary%", "zz%", "masked-indirect"},
			{"select rank() over (order by email %s), id from st.people order by 2", "", "desc", "masked-indirect"},
			{"select distinct on (note = note) id from st.people order by note = note, email %s", "", "desc", "masked-indirect"},
			{"select id from st.people limit (select count(*) from st.people where email like '%s')", "canary%", "zz%", "masked-indirect"},
			{"explain (analyze, timing off, costs off, summary off) select id from st.people where email like '%s'", "canary%", "zz%", "masked-indirect"},
			{"select count(*) from pg_stats where schemaname = 'st' and histogram_bounds::text like '%s'", "%canary%", "%zz%", "masked-indirect"},
			{"with recursive r(a) as (select email from st.people union select a from r where a > 'zzzz') select count(*) from r where a like '%s'", "canary%", "zz%", "masked-indirect"},
			{"select 1 from st.people, lateral (select email as e) q where q.e like '%s'", "canary%", "zz%", "masked-indirect"},
			{"insert into st.victim select 5 from st.people where email like '%s'", "canary%", "zz%", "masked-indirect"},
			{"merge into st.victim v using st.people p on p.email like '%s' and p.id = v.a when matched then update set a = v.a", "canary%", "zz%", "masked-indirect"},
			{"select count(*) from st.orders o where exists (select from st.people p where p.id = o.person and p.email like '%s')", "canary%", "zz%", "masked-indirect"},
		} {
			right, wrong := strings.Replace(c.sql, "%s", c.right, 1), strings.Replace(c.sql, "%s", c.wrong, 1)
			seenRight, rule, _ := observed(guarded, mode, right)
			seenWrong, _, _ := observed(guarded, mode, wrong)
			if seenRight != seenWrong || rule == "" || c.rule != "" && rule != c.rule {
				t.Errorf("%s: %s: %s, and %s", name, c.sql, seenRight, seenWrong)
			}
			if c.rule == "" {
				continue
			}
			seenRight, _, tookRight := observed(open, mode, right)
			seenWrong, _, tookWrong := observed(open, mode, wrong)
			for try := 0; seenRight == seenWrong && tookWrong > 100*time.Millisecond && try < 5; try++ { // the machine may be busy
				_, _, tookWrong = observed(open, mode, wrong)
			}
			if seenRight == seenWrong && tookRight < tookWrong+40*time.Millisecond {
				t.Errorf("%s: %s: the control tells nothing: %s", name, c.sql, seenRight)
			}
		}
		for _, step := range []string{"prepare guess as select id from st.people where email like 'a'", "declare guess cursor for select id from st.people order by email"} {
			if _, rule, _ := observed(guarded, mode, step); rule != "masked-indirect" {
				t.Errorf("%s: %s: %s", name, step, rule)
			}
		}
		if err := guarded.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// strictExpressions: what shows a masked column inside something else is refused, or shows none of it.
func strictExpressions(t *testing.T) {
	on, off := strictGates(t)
	queries := []string{
		"select (select email from st.people where id = 1)", "select email from st.people union all select 'z'", "select email || '' from st.people",
		"select email::varchar(50) from st.people", `select email collate "C" from st.people`, "select lower(email) from st.people",
		"select upper(email) from st.people", "select reverse(reverse(email)) from st.people", "select left(email, 20) from st.people",
		"select substr(email, 1) from st.people", "select convert_from(decode(encode(email::bytea, 'base64'), 'base64'), 'UTF8') from st.people",
		"select translate(email, 'X', 'Y') from st.people", "select replace(email, 'X', 'Y') from st.people", "select format('%s', email) from st.people",
		"select concat(email, '') from st.people", "select quote_literal(email) from st.people", "select coalesce(email, '') from st.people",
		"select case when true then email end from st.people", "select nullif(email, '') from st.people", "select greatest(email, '') from st.people",
		"select min(email) from st.people", "select string_agg(email, ',') from st.people", "select array_agg(email) from st.people",
		"select json_agg(email) from st.people", "select mode() within group (order by email) from st.people", "select first_value(email) over (order by id) from st.people",
		"select regexp_replace(email, 'X', 'Y') from st.people", "select split_part(email || ' x', ' ', 1) from st.people", "select trim(email) from st.people",
		// PG-54
		"select to_json(p) from st.people p", "select to_jsonb(p)::text from st.people p", "select row_to_json(p) from st.people p",
		"select jsonb_build_object('a', email) from st.people", "select xmlelement(name a, email) from st.people",
		"select table_to_xml('st.people', true, true, '')", "select query_to_xml('select email from st.people', true, true, '')",
		"select array[email] from st.people", "select unnest(array[email]) from st.people", "values ((select email from st.people where id = 1))",
		"select p from st.people p", "select row(email, 1) from st.people", "select (row(email, 'b')::st.pair).a from st.people",
		"select * from json_each_text((select row_to_json(p) from st.people p where id = 1))", "select st.g()", "select * from st.g()",
		"select y from st.vv", "select email from st.child union select contact from st.v", "select people.email from st.people group by people.email",
	}
	for name, mode := range modes {
		guarded, open := on.connect(mode), off.connect(mode)
		for _, sql := range queries {
			if seen, _, _ := observed(guarded, mode, sql); strings.Contains(strings.ToLower(seen), "canary") {
				t.Errorf("%s: leaks: %s: %s", name, sql, seen)
			}
			if seen, _, _ := observed(open, mode, sql); !strings.Contains(strings.ToLower(seen), "canary") && !strings.Contains(seen, "no known encoder") && !strings.Contains(sql, "xml") {
				t.Errorf("%s: the control does not leak: %s: %s", name, sql, seen)
			}
		}
		for sql, want := range map[string]string{
			"select lower(email) from st.people": "masked-transformed", "select length(ssn) from st.people": "masked-transformed",
			"select count(distinct email) from st.people": "masked-transformed", "select md5(email) from st.people": "masked-transformed",
			"select st.g()": "function-not-listed",
		} {
			if _, rule, _ := observed(guarded, mode, sql); rule != want {
				t.Errorf("%s: %s: %s, want %s", name, sql, rule, want)
			}
		}
	}
	for _, r := range on.journal.all() {
		if r.Direction != core.FromClient && strings.Contains(strings.ToLower(string(r.Wire)), "canary") {
			t.Errorf("in the record: %s %s", r.Kind, r.Facts)
		}
	}
}

// strictCopies: a value that has been copied would go by a name that nobody masks.
func strictCopies(t *testing.T) {
	on, off := strictGates(t)
	for name, mode := range modes {
		guarded, open := on.connect(mode), off.connect(mode)
		for _, sql := range []string{
			"insert into st.sink select email from st.people", "insert into st.sink (b) select lower(ssn) from st.people where id = 1",
			"with q as (select email e from st.people) insert into st.sink select e from q", "insert into st.sink values ((select email from st.people where id = 1))",
			"update st.people set note = email where id = 1", "update st.sink set a = p.email from st.people p where p.id = 1 and st.sink.b = 'x'",
			"update st.sink set (a, b) = (select email, ssn from st.people where id = 1) where a = 'x'",
			"with w as (insert into st.sink select contact from st.v returning 1) select * from w", "insert into st.people (id, email) values (1, 'x') on conflict (id) do update set note = people.email",
			"merge into st.sink s using st.people p on p.id = 1 and s.a = 'x' when not matched then insert (a) values (p.email)",
		} {
			if _, rule, _ := observed(guarded, mode, sql); rule != "masked-copied" {
				t.Errorf("%s: %s: rule %q", name, sql, rule)
			}
			if _, rule, _ := observed(open, mode, "begin; "+sql+"; rollback"); mode == pgx.QueryExecModeSimpleProtocol && rule != "" {
				t.Errorf("%s: the control fails: %s: %s", name, sql, rule)
			}
		}
		for _, sql := range []string{"create table st.ctas as select email from st.people", "select email into st.into1 from st.people", "create materialized view st.mv as select email from st.people", "copy (select email from st.people) to program 'cat > /dev/null'", "copy st.people to '/tmp/people'"} {
			if _, rule, _ := observed(guarded, mode, sql); rule != "masked-copied" {
				t.Errorf("%s: %s: rule %q", name, sql, rule)
			}
		}
		if err := guarded.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := server.Psql(t.Context(), "postgres", "select count(*) from st.sink where a is not null or b is not null"); err != nil || out != "0" {
		t.Errorf("something was copied: %s %v", out, err)
	}
}

// strictReach: what standard lets pass and strict does not.
func strictReach(t *testing.T) {
	on, off := strictGates(t)
	for name, mode := range modes {
		guarded, open := on.connect(mode), off.connect(mode)
		for sql, want := range map[string]string{
			"listen c": "no-channels", "notify c, 'x'": "no-channels", "unlisten *": "no-channels", "select pg_notify('c', 'x')": "function-closed",
			"lock table st.victim": "no-lock", "set role postgres": "no-privilege", "select set_config('role', 'postgres', false)": "function-closed",
			"set row_security = off": "setting-not-listed", "set session_replication_role = replica": "setting-not-listed", "reset all": "setting-not-listed",
			"do $$ begin perform 1; end $$": "incomplete", "select st.g()": "function-not-listed", "select pg_advisory_lock(1)": "function-closed",
			"select pg_sleep(0)": "no-process", "select lo_creat(-1)": "function-closed", "truncate st.sink": "no-unbounded-write",
			"create temp table x (a int)": "no-ddl", "select setval('st.none', 1)": "function-closed",
		} {
			if _, rule, _ := observed(guarded, mode, sql); rule != want {
				t.Errorf("%s: %s: rule %q, want %q", name, sql, rule, want)
			}
		}
		for _, sql := range []string{"listen c", "set row_security = off", "select pg_try_advisory_lock(1)", "select st.g()"} {
			if seen, rule, _ := observed(open, mode, sql); rule != "" {
				t.Errorf("%s: the control fails: %s: %s", name, sql, seen)
			}
		}
		if seen, rule, _ := observed(guarded, mode, "select generate_series(1, 20000)"); rule != "limit-rows" {
			t.Errorf("%s: %.100s", name, seen)
		}
	}
}

// strictOrdinary: what a loop needs for its work goes on.
func strictOrdinary(t *testing.T) {
	on, _ := strictGates(t)
	for name, mode := range modes {
		c := on.connect(mode)
		for _, x := range []struct{ sql, want string }{
			{"select id, note from st.people where id = 1", `"plain"`},
			{"select * from st.people where id = 1", `"plain"`},
			{"select email from st.people where id = 1", "****"},
			{"select p.note, o.total from st.people p join st.orders o on o.person = p.id where o.total > 15 order by o.total", `"other"`},
			{"select count(*) from st.people", "SELECT 1"},
			{"select note, count(*) from st.people group by note order by 2 desc, 1", `"plain"`},
			{"begin", "BEGIN"},
			{"insert into st.people (id, email) values (9, 'new@example.com')", "INSERT 0 1"},
			{"update st.people set email = 'newer@example.com' where id = 9", "UPDATE 1"},
			{"insert into st.people (id, email) values (9, 'a@b') on conflict (id) do update set email = excluded.email", "INSERT 0 1"},
			{"delete from st.people where id = 9", "DELETE 1"},
			{"rollback", "ROLLBACK"},
			{"set search_path = st, public", "SET"},
			{"select note from people where id = 1", `"plain"`},
			{"set statement_timeout = '10s'", "SET"},
			{"select column_name from information_schema.columns where table_schema = 'st' and table_name = 'victim'", `"a"`},
			{"select relname from pg_class where relname = 'victim'", `"victim"`},
			{"select max(total), sum(total), now() > '2000-01-01' from st.orders where id in (1, 2)", "SELECT 1"},
			{"with q as (select person, sum(total) t from st.orders group by person) select p.note, q.t from q join st.people p on p.id = q.person order by q.t desc limit 1", `"other"`},
			{"select email from st.mails", "@"},
			{"explain select id from st.people where id = 1", "Scan"},
		} {
			if seen, rule, _ := observed(c, mode, x.sql); rule != "" || !strings.Contains(seen, x.want) && !(x.want == "****" && strings.Contains(seen, "***")) || strings.Contains(seen, "canary") {
				t.Errorf("%s: %s: %s", name, x.sql, seen)
			}
		}
	}
	host, port, _ := net.SplitHostPort(on.addr)
	cmd := exec.CommandContext(t.Context(), server.Program("psql"), "-X", "-h", host, "-p", port, "-U", "agent", "-d", "orders", "-c", `\d st.people`, "-c", `\dt st.*`, "-c", `\copy (select id, email from st.people where id = 1) to stdout`)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+token, "PGSSLMODE=prefer", "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "people_pkey") || !strings.Contains(string(out), "st     | sink") || !strings.Contains(string(out), "1\tc") || strings.Contains(string(out), "canary") {
		t.Errorf("%v\n%s", err, out)
	}
}
