package clients

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tables asks a database for its tables, each with its number of rows and a checksum over all of them.
func tables(t *testing.T, database string) string {
	t.Helper()
	names := direct(t, database, "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname not in ('pg_catalog', 'information_schema') order by 1")
	var b strings.Builder
	for _, name := range strings.Fields(names) {
		b.WriteString(name + " " + direct(t, database, "select count(*), md5(string_agg(x::text, E'\\n' order by x::text)) from "+name+" x") + "\n")
	}
	b.WriteString(direct(t, database, "select sequencename, last_value from pg_sequences order by 1; select conname, pg_get_constraintdef(oid) from pg_constraint where connamespace = 'public'::regnamespace order by 1"))
	return b.String()
}

// TestDumpAndRestore: a backup of the demo's database that is taken through the gateway, by a role that may only read,
// is the database.
func TestDumpAndRestore(t *testing.T) {
	t.Parallel()
	sample, err := os.ReadFile("../../../examples/demo/sample.sql")
	if err != nil {
		t.Fatal(err)
	}
	direct(t, "postgres", "create database sample; create database restored")
	direct(t, "sample", string(sample))
	cmd := program(t, "dump", sampled, server.Program("pg_dump"), "-U", "reader", "-d", "sample", "-Fc", "-f", "sample.dump")
	if out, code := output(t, cmd); code != 0 {
		t.Fatalf("pg_dump ended with %d:\n%s", code, out)
	}
	file := filepath.Join(cmd.Dir, "sample.dump")
	restore := program(t, "restore", server.Addr(), server.Program("pg_restore"), "-U", server.User, "-d", "restored", "--no-owner", "--exit-on-error", file)
	restore.Env = append(restore.Env, "PGPASSWORD="+server.Password)
	if out, code := output(t, restore); code != 0 {
		t.Fatalf("pg_restore ended with %d:\n%s", code, out)
	}
	want, got := tables(t, "sample"), tables(t, "restored")
	if m := missing(want, "public.customers 2000|", "public.orders 5000|", "public.payments 5000|", "orders_id_seq|5000"); len(m) > 0 {
		t.Fatalf("the sample is not what it was, without %q:\n%s", m, want)
	}
	if got != want {
		t.Errorf("restored:\n%s\nbut was:\n%s", got, want)
	}
	if n := denied(t, "dump"); n != 0 {
		t.Errorf("%d statements of the dump were refused", n)
	}
	// Restoring through the gateway is writing: a role that reads may not, and says so.
	again := program(t, "restore", sampled, server.Program("pg_restore"), "-U", "reader", "-d", "sample", "--clean", "--exit-on-error", file)
	if out, code := output(t, again); code == 0 || len(missing(out, "must be owner")) > 0 {
		t.Errorf("pg_restore through the gateway ended with %d:\n%s", code, out)
	}
}
