package loopback

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"
)

// ErrNoKey says that the key of a session is not in the archive.
var ErrNoKey = errors.New("the archive does not have its key")

// KeyRecord is the record of a recording key, as core/ARCHIVE.md has it.
type KeyRecord struct {
	Key, Subject, Session string
	Wrapped               []byte
}

var keyMagic = []byte("WRK\x01")

// Open returns the recording key, with the key of one who may read.
func (r *KeyRecord) Open(with age.Identity) ([]byte, error) {
	plain, err := age.Decrypt(bytes.NewReader(r.Wrapped), with)
	if err != nil {
		return nil, err
	}
	key, err := io.ReadAll(plain)
	if sum := sha256.Sum256(append([]byte("weir recording key\n"), key...)); err == nil && hex.EncodeToString(sum[:16]) != r.Key {
		err = fmt.Errorf("the record of key %s has another one inside", r.Key)
	}
	return key, err
}

// KeyRecords calls f with each record of a recording key that stands anywhere in b.
func KeyRecords(b []byte, f func(KeyRecord)) {
	for {
		i := bytes.Index(b, keyMagic)
		if i < 0 {
			return
		}
		b = b[i+len(keyMagic):]
		var r KeyRecord
		if json.NewDecoder(bytes.NewReader(b[:min(len(b), 64<<10)])).Decode(&r) == nil && len(r.Wrapped) > 0 {
			f(r)
		}
	}
}

// recording returns a recording key by its name.
func (s *Stored) recording(name string) ([]byte, error) {
	if k := s.keys[name]; k != nil {
		return k, nil
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "keys", name+".key"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoKey
	}
	if err != nil {
		return nil, err
	}
	var found []byte
	KeyRecords(b, func(r KeyRecord) {
		if r.Key == name {
			found, err = r.Open(s.Reader)
		}
	})
	if err == nil && found == nil {
		err = fmt.Errorf("%s.key holds no record", name)
	}
	if err == nil {
		s.keys[name] = found
	}
	return found, err
}

// open decrypts a block's payload.
func (s *Stored) open(k *block) ([]byte, error) {
	if s.Reader == nil {
		return nil, errors.New("it is encrypted, and nobody said how to read it")
	}
	r := &reader{b: k.payload}
	name := hex.EncodeToString(r.take(16))
	r.uvarint() // the tail
	at := len(k.payload) - len(r.b)
	nonce := r.take(12)
	if r.err != nil {
		return nil, r.err
	}
	key, err := s.recording(name)
	if err != nil {
		return nil, err
	}
	data, err := hkdf.Key(sha256.New, key, nil, "weir session "+k.session, 32)
	if err != nil {
		return nil, err
	}
	c, err := aes.NewCipher(data)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(c)
	if err != nil {
		return nil, err
	}
	return gcm.Open(nil, nonce, r.b, append(bytes.Clone(k.clear), k.payload[:at]...))
}
