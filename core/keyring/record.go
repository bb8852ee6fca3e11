// Package keyring keeps the recording keys that sessions are encrypted with: each encrypts the sessions of one subject for
// a while, is wrapped for those who may read them, and lies beside the archive's blocks. Deleting it shreds them.
//
// What a session is encrypted with is core/ledger's; what wraps a recording key is an age file (age-encryption.org/v1), so
// that an auditor needs the age command and the key's bytes, and nothing of Weir.
package keyring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"filippo.io/age"

	"github.com/weir-gateway/weir/core/ledger"
)

// MaxRecord bounds a record, in bytes.
const MaxRecord = 64 << 10

var magic = []byte("WRK\x01")

// Record is a recording key as it is kept.
type Record struct {
	ID      ledger.KeyID
	Subject string // whose sessions it encrypts
	Issuer  string // who names the subject
	// Session is set where the key is for what was left of one session when the process that had begun it was gone.
	Session string
	Gateway string
	Created time.Time
	Wrapped []byte // an age file that holds the key's secret
}

// stored is the form of a record.
type stored struct {
	Key     string    `json:"key"`
	Subject string    `json:"subject,omitempty"`
	Issuer  string    `json:"issuer,omitempty"`
	Session string    `json:"session,omitempty"`
	Gateway string    `json:"gateway"`
	Created time.Time `json:"created"`
	Wrapped []byte    `json:"wrapped"`
}

// Is reports whether b looks like a record.
func Is(b []byte) bool { return bytes.HasPrefix(b, magic) }

// Encode returns the record's form.
func (r *Record) Encode() ([]byte, error) {
	b, err := json.Marshal(stored{r.ID.String(), r.Subject, r.Issuer, r.Session, r.Gateway, r.Created.UTC(), r.Wrapped})
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	if len(b) > MaxRecord-len(magic) {
		return nil, fmt.Errorf("keyring: the record of key %s has more than %d bytes", r.ID, MaxRecord)
	}
	return append(bytes.Clone(magic), b...), nil
}

// Parse reads a record.
func Parse(b []byte) (*Record, error) {
	if !Is(b) || len(b) > MaxRecord {
		return nil, errors.New("keyring: it is no recording key of a version known to this build")
	}
	var s stored
	if err := json.Unmarshal(b[len(magic):], &s); err != nil {
		return nil, errors.New("keyring: the record of a recording key is malformed")
	}
	id, err := ledger.ParseKeyID(s.Key)
	if err != nil {
		return nil, errors.New("keyring: the record of a recording key has no name")
	}
	return &Record{id, s.Subject, s.Issuer, s.Session, s.Gateway, s.Created, s.Wrapped}, nil
}

// Make makes a key, and its record: wrapped for each of the recipients.
func Make(r Record, to ...age.Recipient) (*ledger.RecordingKey, []byte, error) {
	key := ledger.NewRecordingKey()
	r.ID = key.ID
	if err := r.wrap(key, to); err != nil {
		return nil, nil, err
	}
	b, err := r.Encode()
	return key, b, err
}

func (r *Record) wrap(key *ledger.RecordingKey, to []age.Recipient) error {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	if err == nil {
		_, err = w.Write(key.Secret())
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return fmt.Errorf("keyring: wrapping a recording key: %w", err)
	}
	r.Wrapped = b.Bytes()
	return nil
}

// Open unwraps the key. An error that wraps ledger.ErrLocked says that none of the identities fits.
func (r *Record) Open(with ...age.Identity) (*ledger.RecordingKey, error) {
	if len(with) == 0 {
		return nil, ledger.ErrLocked
	}
	in, err := age.Decrypt(bytes.NewReader(r.Wrapped), with...)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, ledger.ErrLocked
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: key %s: %w", r.ID, err)
	}
	secret, err := io.ReadAll(io.LimitReader(in, 1024))
	if err != nil {
		return nil, fmt.Errorf("keyring: key %s: %w", r.ID, err)
	}
	key, err := ledger.ParseRecordingKey(secret)
	if err != nil {
		return nil, err
	}
	if key.ID != r.ID {
		return nil, fmt.Errorf("keyring: the record of key %s holds key %s", r.ID, key.ID)
	}
	return key, nil
}
