package ledger

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/weir-gateway/weir/core"
)

// Names of the files inside a ledger directory.
const (
	leavesFile     = "leaves"     // one leaf a line; append-only; the log itself
	hashesFile     = "hashes"     // the log's inner hashes; derived from leaves
	checkpointFile = "checkpoint" // the newest signed checkpoint
	lockFile       = "lock"
)

// Ledger is the append-only log of seals and heads. One process writes it at a time. Safe for concurrent use.
type Ledger struct {
	dir  string
	keys KeyConfig

	mu     sync.Mutex
	lock   *os.File
	leaves *os.File
	hashes *os.File
	end    int64 // bytes of leaves
	size   int64 // number of leaves
	sealed map[[16]byte][32]byte
	kept   map[[16]byte]standing // sessions to which something was done
	key    *signingKey
	known  []string // public keys: the present one and those before it
	newest string   // public key that a leaf names
	signed []byte   // the newest checkpoint
	covers int64    // leaves that it was signed for
	failed error    // a write failed: final

	destroyed map[KeyID]Destroyed
}

// Open opens the log in dir for writing, and makes it and its key where there is none. It refuses a log that does not
// match its own signed checkpoint.
func Open(dir, keyDir string) (*Ledger, error) { return OpenWith(dir, KeyConfig{Dir: keyDir}) }

// OpenWith is Open with a key that may be elsewhere.
func OpenWith(dir string, keys KeyConfig) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	l := &Ledger{dir: dir, keys: keys, sealed: map[[16]byte][32]byte{}, kept: map[[16]byte]standing{}}
	if err := l.open(); err != nil {
		l.closeFiles()
		return nil, err
	}
	return l, nil
}

func (l *Ledger) open() (err error) {
	if l.lock, err = os.OpenFile(filepath.Join(l.dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if err := syscall.Flock(int(l.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("ledger: %s is in use by another process", l.dir)
	}
	if l.leaves, err = os.OpenFile(filepath.Join(l.dir, leavesFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if l.hashes, err = os.OpenFile(filepath.Join(l.dir, hashesFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if err := l.load(); err != nil {
		return err
	}
	if err := l.loadDestroyed(); err != nil {
		return err
	}
	if err := l.keys.settle(l.newest); err != nil {
		return err
	}
	if l.key, err = l.keys.open(); err != nil {
		return err
	}
	if l.newest != "" && l.newest != l.key.public {
		return fmt.Errorf("ledger: the log in %s goes on with another key than %s: restore both from the same backup", l.dir, filepath.Join(l.keys.Dir, pubFile))
	}
	if l.known, err = l.keys.earlier(); err != nil {
		return err
	}
	l.known = append([]string{l.key.public}, l.known...)
	l.signed, err = os.ReadFile(filepath.Join(l.dir, checkpointFile))
	if errors.Is(err, fs.ErrNotExist) && l.size == 0 {
		return l.checkpoint()
	}
	if err != nil {
		return fmt.Errorf("ledger: checkpoint: %w", err)
	}
	c, err := OpenCheckpoint(l.signed, l.known...)
	if err != nil {
		return err
	}
	l.covers = c.Size
	if c.Size > l.size {
		return fmt.Errorf("ledger: %s has %d leaves, its checkpoint was signed for %d: leaves were cut off; restore them", l.dir, l.size, c.Size)
	}
	root, err := l.root(c.Size)
	if err != nil {
		return err
	}
	if root != c.Root {
		return fmt.Errorf("ledger: the leaves in %s are not those that its checkpoint was signed for; restore them", l.dir)
	}
	if c.Size < l.size { // the process ended between a leaf and its checkpoint
		return l.checkpoint()
	}
	return nil
}

// load reads the leaves, drops a torn last line, and computes the inner hashes anew.
func (l *Ledger) load() error {
	r := bufio.NewReaderSize(l.leaves, 1<<20)
	w := &memory{}
	for {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			break // what is left was never acknowledged
		}
		if err != nil {
			return fmt.Errorf("ledger: leaves: %w", err)
		}
		line = line[:len(line)-1]
		leaf, err := parseLeaf(line)
		if err != nil {
			return fmt.Errorf("ledger: leaf %d in %s: %w; restore the file", l.size, l.dir, err)
		}
		if leaf.Kind == LeafKey {
			l.newest = leaf.NewKey
		}
		if leaf.Kind == LeafSeal {
			l.sealed[sessionKey(leaf.Session)] = leaf.Hash
		}
		if leaf.Kind.deed() {
			k := sessionKey(leaf.Session)
			l.kept[k] = l.kept[k].with(leaf.Kind)
		}
		if err := w.add(l.size, []byte(line)); err != nil {
			return err
		}
		l.end += int64(len(line)) + 1
		l.size++
	}
	if err := l.leaves.Truncate(l.end); err != nil {
		return fmt.Errorf("ledger: leaves: %w", err)
	}
	b := make([]byte, 0, len(w.hashes)*tlog.HashSize)
	for _, h := range w.hashes {
		b = append(b, h[:]...)
	}
	if err := l.hashes.Truncate(int64(len(b))); err != nil {
		return fmt.Errorf("ledger: hashes: %w", err)
	}
	if _, err := l.hashes.WriteAt(b, 0); err != nil {
		return fmt.Errorf("ledger: hashes: %w", err)
	}
	return nil
}

func sessionKey(id string) [16]byte {
	h := sha256.Sum256([]byte(id))
	return [16]byte(h[:16])
}

// PublicKey returns the verifier key's text.
func (l *Ledger) PublicKey() string { return l.key.public }

// Rotate has the log signed with another key from now on, one that is made, or the newest version of the Remote's. Who has
// the old public key finds the new one in the log, signed with the old. It returns the new public key.
func (l *Ledger) Rotate() (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return "", l.failed
	}
	next, err := l.keys.make(l.key.Name())
	if err != nil {
		return "", err
	}
	if next.public == l.key.public {
		return "", fmt.Errorf("ledger: the newest version of the key %s in the Vault signs already: rotate it there first", l.keys.Name)
	}
	if err := l.keys.write(next, nextFile); err != nil {
		return "", err
	}
	leaf := Leaf{Kind: LeafKey, OldKey: l.key.public, NewKey: next.public, Time: time.Now().UTC()}
	if leaf.Signature, err = l.key.Sign(leaf.keyMessage(nil)); err != nil {
		return "", fmt.Errorf("ledger: %w", err)
	}
	line := leaf.appendLine(nil)
	if _, err := parseLeaf(string(line)); err != nil {
		return "", fmt.Errorf("ledger: %w", err)
	}
	if err := l.add(append(bytes.Clone(line), '\n'), [][]byte{line}); err != nil { // signed with the old key still
		return "", err
	}
	if err := l.keys.adopt(next); err != nil {
		l.failed = err // a start ends it
		return "", err
	}
	l.key, l.newest, l.known = next, next.public, append([]string{next.public}, l.known...)
	return next.public, l.checkpoint()
}

// Append adds one leaf; see AppendAll.
func (l *Ledger) Append(leaf Leaf) error { return l.AppendAll([]Leaf{leaf}) }

// AppendAll adds leaves and signs a new checkpoint; when it returns nil both are durable. Where signing alone has failed, it is
// to be called again. The seal of a session that
// is sealed already is passed over when it is the same, and is an error that names the session and wraps core.ErrFork
// when it is not; then nothing is added. The tombstone of a session that has it already is passed over; one of a
// session that is held is an error that wraps ErrHeld.
func (l *Ledger) AppendAll(leaves []Leaf) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return l.failed
	}
	var text []byte
	var lines [][]byte
	fresh, deeds := map[[16]byte][32]byte{}, map[[16]byte]standing{}
	for i := range leaves {
		leaf := &leaves[i]
		if leaf.Kind == LeafSeal {
			k := sessionKey(leaf.Session)
			h, ok := l.sealed[k]
			if !ok {
				h, ok = fresh[k]
			}
			if ok && h != leaf.Hash {
				return fmt.Errorf("ledger: session %s is sealed already with another hash: %w", leaf.Session, core.ErrFork)
			}
			if ok {
				continue
			}
			fresh[k] = leaf.Hash
		}
		if leaf.Kind.deed() {
			k := sessionKey(leaf.Session)
			is, ok := deeds[k]
			if !ok {
				is = l.kept[k]
			}
			next, err := is.after(leaf)
			if err != nil {
				return err
			}
			if next == is {
				continue
			}
			deeds[k] = next
		}
		line := leaf.appendLine(nil)
		if _, err := parseLeaf(string(line)); err != nil {
			return fmt.Errorf("ledger: leaf of session %s: %w", leaf.Session, err)
		}
		lines = append(lines, line)
		text = append(append(text, line...), '\n')
	}
	if len(lines) > 0 {
		if err := l.write(text, lines); err != nil {
			l.failed = fmt.Errorf("ledger: %w", err) // what is on the disk is unknown now
			return l.failed
		}
		for k, h := range fresh {
			l.sealed[k] = h
		}
		for k, s := range deeds {
			l.kept[k] = s
		}
	}
	if l.covers == l.size {
		return nil
	}
	return l.checkpoint()
}

// add writes leaves and signs for them.
func (l *Ledger) add(text []byte, lines [][]byte) error {
	if err := l.write(text, lines); err != nil {
		l.failed = fmt.Errorf("ledger: %w", err)
		return l.failed
	}
	return l.checkpoint()
}

// write makes leaves durable.
func (l *Ledger) write(text []byte, lines [][]byte) error {
	if _, err := l.leaves.WriteAt(text, l.end); err != nil {
		return err
	}
	if err := l.leaves.Sync(); err != nil {
		return err
	}
	l.end += int64(len(text))
	for _, line := range lines {
		hashes, err := tlog.StoredHashes(l.size, line, l)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		for _, h := range hashes {
			b.Write(h[:])
		}
		if _, err := l.hashes.WriteAt(b.Bytes(), tlog.StoredHashCount(l.size)*tlog.HashSize); err != nil {
			return err
		}
		l.size++
	}
	return nil
}

// checkpoint signs the present size and root. A key that is elsewhere may not answer: then the leaves are there, and it is
// called again.
func (l *Ledger) checkpoint() error {
	root, err := l.root(l.size)
	if err != nil {
		l.failed = fmt.Errorf("ledger: %w", err)
		return l.failed
	}
	signed, err := Checkpoint{Origin: l.key.Name(), Size: l.size, Root: root}.sign(l.key)
	if err != nil {
		return fmt.Errorf("ledger: the log is not signed: %w", err)
	}
	if err := writeFile(filepath.Join(l.dir, checkpointFile), signed, 0o644); err != nil {
		l.failed = fmt.Errorf("ledger: %w", err)
		return l.failed
	}
	l.signed, l.covers = signed, l.size
	return nil
}

func (l *Ledger) root(size int64) (tlog.Hash, error) {
	if size == 0 {
		return sha256.Sum256(nil), nil // RFC 6962, section 2.1
	}
	return tlog.TreeHash(size, l)
}

// Checkpoint returns the newest signed checkpoint. Kept elsewhere, it shows later that nothing was rolled back.
func (l *Ledger) Checkpoint() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.signed)
}

// Holds reports whether a signed checkpoint is one of this log: signed with its key, and over leaves that it has.
func (l *Ledger) Holds(signed []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return l.failed
	}
	c, err := OpenCheckpoint(signed, l.known...)
	if err != nil {
		return err
	}
	if c.Size > l.size {
		return fmt.Errorf("ledger: %s has %d leaves, %d were signed: it is an old copy, or one that stopped", l.dir, l.size, c.Size)
	}
	root, err := l.root(c.Size)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if root != c.Root {
		return fmt.Errorf("ledger: the first %d leaves in %s are not those that were signed: it is a copy that has grown by itself", c.Size, l.dir)
	}
	return nil
}

// ReadHashes implements tlog.HashReader over the file of inner hashes.
func (l *Ledger) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	return readHashes(l.hashes, indexes)
}

func readHashes(f *os.File, indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if _, err := f.ReadAt(out[i][:], x*tlog.HashSize); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Close releases the files. What was appended is durable already.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = errors.New("ledger: closed")
	}
	return l.closeFiles()
}

func (l *Ledger) closeFiles() error {
	var errs []error
	for _, f := range []**os.File{&l.leaves, &l.hashes, &l.lock} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}

// memory is a log's inner hashes in memory.
type memory struct{ hashes []tlog.Hash }

// ReadHashes implements tlog.HashReader.
func (m *memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(m.hashes)) {
			return nil, errors.New("ledger: inner hash out of range")
		}
		out[i] = m.hashes[x]
	}
	return out, nil
}

func (m *memory) add(n int64, data []byte) error {
	h, err := tlog.StoredHashes(n, data, m)
	if err != nil {
		return fmt.Errorf("ledger: inner hashes: %w", err)
	}
	m.hashes = append(m.hashes, h...)
	return nil
}

func (m *memory) root(size int64) (tlog.Hash, error) {
	if size == 0 {
		return sha256.Sum256(nil), nil
	}
	return tlog.TreeHash(size, m)
}

var (
	_ tlog.HashReader = (*Ledger)(nil)
	_ tlog.HashReader = (*memory)(nil)
)
