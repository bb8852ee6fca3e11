package file

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/segment"
)

// Remove removes sessions for good. Each segment that holds a block of them is written anew without it, under the same
// number: a copy that is durable takes the place of the file in one step, so a crash leaves the one or the other, and
// what Remove did not come to is removed by calling it again. Everything else of a segment is copied as it is, damage
// included. Readers in other processes go on with the file that they have open.
func (s *Store) Remove(ctx context.Context, sessions []string) error {
	if s.o.ReadOnly {
		return errors.New("archive: the store is open for reading only")
	}
	s.removing.Lock()
	defer s.removing.Unlock()
	s.mu.Lock()
	gone, hit := s.sessions.Holding(sessions)
	var err error
	if s.active != nil && hit[s.current] { // it is written no more from here on
		err = s.finish()
	}
	numbers, lerr := s.list()
	s.mu.Unlock()
	if err = errors.Join(err, lerr); err != nil {
		return err
	}
	for _, n := range numbers {
		if !hit[n] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.rewrite(n, gone); err != nil {
			return fmt.Errorf("archive: segment %d: %w", n, err)
		}
	}
	return nil
}

// extensionNew is that of a segment that is being written anew. One that is there at the start is what a crash left.
const extensionNew = ".weir-new"

// step is called by tests before each step of a rewriting.
func (s *Store) step(name string) error {
	if s.steps == nil {
		return nil
	}
	return s.steps(name)
}

// rewrite writes a closed segment anew without some sessions.
func (s *Store) rewrite(n uint32, gone map[string]bool) (err error) {
	path := s.path(n)
	fresh := path[:len(path)-len(filepath.Ext(path))] + extensionNew
	if err := s.step("copy"); err != nil {
		return err
	}
	err = s.copyWithout(n, fresh, gone)
	if err == nil {
		err = s.step("index")
	}
	if err == nil { // it lists what the segment is about to lose
		if err = os.Remove(filepath.Join(s.dir, segment.IndexName(n))); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	if err == nil {
		err = s.step("rename")
	}
	if err != nil {
		return err
	}
	frames, end, damage, err := scan(fresh, n, 0, false)
	if err != nil {
		return err
	}
	info, err := os.Stat(fresh)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	s.sessions.Replace(n, frames)
	s.segments[n] = &state{end: end, damage: damage, info: info}
	if err := s.step("directory"); err != nil {
		return err
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	s.writeIndex(n)
	return nil
}

// copyWithout writes a durable copy of a segment, without the frames of some sessions.
func (s *Store) copyWithout(n uint32, to string, gone map[string]bool) (err error) {
	from, err := os.Open(s.path(n))
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := bufio.NewWriterSize(out, 1<<20)
	if err := segment.Without(w, from, info.Size(), n, gone); err != nil {
		return err
	}
	return errors.Join(w.Flush(), s.sync(out))
}

// leftovers removes what a rewriting that a crash cut short has left: copies that have not taken their place.
func (s *Store) leftovers() error {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		if filepath.Ext(e.Name()) == extensionNew {
			err = errors.Join(err, os.Remove(filepath.Join(s.dir, e.Name())))
		}
	}
	return err
}

// known reports whether a segment's open file is the one that the store has looked at. The caller holds s.mu.
func (s *Store) known(n uint32, f *os.File) bool {
	info, err := f.Stat()
	seg := s.segments[n]
	return err == nil && seg != nil && (seg.info == nil || os.SameFile(seg.info, info))
}

// open opens a segment's file, if it is the one that a Ref was made for; else it is nil, and what is known has been
// brought up to date.
func (s *Store) open(n uint32) (*os.File, error) {
	f, err := os.Open(s.path(n))
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known(n, f) {
		return f, nil
	}
	if err := errors.Join(f.Close(), s.refresh()); err != nil {
		return nil, err
	}
	return nil, nil
}

var _ interface {
	core.Store
	Remove(ctx context.Context, sessions []string) error
} = (*Store)(nil)
