package postgres

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgproto3/v2"
	"github.com/jackc/pgx/v5"

	"github.com/weir-gateway/weir/core"
)

// TestHoldOldPortal: the unnamed portal outlives a Bind that fails and the savepoint that undoes the failure, so what an
// Execute then runs is not what was asked for last. The last steps are the control: the server does run it.
func TestHoldOldPortal(t *testing.T) {
	t.Parallel()
	encode := func(messages ...pgproto3.FrontendMessage) (out []byte) {
		for _, m := range messages {
			var err error
			if out, err = m.Encode(out); err != nil {
				t.Fatal(err)
			}
		}
		return out
	}
	parse := func(name, text string) pgproto3.FrontendMessage { return &pgproto3.Parse{Name: name, Query: text} }
	bind := func(portal, statement string, values ...[]byte) pgproto3.FrontendMessage {
		return &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: statement, Parameters: values}
	}
	execute := func(portal string) pgproto3.FrontendMessage { return &pgproto3.Execute{Portal: portal} }
	sync := &pgproto3.Sync{}
	for _, guarded := range []bool{true, false} {
		x := startHeld(t, core.Holding{Mode: core.HoldRefuse}, func(g *testGate) { g.target.AllowIncomplete = !guarded })
		x.rule.off.Store(!guarded)
		c := x.dial()
		c.signIn()
		steps := func(messages ...pgproto3.FrontendMessage) string {
			t.Helper()
			c.send(encode(append(messages, sync)...))
			return c.until('Z')
		}
		steps(parse("begin", "begin"), bind("", "begin"), execute(""))
		steps(parse("save", "savepoint s"), parse("back", "rollback to s"), parse("bad", "delete from "+x.schema+".rows"), parse("good", "select 1 where $1::int = 1"), parse("end", "commit"))
		steps(bind("", "bad"))
		steps(bind("one", "save"), execute("one"))
		if got := steps(bind("", "good")); got != "EZ" { // a parameter is missing
			t.Fatalf("the Bind that is to fail: %q", got)
		}
		steps(bind("two", "back"), execute("two"))
		got := steps(execute(""))
		steps(bind("three", "end"), execute("three"))
		switch n := x.rows(); {
		case guarded && (n != 10 || got != "EZ"):
			t.Errorf("a held command ran under the name of another: %q, %d rows", got, n)
		case !guarded && n != 0:
			t.Errorf("the control shows no harm: %q, %d rows", got, n)
		}
	}
}

// TestHoldCursor: FETCH is approved for the query that the cursor was declared with.
func TestHoldCursor(t *testing.T) {
	t.Parallel()
	x := startHeld(t, core.Holding{Mode: core.HoldRefuse})
	g := startGate(t, withChain(inspects(func(_ context.Context, e *core.Event) (v core.Verdict, err error) {
		if e.Kind == core.KindCommand && e.Command().Action == "fetch" {
			v.Hold = &core.Hold{Rule: "fetch", Approvers: []string{"dba"}}
		}
		return v, nil
	})), func(g *testGate) { g.approvals = x.queue })
	c, other := g.connect(pgx.QueryExecModeSimpleProtocol), g.connect(pgx.QueryExecModeSimpleProtocol)
	fetch := func(c *pgx.Conn, where string) error {
		x.exec(c, "begin; declare c cursor for select * from "+x.schema+".rows where "+where)
		defer x.exec(c, "rollback")
		return ended(t, run(c, "fetch 1 from c"))
	}
	refusedBy(t, fetch(c, "id = 1"), "fetch")
	a := x.waiting(1)[0]
	if !strings.Contains(a.Text, "where id = 1") {
		t.Errorf("nobody is told what is fetched: %q", a.Text)
	}
	x.answer(a.ID, true, "")
	refusedBy(t, fetch(other, "id > 1"), "fetch")
	refusedBy(t, fetch(other, "id = 1"), "fetch") // which of the two it has there, only the server knows
	if err := fetch(c, "id = 1"); err != nil {
		t.Error(err)
	}
}

// TestHoldTypes: the types that Parse names are part of what is approved: they choose between functions of one name.
func TestHoldTypes(t *testing.T) {
	t.Parallel()
	x := startHeld(t, core.Holding{Mode: core.HoldRefuse})
	c := x.connect(pgx.QueryExecModeExec).PgConn()
	as := func(oid uint32) error {
		if _, err := c.Prepare(t.Context(), "", "delete from "+x.schema+".rows where id::text = $1::text", []uint32{oid}); err != nil {
			t.Fatal(err)
		}
		return c.ExecPrepared(t.Context(), "", [][]byte{[]byte("1")}, nil, nil).Read().Err
	}
	refusedBy(t, as(23), "risky")
	x.answer(x.waiting(1)[0].ID, true, "")
	refusedBy(t, as(25), "risky")
	if x.rows() != 10 {
		t.Error("it ran")
	}
	if err := as(23); err != nil || x.rows() != 9 {
		t.Error(err, x.rows())
	}
}
