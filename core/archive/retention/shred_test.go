package retention

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/file"
	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
)

// vaulted is a place whose sessions are encrypted.
type vaulted struct {
	*place
	id   *age.X25519Identity
	keys map[string]*ledger.RecordingKey // by subject and issuer
}

func encrypted(t *testing.T, dir string, id *age.X25519Identity, wrap func(core.Store) core.Store) *vaulted {
	t.Helper()
	p := open(t, dir, wrap)
	var keys keyring.Store = p.store
	if s, ok := p.k.c.Stores[0].Store.(keyring.Store); ok {
		keys = s
	}
	p.k.c.Keys = keyring.New(keys, id)
	p.k.c.Recipients = func() ([]age.Recipient, error) { return []age.Recipient{id.Recipient()}, nil }
	return &vaulted{place: p, id: id, keys: map[string]*ledger.RecordingKey{}}
}

// add stores a session of a subject, sealed or open.
func (p *vaulted) add(id, subject, issuer string, made time.Time, seal bool) {
	p.t.Helper()
	ctx := context.Background()
	key := p.keys[subject+issuer]
	if key == nil {
		k, record, err := keyring.Make(keyring.Record{Subject: subject, Issuer: issuer, Created: made}, p.id.Recipient())
		if err != nil {
			p.t.Fatal(err)
		}
		if err := p.store.PutKey(ctx, k.ID.String(), record); err != nil {
			p.t.Fatal(err)
		}
		key, p.keys[subject+issuer] = k, k
	}
	enc, data := ledger.NewEncoder(), key.Session(id)
	var blocks []core.Block
	var prev [32]byte
	for _, plain := range session(p.t, id, "orders") {
		h, err := ledger.ParseBlock(plain.Bytes)
		if err != nil {
			p.t.Fatal(err)
		}
		payload, err := h.Payload(nil)
		if err != nil {
			p.t.Fatal(err)
		}
		h.Prev = prev
		var b core.Block
		if !h.Seal {
			b, err = enc.EncodeSecret(h.BlockHeader, 0, 0, payload, data)
		} else if seal {
			b, err = enc.Encode(h.BlockHeader, 0, ledger.AppendSeal(nil, ledger.Seal{End: core.EndClosed, Records: 4, Blocks: 5, Root: prev, Time: now}))
		} else {
			break
		}
		if err != nil {
			p.t.Fatal(err)
		}
		prev = b.Hash
		blocks = append(blocks, b)
	}
	err := p.store.Put(ctx, blocks)
	if err == nil {
		clear := slices.Clone(blocks)
		for i := range clear {
			if clear[i], err = p.k.c.Keys.Clear(ctx, clear[i]); err != nil {
				p.t.Fatal(err)
			}
		}
		err = p.index.Add(ctx, p.store, clear)
	}
	if err == nil && seal {
		err = p.l.Append(ledger.LeafOf(blocks[len(blocks)-1], core.EndClosed, now))
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// read returns how many records of a session can be read.
func (p *vaulted) read(id string) (n int) {
	r := keyring.Reader{Store: p.store, Ring: keyring.New(p.store, p.id)}
	var dec ledger.Decoder
	_ = r.Blocks(context.Background(), id, func(b core.Block) error {
		h, err := ledger.ParseBlock(b.Bytes)
		if err != nil {
			return err
		}
		return dec.Decode(&h, func(*core.Record, time.Duration) error { n++; return nil })
	})
	return n
}

func (p *vaulted) proved(keys ledger.Keys) ledger.Report {
	p.t.Helper()
	s, err := file.Open(filepath.Join(p.dir, "archive"), file.Options{ReadOnly: true})
	if err != nil {
		p.t.Fatal(err)
	}
	defer s.Close()
	r, err := ledger.Verify(context.Background(), ledger.VerifyConfig{Store: s, LedgerDir: filepath.Join(p.dir, "ledger"), PublicKey: p.l.PublicKey(), Keys: keys, Grace: time.Millisecond})
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

func identity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestShred(t *testing.T) {
	ctx := context.Background()
	p := encrypted(t, t.TempDir(), identity(t), nil)
	old := now.Add(-2 * time.Hour)
	p.add("a1", "ada", "weir", old, true)
	p.add("a2", "ada", "weir", old, true)
	p.add("a3", "ada", "okta", old, true) // another ada
	p.add("e1", "eve", "weir", old, true)
	p.add("y1", "young", "weir", now.Add(-time.Minute), true)
	p.add("o1", "open", "weir", old, false)
	keys := keyring.New(p.store, p.id)
	if r := p.proved(keys); !r.OK() || r.Unread != 0 || r.Records != 24 {
		t.Fatalf("at first: %+v", r)
	}
	if r := p.proved(nil); !r.OK() || r.Unread != 6 || r.Records != 24 {
		t.Fatalf("without keys: %+v", r)
	}
	if r := p.proved(keyring.New(p.store, identity(t))); !r.OK() || r.Unread != 6 {
		t.Fatalf("with a stranger's: %+v", r)
	}
	shred := func(subject, issuer string, dry bool) (Shredded, error) {
		return p.k.Shred(ctx, "dpo", "request 17", subject, issuer, now, time.Hour, dry)
	}
	for _, subject := range []string{"", "nobody"} {
		if _, err := shred(subject, "", false); err == nil {
			t.Errorf("%q was shredded", subject)
		}
	}
	if r, err := shred("ada", "weir", true); err != nil || len(r.Sessions) != 2 || r.Keys != 1 || p.read("a1") != 4 {
		t.Fatalf("dry: %+v, %v", r, err)
	}
	if err := p.k.Hold(ctx, "counsel", "case", "a2"); err != nil {
		t.Fatal(err)
	}
	if _, err := shred("ada", "", false); !errors.Is(err, ledger.ErrHeld) || p.read("a1") != 4 || p.read("a3") != 4 {
		t.Fatalf("under hold: %v, %d", err, p.read("a1"))
	}
	if err := p.k.Release(ctx, "counsel", "closed", "a2"); err != nil {
		t.Fatal(err)
	}
	if r, err := shred("young", "", false); err != nil || r.Keys != 0 || len(r.Waits) != 1 || !r.Waits[0].Until.Equal(now.Add(59*time.Minute)) || p.read("y1") != 4 {
		t.Fatalf("a key that may be in use: %+v, %v", r, err)
	}
	if r, err := shred("open", "", false); err != nil || r.Keys != 0 || len(r.Waits) != 1 || len(r.Waits[0].Open) != 1 || p.read("o1") != 4 {
		t.Fatalf("an open session: %+v, %v", r, err)
	}
	r, err := shred("ada", "weir", false)
	slices.Sort(r.Sessions)
	if err != nil || strings.Join(r.Sessions, " ") != "a1 a2" || r.Keys != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	for id, want := range map[string]int{"a1": 0, "a2": 0, "a3": 4, "e1": 4} {
		if got := p.read(id); got != want {
			t.Errorf("%s: %d records can be read, want %d", id, got, want)
		}
	}
	v := p.proved(keyring.New(p.store, p.id))
	if !v.OK() || v.Sessions != 6 || v.Unread != 2 || len(v.Shredded) != 2 || v.Shredded[0].By != "dpo" || v.Shredded[0].Why != "request 17" || v.Shredded[0].Left != 0 {
		t.Fatalf("afterwards: %+v", v)
	}
	for id, want := range map[string]int{"a1 1": 0, "a3 1": 1} { // what the index had of them is gone
		list, err := p.index.Sessions(ctx, index.Query{Grep: id})
		if err != nil || len(list) != want {
			t.Errorf("grep %q: %d, %v", id, len(list), err)
		}
	}
	if list, err := p.index.Sessions(ctx, index.Query{}); err != nil || len(list) != 6 {
		t.Errorf("listed: %d, %v", len(list), err)
	}
	if _, err := shred("ada", "weir", false); !errors.Is(err, ErrNoSubject) {
		t.Errorf("twice: %v", err)
	}
	// A key that goes without a word in the log is told, by whoever has the others.
	if err := p.store.DropKey(ctx, p.keys["eveweir"].ID.String()); err != nil {
		t.Fatal(err)
	}
	if v := p.proved(keyring.New(p.store, p.id)); v.OK() || v.Problems[0].Session != "e1" || !strings.Contains(v.Problems[0].Text, "is gone") {
		t.Fatalf("a key that was stolen away: %+v", v)
	}
	// A shredded session's blocks still count: a changed one shows, and the session can be removed in its time.
	if _, err := p.k.Purge(ctx, "ops", now.Add(401*day), false); err != nil {
		t.Fatal(err)
	}
	if got := p.sessions(); got != "o1" {
		t.Errorf("left: %s", got)
	}
}

// dying is a store that stops at one of the steps of a shredding.
type dying struct {
	*file.Store
	drops int
}

func (d *dying) DropKey(ctx context.Context, name string) error {
	if d.drops--; d.drops < 0 {
		return errors.New("killed")
	}
	return d.Store.DropKey(ctx, name)
}

// A shredding that a crash cuts short is ended by doing it again, and nothing is ever unproved.
func TestShredCutShort(t *testing.T) {
	ctx := context.Background()
	for drops := range 4 {
		t.Run(fmt.Sprint(drops), func(t *testing.T) {
			var d *dying
			p := encrypted(t, t.TempDir(), identity(t), func(s core.Store) core.Store { d = &dying{s.(*file.Store), drops}; return d })
			for i, issuer := range []string{"a", "b", "c"} {
				p.add(fmt.Sprint("s", i), "ada", issuer, now.Add(-2*time.Hour), true)
			}
			// What a crash left of a session has a key of its own, which is found by the session's first.
			rest, record, err := keyring.Make(keyring.Record{Session: "s1", Created: now}, p.id.Recipient())
			if err == nil {
				err = p.store.PutKey(ctx, rest.ID.String(), record)
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.k.Shred(ctx, "dpo", "x", "ada", "", now, time.Hour, false); err == nil {
				t.Fatal("it was not cut short")
			}
			if v := p.proved(keyring.New(p.store, p.id)); !v.OK() {
				t.Fatalf("cut short: %+v", v.Problems)
			}
			d.drops = 100
			if _, err := p.k.Shred(ctx, "dpo", "x", "ada", "", now, time.Hour, false); err != nil {
				t.Fatal(err)
			}
			if err := p.store.Keys(ctx, func(name string) error { return fmt.Errorf("key %s is there still", name) }); err != nil {
				t.Error(err)
			}
			for i := range 3 {
				if id := fmt.Sprint("s", i); p.read(id) != 0 {
					t.Errorf("%s can be read", id)
				}
			}
			v := p.proved(keyring.New(p.store, p.id))
			if !v.OK() || len(v.Shredded) != 3 {
				t.Fatalf("%+v", v)
			}
			if list, err := p.index.Sessions(ctx, index.Query{Grep: "xxx"}); err != nil || len(list) != 0 {
				t.Errorf("the index has %d, %v", len(list), err)
			}
		})
	}
}
