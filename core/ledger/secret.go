package ledger

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/weir-gateway/weir/core"
)

// A block's payload may be encrypted with the session's data key (AES-256-GCM). The data key is derived from a recording
// key, which encrypts the sessions of one subject for a while and is kept apart from the archive's blocks: whoever deletes
// it leaves blocks that nobody can read and that are proved as before, since hash and chain are those of what is stored.
// A seal is never encrypted: it holds nothing of what was recorded.

// ErrNoKey says that a block is encrypted, and that its key is not here.
var ErrNoKey = errors.New("it is encrypted, and its key is not here")

// KeyID names a recording key: the first bytes of a hash of its secret.
type KeyID [16]byte

// String returns it in hexadecimal.
func (k KeyID) String() string { return hex.EncodeToString(k[:]) }

// ParseKeyID reads what String wrote.
func ParseKeyID(s string) (id KeyID, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) || hex.EncodeToString(b) != s {
		return id, errors.New("ledger: it names no recording key")
	}
	return KeyID(b), nil
}

const keySize = 32

// RecordingKey is what data keys are derived from.
type RecordingKey struct {
	ID     KeyID
	secret [keySize]byte
}

// NewRecordingKey makes a key.
func NewRecordingKey() *RecordingKey {
	var b [keySize]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand crashes the process instead
	k, _ := ParseRecordingKey(b[:])
	return k
}

// ParseRecordingKey makes a key of its secret.
func ParseRecordingKey(secret []byte) (*RecordingKey, error) {
	if len(secret) != keySize {
		return nil, fmt.Errorf("ledger: a recording key has %d bytes", keySize)
	}
	sum := sha256.Sum256(append([]byte("weir recording key\n"), secret...))
	return &RecordingKey{ID: KeyID(sum[:]), secret: [keySize]byte(secret)}, nil
}

// Secret returns the key's secret. It is to be wrapped and nothing else.
func (k *RecordingKey) Secret() []byte { return bytes.Clone(k.secret[:]) }

// DataKey encrypts the blocks of one session. Safe for concurrent use.
type DataKey struct {
	ID   KeyID
	aead cipher.AEAD
	raw  [keySize]byte
}

// Session derives the data key of a session.
func (k *RecordingKey) Session(id string) *DataKey {
	raw, err := hkdf.Key(sha256.New, k.secret[:], nil, "weir session "+id, keySize)
	if err != nil {
		panic("ledger: deriving a key: " + err.Error()) // constants only
	}
	d, _ := ParseDataKey(k.ID, raw)
	return d
}

// ParseDataKey makes a data key of what Raw returned.
func ParseDataKey(id KeyID, raw []byte) (*DataKey, error) {
	if len(raw) != keySize {
		return nil, fmt.Errorf("ledger: a data key has %d bytes", keySize)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return &DataKey{ID: id, aead: aead, raw: [keySize]byte(raw)}, nil
}

// Raw returns the key itself, which opens one session and no other.
func (k *DataKey) Raw() []byte { return bytes.Clone(k.raw[:]) }

// EncodeSecret is Encode with a key. Tail is the number of bytes of an unfinished record that are stored with the block
// and those before it: who has no key cannot count them.
func (e *Encoder) EncodeSecret(h core.BlockHeader, carry, tail uint64, payload []byte, key *DataKey) (core.Block, error) {
	if h.Seal {
		return core.Block{}, fmt.Errorf("ledger: block %d of %s: a seal is not encrypted", h.Number, h.Session)
	}
	return e.encode(h, carry, payload, func(b, plain []byte) []byte {
		b = binary.AppendUvarint(append(b, key.ID[:]...), tail)
		var nonce [12]byte
		_, _ = rand.Read(nonce[:])
		return key.aead.Seal(append(b, nonce[:]...), nonce[:], plain, b)
	}, len(key.ID)+uvarintLen(tail)+12+16)
}

// parseSecret reads what stands before an encrypted payload. B is the block as far as that.
func (h *Header) parseSecret(whole []byte) error {
	d := decoder{b: h.Stored}
	copy(h.Key[:], d.take(len(h.Key)))
	h.clearTail = d.uvarint()
	if d.err != nil || len(d.b) < 12+16 || h.clearTail > MaxRecord {
		return fmt.Errorf("ledger: block %d of %s: what stands before its ciphertext is malformed", h.Number, h.Session)
	}
	h.Stored, h.bound = d.b, whole[:len(whole)-len(d.b)]
	return nil
}

// Decrypt makes the payload of an encrypted block readable. On others it does nothing.
func (h *Header) Decrypt(key *DataKey) error {
	if !h.Secret {
		return nil
	}
	if key == nil || key.ID != h.Key {
		return fmt.Errorf("ledger: block %d of %s: %w", h.Number, h.Session, ErrNoKey)
	}
	plain, err := key.aead.Open(nil, h.Stored[:12], h.Stored[12:], h.bound)
	if err != nil {
		return fmt.Errorf("ledger: block %d of %s cannot be decrypted with the key that it names", h.Number, h.Session)
	}
	if h.Codec == codecRaw && h.Raw != uint64(len(plain)) {
		return fmt.Errorf("ledger: block %d of %s: payload has %d bytes, its header says %d", h.Number, h.Session, len(plain), h.Raw)
	}
	h.Secret, h.Stored, h.bound = false, plain, nil
	return nil
}

// Clear returns an encrypted block as one that is not, to be read: header and hash stay those of the block that is stored.
func Clear(b core.Block, key *DataKey) (core.Block, error) {
	h, err := ParseBlock(b.Bytes)
	if err != nil || !h.Secret {
		return b, err
	}
	if err := h.Decrypt(key); err != nil {
		return b, err
	}
	b.Bytes = append(appendHeader(make([]byte, 0, MaxHeader+len(h.Stored)), &h.BlockHeader, 0, h.Codec, h.Carry, h.Raw, len(h.Stored)), h.Stored...)
	return b, nil
}

func uvarintLen(v uint64) int {
	var b [binary.MaxVarintLen64]byte
	return binary.PutUvarint(b[:], v)
}

// Skip goes on behind a block that cannot be read, or that follows one that could not: what its header says of numbers is
// checked, and its seal is read. What follows has to be skipped as well, since records share facts with earlier ones.
func (d *Decoder) Skip(h *Header) error {
	if err := d.follows(h); err != nil {
		return err
	}
	tail, err := h.Tail()
	if err != nil {
		return err
	}
	if h.Seal {
		s, err := h.ReadSeal()
		if err != nil {
			return err
		}
		d.seal = &s
	}
	d.next, d.begun, d.part, d.skipped = h.LastSeq+1, tail > 0, nil, tail
	if d.begun {
		d.next--
	}
	d.Skips = true
	return nil
}
