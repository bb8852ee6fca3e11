package retention

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/file"
	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/archive/segment"
	"github.com/weir-gateway/weir/core/ledger"
)

const day = 24 * time.Hour

// now is when the tests purge; sessions were sealed some days before.
var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// session makes the blocks of a sealed session of a target.
func session(t *testing.T, id, target string) []core.Block {
	t.Helper()
	enc := ledger.NewEncoder()
	var blocks []core.Block
	put := func(h core.BlockHeader, payload []byte) {
		b, err := enc.Encode(h, 0, payload)
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, b)
	}
	var prev [32]byte
	for n := range uint64(4) {
		facts := fmt.Sprintf(`{"session":%q,"target":%q}`, id, target)
		if n > 0 {
			facts = fmt.Sprintf(`{"command":{"text":"%s %d %s"}}`, id, n, strings.Repeat("x", 300))
		}
		r := core.Record{Seq: n, Time: now, Kind: core.KindOpen, Direction: core.FromClient, Facts: []byte(facts)}
		if n > 0 {
			r.Kind = core.KindCommand
		}
		put(core.BlockHeader{Session: id, Number: n, FirstSeq: n, LastSeq: n, Prev: prev}, ledger.AppendPiece(nil, ledger.AppendRecord(nil, &r, 0, nil), false))
		prev = blocks[n].Hash
	}
	put(core.BlockHeader{Session: id, Number: 4, FirstSeq: 4, LastSeq: 3, Prev: prev, Seal: true},
		ledger.AppendSeal(nil, ledger.Seal{End: core.EndClosed, Records: 4, Blocks: 5, Root: prev, Time: now}))
	return blocks
}

// place is an archive with its ledger.
type place struct {
	t     *testing.T
	dir   string
	store *file.Store
	index *index.Index
	l     *ledger.Ledger
	k     *Keeper
}

func open(t *testing.T, dir string, wrap func(core.Store) core.Store) *place {
	t.Helper()
	p := &place{t: t, dir: dir}
	var err1, err2, err3 error
	p.store, err1 = file.Open(filepath.Join(dir, "archive"), file.Options{SegmentSize: 4096})
	p.index, err2 = index.Open(filepath.Join(dir, "index.db"), false)
	p.l, err3 = ledger.Open(filepath.Join(dir, "ledger"), filepath.Join(dir, "keys"))
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	var store core.Store = p.store
	if wrap != nil {
		store = wrap(store)
	}
	p.k = New(Config{Stores: []Store{{"file", store}}, Index: p.index, Ledger: p.l, Term: func(target string) Term {
		switch target {
		case "short":
			return Term{"short", 30 * day}
		case "forever":
			return Term{"forever", 0}
		}
		return Term{"default", 400 * day}
	}})
	t.Cleanup(p.close)
	return p
}

func (p *place) close() {
	p.l.Close()
	p.index.Close()
	p.store.Close()
}

// fill stores sessions: SESSION-TARGET-DAYS, that many days old.
func (p *place) fill(ids ...string) {
	p.t.Helper()
	for _, id := range ids {
		var days int
		part := strings.Split(id, "-")
		fmt.Sscan(part[2], &days)
		blocks := session(p.t, id, part[1])
		leaf := ledger.LeafOf(blocks[len(blocks)-1], core.EndClosed, now.Add(-time.Duration(days)*day))
		err := p.store.Put(context.Background(), blocks)
		if err := errors.Join(err, p.index.Add(context.Background(), p.store, blocks), p.l.Append(leaf)); err != nil {
			p.t.Fatal(err)
		}
	}
}

var some = []string{"a-short-10", "b-short-31", "c-orders-31", "d-orders-401", "e-forever-4000", "f-short-500"}

func (p *place) verify() ledger.Report {
	p.t.Helper()
	s, err := file.Open(filepath.Join(p.dir, "archive"), file.Options{ReadOnly: true})
	if err != nil {
		p.t.Fatal(err)
	}
	defer s.Close()
	key, err := os.ReadFile(filepath.Join(p.dir, "keys", "ledger.pub"))
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := ledger.Verify(context.Background(), ledger.VerifyConfig{Store: s, LedgerDir: filepath.Join(p.dir, "ledger"), PublicKey: string(key), Grace: time.Millisecond})
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

func (p *place) sessions() string {
	p.t.Helper()
	var ids []string
	if err := p.store.Sessions(context.Background(), func(id string) error { ids = append(ids, id); return nil }); err != nil {
		p.t.Fatal(err)
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

func TestPurge(t *testing.T) {
	p := open(t, t.TempDir(), nil)
	p.fill(some...)
	ctx := context.Background()
	if err := p.k.Hold(ctx, "counsel", "case 1", "d-orders-401"); err != nil {
		t.Fatal(err)
	}
	if err := p.k.Hold(ctx, "counsel", "case 2", "a-short-10", "unknown"); !errors.Is(err, core.ErrNoSession) {
		t.Fatal(err)
	}
	if held, _ := p.l.Standing("a-short-10"); held {
		t.Error("held, although another session of the call is not known")
	}
	r, err := p.k.Purge(ctx, "ops", now, true)
	if err != nil || len(r.Removed) != 2 || len(r.Held) != 1 || r.Held[0].ID != "d-orders-401" || p.sessions() != strings.Join(some, " ") {
		t.Fatalf("dry: %+v, %v", r, err)
	}
	if r, err = p.k.Purge(ctx, "ops", now, false); err != nil || len(r.Removed) != 2 || r.Removed[0].Class != "short" {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := p.sessions(); got != "a-short-10 c-orders-31 d-orders-401 e-forever-4000" {
		t.Errorf("left: %s", got)
	}
	if list, err := p.index.Sessions(ctx, index.Query{}); err != nil || len(list) != 4 {
		t.Errorf("index: %d, %v", len(list), err)
	}
	v := p.verify()
	if !v.OK() || v.Sessions != 4 || len(v.Removed) != 2 || v.Removed[0].By != "ops" || v.Removed[0].Blocks != 5 || v.Removed[0].Left != 0 {
		t.Fatalf("%+v", v)
	}
	// What came back, because a stream was read anew, goes again.
	if err := p.store.Put(ctx, session(t, "b-short-31", "short")[:2]); err != nil {
		t.Fatal(err)
	}
	if v := p.verify(); !v.OK() || v.Removed[0].Left != 2 {
		t.Fatalf("came back: %+v", v)
	}
	if r, err = p.k.Purge(ctx, "ops", now, false); err != nil || len(r.Removed) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if v := p.verify(); !v.OK() || v.Removed[0].Left != 0 {
		t.Fatalf("gone again: %+v", v)
	}
	// A restart knows the hold.
	p.close()
	p = open(t, p.dir, nil)
	if r, err = p.k.Purge(ctx, "ops", now.Add(1000*day), false); err != nil || len(r.Removed) != 2 || len(r.Held) != 1 {
		t.Fatalf("after a restart: %+v, %v", r, err)
	}
	if err := p.k.Release(ctx, "counsel", "closed", "d-orders-401"); err != nil {
		t.Fatal(err)
	}
	if r, err = p.k.Purge(ctx, "ops", now, false); err != nil || len(r.Removed) != 1 || p.sessions() != "e-forever-4000" {
		t.Fatalf("released: %+v, %v, %s", r, err, p.sessions())
	}
	if v := p.verify(); !v.OK() || len(v.Removed) != 5 {
		t.Fatalf("%+v", v)
	}
}

// An open session can be held, too. From then on its end cannot be cut off unseen, though no head of it was signed.
func TestHoldOpen(t *testing.T) {
	ctx := context.Background()
	p := open(t, t.TempDir(), nil)
	blocks := session(t, "open", "short")
	if err := p.store.Put(ctx, blocks[:3]); err != nil {
		t.Fatal(err)
	}
	if err := p.k.Hold(ctx, "counsel", "", "open"); err != nil {
		t.Fatal(err)
	}
	if v := p.verify(); !v.OK() || len(v.Open) != 1 {
		t.Fatalf("%+v", v)
	}
	if r, err := p.k.Purge(ctx, "ops", now.Add(9000*day), false); err != nil || len(r.Removed) != 0 || p.sessions() != "open" {
		t.Fatalf("what is open is purged: %+v, %v", r, err)
	}
	if err := errors.Join(p.store.Remove(ctx, []string{"open"}), p.store.Put(ctx, blocks[:2])); err != nil {
		t.Fatal(err)
	}
	if v := p.verify(); v.OK() || !strings.Contains(fmt.Sprint(v.Problems), "session open, block 2: the log has a signed head of the session with 3 blocks, the store has 2") {
		t.Fatalf("%+v", v)
	}
}

// A removal that nobody signed for stays a problem, whatever else has a tombstone; so do a tombstone that was made up,
// and a tombstone of what was under hold.
func TestWithoutATombstone(t *testing.T) {
	ctx := context.Background()
	start := func(t *testing.T) *place {
		p := open(t, t.TempDir(), nil)
		p.fill(some...)
		if _, err := p.k.Purge(ctx, "ops", now, false); err != nil {
			t.Fatal(err)
		}
		if v := p.verify(); !v.OK() {
			t.Fatalf("%+v", v)
		}
		return p
	}
	leaves := func(p *place) string { return filepath.Join(p.dir, "ledger", "leaves") }
	for _, tt := range []struct {
		name, want string
		do         func(t *testing.T, p *place)
	}{
		{"removed by hand", "session a-short-10: the log has the session's seal (5 blocks), the store does not have the session", func(t *testing.T, p *place) {
			if err := p.store.Remove(ctx, []string{"a-short-10"}); err != nil {
				t.Fatal(err)
			}
		}},
		{"a tombstone without a signature", "session a-short-10: the log has the session's seal", func(t *testing.T, p *place) {
			seal := session(t, "a-short-10", "short")[4]
			f, err := os.OpenFile(leaves(p), os.O_APPEND|os.O_WRONLY, 0)
			if err == nil {
				_, err = fmt.Fprintf(f, "weir1 gone a-short-10 5 4 closed %x 1 ops because\n", seal.Hash)
			}
			if err = errors.Join(err, f.Close(), p.store.Remove(ctx, []string{"a-short-10"})); err != nil {
				t.Fatal(err)
			}
		}},
		{"a tombstone that lost its signature", "the log has", func(t *testing.T, p *place) {
			b, err := os.ReadFile(leaves(p))
			if err == nil {
				lines := strings.SplitAfter(string(b), "\n")
				err = os.WriteFile(leaves(p), []byte(strings.Join(lines[:len(lines)-2], "")), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}},
		{"another reason", "are not those that its checkpoint was signed for", func(t *testing.T, p *place) {
			b, err := os.ReadFile(leaves(p))
			if err == nil {
				err = os.WriteFile(leaves(p), []byte(strings.Replace(string(b), " ops ", " foe ", 1)), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}},
		{"another came back", "the seal is not the one in the log", func(t *testing.T, p *place) {
			if err := p.store.Put(ctx, session(t, "b-short-31", "another")); err != nil {
				t.Fatal(err)
			}
		}},
		{"the end of another came back", "a block that is left of it is not what was stored", func(t *testing.T, p *place) {
			if err := p.store.Put(ctx, session(t, "b-short-31", "another")[4:]); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t)
			tt.do(t, p)
			if v := p.verify(); v.OK() || !strings.Contains(fmt.Sprint(v.Problems), tt.want) {
				t.Errorf("%+v", v)
			}
		})
	}
	p := start(t)
	if err := p.k.Hold(ctx, "counsel", "case", "a-short-10"); err != nil {
		t.Fatal(err)
	}
	seal := session(t, "a-short-10", "short")[4]
	if err := p.l.Append(ledger.LeafOf(seal, core.EndClosed, now).Done(ledger.LeafGone, "foe", "", now)); !errors.Is(err, ledger.ErrHeld) {
		t.Errorf("the ledger takes a tombstone of what is held: %v", err)
	}
}

// stubborn is a store whose Remove fails, before or after some of its work, or keeps what is locked.
type stubborn struct {
	*file.Store
	err   error
	after bool
}

func (s *stubborn) Remove(ctx context.Context, ids []string) error {
	if s.after {
		if err := s.Store.Remove(ctx, ids[:1]); err != nil {
			return err
		}
	}
	if s.err != nil {
		return s.err
	}
	return s.Store.Remove(ctx, ids)
}

// Whatever a store fails with, the archive verifies at once, and the next purge ends it.
func TestPurgeCutShort(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct {
		err   error
		after bool
	}{{errors.New("out of order"), false}, {errors.New("out of order"), true}, {&segment.Locked{Until: now.Add(day), Parts: 3}, false}} {
		var s *stubborn
		p := open(t, t.TempDir(), func(c core.Store) core.Store {
			s = &stubborn{c.(*file.Store), tt.err, tt.after}
			return s
		})
		p.fill(some...)
		r, err := p.k.Purge(ctx, "ops", now, false)
		var locked *segment.Locked
		if errors.As(tt.err, &locked) {
			if err != nil || len(r.Locked) != 1 || r.Locked[0].Parts != 3 || len(r.Removed) != 3 {
				t.Fatalf("locked: %+v, %v", r, err)
			}
		} else if !errors.Is(err, tt.err) {
			t.Fatalf("%+v, %v", r, err)
		}
		if v := p.verify(); !v.OK() {
			t.Fatalf("%v: %+v", tt, v)
		}
		p.close()
		p = open(t, p.dir, nil)
		if _, err := p.k.Purge(ctx, "ops", now, false); err != nil {
			t.Fatal(err)
		}
		if got := p.sessions(); got != "a-short-10 c-orders-31 d-orders-401 e-forever-4000" && got != "a-short-10 c-orders-31 e-forever-4000" {
			t.Errorf("%v: left: %s", tt, got)
		}
		if v := p.verify(); !v.OK() || len(v.Removed) != len(some)-v.Sessions || v.Removed[0].Left != 0 {
			t.Fatalf("%v: %+v", tt, v)
		}
	}
}
