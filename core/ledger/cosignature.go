package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Signature types of C2SP signed-note, in a verifier key's first byte.
const (
	algEd25519     = 1
	algCosignature = 4 // cosignature/v1 with Ed25519
)

// cosignedFile begins the names of the files of cosigned checkpoints, one a witness; behind it is the hash of its key.
const cosignedFile = "cosigned-"

// Witness verifies the cosignatures of a witness: somebody else, who signs that a checkpoint goes on from every one of the
// same log that they signed before (C2SP tlog-witness, tlog-cosignature).
type Witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

// ParseWitness reads a witness's verifier key: name+hash+base64, of the type cosignature/v1 with Ed25519.
func ParseWitness(text string) (*Witness, error) {
	const give = "give the verifier key that the witness publishes, name+hash+base64"
	f := strings.SplitN(strings.TrimSpace(text), "+", 3)
	if len(f) != 3 || f[0] == "" || !utf8.ValidString(f[0]) || strings.ContainsFunc(f[0], func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return nil, errors.New("ledger: it is no verifier key: " + give)
	}
	hash, err := strconv.ParseUint(f[1], 16, 32)
	b, err2 := base64.StdEncoding.Strict().DecodeString(f[2])
	if err != nil || err2 != nil || len(f[1]) != 8 || len(b) < 2 {
		return nil, errors.New("ledger: it is no verifier key: " + give)
	}
	if b[0] == algEd25519 {
		return nil, errors.New("ledger: it is the key of a log, not one that a witness cosigns with: " + give)
	}
	if b[0] != algCosignature || len(b) != 1+ed25519.PublicKeySize {
		return nil, fmt.Errorf("ledger: a key of type %d is not known to this build, which knows cosignature/v1 with Ed25519 (4)", b[0])
	}
	if want := keyHash(f[0], b); uint32(hash) != want {
		return nil, fmt.Errorf("ledger: its hash is %s, and should be %08x: it was not copied whole", f[1], want)
	}
	return &Witness{name: f[0], hash: uint32(hash), key: ed25519.PublicKey(b[1:])}, nil
}

// keyHash is that of C2SP signed-note: of the name, a line feed, and the type and key.
func keyHash(name string, key []byte) uint32 {
	h := sha256.Sum256(append([]byte(name+"\n"), key...))
	return binary.BigEndian.Uint32(h[:])
}

// Name implements note.Verifier.
func (w *Witness) Name() string { return w.name }

// KeyHash implements note.Verifier.
func (w *Witness) KeyHash() uint32 { return w.hash }

// Same reports whether two are the same key, whatever it is called.
func (w *Witness) Same(o *Witness) bool { return w.key.Equal(o.key) }

// Verify implements note.Verifier. A cosignature is a time, in seconds, and a signature over it and the checkpoint.
func (w *Witness) Verify(msg, sig []byte) bool {
	at, ok := cosignedAt(sig)
	return ok && ed25519.Verify(w.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, msg), sig[8:])
}

func cosignedAt(sig []byte) (uint64, bool) {
	if len(sig) != 8+ed25519.SignatureSize {
		return 0, false
	}
	at := binary.BigEndian.Uint64(sig)
	return at, at != 0 && at <= math.MaxInt64
}

// file is the name of what is kept of it beside the log.
func (w *Witness) file() string { return fmt.Sprintf("%s%08x", cosignedFile, w.hash) }

// Cosigned is a checkpoint that a witness has cosigned.
type Cosigned struct {
	Checkpoint
	Time   time.Time // by the witness's clock
	Signed []byte    // the signed note: the log's signature and the witness's
}

// Open verifies a checkpoint that is signed with a public key of the log, and by the witness. Other signatures are left out of
// what it returns.
func (w *Witness) Open(signed []byte, publicKeys ...string) (Cosigned, error) {
	c := Cosigned{}
	var err error
	if c.Checkpoint, err = OpenCheckpoint(signed, publicKeys...); err != nil {
		return c, err
	}
	n, err := note.Open(signed, note.VerifierList(w))
	if err != nil {
		return c, fmt.Errorf("ledger: checkpoint is not cosigned by %s: %w", w.name, err)
	}
	cosignature := n.Sigs[0]
	raw, err := base64.StdEncoding.DecodeString(cosignature.Base64)
	if err != nil || len(raw) != 4+8+ed25519.SignatureSize {
		return c, errors.New("ledger: the cosignature is malformed")
	}
	c.Time = time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC()
	for _, s := range n.UnverifiedSigs { // the log's own
		if _, err := OpenCheckpoint([]byte(n.Text+"\n"+sigLine(s)), publicKeys...); err == nil {
			c.Signed = []byte(n.Text + "\n" + sigLine(s) + sigLine(cosignature))
			return c, nil
		}
	}
	return c, errors.New("ledger: the log's own signature is not among those of the checkpoint")
}

func sigLine(s note.Signature) string { return "— " + s.Name + " " + s.Base64 + "\n" }

// keysKnown returns the log's public keys, the present one first.
func (l *Ledger) keysKnown() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known
}

// OpenOwn verifies a signed checkpoint with the log's own keys.
func (l *Ledger) OpenOwn(signed []byte) (Checkpoint, error) {
	return OpenCheckpoint(signed, l.keysKnown()...)
}

// Consistency returns the proof that the first leaves of the log, as many as to, begin with as many as from (RFC 6962, section 2.1.2).
// It reads hashes that do not change any more, and holds nobody up.
func (l *Ledger) Consistency(from, to int64) ([]tlog.Hash, error) {
	l.mu.Lock()
	f, size := l.hashes, l.size
	l.mu.Unlock()
	if f == nil {
		return nil, errors.New("ledger: closed")
	}
	if from < 0 || from > to || to > size {
		return nil, fmt.Errorf("ledger: no proof from %d leaves to %d: the log has %d", from, to, size)
	}
	if from == 0 || from == to {
		return nil, nil
	}
	proof, err := tlog.ProveTree(to, from, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) { return readHashes(f, indexes) }))
	if err != nil {
		return nil, fmt.Errorf("ledger: proof from %d leaves to %d: %w", from, to, err)
	}
	return proof, nil
}

// Cosigned returns the newest checkpoint that a witness has cosigned. An error that wraps fs.ErrNotExist says that there is none.
func (l *Ledger) Cosigned(w *Witness) (Cosigned, error) {
	signed, err := readCosigned(l.dir, w)
	if err != nil {
		return Cosigned{}, err
	}
	return w.Open(signed, l.keysKnown()...)
}

// Cosign verifies the signature lines that a witness gave for a checkpoint of this log, and keeps the checkpoint with them
// where the newest that it has cosigned was. What is kept never gives way to one over fewer leaves.
func (l *Ledger) Cosign(w *Witness, signed, lines []byte) (Cosigned, error) {
	c, err := w.Open(append(bytes.Clone(signed), lines...), l.keysKnown()...)
	if err != nil {
		return c, err
	}
	if err := l.Holds(signed); err != nil {
		return c, err
	}
	if old, err := l.Cosigned(w); err == nil && old.Size > c.Size {
		return old, nil
	}
	if err := writeFile(filepath.Join(l.dir, w.file()), c.Signed, 0o644); err != nil {
		return c, fmt.Errorf("ledger: the cosigned checkpoint: %w", err)
	}
	return c, nil
}

var _ note.Verifier = (*Witness)(nil)
