// Command agent-loop stands for an AI agent: it works with a database through whatever the PG* environment variables
// name, and knows nothing of Weir. It reads, tries what it should not, writes one order, and ends.
package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func main() {
	rounds := flag.Int("rounds", 1, "how often to go round the loop")
	pause := flag.Duration("pause", 0, "how long to think between steps")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if err := run(ctx, *rounds, *pause); err != nil {
		fmt.Fprintln(os.Stderr, "agent-loop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, pause time.Duration) error {
	conn, err := pgx.Connect(ctx, "") // PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, PGSSLMODE …
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	for range rounds {
		for _, step := range []func(context.Context, *pgx.Conn) error{
			readCustomers, readPayments,
			attempt("DROP TABLE orders"), attempt("DELETE FROM orders"),
			writeOrder,
		} {
			if err := step(ctx, conn); err != nil {
				return err
			}
			time.Sleep(pause)
		}
	}
	return nil
}

func readCustomers(ctx context.Context, conn *pgx.Conn) error {
	return show(ctx, conn, "SELECT id, name, email, phone FROM customers WHERE country = $1 ORDER BY id LIMIT 3", "PT")
}

func readPayments(ctx context.Context, conn *pgx.Conn) error {
	return show(ctx, conn, "SELECT id, order_id, amount, card, note FROM payments ORDER BY id LIMIT 3")
}

func show(ctx context.Context, conn *pgx.Conn, sql string, args ...any) error {
	fmt.Println("agent>", sql)
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			return err
		}
		fmt.Print("      ")
		for _, v := range values {
			if t, ok := v.(driver.Valuer); ok {
				v, _ = t.Value()
			}
			if v == nil {
				v = "NULL"
			}
			fmt.Print(" | ", v)
		}
		fmt.Println()
	}
	return rows.Err()
}

// attempt does what a guardrail should stop. An agent reads the hint and goes on.
func attempt(sql string) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, conn *pgx.Conn) error {
		fmt.Println("agent>", sql)
		tag, err := conn.Exec(ctx, sql)
		var refused *pgconn.PgError
		switch {
		case err == nil:
			fmt.Println("       it went through:", tag)
		case errors.As(err, &refused):
			fmt.Printf("       %s %s\n       %s\n       hint: %s\n", refused.Code, refused.Message, refused.Detail, refused.Hint)
		default:
			return err
		}
		return nil
	}
}

func writeOrder(ctx context.Context, conn *pgx.Conn) error {
	sql := "INSERT INTO orders (customer_id, item, total) VALUES ($1, $2, $3) RETURNING id, total"
	fmt.Println("agent>", sql)
	var id int64
	var total string
	if err := conn.QueryRow(ctx, sql, 7, "blue kettle", "49.90").Scan(&id, &total); err != nil {
		return err
	}
	fmt.Printf("       order %d written, total %s\n", id, total)
	return nil
}
