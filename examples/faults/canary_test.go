//go:build linux

package faults_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// TestMaskedValueIsNowhere asks for a masked address in every way that a client has, the dishonest ones included, and
// then looks for it in everything that the gateway keeps, says and shows (I6).
func TestMaskedValueIsNowhere(t *testing.T) {
	for name, s := range map[string]setup{
		"by its column": {},
		"and by what it looks like": {
			chain:   "[guardrails, pii]",
			plugins: "plugins:\n  - {name: pii, wasm: \"builtin:pii\", config: {entities: [EMAIL]}}\n",
		},
	} {
		t.Run(name, func(t *testing.T) { masked(t, s) })
	}
}

func masked(t *testing.T, s setup) {
	t.Parallel()
	secret := "canary" + random(6)
	address := secret + "@example.com"
	table := plant(t, secret, address)
	g := start(t, s)
	seen := ""
	c := g.open("curious")
	for i, sql := range probes(table) {
		for how, ask := range map[string]func(string) (answer, error){
			"simple": c.query, "extended": func(sql string) (answer, error) { return c.extended(sql) },
		} {
			if strings.Contains(sql, ";") && how == "extended" {
				continue
			}
			a, err := ask(sql)
			if err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			said := fmt.Sprint(a.rows, a.tag, a.beside)
			if a.err != nil {
				said += a.err.Error()
			}
			if strings.Contains(said, secret) {
				t.Errorf("%s, %s: the client is given %s", sql, how, said)
			}
			if i == 0 && (a.err != nil || !strings.Contains(said, "*")) {
				t.Errorf("%s, %s: not masked but %s", sql, how, said)
			}
			if a.status == 'E' {
				c.must(t, "rollback")
			}
			seen += said
		}
	}
	metrics(t, g, secret)
	look := func(when string) {
		for _, found := range scan(t, g.data, secret) {
			t.Errorf("%s: the address is in %s", when, found)
		}
	}
	look("while it runs")
	c.bye()
	id := g.sealed("curious").ID
	look("after the session")
	for _, args := range [][]string{{"sessions", "-o", "json"}, {"show", id}, {"replay", id}, {"replay", id, "--format", "json"}} {
		out, errs, code := g.run(args...)
		if code != 0 || strings.Contains(out+errs, secret) {
			t.Errorf("weir %v ended with %d, or shows the address", args, code)
		}
	}
	if r := g.replay(id); strings.Contains(string(r.delivered()), secret) {
		t.Error("the address is in the recorded answers")
	} else if err := r.seen(c.notes); err != nil {
		t.Error(err)
	}
	g.stop()
	look("after the end")
	if strings.Contains(g.process.out.String(), secret) {
		t.Error("the address is in the log")
	}
	if len(seen) < 500 {
		t.Error("the probes got next to nothing")
	}
}

// plant makes a table with the address in it, past the gateway.
func plant(t *testing.T, secret, address string) (table string) {
	t.Helper()
	table = "t" + secret[len("canary"):]
	_, err := upstream.Psql(context.Background(), "orders", fmt.Sprintf(`set log_statement = 'none'; set role app;
create table %[1]s (id int primary key, email text unique, note text, check (note <> 'forbidden'));
insert into %[1]s values (1, '%[2]s', 'first'), (2, 'x%[2]s', null);
create view v%[1]s as select id, email as contact from %[1]s;
create function f%[1]s() returns int language plpgsql as $f$ begin raise exception 'it is %%', (select email from %[1]s where id = 1); end $f$;
analyze %[1]s;`, table, address))
	must(t, err)
	return table
}

// probes are ways to get at the column email of a table.
func probes(table string) []string {
	var out []string
	for _, q := range []string{
		"select email from %s where id = 1",
		"select * from %s",
		"select id, email as harmless from %s",
		"select contact from v%s",
		"select upper(email), email || '', left(email, 100) from %s",
		"select coalesce(note, email) from %s",
		"with x as (select email as e from %s) select e from x",
		"select max(email), min(email) from %s",
		"select array_agg(email) from %s",
		"select to_json(t) from %s t",
		"select t from %s t",
		"select row(email, 1) from %s",
		"select email from %s union select 'nothing'",
		"select (select email from %s where id = 1) as subquery",
		"values ((select email from %s where id = 1))",
		"begin; declare cur cursor for select email from %s; fetch all from cur; commit",
		"copy %s to stdout",
		"copy (select email from %s) to stdout",
		"select email::int from %s",
		"select cast(email as date) from %s",
		"select 1 / (length(email) * 0) from %s",
		"update %s set note = 'forbidden' where id = 1",
		"insert into %s select 3, email, null from v%[1]s where id = 1",
		"update %s set id = id returning email",
		"select email from %s where email ~ '(' || email",
		"prepare p as select email from %s; execute p; deallocate p",
		"explain (verbose) select email from %s where id = 1",
		"select email::regclass from %s",
		"select current_setting(email) from %s",
		"select email::json from %s",
		"select email::xml from %s",
		"select pg_notify('c', email) from %s; listen c",
		"listen d; select pg_notify('d', email) from %s",
		"select set_config('application_name', email, false) from %s where id = 1",
		"select set_config('my.x', email, false) from %s where id = 1",
		"select current_setting('my.x', true), '%s'",
		"select most_common_vals::text, histogram_bounds::text from pg_stats where tablename = '%s'",
		"select f%s()",
		"select query from pg_stat_activity where query like '%%%s%%'",
		"select query_to_xml('select email from %s', true, true, '')",
		"select table_to_xml('%s', true, true, '')",
		"select * from dblink('', 'select email from %s') as t(e text)",
		"do $$ begin raise notice '%%', (select email from %s where id = 1); end $$",
		"select ('\" ' || email || ' \"')::int from %s where id = 1",
		"select chr(ascii(email) + 2000000000) from %s",
	} {
		out = append(out, fmt.Sprintf(strings.ReplaceAll(q, "%s", "%[1]s"), table))
	}
	return out
}

// TestScanBites is the control: what is not masked is found, as it stands in the log, packed in the archive, and in
// what the tests plant themselves.
func TestScanBites(t *testing.T) {
	t.Parallel()
	secret := "canary" + random(6)
	table := plant(t, secret, secret+"@example.com")
	g := start(t, setup{})
	c := g.open("supporter", "support")
	a := c.must(t, "select email from "+table+" where id = 1")
	if a.rows[0][0] != secret+"@example.com" {
		t.Fatalf("support does not see the address in clear: %v", a.rows)
	}
	c.bye()
	g.sealed("supporter")
	for _, place := range []string{filepath.Join(g.data, "journal"), filepath.Join(g.data, "archive"), filepath.Join(g.data, "jetstream")} {
		if len(scan(t, place, secret)) == 0 && filepath.Base(place) != "jetstream" { // where it may have been purged already
			t.Errorf("the scan does not find the address in %s", place)
		}
	}
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "plain"), []byte("abc "+password+" def"), 0o600))
	z, err := zstd.NewWriter(nil)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "packed"), append([]byte("head"), z.EncodeAll([]byte(strings.Repeat("abcdefgh", 1000)+password), nil)...), 0o600))
	for _, want := range []string{"plain (at 4", "packed, packed at 4 (at 8000"} {
		contains(t, "the scan", fmt.Sprint(scan(t, dir, password)), want)
	}
}

// metrics demands that a text is in nothing that the admin address says, and that it says something.
func metrics(t *testing.T, g *gateway, secrets ...string) {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	for _, path := range []string{"/metrics", "/api/v1/sessions", "/healthz", "/readyz"} {
		res, err := client.Get("http://" + g.admin + path)
		must(t, err)
		b, err := io.ReadAll(res.Body)
		must(t, err)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK || len(b) == 0 {
			t.Errorf("%s: %s", path, res.Status)
		}
		for _, s := range append(secrets, password) {
			if strings.Contains(string(b), s) {
				t.Errorf("%s tells a secret", path)
			}
		}
	}
}
