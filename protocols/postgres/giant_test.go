package postgres

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestGiantRows: rows that are larger than any buffer, between small ones, come as they are, but for what is masked, in
// rows and in COPY; and the record has what the client has.
func TestGiantRows(t *testing.T) {
	t.Parallel()
	const fixture = `drop schema if exists gr cascade; create schema gr; create table gr.people (id int, email text, note text);
insert into gr.people select g, 'canary' || repeat('y', n), repeat('x', n) from unnest(array[1, 300000, 2, 900000, 3000000, 0, 600000], array[1, 2, 3, 4, 5, 6, 7]) with ordinality q(n, g);`
	if _, err := server.Psql(t.Context(), "postgres", fixture); err != nil {
		t.Fatal(err)
	}
	direct, err := pgx.Connect(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close(context.Background())
	rows := func(c *pgx.Conn, sql string, mode pgx.QueryExecMode) (out [][]string) {
		r, err := c.Query(t.Context(), sql, mode)
		if err != nil {
			t.Fatal(err)
		}
		for r.Next() {
			var row []string
			for _, v := range r.RawValues() {
				row = append(row, string(v))
			}
			out = append(out, row)
		}
		if r.Err() != nil {
			t.Fatal(r.Err())
		}
		return out
	}
	for name, column := range map[string]string{"guarded": "gr.people.email", "open": "gr.others.email"} {
		g := startGate(t, withChain(maskingChain(t, column)))
		conn := g.connect(pgx.QueryExecModeExec)
		hidden := func(s string) string {
			if name == "guarded" && strings.HasPrefix(s, "canary") {
				return "****"
			}
			return s
		}
		for _, mode := range modes {
			sql := "select email, note from gr.people order by id"
			want, got := rows(direct, sql, mode), rows(conn, sql, mode)
			for i, row := range want {
				if len(got) != len(want) || got[i][0] != hidden(row[0]) || got[i][1] != row[1] {
					t.Fatalf("%s: row %d of %d is another one", name, i, len(got))
				}
			}
		}
		for _, with := range []string{"", "csv", "binary"} {
			sql := "copy (select id, email, note from gr.people order by id) to stdout " + with
			var want, got bytes.Buffer
			for c, b := range map[*pgx.Conn]*bytes.Buffer{direct: &want, conn: &got} {
				if _, err := c.PgConn().CopyTo(t.Context(), b, sql); err != nil {
					t.Fatal(err)
				}
			}
			text := want.String()
			if with != "binary" {
				for _, row := range rows(direct, "select email from gr.people", pgx.QueryExecModeExec) {
					text = strings.Replace(text, row[0]+string("\t,"[len(with)/3]), hidden(row[0])+string("\t,"[len(with)/3]), 1)
				}
				if got.String() != text {
					t.Errorf("%s: COPY %s is another one", name, with)
				}
			}
			if strings.Contains(got.String(), "canary") != (name == "open") {
				t.Errorf("%s: COPY %s", name, with)
			}
		}
		if name == "guarded" && bytes.Contains(g.journal.clientBytes(), []byte("canary")) {
			t.Error("it is in the record")
		}
	}
}
