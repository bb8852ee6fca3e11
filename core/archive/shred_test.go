package archive

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/file"
	"github.com/weir-gateway/weir/core/archive/retention"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
)

// behind is a store that is given keys late.
type behind struct {
	*file.Store
	asked, let chan struct{}
}

func (b *behind) PutKey(ctx context.Context, name string, record []byte) error {
	select {
	case b.asked <- struct{}{}:
	default:
	}
	select {
	case <-b.let:
		return b.Store.PutKey(ctx, name, record)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A key that was destroyed stays away: from a store that was behind, whose messages still hold it, and where sessions come
// late that are encrypted with it. Those are proved, as others are.
func TestShreddedStaysAway(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	second, err := file.Open(filepath.Join(dir, "second"), file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	slow := &behind{second, make(chan struct{}, 1), make(chan struct{})}
	p := mustStartWith(t, dir, func(subject, issuer, session string) (*ledger.RecordingKey, []byte, error) {
		return keyring.Make(keyring.Record{Subject: subject, Issuer: issuer, Session: session, Created: time.Now()}, id.Recipient())
	}, Named{Name: "second", Store: slow})
	defer p.close(t)
	say(t, p.j, "a1", "ada", "select 1")
	say(t, p.j, "e1", "eve", "select 1")
	sealed := func(s core.Store, ids ...string) func() bool {
		return func() bool {
			n := 0
			for _, id := range ids {
				_ = s.Blocks(ctx, id, func(b core.Block) error { // what is not there yet comes
					if b.Header.Seal {
						n++
					}
					return nil
				})
			}
			return n == len(ids)
		}
	}
	await(t, "the first store has the sessions", sealed(p.store, "a1", "e1"))
	<-slow.asked // and the second holds a key in its hands

	k := retention.New(retention.Config{
		Stores: []retention.Store{{Name: "file", Store: p.store}, {Name: "second", Store: slow}},
		Index:  p.index, Ledger: p.ledger, Keys: keyring.New(p.store, id),
	})
	if r, err := k.Shred(ctx, "dpo", "request 17", "ada", "", time.Now().Add(2*time.Hour), time.Hour, false); err != nil || len(r.Sessions) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	close(slow.let)
	say(t, p.j, "a2", "ada", "select 2") // the gateway has not heard of it
	await(t, "both stores have all sessions", func() bool { return sealed(p.store, "a1", "e1", "a2")() && sealed(slow, "a1", "e1", "a2")() })
	if err := errors.Join(p.j.Flush(ctx), p.w.Drain(ctx)); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*file.Store{"file": p.store, "second": second} {
		names := 0
		if err := s.Keys(ctx, func(name string) error {
			names++
			key, err := ledger.ParseKeyID(name)
			if err != nil {
				return err
			}
			rec, err := keyring.Get(ctx, s, key)
			if err == nil && rec.Subject != "eve" {
				t.Errorf("store %s has %s's key again", key, rec.Subject)
			}
			return err
		}); err != nil || names == 0 {
			t.Errorf("store %s: %d keys, %v", name, names, err)
		}
		r, err := ledger.Verify(ctx, ledger.VerifyConfig{Store: s, LedgerDir: filepath.Join(dir, "ledger"), PublicKey: p.ledger.PublicKey(), Keys: keyring.New(s, id)})
		if err != nil || !r.OK() || r.Sessions != 3 || len(r.Shredded) != 2 || r.Unread != 2 {
			t.Errorf("store %s: %+v, %v", name, r, err)
		}
		for _, d := range r.Shredded {
			if d.By != "dpo" || d.Why != "request 17" || d.Left != 0 {
				t.Errorf("store %s: %+v", name, d)
			}
		}
	}
}

// await waits for something to become so.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after 30 s: %s", what)
		}
	}
}
