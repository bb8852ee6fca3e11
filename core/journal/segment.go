package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
)

// A segment is one file of the log: a page with its head, then entries. Files are filled with zeros before their
// first use and used again and again, so that a write changes no metadata and O_DSYNC costs one flush.
const (
	segmentMagic = "WEIRWAL\x01"
	segmentPage  = 4096
	segmentExt   = ".wal"
)

// disk is the file system as the log uses it; tests put a failing one in its place.
type disk interface {
	open(path string, flag int) (diskFile, error)
	remove(path string) error
}

type diskFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
}

type osDisk struct{}

func (osDisk) open(path string, flag int) (diskFile, error) { return os.OpenFile(path, flag, 0o600) }
func (osDisk) remove(path string) error                     { return os.Remove(path) }

type segment struct {
	path string
	file diskFile
	base uint64 // the position of the file's first byte; 0 while free
	size uint64
	stop atomic.Uint64 // nothing valid lies at or behind this position; 0: unknown
}

func (s *segment) end() uint64 { return s.base + s.size }

// createSegment makes a file full of zeros and opens it for synchronous writes.
func createSegment(d disk, path string, size uint64) (*segment, error) {
	f, err := d.open(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for at := uint64(0); at < size && err == nil; at += uint64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(uint64(len(zeros)), size-at)], int64(at))
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err == nil {
		if f, err = d.open(path, os.O_RDWR|syscall.O_DSYNC); err == nil {
			return &segment{path: path, file: f, size: size}, nil
		}
	}
	return nil, errors.Join(err, d.remove(path))
}

// use gives the segment its place in the log. cut is the position at which the log before it ends, when that is not
// where its entries end; else 0.
func (s *segment) use(base, cut uint64) error {
	b := make([]byte, 0, 64)
	b = append(b, segmentMagic...)
	b = binary.BigEndian.AppendUint64(b, base)
	b = binary.BigEndian.AppendUint64(b, cut)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	_, err := s.file.WriteAt(b, 0)
	if err == nil {
		s.base = base
		s.stop.Store(0)
	}
	return err
}

// release makes the segment free, durably.
func (s *segment) release() error {
	_, err := s.file.WriteAt(make([]byte, 64), 0)
	if err == nil {
		s.base = 0
	}
	return err
}

// listSegments opens what an earlier process left. Segments in use come in the order of the log.
func listSegments(d disk, dir string) (used, free []*segment, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	cuts := map[uint64]uint64{} // base -> cut
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), segmentExt) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, nil, err
		}
		s := &segment{path: filepath.Join(dir, e.Name()), size: uint64(info.Size())}
		if s.file, err = d.open(s.path, os.O_RDWR|syscall.O_DSYNC); err != nil {
			return nil, nil, err
		}
		b := make([]byte, len(segmentMagic)+8+8+4)
		if _, err := s.file.ReadAt(b, 0); err != nil && err != io.EOF {
			return nil, nil, err
		}
		body := b[:len(b)-4]
		if string(b[:len(segmentMagic)]) != segmentMagic || crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[len(body):]) {
			free = append(free, s)
			continue
		}
		s.base = binary.BigEndian.Uint64(b[8:])
		if cut := binary.BigEndian.Uint64(b[16:]); cut != 0 {
			cuts[s.base] = cut
		}
		used = append(used, s)
	}
	slices.SortFunc(used, func(a, b *segment) int {
		if a.base < b.base {
			return -1
		}
		return 1
	})
	for i := 1; i < len(used); i++ {
		if used[i].base < used[i-1].end() {
			return nil, nil, fmt.Errorf("segments %s and %s overlap", used[i-1].path, used[i].path)
		}
		if cut := cuts[used[i].base]; cut > used[i-1].base && cut < used[i-1].end() {
			used[i-1].stop.Store(cut)
		}
	}
	return used, free, nil
}

// read calls f with the entries from a position on, up to limit (0: as far as they go), and returns the position
// behind the last of them. The entry is valid during f only.
func (s *segment) read(from, limit uint64, f func(entry) error) (uint64, error) {
	stop := s.end()
	if cut := s.stop.Load(); cut != 0 {
		stop = cut
	}
	if limit != 0 {
		stop = min(stop, limit)
	}
	at := max(from, s.base+segmentPage)
	buf := make([]byte, 0, 256<<10)
	for at < stop {
		want := min(uint64(cap(buf)), stop-at)
		n, err := s.file.ReadAt(buf[:want], int64(at-s.base))
		if err != nil && err != io.EOF {
			return at, fmt.Errorf("journal: reading %s: %w", s.path, err)
		}
		b := buf[:n]
		for {
			e, size, need, ok := parseEntry(b, at, false)
			if ok {
				if err := f(e); err != nil {
					return at, err
				}
				b, at = b[size:], at+uint64(size)
				continue
			}
			if need == 0 || uint64(n) < want || at+uint64(need) > stop {
				return at, nil
			}
			if need > cap(buf) {
				buf = make([]byte, 0, need)
			}
			if len(b) == n && uint64(n) >= uint64(need) {
				return at, nil
			}
			break // read on from at
		}
	}
	return at, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
