package postgres

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestMaskWithinATransaction: what a session has changed and not committed is not in the catalog that Weir reads yet. What
// depends on it may be anything.
func TestMaskWithinATransaction(t *testing.T) {
	t.Parallel()
	r := newGround(t)
	masked := startGate(t, withChain(maskingChain(t, "s.customers.email", "s.customers.ssn")), func(g *testGate) { g.target.Upstream.Database = r.database })
	for _, name := range []string{"simple", "prepared"} {
		mode := modes[name]
		for _, c := range []struct{ name, ddl, read string }{
			{"a temporary view in front of a table", "create temp view notes as select email as body from s.customers", "select body || '' from notes"},
			{"a view in another's place", "create or replace view s.vv as select id as x, email as y from s.customers", "select y || '' from s.vv"},
			{"a view in another's place, as it is", "create or replace view w.plain as select email as body from s.customers", "select body from w.plain"},
			{"a column that has changed its name", "alter table s.customers rename email to free", "select free || '' from s.customers"},
			{"a name that has changed hands", "alter table s.customers rename ssn to gone; alter table s.customers rename email to other", "select other from s.customers"},
			{"a table that has changed its name", "alter table w.notes rename to was; alter table s.customers rename to notes; alter table s.notes set schema w", "select upper(email) from w.notes"},
			{"a function's argument", "set local search_path = s; create function show(customers) returns text language sql as 'select $1.email'", "select c.show from s.customers c"},
		} {
			t.Run(name+" "+c.name, func(t *testing.T) {
				if _, err := r.side.Exec(t.Context(), "create or replace view w.plain as select body from w.notes", pgx.QueryExecModeSimpleProtocol); err != nil {
					t.Fatal(err)
				}
				for _, g := range []*testGate{masked, r.open} {
					p := g.player(t, mode)
					_, _ = p.play("select body || '' from w.notes; select y || '' from s.vv; select body from w.plain; select email from s.customers") // what is remembered
					p.sees()
					if _, err := p.play("begin; " + c.ddl); err != nil {
						t.Fatal(err)
					}
					got := strings.ToLower(strings.Join(rowsOf(p, mode, c.read), "\n"))
					_, _ = p.play("rollback")
					if leaked := strings.Contains(got, canaries[0]); leaked == (g == masked) {
						t.Errorf("guarded %v: %q", g == masked, got)
					}
					if got := rowsOf(p, mode, "select body || '' from w.notes where id = 1"); len(got) != 1 || got[0] != "one" {
						t.Errorf("afterwards: %q", got)
					}
					_ = p.Close(t.Context())
				}
			})
		}
	}
}
