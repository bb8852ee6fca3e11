// Command oracle asks PostgreSQL itself whether Weir reads SQL rightly. It runs the server's own regression suite and has
// the server log the tree of every statement; what the server says that a statement writes and reads, and what class it is
// of, is compared with Weir's facts. `make oracle-postgres` builds and runs it; ORACLE.md holds the last result.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

func main() {
	work := flag.String("work", ".conformance", "where the suite's sources are kept")
	out := flag.String("o", "", "write the result to this file")
	only := flag.String("tests", "", "some tests only, by blank; setup tests are added")
	show := flag.Int("show", 200, "how many wrong statements are printed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	bad, err := run(ctx, *work, *out, *only, *show)
	if err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(2)
	}
	if bad > 0 {
		os.Exit(1)
	}
}

func run(ctx context.Context, work, out, only string, show int) (bad int, err error) {
	suite, err := postgrestest.Suite(ctx, work, os.Stderr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = suite.Close() }()
	var tests []string
	if only != "" {
		tests = append([]string{"test_setup"}, strings.Fields(only)...)
	}
	classes := map[string]class{}
	for _, level := range []struct {
		name  string
		class class
	}{{"mod", mod}, {"ddl", ddl}} { // what mod logs and ddl does not are changes of data
		err := play(ctx, suite, level.name, tests, func(_ relations, log io.Reader) error {
			return readLog(log, "regression", relations{}, func(a *asked) { classes[a.text] = level.class })
		})
		if err != nil {
			return 0, err
		}
	}
	t := newTally()
	j := newJudge(classes)
	err = play(ctx, suite, "all", tests, func(known relations, log io.Reader) error {
		return readLog(log, "regression", known, func(a *asked) { t.add(j, a) })
	})
	if err != nil {
		return 0, err
	}
	report := t.report(suite.Release())
	fmt.Print(report)
	for _, w := range t.wrong[:min(show, len(t.wrong))] {
		fmt.Printf("\nWRONG: misses %s\n%s\n%s\n", strings.Join(w.misses, ", "), strings.TrimSpace(w.text), w.facts)
	}
	if out != "" {
		if err := os.WriteFile(out, []byte(report), 0o644); err != nil {
			return 0, err
		}
	}
	return len(t.wrong), nil
}

// play runs the suite against a fresh server, and has its log read.
func play(ctx context.Context, suite *postgrestest.Regression, level string, tests []string, read func(relations, io.Reader) error) error {
	fmt.Fprintf(os.Stderr, "oracle: the suite, log_statement=%s\n", level)
	server, known, err := listen(ctx, level, "regression")
	if err != nil {
		return err
	}
	defer func() { _ = server.Stop() }()
	if _, err := suite.Play(ctx, level, server.Addr(), server.Password, append([]string{"--use-existing"}, tests...)...); err != nil {
		return err
	}
	log, err := os.Open(filepath.Join(server.Dir, "data", "log", "server.json"))
	if err != nil {
		return err
	}
	defer log.Close()
	if info, err := log.Stat(); err == nil {
		fmt.Fprintf(os.Stderr, "oracle: reading %d MB\n", info.Size()/1e6)
	}
	return read(known, log)
}

// listen starts a server that logs what it makes of statements in a database, and tells the names of what is there.
func listen(ctx context.Context, level, database string) (*postgrestest.Server, relations, error) {
	with := maps.Clone(settings)
	with["log_statement"] = level
	if level != "all" {
		with["debug_print_parse"], with["debug_print_plan"] = "off", "off"
	}
	server, err := postgrestest.Start(ctx, postgrestest.Options{Log: os.Stderr, NoTLS: true, Settings: with})
	if err != nil {
		return nil, nil, err
	}
	known, err := prepare(ctx, server, database)
	if err != nil {
		_ = server.Stop()
		return nil, nil, err
	}
	return server, known, nil
}

func prepare(ctx context.Context, server *postgrestest.Server, database string) (relations, error) {
	if _, err := server.Psql(ctx, "postgres", "create database "+database+" template template0"); err != nil {
		return nil, err
	}
	if _, err := server.Psql(ctx, database, names); err != nil {
		return nil, err
	}
	list, err := server.Psql(ctx, database, "select c.oid || ' ' || nspname || '.' || relname from pg_class c join pg_namespace n on n.oid = relnamespace")
	if err != nil {
		return nil, err
	}
	known := relations{}
	for line := range strings.Lines(list) {
		oid, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		known[oid] = name
	}
	return known, nil
}

// tally counts verdicts.
type tally struct {
	counts  map[verdict]int
	reasons map[string]int // of what is conceded
	wrong   []mistake
	seen    map[string]bool
}

type mistake struct {
	text, facts string
	misses      []string
}

func newTally() *tally {
	return &tally{counts: map[verdict]int{}, reasons: map[string]int{}, seen: map[string]bool{}}
}

func (t *tally) add(j *judge, a *asked) {
	v, misses := j.judge(a)
	t.counts[v]++
	if v == agree || v == skipped {
		return
	}
	command := j.facts(a.session, a.text)
	if v == conceded {
		reason := command.Reason
		switch {
		case strings.HasPrefix(reason, "it does not parse"):
			reason = "it does not parse"
		case strings.HasPrefix(reason, "it changes"):
			reason = "it changes how SQL is read"
		case reason == "":
			reason = "a function that is not the server's own"
		}
		t.reasons[reason]++
		return
	}
	if key := strings.Join(misses, ",") + a.text; !t.seen[key] {
		t.seen[key] = true
		t.wrong = append(t.wrong, mistake{a.text, string(command.Facts()), misses})
	}
}

func (t *tally) report(release string) string {
	var b strings.Builder
	judged := t.counts[agree] + t.counts[conceded] + t.counts[wrong]
	share := func(n int) string { return fmt.Sprintf("%.2f %%", 100*float64(n)/float64(max(judged, 1))) }
	fmt.Fprintf(&b, `# What Weir reads in SQL, and what PostgreSQL says

Every statement of the regression suite of %s that the server itself could analyse: the relations that it writes
and reads by the server's own tree, and the class of it by log_statement, against the facts that Weir gives to rules.

| | statements | |
|---|--:|--:|
| judged | %d | |
| agree | %d | %s |
| conceded: Weir says that it does not know, so the statement is refused | %d | %s |
| **wrong**: Weir says that it knows, and misses a table or an effect | %d | %s |

Not judged are %d statements that the server does not accept.

Why statements are conceded:

| reason | statements |
|---|--:|
`, release, judged, t.counts[agree], share(t.counts[agree]), t.counts[conceded], share(t.counts[conceded]), t.counts[wrong], share(t.counts[wrong]), t.counts[skipped])
	reasons := slices.SortedFunc(maps.Keys(t.reasons), func(x, y string) int { return t.reasons[y] - t.reasons[x] })
	for _, r := range reasons[:min(12, len(reasons))] {
		fmt.Fprintf(&b, "| %s | %d |\n", strings.ReplaceAll(r, "|", "/"), t.reasons[r])
	}
	fmt.Fprintf(&b, "\nRun on %s with `make oracle-postgres`, on a machine with %s.\n", time.Now().UTC().Format("2006-01-02"), machine())
	return b.String()
}

func machine() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	return fmt.Sprintf("%d processors", strings.Count(string(b), "processor\t"))
}
