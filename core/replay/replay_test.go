package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// shelf is a store in memory.
type shelf struct {
	mu     sync.Mutex
	blocks []core.Block
}

func (s *shelf) Put(_ context.Context, b []core.Block) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocks = append(s.blocks, b...)
	return nil
}
func (s *shelf) Close() error                                              { return nil }
func (s *shelf) Sessions(_ context.Context, f func(id string) error) error { return f("s1") }

func (s *shelf) Blocks(_ context.Context, id string, f func(core.Block) error) error {
	s.mu.Lock()
	blocks := append([]core.Block(nil), s.blocks...)
	s.mu.Unlock()
	if id != "s1" || len(blocks) == 0 {
		return core.ErrNoSession
	}
	for _, b := range blocks {
		own := b
		own.Bytes = bytes.Clone(b.Bytes)
		err := f(own)
		clear(own.Bytes) // the bytes are valid during f only
		if err != nil {
			return err
		}
	}
	return nil
}

var begin = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// pack puts records into blocks of three, and cuts one record in two.
func pack(t *testing.T, s *shelf, records []core.Record, end core.End) {
	t.Helper()
	enc := ledger.NewEncoder()
	var (
		prev   [32]byte
		number uint64
		carry  uint64
		first  uint64
	)
	put := func(p []byte, h core.BlockHeader) {
		h.Session, h.Number, h.Prev = "s1", number, prev
		b, err := enc.Encode(h, carry, p)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(context.Background(), []core.Block{b}); err != nil {
			t.Fatal(err)
		}
		prev = b.Hash
		number++
	}
	var p []byte
	for i := range records {
		r := &records[i]
		r.Seq = uint64(i)
		if r.Time.IsZero() {
			r.Time = begin.Add(time.Duration(i) * 10 * time.Millisecond)
		}
		b := ledger.AppendRecord(nil, r, 0, nil)
		if i == 4 {
			p = ledger.AppendPiece(p, b[:7], true)
			put(p, core.BlockHeader{FirstSeq: first, LastSeq: uint64(i)})
			carry, first = 7, uint64(i)+1
			p = ledger.AppendPiece(nil, b[7:], false)
			continue
		}
		p = ledger.AppendPiece(p, b, false)
		if i%3 == 2 {
			put(p, core.BlockHeader{FirstSeq: first, LastSeq: uint64(i)})
			carry, first, p = 0, uint64(i)+1, nil
		}
	}
	last := uint64(len(records)) - 1
	if end == "" {
		put(p, core.BlockHeader{FirstSeq: first, LastSeq: last})
		return
	}
	p = ledger.AppendSeal(p, ledger.Seal{End: end, Records: last + 1, Blocks: number + 1, Root: prev, Time: begin.Add(time.Minute)})
	put(p, core.BlockHeader{FirstSeq: first, LastSeq: last, Seal: true})
}

func rec(k core.Kind, d core.Direction, facts, wire string, decisions ...core.Decision) core.Record {
	return core.Record{Kind: k, Direction: d, Facts: []byte(facts), Wire: []byte(wire), Decisions: decisions}
}

func conversation() []core.Record {
	return []core.Record{
		rec(core.KindOpen, core.FromClient, `{"session":"s1","run":"r9","identity":{"subject":"agent-7","issuer":"corp","groups":["analysts"],"kind":"agent"},"target":"orders","protocol":"postgres","client":"10.0.0.7:5","user":"app","tls":true,"gateway":"gw1","boot":"b","record":"full","promise":"strict"}`, ""),
		rec(core.KindCommand, core.FromClient, `{"command":{"action":"select","text":"SELECT id,\n  email\u001b[2J FROM users\u202e","effects":["read"],"resources":[],"status":"known"},"params":["7",null]}`, "Q"),
		rec(core.KindColumns, core.FromUpstream, `{"columns":[{"name":"id","type":"int4"},{"name":"email","type":"text"}]}`, "T", core.Decision{Step: "pii", Action: "mask", Rule: "no-email", Detail: "email: partial"}),
		rec(core.KindRows, core.FromUpstream, `{"rows":2}`, "1|a***\n2|-\n"),
		rec(core.KindRows, core.FromUpstream, `{"rows":1}`, "3|\x1b]0;evil\x07\n"),
		rec(core.KindResult, core.FromUpstream, `{"result":{"status":"ok","tag":"SELECT 3","rows":3}}`, "C"),
		rec(core.KindCommand, core.FromClient, `{"command":{"action":"drop","text":"DROP TABLE users","effects":["ddl"],"resources":[],"status":"known"},"denied":{"step":"guardrails","rule":"no-ddl","reason":"schema changes go through migrations","hint":"open a migration"}}`, "Q", core.Decision{Step: "guardrails", Action: "deny", Rule: "no-ddl"}),
		rec(core.KindCommand, core.FromClient, `{"command":{"action":"select","text":"SELECT 1/0","effects":["read"],"resources":[],"status":"known"}}`, "Q"),
		rec(core.KindResult, core.FromUpstream, `{"result":{"status":"error","code":"22012","message":"division by zero"}}`, "E"),
		rec(core.KindClose, core.FromGateway, `{"end":"closed","reason":"client","totals":{"commands":3,"rows":3,"bytes":9,"denied":1}}`, ""),
	}
}

// pipes reads rows like "1|a".
type pipes struct{}

func (pipes) ReadRows(_ []core.Column, wire []byte) (out [][]*string, err error) {
	for l := range strings.Lines(string(wire)) {
		var row []*string
		for _, v := range strings.Split(strings.TrimSuffix(l, "\n"), "|") {
			if v == "-" {
				row = append(row, nil)
			} else {
				row = append(row, &v)
			}
		}
		out = append(out, row)
	}
	return out, nil
}

func (pipes) ReadText(wire []byte) string { return string(wire) }

func TestShow(t *testing.T) {
	s := &shelf{}
	pack(t, s, conversation(), core.EndClosed)
	var out strings.Builder
	if err := Show(context.Background(), &out, s, "s1", Options{}); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	for _, want := range []string{
		"session   s1\n", "identity  agent-7 (agent), groups analysts\n", "run       r9\n", "target    orders (postgres)\n",
		"client    10.0.0.7:5 as app, TLS\n", "recorded  full, promise strict\n",
		`     1        +10ms  client    [read] SELECT id, email\x1b[2J FROM users\u202e  ← "7", null` + "\n",
		"  columns id, email  {mask email: partial (pii: no-email)}\n",
		"     4        +40ms  upstream    3 rows\n",
		"upstream    SELECT 3\n",
		"client    DENIED [ddl] DROP TABLE users\n", "by rule no-ddl (guardrails): schema changes go through migrations; hint: open a migration\n",
		"error 22012: division by zero\n",
		"end closed: client (3 commands, 3 rows, 1 denied)\n",
		"sealed 2026-11-23T10:01:00Z as closed: 10 records in 5 blocks\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing: %q", want)
		}
	}
	if i := strings.IndexFunc(got, func(r rune) bool { return r != '\n' && r < 0x20 || r == 0x202e }); i >= 0 {
		t.Errorf("a control character in the listing at %d", i)
	}
	if t.Failed() {
		t.Log("\n" + got)
	}
}

func TestText(t *testing.T) {
	s := &shelf{}
	pack(t, s, conversation(), core.EndClosed)
	var out strings.Builder
	if err := Text(context.Background(), &out, s, "s1", Options{Reader: pipes{}}); err != nil {
		t.Fatal(err)
	}
	want := `-- 2026-11-23T10:00:00Z: agent-7 at orders (postgres)
> SELECT id,
    email\x1b[2J FROM users\u202e
 id | email
----+-------
 1  | a***
 2  | NULL
 3  | \x1b]0;evil\x07
SELECT 3
> DROP TABLE users
DENIED by rule no-ddl (guardrails): schema changes go through migrations; hint: open a migration
> SELECT 1/0
error 22012: division by zero
-- 2026-11-23T10:00:00Z: closed: client
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	if err := Text(context.Background(), &out, s, "s1", Options{}); err != nil || !strings.Contains(out.String(), "(2 rows)\n(1 row)\n") {
		t.Errorf("without a reader: %v\n%s", err, out.String())
	}
}

func TestSpeed(t *testing.T) {
	s := &shelf{}
	pack(t, s, conversation(), core.EndClosed) // 90 ms
	for _, tt := range []struct {
		o        Options
		from, to time.Duration
	}{{Options{}, 0, 60 * time.Millisecond}, {Options{Speed: 1}, 85 * time.Millisecond, time.Second}, {Options{Speed: 0.5, MaxGap: 5 * time.Millisecond}, 85 * time.Millisecond, time.Second}} {
		start := time.Now()
		if err := Text(context.Background(), &strings.Builder{}, s, "s1", tt.o); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < tt.from || took > tt.to {
			t.Errorf("%+v took %v", tt.o, took)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := Text(ctx, &strings.Builder{}, s, "s1", Options{Speed: 0.001}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an ended context: %v", err)
	}
}

func TestJSON(t *testing.T) {
	s := &shelf{}
	records := conversation()
	pack(t, s, records, core.EndKilled)
	var out bytes.Buffer
	if err := JSON(context.Background(), &out, s, "s1", Options{}); err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(&out)
	for i, r := range records {
		var got line
		if err := dec.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if got.Seq != uint64(i) || got.Kind != r.Kind.String() || !bytes.Equal(got.Wire, r.Wire) || got.Session != "s1" || !got.Time.Equal(r.Time) || len(got.Decisions) != len(r.Decisions) {
			t.Errorf("record %d: %+v", i, got)
		}
	}
	var last struct {
		Seal struct{ End string }
	}
	if err := dec.Decode(&last); err != nil || last.Seal.End != "killed" {
		t.Errorf("seal: %+v, %v", last, err)
	}
}

func TestFollow(t *testing.T) {
	full := &shelf{}
	pack(t, full, conversation(), core.EndClosed)
	s := &shelf{blocks: full.blocks[:1]}
	go func() {
		for _, b := range full.blocks[1:] {
			time.Sleep(20 * time.Millisecond)
			_ = s.Put(context.Background(), []core.Block{b})
		}
	}()
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := JSON(ctx, &out, s, "s1", Options{Follow: true}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != len(conversation())+1 {
		t.Errorf("%d lines", n)
	}
}

func TestRecords(t *testing.T) {
	s := &shelf{}
	pack(t, s, conversation(), core.EndClosed)
	var kept []*core.Record
	for r, err := range Records(context.Background(), s, "s1") {
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, r)
	}
	for i, want := range conversation() { // also after the store has taken its bytes back
		if i >= len(kept) || string(kept[i].Facts) != string(want.Facts) || string(kept[i].Wire) != string(want.Wire) {
			t.Fatalf("record %d", i)
		}
	}
	n := 0
	for range Records(context.Background(), s, "s1") {
		if n++; n == 4 {
			break
		}
	}
	for _, err := range Records(context.Background(), s, "nobody") {
		if !errors.Is(err, core.ErrNoSession) {
			t.Errorf("unknown session: %v", err)
		}
	}
	s.blocks = append(s.blocks[:1:1], s.blocks[2:]...)
	var last error
	for _, err := range Records(context.Background(), s, "s1") {
		last = err
	}
	if last == nil || !strings.Contains(last.Error(), "block 1 is missing") {
		t.Errorf("a missing block: %v", last)
	}
}

func TestNeutral(t *testing.T) {
	for in, want := range map[string]string{
		"a\x1b[31mb":      `a\x1b[31mb`,
		"a\nb\tc  d":      "a b c d",
		"\xff\xfe":        `\xff\xfe`,
		"é🙂":              "é🙂",
		"a\u200bb\u2066c": `a\u200bb\u2066c`,
		"\u009b2J":        `\u009b2J`,
		"\U000e0041":      `\U000e0041`,
		"\uFFFD":          "\uFFFD",
	} {
		if got := oneLine(in, 100); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := oneLine(strings.Repeat("ab ", 100), 10); got != "ab ab ab a…" {
		t.Errorf("%q", got)
	}
	if got := Neutral("a\r\nb\rc\x00"); got != "a\nb"+`\x0dc\x00` {
		t.Errorf("%q", got)
	}
}

func FuzzShow(f *testing.F) {
	for _, r := range conversation() {
		f.Add(uint8(r.Kind), r.Facts, r.Wire)
	}
	f.Fuzz(func(t *testing.T, kind uint8, facts, wire []byte) {
		var out bytes.Buffer
		r := core.Record{Kind: core.Kind(kind%9 + 1), Direction: core.FromClient, Facts: facts, Wire: wire, Time: begin}
		s := &shelf{}
		pack(t, s, []core.Record{r}, core.EndClosed)
		for name, f := range map[string]func() error{
			"show": func() error { return Show(context.Background(), &out, s, "s1", Options{}) },
			"text": func() error { return Text(context.Background(), &out, s, "s1", Options{Reader: pipes{}}) },
			"json": func() error { return JSON(context.Background(), &out, s, "s1", Options{}) },
		} {
			out.Reset()
			if err := f(); err != nil {
				t.Fatal(name, err)
			}
			for _, b := range out.Bytes() {
				if b < 0x20 && b != '\n' && !(b == '\t' && name == "text") || b == 0x7f && name != "json" {
					t.Fatalf("%s: control character %#x in %q", name, b, out.String())
				}
			}
		}
	})
}
