package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// server is one PostgreSQL for all tests; each gets a database of its own in it.
var server struct {
	sync.Mutex
	*postgrestest.Server
	databases int
}

func TestMain(m *testing.M) {
	m.Run()
	if server.Server != nil {
		_ = server.Stop() // its data are in a temporary folder
	}
}

// database makes an empty database that a role of its own owns.
func database(t *testing.T) Postgres {
	t.Helper()
	server.Lock()
	defer server.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if server.Server == nil {
		s, err := postgrestest.Start(ctx, postgrestest.Options{Log: io.Discard, NoTLS: true})
		if err != nil {
			t.Fatal(err)
		}
		server.Server = s
		if _, err := s.Psql(ctx, "postgres", "CREATE ROLE indexer LOGIN PASSWORD 'for the test'"); err != nil {
			t.Fatal(err)
		}
	}
	server.databases++
	o := Postgres{Address: server.Addr(), Database: fmt.Sprint("index_", server.databases), User: "indexer", Password: "for the test"}
	if _, err := server.Psql(ctx, "postgres", "CREATE DATABASE "+o.Database+" OWNER indexer"); err != nil {
		t.Fatal(err)
	}
	return o
}

// The tables are made once, whoever comes first; a reader makes none, and one of another version is told from one that is good.
func TestPostgresVersions(t *testing.T) {
	o := database(t)
	if _, err := OpenPostgres(t.Context(), o, true); err == nil || !strings.Contains(err.Error(), "weir index rebuild") {
		t.Fatalf("a reader of nothing: %v", err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() {
			x, err := OpenPostgres(t.Context(), o, false)
			if err == nil {
				err = x.Close()
			}
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	x, err := OpenPostgres(t.Context(), o, false)
	x = opened(t, x, err)
	m := fill(t, x)
	if was, stale, err := x.Stale(t.Context()); err != nil || !stale || was != 0 {
		t.Fatal(was, stale, err)
	}
	reader, err := OpenPostgres(t.Context(), o, true)
	reader = opened(t, reader, err)
	if got := found(t, reader, Query{Grep: "kettle"}); got != "a b" {
		t.Errorf("a reader finds %q", got)
	}
	if _, err := reader.db.Exec("DELETE FROM sessions"); err == nil {
		t.Error("a reader can write")
	}
	set := func(version int) {
		t.Helper()
		if _, err := x.db.Exec("UPDATE state SET value = $1 WHERE key = 'version'", fmt.Sprint(version)); err != nil {
			t.Fatal(err)
		}
	}
	set(99)
	if _, err := OpenPostgres(t.Context(), o, false); err == nil || !strings.Contains(err.Error(), "later build") {
		t.Errorf("of a later build: %v", err)
	}
	set(1)
	again, err := OpenPostgres(t.Context(), o, false)
	again = opened(t, again, err)
	if was, stale, err := again.Stale(t.Context()); err != nil || !stale || was != 1 {
		t.Fatal(was, stale, err)
	}
	if err := again.Rebuild(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	if got := found(t, again, Query{}); got != "a b c" {
		t.Errorf("rebuilt: %q", got)
	}
}

// What is wrong with the database is said, without the password.
func TestPostgresRefusals(t *testing.T) {
	good := database(t)
	for name, change := range map[string]func(*Postgres){
		"nobody listens":   func(o *Postgres) { o.Address = "127.0.0.1:1" },
		"no port":          func(o *Postgres) { o.Address = "127.0.0.1" },
		"another password": func(o *Postgres) { o.Password = "not for the test" },
		"another database": func(o *Postgres) { o.Database = "nowhere" },
	} {
		o := good
		change(&o)
		if _, err := OpenPostgres(t.Context(), o, false); err == nil || !strings.HasPrefix(err.Error(), "index: ") || strings.Contains(err.Error(), o.Password) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := database(t)
	if _, err := server.Psql(t.Context(), o.Database, "REVOKE CREATE ON DATABASE "+o.Database+" FROM indexer; ALTER DATABASE "+o.Database+" OWNER TO postgres; REVOKE ALL ON DATABASE "+o.Database+" FROM PUBLIC; GRANT CONNECT ON DATABASE "+o.Database+" TO indexer"); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenPostgres(t.Context(), o, false); err == nil || !strings.Contains(err.Error(), "CREATE EXTENSION pg_trgm") {
		t.Errorf("a role that may make nothing: %v", err)
	}
}

// Workers that have the same sessions, and write them at once in pieces, end with what one of them alone would have.
func TestPostgresTogether(t *testing.T) {
	o := database(t)
	const workers, sessions = 4, 12
	enc := ledger.NewEncoder()
	m := memory{}
	for i := range sessions {
		c := begin(enc, fmt.Sprintf("t%02d", i), "alice", noon.Add(time.Duration(i)*time.Minute))
		c.command(fmt.Sprintf("SELECT %d, 'odd \\u0000 one' FROM orders", i), "public.orders", "read", "")
		c.answer("blue kettle\x00|" + string([]byte{0xff, 0xfe}) + "|grün")
		m[c.id] = c.end(t)
	}
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			x, err := OpenPostgres(t.Context(), o, false)
			if err != nil {
				errs[w] = err
				return
			}
			defer x.Close()
			x.Read(readers)
			for i := range sessions {
				id := fmt.Sprintf("t%02d", (i*5+w*3)%sessions)
				for _, b := range m[id] { // one after the other, each in a transaction of its own
					errs[w] = errors.Join(errs[w], x.Add(t.Context(), m, []core.Block{b}))
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	x, err := OpenPostgres(t.Context(), o, true)
	x = opened(t, x, err)
	list, err := x.Sessions(t.Context(), Query{Grep: "kettle"})
	if err != nil || len(list) != sessions {
		t.Fatalf("%d sessions, %v", len(list), err)
	}
	for _, s := range list {
		if s.End != string(core.EndClosed) || s.Commands != 1 || s.Rows != 1 || !s.Verified {
			t.Errorf("%+v", s)
		}
	}
	for grep, want := range map[string]int{"select 7": 1, "GRÜN": sessions, "odd": sessions, "odd\x00": sessions} {
		if list, err := x.Sessions(t.Context(), Query{Grep: grep}); err != nil || len(list) != want {
			t.Errorf("%q: %d, %v", grep, len(list), err)
		}
	}
}
