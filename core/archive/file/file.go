// Package file keeps blocks in append-only segment files of one directory, many sessions to a file.
//
// A block is durable when Put returns: the file, and for a new file the directory, has been fsynced. A segment that is
// full is closed for good with mode 0400. The layout is written down in core/ARCHIVE.md.
package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/segment"
	"github.com/weir-gateway/weir/core/ledger"
)

// Options of a store. The zero value is right for a gateway.
type Options struct {
	// ReadOnly opens a directory that another process may be writing. Put fails; what is added later is seen.
	ReadOnly bool
	// SegmentSize is the number of bytes after which a new segment is begun. Zero: 128 MiB. At most 1 GiB.
	SegmentSize int64
}

// Store keeps blocks in files. Safe for concurrent use.
type Store struct {
	dir string
	o   Options

	mu       sync.Mutex
	lock     *os.File
	sessions segment.Directory
	segments map[uint32]*state
	active   *os.File // nil: the next Put begins a segment
	current  uint32
	sync     func(*os.File) error // (*os.File).Sync, but for tests

	removing sync.Mutex              // one Remove at a time
	steps    func(name string) error // for tests: what Remove comes to
}

// state is what is known of a segment's file.
type state struct {
	end    int64 // everything before it has been looked at
	damage []string
	info   os.FileInfo // which file it was; nil: one that this store has begun
}

// Open opens the store in dir. For writing it makes the directory (mode 0700), takes its lock, and sets a torn last
// frame aside.
func Open(dir string, o Options) (*Store, error) {
	if o.SegmentSize == 0 {
		o.SegmentSize = 128 << 20
	}
	o.SegmentSize = min(max(o.SegmentSize, 4096), 1<<30)
	s := &Store{dir: dir, o: o, sessions: segment.Directory{}, segments: map[uint32]*state{}, sync: (*os.File).Sync}
	if o.ReadOnly {
		if err := s.refresh(); err != nil {
			return nil, err
		}
		return s, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("archive: %s is in use by another process", dir)
	}
	s.lock = lock
	err = s.leftovers()
	if err == nil {
		err = s.refresh()
	}
	if err == nil {
		err = s.resume()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) path(n uint32) string {
	return filepath.Join(s.dir, segment.Name(n))
}

// Put implements core.Store.
func (s *Store) Put(ctx context.Context, blocks []core.Block) error {
	if s.o.ReadOnly {
		return errors.New("archive: the store is open for reading only")
	}
	for i := range blocks {
		if err := segment.Check(&blocks[i]); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(blocks) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := s.put(blocks)
		if err != nil {
			return err
		}
		blocks = blocks[n:]
	}
	return nil
}

// put writes as many of the blocks as the active segment takes, at least one, with one write and one fsync.
func (s *Store) put(blocks []core.Block) (int, error) {
	if s.active == nil {
		if err := s.begin(); err != nil {
			return 0, err
		}
	}
	seg := s.segments[s.current]
	var buf []byte
	var fresh []segment.Frame
	n := 0
	for i := range blocks {
		b := &blocks[i]
		at := seg.end + int64(len(buf))
		if i > 0 && at > s.o.SegmentSize {
			break
		}
		n++
		if same, known, err := s.stored(b); err != nil {
			return 0, err
		} else if known && !same {
			return 0, fmt.Errorf("archive: block %d of %s: %w", b.Header.Number, b.Header.Session, core.ErrFork)
		} else if known {
			continue
		}
		twin := slices.IndexFunc(fresh, func(a segment.Frame) bool { return a.Session == b.Header.Session && a.Number == b.Header.Number })
		if twin >= 0 { // twice in one call
			if o, _ := fresh[twin].Stored(); [32]byte(buf[o-seg.end:]) != b.Hash {
				return 0, fmt.Errorf("archive: block %d of %s: %w", b.Header.Number, b.Header.Session, core.ErrFork)
			}
			continue
		}
		buf = segment.AppendFrame(buf, b)
		fresh = append(fresh, segment.Frame{Session: b.Header.Session, Ref: segment.Ref{
			Number: b.Header.Number, Segment: s.current, Offset: uint32(at) + uint32(segment.FrameHead), Size: uint32(len(b.Bytes)),
		}})
	}
	if len(buf) > 0 {
		_, err := s.active.WriteAt(buf, seg.end)
		if err == nil {
			err = s.sync(s.active)
		}
		if err != nil { // what is on the disk is unknown: nothing is added to this file again
			return 0, errors.Join(fmt.Errorf("archive: segment %d: %w", s.current, err), s.abandon(seg.end))
		}
		seg.end += int64(len(buf))
		s.sessions.Add(fresh...)
	}
	if seg.end >= s.o.SegmentSize {
		return n, s.finish()
	}
	return n, nil
}

// stored reports whether the block's number is known, and whether it is the same block.
func (s *Store) stored(b *core.Block) (same, known bool, err error) {
	r, ok := s.sessions.Find(b.Header.Session, b.Header.Number)
	if !ok {
		return false, false, nil
	}
	f, err := os.Open(s.path(r.Segment))
	if err != nil {
		return false, true, fmt.Errorf("archive: %w", err)
	}
	defer f.Close() // the store's writer is the only one that writes a segment anew, and holds s.mu here
	var hash [32]byte
	at, _ := r.Stored()
	if _, err := f.ReadAt(hash[:], at); err != nil {
		return false, true, fmt.Errorf("archive: segment %d: %w", r.Segment, err)
	}
	return hash == b.Hash, true, nil
}

// begin makes a new segment and makes its name durable.
func (s *Store) begin() error {
	n := s.current + 1
	f, err := os.OpenFile(s.path(n), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("archive: new segment: %w", err)
	}
	_, err = f.Write(segment.Head(n))
	if err == nil {
		err = s.sync(f)
	}
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("archive: new segment: %w", err), f.Close(), os.Remove(s.path(n)))
	}
	s.active, s.current = f, n
	s.segments[n] = &state{end: int64(segment.HeadSize)}
	return nil
}

// finish closes the active segment for good.
func (s *Store) finish() error {
	f := s.active
	s.active = nil
	err := f.Chmod(0o400)
	if err == nil {
		err = s.sync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("archive: closing segment %d: %w", s.current, err)
	}
	s.writeIndex(s.current)
	return nil
}

// abandon gives up the active segment after a failed write: what lies behind end was never acknowledged.
func (s *Store) abandon(end int64) error {
	f := s.active
	s.active = nil
	err := f.Truncate(end)
	return errors.Join(err, f.Chmod(0o400), f.Close())
}

// Sessions implements core.Store.
func (s *Store) Sessions(ctx context.Context, f func(id string) error) error {
	s.mu.Lock()
	if s.o.ReadOnly {
		if err := s.refresh(); err != nil {
			s.mu.Unlock()
			return err
		}
	}
	ids := s.sessions.Names()
	s.mu.Unlock()
	return segment.Each(ctx, ids, f)
}

// Blocks implements core.Store.
func (s *Store) Blocks(ctx context.Context, id string, f func(core.Block) error) error {
	return s.blocks(ctx, id, false, f)
}

func (s *Store) blocks(ctx context.Context, id string, last bool, f func(core.Block) error) error {
	s.mu.Lock()
	if s.o.ReadOnly {
		if err := s.refresh(); err != nil {
			s.mu.Unlock()
			return err
		}
	}
	list := s.sessions.Of(id)
	s.mu.Unlock()
	if len(list) == 0 {
		return fmt.Errorf("archive: session %s: %w", id, core.ErrNoSession)
	}
	if last {
		list = list[len(list)-1:]
	}
	var (
		file *os.File
		open uint32
		buf  []byte
	)
	defer func() { file.Close() }() // Close of a nil file is an error and nothing else
	for len(list) > 0 {
		r := list[0]
		if err := ctx.Err(); err != nil {
			return err
		}
		if file == nil || open != r.Segment {
			file.Close()
			var err error
			if file, err = s.open(r.Segment); err != nil {
				return err
			}
			if file == nil { // the segment was written anew: its blocks lie elsewhere, or have been removed
				s.mu.Lock()
				rest := s.sessions.Of(id)
				s.mu.Unlock()
				at, _ := rest.Find(r.Number)
				list = rest[at:]
				continue
			}
			open = r.Segment
		}
		list = list[1:]
		at, n := r.Stored()
		if cap(buf) < n {
			buf = make([]byte, n)
		}
		buf = buf[:n]
		if _, err := file.ReadAt(buf, at); err != nil {
			return fmt.Errorf("archive: segment %d at %d: %w", r.Segment, at, err)
		}
		b := segment.Block(id, r, buf)
		if err := f(b); err != nil {
			return err
		}
	}
	return nil
}

// Last returns the block of the highest number of a session, or an error that wraps core.ErrNoSession.
func (s *Store) Last(ctx context.Context, id string) (core.Block, error) {
	var out core.Block
	err := s.blocks(ctx, id, true, func(b core.Block) error { out = b; return nil }) // the buffer is not used again
	return out, err
}

// Close implements core.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, f := range []**os.File{&s.active, &s.lock} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	s.o.ReadOnly = true
	return errors.Join(errs...)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

var (
	_ core.Store     = (*Store)(nil)
	_ ledger.Checker = (*Store)(nil)
)
