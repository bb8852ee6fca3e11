package postgres

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
)

// protects refuses writes to one table by its full name, as a policy would.
type protects string

func (p protects) Inspect(_ context.Context, e *core.Event) (v core.Verdict, _ error) {
	if e.Kind == core.KindCommand {
		for _, r := range e.Command().Resources {
			if r.Name == string(p) && strings.Contains(strings.Join(r.Use, " "), "write") {
				v.Deny = &core.Denial{Rule: "protected"}
			}
		}
	}
	return v, nil
}

func (protects) Subscription() core.Subscription {
	return core.Subscription{Kinds: core.KindSet(core.KindCommand, core.KindColumns)}
}

// TestNamesAreResolved: PG-40. A policy that names s.protected holds for every way to say it.
func TestNamesAreResolved(t *testing.T) {
	if _, err := server.Psql(t.Context(), "postgres", "create table s.protected (a int); insert into s.protected values (1); create table s.open (a int)"); err != nil {
		t.Fatal(err)
	}
	ch, err := chain.New(chain.Step{Name: "protects", Plugin: protects("s.protected")})
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			g := startGate(t, withChain(ch))
			c := g.connect(mode)
			for _, sql := range []string{"set search_path = s", "delete from open where a = 1"} {
				if _, err := c.Exec(t.Context(), sql); err != nil {
					t.Fatal(sql, err)
				}
			}
			for _, sql := range []string{
				"delete from s.protected where a = 1", "delete from protected where a = 1", "delete from PROTECTED where a = 2",
				`update "protected" set a = 2 where a = 1`, "with x as (delete from protected where a = 1 returning a) select * from x",
				`delete from U&"pr\006ftected" where a = 1`,
			} {
				_, err := c.Exec(t.Context(), sql)
				var pe *pgconn.PgError
				if !errors.As(err, &pe) || pe.Detail != "rule protected" {
					t.Errorf("%s: %v", sql, err)
				}
			}
			if out, err := server.Psql(t.Context(), "postgres", "select count(*) from s.protected"); err != nil || out != "1" {
				t.Fatal(out, err)
			}
		})
	}
	t.Run("catalog out of reach", func(t *testing.T) {
		g := startGate(t, withChain(ch))
		c := g.connect(pgx.QueryExecModeSimpleProtocol)
		for _, cat := range g.handler.(*handler).catalogs.m {
			cat.mu.Lock()
			cat.credential.Password = "wrong"
			cat.mu.Unlock()
			cat.changed()
		}
		_, err := c.Exec(t.Context(), "set search_path = s; delete from protected where a = 1")
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Detail != "rule incomplete" {
			t.Fatal(err)
		}
	})
}
