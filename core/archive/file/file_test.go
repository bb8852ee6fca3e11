package file

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/segment"
	"github.com/weir-gateway/weir/core/archive/storetest"
)

func mustOpen(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) {
	for name, size := range map[string]int64{"one segment": 0, "many segments": 4096} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T, dir string) core.Store {
				s, err := Open(dir, Options{SegmentSize: size})
				if err != nil {
					t.Fatal(err)
				}
				return s
			})
		})
	}
}

func TestWithoutSideFiles(t *testing.T) {
	dir := t.TempDir()
	a := storetest.Session("a", 300, 1)
	s := mustOpen(t, dir, Options{SegmentSize: 4096})
	if err := s.Put(context.Background(), a); err != nil {
		t.Fatal(err)
	}
	s.Close()
	side, _ := filepath.Glob(filepath.Join(dir, "*.index"))
	if len(side) < 3 {
		t.Fatalf("%d side files", len(side))
	}
	os.Remove(side[0])
	os.WriteFile(side[1], []byte("garbage"), 0o600)
	s = mustOpen(t, dir, Options{})
	if n := count(t, s, "a"); n != len(a) {
		t.Fatalf("%d blocks of %d", n, len(a))
	}
}

func count(t *testing.T, s core.Store, id string) (n int) {
	t.Helper()
	if err := s.Blocks(context.Background(), id, func(core.Block) error { n++; return nil }); err != nil && !errors.Is(err, core.ErrNoSession) {
		t.Fatal(err)
	}
	return n
}

func TestModesAndLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "archive")
	s := mustOpen(t, dir, Options{SegmentSize: 4096})
	if err := s.Put(context.Background(), storetest.Session("a", 300, 1)); err != nil {
		t.Fatal(err)
	}
	mode := func(p string) os.FileMode {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if m := mode(dir); m != 0o700 {
		t.Errorf("directory: %o", m)
	}
	if m := mode(s.path(1)); m != 0o400 {
		t.Errorf("closed segment: %o", m)
	}
	if m := mode(s.path(s.current)); m&0o077 != 0 {
		t.Errorf("active segment: %o", m)
	}
	if _, err := Open(dir, Options{}); err == nil {
		t.Error("a second writer could open it")
	}
}

func TestReadOnlyBesideAWriter(t *testing.T) {
	dir := t.TempDir()
	a := storetest.Session("a", 60, 1)
	w := mustOpen(t, dir, Options{SegmentSize: 8192})
	r := mustOpen(t, dir, Options{ReadOnly: true})
	for i := range a {
		if err := w.Put(context.Background(), a[i:i+1]); err != nil {
			t.Fatal(err)
		}
		if n := count(t, r, "a"); n != i+1 {
			t.Fatalf("the reader sees %d blocks of %d", n, i+1)
		}
	}
	if err := r.Put(context.Background(), a[:1]); err == nil {
		t.Error("a reader could put")
	}
	if d, err := r.Damage(context.Background()); err != nil || len(d) != 0 {
		t.Errorf("damage: %v, %v", d, err)
	}
}

// A crash in the middle of a write leaves a torn frame. It is set aside, and the store goes on.
func TestTornTail(t *testing.T) {
	a := storetest.Session("a", 10, 1)
	for cut := int64(1); cut < 400; cut += 7 {
		dir := t.TempDir()
		s := mustOpen(t, dir, Options{})
		if err := s.Put(context.Background(), a[:9]); err != nil {
			t.Fatal(err)
		}
		end := s.segments[1].end
		if err := s.Put(context.Background(), a[9:]); err != nil {
			t.Fatal(err)
		}
		full := s.segments[1].end
		s.Close()
		if end+cut >= full {
			break
		}
		if err := os.Truncate(s.path(1), end+cut); err != nil {
			t.Fatal(err)
		}
		r := mustOpen(t, dir, Options{ReadOnly: true})
		if n := count(t, r, "a"); n != 9 {
			t.Fatalf("cut %d: the reader sees %d blocks", cut, n)
		}
		s = mustOpen(t, dir, Options{})
		if n := count(t, s, "a"); n != 9 {
			t.Fatalf("cut %d: %d blocks", cut, n)
		}
		if err := s.Put(context.Background(), a[8:]); err != nil {
			t.Fatal(err)
		}
		if n := count(t, s, "a"); n != 10 {
			t.Fatalf("cut %d: %d blocks after the retry", cut, n)
		}
		if torn, _ := filepath.Glob(filepath.Join(dir, "*.torn")); len(torn) != 1 {
			t.Fatalf("cut %d: set aside: %v", cut, torn)
		}
		if d, err := s.Damage(context.Background()); err != nil || len(d) != 0 {
			t.Fatalf("cut %d: damage %v, %v", cut, d, err)
		}
		s.Close()
	}
}

// A failed write or fsync is final for its file: what is in it behind the last acknowledged block is not trusted.
func TestFailedSyncIsFinal(t *testing.T) {
	for _, boom := range []error{syscall.EIO, syscall.ENOSPC} {
		dir := t.TempDir()
		a := storetest.Session("a", 10, 1)
		s := mustOpen(t, dir, Options{})
		if err := s.Put(context.Background(), a[:3]); err != nil {
			t.Fatal(err)
		}
		real := s.sync
		s.sync = func(*os.File) error { return boom }
		if err := s.Put(context.Background(), a[3:5]); !errors.Is(err, boom) {
			t.Fatalf("Put: %v", err)
		}
		s.sync = real
		if n := count(t, s, "a"); n != 3 {
			t.Fatalf("%d blocks after the failure", n)
		}
		if err := s.Put(context.Background(), a[3:]); err != nil {
			t.Fatal(err)
		}
		if s.current != 2 {
			t.Fatalf("the file that failed is written again")
		}
		s.Close()
		s = mustOpen(t, dir, Options{})
		if n := count(t, s, "a"); n != 10 {
			t.Fatalf("%d blocks", n)
		}
		if d, err := s.Damage(context.Background()); err != nil || len(d) != 0 {
			t.Fatalf("damage: %v, %v", d, err)
		}
		s.Close()
	}
}

func TestDamageInTheMiddle(t *testing.T) {
	dir := t.TempDir()
	a := storetest.Session("a", 60, 1)
	s := mustOpen(t, dir, Options{SegmentSize: 16384})
	if err := s.Put(context.Background(), a); err != nil {
		t.Fatal(err)
	}
	s.Close()
	side, _ := filepath.Glob(filepath.Join(dir, "*.index"))
	for _, f := range side {
		os.Remove(f)
	}
	b, err := os.ReadFile(s.path(1))
	if err != nil {
		t.Fatal(err)
	}
	b[segment.HeadSize+1] ^= 0xff // the first frame's head
	os.Chmod(s.path(1), 0o600)
	if err := os.WriteFile(s.path(1), b, 0o600); err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, dir, Options{ReadOnly: true})
	if n := count(t, r, "a"); n != len(a)-1 {
		t.Fatalf("%d blocks can be read of %d", n, len(a)-1)
	}
	d, err := r.Damage(context.Background())
	if err != nil || len(d) != 1 {
		t.Fatalf("damage: %q, %v", d, err)
	}
}

func FuzzScan(f *testing.F) {
	dir := f.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Put(context.Background(), storetest.Session("a", 3, 1)); err != nil {
		f.Fatal(err)
	}
	s.Close()
	b, err := os.ReadFile(s.path(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte("WEIRSEG\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "00000001.weir")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, last := range []bool{false, true} {
			frames, end, _, err := scan(path, 1, 0, last)
			if err != nil || end > int64(len(data)) && end != int64(segment.HeadSize) {
				t.Fatalf("end %d of %d, %v", end, len(data), err)
			}
			for _, fr := range frames {
				if int(fr.Offset)+int(fr.Size) > len(data) {
					t.Fatal("a frame reaches beyond the file")
				}
			}
		}
	})
}
