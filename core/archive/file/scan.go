package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weir-gateway/weir/core/archive/segment"
)

// list returns the numbers of the segments in the directory, ascending.
func (s *Store) list() ([]uint32, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	var out []uint32
	for _, e := range entries {
		if n, ok := segment.Number(e.Name()); ok {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out, nil
}

// refresh looks at what has been added since the last time.
func (s *Store) refresh() error {
	numbers, err := s.list()
	if err != nil {
		return err
	}
	for i, n := range numbers {
		info, err := os.Stat(s.path(n))
		if err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		seg := s.segments[n]
		if seg != nil && seg.info != nil && !os.SameFile(seg.info, info) { // written anew, without some sessions
			s.sessions.Drop(n)
			seg = nil
		}
		if seg == nil {
			seg = &state{info: info}
			s.segments[n] = seg
			if frames, ok := s.readIndex(n, info.Size()); ok {
				s.sessions.Add(frames...)
				seg.end = info.Size()
			}
		}
		if seg.end >= info.Size() {
			continue
		}
		last := i == len(numbers)-1
		frames, end, damage, err := scan(s.path(n), n, seg.end, last)
		if err != nil {
			return err
		}
		s.sessions.Add(frames...)
		seg.end = end
		seg.damage = append(seg.damage, damage...)
	}
	if n := len(numbers); n > 0 {
		s.current = max(s.current, numbers[n-1])
	}
	return nil
}

// resume makes the last segment the active one. A torn last frame, which was never acknowledged, is set aside in a
// file of its own: nothing of an archive is ever thrown away. A damaged segment is left alone and a new one begun.
func (s *Store) resume() error {
	if s.current == 0 {
		return nil
	}
	path := s.path(s.current)
	seg := s.segments[s.current]
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if info.Mode().Perm()&0o200 == 0 || len(seg.damage) > 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if seg.end < int64(segment.HeadSize) { // the process ended while the file was made
		_, err = f.WriteAt(segment.Head(s.current), 0)
		seg.end = int64(segment.HeadSize)
	}
	if torn := info.Size() - seg.end; err == nil && torn > 0 {
		tail := make([]byte, torn)
		if _, err = f.ReadAt(tail, seg.end); err == nil {
			name := strings.TrimSuffix(path, filepath.Ext(path)) + fmt.Sprintf("-%d.torn", seg.end)
			if err = os.WriteFile(name, tail, 0o400); errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrPermission) {
				err = nil
			}
		}
		if err == nil {
			err = f.Truncate(seg.end)
		}
	}
	if err == nil {
		err = s.sync(f)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("archive: segment %d: %w", s.current, err), f.Close())
	}
	s.active = f
	return nil
}

// scan reads the frames of a segment's file, as segment.Scan does.
func scan(path string, number uint32, from int64, last bool) (frames []segment.Frame, end int64, damage []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, from, nil, fmt.Errorf("archive: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, from, nil, fmt.Errorf("archive: %w", err)
	}
	return segment.Scan(f, info.Size(), number, from, last)
}

// writeIndex writes the side file of a segment. Its loss costs a scan, so it is not fsynced, and a failure to write it is
// none.
func (s *Store) writeIndex(n uint32) {
	path := filepath.Join(s.dir, segment.IndexName(n))
	if os.WriteFile(path+".new", segment.Index(s.sessions.In(n), s.segments[n].end), 0o400) == nil {
		_ = os.Rename(path+".new", path)
	}
}

func (s *Store) readIndex(n uint32, size int64) ([]segment.Frame, bool) {
	b, err := os.ReadFile(filepath.Join(s.dir, segment.IndexName(n)))
	if err != nil {
		return nil, false
	}
	return segment.ParseIndex(b, n, size)
}

// Damage implements ledger.Checker: it looks at every segment anew, whatever the side files say.
func (s *Store) Damage(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	numbers, err := s.list()
	if err != nil {
		return nil, err
	}
	out := segment.Missing(numbers)
	for i, n := range numbers {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		frames, damage, err := s.anew(n, i == len(numbers)-1)
		if err != nil {
			return out, err
		}
		out = append(append(out, damage...), s.sessions.Unlisted(frames)...)
	}
	return out, nil
}

// anew scans a segment from its beginning, and again where it was written anew meanwhile, by another process.
func (s *Store) anew(n uint32, last bool) ([]segment.Frame, []string, error) {
	for {
		before, err := os.Stat(s.path(n))
		if err != nil {
			return nil, nil, fmt.Errorf("archive: %w", err)
		}
		if seg := s.segments[n]; s.o.ReadOnly && (seg == nil || seg.info == nil || !os.SameFile(seg.info, before)) {
			if err := s.refresh(); err != nil {
				return nil, nil, err
			}
		}
		frames, _, damage, err := scan(s.path(n), n, 0, last)
		if err != nil {
			return nil, nil, err
		}
		if after, err := os.Stat(s.path(n)); err != nil || os.SameFile(before, after) {
			return frames, damage, err
		}
	}
}
