package clients

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
)

// address is a connection URL as a user would write it: only host, port and password differ from the server's own.
func address(t *testing.T, name string) string {
	return "postgres://app:" + token(t, name) + "@" + guarded + "/orders"
}

// fault writes a driver's error as the conversation has it.
func fault(err error) string {
	var x *pgconn.PgError
	var p *pq.Error
	switch {
	case errors.As(err, &x):
		return x.Code + "; " + x.Detail + "; " + x.Hint
	case errors.As(err, &p):
		return string(p.Code) + "; " + p.Detail + "; " + p.Hint
	}
	return fmt.Sprint(err)
}

func code(err error) string { c, _, _ := strings.Cut(fault(err), ";"); return c }

func TestPgx(t *testing.T) {
	for name, mode := range map[string]pgx.QueryExecMode{
		"pgx-extended": pgx.QueryExecModeCacheStatement, "pgx-described": pgx.QueryExecModeDescribeExec, "pgx-simple": pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			converse(t, name, talkPgx(t, name, mode))
		})
	}
}

func connectPgx(t *testing.T, name string, mode pgx.QueryExecMode) *pgx.Conn {
	t.Helper()
	c, err := pgx.ParseConfig(address(t, name))
	if err != nil {
		t.Fatal(err)
	}
	c.DefaultQueryExecMode = mode
	conn, err := pgx.ConnectConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func talkPgx(t *testing.T, name string, mode pgx.QueryExecMode) string {
	ctx := t.Context()
	c := connectPgx(t, name, mode)
	var b strings.Builder
	say := func(what, format string, args ...any) { fmt.Fprintf(&b, what+": "+format+"\n", args...) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var id, n int
	var who, email string
	var note *string
	must(c.QueryRow(ctx, "select id, name, email from customers order by id").Scan(&id, &who, &email))
	say("masked", "%d %s %s", id, who, email)
	must(c.QueryRow(ctx, "select id, name, note from customers where id = $1 and name = $2", 2, "Bob").Scan(&id, &who, &note))
	if note == nil {
		say("parameters", "%d %s null", id, who)
	}
	var names []string
	for i := range 8 {
		must(c.QueryRow(ctx, "select name from customers where id = $1", i%2+1).Scan(&who))
		names = append(names, who)
	}
	say("prepared", "%s", strings.Join(names, " "))
	var price string
	var paid bool
	var day time.Time
	var list []int
	var doc map[string][]int
	must(c.QueryRow(ctx, "select price::text, paid, day, list, doc from kinds").Scan(&price, &paid, &day, &list, &doc))
	say("kinds", "%s %v %s %d,%d %d", price, paid, day.Format(time.DateOnly), list[0], list[1], doc["a"][0])
	_, err := c.Exec(ctx, "drop table customers")
	say("refused", "%s", fault(err))
	must(c.QueryRow(ctx, "select 1").Scan(&n))
	say("usable", "%d", n)
	_, err = c.Exec(ctx, "delete from customers")
	say("unbounded", "%s", fault(err))

	tx, err := c.Begin(ctx)
	must(err)
	_, err = tx.Exec(ctx, "insert into written values ($1, 99)", name)
	must(err)
	_, first := tx.Exec(ctx, "drop table written")
	_, second := tx.Exec(ctx, "select 1")
	must(tx.Rollback(ctx))
	must(c.QueryRow(ctx, "select count(*) from written where client = $1", name).Scan(&n))
	say("transaction", "%s %s %d", code(first), code(second), n)
	for i := range 3 {
		_, err = c.Exec(ctx, "insert into written values ($1, $2)", name, i)
		must(err)
	}
	_, err = c.Exec(ctx, "delete from written where client = $1 and n = $2", name, 0)
	must(err)
	must(c.QueryRow(ctx, "select count(*) from written where client = $1", name).Scan(&n))
	say("written", "%d", n)

	var out bytes.Buffer
	_, err = c.PgConn().CopyTo(ctx, &out, "copy (select id, name from customers order by id) to stdout")
	must(err)
	say("copy out", "%s", strings.NewReplacer("\t", " ", "\n", ", ").Replace(strings.TrimSpace(out.String())))
	copied, err := c.CopyFrom(ctx, pgx.Identifier{"written"}, []string{"client", "n"}, pgx.CopyFromRows([][]any{{name, 10}, {name, 11}, {name, 12}}))
	must(err)
	say("copy in", "%d", copied)
	_, err = c.PgConn().CopyTo(ctx, &out, "copy (delete from written returning n) to stdout")
	say("copy refused", "%s", fault(err))

	done := make(chan error, 1)
	go func() { _, err := c.Exec(ctx, "select pg_sleep(30)"); done <- err }()
	time.Sleep(500 * time.Millisecond)
	must(c.PgConn().CancelRequest(ctx))
	say("cancelled", "%s", code(<-done))
	must(c.QueryRow(ctx, "select 1").Scan(&n))
	say("end", "%d", n)
	must(c.Close(ctx))
	return b.String()
}

// TestPgxBatch: many statements in one go, as a batch and as a pipeline; one that is refused takes back those of its
// transaction and none beyond.
func TestPgxBatch(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := connectPgx(t, "pgx-batch", pgx.QueryExecModeCacheStatement)
	var batch pgx.Batch
	for i := range 50 {
		batch.Queue("insert into written values ('batch', $1)", i)
		batch.Queue("select email from customers where id = $1", i%2+1)
	}
	r := c.SendBatch(ctx, &batch)
	for range 50 {
		var email string
		if _, err := r.Exec(); err != nil {
			t.Fatal(err)
		}
		if err := r.QueryRow().Scan(&email); err != nil || !strings.Contains(email, "*") {
			t.Fatal(email, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	bad := &pgx.Batch{}
	bad.Queue("insert into written values ('batch', 100)")
	bad.Queue("delete from written")
	bad.Queue("insert into written values ('batch', 101)")
	if err := c.SendBatch(ctx, bad).Close(); code(err) != "42501" {
		t.Fatal(err)
	}
	p := c.PgConn().StartPipeline(ctx)
	p.SendQueryParams("insert into written values ('pipeline', 1)", nil, nil, nil, nil)
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	p.SendQueryParams("insert into written values ('pipeline', 2)", nil, nil, nil, nil)
	p.SendQueryParams("drop table written", nil, nil, nil, nil)
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	p.SendQueryParams("insert into written values ('pipeline', 3)", nil, nil, nil, nil)
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for {
		results, err := p.GetResults()
		if err != nil {
			if code(err) != "42501" {
				t.Fatal(err)
			}
			refused++
			continue
		}
		if results == nil {
			break
		}
		if rr, ok := results.(*pgconn.ResultReader); ok {
			if _, err := rr.Close(); err != nil {
				if code(err) != "42501" {
					t.Fatal(err)
				}
				refused++
			}
		}
	}
	if err := p.Close(); err != nil || refused != 1 {
		t.Fatal(refused, err)
	}
	if out := direct(t, "orders", "select client, count(*), max(n) from written where client in ('batch', 'pipeline') group by 1 order by 1"); out != "batch|50|49\npipeline|2|3" {
		t.Fatal(out)
	}
}

// TestNotifications: one client hears another, and both are recorded sessions of their own.
func TestNotifications(t *testing.T) {
	t.Parallel()
	c, other := connectPgx(t, "pgx-listen", pgx.QueryExecModeExec), connectPgx(t, "pgx-notify", pgx.QueryExecModeExec)
	if _, err := c.Exec(t.Context(), "listen orders"); err != nil {
		t.Fatal(err)
	}
	heard := make(chan *pq.Notification, 4)
	l := pq.NewListener(address(t, "pq-listen")+"?sslmode=require", time.Second, time.Second, nil)
	defer l.Close()
	if err := l.Listen("orders"); err != nil {
		t.Fatal(err)
	}
	go func() {
		for n := range l.NotificationChannel() {
			heard <- n
		}
	}()
	if _, err := other.Exec(t.Context(), "select pg_notify('orders', 'number ' || $1)", "7"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	n, err := c.WaitForNotification(ctx)
	if err != nil || n.Channel != "orders" {
		t.Fatal(n, err)
	}
	select {
	case m := <-heard:
		if m.Channel != "orders" || m.Extra != n.Payload {
			t.Fatal(m, n)
		}
	case <-ctx.Done():
		t.Fatal("lib/pq heard nothing")
	}
}

func TestLibPq(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	const name = "libpq-go"
	db, err := sql.Open("postgres", address(t, name)+"?sslmode=require")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	say := func(what, format string, args ...any) { fmt.Fprintf(&b, what+": "+format+"\n", args...) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var id, n int
	var who, email string
	var note sql.NullString
	must(c.QueryRowContext(ctx, "select id, name, email from customers order by id").Scan(&id, &who, &email))
	say("masked", "%d %s %s", id, who, email)
	must(c.QueryRowContext(ctx, "select id, name, note from customers where id = $1 and name = $2", 2, "Bob").Scan(&id, &who, &note))
	if !note.Valid {
		say("parameters", "%d %s null", id, who)
	}
	stmt, err := c.PrepareContext(ctx, "select name from customers where id = $1")
	must(err)
	var names []string
	for i := range 8 {
		must(stmt.QueryRowContext(ctx, i%2+1).Scan(&who))
		names = append(names, who)
	}
	must(stmt.Close())
	say("prepared", "%s", strings.Join(names, " "))
	var price, doc string
	var paid bool
	var day time.Time
	var list pq.Int64Array
	must(c.QueryRowContext(ctx, "select price, paid, day, list, doc -> 'a' ->> 0 from kinds").Scan(&price, &paid, &day, &list, &doc))
	say("kinds", "%s %v %s %d,%d %s", price, paid, day.Format(time.DateOnly), list[0], list[1], doc)
	_, err = c.ExecContext(ctx, "drop table customers")
	say("refused", "%s", fault(err))
	must(c.QueryRowContext(ctx, "select 1").Scan(&n))
	say("usable", "%d", n)
	_, err = c.ExecContext(ctx, "delete from customers")
	say("unbounded", "%s", fault(err))

	tx, err := c.BeginTx(ctx, nil)
	must(err)
	_, err = tx.ExecContext(ctx, "insert into written values ($1, 99)", name)
	must(err)
	_, first := tx.ExecContext(ctx, "drop table written")
	_, second := tx.ExecContext(ctx, "select 1")
	must(tx.Rollback())
	must(c.QueryRowContext(ctx, "select count(*) from written where client = $1", name).Scan(&n))
	say("transaction", "%s %s %d", code(first), code(second), n)
	for i := range 3 {
		_, err = c.ExecContext(ctx, "insert into written values ($1, $2)", name, i)
		must(err)
	}
	_, err = c.ExecContext(ctx, "delete from written where client = $1 and n = $2", name, 0)
	must(err)
	must(c.QueryRowContext(ctx, "select count(*) from written where client = $1", name).Scan(&n))
	say("written", "%d", n)

	tx, err = c.BeginTx(ctx, nil) // the driver has COPY IN within a transaction, and no COPY OUT
	must(err)
	in, err := tx.PrepareContext(ctx, "copy written (client, n) from stdin")
	must(err)
	for i := range 3 {
		_, err = in.ExecContext(ctx, name, 10+i)
		must(err)
	}
	_, err = in.ExecContext(ctx)
	must(err)
	must(in.Close())
	must(tx.Commit())
	must(c.QueryRowContext(ctx, "select count(*) from written where client = $1 and n >= 10", name).Scan(&n))
	say("copy in", "%d", n)

	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	_, err = c.ExecContext(short, "select pg_sleep(30)")
	say("cancelled", "%s", code(err))
	must(db.QueryRowContext(ctx, "select 1").Scan(&n)) // the pool gives another connection when the driver gave this one up
	say("end", "%d", n)
	must(c.Close())
	must(db.Close())
	converse(t, name, b.String(), "copy out", "copy refused")
}

// TestSecureAtOnce: a client that begins with TLS, and one that will have nothing else, reach the gateway as they are.
func TestSecureAtOnce(t *testing.T) {
	t.Parallel()
	for _, params := range []string{"?sslmode=require", "?sslmode=prefer", "?sslmode=disable", "?sslmode=require&sslnegotiation=direct"} {
		c, err := pgx.Connect(t.Context(), address(t, "pgx-tls")+params)
		if err != nil {
			t.Fatal(params, err)
		}
		var one int
		if err := c.QueryRow(t.Context(), "select 1").Scan(&one); err != nil {
			t.Error(params, err)
		}
		_ = c.Close(context.Background())
	}
}
