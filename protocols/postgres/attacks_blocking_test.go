package postgres

import (
	"path/filepath"
	"testing"
)

// one makes an attack of one message.
func one(id, name, sql string, harm ...string) attack {
	a := attack{id: id, name: name, steps: []string{sql}}
	if len(harm) > 0 {
		a.harm = harm[0]
	}
	return a
}

// leaves says that the control leaves more behind than missing rows.
func (a attack) leaves() attack { a.dirty = true; return a }

func (a attack) first(steps ...string) attack {
	a.steps = append(steps, a.steps...)
	return a
}

func (a attack) then(steps ...string) attack {
	a.steps = append(a.steps, steps...)
	return a
}

// TestAttackStatements is PG-01 to PG-18: a statement that must not run, however it is written.
func TestAttackStatements(t *testing.T) {
	t.Parallel()
	newGround(t).run(statementAttacks())
}

func statementAttacks() []attack {
	const smuggle = `select '\' , ' ; delete from s.victim ; -- '`
	return []attack{
		one("PG-01", "behind a select", "select 1; delete from s.victim"),
		one("PG-01", "before a select", "delete from s.victim; select 1"),
		one("PG-01", "behind empty statements", ";;select 1;;; delete from s.victim;"),
		one("PG-01", "in a transaction block", "begin; delete from s.victim; commit"),
		one("PG-01", "behind a hundred", repeat("select 1; ", 100)+"delete from s.victim"),
		one("PG-02", "comments and letter case", "select/**/1;/*x*/DeLeTe/**/from s.victim"),
		one("PG-02", "line comments", "--x\ndelete--y\nfrom--z\ns.victim"),
		one("PG-02", "a comment that looks closed", "/* ' */ delete from s.victim /* ' */"),
		one("PG-02", "other blanks", "delete\tfrom\r\n\fs.victim"),
		one("PG-02", "nested comments around it", "/* /* */ */ delete from s.victim"),
		one("PG-04", "escaped identifiers", `delete from U&"s".U&"vict\0069m"`),
		one("PG-04", "an escape character of its own", `delete from U&"s".U&"vict!0069m" UESCAPE '!'`),
		one("PG-04", "six digits", `delete from U&"\+000073".u&"vi\+000063tim"`),
		one("PG-06", "quoted", `delete from s."victim"`),
		one("PG-06", "capitals", "DELETE FROM S.VICTIM"),
		one("PG-06", "only", "delete from only s.victim"),
		one("PG-06", "star", "delete from s.victim *"),
		one("PG-06", "alias", "delete from s.victim as v using s.customers c"),
		one("PG-06", "with a condition", "delete from s.victim where a > 0"),
		one("PG-06", "with the database's name", "truncate s.victim; select current_database()"),
		one("PG-06", "truncate", "truncate s.victim"),
		one("PG-06", "truncate several", "truncate w.lines, s.victim restart identity cascade"),
		one("PG-06", "drop table", "drop table s.victim").leaves(),
		one("PG-06", "drop schema", "drop schema s cascade").leaves(),
		one("PG-06", "alter table", "alter table s.victim rename to other").leaves(),
		one("PG-06", "alter column", "alter table s.victim add column b int", "side: select exists (select from pg_attribute where attrelid = 's.victim'::regclass and attname = 'b')").leaves(),
		one("PG-06", "merge", "merge into s.victim v using (values (1)) x on true when matched then delete"),
		one("PG-06", "update of everything", "update s.victim set a = 0", "side: select bool_and(a = 0) from s.victim").leaves(),
		one("PG-06", "owned", "drop owned by current_user", "none: the bootstrap superuser's objects cannot be dropped so"),
		one("PG-07", "byte order mark", "\ufeffdelete from s.victim", "none: a syntax error for the server"),
		one("PG-07", "no-break space in front", "\u00a0delete from s.victim", "none: a syntax error for the server"),
		one("PG-07", "no-break space inside", "delete\u00a0from s.victim", "none: a syntax error for the server"),
		one("PG-07", "ideographic space", "delete\u3000from s.victim", "none: a syntax error for the server"),
		one("PG-09", "set", "set standard_conforming_strings = off").then(smuggle),
		one("PG-09", "set to 0", "set standard_conforming_strings to 0").then(smuggle),
		one("PG-09", "set local", "begin; set local standard_conforming_strings = 'false'").then(smuggle, "commit"),
		one("PG-09", "set with a quoted name", `set "standard_conforming_strings" = 'no'`).then(smuggle),
		one("PG-09", "in one message", "set standard_conforming_strings = off; select 1").then(smuggle),
		one("PG-11", "set_config", "select set_config('standard_conforming_strings', 'off', false)").then(smuggle),
		one("PG-11", "set_config in a subquery", "select 1 where (select set_config('standard_conforming_strings', 'off', false)) is not null").then(smuggle),
		one("PG-11", "set_config of a computed name", "select set_config('standard_' || 'conforming_strings', 'off', false)").then(smuggle),
		one("PG-11", "update pg_settings", "update pg_settings set setting = 'off' where name = 'standard_conforming_strings'").then(smuggle),
		one("PG-11", "alter role", "alter role attack_role set standard_conforming_strings = off", "side: select rolconfig is not null from pg_roles where rolname = 'attack_role'").leaves(),
		one("PG-11", "alter database", "alter database attack_template set standard_conforming_strings = off", "side: select exists (select from pg_db_role_setting)").leaves(),
		one("PG-11", "a function with a SET clause", "create function s.k() returns int language sql set standard_conforming_strings = off as 'delete from s.victim; select 1'").then("select s.k()").leaves(),
		one("PG-12", "SJIS", "set client_encoding = 'SJIS'").then("select E'\x95\x5c' ; delete from s.victim ; -- '"),
		one("PG-12", "names", "set names 'BIG5'").then("select E'\xa5\x5c' ; delete from s.victim ; -- '"),
		one("PG-12", "GBK by set_config", "select set_config('client_encoding', 'GBK', false)").then("select E'\x95\x5c' ; delete from s.victim ; -- '"),
		one("PG-12", "bytes without a change", "select E'\x95\x5c' ; delete from s.victim ; -- '", "none: not UTF-8 for the server"),
		one("PG-14", "in a WITH", "with x as (delete from s.victim returning a) select count(*) from x"),
		one("PG-14", "two deep", "with x as (with y as (select 1) select 1), z as (delete from s.victim returning a) select * from z"),
		one("PG-14", "under an insert", "with x as (delete from s.victim returning a) insert into w.lines select a::text from x").leaves(),
		one("PG-14", "not read", "with x as (delete from s.victim) select 1"),
		one("PG-14", "under an update", "with x as (delete from s.victim returning a) update w.notes set body = 'x' where id = 1").leaves(),
		one("PG-15", "explain analyze", "explain analyze delete from s.victim"),
		one("PG-15", "options", "explain (analyze, verbose, costs off) delete from s.victim"),
		one("PG-15", "analyze true", "explain (analyze true) delete from s.victim"),
		one("PG-15", "analyze 1", "explain (analyze 1) delete from s.victim"),
		one("PG-15", "analyze 'on'", "explain (analyze 'on') delete from s.victim"),
		one("PG-15", "analyze said twice", "explain (analyze off, analyze on) delete from s.victim"),
		one("PG-15", "of a WITH", "explain analyze with x as (delete from s.victim) select 1"),
		one("PG-16", "copy", "copy (delete from s.victim returning a) to stdout"),
		one("PG-16", "copy csv", "copy (delete from s.victim returning a) to stdout with (format csv)"),
		one("PG-16", "copy of an update", "copy (update s.victim set a = 0 returning a) to stdout", "side: select bool_and(a = 0) from s.victim").leaves(),
		one("PG-18", "prepare, execute", "prepare d as delete from s.victim").then("execute d"),
		one("PG-18", "in one message", "prepare d as delete from s.victim; execute d"),
		one("PG-18", "a parameter", "prepare d(int) as delete from s.victim where a > $1").then("execute d(0)"),
		one("PG-18", "explain analyze execute", "prepare d as delete from s.victim").then("explain analyze execute d"),
		one("PG-18", "a name used again", "prepare d as select 1").then("deallocate d; prepare d as delete from s.victim", "execute d"),
	}
}

// TestAttackCode is PG-24 to PG-28: code whose text is not in the statement.
func TestAttackCode(t *testing.T) {
	t.Parallel()
	newGround(t).run(codeAttacks())
}

func codeAttacks() []attack {
	return []attack{
		one("PG-24", "do", "do $$ begin execute 'del'||'ete from s.victim'; end $$"),
		one("PG-24", "do with a language", "do language plpgsql 'begin delete from s.victim; end'"),
		one("PG-24", "do behind a select", "select 1; do $$ begin truncate s.victim; end $$"),
		one("PG-25", "create function", "create function s.h() returns int language sql as 'delete from s.victim; select 1'").then("select s.h()").leaves(),
		one("PG-25", "create or replace", "create or replace function s.g() returns text language sql as 'delete from s.victim; select null::text'").then("select s.g()").leaves(),
		one("PG-25", "a body of SQL", "create function s.h() returns int begin atomic delete from s.victim; select 1; end").then("select s.h()").leaves(),
		one("PG-25", "create procedure", "create procedure s.q() language sql as 'delete from s.victim'").then("call s.q()").leaves(),
		one("PG-25", "a temporary function", "create function pg_temp.h() returns int language sql as 'delete from s.victim; select 1'").then("select pg_temp.h()").leaves(),
		one("PG-25", "a rule", "create rule r as on insert to w.lines do instead delete from s.victim").then("insert into w.lines values ('x')").leaves(),
		one("PG-25", "a trigger", "create function s.tr() returns trigger language plpgsql as 'begin delete from s.victim; return new; end'").
			then("create trigger t before insert on w.lines for each row execute function s.tr()", "insert into w.lines values ('x')").leaves(),
		one("PG-25", "a default", "alter table w.lines alter line set default s.wipe()::text").then("insert into w.lines default values").leaves(),
		one("PG-25", "an aggregate", "create aggregate s.agg(int) (sfunc = s.wipe2, stype = int, initcond = '1')").then("select s.agg(1)").leaves(),
		one("PG-25", "a cast", "create function s.c(s.pair) returns int language sql as 'delete from s.victim; select 1'").
			then("create cast (s.pair as int) with function s.c(s.pair)", "select row('a', 'b')::s.pair::int").leaves(),
		one("PG-25", "an operator", "create operator s.### (function = s.wipe2, leftarg = int, rightarg = int)").then("select 1 operator(s.###) 1").leaves(),
		one("PG-25", "an index", "create index on s.customers ((s.wipe()))", "none: the function is not immutable"),
		one("PG-25", "an event trigger", "create event trigger e on ddl_command_end execute function s.tr()", "none: there is no such function"),
		one("PG-26", "select g", "select s.g()", "leak"),
		one("PG-26", "call p", "call s.p()"),
		one("PG-26", "from f", "select * from s.f()", "leak"),
		one("PG-26", "a column of f", "select (s.f()).email", "leak"),
		one("PG-26", "rows from", "select * from rows from (s.f())", "leak"),
		one("PG-26", "values", "values (s.wipe())"),
		one("PG-26", "where", "select 1 where s.wipe() = 1"),
		one("PG-26", "order by", "select 1 from s.customers order by s.wipe()"),
		one("PG-26", "limit", "select 1 from s.customers limit s.wipe()"),
		one("PG-26", "returning", "insert into w.lines values ('x') returning s.wipe()").leaves(),
		one("PG-26", "in an insert", "insert into w.lines values (s.wipe()::text)").leaves(),
		one("PG-26", "lateral", "select * from s.customers c, lateral (select s.wipe()) x"),
		one("PG-26", "by the search path", "set search_path = s").then("select wipe()"),
		one("PG-26", "explain plans it", "explain analyze select s.wipe()"),
		one("PG-26", "prepared", "prepare d as select s.wipe()").then("execute d"),
		one("PG-26", "cursor", "begin; declare d cursor for select s.wipe(); fetch d; commit"),
		one("PG-26", "an operator of the schema", "select 1 operator(s.@#@) 1"),
		one("PG-26", "an operator by the search path", "set search_path = s").then("select 1 @#@ 1"),
		one("PG-26", "a function written as a column", "set search_path = s").then("select c.wiped from customers c"),
		one("PG-26", "filter", "select count(*) filter (where s.wipe() = 1) from s.customers"),
		one("PG-26", "execute with an argument", "prepare d(int) as select $1").then("execute d(s.wipe())"),
		one("PG-28", "temporary view", "create temp view tv as select s.wipe(); table tv").leaves(),
		one("PG-28", "view", "create view w.tv as select s.wipe()").then("table w.tv").leaves(),
		one("PG-28", "recursive view", "create recursive view w.tv(n) as select s.wipe()").then("table w.tv").leaves(),
		one("PG-28", "materialized view", "create materialized view w.tm as select s.wipe()", "none: it may not be created with a function that writes").leaves(),
		one("PG-28", "create table as", "create table w.t as select s.wipe()").leaves(),
		one("PG-28", "select into", "select s.wipe() into w.t").leaves(),
	}
}

// TestAttackServer is PG-32 to PG-48: files, programs, privileges, channels and time of the server.
func TestAttackServer(t *testing.T) {
	t.Parallel()
	r := newGround(t)
	r.run(serverAttacks(filepath.Join(server.Dir, r.database)))
	for _, g := range []*testGate{r.guarded, r.open} { // PG-38: never recorded, also when it is allowed
		if got := firstOf(g.journal.text(), "pw-canary"); got != "" {
			t.Errorf("PG-38: a password is in the record of the %v", g == r.guarded)
		}
	}
}

func serverAttacks(file string) []attack {
	exists := func(suffix string) string {
		return "side: select (pg_stat_file('" + file + suffix + "', true)).size is not null"
	}
	return []attack{
		one("PG-32", "from program", "copy s.victim from program 'seq 100'"),
		one("PG-32", "to program", "copy (select 1) to program 'cat > "+file+".1'", exists(".1")),
		one("PG-32", "table to program", "copy s.victim to program 'cat > "+file+".2'", exists(".2")),
		one("PG-32", "from program csv", "copy w.lines from program 'id' with (format csv)", "side: select exists (select from w.lines)").leaves(),
		one("PG-33", "from a file", "copy w.lines from '/etc/passwd'", "side: select exists (select from w.lines where line like 'root:%')").leaves(),
		one("PG-33", "to a file", "copy s.customers to '"+file+".3'", exists(".3")),
		one("PG-33", "query to a file", "copy (select 1) to '"+file+".4'", exists(".4")),
		one("PG-34", "pg_read_file", "select pg_read_file('/etc/passwd')", "runs"),
		one("PG-34", "pg_read_binary_file", "select pg_read_binary_file('/etc/passwd', 0, 10)", "runs"),
		one("PG-34", "pg_ls_dir", "select * from pg_ls_dir('/')", "runs"),
		one("PG-34", "lo_import", "select lo_import('/etc/passwd')", "runs"),
		one("PG-34", "lo_export", "select lo_export(70001, '"+file+".5')", exists(".5")).first("select lo_from_bytea(70001, 'x')"),
		one("PG-34", "written as a column", "select ('/etc/passwd'::text).pg_read_file", "runs"),
		one("PG-34", "written as a column of a function", "select x.pg_read_file from unnest(array['/etc/passwd']) as x", "runs"),
		one("PG-34", "written as a column of a column", "select (x.y).pg_ls_dir from (values ('/')) as x(y)", "runs"),
		one("PG-34", "pg_stat_file", "select (pg_stat_file('/etc/passwd')).size", "runs"),
		one("PG-34", "with its schema", "select pg_catalog.pg_read_file('/etc/passwd')", "runs"),
		one("PG-34", "quoted", `select "pg_catalog"."pg_ls_dir"('.')`, "runs"),
		one("PG-34", "pg_ls_waldir", "select * from pg_ls_waldir()", "runs"),
		one("PG-34", "pg_current_logfile", "select pg_current_logfile()", "runs"),
		one("PG-34", "pg_hba_file_rules", "select * from pg_hba_file_rules", "runs"),
		one("PG-35", "dblink", "create extension dblink schema w", "runs").leaves(),
		one("PG-35", "postgres_fdw", "create extension postgres_fdw schema w", "runs").leaves(),
		one("PG-35", "file_fdw", "create extension file_fdw schema w", "runs").leaves(),
		one("PG-35", "plpython3u", "create extension plpython3u", "none: it is not installed"),
		one("PG-35", "adminpack", "create extension adminpack", "side: select exists (select from pg_available_extensions where name = 'adminpack') = exists (select from pg_extension where extname = 'adminpack')").leaves(),
		one("PG-35", "create server", "create foreign data wrapper wr; create server sv foreign data wrapper wr", "runs"),
		one("PG-35", "import foreign schema", "import foreign schema public from server sv into w", "none: there is nothing to import"),
		one("PG-35", "create subscription", "create subscription su connection 'dbname=x password=pw-canary' publication p with (connect = false)", "runs").leaves(),
		one("PG-35", "drop subscription", "alter subscription su set (slot_name = none); drop subscription su", "runs"),
		one("PG-35", "alter system", "alter system set log_min_duration_statement = 1000000", "runs"),
		one("PG-35", "alter system reset", "alter system reset all", "runs"),
		one("PG-35", "load", "load 'auto_explain'", "runs"),
		one("PG-35", "create language", "create language plx handler plpgsql_call_handler", "runs"),
		one("PG-35", "create user mapping", "create user mapping for current_user server sv options (password 'pw-canary')", "runs"),
		one("PG-35", "create access method", "create access method am type table handler heap_tableam_handler", "runs"),
		one("PG-35", "create publication", "create publication pu for table s.customers", "runs").leaves(),
		one("PG-35", "create database", "create database "+filepath.Base(file)+"_x", "runs"),
		one("PG-35", "drop database", "drop database "+filepath.Base(file)+"_x", "runs"),
		one("PG-37", "set role", "set role attack_role", "same: select current_user = 'attack_role'"),
		one("PG-37", "set local role", "begin; set local role attack_role", "same: select current_user = 'attack_role'"),
		one("PG-37", "set session authorization", "set session authorization attack_role", "same: select session_user = 'attack_role'"),
		one("PG-37", "reset role", "reset role", "runs"),
		one("PG-37", "set role none", "set role none", "runs"),
		one("PG-37", "reset session authorization", "reset session authorization", "runs"),
		one("PG-37", "set_config", "select set_config('role', 'attack_role', false)", "same: select current_user = 'attack_role'"),
		one("PG-37", "set_config of the session", "select pg_catalog.set_config('session_authorization', 'attack_role', false)", "same: select session_user = 'attack_role'"),
		one("PG-37", "behind a select", "select 1; set role attack_role", "same: select current_user = 'attack_role'"),
		one("PG-37", "as a setting's name", `set "role" = 'attack_role'`, "same: select current_user = 'attack_role'"),
		one("PG-37", "by update of pg_settings", "update pg_settings set setting = 'attack_role' where name = 'role'", "runs"),
		one("PG-37", "by update of a role", "update pg_authid set rolsuper = true where rolname = 'agent'", "side: select rolsuper from pg_roles where rolname = 'agent'"),
		one("PG-37", "by update of a role back", "update pg_catalog.pg_authid set rolsuper = false where rolname = 'agent'", "runs"),
		one("PG-37", "reading the passwords", "select rolpassword from pg_authid", "runs"),
		one("PG-38", "grant", "grant attack_role to agent", "side: select pg_has_role('agent', 'attack_role', 'member')"),
		one("PG-38", "revoke", "revoke attack_role from agent", "runs"),
		one("PG-38", "grant on a table", "grant all on s.customers to agent", "side: select has_table_privilege('agent', 's.customers', 'delete')").leaves(),
		one("PG-38", "alter role", "alter role attack_role superuser", "side: select rolsuper from pg_roles where rolname = 'attack_role'"),
		one("PG-38", "alter role back", "alter role attack_role nosuperuser", "runs"),
		one("PG-38", "alter role password", "alter role attack_role password 'pw-canary'", "side: select rolpassword is not null from pg_authid where rolname = 'attack_role'"),
		one("PG-38", "create role", "create role attack_made_"+filepath.Base(file)+" login password 'pw-canary'", "runs"),
		one("PG-38", "create user", "create user attack_other_"+filepath.Base(file)+" encrypted password 'pw-canary'", "runs"),
		one("PG-38", "drop role", "drop role attack_made_"+filepath.Base(file)+", attack_other_"+filepath.Base(file), "runs"),
		one("PG-38", "default privileges", "alter default privileges in schema s grant all on tables to agent", "runs").leaves(),
		one("PG-38", "security policy", "alter table s.customers disable row level security", "runs"),
		one("PG-38", "owner", "alter table s.victim owner to agent", "runs").leaves(),
		one("PG-38", "reassign", "reassign owned by agent to attack_role", "runs"),
		one("PG-39", "read write", "begin read only; set transaction read write; delete from s.victim; commit"),
		one("PG-39", "out of the block", "begin read only").then("commit; delete from s.victim"),
		one("PG-39", "behind a comment", "/* x */ commit; /* y */ delete from s.victim"),
		one("PG-39", "start transaction", "start transaction read write; truncate s.victim; commit"),
		one("PG-39", "session characteristics", "set session characteristics as transaction read write; delete from s.victim"),
		one("PG-39", "the default", "set default_transaction_read_only = off", "runs"),
		one("PG-40", "temporary table in front", "create temp table victim (a int); delete from pg_temp.victim; delete from s.victim"),
		one("PG-40", "search path", "set search_path = s").then("delete from victim where a > 0"),
		one("PG-40", "search path by set_config", "select set_config('search_path', 's', false)").then("delete from victim where a > 0"),
		one("PG-40", "view in another schema", "create schema x; create view x.victim as select * from s.victim; set search_path = x; delete from victim; drop schema x cascade"),
		one("PG-40", "search path in quotes", `set search_path = "$user", 's'`).then(`delete from "victim" where a > 0`),
		one("PG-40", "local search path", "begin; set local search_path to w, s").then("with x as (delete from victim where a > 0 returning a) select * from x", "commit"),
		one("PG-46", "listen", "listen x", "same: select exists (select from pg_listening_channels())"),
		one("PG-46", "notify", "notify x, 'payload'", "runs"),
		one("PG-46", "unlisten", "unlisten *", "runs"),
		one("PG-46", "behind a select", "select 1; listen x", "same: select exists (select from pg_listening_channels())"),
		one("PG-46", "pg_notify", "select pg_notify('x', (select email from s.customers limit 1))", "runs"),
		one("PG-47", "lock", "begin; lock table s.victim; commit", "runs"),
		one("PG-47", "vacuum full", "vacuum full s.victim", "runs"),
		one("PG-47", "cluster", "cluster s.customers using customers_pkey", "runs"),
		one("PG-47", "reindex", "reindex table s.customers", "runs"),
		one("PG-47", "checkpoint", "checkpoint", "runs"),
		one("PG-47", "pg_terminate_backend", "select pg_terminate_backend(0)", "runs"),
		one("PG-47", "pg_cancel_backend", "select pg_cancel_backend(0)", "runs"),
		one("PG-47", "pg_sleep", "select pg_sleep(0.001)", "runs"),
		one("PG-47", "pg_sleep_for", "select pg_sleep_for('1 ms')", "runs"),
		one("PG-47", "pg_reload_conf", "select pg_reload_conf()", "runs"),
		one("PG-47", "pg_switch_wal", "select pg_switch_wal()", "runs"),
		one("PG-47", "a sequence", "alter sequence w.seq restart 1", "runs"),
		one("PG-63", "client_min_messages", "set client_min_messages = debug5", "same: select current_setting('client_min_messages') = 'debug5'"),
		one("PG-63", "debug_print_parse", "set debug_print_parse = on", "same: select current_setting('debug_print_parse') = 'on'"),
		one("PG-63", "log level by set_config", "select set_config('client_min_messages', 'debug1', false)", "same: select current_setting('client_min_messages') = 'debug1'"),
		one("PG-63", "client_min_messages log", "set client_min_messages = log", "same: select current_setting('client_min_messages') = 'log'"),
		one("PG-63", "client_min_messages local", "begin; set local client_min_messages = 'DEBUG1'", "same: select current_setting('client_min_messages') = 'debug1'"),
		one("PG-63", "debug_print_plan", "set debug_print_plan = on", "same: select current_setting('debug_print_plan') = 'on'"),
		one("PG-63", "debug_print_rewritten", "set session debug_print_rewritten = on", "same: select current_setting('debug_print_rewritten') = 'on'"),
		one("PG-63", "log_statement", "set log_statement = 'all'", "runs"),
		one("PG-63", "log_min_messages", "set log_min_messages = panic", "same: select current_setting('log_min_messages') = 'panic'"),
		one("PG-63", "log_min_error_statement", "set log_min_error_statement = panic", "runs"),
		one("PG-63", "track_activities", "set track_activities = off", "same: select current_setting('track_activities') = 'off'"),
		one("PG-63", "where tables are made", "set default_tablespace = pg_global", "runs"),
		one("PG-63", "where libraries come from", "set dynamic_library_path = '/tmp'", "same: select current_setting('dynamic_library_path') = '/tmp'"),
		one("PG-63", "triggers off", "set session_replication_role = replica", "same: select current_setting('session_replication_role') = 'replica'"),
		one("PG-63", "row security off", "set row_security = off", "same: select current_setting('row_security') = 'off'"),
		one("PG-67", "lo_from_bytea", "select lo_from_bytea(0, (select email::bytea from s.customers limit 1))", "runs"),
		one("PG-67", "lo_get", "select convert_from(lo_get(70002), 'UTF8')", "leak").first("select lo_from_bytea(70002, (select email::bytea from only s.customers))"),
		one("PG-67", "pg_largeobject", "select convert_from(data, 'UTF8') from pg_largeobject where loid = 70003", "leak").first("select lo_from_bytea(70003, (select email::bytea from only s.customers))"),
		one("PG-67", "lo_put", "select lo_put(lo_creat(-1), 0, 'x')", "runs"),
		one("PG-67", "loread", "begin", "runs").first("select lo_from_bytea(70004, (select email::bytea from only s.customers))").then("select loread(lo_open(70004, 262144), 100)", "commit"),
		one("PG-67", "lo_unlink", "select lo_unlink(lo_creat(-1))", "runs"),
	}
}
