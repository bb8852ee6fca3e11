package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/storetest"
)

// full makes a store of some sessions over several segments, with the last one still open.
func full(t *testing.T, dir string) (s *Store, all map[string][]core.Block) {
	t.Helper()
	s = mustOpen(t, dir, Options{SegmentSize: 4096})
	all = map[string][]core.Block{}
	for i := range 6 {
		all[fmt.Sprint("s", i)] = storetest.Session(fmt.Sprint("s", i), 6, uint64(i))
	}
	for n := range 6 { // the sessions' blocks lie between each other's
		for i := range 6 {
			id := fmt.Sprint("s", i)
			if n < len(all[id]) {
				if err := s.Put(context.Background(), all[id][n:n+1]); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return s, all
}

// holds checks that a store has these sessions whole, but for some that it must not have, and no damage.
func holds(t *testing.T, s *Store, all map[string][]core.Block, without ...string) {
	t.Helper()
	ctx := context.Background()
	for id, want := range all {
		var got []core.Block
		err := s.Blocks(ctx, id, func(b core.Block) error {
			if i := int(b.Header.Number); i >= len(want) || b.Hash != want[i].Hash || string(b.Bytes) != string(want[i].Bytes) {
				t.Errorf("session %s, block %d is another", id, i)
			}
			got = append(got, b)
			return nil
		})
		switch {
		case slices.Contains(without, id) && !errors.Is(err, core.ErrNoSession):
			t.Errorf("session %s has %d blocks, %v", id, len(got), err)
		case !slices.Contains(without, id) && (err != nil || len(got) != len(want)):
			t.Errorf("session %s has %d blocks of %d, %v", id, len(got), len(want), err)
		}
	}
	if damage, err := s.Damage(ctx); err != nil || len(damage) > 0 {
		t.Errorf("damage: %q, %v", damage, err)
	}
}

func anywhere(t *testing.T, dir, text string) []string {
	t.Helper()
	var out []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if b, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil && strings.Contains(string(b), text) {
			out = append(out, e.Name())
		}
	}
	return out
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	s, all := full(t, dir)
	reader := mustOpen(t, dir, Options{ReadOnly: true})
	holds(t, reader, all)
	if err := reader.Remove(t.Context(), []string{"s1"}); err == nil {
		t.Error("a reader removes")
	}
	if len(anywhere(t, dir, "s1")) < 3 {
		t.Fatal("the session lies in too few files for this test")
	}
	if err := s.Remove(t.Context(), []string{"s1", "s4", "unknown"}); err != nil {
		t.Fatal(err)
	}
	if left := anywhere(t, dir, "\x02s1"); len(left) > 0 { // with its length before it, as in a block's header
		t.Errorf("s1 is left in %v", left)
	}
	holds(t, s, all, "s1", "s4")
	holds(t, reader, all, "s1", "s4") // who had looked before sees the new files
	more := storetest.Session("s9", 3, 99)
	if err := s.Put(t.Context(), more); err != nil {
		t.Fatal(err)
	}
	all["s9"] = more
	if err := s.Remove(t.Context(), []string{"s1"}); err != nil { // again: nothing to do
		t.Fatal(err)
	}
	holds(t, s, all, "s1", "s4")
	s.Close()
	s = mustOpen(t, dir, Options{SegmentSize: 4096})
	holds(t, s, all, "s1", "s4")
	if err := s.Remove(t.Context(), []string{"s0", "s2", "s3", "s5", "s9"}); err != nil {
		t.Fatal(err)
	}
	holds(t, s, all, "s0", "s1", "s2", "s3", "s4", "s5", "s9")
	for n := range s.segments {
		if info, err := os.Stat(s.path(n)); err != nil || info.Size() != 16 || info.Mode().Perm() != 0o400 {
			t.Errorf("segment %d: %v, %v", n, info, err)
		}
	}
}

// Wherever a removal is cut short, every other session is whole, and another call ends it.
func TestRemoveCutShort(t *testing.T) {
	cut := errors.New("cut")
	for stop := 1; ; stop++ {
		dir := t.TempDir()
		s, all := full(t, dir)
		n, at := 0, ""
		s.steps = func(name string) error {
			if n++; n == stop {
				at = name
				return cut
			}
			return nil
		}
		err := s.Remove(t.Context(), []string{"s2", "s3"})
		if err == nil {
			if stop < 8 {
				t.Fatalf("only %d steps", stop-1)
			}
			return
		}
		if !errors.Is(err, cut) {
			t.Fatal(err)
		}
		s.Close()
		s = mustOpen(t, dir, Options{SegmentSize: 4096})
		rest := map[string][]core.Block{"s0": all["s0"], "s1": all["s1"], "s4": all["s4"], "s5": all["s5"]}
		holds(t, s, rest)
		if err := s.Remove(t.Context(), []string{"s2", "s3"}); err != nil {
			t.Fatalf("after a stop before %s: %v", at, err)
		}
		holds(t, s, all, "s2", "s3")
		if names, _ := filepath.Glob(filepath.Join(dir, "*new*")); len(names) > 0 {
			t.Errorf("after a stop before %s: %v", at, names)
		}
		s.Close()
	}
}

// A reader in the middle of a session goes on when its segments are written anew, and notices when it goes itself.
func TestRemoveBesideAReader(t *testing.T) {
	dir := t.TempDir()
	s, all := full(t, dir)
	r := mustOpen(t, dir, Options{ReadOnly: true})
	n := 0
	if err := r.Blocks(t.Context(), "s0", func(b core.Block) error {
		if b.Hash != all["s0"][n].Hash || string(b.Bytes) != string(all["s0"][n].Bytes) {
			t.Errorf("block %d is another", n)
		}
		if n++; n == 1 {
			return s.Remove(t.Context(), []string{"s1", "s5"})
		}
		return nil
	}); err != nil || n != len(all["s0"]) {
		t.Fatalf("%d blocks, %v", n, err)
	}
	holds(t, r, all, "s1", "s5")
}
