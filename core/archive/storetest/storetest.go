// Package storetest is what every archive store has to pass. An implementation's test calls Run:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T, dir string) core.Store { … })
//	}
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/segment"
	"github.com/weir-gateway/weir/core/ledger"
)

// Run runs the suite. Open opens the store that belongs to dir, an empty directory at first, and is called again with
// the same directory after Close: what was put must be there. A store that is elsewhere uses dir as a name.
func Run(t *testing.T, open func(t *testing.T, dir string) core.Store) {
	for _, tt := range []struct {
		name string
		f    func(t *testing.T, e *env)
	}{
		{"put and read", putAndRead},
		{"twice changes nothing", twice},
		{"another block of the same number is refused", fork},
		{"any order", anyOrder},
		{"unknown session", unknown},
		{"block that is not what it says", inconsistent},
		{"kept over a restart", restart},
		{"many at once", concurrent},
		{"f ends the walk", stop},
		{"context", cancelled},
		{"large blocks", large},
		{"removal", removal},
		{"recording keys", keys},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := &env{t: t, dir: t.TempDir(), open: open}
			e.s = open(t, e.dir)
			defer func() {
				if err := e.s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}()
			tt.f(t, e)
		})
	}
}

type env struct {
	t    *testing.T
	dir  string
	open func(t *testing.T, dir string) core.Store
	s    core.Store
}

func (e *env) reopen() {
	e.t.Helper()
	if err := e.s.Close(); err != nil {
		e.t.Fatalf("Close: %v", err)
	}
	e.s = e.open(e.t, e.dir)
}

// Session makes a sealed session of n blocks with records of random length; the same seed makes the same session.
func Session(id string, n int, seed uint64) []core.Block {
	rnd := rand.New(rand.NewPCG(seed, 1))
	at := time.Unix(1_700_000_000, 0)
	enc := ledger.NewEncoder()
	var (
		out  []core.Block
		prev [32]byte
		seq  uint64
	)
	for i := range n {
		h := core.BlockHeader{Session: id, Number: uint64(i), FirstSeq: seq, Prev: prev, Seal: i == n-1}
		var p []byte
		for range rnd.IntN(5) {
			r := core.Record{
				Seq: seq, Time: at.Add(time.Duration(seq) * time.Millisecond), Kind: core.KindBytes, Direction: core.FromUpstream,
				Facts: fmt.Appendf(nil, `{"bytes":%d}`, rnd.IntN(100)), Wire: bytes.Repeat([]byte{byte(rnd.Uint32())}, rnd.IntN(2000)),
			}
			p = ledger.AppendPiece(p, ledger.AppendRecord(nil, &r, time.Duration(seq), nil), false)
			seq++
		}
		h.LastSeq = seq - 1
		if h.Seal {
			p = ledger.AppendSeal(p, ledger.Seal{End: core.EndClosed, Records: seq, Blocks: uint64(n), Root: prev, Time: at})
		}
		b, err := enc.Encode(h, 0, p)
		if err != nil {
			panic(err) // the suite's own mistake
		}
		out = append(out, b)
		prev = b.Hash
	}
	return out
}

func (e *env) put(blocks ...core.Block) {
	e.t.Helper()
	if err := e.s.Put(context.Background(), blocks); err != nil {
		e.t.Fatalf("Put: %v", err)
	}
}

func (e *env) want(id string, want []core.Block) {
	e.t.Helper()
	i := 0
	err := e.s.Blocks(context.Background(), id, func(b core.Block) error {
		if i >= len(want) {
			return fmt.Errorf("more than the %d blocks that were put", len(want))
		}
		w := want[i]
		if b.Header != w.Header || b.Hash != w.Hash || !bytes.Equal(b.Bytes, w.Bytes) {
			return fmt.Errorf("block %d is not what was put: %+v", i, b.Header)
		}
		i++
		return nil
	})
	if err != nil {
		e.t.Fatalf("Blocks(%s): %v", id, err)
	}
	if i != len(want) {
		e.t.Fatalf("Blocks(%s): %d blocks, %d were put", id, i, len(want))
	}
}

func (e *env) sessions() []string {
	e.t.Helper()
	var ids []string
	if err := e.s.Sessions(context.Background(), func(id string) error { ids = append(ids, id); return nil }); err != nil {
		e.t.Fatalf("Sessions: %v", err)
	}
	slices.Sort(ids)
	return ids
}

func putAndRead(t *testing.T, e *env) {
	if ids := e.sessions(); len(ids) != 0 {
		t.Fatalf("an empty store has sessions: %v", ids)
	}
	a, b := Session("a", 7, 1), Session("b", 3, 2)
	e.put(a[0], b[0], a[1])
	e.want("a", a[:2])
	e.put(slices.Concat(a[2:], b[1:])...)
	e.want("a", a)
	e.want("b", b)
	if ids := e.sessions(); !slices.Equal(ids, []string{"a", "b"}) {
		t.Fatalf("Sessions: %v", ids)
	}
}

func twice(t *testing.T, e *env) {
	a := Session("a", 4, 1)
	e.put(a...)
	e.put(a[1], a[1], a[3])
	e.put(a...)
	e.want("a", a)
	b := Session("b", 2, 1)
	e.put(b[0], b[0], b[1])
	e.want("b", b)
}

func fork(t *testing.T, e *env) {
	a, other := Session("a", 4, 1), Session("a", 4, 2)
	e.put(a...)
	if err := e.s.Put(context.Background(), other[2:3]); !errors.Is(err, core.ErrFork) {
		t.Fatalf("Put of another block 2: %v, want core.ErrFork", err)
	}
	if err := e.s.Put(context.Background(), []core.Block{a[3], other[1]}); !errors.Is(err, core.ErrFork) {
		t.Fatalf("Put of another block 1: %v, want core.ErrFork", err)
	}
	e.want("a", a)
	x, y := Session("x", 2, 3), Session("x", 2, 4)
	if err := e.s.Put(context.Background(), []core.Block{x[0], y[0]}); !errors.Is(err, core.ErrFork) {
		t.Fatalf("Put of two blocks 0: %v, want core.ErrFork", err)
	}
}

func anyOrder(t *testing.T, e *env) {
	a := Session("a", 12, 1)
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(a)) {
		e.put(a[i])
	}
	e.want("a", a)
}

func unknown(t *testing.T, e *env) {
	e.put(Session("a", 1, 1)...)
	err := e.s.Blocks(context.Background(), "nobody", func(core.Block) error { return errors.New("called") })
	if !errors.Is(err, core.ErrNoSession) {
		t.Fatalf("Blocks: %v, want core.ErrNoSession", err)
	}
}

func inconsistent(t *testing.T, e *env) {
	a := Session("a", 2, 1)
	for name, change := range map[string]func(b *core.Block){
		"hash":    func(b *core.Block) { b.Hash[0] ^= 1 },
		"number":  func(b *core.Block) { b.Header.Number++ },
		"session": func(b *core.Block) { b.Header.Session = "b" },
		"bytes": func(b *core.Block) {
			b.Bytes = append(bytes.Clone(b.Bytes[:len(b.Bytes)-1]), b.Bytes[len(b.Bytes)-1]^1)
		},
		"garbage": func(b *core.Block) { b.Bytes = []byte("garbage") },
		"nothing": func(b *core.Block) { b.Bytes = nil },
	} {
		b := a[0]
		change(&b)
		if err := e.s.Put(context.Background(), []core.Block{b}); err == nil {
			t.Errorf("%s: Put took it", name)
		}
	}
	if ids := e.sessions(); len(ids) != 0 {
		t.Fatalf("sessions after refused puts: %v", ids)
	}
}

func restart(t *testing.T, e *env) {
	a, b := Session("a", 30, 1), Session("b", 5, 2)
	e.put(a[:20]...)
	e.reopen()
	e.want("a", a[:20])
	e.put(a[15:]...)
	e.put(b...)
	e.reopen()
	e.reopen()
	e.want("a", a)
	e.want("b", b)
	if err := e.s.Put(context.Background(), Session("a", 30, 9)[3:4]); !errors.Is(err, core.ErrFork) {
		t.Fatalf("Put of another block after a restart: %v, want core.ErrFork", err)
	}
}

func concurrent(t *testing.T, e *env) {
	const n = 8
	all := make([][]core.Block, n)
	var wg sync.WaitGroup
	for i := range n {
		all[i] = Session(fmt.Sprint("s", i), 20, uint64(i))
		wg.Go(func() {
			for _, b := range all[i] {
				if err := e.s.Put(context.Background(), []core.Block{b}); err != nil {
					t.Error(err)
				}
				if err := e.s.Blocks(context.Background(), b.Header.Session, func(core.Block) error { return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range n {
		e.want(fmt.Sprint("s", i), all[i])
	}
}

func stop(t *testing.T, e *env) {
	e.put(Session("a", 5, 1)...)
	e.put(Session("b", 5, 1)...)
	boom := errors.New("boom")
	n := 0
	if err := e.s.Blocks(context.Background(), "a", func(core.Block) error { n++; return boom }); !errors.Is(err, boom) || n != 1 {
		t.Fatalf("Blocks: %v after %d calls", err, n)
	}
	n = 0
	if err := e.s.Sessions(context.Background(), func(string) error { n++; return boom }); !errors.Is(err, boom) || n != 1 {
		t.Fatalf("Sessions: %v after %d calls", err, n)
	}
}

func cancelled(t *testing.T, e *env) {
	a := Session("a", 2, 1)
	e.put(a[0])
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := e.s.Put(ctx, a[1:]); err == nil {
		t.Error("Put with an ended context succeeded")
	}
	if err := e.s.Blocks(ctx, "a", func(core.Block) error { return nil }); err == nil {
		t.Error("Blocks with an ended context succeeded")
	}
}

func large(t *testing.T, e *env) {
	rnd := rand.NewChaCha8([32]byte{1})
	payload := make([]byte, 3<<20)
	_, _ = rnd.Read(payload)
	r := core.Record{Time: time.Unix(1, 0), Kind: core.KindBytes, Direction: core.FromClient, Facts: []byte("{}"), Wire: payload}
	p := ledger.AppendPiece(nil, ledger.AppendRecord(nil, &r, 0, nil), false)
	b, err := ledger.NewEncoder().Encode(core.BlockHeader{Session: "a"}, 0, p)
	if err != nil {
		t.Fatal(err)
	}
	e.put(b)
	e.reopen()
	e.want("a", []core.Block{b})
}

// removal is for stores that can remove sessions: a removed one is unknown, also after a restart, and may be stored again.
// The others are what they were. A store that locks what it is given says so, and keeps all of it.
func removal(t *testing.T, e *env) {
	r, ok := e.s.(interface {
		Remove(ctx context.Context, sessions []string) error
	})
	if !ok {
		t.Skip("this store removes nothing")
	}
	a, b, c := Session("a", 5, 1), Session("b", 6, 2), Session("c", 4, 3)
	e.put(a[:2]...)
	e.put(append(slices.Clone(b[:3]), a[2:4]...)...)
	e.put(append(append(slices.Clone(c), a[4:]...), b[3:]...)...)
	err := r.Remove(t.Context(), []string{"a", "c", "never heard of"})
	var locked *segment.Locked
	if errors.As(err, &locked) {
		if locked.Parts == 0 || !locked.Until.After(time.Now()) {
			t.Errorf("locked: %+v", locked)
		}
		e.want("a", a)
		e.want("b", b)
		e.want("c", c)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		e.want("b", b)
		for _, id := range []string{"a", "c"} {
			if err := e.s.Blocks(t.Context(), id, func(core.Block) error { return nil }); !errors.Is(err, core.ErrNoSession) {
				t.Errorf("%s: %v", id, err)
			}
		}
		if got := e.sessions(); len(got) != 1 {
			t.Errorf("sessions: %q", got)
		}
		if d, ok := e.s.(ledger.Checker); ok {
			if damage, err := d.Damage(t.Context()); err != nil || len(damage) > 0 {
				t.Errorf("damage: %q, %v", damage, err)
			}
		}
		e.reopen()
	}
	e.put(c...)
	e.want("c", c)
}

// keys checks a store that keeps the records of recording keys as well.
func keys(t *testing.T, e *env) {
	type keeper interface {
		PutKey(ctx context.Context, name string, record []byte) error
		Key(ctx context.Context, name string) ([]byte, error)
		Keys(ctx context.Context, f func(name string) error) error
		DropKey(ctx context.Context, name string) error
	}
	s, ok := e.s.(keeper)
	if !ok {
		t.Fatal("the store keeps no recording keys")
	}
	ctx := context.Background()
	list := func() (names []string) {
		t.Helper()
		if err := s.Keys(ctx, func(n string) error { names = append(names, n); return nil }); err != nil {
			t.Fatal(err)
		}
		slices.Sort(names)
		return names
	}
	a, b := ledger.NewRecordingKey().ID.String(), ledger.NewRecordingKey().ID.String()
	if n := list(); len(n) != 0 {
		t.Fatalf("an empty store lists %q", n)
	}
	if _, err := s.Key(ctx, a); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a key that is not there: %v", err)
	}
	for _, bad := range []string{"", "..", "a", a + "0", "../" + a, strings.ToUpper(a[:31]) + "G"} {
		if s.PutKey(ctx, bad, []byte("x")) == nil || s.DropKey(ctx, bad) == nil {
			t.Errorf("%q can name a key", bad)
		}
	}
	for name, record := range map[string]string{a: "one", b: "two"} {
		if err := s.PutKey(ctx, name, []byte(record)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutKey(ctx, a, []byte("another")); err != nil {
		t.Fatal(err)
	}
	if err := e.s.Put(ctx, Session("a", 5, 1)); err != nil { // beside blocks
		t.Fatal(err)
	}
	e.reopen()
	s = e.s.(keeper)
	if got, err := s.Key(ctx, a); err != nil || string(got) != "another" {
		t.Fatalf("%q, %v", got, err)
	}
	if n := list(); len(n) != 2 {
		t.Fatalf("%q", n)
	}
	for range 2 { // the second finds nothing, and that is no error
		if err := s.DropKey(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Key(ctx, a); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a key that was dropped: %v", err)
	}
	if n := list(); len(n) != 1 || n[0] != b {
		t.Fatalf("%q", n)
	}
	if damage, err := e.s.(ledger.Checker).Damage(ctx); err != nil || len(damage) != 0 {
		t.Fatalf("damage: %q, %v", damage, err)
	}
}
