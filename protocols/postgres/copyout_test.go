package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
)

// nasty has in it whatever means something in some format of COPY.
const nasty = "a\tb,c\"d\\e|f\ng\r\x01ü\\."

// copyChain masks columns of cp.people; email becomes nasty, so that every escape is needed.
func copyChain(t *testing.T, table string) core.Plugin {
	t.Helper()
	m := masking{
		{Column: table + ".email", With: "redact", Args: map[string]string{"text": nasty}},
		{Column: table + ".ssn", With: "partial"},
		{Column: table + ".age", With: "redact"},
		{Column: table + ".extra", With: "redact"},
	}
	ch, err := chain.New(chain.Step{Name: "masks", Plugin: m})
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

const copyFixture = `
drop schema if exists cp cascade;
create schema cp;
create table cp.people (id int primary key, email text, ssn text, age int, extra jsonb, note text);
insert into cp.people values
	(1, 'canary@example.com', 'canary-45-6789', 424242, '{"a": "canary"}', 'plain'),
	(2, E'canary\ttab\nnewline\\back"quote"|,;''', E'canary\\.\n\\.', 424242, '[1, "canary\\n"]', E'note\twith\nall"of\\it, ü|日本語'),
	(3, null, null, null, null, null),
	(4, '', '', 424242, '"canary"', ''),
	(5, E'\\N', E'\\.', 424242, 'null', E'\\N'),
	(6, 'canary ünïcode 日本語', 'canary', 424242, '{}', E'\\.'),
	(7, 'canary', 'canary', 424242, '{}', E'\b\f\v\x01\x7f end'),
	(8, 'x', 'canary', 424242, '{}', 'x');
create table cp.none ();
create table cp.rows (id int, email text);
create table cp.made (id int, email text, twice text generated always as (email || email) stored);
insert into cp.made values (1, 'canary');
`

// TestCopyMatrix is PG-59: each way to COPY a masked column out. With the guard off (and with masks for another table)
// the bytes are the server's; with it on no value of a masked column is there, everything else is as it was, and the
// data goes back into a table of the same types.
func TestCopyMatrix(t *testing.T) {
	t.Parallel()
	if _, err := server.Psql(t.Context(), "postgres", copyFixture); err != nil {
		t.Fatal(err)
	}
	direct, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable", server.User, server.Password, server.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close(context.Background())
	const all = "id, email, ssn, age, extra, note"
	on, off := startGate(t, withChain(copyChain(t, "cp.people"))), startGate(t, withChain(copyChain(t, "cp.others")))
	guarded, open := on.connect(pgx.QueryExecModeExec), off.connect(pgx.QueryExecModeExec)
	for i, c := range []struct {
		out  string // %s: the options
		with string
		back string // options of the way back; "": the same
	}{
		{"copy cp.people to stdout", "", ""},
		{"copy cp.people to stdout %s", "csv", ""},
		{"copy cp.people to stdout %s", "with csv header", ""},
		{"copy cp.people to stdout %s", "(header)", ""},
		{"copy cp.people to stdout %s", "(format binary)", ""},
		{"copy cp.people to stdout %s", "with binary", ""},
		{"copy (select * from cp.people order by id) to stdout %s", "", ""},
		{"copy (select * from cp.people order by id) to stdout %s", "(format csv, header true)", ""},
		{"copy (select * from cp.people) to stdout %s", "(format binary)", ""},
		{"copy (with q as (select * from cp.people) select * from q) to stdout %s", "(delimiter '|')", ""},
		{"copy cp.people to stdout %s", "(delimiter ';', null 'NOTHING')", ""},
		{"copy cp.people to stdout %s", "with delimiter as '|' null as 'x'", ""},
		{"copy cp.people to stdout %s", "(format csv, delimiter '|', null 'x')", ""},
		{"copy cp.people to stdout %s", `(format csv, quote '''', escape '\')`, ""},
		{"copy cp.people to stdout %s", `(format csv, escape '\', header on)`, ""},
		{"copy cp.people to stdout %s", "(format csv, quote '|', delimiter E'\\t')", ""},
		{"copy cp.people to stdout %s", "(format csv, force_quote *)", "(format csv)"},
		{"copy cp.people to stdout %s", "(format csv, force_quote (email, note))", "(format csv)"},
		{"copy cp.people to stdout %s", "csv quote as '\"' force quote ssn", "csv"},
		{"copy cp.people (" + all + ") to stdout %s", "(format csv, encoding 'UTF-8')", ""},
		{"copy cp.people (" + all + ") to stdout %s", "(format text, header false)", ""},
		{"copy (update cp.people set note = note returning *) to stdout %s", "(format csv)", ""},
	} {
		sql := strings.TrimSuffix(strings.Replace(c.out, "%s", c.with, 1), " ")
		t.Run(sql, func(t *testing.T) {
			var want, same, got bytes.Buffer
			for _, to := range []struct {
				conn *pgx.Conn
				b    *bytes.Buffer
			}{{direct, &want}, {open, &same}, {guarded, &got}} {
				if _, err := to.conn.PgConn().CopyTo(t.Context(), to.b, sql); err != nil {
					t.Fatal(err)
				}
			}
			if !strings.Contains(want.String(), "canary") || !bytes.Equal(want.Bytes(), same.Bytes()) {
				t.Fatalf("what is not masked has changed:\n%q\n%q", want.Bytes(), same.Bytes())
			}
			if strings.Contains(got.String(), "canary") || strings.Contains(got.String(), "424242") {
				t.Fatalf("leaks: %q", got.Bytes())
			}
			back := c.back
			if back == "" {
				back = c.with
			}
			table := fmt.Sprintf("cp.back%d", i)
			if _, err := direct.Exec(t.Context(), "create table "+table+" (like cp.people)"); err != nil {
				t.Fatal(err)
			}
			if _, err := direct.PgConn().CopyFrom(t.Context(), bytes.NewReader(got.Bytes()), "copy "+table+" from stdin "+back); err != nil {
				t.Fatalf("what was masked cannot be read again: %v\n%q", err, got.Bytes())
			}
			// in the text format these may be NULL and may be the text, in the server's own data as well: so they are masked
			ambiguous := strings.Contains(c.with, "null") && !strings.Contains(c.with, "csv")
			rows, err := direct.Query(t.Context(), "select p.id, p.email is null, b.email, p.ssn is null, b.ssn, b.age, b.extra::text, p.note is not distinct from b.note from cp.people p full join "+table+" b using (id)", pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for rows.Next() {
				var id int
				var noEmail, noSSN, sameNote bool
				var email, ssn, age, extra *string
				if err := rows.Scan(&id, &noEmail, &email, &noSSN, &ssn, &age, &extra, &sameNote); err != nil {
					t.Fatal(err)
				}
				n++
				if (email == nil) != (noEmail && !ambiguous) || email != nil && *email != nasty {
					t.Errorf("%d: email is %v", id, email)
				}
				if (ssn == nil) != (noSSN && !ambiguous) || ssn != nil && strings.Contains(*ssn, "canary") || age != nil {
					t.Errorf("%d: ssn is %v, age is %v", id, ssn, age)
				}
				if binary := strings.Contains(c.with, "binary"); extra != nil && (binary || *extra != `"****"`) {
					t.Errorf("%d: extra is %v", id, *extra)
				}
				if !sameNote && !(strings.Contains(c.with, "null as 'x'") && id == 8) {
					t.Errorf("%d: note has changed", id)
				}
			}
			if rows.Err() != nil || n != 8 {
				t.Fatal(n, rows.Err())
			}
		})
	}
	for _, r := range on.journal.all() {
		if r.Direction != core.FromClient && strings.Contains(string(r.Wire), "canary") {
			t.Errorf("in the record: %s %s", r.Kind, r.Facts)
		}
	}
}

// TestCopyEdges: no columns, no rows, columns that the server leaves out, and what cannot be told.
func TestCopyEdges(t *testing.T) {
	t.Parallel()
	const fixture = "drop schema if exists ce cascade; create schema ce; create table ce.none (); insert into ce.none default values; insert into ce.none default values; create table ce.rows (id int, email text); create table ce.made (id int, email text, twice text generated always as (email || email) stored); insert into ce.made values (1, 'canary'); create table ce.among (a text, gone int, l int generated always as (length(a)) stored, email text, u text generated always as (upper(a)) stored, z text); alter table ce.among drop column gone; insert into ce.among values ('x', default, 'canary', default, 'y'); create table ce.only (n int generated always as (1) stored); insert into ce.only values (default); create table ce.one (email text); insert into ce.one values ('\\.'), (null), ('')"
	if _, err := server.Psql(t.Context(), "postgres", fixture); err != nil {
		t.Fatal(err)
	}
	mask := masking{{Column: "email", With: "redact", Args: map[string]string{"text": `\.`}}}
	ch, err := chain.New(chain.Step{Name: "masks", Plugin: mask})
	if err != nil {
		t.Fatal(err)
	}
	g, off := startGate(t, withChain(ch)), startGate(t)
	for _, mode := range modes {
		conn, open := g.connect(mode), off.connect(mode)
		for _, c := range []struct{ sql, want, open string }{
			{"copy ce.none to stdout", "\n\n", "\n\n"},
			{"copy (select) to stdout (format csv)", "\n", "\n"},
			{"copy ce.rows to stdout", "", ""},
			{"copy ce.rows to stdout csv header", "id,email\n", "id,email\n"},
			{"copy ce.rows to stdout (format binary)", copyMagic + "\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff", copyMagic + "\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff"},
			{"copy ce.one to stdout", "\\\\.\n\\N\n\\\\.\n", "\\\\.\n\\N\n\n"},
			{"copy ce.one to stdout csv", "\"\\.\"\n\n\"\\.\"\n", "\"\\.\"\n\n\"\"\n"},
			{"copy ce.made to stdout", "1\t\\\\.\n", "1\tcanary\n"}, // what the server leaves out
			{"copy ce.made to stdout (format csv, header)", "id,email\n1,\"\\.\"\n", "id,email\n1,canary\n"},
			{"copy (table ce.made) to stdout", "1\t\\\\.\t\\\\.\n", "1\tcanary\tcanarycanary\n"},
			{"copy ce.among to stdout", "x\t\\\\.\ty\n", "x\tcanary\ty\n"},
			{"copy ce.only to stdout", "\n", "\n"},
			{"copy ce.made (id) to stdout; copy ce.made (email) to stdout", "rule copy-masked", "1\ncanary\n"},
			{"copy ce.one to stdout (encoding sjis)", "rule copy-masked", "\\\\.\n\\N\n\n"},
			{"copy ce.made (id, email) to stdout (format csv, force_quote (email))", "1,\"\\.\"\n", "1,\"canary\"\n"},
		} {
			var out, plain bytes.Buffer
			_, err := conn.PgConn().CopyTo(t.Context(), &out, c.sql)
			var pe *pgconn.PgError
			got := out.String()
			if errors.As(err, &pe) {
				got = pe.Detail
			}
			if got != c.want {
				t.Errorf("%s: %q %v, want %q", c.sql, got, err, c.want)
			}
			if _, err := open.PgConn().CopyTo(t.Context(), &plain, c.sql); err != nil || plain.String() != c.open {
				t.Errorf("%s without a guard: %q %v", c.sql, plain.String(), err)
			}
			if err := conn.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("rows are counted", func(t *testing.T) {
		g := startGate(t, func(g *testGate) { g.target.Limits.Rows = 100 })
		conn := g.connect(pgx.QueryExecModeExec)
		for _, with := range []string{"", "csv", "(format binary)"} {
			var pe *pgconn.PgError
			if _, err := conn.PgConn().CopyTo(t.Context(), &bytes.Buffer{}, "copy (select generate_series(1, 100)) to stdout "+with); err != nil {
				t.Error(with, err)
			}
			if _, err := conn.PgConn().CopyTo(t.Context(), &bytes.Buffer{}, "copy (select generate_series(1, 101)) to stdout "+with); !errors.As(err, &pe) || pe.Detail != "rule limit-rows" {
				t.Error(with, err)
			}
			if err := conn.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestCopyInPsql: \copy is COPY TO STDOUT by another name.
func TestCopyInPsql(t *testing.T) {
	t.Parallel()
	const fixture = "drop schema if exists cs cascade; create schema cs; create table cs.people (id int, email text, ssn text, age int, extra int); insert into cs.people values (1, 'canary', 'canary', 1, 1)"
	if _, err := server.Psql(t.Context(), "postgres", fixture); err != nil {
		t.Fatal(err)
	}
	for name, table := range map[string]string{"guarded": "cs.people", "open": "cs.others"} {
		g := startGate(t, withChain(copyChain(t, table)))
		host, port, _ := net.SplitHostPort(g.addr)
		for _, with := range []string{"", "csv header", "(format binary)"} {
			file := filepath.Join(t.TempDir(), "out")
			cmd := exec.CommandContext(t.Context(), server.Program("psql"), "-X", "-h", host, "-p", port, "-U", "agent", "-d", "orders", "-v", "ON_ERROR_STOP=1", "-c", `\copy cs.people to '`+file+"' "+with)
			cmd.Env = append(os.Environ(), "PGPASSWORD="+token, "PGSSLMODE=prefer", "LC_ALL=C")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			b, err := os.ReadFile(file)
			if err != nil || len(b) == 0 || bytes.Contains(b, []byte("canary")) != (name == "open") {
				t.Errorf("%s %s: %q %v", name, with, b, err)
			}
		}
	}
}

// copyStream is what an upstream says of a COPY whose payload is cut at some places.
func copyStream(binaryFormat bool, columns int, pieces ...[]byte) []byte {
	format := byte(0)
	if binaryFormat {
		format = 1
	}
	head := binary.BigEndian.AppendUint16([]byte{format}, uint16(columns))
	for range columns {
		head = binary.BigEndian.AppendUint16(head, uint16(format))
	}
	out := appendFrame(nil, 'H', head)
	for _, p := range pieces {
		out = appendFrame(out, 'd', p)
	}
	return append(append(appendFrame(out, 'c', nil), message('C', "COPY 2\x00")...), message('Z', "I")...)
}

// copyThrough carries a COPY through a connection whose upstream is a script, and returns what the client got of data.
func copyThrough(t testing.TB, plugin core.Plugin, sql string, fields []field, stream []byte, chunk int) (payload []byte, frames int, err error) {
	t.Helper()
	journal := &memory{}
	s := &core.Session{Protocol: "postgres", Target: &core.Target{Record: core.LevelFull, Limits: core.Limits{MaxFrame: 1 << 16}}}
	s.Begin(core.SessionConfig{Chain: plugin, Recorder: &memoryRecorder{m: journal}})
	client, up := &scriptConn{in: bytes.NewReader(nil)}, &scriptConn{in: bytes.NewReader(stream)}
	c := newConnection(s, protocol.reader, client, &upstream{conn: up})
	c.cut = func() {}
	c.answer.rows = -1
	script := protocol.reader.Read(context.Background(), sql)
	shape := &statement{script: script}
	shape.setShape(fields)
	c.queue.push(reply{kind: 'Q', exchange: &core.Exchange{Command: script.Command}, script: script, stmt: shape})
	for up.in.Len() > 0 {
		if chunk > 0 {
			c.server.conn = &scriptConn{in: bytes.NewReader(stream[len(stream)-up.in.Len():][:min(chunk, up.in.Len())])}
			_, _ = up.in.Seek(int64(min(chunk, up.in.Len())), 1)
		}
		if err := c.server.fill(c.answer.need); err != nil {
			break
		}
		if err = c.deliver(context.Background()); err != nil {
			break
		}
		if err = c.forward(context.Background()); err != nil {
			break
		}
	}
	out := client.out.Bytes()
	if !bytes.Equal(journal.clientBytes(), out) && err == nil {
		t.Fatalf("the record is not what the client got:\n%q\n%q", journal.clientBytes(), out)
	}
	for b := out; len(b) >= headerSize; {
		n := 1 + int(binary.BigEndian.Uint32(b[1:]))
		if b[0] == 'd' {
			payload = append(payload, b[headerSize:n]...)
			frames++
		}
		b = b[n:]
	}
	return payload, frames, err
}

// splitCases are two rows of id and email in each format, and what a mask makes of them.
func splitCases() []struct {
	name, sql    string
	binary       bool
	data, masked string
} {
	u16 := func(n int) string { return string(binary.BigEndian.AppendUint16(nil, uint16(n))) }
	value := func(s string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s }
	head, tail := copyMagic+"\x00\x00\x00\x00\x00\x00\x00\x03ext", "\xff\xff"
	return []struct {
		name, sql    string
		binary       bool
		data, masked string
	}{
		{"text", "copy t to stdout", false, "1\tca\\nn\\\\\\tary\n2\tü\\x41\\101\\\nnary\n", "1\tX\\tY\n2\tX\\tY\n"},
		{"header", "copy t to stdout (header)", false, "id\temail\n1\tcanary\n\\N\t\\N\n", "id\temail\n1\tX\\tY\n\\N\t\\N\n"},
		{"csv", "copy t to stdout csv", false, "1,\"can\n\"\"ary\"\n2,can\"a,\"ry\n", "1,X\tY\n2,X\tY\n"},
		{"escape", `copy t to stdout (format csv, escape '\', header)`, false, "id,\"email\"\n1,\"can\\\"\n\\\\ary\"\n2,\n", "id,\"email\"\n1,X\tY\n2,\n"},
		{"binary", "copy t to stdout (format binary)", true, head + u16(2) + value("0001") + value("canary") + u16(2) + value("0002") + "\xff\xff\xff\xff" + tail, head + u16(2) + value("0001") + value("X\tY") + u16(2) + value("0002") + "\xff\xff\xff\xff" + tail},
	}
}

var splitFields = []field{{name: "id", typ: 23}, {name: "email", typ: 25}}

// TestCopySplitAnywhere: an upstream may cut its data at every byte, and send it in pieces of any size.
func TestCopySplitAnywhere(t *testing.T) {
	t.Parallel()
	mask, err := chain.New(chain.Step{Name: "m", Plugin: masking{{Column: "email", With: "redact", Args: map[string]string{"text": "X\tY"}}}})
	if err != nil {
		t.Fatal(err)
	}
	other, err := chain.New(chain.Step{Name: "m", Plugin: masking{{Column: "nothing", With: "null"}}})
	if err != nil {
		t.Fatal(err)
	}
	looks, err := chain.New(chain.Step{Name: "m", Plugin: onlyLooks{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range splitCases() {
		data := []byte(c.data)
		for i := 0; i <= len(data); i++ {
			for j := i; j <= len(data); j += 3 {
				stream := copyStream(c.binary, 2, data[:i], data[i:j], data[j:])
				for _, p := range []struct {
					plugin core.Plugin
					want   string
				}{{mask, c.masked}, {other, c.data}, {looks, c.data}} {
					got, _, err := copyThrough(t, p.plugin, c.sql, splitFields, stream, 0)
					if err != nil || string(got) != p.want {
						t.Fatalf("%s cut at %d and %d: %q %v, want %q", c.name, i, j, got, err, p.want)
					}
				}
			}
		}
		var bytewise [][]byte
		for i := range data {
			bytewise = append(bytewise, data[i:i+1])
		}
		for _, chunk := range []int{1, 7, 0} {
			if got, _, err := copyThrough(t, mask, c.sql, splitFields, copyStream(c.binary, 2, bytewise...), chunk); err != nil || string(got) != c.masked {
				t.Fatalf("%s byte by byte: %q %v", c.name, got, err)
			}
		}
	}
}

// onlyLooks is a plugin that reads all cells and changes none.
type onlyLooks struct{}

func (onlyLooks) Inspect(context.Context, *core.Event) (core.Verdict, error) {
	return core.Verdict{}, nil
}

func (onlyLooks) Subscription() core.Subscription {
	return core.Subscription{Kinds: core.KindSet(core.KindRows), Columns: []string{"*"}}
}

// TestCopyHostile: data that is not what the statement asked for ends the session, and no cell gets through unread.
func TestCopyHostile(t *testing.T) {
	t.Parallel()
	mask, err := chain.New(chain.Step{Name: "m", Plugin: masking{{Column: "email", With: "redact"}}})
	if err != nil {
		t.Fatal(err)
	}
	head := copyMagic + "\x00\x00\x00\x00\x00\x00\x00\x00"
	for _, c := range []struct {
		name, sql string
		binary    bool
		columns   int
		data      string
	}{
		{"a field more", "copy t to stdout", false, 2, "1\tx\tcanary\n"},
		{"a field less", "copy t to stdout", false, 2, "canary\n"},
		{"no end", "copy t to stdout", false, 2, "1\tcanary"},
		{"quotes without end", "copy t to stdout csv", false, 2, "1,\"canary\n"},
		{"no line of names", "copy t to stdout csv header", false, 2, "1,canary\n"},
		{"other names", "copy t to stdout csv header", false, 2, "id,canary\n"},
		{"text in the place of binary", "copy t to stdout (format binary)", true, 2, "1\tcanary\n"},
		{"flags", "copy t to stdout (format binary)", true, 2, copyMagic + "\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02canary"},
		{"another number of fields", "copy t to stdout (format binary)", true, 2, head + "\x00\x01\x00\x00\x00\x06canary\xff\xff"},
		{"a length below zero", "copy t to stdout (format binary)", true, 2, head + "\x00\x02\xff\xff\xff\xfecanary"},
		{"more after the end", "copy t to stdout (format binary)", true, 2, head + "\xff\xffcanary"},
		{"ends in a value", "copy t to stdout (format binary)", true, 2, head + "\x00\x02\x00\x00\x00\x01x\x00\x00\x00\x09canary"},
		{"another format than asked for", "copy t to stdout", true, 2, head + "\x00\x02\x00\x00\x00\x01x\x00\x00\x00\x06canary\xff\xff"},
		{"another number of columns than described", "copy t to stdout", false, 1, "canary\n"},
		{"a row without end", "copy t to stdout", false, 2, "1\t" + strings.Repeat("canary", 20_000)},
	} {
		for _, cut := range []int{0, 3, len(c.data) / 2} {
			pieces := [][]byte{[]byte(c.data[:cut])}
			for rest := []byte(c.data[cut:]); len(rest) > 0; {
				n := min(len(rest), 30_000)
				pieces = append(pieces, rest[:n])
				rest = rest[n:]
			}
			got, _, _ := copyThrough(t, mask, c.sql, splitFields, copyStream(c.binary, c.columns, pieces...), 0)
			if strings.Contains(string(got), "can") {
				t.Errorf("%s: %.100q", c.name, got)
			}
		}
	}
	t.Run("data without a COPY", func(t *testing.T) {
		if got, _, err := copyThrough(t, mask, "select 1", splitFields, message('d', "canary\n"), 0); err == nil || len(got) > 0 {
			t.Errorf("%q %v", got, err)
		}
	})
	t.Run("rows within a COPY", func(t *testing.T) {
		stream := copyStream(false, 2, []byte("1\tcanary\n"))
		stream = append(stream[:len(stream)-len(message('c', ""))-len(message('C', "COPY 2\x00"))-len(message('Z', "I"))], message('D', "\x00\x02\x00\x00\x00\x011\x00\x00\x00\x06canary")...)
		if got, _, _ := copyThrough(t, mask, "copy t to stdout", splitFields, append(stream, message('d', "2\tcanary\n")...), 0); strings.Contains(string(got), "canary") {
			t.Errorf("%q", got)
		}
	})
}

// counting counts events.
type counting struct {
	kinds map[core.Kind]int
	rows  int
}

func (c *counting) Inspect(_ context.Context, e *core.Event) (core.Verdict, error) {
	c.kinds[e.Kind]++
	if e.Kind == core.KindRows {
		c.rows += e.Rows.Rows
	}
	return core.Verdict{}, nil
}

// TestCopyIsFewEvents: what one read brings is one event, both ways.
func TestCopyIsFewEvents(t *testing.T) {
	t.Parallel()
	var pieces [][]byte
	for i := range 2000 {
		pieces = append(pieces, fmt.Appendf(nil, "%d\tx\n", i))
	}
	seen := &counting{kinds: map[core.Kind]int{}}
	stream := copyStream(false, 2, pieces...)
	got, n, err := copyThrough(t, seen, "copy t to stdout", splitFields, stream, 0)
	if err != nil || n != 2000 || !bytes.Equal(got, bytes.Join(pieces, nil)) || seen.rows != 2000 || seen.kinds[core.KindRows] > 10 || seen.kinds[core.KindBytes] > 0 {
		t.Fatal(n, err, seen)
	}
	for _, change := range []bool{false, true} {
		var ask []byte
		for range 500 {
			ask = append(ask, message('d', "line\n")...)
		}
		ask = append(ask, message('c', "")...)
		in := &rewriting{change: change}
		l := newLoop(in, ask, nil)
		l.c.request.copying = &core.Exchange{Command: &core.Command{Status: core.StatusKnown}}
		for l.client.in.Reset(ask); l.client.in.Len() > 0; {
			if err := l.c.client.fill(0); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(l.c.handle(t.Context()), l.c.ask(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
		want := ask
		var sent []byte
		if change {
			want = []byte(strings.Repeat("LINE!\n", 500))
			for b := l.server.out.Bytes(); len(b) > 0; {
				n := 1 + int(binary.BigEndian.Uint32(b[1:]))
				if b[0] == 'd' {
					sent = append(sent, b[headerSize:n]...)
				}
				b = b[n:]
			}
		} else {
			sent = l.server.out.Bytes()
		}
		if !bytes.Equal(sent, want) || in.events > 5 || in.events == 0 {
			t.Errorf("%d events, %d bytes of %d", in.events, len(sent), len(want))
		}
	}
}

type rewriting struct {
	change bool
	events int
}

func (r *rewriting) Inspect(_ context.Context, e *core.Event) (v core.Verdict, err error) {
	if e.Kind == core.KindBytes {
		r.events++
		if r.change {
			e.Bytes = bytes.ReplaceAll(e.Bytes, []byte("line"), []byte("LINE!"))
			v.Changed = true
		}
	}
	return v, nil
}

// TestOtherChannels: what a function returns by its OID, and settings that a function has changed.
func TestOtherChannels(t *testing.T) {
	t.Parallel()
	const fixture = `drop schema if exists oc cascade; create schema oc; create table oc.people (email text); insert into oc.people values ('canary');
create function oc.tell() returns text language sql as 'select email from oc.people';
create function oc.set(name text) returns void language plpgsql as $$ begin perform set_config(name, (select email from oc.people) || case when name = 'TimeZone' then '5' else '' end, false); end $$;`
	if _, err := server.Psql(t.Context(), "postgres", fixture); err != nil {
		t.Fatal(err)
	}
	for name, column := range map[string]string{"guarded": "oc.people.email", "open": ""} {
		var ch core.Plugin
		if column != "" {
			ch = maskingChain(t, column)
		}
		g := startGate(t, withChain(ch), func(g *testGate) { g.target.AllowIncomplete = true })
		conn := g.connect(pgx.QueryExecModeExec)
		var oid uint32
		if err := conn.QueryRow(t.Context(), "select 'oc.tell'::regproc::oid").Scan(&oid); err != nil {
			t.Fatal(err)
		}
		r := g.dial()
		r.signIn()
		call := binary.BigEndian.AppendUint32(nil, oid)
		r.send(append(message('F', string(call)+"\x00\x00\x00\x00\x00\x00"), message('X', "")...))
		out := r.rest()
		if strings.Contains(out, "canary") != (name == "open") || strings.Contains(out, "rule function-masked") != (name == "guarded") {
			t.Errorf("%s: a function's result: %q", name, out)
		}
		r = g.dial() // lo_creat returns a number
		r.signIn()
		r.send(append(message('F', "\x00\x00\x03\xbd\x00\x00\x00\x01\x00\x00\x00\x040006\x00\x00"), message('X', "")...))
		if out := r.rest(); !strings.Contains(out, "V\x00") {
			t.Errorf("%s: lo_creat: %q", name, out)
		}
		for _, setting := range []string{"application_name", "TimeZone"} {
			if _, err := conn.Exec(t.Context(), "select oc.set('"+setting+"')"); err != nil {
				t.Fatal(err)
			}
			if got := strings.ToLower(conn.PgConn().ParameterStatus(setting)); strings.Contains(got, "canary") != (name == "open") {
				t.Errorf("%s: %s is %q", name, setting, got)
			}
		}
		for setting, value := range map[string]string{"application_name": "mine", "TimeZone": "Europe/Berlin"} {
			if _, err := conn.Exec(t.Context(), "set "+setting+" = '"+value+"'"); err != nil || conn.PgConn().ParameterStatus(setting) != value {
				t.Errorf("%s: %s is %q, %v", name, setting, conn.PgConn().ParameterStatus(setting), err)
			}
		}
		if strings.Contains(g.journal.text(), `"message":"canary`) && name == "guarded" {
			t.Error("a setting is in the record")
		}
	}
}

// meddling is a plugin that changes cells, in place and not, into what has to be escaped.
type meddling struct{}

func (meddling) Inspect(_ context.Context, e *core.Event) (v core.Verdict, err error) {
	for i := range e.Rows.Cells {
		switch value, ok := e.Rows.Value(i); {
		case !ok:
			e.Rows.Set(i, []byte("was\tnull"))
		case len(value) == 3:
			e.Rows.Set(i, []byte("\t,\n"))
		default:
			e.Rows.Set(i, nil)
		}
		v.Changed = true
	}
	return v, nil
}

func (meddling) Subscription() core.Subscription {
	return core.Subscription{Kinds: core.KindSet(core.KindRows), Columns: []string{"email"}}
}

// TestCopyPlugins: a plugin sees and changes the cells of a COPY as it does those of a SELECT.
func TestCopyPlugins(t *testing.T) {
	t.Parallel()
	ch, err := chain.New(chain.Step{Name: "p", Plugin: meddling{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ sql, data, want string }{
		{"copy t to stdout", "1\tabc\n2\t\\N\n3\tx\\ty\n4\tlonger\n", "1\t\\t,\\n\n2\twas\\tnull\n3\t\\t,\\n\n4\t\\N\n"},
		{"copy t to stdout csv", "1,abc\n2,\n3,\"x,y\"\n4,longer\n", "1,\"\t,\n\"\n2,was\tnull\n3,\"\t,\n\"\n4,\n"},
	} {
		if got, _, err := copyThrough(t, ch, c.sql, splitFields, copyStream(false, 2, []byte(c.data)), 0); err != nil || string(got) != c.want {
			t.Errorf("%s: %q %v, want %q", c.sql, got, err, c.want)
		}
	}
}

// TestCopyExtended: a COPY that is prepared by the protocol, again under a name that had another meaning.
func TestCopyExtended(t *testing.T) {
	t.Parallel()
	const fixture = "drop schema if exists cx cascade; create schema cx; create table cx.people (id int, email text); insert into cx.people values (1, 'canary'); create table cx.other (email text, id int); insert into cx.other values ('seen', 2)"
	if _, err := server.Psql(t.Context(), "postgres", fixture); err != nil {
		t.Fatal(err)
	}
	for name, table := range map[string]string{"guarded": "cx.people", "open": "cx.nothing"} {
		g := startGate(t, withChain(copyChain(t, table)))
		r := g.dial()
		r.signIn()
		run := func(statement string) []byte {
			return frames(message('B', "\x00"+statement+"\x00\x00\x00\x00\x00\x00\x00"), message('E', "\x00\x00\x00\x00\x00"), message('S', ""))
		}
		ask := frames(
			message('P', "\x00copy cx.people to stdout\x00\x00\x00"), run(""), // unnamed
			message('P', "n\x00copy cx.other to stdout csv\x00\x00\x00"), run("n"),
			message('C', "Sn\x00"), message('P', "n\x00copy cx.people to stdout csv\x00\x00\x00"), run("n"), run("n"),
			message('P', "n\x00copy cx.other to stdout\x00\x00\x00"), message('S', ""), run("n"), // the name is taken
		)
		r.send(append(ask, message('X', "")...))
		out := r.rest()
		if strings.Contains(out, "canary") != (name == "open") || !strings.Contains(out, "seen,2\n") || name == "open" && strings.Count(out, "1,canary\n") != 2 {
			t.Errorf("%s: %q", name, out)
		}
		// When the last one was asked for, the name could have meant either, and Weir has asked about the other.
		if strings.Count(out, "rule copy-masked") != 1 || name == "guarded" && strings.Count(out, "1,\"a\tb") != 2 {
			t.Errorf("%s: %q", name, out)
		}
	}
}
