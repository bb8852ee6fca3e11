package postgres

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
	"github.com/weir-gateway/weir/core/opa"
)

// profile is a shipped policy as a chain of its own.
func profile(t *testing.T, name string) *chain.Chain {
	t.Helper()
	p, err := opa.Load(context.Background(), opa.Config{Name: name, Path: "../../policies/" + name})
	if err != nil {
		t.Fatal(err)
	}
	c, err := chain.New(chain.Step{Name: name, Plugin: p})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ruled executes a statement and returns the rule that refused it; "" when it passed.
func ruled(t *testing.T, c *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	rows, err := c.Query(t.Context(), sql, args...)
	if err == nil {
		for rows.Next() {
		}
		err = rows.Err()
	}
	var pe *pgconn.PgError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &pe) && len(pe.Detail) > 5 && pe.Detail[:5] == "rule ":
		return pe.Detail[5:]
	}
	t.Errorf("%s: %v", sql, err)
	return "?"
}

const vault = `
drop schema if exists vault cascade;
create schema vault;
create table vault.secrets (id int primary key, value text);
insert into vault.secrets values (1, 'canary');
create view vault.names as select id, value as harmless from vault.secrets;
create table vault.outbox (note text);
create table vault.plain (a int);
create function vault.peek() returns text language sql as 'select value from vault.secrets';
`

// TestSecretsThenWrite: after a secret was read, by whatever way, nothing is written any more; without the policy the
// secret gets out.
func TestSecretsThenWrite(t *testing.T) {
	t.Parallel()
	if _, err := server.Psql(t.Context(), "postgres", vault); err != nil {
		t.Fatal(err)
	}
	on, off := startGate(t, withChain(profile(t, "secrets-then-write"))), startGate(t)
	const write = "insert into vault.outbox values ($1)"
	for name, mode := range modes {
		for _, read := range []struct{ sql, rule string }{
			{"select value from vault.secrets", "secrets-then-write"},
			{"select harmless from vault.names", "secrets-then-write"},
			{"select 1 from vault.plain where exists (select 1 from vault.secrets where value like 'c%')", "secrets-then-write"},
			{"with s as (select value from vault.secrets) select count(*) from s", "secrets-then-write"},
			{"copy vault.secrets to stdout", "secrets-then-write"},
			{"select vault.peek()", "secrets-then-write-unknown"},
			{"select most_common_vals from pg_stats where tablename = 'secrets'", "secrets-then-write"},
			{"table vault.secrets", "secrets-then-write"},
			{"select (select value from only vault.secrets limit 1)", "secrets-then-write"},
			{`select value from "vault"."secrets" for update`, "secrets-then-write"},
			{"explain analyze select value from vault.secrets", "secrets-then-write"},
		} {
			t.Run(name+"/"+read.sql, func(t *testing.T) {
				for _, g := range []*testGate{on, off} {
					guarded := g == on
					c := g.connect(mode)
					if rule := ruled(t, c, write, "before"); rule != "" {
						t.Errorf("refused by %s before anything was read", rule)
					}
					if read.sql[:4] == "copy" {
						if _, err := c.PgConn().CopyTo(t.Context(), nothing{}, read.sql); err != nil {
							t.Error(err)
						}
					} else if rule := ruled(t, c, read.sql); rule != "" && guarded {
						t.Errorf("reading is refused by %s", rule)
					}
					want := map[bool]string{true: read.rule, false: ""}[guarded]
					for _, sql := range []string{write, "update vault.outbox set note = $1"} {
						if rule := ruled(t, c, sql, "canary"); rule != want {
							t.Errorf("guarded %v: %s is refused by %q, not %q", guarded, sql, rule, want)
						}
					}
					if rule := ruled(t, c, "select a from vault.plain"); rule != "" {
						t.Errorf("reading on is refused by %s", rule)
					}
					_ = c.Close(context.Background())
				}
				c := on.connect(mode) // another session that has read nothing
				defer c.Close(context.Background())
				if rule := ruled(t, c, write, "after"); rule != "" {
					t.Errorf("another session is refused by %s", rule)
				}
			})
		}
	}
	t.Run("at once", func(t *testing.T) {
		c := on.connect(pgx.QueryExecModeSimpleProtocol)
		for _, sql := range []string{
			"insert into vault.outbox select value from vault.secrets", "select value from vault.secrets; insert into vault.outbox values ('x')",
			"create table vault.copy as select * from vault.names", "delete from vault.secrets where value = 'canary' returning value",
		} {
			if rule := ruled(t, c, sql); rule != "secrets-then-write" {
				t.Errorf("%s: %q", sql, rule)
			}
		}
	})
	t.Run("a pipeline", func(t *testing.T) {
		c := on.connect(pgx.QueryExecModeExec)
		var b pgx.Batch
		b.Queue("select value from vault.secrets")
		b.Queue(write, "canary")
		r := c.SendBatch(t.Context(), &b)
		_, first := r.Exec()
		_, second := r.Exec()
		_ = r.Close()
		var pe *pgconn.PgError
		if first != nil || !errors.As(second, &pe) || pe.Detail != "rule secrets-then-write" {
			t.Error(first, second)
		}
	})
	t.Run("a statement that was prepared before", func(t *testing.T) {
		c := on.connect(pgx.QueryExecModeExec)
		for _, sql := range []string{"prepare w as insert into vault.outbox values ('x')", "execute w", "prepare r as select 1"} {
			if rule := ruled(t, c, sql); rule != "" {
				t.Errorf("%s: %s", sql, rule)
			}
		}
		_ = ruled(t, c, "select value from vault.secrets")
		if rule := ruled(t, c, "execute w"); rule != "secrets-then-write" {
			t.Errorf("%q", rule)
		}
	})
	t.Run("a name without a schema", func(t *testing.T) {
		c := on.connect(pgx.QueryExecModeExec)
		for _, sql := range []string{"set search_path to vault, public", "select value from secrets"} {
			if rule := ruled(t, c, sql); rule != "" {
				t.Errorf("%s: %s", sql, rule)
			}
		}
		if rule := ruled(t, c, write, "canary"); rule != "secrets-then-write" {
			t.Errorf("%q", rule)
		}
	})
	t.Run("a cursor", func(t *testing.T) {
		c := on.connect(pgx.QueryExecModeExec)
		for _, sql := range []string{"begin", "declare c cursor for select value from vault.secrets", "fetch all from c"} {
			if rule := ruled(t, c, sql); rule != "" {
				t.Errorf("%s: %s", sql, rule)
			}
		}
		if rule := ruled(t, c, write, "canary"); rule != "secrets-then-write" {
			t.Errorf("%q", rule)
		}
	})
	t.Run("another session of the run", func(t *testing.T) {
		g := startGate(t, withChain(profile(t, "secrets-then-write")), func(g *testGate) { g.run = core.NewRun("r", true) })
		a, b := g.connect(pgx.QueryExecModeExec), g.connect(pgx.QueryExecModeExec)
		if rule := ruled(t, b, write, "before"); rule != "" {
			t.Error(rule)
		}
		_ = ruled(t, a, "select value from vault.secrets")
		if rule := ruled(t, b, write, "canary"); rule != "secrets-then-write" {
			t.Errorf("%q", rule)
		}
		_ = a.Close(t.Context())
		if rule := ruled(t, g.connect(pgx.QueryExecModeExec), write, "canary"); rule != "secrets-then-write" {
			t.Errorf("a later session: %q", rule)
		}
	})
	if out, err := server.Psql(t.Context(), "postgres", "select count(*) from vault.outbox where note = 'canary'"); err != nil || out == "0" {
		t.Error("the control shows no harm:", out, err)
	}
}

type nothing struct{}

func (nothing) Write(b []byte) (int, error) { return len(b), nil }

// TestBudgets: rows and bytes are bounded, of a session and of its run, whatever the statement.
func TestBudgets(t *testing.T) {
	t.Parallel()
	const rules = `package weir.guardrails
limit contains {"bytes": 3000 - input.run.bytes_to_client} if input.run.bytes_to_client < 3000
deny contains {"rule": "run-bytes"} if input.run.bytes_to_client >= 2000
limit contains {"bytes": 900} if true`
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			g := startGate(t, withChain(rego(t, rules)), func(g *testGate) { g.run = core.NewRun("r", true) })
			c := g.connect(mode)
			if rule := ruled(t, c, "select repeat('x', 100) from generate_series(1, 5)"); rule != "" {
				t.Error(rule)
			}
			if rule := ruled(t, c, "select repeat('x', 100) from generate_series(1, 10)"); rule != "limit-bytes" {
				t.Errorf("too long an answer: %q", rule)
			}
			if _, err := c.PgConn().CopyTo(t.Context(), nothing{}, "copy (select repeat('x', 1000)) to stdout"); err == nil {
				t.Error("a COPY is not bounded")
			}
			last := ""
			for range 10 {
				d := g.connect(mode) // another session each time
				last = ruled(t, d, "select repeat('x', 500)")
				_ = d.Close(t.Context())
			}
			if last != "run-bytes" {
				t.Errorf("the run goes on: %q", last)
			}
		})
	}
}

func rego(t *testing.T, rules string) *chain.Chain {
	t.Helper()
	file := t.TempDir() + "/rules.rego"
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := opa.Load(context.Background(), opa.Config{Name: "rules", Path: file})
	if err != nil {
		t.Fatal(err)
	}
	c, err := chain.New(chain.Step{Name: "rules", Plugin: p})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
