package postgres

import (
	"context"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"github.com/weir-gateway/weir/core/chain"
	"github.com/weir-gateway/weir/core/opa"
)

const family = `
drop schema if exists fam cascade;
create schema fam;
create table fam.plain (id int);
insert into fam.plain values (1);
create table fam.parent (id int, email text);
create table fam.kept () inherits (fam.parent);
insert into fam.kept values (1, 'canary@example.com');
create table fam.parts (id int, email text) partition by range (id);
create table fam.parts_1 partition of fam.parts for values from (0) to (10) partition by range (id);
create table fam.parts_1_1 partition of fam.parts_1 for values from (0) to (5);
insert into fam.parts values (1, 'canary@example.com');
create table fam.base (id int, email text);
insert into fam.base values (1, 'canary@example.com');
create view fam.over as select id, email from fam.base;
create view fam.overover as select id from fam.over;
create view fam.joined as select p.id from fam.plain p, fam.base b where p.id = b.id;
`

// A rule about a table holds however it is reached: through its parent, the table that it is a partition of, or a view,
// whether a column of it is named or not. Without the rule each of these gets at the rows.
func TestReached(t *testing.T) {
	t.Parallel()
	if _, err := server.Psql(t.Context(), "postgres", family); err != nil {
		t.Fatal(err)
	}
	policy, err := opa.Load(context.Background(), opa.Config{Name: "kept", FS: fstest.MapFS{"rules.rego": {Data: []byte(`package weir.guardrails
kept := {"fam.kept", "fam.parts_1_1", "fam.base"}
deny contains {"rule": "kept"} if {
	some r in input.event.command.resources
	r.name in kept
	some use in r.use
	use in {"read", "write"}
}
`)}}})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := chain.New(chain.Step{Name: "kept", Plugin: policy})
	if err != nil {
		t.Fatal(err)
	}
	on, off := startGate(t, withChain(rules)), startGate(t)
	for name, mode := range modes {
		guarded, open := on.connect(mode), off.connect(mode)
		for _, text := range []string{
			"select email from fam.kept", "select email from fam.parent", "select count(*) from fam.parent", "table fam.parent",
			"select 1 from fam.plain where exists (select from fam.parent)", "delete from fam.parent where id = 99",
			"select count(*) from fam.parts", "select id from fam.parts_1", "insert into fam.parts values (2, 'x')",
			"update fam.parts set email = 'y' where id = 2", "delete from fam.parts where id = 2",
			"select count(*) from fam.over", "select 1 from fam.over", "select count(*) from fam.overover", "select id from fam.joined",
			"select count(*) from fam.joined", "insert into fam.over values (3, 'x')", "delete from fam.over where id = 3",
			"with v as (select 1 from fam.over) select count(*) from v", "select (select count(*) from fam.over)",
		} {
			if rule := ruled(t, guarded, text); rule != "kept" {
				t.Errorf("%s: %s is refused by %q", name, text, rule)
			}
			if rule := ruled(t, open, text); rule != "" {
				t.Errorf("%s: the control refuses %s by %q", name, text, rule)
			}
		}
		for _, text := range []string{"select id from fam.plain", "insert into fam.plain values (7)", "delete from fam.plain where id = 7"} {
			if rule := ruled(t, guarded, text); rule != "" {
				t.Errorf("%s: %s is refused by %q", name, text, rule)
			}
		}
	}
	masked := startGate(t, withChain(maskChain(t, "fam.kept.email", "fam.parts_1_1.email")))
	for name, mode := range modes {
		c, open := masked.connect(mode), off.connect(mode)
		for _, text := range []string{
			"select email from fam.parent", "select lower(email) from fam.parent", "select email from fam.parts", "select max(email) from fam.parts_1",
			"select e from (select email as e from fam.parts union all select email from fam.parent) x limit 1",
		} {
			if got := first(t, c, text); got == "canary@example.com" {
				t.Errorf("%s: %s shows what a rule masks in a child", name, text)
			}
			if got := first(t, open, text); got != "canary@example.com" {
				t.Errorf("%s: the control shows %q for %s", name, got, text)
			}
		}
		if got := first(t, c, "select email from fam.base"); got != "canary@example.com" {
			t.Errorf("%s: a column that no rule names is %q", name, got)
		}
	}
}

func maskChain(t *testing.T, columns ...string) *chain.Chain {
	t.Helper()
	text := "package weir.guardrails\n"
	for _, c := range columns {
		text += `mask contains {"column": "` + c + `", "with": "redact"}` + "\n"
	}
	policy, err := opa.Load(context.Background(), opa.Config{Name: "masks", FS: fstest.MapFS{"rules.rego": {Data: []byte(text)}}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := chain.New(chain.Step{Name: "masks", Plugin: policy})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func first(t *testing.T, c *pgx.Conn, sql string) string {
	t.Helper()
	var s *string
	if err := c.QueryRow(t.Context(), sql).Scan(&s); err != nil {
		t.Errorf("%s: %v", sql, err)
	}
	if s == nil {
		return ""
	}
	return *s
}
