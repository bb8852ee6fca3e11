package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// A database that goes away holds nothing up, and when it is back the index is given what it lacks, with nobody's help.
func TestIndexComesBack(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	s, err := postgrestest.Start(ctx, postgrestest.Options{Log: io.Discard, NoTLS: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if _, err := s.Psql(ctx, "postgres", "CREATE ROLE indexer LOGIN PASSWORD 'p'; CREATE DATABASE weir OWNER indexer"); err != nil {
		t.Fatal(err)
	}
	x, err := index.OpenPostgres(ctx, index.Postgres{Address: s.Addr(), Database: "weir", User: "indexer", Password: "p"}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	p := mustStart(t, t.TempDir())
	defer p.close(t)
	// The running worker has an index of its own.
	k := &keeper{w: &Worker{c: Config{Index: x}, log: slog.New(slog.DiscardHandler)}, store: Named{Name: "file", Store: p.store}, first: true}
	put := func(i int) {
		t.Helper()
		id := fmt.Sprint("s", i)
		say(t, p.j, id, "alice", "select 1")
		if err := p.j.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		if err := p.w.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		var blocks []core.Block
		err := p.store.Blocks(ctx, id, func(b core.Block) error {
			b.Bytes = bytes.Clone(b.Bytes)
			blocks = append(blocks, b)
			return nil
		})
		if err == nil {
			err = k.index(ctx, blocks)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(0)
	if got := ids(t, x, index.Query{}); got != "s0" {
		t.Fatalf("%q", got)
	}
	if err := s.Process().Kill(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for i := range 20 {
		put(i + 1)
	}
	if len(k.missed) != 20 {
		t.Errorf("%d sessions are remembered", len(k.missed))
	}
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("a database that is away has held up 20 batches for %v", took)
	}
	k.mendAt = time.Time{}
	if k.mend(ctx); len(k.missed) != 20 {
		t.Error("mended without a database")
	}
	if err := s.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, "the index is whole", func() bool {
		k.mendAt = time.Time{}
		k.mend(ctx)
		return len(k.missed) == 0
	})
	if list, err := x.Sessions(ctx, index.Query{Identity: "alice"}); err != nil || len(list) != 21 {
		t.Errorf("%d sessions, %v", len(list), err)
	}
}

// Sessions that the index lists as open, and the ledger has the seal of, are read anew, whatever was the reason; those that are
// open stay so.
func TestIndexIsCompared(t *testing.T) {
	p := mustStart(t, t.TempDir())
	defer p.close(t)
	say(t, p.j, "over", "alice", "select 1")
	say(t, p.j, "never-told", "alice", "select 2")
	if err := p.j.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.w.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	x, err := index.Open(filepath.Join(t.TempDir(), "other.db"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	for _, id := range []string{"over", "goes-on"} { // only its first block was told
		b, err := ledger.NewEncoder().Encode(core.BlockHeader{Session: id}, 0, ledger.AppendPiece(nil, ledger.AppendRecord(nil, openRecord("alice"), 0, nil), false))
		if err == nil {
			err = x.Add(t.Context(), p.store, []core.Block{b})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if s, err := x.Session(t.Context(), "over"); err != nil || s.End != "" {
		t.Fatalf("%+v, %v", s, err)
	}
	k := &keeper{w: &Worker{c: Config{Index: x, Ledger: p.ledger}, log: slog.New(slog.DiscardHandler)}, store: Named{Name: "file", Store: p.store}, first: true}
	k.compare(t.Context()) // what is not listed at all, because whoever knew that was killed
	k.mend(t.Context())
	k.looked = time.Time{}
	k.compare(t.Context())
	for id, end := range map[string]string{"over": "closed", "never-told": "closed", "goes-on": ""} {
		if s, err := x.Session(t.Context(), id); err != nil || s.End != end {
			t.Errorf("%s: %+v, %v", id, s, err)
		}
	}
}

// A session whose key comes after its blocks is listed without its contents, and read when the key is there.
func TestIndexReadsWhenTheKeyComes(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	p := mustStart(t, t.TempDir())
	defer p.close(t)
	key, record, err := keyring.Make(keyring.Record{Subject: "ada", Created: time.Now()}, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	payload := ledger.AppendPiece(nil, ledger.AppendRecord(nil, openRecord("ada"), 0, nil), false)
	b, err := ledger.NewEncoder().EncodeSecret(core.BlockHeader{Session: "late-key"}, 0, 0, payload, key.Session("late-key"))
	if err == nil {
		err = p.store.Put(t.Context(), []core.Block{b})
	}
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{
		w:     &Worker{c: Config{Index: p.index, Ledger: p.ledger, Keys: keyring.New(p.store, id)}, log: slog.New(slog.DiscardHandler)},
		store: Named{Name: "file", Store: p.store}, first: true,
	}
	if err := k.index(t.Context(), []core.Block{b}); err != nil {
		t.Fatal(err)
	}
	look := func(when, want string) {
		t.Helper()
		k.looked, k.fresh = time.Time{}, true
		k.compare(t.Context())
		if s, err := p.index.Session(t.Context(), "late-key"); err != nil || s.Identity != want {
			t.Errorf("%s: %+v, %v", when, s, err)
		}
	}
	look("before", "")
	if err := p.store.PutKey(t.Context(), key.ID.String(), record); err != nil {
		t.Fatal(err)
	}
	look("when the key is there", "ada")
}
