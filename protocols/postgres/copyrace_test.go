package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// between stands between Weir and the server. It stops when Weir's question for the columns of a COPY has gone by and
// the COPY has not, and lets somebody act. split ends the transaction there, as a question with a Sync of its own would.
type between struct {
	t     *testing.T
	split bool
	act   func()
}

func (m *between) listen() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", server.Addr())
			if err != nil {
				_ = client.Close()
				return
			}
			asked, eat := make(chan struct{}, 1), make(chan struct{}, 1)
			go func() {
				defer client.Close()
				eachFrame(up, func(frame []byte) bool {
					if frame[0] == 'Z' {
						select {
						case <-eat:
							asked <- struct{}{}
							return true
						default:
						}
					}
					if frame[0] == '3' && !m.split {
						asked <- struct{}{}
					}
					_, err := client.Write(frame)
					return err == nil
				})
			}()
			go func() {
				defer up.Close()
				head := make([]byte, 4)
				if _, err := io.ReadFull(client, head); err != nil {
					return
				}
				rest := make([]byte, binary.BigEndian.Uint32(head)-4)
				if _, err := io.ReadFull(client, rest); err != nil {
					return
				}
				_, _ = up.Write(append(head, rest...))
				eachFrame(client, func(frame []byte) bool {
					_, err := up.Write(frame)
					if frame[0] == 'C' && bytes.Contains(frame, []byte(copyName)) { // and the COPY is next
						if m.split {
							eat <- struct{}{}
							_, _ = up.Write(message('S', ""))
						} else {
							_, _ = up.Write(message('H', ""))
						}
						<-asked
						m.act()
					}
					return err == nil
				})
			}()
		}
	}()
	return l.Addr().String()
}

// eachFrame reads messages until f is content with no more.
func eachFrame(r io.Reader, f func(frame []byte) bool) {
	for {
		frame := make([]byte, headerSize)
		if _, err := io.ReadFull(r, frame); err != nil {
			return
		}
		frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame[1:])-4)...)
		if _, err := io.ReadFull(r, frame[headerSize:]); err != nil || !f(frame) {
			return
		}
	}
}

// TestCopyRace is PG-68: somebody changes a table between Weir's question for the columns of a COPY and the COPY, so that
// other columns come than were described. The server makes him wait, since the two are one transaction. The control ends
// the transaction in between: then the change is made, and the masked column comes under the other's place.
func TestCopyRace(t *testing.T) {
	t.Parallel()
	const fixture = `drop schema if exists cr cascade; create schema cr; create table cr.people (id int, email text, note text);
insert into cr.people values (1, 'canary', 'plain'); create view cr.v as select id, note from cr.people;`
	if _, err := server.Psql(t.Context(), "postgres", "drop database if exists copy_race with (force);\ncreate database copy_race;"); err != nil { // nobody else's catalog takes locks there
		t.Fatal(err)
	}
	side, err := pgx.Connect(t.Context(), server.URL("copy_race"))
	if err != nil {
		t.Fatal(err)
	}
	defer side.Close(context.Background())
	run := func(sql string) error {
		_, err := side.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		return err
	}
	swap := "begin; alter table cr.people rename email to old; alter table cr.people rename note to email; alter table cr.people rename old to note; commit"
	view := "create or replace view cr.v as select id, email as note from cr.people"
	anew := "begin; alter table cr.people rename to before; create table cr.people (id int, note text, email text); insert into cr.people select id, email, note from cr.before; commit"
	for name, c := range map[string]struct {
		sql, change string
		extended    bool
		block       bool
	}{
		"PG-68/columns are renamed":      {"copy cr.people (id, note) to stdout", swap, false, false},
		"PG-68/of a query":               {"copy (select id, note from cr.people) to stdout", swap, false, false},
		"PG-68/a view is replaced":       {"copy (select * from cr.v) to stdout csv", view, false, false},
		"PG-68/the table is made anew":   {"copy cr.people (id, note) to stdout", anew, false, false},
		"PG-68/in a transaction":         {"copy cr.people (id, note) to stdout", swap, false, true},
		"PG-68/in the extended protocol": {"copy cr.people (id, note) to stdout", swap, true, false},
	} {
		for _, split := range []bool{false, true} {
			if split && (c.block || c.extended) { // nothing to split
				continue
			}
			if err := run("set lock_timeout = 0;" + fixture + "set lock_timeout = '100ms'"); err != nil {
				t.Fatal(err)
			}
			acted := 0
			var changed error
			m := &between{t: t, split: split, act: func() {
				acted++
				if changed = run(c.change); changed != nil {
					_ = run("rollback")
				}
			}}
			g := startGate(t, withChain(maskingChain(t, "cr.people.email", "cr.before.email")), func(g *testGate) {
				g.target.Upstream.Address, g.target.Upstream.Database = m.listen(), "copy_race"
			})
			conn := g.connect(pgx.QueryExecModeSimpleProtocol)
			for _, warm := range []string{"select * from cr.people", "select * from cr.v"} { // as far as Weir knows, nothing changes
				if _, err := conn.Exec(t.Context(), warm); err != nil {
					t.Fatal(err)
				}
			}
			if c.block {
				if _, err := conn.Exec(t.Context(), "begin"); err != nil {
					t.Fatal(err)
				}
			}
			var out bytes.Buffer
			var err error
			if !c.extended {
				_, err = conn.PgConn().CopyTo(t.Context(), &out, c.sql)
			} else {
				r := g.dial()
				r.signIn()
				r.send(append(append(append(append(message('P', "\x00"+c.sql+"\x00\x00\x00"), message('B', "\x00\x00\x00\x00\x00\x00\x00\x00")...), message('E', "\x00\x00\x00\x00\x00")...), message('S', "")...), message('X', "")...))
				out.WriteString(r.rest())
			}
			if err != nil || acted != 1 || !strings.Contains(out.String(), "1") {
				t.Fatalf("%s: the change was tried %d times: %q %v", name, acted, out.String(), err)
			}
			if strings.Contains(out.String(), "canary") != split {
				t.Errorf("%s, split %v: %q", name, split, out.String())
			}
			var pe *pgconn.PgError
			if waits := errors.As(changed, &pe) && pe.Code == "55P03"; waits == split {
				t.Errorf("%s, split %v: the change: %v", name, split, changed)
			}
			if err := conn.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestCopyFailures: a COPY that fails says what the server says of it, although Weir asks about it before, and the session
// is as it was.
func TestCopyFailures(t *testing.T) {
	t.Parallel()
	if _, err := server.Psql(t.Context(), "postgres", "drop schema if exists cf cascade; create schema cf; create table cf.people (id int, email text, size int generated always as (length(email)) stored); create view cf.v as select 1; create table cf.parts (id int) partition by list (id)"); err != nil {
		t.Fatal(err)
	}
	guarded, open := startGate(t, withChain(maskingChain(t, "cf.people.email"))), startGate(t)
	for _, sql := range []string{
		"copy cf.nothing to stdout", "copy nowhere.nothing to stdout", "copy cf.people (id, emial) to stdout", "copy cf.people (id, id) to stdout",
		"copy cf.v to stdout", "copy cf.parts to stdout", "  copy /* ü( */ (select ü from cf.people) to stdout", "copy (select 1 from cf.people where email = nothing(id)) to stdout",
		"copy (select 1 / (id - id) from (values (1)) v(id)) to stdout", "copy (select id from cf.people for update) to stdout (delimiter 'xx')",
		"copy (select id\n from cf.people,\n cf.nothing) to stdout csv",
	} {
		for _, begin := range []string{"", "begin"} {
			if begin != "" && strings.Contains(sql, "nowhere") { // it is the relation that is missing, in a block
				continue
			}
			said := map[string]string{}
			for name, g := range map[string]*testGate{"guarded": guarded, "open": open} {
				r := g.dial()
				r.signIn()
				if begin != "" {
					r.send(message('Q', begin+"\x00"))
					r.until('Z')
				}
				r.send(message('Q', sql+"\x00"))
				r.send(append(message('Q', "select 1\x00"), message('X', "")...)) // also with what is behind it
				said[name] = withoutPlace(r.rest())
			}
			if said["guarded"] != said["open"] {
				t.Errorf("%s %s:\n%q\n%q", begin, sql, said["guarded"], said["open"])
			}
		}
	}
	t.Run("a notice is said once", func(t *testing.T) {
		long := strings.Repeat("n", 70)
		for name, g := range map[string]*testGate{"guarded": guarded, "open": open} {
			r := g.dial()
			r.signIn()
			r.send(append(message('Q', "copy (select 1 as "+long+") to stdout\x00"), message('X', "")...))
			if out := r.rest(); strings.Count(out, "42622") != 1 {
				t.Errorf("%s: %q", name, out)
			}
		}
	})
	t.Run("in the midst of a pipeline", func(t *testing.T) {
		const failing = "\x00select nothing\x00\x00\x00"
		for name, g := range map[string]*testGate{"guarded": guarded, "open": open} {
			r := g.dial()
			r.signIn()
			r.send(message('P', failing))
			r.send(message('Q', "copy cf.people to stdout\x00"))
			r.send(message('P', "\x00select 4711\x00\x00\x00"))
			r.send(append(message('S', ""), message('X', "")...))
			if got := types(r.rest()); got != "EZ" {
				t.Errorf("%s: after an error all is skipped up to the client's own Sync: %s", name, got)
			}
			r = g.dial()
			r.signIn()
			r.send(message('P', "\x00select 1\x00\x00\x00"))
			r.send(message('Q', "copy cf.people to stdout\x00"))
			r.send(append(message('S', ""), message('X', "")...))
			want := map[string]string{"guarded": "1EZZ", "open": "1HcCZZ"}[name]
			if out := r.rest(); types(out) != want || strings.Contains(out, "copy-masked") != (name == "guarded") {
				t.Errorf("%s: %s %q", name, types(out), out)
			}
		}
	})
}

// withoutPlace takes from answers what tells where in the server's sources an error was raised.
func withoutPlace(s string) string {
	var out []byte
	eachFrame(strings.NewReader(s), func(frame []byte) bool {
		if frame[0] != 'E' {
			out = append(out, frame...)
			return true
		}
		out = append(out, 'E')
		fields(frame[headerSize:], func(typ byte, v []byte) {
			if strings.IndexByte("FLR", typ) < 0 {
				out = append(append(append(out, typ), v...), 0)
			}
		})
		return true
	})
	return string(out)
}

// types are the types of messages.
func types(s string) string {
	var out []byte
	eachFrame(strings.NewReader(s), func(frame []byte) bool { out = append(out, frame[0]); return true })
	return string(out)
}

// TestCopyWaits: a COPY whose table is locked waits in Weir's question for its columns. It can be cancelled there, by the
// client and by the limit, and a session that ends meanwhile ends.
func TestCopyWaits(t *testing.T) {
	t.Parallel()
	if _, err := server.Psql(t.Context(), "postgres", "drop schema if exists cw cascade; create schema cw; create table cw.people (email text); insert into cw.people values ('canary')"); err != nil {
		t.Fatal(err)
	}
	side, err := pgx.Connect(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer side.Close(context.Background())
	const sql = "copy cw.people to stdout"
	mask := withChain(maskingChain(t, "cw.people.email"))
	g, limited := startGate(t, mask), startGate(t, mask, func(g *testGate) { g.target.Limits.StatementTimeout = 200 * time.Millisecond })
	waits := func() {
		for waiting := false; !waiting && t.Context().Err() == nil; time.Sleep(5 * time.Millisecond) {
			if err := side.QueryRow(t.Context(), "select exists (select from pg_locks where relation = 'cw.people'::regclass and not granted)").Scan(&waiting); err != nil {
				t.Error(err)
				return
			}
		}
	}
	for _, begin := range []string{"", "begin"} {
		for name, g := range map[string]*testGate{"cancelled": g, "limited": limited} {
			conn := g.connect(pgx.QueryExecModeSimpleProtocol)
			if _, err := conn.Exec(t.Context(), "select 1;"+begin); err != nil {
				t.Fatal(err)
			}
			if _, err := side.Exec(t.Context(), "begin; lock cw.people"); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			if name == "cancelled" {
				wg.Go(func() {
					waits()
					_ = conn.PgConn().CancelRequest(context.Background())
				})
			}
			var pe *pgconn.PgError
			if _, err := conn.PgConn().CopyTo(t.Context(), io.Discard, sql); !errors.As(err, &pe) || pe.Code != codeQueryCanceled {
				t.Errorf("%s %s: %v", name, begin, err)
			}
			wg.Wait()
			if _, err := side.Exec(t.Context(), "rollback"); err != nil {
				t.Fatal(err)
			}
			if begin != "" {
				if _, err := conn.Exec(t.Context(), "rollback"); err != nil {
					t.Fatal(err)
				}
			}
			var out bytes.Buffer
			if _, err := conn.PgConn().CopyTo(t.Context(), &out, sql); err != nil || out.String() != "****\n" {
				t.Errorf("%s %s: afterwards: %q %v", name, begin, out.String(), err)
			}
		}
	}
	t.Run("the session is ended", func(t *testing.T) {
		conn := g.connect(pgx.QueryExecModeSimpleProtocol)
		if _, err := side.Exec(t.Context(), "begin; lock cw.people"); err != nil {
			t.Fatal(err)
		}
		defer side.Exec(context.Background(), "rollback") //nolint:errcheck // it is over anyway
		done := make(chan error, 1)
		go func() {
			waits()
			_, err := side.Exec(t.Context(), "select pg_terminate_backend(pid) from pg_locks where relation = 'cw.people'::regclass and not granted", pgx.QueryExecModeSimpleProtocol)
			done <- err
		}()
		var pe *pgconn.PgError
		if _, err := conn.PgConn().CopyTo(t.Context(), io.Discard, sql); !errors.As(err, &pe) || pe.Code != codeAdminShutdown {
			t.Errorf("%v", err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
