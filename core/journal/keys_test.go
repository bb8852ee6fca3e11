package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
)

// ring makes recording keys, and opens those that the streams have the records of.
type ring struct {
	id   *age.X25519Identity
	mu   sync.Mutex
	made []keyring.Record
	fail error
}

func newRing(t *testing.T) *ring {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return &ring{id: id}
}

func (r *ring) make(subject, issuer, session string) (*ledger.RecordingKey, []byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return nil, nil, r.fail
	}
	rec := keyring.Record{Subject: subject, Issuer: issuer, Session: session, Created: time.Now()}
	r.made = append(r.made, rec)
	return keyring.Make(rec, r.id.Recipient())
}

// clear reads what the streams hold of a session: blocks in clear, and who owns their keys.
func (r *ring) clear(t *testing.T, js jetstream.JetStream, shards int, id string) (out []core.Block, owners []string) {
	t.Helper()
	records := map[ledger.KeyID]*keyring.Record{}
	raw := map[uint64][]byte{}
	ctx := context.Background()
	for i := range shards {
		s, err := js.Stream(ctx, streamName(uint8(i)))
		if err != nil {
			t.Fatal(err)
		}
		for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
			m, err := s.GetMsg(ctx, seq)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if keyring.Is(m.Data) {
				rec, err := keyring.Parse(m.Data)
				if err != nil || m.Subject != KeySubject(uint8(i), rec.ID) {
					t.Fatalf("%s: %v", m.Subject, err)
				}
				records[rec.ID] = rec
				continue
			}
			if m.Subject != Subject(uint8(i), id) {
				continue
			}
			h, err := ledger.ParseBlock(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			if h.Secret && records[h.Key] == nil {
				t.Fatalf("block %d came before its key", h.Number)
			}
			raw[h.Number] = m.Data
		}
	}
	for n := range uint64(len(raw)) {
		b, err := ledger.DecodeBlock(raw[n])
		if err != nil {
			t.Fatal(err)
		}
		h, err := ledger.ParseBlock(b.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if h.Secret == h.Seal {
			t.Errorf("block %d: encrypted %v, seal %v", n, h.Secret, h.Seal)
		}
		if h.Secret {
			rec := records[h.Key]
			key, err := rec.Open(r.id)
			if err != nil {
				t.Fatal(err)
			}
			if b, err = ledger.Clear(b, key.Session(id)); err != nil {
				t.Fatal(err)
			}
			owners = append(owners, rec.Subject+"/"+rec.Session)
		}
		out = append(out, b)
	}
	return out, owners
}

func opened(subject string) *core.Record {
	facts, _ := json.Marshal(map[string]any{"identity": core.Identity{Subject: subject, Issuer: "weir"}, "target": "t"})
	return &core.Record{Time: time.Now(), Kind: core.KindOpen, Direction: core.FromClient, Facts: facts}
}

func put(t *testing.T, r core.Recorder, rec *core.Record) {
	t.Helper()
	m, err := r.Record(context.Background(), rec)
	if err == nil {
		err = r.Settle(context.Background(), m)
	}
	if err != nil {
		t.Fatal(err)
	}
}

const canary = "kestrel-7f3a9c"

// What was recorded is nowhere in clear once JetStream has it: not in the streams, and not in the log.
func TestEncrypted(t *testing.T) {
	keys := newRing(t)
	c := small(t.TempDir())
	c.Keys = keys.make
	j := mustOpen(t, c)
	ids := map[string]string{}
	for _, subject := range []string{"ada", "ada", "eve"} {
		id := core.NewID(time.Now())
		ids[id] = subject
		r, err := j.Open(&core.Session{ID: id, Target: &core.Target{Promise: core.PromiseStrict}})
		if err != nil {
			t.Fatal(err)
		}
		put(t, r, opened(subject))
		for n := range 50 {
			put(t, r, record(uint64(n+1), fmt.Sprint(canary, n)))
		}
		put(t, r, record(51, canary+strings.Repeat("0123456789abcdef", 3<<16))) // over several blocks
		if err := r.Seal(core.EndClosed); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	for id, subject := range ids {
		blocks, owners := keys.clear(t, j.JetStream(), c.Shards, id)
		records, seal := read(t, blocks)
		if len(records) != 52 || seal == nil || seal.Records != 52 || owners[0] != subject+"/" {
			t.Errorf("session of %s: %d records, seal %v, keys of %q", subject, len(records), seal, owners)
		}
	}
	if len(keys.made) != 2 {
		t.Errorf("%d recording keys for two subjects", len(keys.made))
	}
	mustClose(t, j)
	err := filepath.WalkDir(c.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(canary)) {
			t.Errorf("%s holds it in clear", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// No key, no block: what cannot be encrypted stays in the log until it can.
func TestNoKey(t *testing.T) {
	keys := newRing(t)
	keys.fail = errors.New("the Vault is down")
	c := small(t.TempDir())
	c.Keys = keys.make
	j := mustOpen(t, c)
	defer mustClose(t, j)
	id := core.NewID(time.Now())
	r, err := j.Open(&core.Session{ID: id, Target: &core.Target{Promise: core.PromiseStrict}})
	if err != nil {
		t.Fatal(err)
	}
	put(t, r, opened("ada"))
	if err := r.Seal(core.EndClosed); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := j.Flush(ctx); err == nil {
		t.Fatal("flushed without a key")
	}
	if got := blocksIn(t, j.JetStream(), c.Shards, id); len(got) != 0 {
		t.Fatalf("%d blocks without a key", len(got))
	}
	keys.mu.Lock()
	keys.fail = nil
	keys.mu.Unlock()
	if err := j.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, owners := keys.clear(t, j.JetStream(), c.Shards, id); len(owners) != 1 || owners[0] != "ada/" {
		t.Fatalf("%q", owners)
	}
}

// A session that a later process ends is encrypted to its end: with a key of its own for what is left, if its beginning is in
// the archive already.
func TestEncryptedOverACrash(t *testing.T) {
	for _, stored := range []bool{true, false} {
		t.Run(fmt.Sprint("a block was stored: ", stored), func(t *testing.T) {
			keys := newRing(t)
			c := small(t.TempDir())
			c.Keys = keys.make
			j := mustOpen(t, c)
			id := core.NewID(time.Now())
			r, err := j.Open(&core.Session{ID: id, Target: &core.Target{Promise: core.PromiseStrict}})
			if err != nil {
				t.Fatal(err)
			}
			release := func() {}
			if !stored {
				release = stall(j)
			}
			put(t, r, opened("ada"))
			if stored {
				if err := j.Flush(context.Background()); err != nil {
					t.Fatal(err)
				}
				release = stall(j)
			}
			put(t, r, record(1, canary))
			if err := j.release(); err != nil { // as a kill would
				t.Fatal(err)
			}
			release()
			j = mustOpen(t, c)
			defer mustClose(t, j)
			if err := j.Flush(context.Background()); err != nil {
				t.Fatal(err)
			}
			blocks, owners := keys.clear(t, j.JetStream(), c.Shards, id)
			records, seal := read(t, blocks)
			if len(records) != 2 || seal == nil || seal.End != core.EndCrash {
				t.Fatalf("%d records, seal %v", len(records), seal)
			}
			want := "ada/"
			if stored {
				want += " /" + id
			}
			if got := strings.Join(owners, " "); got != want {
				t.Errorf("keys of %q, want %q", got, want)
			}
		})
	}
}

// Where recordings are encrypted the log, which holds them in clear, is removed soon after JetStream has them, though nothing
// else comes, and though a session stays open.
func TestLogIsWiped(t *testing.T) {
	for name, closed := range map[string]int{"one is over": 1, "all stay open": 0} {
		t.Run(name, func(t *testing.T) { wiped(t, closed) })
	}
}

// wiped records two sessions, of which so many are closed.
func wiped(t *testing.T, closed int) {
	keys := newRing(t)
	c := small(t.TempDir())
	c.Keys, c.KeyPeriod = keys.make, 50*time.Millisecond
	j := mustOpen(t, c)
	defer mustClose(t, j)
	for i := range 2 {
		r, err := j.Open(&core.Session{ID: core.NewID(time.Now()), Target: &core.Target{Promise: core.PromiseStrict}})
		if err != nil {
			t.Fatal(err)
		}
		put(t, r, opened("ada"))
		put(t, r, record(1, canary))
		if i < closed {
			if err := r.Seal(core.EndClosed); err != nil {
				t.Fatal(err)
			}
		}
	}
	inClear := func() (n int) {
		files, err := filepath.Glob(filepath.Join(c.Dir, "journal", "*"+segmentExt))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil { // gone is as good
				n += bytes.Count(b, []byte(canary))
			}
		}
		return n
	}
	if inClear() == 0 {
		t.Log("gone before it was looked for")
	}
	for end := time.Now().Add(30 * time.Second); inClear() > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the log holds records in clear after 30 s")
		}
	}
	if used := j.wal.position(); used > 100*uint64(c.SegmentSize) {
		t.Errorf("the log has gone on to %d for two sessions", used)
	}
}
