package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// truth plays the statements against a server, once for each level of its log, and returns what it says of them.
func truth(t *testing.T) (list []*asked, classes map[string]class) {
	t.Helper()
	text, err := os.ReadFile("testdata/statements.sql")
	if err != nil {
		t.Fatal(err)
	}
	statements := strings.Replace(string(text), "copy a from stdin;\n", "copy a from stdin;\n8600\tcopied\t1\n\\.\n", 1)
	ctx := context.Background()
	server, known, err := listen(ctx, "all", "regression")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	for _, level := range []string{"all", "mod", "ddl"} {
		database := "regression"
		with := "\\set ON_ERROR_STOP off\n"
		if level != "all" {
			database = level
			if _, err := server.Psql(ctx, "postgres", "create database "+level+" template template0"); err != nil {
				t.Fatal(err)
			}
			with += "set debug_print_parse = off; set debug_print_plan = off; set log_statement = '" + level + "';\n"
		}
		_, _ = server.Psql(ctx, database, with+statements) // some fail, on purpose
	}
	read := func(database string, known relations, f func(*asked)) {
		log, err := os.Open(filepath.Join(server.Dir, "data", "log", "server.json"))
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		if err := readLog(log, database, known, f); err != nil {
			t.Fatal(err)
		}
	}
	classes = map[string]class{}
	read("mod", relations{}, func(a *asked) { classes[a.text] = mod })
	read("ddl", relations{}, func(a *asked) { classes[a.text] = ddl })
	read("regression", known, func(a *asked) { list = append(list, a) })
	return list, classes
}

// TestOracle: of statements of every kind, the server and Weir say the same, or Weir says that it does not know.
func TestOracle(t *testing.T) {
	if testing.Short() {
		t.Skip("short: it needs a server")
	}
	list, classes := truth(t)
	j := newJudge(classes)
	counts := map[verdict]int{}
	var written, ddls, mods int
	for _, a := range list {
		v, misses := j.judge(a)
		counts[v]++
		if v == wrong {
			t.Errorf("%s\nmisses %s: %s", strings.TrimSpace(a.text), strings.Join(misses, ", "), j.facts(a.session, a.text).Facts())
		}
		if len(a.writes) > 0 {
			written++
		}
		switch classes[a.text] {
		case ddl:
			ddls++
		case mod:
			mods++
		}
		// What hides its doing must not pass for known.
		if strings.Contains(a.text, "do $$") || strings.HasPrefix(a.text, "call") || strings.HasPrefix(a.text, "select g()") {
			if v != conceded {
				t.Errorf("%s: %s", a.text, v)
			}
		}
	}
	t.Logf("%v; the server says that %d write, and that %d are ddl and %d mod", counts, written, ddls, mods)
	if counts[agree] < 160 || counts[conceded] > 12 || written < 45 || ddls < 50 || mods < 45 {
		t.Error("the oracle has not seen what it should have")
	}
}

// TestOracleBites is the control: facts that miss something are found wrong.
func TestOracleBites(t *testing.T) {
	a := &asked{text: "x", parsed: true, changes: true, writes: map[string]bool{"s.b": true, "public.a": true}, reads: map[string]bool{"pg_temp.tmp": true}}
	for _, c := range []struct {
		sql    string
		misses []string
	}{
		{"with x as (delete from s.b) insert into a select * from pg_temp.tmp", nil},
		{"with x as (delete from b) insert into public.a select * from tmp", nil},
		{"select * from s.b, a, tmp", []string{"effect write", "writes public.a", "writes s.b"}},
		{"delete from s.b using a, tmp", []string{"writes public.a"}},
		{"with x as (delete from other.b) insert into a select * from tmp", []string{"writes s.b"}},
		{"with x as (delete from s.b) insert into a select 1", []string{"uses pg_temp.tmp"}},
	} {
		a.text = c.sql
		if _, misses := newJudge(nil).judge(a); !slices.Equal(misses, c.misses) {
			t.Errorf("%s: %q, want %q", c.sql, misses, c.misses)
		}
	}
	a = &asked{text: "show x", parsed: true}
	for c, want := range map[class]string{ddl: "effect ddl, privilege or admin", mod: "effect write"} {
		if v, misses := newJudge(map[string]class{"show x": c}).judge(a); v != wrong || misses[0] != want {
			t.Error(c, v, misses)
		}
	}
}

// TestTree reads trees as the server writes them.
func TestTree(t *testing.T) {
	n, err := readTree(`{QUERY :commandType 4 :canSetTag true :resultRelation 1 :cteList <> :rtable ({RTE :alias {ALIAS :aliasname \1a\ b\} :colnames <>} :eref {ALIAS :aliasname t :colnames ("a \"q\" )" "b")} :rtekind 0 :relid 16384 :selectedCols (b 8)} {RTE :rtekind 8}) :constvalue 4 [ 1 0 0 0 ]}`)
	if err != nil {
		t.Fatal(err)
	}
	rtes := n.list("rtable")
	if n.name != "QUERY" || n.number("commandType") != 4 || len(rtes) != 2 || rtes[0].word("relid") != "16384" || rtes[0].list("alias")[0].word("aliasname") != "1a b}" {
		t.Errorf("%+v", n)
	}
	if got := relations(nil).name(&node{name: "RTE", fields: map[string]*value{"eref": {nodes: rtes[0].list("eref")}}}); got != "?.t" {
		t.Error(got)
	}
	for _, bad := range []string{"", "x", "{QUERY :a", "{QUERY :a {B}", strings.Repeat("{A :b ", 5000)} {
		if _, err := readTree(bad); err == nil {
			t.Errorf("%.20q is read", bad)
		}
	}
}
