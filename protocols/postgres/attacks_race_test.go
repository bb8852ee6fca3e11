package postgres

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var races = flag.Int("races", 150, "how many changes of the schema TestAttackRaces plays against readers")

// TestAttackRaces is PG-68: while somebody beside the gateway adds, drops, moves and makes anew what is masked, readers
// never see the value. Renames are left out: a column that is renamed beside Weir goes by its old name for a while
// (README.md, "Masks").
func TestAttackRaces(t *testing.T) {
	t.Parallel()
	r := newGround(t)
	count := *races
	if testing.Short() {
		count /= 10
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var read, leaked atomic.Int64
	var wg sync.WaitGroup
	queries := []string{
		"select * from s.customers", "select email from s.customers", "select lower(email) from s.customers", "select c from s.customers c",
		"select * from s.v", "select y from s.vv", "select email2 from s.customers", "select max(email) from s.part", "table s.part", "select contact from s.renamed2",
	}
	for i, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		p := r.guarded.player(t, mode)
		if _, err := p.Exec(ctx, "select 1"); err != nil { // the first statement waits for the grammar
			t.Fatal(err)
		}
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 68))
			for ctx.Err() == nil {
				_, err := p.Exec(ctx, queries[random.IntN(len(queries))])
				var pe *pgconn.PgError
				if err != nil && !errors.As(err, &pe) && ctx.Err() == nil {
					t.Errorf("PG-68: the session is gone: %v", err)
					stop()
					return
				}
				if read.Add(1); p.sees(canaries...) != "" {
					leaked.Add(1)
				}
			}
		})
	}
	play := func(t *testing.T, sql string) {
		t.Helper()
		for {
			_, err := r.side.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
			if err == nil {
				return
			}
			_, _ = r.side.Exec(t.Context(), "rollback", pgx.QueryExecModeSimpleProtocol)
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != "40P01" { // a reader and a change wait for each other now and then
				t.Fatalf("%s: %v", sql, err)
			}
		}
	}
	changes := []string{
		// the column moves to another number
		"begin; alter table s.customers drop column email cascade; alter table s.customers add column email text; update s.customers set email = 'ada@example.com'; create view s.v as select id, email from s.customers; create view s.vv as select id as x, lower(email) as y from s.v; commit",
		// another type
		"begin; drop view s.vv; drop view s.v; alter table s.customers alter column email type varchar(60); create view s.v as select id, email from s.customers; create view s.vv as select id as x, lower(email) as y from s.v; commit",
		// the table is made anew
		"begin; drop table s.part; create table s.part (email text, id int) partition by list (id); create table s.part_1 partition of s.part default; insert into s.part values ('ada@example.com', 1); commit",
		// a view comes and goes
		"drop view if exists s.renamed2; create view s.renamed2 as select email || '' as contact from s.customers",
		"begin; drop view if exists s.renamed2; create view s.renamed2 as select contact from (select email as contact from s.v) q; commit",
		// a column that holds no masked value comes, and goes
		"alter table s.customers add column if not exists email2 text default 'plain'", "alter table s.customers drop column if exists email2",
	}
	play(t, "set deadlock_timeout = 10; drop view s.renamed cascade; drop materialized view s.mv cascade; drop function s.f(); drop function s.wiped(s.customers); drop table s.child")
	t.Run(fmt.Sprintf("PG-68/%d changes", count), func(t *testing.T) {
		for i := range count {
			if i%3000 == 2999 { // a table has at most 1600 columns, dropped ones among them
				play(t, "begin; drop table s.customers cascade; create table s.customers (id int primary key, email text, ssn text); insert into s.customers values (1, 'ada@example.com', '123-45-6789'); create view s.v as select id, email from s.customers; create view s.vv as select id as x, lower(email) as y from s.v; commit")
			}
			play(t, changes[i%len(changes)])
			for next := read.Load() + 1; read.Load() < next && ctx.Err() == nil; { // somebody reads after each
				time.Sleep(50 * time.Microsecond)
			}
		}
		stop()
		wg.Wait()
		if n := leaked.Load(); n > 0 {
			t.Errorf("%d of %d answers leaked", n, read.Load())
		}
		t.Logf("%d changes, %d answers", count, read.Load())
		if c := firstOf(string(r.guarded.journal.clientBytes()), canaries...); c != "" {
			t.Errorf("%s is in the record", c)
		}
	})
	t.Run("PG-68/control", func(t *testing.T) {
		free := r.open.player(t, pgx.QueryExecModeSimpleProtocol)
		if _, err := free.play("select email from s.customers"); err != nil || free.sees(canaries...) == "" {
			t.Errorf("control: no leak: %v", err)
		}
	})
}
