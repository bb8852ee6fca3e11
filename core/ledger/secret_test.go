package ledger

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// secretSession makes a session of two encrypted blocks, over which one record goes on, and its seal.
func secretSession(t *testing.T, id string, key *DataKey) []core.Block {
	t.Helper()
	e := NewEncoder()
	r := core.Record{Seq: 0, Time: time.Unix(1, 0), Kind: core.KindBytes, Direction: core.FromClient, Facts: []byte(`{"bytes":1}`), Wire: []byte("bluebird " + strings.Repeat("x", 2000))}
	b := AppendRecord(nil, &r, 0, nil)
	first, err := e.EncodeSecret(core.BlockHeader{Session: id}, 0, 1000, AppendPiece(nil, b[:1000], true), key)
	if err != nil {
		t.Fatal(err)
	}
	second, err := e.EncodeSecret(core.BlockHeader{Session: id, Number: 1, FirstSeq: 1, LastSeq: 0, Prev: first.Hash}, 1000, 0, AppendPiece(nil, b[1000:], false), key)
	if err != nil {
		t.Fatal(err)
	}
	seal, err := e.Encode(core.BlockHeader{Session: id, Number: 2, FirstSeq: 1, LastSeq: 0, Prev: second.Hash, Seal: true}, 0,
		AppendSeal(nil, Seal{End: core.EndClosed, Records: 1, Blocks: 3, Root: second.Hash, Time: time.Unix(2, 0)}))
	if err != nil {
		t.Fatal(err)
	}
	return []core.Block{first, second, seal}
}

func TestSecretBlocks(t *testing.T) {
	recording := NewRecordingKey()
	key := recording.Session("s1")
	blocks := secretSession(t, "s1", key)
	decode := func(open func(h *Header) error, skip bool) (records int, seal *Seal, err error) {
		var d Decoder
		for _, b := range blocks {
			h, err := ParseBlock(b.Bytes)
			if err == nil && skip {
				err = d.Skip(&h)
			} else if err == nil {
				if err = open(&h); err == nil {
					err = d.Decode(&h, func(r *core.Record, _ time.Duration) error {
						if records++; !bytes.HasPrefix(r.Wire, []byte("bluebird")) {
							t.Errorf("%.20q", r.Wire)
						}
						return nil
					})
				}
			}
			if err != nil {
				return records, nil, err
			}
		}
		return records, d.Seal(), nil
	}
	if n, seal, err := decode(func(h *Header) error { return h.Decrypt(key) }, false); err != nil || n != 1 || seal == nil {
		t.Fatalf("%d records, %v", n, err)
	}
	if n, seal, err := decode(nil, true); err != nil || n != 0 || seal == nil || seal.Records != 1 {
		t.Fatalf("skipped: %d records, %v", n, err)
	}
	if _, _, err := decode(func(*Header) error { return nil }, false); !errors.Is(err, ErrNoKey) {
		t.Errorf("without a key: %v", err)
	}
	again, err := ParseRecordingKey(recording.Secret())
	if err != nil || again.ID != recording.ID {
		t.Fatal(err)
	}
	for name, k := range map[string]*DataKey{"another session's": recording.Session("s2"), "another recording key's": NewRecordingKey().Session("s1"), "none": nil} {
		if _, _, err := decode(func(h *Header) error { return h.Decrypt(k) }, false); err == nil {
			t.Errorf("%s data key opens it", name)
		}
	}
	one, err := ParseDataKey(again.ID, again.Session("s1").Raw())
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range blocks {
		if bytes.Contains(b.Bytes, []byte("bluebird")) {
			t.Errorf("block %d holds the text", i)
		}
		plain, err := Clear(b, one)
		if err != nil || plain.Hash != b.Hash || plain.Header != b.Header {
			t.Fatalf("block %d: %v", i, err)
		}
		h, err := ParseBlock(plain.Bytes)
		if err != nil || h.Secret || h.BlockHeader != b.Header {
			t.Fatalf("block %d in clear: %+v, %v", i, h, err)
		}
	}
	// Whatever is changed shows: the ciphertext is bound to all that stands before it.
	for i := range blocks[0].Bytes {
		b := bytes.Clone(blocks[0].Bytes)
		b[i] ^= 0x10
		h, err := ParseBlock(b)
		if err == nil && h.Secret {
			err = h.Decrypt(key)
		} else if err == nil {
			_, err = h.Payload(nil)
		}
		if err == nil {
			t.Fatalf("byte %d is changed, and it decrypts", i)
		}
	}
	// A seal is in clear, so that everybody can count.
	if _, err := NewEncoder().EncodeSecret(core.BlockHeader{Session: "s1", Seal: true}, 0, 0, []byte("x"), key); err == nil {
		t.Error("a seal was encrypted")
	}
	b := bytes.Clone(blocks[2].Bytes)
	b[4] |= flagSecret
	if _, err := ParseBlock(b); err == nil {
		t.Error("an encrypted seal is a block")
	}
}

func TestKeyNames(t *testing.T) {
	id := NewRecordingKey().ID
	if got, err := ParseKeyID(id.String()); err != nil || got != id {
		t.Fatal(got, err)
	}
	for _, bad := range []string{"", "x", id.String()[1:], strings.ToUpper("a" + id.String()[1:]), id.String() + "00"} {
		if _, err := ParseKeyID(bad); err == nil {
			t.Errorf("%q names a key", bad)
		}
	}
	if NewRecordingKey().ID == id {
		t.Error("two keys of one name")
	}
}

// A lie about what an encrypted block holds of an unfinished record is found by whoever skips it.
func TestSkipCounts(t *testing.T) {
	key := NewRecordingKey().Session("s1")
	e := NewEncoder()
	first, _ := e.EncodeSecret(core.BlockHeader{Session: "s1"}, 0, 10, AppendPiece(nil, []byte("0123456789"), true), key)
	for carry, want := range map[uint64]bool{10: true, 0: false, 11: false} {
		second, err := e.EncodeSecret(core.BlockHeader{Session: "s1", Number: 1, FirstSeq: 1, LastSeq: 0, Prev: first.Hash}, carry, 0, AppendPiece(nil, []byte("x"), false), key)
		if err != nil {
			t.Fatal(err)
		}
		var d Decoder
		h, _ := ParseBlock(first.Bytes)
		err = d.Skip(&h)
		h, perr := ParseBlock(second.Bytes)
		if err = errors.Join(err, perr); err == nil {
			err = d.Skip(&h)
		}
		if (err == nil) != want {
			t.Errorf("carry %d: %v", carry, err)
		}
	}
}
