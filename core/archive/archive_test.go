package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/file"
	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/archive/storetest"
	"github.com/weir-gateway/weir/core/journal"
	"github.com/weir-gateway/weir/core/ledger"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("WEIR_ARCHIVE_CHILD"); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

var quiet = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))

// pipeline is all of it: journal, worker, store, index, ledger.
type pipeline struct {
	dir    string
	store  *file.Store
	index  *index.Index
	ledger *ledger.Ledger
	j      *journal.Journal
	w      *Worker
}

func start(dir string, more ...Named) (*pipeline, error) { return startWith(dir, nil, more...) }

// startWith encrypts, with keys of whoever makes them.
func startWith(dir string, keys func(subject, issuer, session string) (*ledger.RecordingKey, []byte, error), more ...Named) (*pipeline, error) {
	p := &pipeline{dir: dir}
	var err error
	if p.store, err = file.Open(filepath.Join(dir, "archive"), file.Options{SegmentSize: 256 << 10}); err != nil {
		return nil, err
	}
	if p.index, err = index.Open(filepath.Join(dir, "index.db"), false); err != nil {
		return nil, err
	}
	if p.ledger, err = ledger.Open(filepath.Join(dir, "ledger"), filepath.Join(dir, "keys")); err != nil {
		return nil, err
	}
	p.j, err = journal.Open(context.Background(), journal.Config{
		Dir: dir, Shards: 2, Gateway: "gw", Boot: "boot", Log: quiet, Archive: p.store,
		SegmentSize: 256 << 10, MaxWAL: 8 << 20, BlockAge: 5 * time.Millisecond, Keys: keys,
	})
	if err != nil {
		return nil, err
	}
	p.w, err = Start(context.Background(), p.j.JetStream(), Config{
		Stores: append([]Named{{Name: "file", Store: p.store}}, more...), Index: p.index, Ledger: p.ledger, Log: quiet,
		PurgeEvery: 10 * time.Millisecond, HeadEvery: 50 * time.Millisecond,
	})
	return p, err
}

func mustStart(t *testing.T, dir string, more ...Named) *pipeline {
	t.Helper()
	p, err := start(dir, more...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustStartWith(t *testing.T, dir string, keys func(subject, issuer, session string) (*ledger.RecordingKey, []byte, error), more ...Named) *pipeline {
	t.Helper()
	p, err := startWith(dir, keys, more...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pipeline) close(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := errors.Join(p.j.Flush(ctx), p.w.Close(ctx), p.j.Close(ctx), p.index.Close(), p.ledger.Close(), p.store.Close()); err != nil {
		t.Fatal(err)
	}
}

// verify proves the archive, with nothing but the public key.
func verify(t *testing.T, dir string) ledger.Report {
	t.Helper()
	s, err := file.Open(filepath.Join(dir, "archive"), file.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	key, err := os.ReadFile(filepath.Join(dir, "keys", "ledger.pub"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := ledger.Verify(context.Background(), ledger.VerifyConfig{Store: s, LedgerDir: filepath.Join(dir, "ledger"), PublicKey: string(key), Grace: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func session(id string) *core.Session {
	return &core.Session{ID: id, Target: &core.Target{Name: "orders", Promise: core.PromiseStrict}}
}

func openRecord(who string) *core.Record {
	return &core.Record{Time: time.Now(), Kind: core.KindOpen, Direction: core.FromClient, Facts: fmt.Appendf(nil,
		`{"session":"x","run":"run1","identity":{"subject":%q,"issuer":"i","groups":[],"kind":"agent"},"target":"orders","protocol":"postgres","client":"","tls":true,"gateway":"gw","boot":"b","record":"full","promise":"strict"}`, who)}
}

func command(seq uint64, text, denied string) *core.Record {
	return &core.Record{Seq: seq, Time: time.Now(), Kind: core.KindCommand, Direction: core.FromClient, Wire: []byte(text), Facts: fmt.Appendf(nil,
		`{"command":{"action":"select","text":%q,"fingerprint":"","effects":["read"],"resources":[{"kind":"table","name":"public.orders","use":["read"]}],"where":true,"status":"known"}%s}`, text, denied)}
}

// say records a session: its opening, commands, and the seal.
func say(t *testing.T, j *journal.Journal, id, who string, commands ...string) {
	t.Helper()
	r, err := j.Open(session(id))
	if err != nil {
		t.Fatal(err)
	}
	recs := []*core.Record{openRecord(who)}
	for i, c := range commands {
		denied := ""
		if len(c) > 4 && c[:4] == "drop" {
			denied = `,"denied":{"step":"guardrails","rule":"no-ddl"}`
		}
		recs = append(recs, command(uint64(i+1), c, denied))
	}
	for _, rec := range recs {
		m, err := r.Record(context.Background(), rec)
		if err == nil {
			err = r.Settle(context.Background(), m)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Seal(core.EndClosed); err != nil {
		t.Fatal(err)
	}
}

func TestFromJournalToProof(t *testing.T) {
	dir := t.TempDir()
	p := mustStart(t, dir)
	say(t, p.j, "s1", "alice", "select * from orders", "drop table orders")
	say(t, p.j, "s2", "bob", "select 1")
	idle, err := p.j.Open(session("s3"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := idle.Record(context.Background(), openRecord("carol"))
	if err != nil || idle.Settle(context.Background(), m) != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := errors.Join(p.j.Flush(ctx), p.w.Drain(ctx)); err != nil {
		t.Fatal(err)
	}
	r := verify(t, dir)
	if !r.OK() || r.Sessions != 3 || r.Records != 6 || len(r.Open) != 1 || r.Open[0] != "s3" {
		t.Fatalf("%+v", r)
	}
	for _, tt := range []struct {
		q    index.Query
		want string
	}{
		{index.Query{}, "s1 s2 s3"},
		{index.Query{Identity: "alice"}, "s1"},
		{index.Query{Denied: true}, "s1"},
		{index.Query{Grep: "FROM ord"}, "s1"},
		{index.Query{Grep: "public.orders"}, "s1 s2"},
		{index.Query{Grep: `"; drop`}, ""},
		{index.Query{Grep: "1"}, "s2"},
		{index.Query{Target: "orders", Protocol: "postgres", Run: "run1"}, "s1 s2 s3"},
		{index.Query{Until: time.Now().Add(-time.Hour)}, ""},
		{index.Query{Since: time.Now().Add(-time.Hour)}, "s1 s2 s3"},
	} {
		if got := ids(t, p.index, tt.q); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.q, got, tt.want)
		}
	}
	one, err := p.index.Session(ctx, "s1")
	if err != nil || one.Commands != 2 || one.Denied != 1 || one.End != "closed" || !one.Verified || one.Ended == nil {
		t.Fatalf("%+v, %v", one, err)
	}
	// From another process, while the gateway runs.
	ro, err := index.Open(filepath.Join(dir, "index.db"), true)
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(t, ro, index.Query{Grep: "drop table"}); got != "s1" {
		t.Errorf("read-only: %q", got)
	}
	ro.Close()
	p.close(t)
	mustStart(t, dir).close(t) // what was sealed by Close, after the worker had stopped, is archived by the next start
	if r := verify(t, dir); !r.OK() || len(r.Open) != 0 {
		t.Fatalf("%+v", r)
	}
	// The index is derived: what a rebuild makes is the same.
	x, err := index.Open(filepath.Join(dir, "index.db"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	before, _ := x.Sessions(ctx, index.Query{})
	s, err := file.Open(filepath.Join(dir, "archive"), file.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		if err := x.Rebuild(ctx, s, nil); err != nil {
			t.Fatal(err)
		}
	}
	after, _ := x.Sessions(ctx, index.Query{})
	if fmt.Sprint(sessionsOf(before)) != fmt.Sprint(sessionsOf(after)) || len(after) != 3 {
		t.Fatalf("rebuilt: %+v, before %+v", after, before)
	}
	if got := ids(t, x, index.Query{Grep: "drop table"}); got != "s1" {
		t.Errorf("rebuilt: grep %q", got)
	}
}

func sessionsOf(list []index.Session) (out []string) {
	for _, s := range list {
		out = append(out, fmt.Sprint(s.ID, s.Identity, s.Target, s.Run, s.Started, *s.Ended, s.Commands, s.Rows, s.Denied, s.End, s.Verified))
	}
	return out
}

func ids(t *testing.T, x *index.Index, q index.Query) (out string) {
	t.Helper()
	list, err := x.Sessions(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(list) - 1; i >= 0; i-- {
		if out != "" {
			out += " "
		}
		out += list[i].ID
	}
	return out
}

// An acknowledgement that is lost, a worker that dies: what comes again changes nothing.
func TestRedelivery(t *testing.T) {
	dir := t.TempDir()
	p := mustStart(t, dir)
	for i := range 5 {
		say(t, p.j, fmt.Sprint("s", i), "alice", "select 1", "select 2")
	}
	ctx := context.Background()
	if err := errors.Join(p.j.Flush(ctx), p.w.Close(ctx)); err != nil {
		t.Fatal(err)
	}
	before := verify(t, dir)
	index1, _ := p.index.Sessions(ctx, index.Query{})
	// Publish every stored block once more, as a retry after the duplicate window would.
	var all []core.Block
	if err := p.store.Sessions(ctx, func(id string) error {
		return p.store.Blocks(ctx, id, func(b core.Block) error {
			b.Bytes = append([]byte(nil), b.Bytes...)
			all = append(all, b)
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		if _, err := p.j.JetStream().Publish(ctx, journal.Subject(0, b.Header.Session), b.Bytes); err != nil {
			t.Fatal(err)
		}
	}
	// And some that are not blocks, or are another history of a session.
	for _, bad := range [][]byte{[]byte("garbage"), nil, storetest.Session("s1", 3, 77)[0].Bytes} {
		if _, err := p.j.JetStream().Publish(ctx, journal.Subject(0, "s1"), bad); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	p.w, err = Start(ctx, p.j.JetStream(), Config{Stores: []Named{{Name: "file", Store: p.store}}, Index: p.index, Ledger: p.ledger, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.w.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	after := verify(t, dir)
	if !after.OK() || after.Blocks != before.Blocks || after.Records != before.Records {
		t.Fatalf("before %+v, after %+v", before, after)
	}
	index2, _ := p.index.Sessions(ctx, index.Query{})
	if fmt.Sprint(sessionsOf(index1)) != fmt.Sprint(sessionsOf(index2)) {
		t.Fatalf("index: %+v, then %+v", index1, index2)
	}
	p.close(t)
}

// flaky is a store that fails now and then, after or before it has stored.
type flaky struct {
	core.Store
	n      atomic.Int64
	broken atomic.Bool
}

func (f *flaky) Put(ctx context.Context, b []core.Block) error {
	n := f.n.Add(1)
	if f.broken.Load() {
		return errors.New("out of order")
	}
	if n%3 == 0 {
		return errors.New("before")
	}
	if err := f.Store.Put(ctx, b); err != nil {
		return err
	}
	if n%3 == 1 {
		return errors.New("after")
	}
	return nil
}

// A message leaves the streams only when every store has it.
func TestPurgeWaitsForEveryStore(t *testing.T) {
	dir := t.TempDir()
	second, err := file.Open(filepath.Join(dir, "second"), file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	f := &flaky{Store: second}
	f.broken.Store(true)
	p := mustStart(t, dir, Named{Name: "second", Store: f})
	for i := range 4 {
		say(t, p.j, fmt.Sprint("s", i), "alice", "select 1")
	}
	ctx := context.Background()
	if err := p.j.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // several rounds of the purger
	if n := messages(t, p.j.JetStream()); n < 4 {
		t.Fatalf("%d messages are left, and the second store has none", n)
	}
	f.broken.Store(false)
	if err := p.w.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for messages(t, p.j.JetStream()) > 2 { // the newest of each stream stays
		if time.Now().After(deadline) {
			t.Fatal("the streams are not relieved")
		}
		time.Sleep(10 * time.Millisecond)
	}
	n := 0
	if err := second.Sessions(ctx, func(string) error { n++; return nil }); err != nil || n != 4 {
		t.Fatalf("the second store has %d sessions, %v", n, err)
	}
	// A session that goes on after its messages were purged goes on without a gap.
	r, err := p.j.Open(session("long"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		rec := openRecord("x")
		rec.Seq = uint64(i)
		m, err := r.Record(ctx, rec)
		if err == nil {
			err = r.Settle(ctx, m)
		}
		if err == nil {
			err = p.j.Flush(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.Seal(core.EndClosed)
	p.close(t)
	if r := verify(t, dir); !r.OK() || len(r.Open) > 0 {
		t.Fatalf("%+v", r)
	}
}

func messages(t *testing.T, js jetstream.JetStream) (n uint64) {
	t.Helper()
	list := js.ListStreams(context.Background())
	for s := range list.Info() {
		n += s.State.Msgs
	}
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// A session that is open has signed heads: a cut end shows before there is a seal.
func TestHeadsShowACutEnd(t *testing.T) {
	dir := t.TempDir()
	p := mustStart(t, dir)
	r, err := p.j.Open(session("open"))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for i := range 10 {
		rec := openRecord("x")
		rec.Seq = uint64(i)
		if _, err := r.Record(ctx, rec); err != nil {
			t.Fatal(err)
		}
		if err := p.j.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.w.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	time.Sleep(150 * time.Millisecond)
	if r := verify(t, dir); !r.OK() || len(r.Open) != 1 {
		t.Fatalf("%+v", r)
	}
	seg := filepath.Join(dir, "archive", "00000001.weir")
	info, err := os.Stat(seg)
	if err != nil {
		t.Fatal(err)
	}
	cut := t.TempDir()
	b, _ := os.ReadFile(seg)
	if err := os.CopyFS(cut, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cut, "archive", "00000001.weir"), b[:info.Size()-30], 0o600); err != nil {
		t.Fatal(err)
	}
	rep := verify(t, cut)
	if rep.OK() || rep.Problems[0].Session != "open" {
		t.Fatalf("the cut was not found: %+v", rep)
	}
	p.close(t)
}

func TestConcurrentSessions(t *testing.T) {
	dir := t.TempDir()
	p := mustStart(t, dir)
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			for k := range 5 {
				say(t, p.j, fmt.Sprintf("s%d-%d", i, k), "alice", "select 1", fmt.Sprint("select ", i))
			}
		})
	}
	wg.Wait()
	p.close(t)
	r := verify(t, dir)
	if !r.OK() || r.Sessions != 150 || r.Records != 450 || len(r.Open) != 0 {
		t.Fatalf("%+v", r)
	}
}

// TestIndexTakesBlocksInAnyOrder: after a crash a stream delivers blocks again, and not always in their order.
func TestIndexTakesBlocksInAnyOrder(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2, 3}, {0, 2, 1, 3}, {0, 2, 3, 1}, {3, 2, 1, 0}, {1, 0, 3, 2}, {0, 3, 3, 1, 1, 2}} {
		dir := t.TempDir()
		s, err := file.Open(filepath.Join(dir, "archive"), file.Options{})
		if err != nil {
			t.Fatal(err)
		}
		x, err := index.Open(filepath.Join(dir, "index.db"), false)
		if err != nil {
			t.Fatal(err)
		}
		id := core.NewID(time.Now())
		blocks := storetest.Session(id, 4, 1)
		for _, i := range order {
			if err := s.Put(t.Context(), blocks[i:i+1]); err != nil {
				t.Fatal(err)
			}
			if err := x.Add(t.Context(), s, blocks[i:i+1]); err != nil {
				t.Fatal(err)
			}
		}
		got, err := x.Session(t.Context(), id)
		if err != nil || got.End != "closed" || !got.Verified {
			t.Errorf("%v: %+v, %v", order, got, err)
		}
		_ = x.Close()
		_ = s.Close()
	}
}
