package sql

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core"
)

var reader = NewReader()

// facts writes a command as one line: action, effects, resources with use, where, status.
func facts(c *core.Command) string {
	var b strings.Builder
	b.WriteString(c.Action + " |")
	for _, e := range c.Effects {
		b.WriteString(" " + string(e))
	}
	b.WriteString(" |")
	for _, r := range c.Resources {
		b.WriteString(" " + r.Kind + ":" + r.Name + "(" + strings.Join(r.Use, "+") + ")")
	}
	if !c.Where {
		b.WriteString(" | no where")
	}
	if c.Status != core.StatusKnown {
		b.WriteString(" | incomplete")
	}
	if c.Secret {
		b.WriteString(" | secret")
	}
	return b.String()
}

func TestFacts(t *testing.T) {
	for _, c := range []struct{ sql, want string }{
		{"select 1", "select | read |"},
		{"", "empty | |"},
		{"-- nothing\n /* at /* all */ */ ;", "empty | |"},
		{"select * from s.customers c join orders o on o.cid = c.id", "select | read | table:s.customers(read) table:orders(read)"},
		{"SELECT a FROM U&\"s\".U&\"vict\\0069m\"", "select | read | table:s.victim(read)"},
		{"delete from s.victim", "delete | write | table:s.victim(write+delete) | no where"},
		{"delete from s.victim where true", "delete | write | table:s.victim(write+delete) | no where"},
		{"delete from s.victim where 1 = 1", "delete | write | table:s.victim(write+delete) | no where"},
		{"delete from s.victim where a = 1", "delete | write | table:s.victim(write+delete)"},
		{"update v set a = 1", "update | write | table:v(write+update) | no where"},
		{"update v set a = b where c in (select c from d)", "update | read write | table:v(write+update) table:d(read)"},
		{"insert into v select * from w returning *", "insert | read write | table:v(write+insert) table:w(read)"},
		{"truncate v, s.w", "truncate | write | table:v(write+truncate) table:s.w(write+truncate) | no where"},
		{"select 1; delete from s.victim", "multiple | read write | table:s.victim(write+delete) | no where"},
		{"select/**/1;/*x*/DeLeTe/**/from s.victim", "multiple | read write | table:s.victim(write+delete) | no where"},
		{"select $a$;delete from s.victim;$a$", "select | read |"},
		{"with x as (delete from s.victim returning a) select count(*) from x", "select | read write | table:s.victim(write+delete) function:pg_catalog.count(call) | no where"},
		{"with victim as (select * from victim) select * from victim", "select | read | table:victim(read)"},
		{"with recursive r as (select 1 union select * from r) select * from r", "select | read |"},
		{"select * from (with w as (select 1) select * from w) q, w", "select | read | table:w(read)"},
		{"with victim as (select 1) delete from victim", "delete | read write | table:victim(write+delete) | no where"},
		{"explain delete from s.victim", "explain | read | table:s.victim(explain)"},
		{"explain (analyze) delete from s.victim", "explain | write | table:s.victim(write+delete) | no where"},
		{"explain (analyze false) delete from s.victim", "explain | read | table:s.victim(explain)"},
		{"copy (delete from s.victim returning a) to stdout", "copy | read write | table:s.victim(write+delete) | no where"},
		{"copy s.victim from stdin", "copy | write | table:s.victim(write+insert)"},
		{"copy s.victim to '/tmp/x'", "copy | read file | table:s.victim(read) file:/tmp/x(read)"},
		{"copy s.victim from program 'rm x'", "copy | write file process | table:s.victim(write+insert)"},
		{"prepare d as delete from s.victim", "prepare | write session | table:s.victim(write+delete) | no where"},
		{"execute d(1)", "execute | session |"},
		{"do $$ begin execute 'x'; end $$", "do | unknown | | incomplete"},
		{"call s.p()", "call | unknown | function:s.p(call+unknown) | incomplete"},
		{"select s.g()", "select | read unknown | function:s.g(call+unknown)"},
		{"select pg_read_file('/etc/passwd')", "select | read file | function:pg_catalog.pg_read_file(call)"},
		{"select pg_terminate_backend(1)", "select | read process | function:pg_catalog.pg_terminate_backend(call)"},
		{"select set_config('role', 'x', false)", "select | read privilege session | function:pg_catalog.set_config(call) setting:role(write)"},
		{"select set_config('standard_conforming_strings', 'off', false)", "select | read session unknown | function:pg_catalog.set_config(call) setting:standard_conforming_strings(write) | incomplete"},
		{"select set_config('application_name', a, false) from t", "select | read session unknown | table:t(read) function:pg_catalog.set_config(call) setting:application_name(write) | incomplete"},
		{"select set_config('a.b', $1::text, false)", "select | read session | function:pg_catalog.set_config(call) setting:a.b(write)"},
		{"select set_config(a, b, false) from t", "select | read session unknown | table:t(read) function:pg_catalog.set_config(call) | incomplete"},
		{"insert into pg_mine values (1)", "insert | read write ddl privilege admin | table:pg_mine(write+insert)"}, // anybody's; or a later server's
		{"select * from pg_mine, pg_class", "select | read | table:pg_mine(read) table:pg_catalog.pg_class(read)"},
		{"select set_config(name, 'view', false) from pg_settings where name = 'restrict_nonsystem_relation_kind'", "select | read session | table:pg_catalog.pg_settings(read) function:pg_catalog.set_config(call) setting:restrict_nonsystem_relation_kind(write)"},
		{"select set_config(name, 'off', false) from pg_settings where name = 'standard_conforming_strings'", "select | read session unknown | table:pg_catalog.pg_settings(read) function:pg_catalog.set_config(call) setting:standard_conforming_strings(write) | incomplete"},
		{"select set_config(name, 'x', false) from pg_settings where name = 'role'", "select | read privilege session | table:pg_catalog.pg_settings(read) function:pg_catalog.set_config(call) setting:role(write)"},
		{"select set_config(name, 'x', false) from pg_settings where name <> 'a.b'", "select | read session unknown | table:pg_catalog.pg_settings(read) function:pg_catalog.set_config(call) | incomplete"},
		{"select set_config(name, 'x', false) from pg_settings where name = 'a.b' or true", "select | read session unknown | table:pg_catalog.pg_settings(read) function:pg_catalog.set_config(call) | incomplete"},
		{"select set_config(name, 'x', false) from pg_settings, t where name = 'a.b'", "select | read session unknown | table:pg_catalog.pg_settings(read) table:t(read) function:pg_catalog.set_config(call) | incomplete"},
		{"select (select set_config(name, 'x', false) from t) from pg_settings where name = 'a.b'", "select | read session unknown | table:pg_catalog.pg_settings(read) table:t(read) function:pg_catalog.set_config(call) | incomplete"},
		{"set standard_conforming_strings = off", "set | session unknown | setting:standard_conforming_strings(write) | incomplete"},
		{"set standard_conforming_strings = on", "set | session | setting:standard_conforming_strings(write)"},
		{"set client_encoding = 'SJIS'", "set | session unknown | setting:client_encoding(write) | incomplete"},
		{"set names 'utf-8'", "set | session | setting:client_encoding(write)"},
		{"set role postgres", "set | privilege session | setting:role(write)"},
		{"reset role", "set | privilege session | setting:role(write)"},
		{"set session authorization 'x'", "set | privilege session | setting:session_authorization(write)"},
		{"set local search_path = a, b", "set | session | setting:search_path(write)"},
		{"drop table a, b.c cascade", "drop | ddl | table:a(drop) table:b.c(drop)"},
		{"create table t (a int)", "create table | ddl | table:t(create)"},
		{"create temp table t as select * from s.customers", "create table as | read write ddl | table:pg_temp.t(create) table:s.customers(read)"},
		{"select * into x from y", "select | read write ddl | table:x(create) table:y(read)"},
		{"create view v as select h() from t", "create view | read ddl unknown | table:t(read) function:h(call+unknown) table:v(create)"},
		{"alter table t add column x int", "alter table | ddl | table:t(alter)"},
		{"alter table a rename to b", "alter | ddl | table:a(alter)"},
		{"create index on t (a)", "create index | ddl | table:t(alter)"},
		{"grant select on t to bob", "grant | privilege | table:t(grant)"},
		{"create role x password 'hunter2'", "create role | privilege | | secret"},
		{"alter user x with encrypted password 'hunter2'", "alter role | privilege | | secret"},
		{"create user mapping for x server y options (user 'a', password 'b')", "create user mapping | privilege network | | secret"},
		{"create extension dblink", "create extension | ddl admin |"},
		{"select dblink('host=x', 'select 1')", "select | read network | function:dblink(call)"},
		{"select query_to_xml('delete from x', true, true, '')", "select | read unknown | function:pg_catalog.query_to_xml(call) | incomplete"},
		{"listen x", "listen | session | channel:x(listen)"},
		{"begin; select 1; commit", "multiple | read session |"},
		{"vacuum full t", "vacuum | admin | table:t(maintain)"},
		{"declare c cursor for select * from t", "declare | read | table:t(read)"},
		{"fetch all from c", "fetch | read |"},
		{"merge into t using s on true when matched then delete", "merge | read write | table:t(write+delete) table:s(read) | no where"},
		{"merge into t using s on t.a = s.a when matched then update set a = 1 when not matched then insert values (1)", "merge | read write | table:t(write+update+insert) table:s(read)"},
		{"insert into t values (1) on conflict (a) do update set a = 2", "insert | read write | table:t(write+insert+update)"},
		{"select ('/etc/passwd'::text).pg_read_file", "select | read file | function:pg_catalog.pg_read_file(call)"},
		{"select x.pg_read_file from unnest(array['/etc/passwd']) x", "select | read file | function:pg_catalog.unnest(call) function:pg_catalog.pg_read_file(call)"},
		{"select (q.a).query_to_xml from q", "select | read unknown | table:q(read) function:pg_catalog.query_to_xml(call) | incomplete"},
		{"select (c).email, c.id from s.customers c", "select | read | table:s.customers(read)"},
		{"select 1 operator(s.@#@) 1", "select | read unknown | operator:s.@#@(call+unknown)"},
		{"select 1 @#@ 1", "select | read unknown | operator:@#@(call+unknown)"},
		{"select 1 where a between 1 and 2 and b @> c and d <-> e < 1 and f operator(pg_catalog.=) g", "select | read |"},
		{"select 1 order by a using @#@", "select | read unknown | operator:@#@(call+unknown)"},
		{"update pg_settings set setting = 'off' where name = 'x'", "update | write unknown | table:pg_catalog.pg_settings(write+update) | incomplete"},
		{"delete from pg_catalog.pg_class where relname = 'x'", "delete | write ddl privilege admin | table:pg_catalog.pg_class(write+delete)"},
		{"table pg_hba_file_rules", "select | read file | table:pg_catalog.pg_hba_file_rules(read)"},
		{"select rolpassword from pg_authid", "select | read admin | table:pg_catalog.pg_authid(read)"},
		{"notify x, 'y'", "notify | write | channel:x(notify)"},
		{"unlisten *", "unlisten | session | channel:*(unlisten)"},
		{"merge into t using s on t.a = s.a when matched then delete", "merge | read write | table:t(write+delete) table:s(read)"},
		{"selec 1", "unknown | unknown | | no where | incomplete"},
		{"\u00a0select 1", "unknown | unknown | | no where | incomplete"},
		{"select '\xff'", "unknown | unknown | | no where | incomplete"},
		{"alter user x password 'hunter2' oops", "unknown | unknown | | no where | incomplete | secret"},
		{"table s.customers", "select | read | table:s.customers(read)"},
		{"select * from pg_class", "select | read | table:pg_catalog.pg_class(read)"},
		{"values (1), (2)", "select | read |"},
		{"select 1 where exists (delete from x)", "unknown | unknown | | no where | incomplete"},
		{"lock table t", "lock | session | table:t(lock)"},
		{"discard all", "discard | session |"},
		{"set search_path = pg_catalog, s", "set | session | setting:search_path(write)"},
		{"set search_path = s, pg_catalog", "set | session unknown | setting:search_path(write) | incomplete"},
		{"set search_path = 's', \"pg_catalog\"", "set | session unknown | setting:search_path(write) | incomplete"},
		{"select set_config('search_path', 's, pg_catalog', false)", "select | read session unknown | function:pg_catalog.set_config(call) setting:search_path(write) | incomplete"},
		{"select set_config('search_path', $1, false)", "select | read session unknown | function:pg_catalog.set_config(call) setting:search_path(write) | incomplete"},
		{"set search_path to default", "set | session | setting:search_path(write)"},
		{"set client_min_messages = warning", "set | session | setting:client_min_messages(write)"},
		{"set client_min_messages = 'DEBUG2'", "set | session | setting:client_min_messages(write+verbose)"},
		{"reset client_min_messages", "set | session | setting:client_min_messages(write)"},
		{"select set_config('client_min_messages', $1, true)", "select | read session | function:pg_catalog.set_config(call) setting:client_min_messages(write+verbose)"},
		{"create temp table pg_class (a int)", "create table | ddl unknown | table:pg_temp.pg_class(create) | incomplete"},
		{"create view pg_class as select 1", "create view | read ddl unknown | table:pg_catalog.pg_class(create) | incomplete"},
		{"create table pg_temp.pg_stats as select 1", "create table as | read write ddl unknown | table:pg_temp.pg_stats(create) | incomplete"},
		{"select 1 into temp pg_settings", "select | read write ddl unknown | table:pg_temp.pg_settings(create) | incomplete"},
		{"alter table t rename to pg_class", "alter | ddl unknown | table:t(alter) | incomplete"},
		{"alter view t rename to pg_roles", "alter | ddl unknown | table:t(alter) | incomplete"},
		{"alter table t rename column a to pg_class", "alter | ddl | table:t(alter)"},
		{"create table s.pg_class (a int)", "create table | ddl | table:s.pg_class(create)"},
		{"create temp table mine (a int)", "create table | ddl | table:pg_temp.mine(create)"},
	} {
		got := facts(reader.Read(t.Context(), c.sql).Command)
		if got != c.want {
			t.Errorf("%s\n got  %s\n want %s", c.sql, got, c.want)
		}
	}
}

func TestSecretTextIsWithheld(t *testing.T) {
	for _, sql := range []string{
		"create role x password 'hunter2'", "select 1; alter role x password 'hunter2'", "alter role x paSSword 'hunter2' oops",
		"create subscription s connection 'host=x password=hunter2' publication p",
	} {
		s := reader.Read(t.Context(), sql)
		b, _ := json.Marshal(s.Command)
		if !s.Command.Secret || strings.Contains(string(b), "hunter2") {
			t.Errorf("%s: %s", sql, b)
		}
	}
}

func TestFingerprint(t *testing.T) {
	print := func(sql string) string { return reader.Read(t.Context(), sql).Command.Fingerprint }
	a := print("select * from t where a = 1 and b in (1,2,3)")
	if b := print("SELECT *  FROM t -- x\nWHERE a = 2 AND b IN (7)"); a != b {
		t.Errorf("statements that differ in literals only: %s, %s", a, b)
	}
	if b := print("select * from t where b = 1 and b in (1,2,3)"); a == b {
		t.Error("other column, same fingerprint")
	}
}

func TestCopyFacts(t *testing.T) {
	s := reader.Read(t.Context(), "copy s.customers (email, id) to stdout with (format csv, header)")
	c := s.Statements[0].Copy
	if c == nil || c.From || c.Format != "csv" || c.Table != "s.customers" || strings.Join(c.Columns, ",") != "email,id" {
		t.Fatalf("%+v", c)
	}
	if c := reader.Read(t.Context(), "copy s.customers to '/x'").Statements[0].Copy; c != nil {
		t.Fatalf("a copy to a file does not go over the connection: %+v", c)
	}
}

func TestDeepNestingIsContained(t *testing.T) {
	deep := "select " + strings.Repeat("(", 50000) + "1" + strings.Repeat(")", 50000)
	if c := reader.Read(t.Context(), deep).Command; c.Status != core.StatusIncomplete {
		t.Errorf("%v", c.Status)
	}
	if got := facts(reader.Read(t.Context(), "select 2").Command); got != "select | read |" {
		t.Errorf("after it: %s", got)
	}
}

func BenchmarkReadCached(b *testing.B) {
	reader.Read(b.Context(), "select * from t where a = 1")
	b.ReportAllocs()
	for b.Loop() {
		reader.Read(b.Context(), "select * from t where a = 1")
	}
}

func FuzzRead(f *testing.F) {
	if err := reader.Warm(f.Context()); err != nil { // or the first input seems to hang
		f.Fatal(err)
	}
	f.Add("select 1; delete from t where a = $1")
	f.Add("alter role x password 'y'")
	f.Fuzz(func(t *testing.T, s string) {
		script := reader.Read(t.Context(), s)
		if script.Command == nil || (script.Command.Status == core.StatusKnown && script.Command.Action == "") {
			t.Fatal("a script without a command")
		}
	})
}

// TestShapesKeepFacts: a text whose facts come from another of the same shape has the facts that the grammar gives it.
func TestShapesKeepFacts(t *testing.T) {
	pairs := [][2]string{
		{"select * from t where a = 1", "select * from t where a = 22"},
		{"select 'a', b from t", "select 'delete from x', b from t"},
		{"delete from t where a = 'x' and b in (1, 2)", "delete from t where a = 'yy' and b in (7, 9)"},
		{"insert into t values (1, 'a', -3)", "insert into t values (100, '', -4)"},
		{"delete from t where 1 = 1", "delete from t where 2 = 2"},
		{`select "a b", 'x' from "T 1"`, `select "a b", 'z' from "T 1"`},
	}
	for _, p := range pairs {
		r := NewReader()
		r.Read(t.Context(), p[0])
		shared := r.Read(t.Context(), p[1])
		if r.shapes.Len() != 1 || r.cache.Len() != 0 {
			t.Errorf("%s and %s do not share", p[0], p[1])
		}
		own, _ := NewReader().read(t.Context(), p[1])
		if facts(shared.Command) != facts(own.Command) || shared.Command.Text != p[1] || shared.Command.Fingerprint != own.Command.Fingerprint {
			t.Errorf("%s: %s, %s", p[1], facts(shared.Command), facts(own.Command))
		}
		var a, b core.Command
		if err := json.Unmarshal(shared.Command.Facts(), &a); err != nil {
			t.Error(err)
		}
		_ = json.Unmarshal(own.Command.Facts(), &b)
		if facts(&a) != facts(&b) || a.Text != b.Text {
			t.Errorf("%s\n%s", shared.Command.Facts(), own.Command.Facts())
		}
	}
	for _, text := range []string{ // these are read each on its own
		`select '\'', 'x'`, "select e'x'", "select u&'x'", "select 'a''b'", "select 'a'\n'b'x", "select $a$x$a$", "select 1 -- x",
		"select /* 'x' */ 1", "select n'x'", "select x'1f'", "select 'é'", "select 'a'b", "select 1 as \"x\\\"", "select $1a",
	} {
		if key, ok := normalise(nil, text); ok && text != "select 'a'\n'b'x" {
			t.Errorf("%s became %s", text, key)
		}
	}
	for _, text := range []string{"select set_config('a.b', 'c', true)", "set a = 'b'", "copy t to '/x'", "alter role x password 'y'"} {
		r := NewReader()
		r.Read(t.Context(), text)
		if r.shapes.Len() != 0 {
			t.Errorf("%s is shared", text)
		}
	}
}

func BenchmarkReadShaped(b *testing.B) {
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		reader.Read(b.Context(), "SELECT abalance FROM pgbench_accounts WHERE aid = "+strconv.Itoa(i)+";")
	}
}
