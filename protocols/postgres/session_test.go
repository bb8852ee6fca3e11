package postgres

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var modes = map[string]pgx.QueryExecMode{
	"simple": pgx.QueryExecModeSimpleProtocol, "exec": pgx.QueryExecModeExec,
	"prepared": pgx.QueryExecModeCacheStatement, "described": pgx.QueryExecModeDescribeExec,
}

func TestSessionPasses(t *testing.T) {
	g := startGate(t)
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			c := g.connect(mode)
			for range 3 {
				var n int
				var email string
				if err := c.QueryRow(t.Context(), "select id, email from s.customers where id = $1", 1).Scan(&n, &email); err != nil || n != 1 || email != "ada@example.com" {
					t.Fatal(n, email, err)
				}
			}
			var sum int
			if err := c.QueryRow(t.Context(), "select sum(id)::int from s.wide").Scan(&sum); err != nil || sum != 200010000 {
				t.Fatal(sum, err)
			}
			_, err := c.Exec(t.Context(), "select 1/0")
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != "22012" {
				t.Fatal(err)
			}
			if err := c.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestRefusalKeepsTheConnection(t *testing.T) {
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			g := startGate(t, withChain(guard{deny: noWrites}))
			c := g.connect(mode)
			for _, sql := range []string{"drop table s.victim", "delete from s.victim", "select 1; delete from s.victim"} {
				if strings.Contains(sql, ";") && mode != pgx.QueryExecModeSimpleProtocol {
					continue
				}
				_, err := c.Exec(t.Context(), sql)
				var pe *pgconn.PgError
				if !errors.As(err, &pe) || pe.Code != "42501" || !strings.HasPrefix(pe.Detail, "rule no-") || pe.Hint == "" {
					t.Fatalf("%s: %v", sql, err)
				}
				if s := c.PgConn().TxStatus(); s != 'I' {
					t.Fatalf("%s: status %c", sql, s)
				}
			}
			var n int
			if err := c.QueryRow(t.Context(), "select count(*) from s.victim").Scan(&n); err != nil || n != 5 {
				t.Fatal(n, err)
			}
			tx, err := c.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), "delete from s.victim"); err == nil {
				t.Fatal("passed")
			}
			if s := c.PgConn().TxStatus(); s != 'E' {
				t.Fatalf("in a transaction: status %c", s)
			}
			if _, err := tx.Exec(t.Context(), "select 1"); err == nil || !strings.Contains(err.Error(), "25P02") {
				t.Fatal(err)
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			if log := g.journal.text(); !strings.Contains(log, `"rule":"no-unbounded-write"`) {
				t.Error(log)
			}
		})
	}
	t.Run("guard off", func(t *testing.T) { // the control: without the guard it bites
		c := startGate(t).connect(pgx.QueryExecModeExec)
		tx, err := c.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(context.Background()) }()
		if tag, err := tx.Exec(t.Context(), "delete from s.victim"); err != nil || tag.RowsAffected() != 5 {
			t.Fatal(tag, err)
		}
	})
}

func TestMasks(t *testing.T) {
	for name, mode := range modes {
		for _, value := range []string{"x", "***************", "a much longer value than there was before"} {
			t.Run(name+"/"+value, func(t *testing.T) {
				g := startGate(t, withChain(guard{mask: map[string]string{"email": value}}))
				c := g.connect(mode)
				rows, err := c.Query(t.Context(), "select id, email, note, ssn from s.customers order by id")
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				for rows.Next() {
					var id int
					var email, ssn string
					var note *string
					if err := rows.Scan(&id, &email, &note, &ssn); err != nil || email != value || len(ssn) != 11 {
						t.Fatal(id, email, ssn, err)
					}
					n++
				}
				if err := rows.Err(); err != nil || n != 2 {
					t.Fatal(n, err)
				}
				var count int
				if err := c.QueryRow(t.Context(), "select count(*) from (select email from s.wide) x").Scan(&count); err != nil || count != 20000 {
					t.Fatal(count, err)
				}
				rows, _ = c.Query(t.Context(), "select email from s.wide")
				n = 0
				for rows.Next() {
					var email string
					if err := rows.Scan(&email); err != nil || email != value {
						t.Fatal(email, err)
					}
					n++
				}
				if rows.Err() != nil || n != 20000 {
					t.Fatal(n, rows.Err())
				}
				if strings.Contains(g.journal.text(), "ada@example.com") || strings.Contains(g.journal.text(), "@example.com") {
					t.Error("a masked value is in the record")
				}
			})
		}
	}
}
