package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPsql holds the conversation by psql's own means: variables, \gset, \copy, PREPARE, and Ctrl-C.
func TestPsql(t *testing.T) {
	t.Parallel()
	const name = "psql"
	cmd := program(t, name, guarded, server.Program("psql"), "-X", "-q", "-A", "-t", "-F", " ", "-P", "null=null", "-v", "VERBOSITY=verbose", "-v", "me="+name)
	rows := name + "\t10\n" + name + "\t11\n" + name + "\t12\n"
	script := `
\echo -n 'masked: '
select id, name, email from customers order by id limit 1;
\set who Bob
\echo -n 'parameters: '
select id, name, note from customers where id = 2 and name = :'who';
prepare by_id as select name from customers where id = $1;
` + strings.Repeat("execute by_id(1) \\gset a_\nexecute by_id(2) \\gset b_\n", 4) + `
deallocate by_id;
\echo prepared: :a_name :b_name :a_name :b_name :a_name :b_name :a_name :b_name
select price, case when paid then 'true' end as paid, day, list[1] || ',' || list[2] as list, doc->'a'->>0 as doc from kinds \gset
\echo kinds: :price :paid :day :list :doc
\echo refused
drop table customers;
\echo usable: 1
\echo unbounded
delete from customers;
\echo transaction
begin;
insert into written values (:'me', 99);
drop table written;
select 1;
rollback;
select count(*) as n from written where client = :'me' \gset
\echo count :n
insert into written values (:'me', 0);
insert into written values (:'me', 1);
insert into written values (:'me', 2);
delete from written where client = :'me' and n = 0;
\echo -n 'written: '
select count(*) from written where client = :'me';
\echo copy out
copy (select id, name from customers order by id) to stdout;
\copy written (client, n) from 'rows'
\echo copy in: :ROW_COUNT
\echo copy refused
copy (delete from written returning n) to stdout;
\echo sleeping
select pg_sleep(30);
`
	if err := os.WriteFile(filepath.Join(cmd.Dir, "rows"), []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader(script)
	out := startProgram(t, cmd)
	out.await("sleeping")
	for deadline := time.Now().Add(10 * time.Second); direct(t, "orders", "select count(*) from pg_stat_activity where query = 'select pg_sleep(30);' and application_name = 'psql'") != "1"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the statement is not at the server")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	got := out.finish(3) // psql gives up a script that is interrupted
	// What psql prints of an error, as the conversation has it.
	got = regexp.MustCompile(`(?m)^ERROR:  (\w+): .*\nDETAIL:  (.*)\nHINT:  (.*)\n`).ReplaceAllString(got, "$1; $2; $3\n")
	got = regexp.MustCompile(`(?m)^ERROR:  (\w+): .*\n(LOCATION: .*\n)?`).ReplaceAllString(got, "$1\n")
	got = strings.NewReplacer("refused\n", "refused: ", "unbounded\n", "unbounded: ", "sleeping\nCancel request sent\n", "cancelled: ", "copy out\n1\tAda\n2\tBob\n", "copy out: 1 Ada, 2 Bob\n",
		"transaction\n42501; rule no-ddl; open a migration\n25P02\ncount ", "transaction: 42501 25P02 ").Replace(got)
	converse(t, name, got, "end")
}

// TestPgbench: the three modes, on the server's own tables, as an operator would measure it.
func TestPgbench(t *testing.T) {
	t.Parallel()
	direct(t, "orders", `set role app;
		create table pgbench_branches (bid int primary key, bbalance int, filler char(88));
		create table pgbench_tellers (tid int primary key, bid int, tbalance int, filler char(84));
		create table pgbench_accounts (aid int primary key, bid int, abalance int, filler char(84));
		create table pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
		insert into pgbench_branches select 1, 0;
		insert into pgbench_tellers select g, 1, 0 from generate_series(1, 10) g;
		insert into pgbench_accounts select g, 1, 0 from generate_series(1, 100000) g;`)
	for i, mode := range []string{"simple", "extended", "prepared"} {
		out, code := output(t, program(t, "pgbench", guarded, server.Program("pgbench"), "-n", "-M", mode, "-c", "4", "-j", "2", "-t", "25"))
		if m := missing(out, "transactions actually processed: 100/100", "failed transactions: 0 "); code != 0 || len(m) > 0 {
			t.Fatalf("%s ended with %d, without %q:\n%s", mode, code, m, out)
		}
		if n := direct(t, "orders", "select count(*) from pgbench_history"); n != fmt.Sprint(100*(i+1)) {
			t.Fatal(mode, n)
		}
	}
	out, code := output(t, program(t, "pgbench", guarded, server.Program("pgbench"), "-i", "-q"))
	if m := missing(out, "rule no-ddl", "open a migration"); code == 0 || len(m) > 0 {
		t.Errorf("-i, which drops tables, ended with %d, without %q:\n%s", code, m, out)
	}
}

// TestReplicationIsRefused: programs that would copy everything past every rule are told why they may not.
func TestReplicationIsRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"pg_basebackup", "-D", "copy"}, {"pg_receivewal", "-D", "."}, {"pg_recvlogical", "-d", "orders", "--slot", "s", "--create-slot"}} {
		cmd := program(t, "replication", guarded, server.Program(args[0]), append(args[1:], "--no-password")...)
		if args[0] == "pg_receivewal" {
			cmd.Args = append(cmd.Args, "--no-loop")
		}
		out, code := output(t, cmd)
		if m := missing(out, "FATAL:  ", "a replication connection would carry the whole database past every rule"); code == 0 || len(m) > 0 {
			t.Errorf("%s ended with %d:\n%s", args[0], code, out)
		}
		if found, _ := filepath.Glob(filepath.Join(cmd.Dir, "*")); len(found) > 1 {
			t.Errorf("%s left %v", args[0], found)
		}
	}
}
