package index

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// memory is a store without a disk.
type memory map[string][]core.Block

func (m memory) Put(context.Context, []core.Block) error { return nil }
func (m memory) Close() error                            { return nil }

func (m memory) Sessions(_ context.Context, f func(string) error) error {
	for id := range m {
		if err := f(id); err != nil {
			return err
		}
	}
	return nil
}

func (m memory) Blocks(_ context.Context, id string, f func(core.Block) error) error {
	if len(m[id]) == 0 {
		return core.ErrNoSession
	}
	for _, b := range m[id] {
		if err := f(b); err != nil {
			return err
		}
	}
	return nil
}

// lines is a protocol whose rows are lines, with their values between bars.
type lines struct{}

func (lines) ReadText(b []byte) string { return string(b) }

func (lines) ReadRows(_ []core.Column, wire []byte) (out [][]*string, _ error) {
	for row := range strings.SplitSeq(string(wire), "\n") {
		var cells []*string
		for v := range strings.SplitSeq(row, "|") {
			cells = append(cells, &v)
		}
		out = append(out, cells)
	}
	return out, nil
}

func readers(string) core.Reader { return lines{} }

// conversation makes the blocks of a session.
type conversation struct {
	id      string
	at      time.Time
	enc     *ledger.Encoder
	payload []byte
	next    uint64
}

func begin(enc *ledger.Encoder, id, who string, at time.Time) *conversation {
	c := &conversation{id: id, at: at, enc: enc}
	c.record(core.KindOpen, fmt.Sprintf(`{"session":%q,"run":"r-%s","identity":{"subject":%q,"issuer":"i","groups":[],"kind":"agent"},"target":"orders","protocol":"lines"}`, id, who, who), "")
	return c
}

func (c *conversation) record(k core.Kind, facts, wire string) {
	c.at = c.at.Add(time.Millisecond)
	r := core.Record{Seq: c.next, Time: c.at, Kind: k, Direction: core.FromClient, Facts: []byte(facts), Wire: []byte(wire)}
	c.payload = ledger.AppendPiece(c.payload, ledger.AppendRecord(nil, &r, 0, nil), false)
	c.next++
}

func (c *conversation) command(text, table, use, more string) {
	c.record(core.KindCommand, fmt.Sprintf(`{"command":{"action":"x","text":%q,"effects":[],"resources":[{"kind":"table","name":%q,"use":[%q]}],"where":true,"status":"known"}%s}`, text, table, use, more), "")
}

func (c *conversation) answer(rows string) {
	c.record(core.KindRows, `{"rows":1}`, rows)
}

// end seals the session.
func (c *conversation) end(tb testing.TB) []core.Block {
	tb.Helper()
	var prev [32]byte
	h := core.BlockHeader{Session: c.id, LastSeq: c.next - 1}
	b, err := c.enc.Encode(h, 0, c.payload)
	if err != nil {
		tb.Fatal(err)
	}
	prev = b.Hash
	seal := ledger.AppendSeal(nil, ledger.Seal{End: core.EndClosed, Records: c.next, Blocks: 2, Root: prev, Time: c.at})
	s, err := c.enc.Encode(core.BlockHeader{Session: c.id, Number: 1, FirstSeq: c.next, LastSeq: c.next - 1, Prev: prev, Seal: true}, 0, seal)
	if err != nil {
		tb.Fatal(err)
	}
	return []core.Block{b, s}
}

func mustOpen(tb testing.TB, path string) *Index {
	tb.Helper()
	x, err := Open(path, false)
	return opened(tb, x, err)
}

func opened(tb testing.TB, x *Index, err error) *Index {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { x.Close() })
	x.Read(readers)
	return x
}

// kinds runs a test on each kind of index; open opens the same one, as often as it is called.
func kinds(t *testing.T, f func(t *testing.T, open func() *Index)) {
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "index.db")
		f(t, func() *Index { return mustOpen(t, path) })
	})
	t.Run("postgres", func(t *testing.T) {
		o := database(t)
		f(t, func() *Index {
			x, err := OpenPostgres(t.Context(), o, false)
			return opened(t, x, err)
		})
	})
}

func found(tb testing.TB, x *Index, q Query) string {
	tb.Helper()
	list, err := x.Sessions(context.Background(), q)
	if err != nil {
		tb.Fatal(err)
	}
	var ids []string
	for _, s := range list {
		ids = append(ids, s.ID)
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func fill(tb testing.TB, x *Index) memory {
	tb.Helper()
	enc := ledger.NewEncoder()
	m := memory{}
	a := begin(enc, "a", "alice", noon)
	a.command("SELECT * FROM orders", "public.orders", "read", "")
	a.answer("7|blue kettle|ana@mail.example.com|2026-11-20")
	a.command("INSERT INTO orders VALUES ($1)", "public.orders", "write", `,"params":["silver whisk","42",null,{"hex":"00"}]`)
	b := begin(enc, "b", "bob", noon.Add(time.Minute))
	b.command("UPDATE orders SET total = 1", "orders", "write", `,"denied":{"step":"g","rule":"r"}`)
	b.record(core.KindRows, `{"rows":1,"denied":{"step":"g","rule":"r"}}`, "unseen teapot")
	b.command("SELECT kettle FROM shop", "shop.orders", "read", "")
	b.record(core.KindResult, `{"result":{"status":"error","tag":"","message":"the Grüne column is missing"}}`, "")
	c := begin(enc, "c", "carol", noon.Add(2*time.Minute))
	c.record(core.KindCommand, `{"command":{"action":"x","text":"DELETE FROM orders","resources":[{"kind":"table","name":"orders","use":["write"]}]},"stage":"prepare"}`, "")
	c.command("DELETE FROM orders WHERE id = 1", "orders", "write", "")
	for _, s := range []*conversation{a, b, c} {
		m[s.id] = s.end(tb)
		if err := x.Add(context.Background(), m, m[s.id]); err != nil {
			tb.Fatal(err)
		}
	}
	return m
}

var questions = []struct {
	q    Query
	want string
}{
	{Query{}, "a b c"},
	{Query{Grep: "FROM ord"}, "a c"},
	{Query{Grep: "kettle"}, "a b"},    // an answer there, a command here
	{Query{Grep: "Blue Kettle"}, "a"}, // both words, as one value
	{Query{Grep: "ett"}, "b"},         // a piece of a word: of commands only
	{Query{Grep: "ana@mail.example.com"}, "a"},
	{Query{Grep: "mail.example.com"}, "a"}, // a word's end from a joint on
	{Query{Grep: "example.com"}, "a"},
	{Query{Grep: "bob@mail.example.com"}, ""}, // its parts are there, it is not
	{Query{Grep: "2026-11-20"}, "a"},
	{Query{Grep: "silver whisk"}, "a"}, // a parameter
	{Query{Grep: "teapot"}, ""},        // never reached the client
	{Query{Grep: "grüne"}, "b"},        // an error's text
	{Query{Grep: `"`}, ""},
	{Query{Grep: `" OR "x`}, ""},
	{Query{Grep: "%"}, ""},
	{Query{Grep: "42"}, "a"},
	{Query{Resource: "public.orders"}, "a c"}, // c said no schema: it may be this one
	{Query{Resource: "shop.orders"}, "b c"},
	{Query{Resource: "orders"}, "a b c"},
	{Query{Resource: "orders", Use: "write"}, "a c"}, // b's was refused
	{Query{Use: "write", Identity: "carol"}, "c"},
	{Query{Resource: "payments"}, ""},
}

func TestQuestions(t *testing.T) {
	kinds(t, func(t *testing.T, open func() *Index) { questionsOf(t, open(), open()) })
}

// questionsOf asks an index that two processes have open.
func questionsOf(t *testing.T, x, other *Index) {
	m := fill(t, x)
	ask := func(x *Index, when string) {
		t.Helper()
		for _, tt := range questions {
			if got := found(t, x, tt.q); got != tt.want {
				t.Errorf("%s: %+v: %q, want %q", when, tt.q, got, tt.want)
			}
		}
		touches, err := x.Touches(t.Context(), Query{Resource: "orders", Use: "write", Limit: 1})
		if err != nil || len(touches) != 1 || touches[0].Session != "c" || touches[0].Record != 2 || touches[0].Identity != "carol" || touches[0].Resource != "orders" {
			t.Errorf("%s: the final write: %+v, %v", when, touches, err)
		}
		touches, err = x.Touches(t.Context(), Query{Resource: "orders", Identity: "alice"})
		if err != nil || len(touches) != 2 || touches[0].Use != "write" || touches[1].Use != "read" || touches[1].Resource != "public.orders" {
			t.Errorf("%s: alice's: %+v, %v", when, touches, err)
		}
	}
	ask(x, "added")
	// Beside a gateway: a rebuild by another process changes nothing, and what the gateway adds then is there.
	for range 2 {
		if err := other.Rebuild(t.Context(), m, nil); err != nil {
			t.Fatal(err)
		}
	}
	ask(x, "rebuilt")
	// What the archive has no more is forgotten, and not a word of it is left in the file.
	delete(m, "a")
	if err := other.Rebuild(t.Context(), m, nil); err != nil {
		t.Fatal(err)
	}
	if got := found(t, x, Query{}); got != "b c" {
		t.Errorf("without a: %q", got)
	}
	d := begin(ledger.NewEncoder(), "d", "dora", noon.Add(time.Hour))
	d.command("SELECT * FROM orders", "public.orders", "read", "") // a text that this process knew the number of
	m["d"] = d.end(t)
	if err := x.Add(t.Context(), m, m["d"]); err != nil {
		t.Fatal(err)
	}
	if got := found(t, x, Query{Grep: "* FROM orders"}); got != "d" {
		t.Errorf("a text that came back: %q", got)
	}
	if got := found(t, x, Query{Resource: "public.orders", Use: "read"}); got != "d" {
		t.Errorf("a resource that came back: %q", got)
	}
}

// Not a word of what the archive has no more is left in the file.
func TestForgotten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	x, other := mustOpen(t, path), mustOpen(t, path)
	questionsOf(t, x, other)
	for _, db := range []*Index{x, other} {
		db.Close()
	}
	for _, n := range []string{path, path + "-wal"} {
		if b, err := os.ReadFile(n); err == nil {
			for _, word := range []string{"kettle|", "whisk", "mail.example"} {
				if strings.Contains(string(b), word) {
					t.Errorf("%s still holds %q", filepath.Base(n), word)
				}
			}
		}
	}
}

// A session that says more than is indexed is found by what it said first, and costs no more than the bound.
func TestBounds(t *testing.T) {
	kinds(t, func(t *testing.T, open func() *Index) { bounds(t, open()) })
}

func bounds(t *testing.T, x *Index) {
	c := begin(ledger.NewEncoder(), "big", "alice", noon)
	c.command("SELECT 1", "t", "read", "")
	for i := range 2 * maxWords {
		c.answer(fmt.Sprintf("word%05d|%s", i, strings.Repeat("x", maxWord+1)))
	}
	if err := x.Add(t.Context(), memory{}, c.end(t)); err != nil {
		t.Fatal(err)
	}
	for word, want := range map[string]string{"word00000": "big", fmt.Sprintf("word%05d", 2*maxWords-1): "", strings.Repeat("x", maxWord+1): ""} {
		if got := found(t, x, Query{Grep: word}); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

// An index of an earlier version is emptied when it is opened for writing, says so, and is whole after a rebuild.
func TestEarlierVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`CREATE TABLE sessions (id TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO sessions VALUES ('old');
		CREATE TABLE texts (id INTEGER PRIMARY KEY, sha BLOB, body TEXT); CREATE TABLE uses (session TEXT, text INTEGER);
		CREATE VIRTUAL TABLE words USING fts5(body, content='texts', content_rowid='id', tokenize='trigram'); PRAGMA user_version=1;`); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := Open(path, true); err == nil || !strings.Contains(err.Error(), "weir index rebuild") {
		t.Fatalf("read-only: %v", err)
	}
	m := fill(t, mustOpen(t, filepath.Join(t.TempDir(), "other.db")))
	x := mustOpen(t, path)
	if was, stale, err := x.Stale(t.Context()); err != nil || !stale || was != 1 {
		t.Fatalf("stale %v of version %d, %v", stale, was, err)
	}
	n := 0
	if err := x.Rebuild(t.Context(), m, func(done int) { n = done }); err != nil || n != 3 {
		t.Fatalf("%d sessions, %v", n, err)
	}
	if _, stale, err := x.Stale(t.Context()); err != nil || stale {
		t.Fatalf("still stale: %v", err)
	}
	for _, tt := range questions {
		if got := found(t, x, tt.q); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.q, got, tt.want)
		}
	}
	if _, err := x.db.Exec("PRAGMA user_version=99"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, false); err == nil || !strings.Contains(err.Error(), "later build") {
		t.Fatalf("of a later build: %v", err)
	}
}

var many = flag.Int("sessions", 2000, "how many sessions TestQuick asks about")

// TestQuick asks an index of many sessions; the answer has to come within 100 ms.
func TestQuick(t *testing.T) {
	kinds(t, func(t *testing.T, open func() *Index) { quick(t, open()) })
}

func quick(t *testing.T, x *Index) {
	enc := ledger.NewEncoder()
	var batch []core.Block
	start := time.Now()
	for i := range *many {
		c := begin(enc, fmt.Sprintf("s%07d", i), fmt.Sprintf("agent-%d", i%97), noon.Add(time.Duration(i)*time.Second))
		c.command("SELECT id, item, total FROM orders WHERE customer_id = $1", "public.orders", "read", fmt.Sprintf(`,"params":["%d"]`, i))
		for k := range 3 {
			c.answer(fmt.Sprintf("%d|item %d|%d.90|customer-%d@example.com", 3*i+k, (i+k)%5000, i%100, i+k))
		}
		c.command(fmt.Sprintf("UPDATE orders SET total = %d.50 WHERE id = %d", i%90, i), "public.orders", "write", "")
		c.command(fmt.Sprintf("SELECT note FROM payments WHERE id = %d", i%1000), "public.payments", "read", "")
		if i == 3**many/4 {
			c.command("DELETE FROM ledger_entries WHERE note = 'unique zebra'", "public.ledger_entries", "write", "")
		}
		if batch = append(batch, c.end(t)...); len(batch) >= 512 || i == *many-1 {
			if err := x.Add(t.Context(), memory{}, batch); err != nil {
				t.Fatal(err)
			}
			batch = batch[:0]
		}
	}
	var bytes int64
	size := "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
	if _, is := x.d.(postgres); is {
		size = "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c WHERE c.relnamespace = 'weir_index'::regnamespace AND c.relkind = 'r'"
		if _, err := x.db.Exec("ANALYZE"); err != nil { // as autovacuum does within a minute
			t.Fatal(err)
		}
	}
	if err := x.db.QueryRow(size).Scan(&bytes); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d sessions in %v, %d bytes each", *many, time.Since(start).Round(time.Millisecond), bytes/int64(*many))
	one := *many / 2
	for _, tt := range []struct {
		what string
		q    Query
		want int // at least
	}{
		{"nothing asked", Query{}, 1000},
		{"a rare text", Query{Grep: "unique zebra"}, 1},
		{"a rare text of common letters", Query{Grep: fmt.Sprintf("WHERE id = %d", one)}, 1},
		{"a text of every session", Query{Grep: "select"}, 1000},
		{"two letters", Query{Grep: "or"}, 1000},
		{"a value that came back once", Query{Grep: fmt.Sprintf("customer-%d@example.com", one)}, 1},
		{"a value of every session", Query{Grep: "example.com"}, 1000},
		{"nowhere", Query{Grep: "nowhere to be found"}, 0},
		{"a common text of nobody", Query{Grep: "select", Identity: "nobody"}, 0},
		{"a common text, refused", Query{Grep: "select", Denied: true}, 0},
		{"a text of one identity", Query{Grep: "update orders", Identity: "agent-7"}, *many / 100},
		{"a resource of every session", Query{Resource: "public.orders", Use: "write"}, 1000},
		{"a resource of one", Query{Resource: "ledger_entries"}, 1},
		{"a resource nobody touched so", Query{Resource: "payments", Use: "write"}, 0},
	} {
		best := time.Hour
		n := 0
		for range 3 {
			at := time.Now()
			list, err := x.Sessions(t.Context(), tt.q)
			if err != nil {
				t.Fatal(err)
			}
			best, n = min(best, time.Since(at)), len(list)
		}
		t.Logf("%8.2f ms  %4d found  %s", best.Seconds()*1000, n, tt.what)
		if n < min(tt.want, 1000) || tt.want == 0 && n > 0 {
			t.Errorf("%s: %d sessions, want %d", tt.what, n, tt.want)
		}
		if best > 100*time.Millisecond {
			t.Errorf("%s took %v", tt.what, best)
		}
	}
	at := time.Now()
	last, err := x.Touches(t.Context(), Query{Resource: "public.orders", Use: "write", Limit: 1})
	if took := time.Since(at); err != nil || len(last) != 1 || last[0].Session != fmt.Sprintf("s%07d", *many-1) || took > 100*time.Millisecond {
		t.Errorf("the final write: %+v, %v, after %v", last, err, took)
	}
	t.Logf("%8.2f ms  the final write", time.Since(at).Seconds()*1000)
}

// TestHungWriter: a process that was stopped in the middle of a session, and goes on when another has taken the session to its end,
// puts nothing back.
func TestHungWriter(t *testing.T) {
	kinds(t, func(t *testing.T, open func() *Index) { hungWriter(t, open(), open()) })
}

func hungWriter(t *testing.T, hung, other *Index) {
	enc := ledger.NewEncoder()
	c := begin(enc, "a", "alice", noon)
	c.command("SELECT first", "orders", "read", "")
	var blocks []core.Block
	put := func(first uint64, seal bool) {
		h := core.BlockHeader{Session: c.id, Number: uint64(len(blocks)), FirstSeq: first, LastSeq: c.next - 1, Seal: seal}
		if len(blocks) > 0 {
			h.Prev = blocks[len(blocks)-1].Hash
		}
		b, err := enc.Encode(h, 0, c.payload)
		if err != nil {
			t.Fatal(err)
		}
		blocks, c.payload = append(blocks, b), nil
	}
	put(0, false)
	second := c.next
	c.command("SELECT second", "orders", "read", "")
	put(second, false)
	c.payload = ledger.AppendSeal(nil, ledger.Seal{End: core.EndCrash, Records: c.next, Blocks: 3, Root: blocks[1].Hash, Time: c.at})
	put(c.next, true)
	m := memory{c.id: blocks}
	add := func(x *Index, b []core.Block) {
		t.Helper()
		if err := x.Add(context.Background(), m, b); err != nil {
			t.Fatal(err)
		}
	}
	add(hung, blocks[:1])
	add(other, blocks)
	want := row(t, other, c.id)
	if want.End != string(core.EndCrash) || want.Commands != 2 {
		t.Fatalf("the session's end is not in the index: %+v", want)
	}
	add(hung, blocks[1:2])
	if got := row(t, other, c.id); !reflect.DeepEqual(got, want) {
		t.Errorf("the process that hung made of %+v\n%+v", want, got)
	}
}

func row(t *testing.T, x *Index, id string) Session {
	t.Helper()
	s, err := x.Session(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
