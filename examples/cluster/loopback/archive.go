package loopback

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// This file reads an archive as core/ARCHIVE.md describes it, and shares no line with Weir: what it finds, an auditor
// would find.

// Record is a record as it is stored.
type Record struct {
	Seq       uint64
	Kind      byte
	Direction byte
	Facts     []byte
	Wire      []byte
}

// The kinds and directions that the checks ask for.
const (
	KindOpen     = 1
	KindCommand  = 2
	FromClient   = 1
	FromUpstream = 2
)

// Seal is a session's end.
type Seal struct {
	End             string
	Records, Blocks uint64
}

// Stored is an archive's blocks by session: where each lies.
type Stored struct {
	Sessions map[string][]place
	Blocks   int
	Doubled  int // blocks that are there twice
	// Reader opens the recording keys; nil: nothing is encrypted.
	Reader age.Identity

	dir  string
	z    *zstd.Decoder
	keys map[string][]byte
}

type place struct {
	file   string
	at     int64
	size   int
	number uint64
	hash   [32]byte
}

// OpenArchive reads through all segments of a file store.
func OpenArchive(dir string) (*Stored, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.weir"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20))
	if err != nil {
		return nil, err
	}
	s := &Stored{Sessions: map[string][]place{}, dir: dir, z: z, keys: map[string][]byte{}}
	for i, f := range files {
		if err := s.scan(f, i == len(files)-1); err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
	}
	for id, all := range s.Sessions {
		slices.SortFunc(all, func(a, b place) int { return int(int64(a.number) - int64(b.number)) })
		kept := all[:0]
		for _, p := range all {
			if n := len(kept); n > 0 && kept[n-1].number == p.number {
				if kept[n-1].hash != p.hash {
					return nil, fmt.Errorf("session %s has two different blocks %d", id, p.number)
				}
				s.Doubled++
				continue
			}
			kept = append(kept, p)
		}
		s.Sessions[id] = kept
	}
	return s, nil
}

func (s *Stored) scan(path string, last bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var head [16]byte
	if _, err := io.ReadFull(f, head[:]); err != nil || string(head[:8]) != "WEIRSEG\x01" {
		return fmt.Errorf("no segment: %v", err)
	}
	at := int64(len(head))
	for {
		var h [40]byte
		n, err := io.ReadFull(f, h[:])
		if err == io.EOF {
			return nil
		}
		if err == nil && string(h[:4]) != "WBLK" {
			return fmt.Errorf("no frame at %d", at)
		}
		var b []byte
		if err == nil {
			b = make([]byte, binary.BigEndian.Uint32(h[4:]))
			n, err = io.ReadFull(f, b)
		}
		if err != nil {
			if last {
				return nil // a write under way
			}
			return fmt.Errorf("a torn frame at %d, %d bytes of it: %w", at, n, err)
		}
		p := place{file: path, at: at + 40, size: len(b), hash: [32]byte(h[8:40])}
		if sha256.Sum256(b) != p.hash {
			return fmt.Errorf("the block at %d is not the one that was stored", p.at)
		}
		k, err := parseBlock(b)
		if err != nil {
			return fmt.Errorf("the block at %d: %w", p.at, err)
		}
		p.number = k.number
		s.Sessions[k.session] = append(s.Sessions[k.session], p)
		s.Blocks++
		at += 40 + int64(len(b))
	}
}

// Differs says what another copy has not, or has otherwise: sessions and their blocks. Sessions that it may have besides, it may
// have in part.
func (s *Stored) Differs(other *Stored, may func(session string) bool) string {
	for id, mine := range s.Sessions {
		theirs := other.Sessions[id]
		if len(mine) != len(theirs) {
			return fmt.Sprintf("session %s has %d blocks and %d", id, len(mine), len(theirs))
		}
		for i := range mine {
			if mine[i].number != theirs[i].number || mine[i].hash != theirs[i].hash {
				return fmt.Sprintf("block %d of session %s is another", mine[i].number, id)
			}
		}
	}
	for id := range other.Sessions {
		if s.Sessions[id] == nil && !may(id) {
			return fmt.Sprintf("session %s is in one only", id)
		}
	}
	return ""
}

type block struct {
	seal, secret                bool
	codec                       byte
	session                     string
	number, first, count, carry uint64
	prev                        [32]byte
	raw                         uint64
	payload                     []byte
	clear                       []byte // what comes before it
}

var errShort = errors.New("it ends too early")

// reader takes what the notation of ARCHIVE.md names from the front of b.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.b)) {
		r.err = errShort
	}
	if r.err != nil {
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() byte {
	if b := r.take(1); r.err == nil {
		return b[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 && r.err == nil {
		r.err = errShort
	}
	r.take(uint64(max(n, 0)))
	return v
}

func (r *reader) bytes() []byte { return r.take(r.uvarint()) }

func parseBlock(b []byte) (k block, err error) {
	r := &reader{b: b}
	if string(r.take(3)) != "WRB" || r.u8() != 1 {
		return k, errors.New("it is none of version 1")
	}
	flags := r.u8()
	k.seal, k.secret = flags&1 != 0, flags&2 != 0
	k.codec = r.u8()
	k.session = string(r.take(uint64(r.u8())))
	k.number, k.first, k.count, k.carry = r.uvarint(), r.uvarint(), r.uvarint(), r.uvarint()
	copy(k.prev[:], r.take(32))
	k.raw = r.uvarint()
	k.payload = r.bytes()
	k.clear = b[:len(b)-len(k.payload)]
	if r.err == nil && (len(r.b) > 0 || flags > 2 || k.codec > 1 || k.raw > 64<<20) {
		return k, errors.New("it does not follow the format")
	}
	return k, r.err
}

// Read calls f with each record of a session, in order, checks numbering and chain on the way, and returns the seal; nil:
// there is none. The record is valid during f only.
func (s *Stored) Read(id string, f func(*Record) error) (*Seal, error) {
	var (
		prev  [32]byte
		next  uint64
		part  []byte
		prior [10][]byte
		seal  *Seal
	)
	for i, p := range s.Sessions[id] {
		b, err := p.read()
		if err != nil {
			return nil, err
		}
		k, err := parseBlock(b)
		if err != nil {
			return nil, err
		}
		switch {
		case seal != nil:
			return nil, fmt.Errorf("session %s: block %d comes after the seal", id, k.number)
		case k.number != uint64(i):
			return nil, fmt.Errorf("session %s: block %d is missing", id, i)
		case k.prev != prev:
			return nil, fmt.Errorf("session %s: block %d does not follow the one before", id, i)
		case k.carry != uint64(len(part)):
			return nil, fmt.Errorf("session %s: block %d goes on behind %d bytes, there are %d", id, i, k.carry, len(part))
		}
		prev = sha256.Sum256(b)
		if k.secret {
			if k.payload, err = s.open(&k); err != nil {
				return nil, fmt.Errorf("session %s, block %d: %w", id, i, err)
			}
		}
		raw := k.payload
		if k.codec == 1 {
			if raw, err = s.z.DecodeAll(k.payload, nil); err != nil {
				return nil, err
			}
		}
		if uint64(len(raw)) != k.raw {
			return nil, fmt.Errorf("session %s: block %d has %d bytes, not %d", id, i, len(raw), k.raw)
		}
		for r := (&reader{b: raw}); len(r.b) > 0; {
			head := r.uvarint()
			body := r.take(head >> 2)
			if r.err != nil {
				return nil, r.err
			}
			switch head & 3 {
			case 1:
				part = append(part, body...)
			case 0:
				if len(part) > 0 {
					body, part = append(part, body...), nil
				}
				rec, err := parseRecord(body, &prior)
				if err != nil {
					return nil, fmt.Errorf("session %s, block %d: %w", id, i, err)
				}
				if rec.Seq != next {
					return nil, fmt.Errorf("session %s: record %d is where %d should be", id, rec.Seq, next)
				}
				next++
				if err := f(rec); err != nil {
					return nil, err
				}
			case 2:
				q := &reader{b: body}
				seal = &Seal{End: string(q.bytes()), Records: q.uvarint(), Blocks: q.uvarint()}
				root := q.take(32)
				if q.err != nil || !k.seal || !bytes.Equal(root, k.prev[:]) || seal.Records != next || seal.Blocks != uint64(i+1) {
					return nil, fmt.Errorf("session %s: the seal is wrong: %+v", id, seal)
				}
			default:
				return nil, fmt.Errorf("session %s, block %d: an element of type 3", id, i)
			}
		}
	}
	return seal, nil
}

func (p place) read() ([]byte, error) {
	f, err := os.Open(p.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, p.size)
	if _, err := f.ReadAt(b, p.at); err != nil {
		return nil, err
	}
	if sha256.Sum256(b) != p.hash {
		return nil, fmt.Errorf("%s at %d has changed", p.file, p.at)
	}
	return b, nil
}

func parseRecord(b []byte, prior *[10][]byte) (*Record, error) {
	r := &reader{b: b}
	rec := &Record{Seq: r.uvarint()}
	r.uvarint() // the time; zig-zag does not change the length
	r.uvarint() // elapsed
	kind := r.u8()
	rec.Direction = r.u8()
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		for range 4 {
			r.bytes()
		}
	}
	rec.Kind = kind &^ 128
	if int(rec.Kind) >= len(prior) {
		return nil, fmt.Errorf("record %d is of kind %d", rec.Seq, rec.Kind)
	}
	var shared []byte
	if kind&128 != 0 {
		n := r.uvarint()
		if n < 32 || n > uint64(len(prior[rec.Kind])) {
			return nil, fmt.Errorf("record %d shares %d bytes of %d", rec.Seq, n, len(prior[rec.Kind]))
		}
		shared = prior[rec.Kind][:n]
	}
	rec.Facts = append(slices.Clone(shared), r.bytes()...)
	rec.Wire = r.bytes()
	if r.err == nil && len(r.b) > 0 {
		r.err = errors.New("something follows it")
	}
	if r.err != nil {
		return nil, fmt.Errorf("record %d: %w", rec.Seq, r.err)
	}
	if !json.Valid(rec.Facts) {
		return nil, fmt.Errorf("record %d: its facts are no JSON", rec.Seq)
	}
	prior[rec.Kind] = nil
	if len(rec.Facts) <= 4096 {
		prior[rec.Kind] = rec.Facts
	}
	return rec, nil
}
