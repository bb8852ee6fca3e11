package journal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// faultyDisk is the real file system with errors and stalls on demand.
type faultyDisk struct {
	mu      sync.Mutex
	err     error // of every write
	create  error // of every new file
	held    chan struct{}
	reached chan struct{}
	writes  int
	after   int // writes after a failure, to the file that failed
	failed  map[string]bool
}

func (d *faultyDisk) open(path string, flag int) (diskFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if flag&os.O_CREATE != 0 && d.create != nil {
		return nil, d.create
	}
	f, err := osDisk{}.open(path, flag)
	if err != nil {
		return nil, err
	}
	return &faultyFile{diskFile: f, d: d, path: path, sync: flag&syscall.O_DSYNC != 0}, nil
}

func (d *faultyDisk) remove(path string) error { return os.Remove(path) }

func (d *faultyDisk) set(write, create error) {
	d.mu.Lock()
	d.err, d.create = write, create
	d.mu.Unlock()
}

func (d *faultyDisk) hold() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held, d.reached = make(chan struct{}), make(chan struct{}, 16)
	return func() {
		d.mu.Lock()
		close(d.held)
		d.held = nil
		d.mu.Unlock()
	}
}

func (d *faultyDisk) waitHeld() { <-d.reached }

type faultyFile struct {
	diskFile
	d    *faultyDisk
	path string
	sync bool // a segment in use, not one being made
}

func (f *faultyFile) WriteAt(b []byte, at int64) (int, error) {
	f.d.mu.Lock()
	held, reached := f.d.held, f.d.reached
	f.d.writes++
	if f.d.failed[f.path] && at != 0 {
		f.d.after++
	}
	if err := f.d.err; err != nil {
		if f.d.failed == nil {
			f.d.failed = map[string]bool{}
		}
		f.d.failed[f.path] = true
		f.d.mu.Unlock()
		n, _ := f.diskFile.WriteAt(b[:len(b)/2], at) // torn
		return n, err
	}
	f.d.mu.Unlock()
	if held != nil && f.sync {
		select {
		case reached <- struct{}{}:
		default:
		}
		<-held
	}
	return f.diskFile.WriteAt(b, at)
}

func settled(t *testing.T, r *recorder, seq uint64, wire string) error {
	t.Helper()
	m, err := r.Record(context.Background(), record(seq, wire))
	if err != nil {
		return err
	}
	return r.Settle(context.Background(), m)
}

func mustRecorder(t *testing.T, j *Journal, id string) *recorder {
	t.Helper()
	r, err := j.recorder(id, core.PromiseStrict)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A write error is final for the file; the journal is lost, says so, seals what was open, and comes back by itself
// only where space did.
func TestWriteErrors(t *testing.T) {
	for _, tt := range []struct {
		name  string
		err   error
		comes bool
	}{{"no space", syscall.ENOSPC, true}, {"i/o error", syscall.EIO, false}} {
		t.Run(tt.name, func(t *testing.T) {
			d := &faultyDisk{}
			c := small(t.TempDir())
			c.disk, c.Log = d, nil
			j := mustOpen(t, c)
			closed := false
			defer func() {
				if !closed {
					_ = j.Close(context.Background())
				}
			}()
			r := mustRecorder(t, j, "s1")
			if err := settled(t, r, 0, "kept"); err != nil {
				t.Fatal(err)
			}
			d.set(tt.err, nil)
			start := time.Now()
			if err := settled(t, r, 1, "lost"); !errors.Is(err, core.ErrJournalLost) {
				t.Fatalf("Settle: %v", err)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Fatalf("it took %v to say so", took)
			}
			if err := j.Lost(); !errors.Is(err, core.ErrJournalLost) {
				t.Fatalf("Lost: %v", err)
			}
			if _, err := j.recorder("s2", core.PromiseStrict); !errors.Is(err, core.ErrJournalLost) {
				t.Fatalf("Open: %v", err)
			}
			d.set(nil, nil)
			deadline := time.Now().Add(30 * time.Second)
			for j.Lost() != nil && time.Now().Before(deadline) && tt.comes {
				time.Sleep(20 * time.Millisecond)
			}
			if !tt.comes {
				time.Sleep(3 * reviveEvery)
				if j.Lost() == nil {
					t.Fatal("the journal came back after an i/o error")
				}
				_ = j.Close(context.Background())
				closed = true
				c.disk = nil
				j = mustOpen(t, c)
				defer mustClose(t, j)
			} else if err := j.Lost(); err != nil {
				t.Fatalf("the journal did not come back: %v", err)
			}
			// The session of before stays lost, a new one works.
			if tt.comes {
				if err := settled(t, r, 2, "x"); !errors.Is(err, core.ErrJournalLost) {
					t.Fatalf("a session that lost records went on: %v", err)
				}
				_ = r.Seal(core.EndError)
			}
			r3 := mustRecorder(t, j, "s3")
			if err := settled(t, r3, 0, "after"); err != nil {
				t.Fatal(err)
			}
			if err := r3.Seal(core.EndClosed); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			if err := j.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			recs, seal := read(t, blocksIn(t, j.JetStream(), c.Shards, "s1"))
			if len(recs) < 1 || string(recs[0].Wire) != "kept" || seal == nil || seal.End != core.EndJournalLost {
				t.Fatalf("s1: %d records, seal %+v", len(recs), seal)
			}
			if tt.comes && len(recs) != 1 {
				t.Fatalf("s1 holds %d records, 1 was settled", len(recs))
			}
			recs, seal = read(t, blocksIn(t, j.JetStream(), c.Shards, "s3"))
			if len(recs) != 1 || seal == nil || seal.End != core.EndClosed {
				t.Fatalf("s3: %d records, seal %+v", len(recs), seal)
			}
			if d.after > 0 {
				t.Fatalf("%d writes went to the file that had failed", d.after)
			}
		})
	}
}

// A full disk is found when the next segment cannot be made.
func TestNoSpaceForTheNextSegment(t *testing.T) {
	d := &faultyDisk{}
	c := small(t.TempDir())
	c.disk, c.Log = d, nil
	j := mustOpen(t, c)
	defer mustClose(t, j)
	r := mustRecorder(t, j, "s1")
	if err := settled(t, r, 0, "x"); err != nil {
		t.Fatal(err)
	}
	// An acknowledgement that never comes keeps the segments from being used again.
	j.packer.hurry.Add(1)
	d.set(nil, syscall.ENOSPC)
	release := stall(j)
	wire := strings.Repeat("w", 200<<10)
	var err error
	start := time.Now()
	n := uint64(1)
	for ; err == nil && n < 200; n++ {
		start = time.Now()
		err = settled(t, r, n, wire)
	}
	if !errors.Is(err, core.ErrJournalLost) {
		t.Fatalf("Settle after %d records: %v", n, err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Fatalf("it took %v to say so", took)
	}
	d.set(nil, nil)
	release()
	j.packer.hurry.Add(-1)
	waitFor(t, func() bool { return j.Lost() == nil })
	if err := settled(t, mustRecorder(t, j, "s2"), 0, "x"); err != nil {
		t.Fatal(err)
	}
}

// The log goes on while JetStream is away, up to its bound; then the journal is lost, and back when JetStream is.
func TestJetStreamAway(t *testing.T) {
	c := small(t.TempDir())
	c.MaxPending, c.Log = 4<<20, nil
	j := mustOpen(t, c)
	defer mustClose(t, j)
	r := mustRecorder(t, j, "s1")
	if err := settled(t, r, 0, "first"); err != nil {
		t.Fatal(err)
	}
	release := stall(j)
	wire := strings.Repeat("v", 100<<10)
	n := uint64(1)
	var err error
	for ; err == nil && n < 1000; n++ {
		err = settled(t, r, n, wire)
	}
	if !errors.Is(err, core.ErrJournalLost) {
		t.Fatalf("after %d records: %v", n, err)
	}
	if size := (n - 1) * 100 << 10; size < 6<<20 { // 8 segments of 1 MiB, one entry's room lost in each
		t.Fatalf("lost after %d bytes", size)
	}
	release()
	waitFor(t, func() bool { return j.Lost() == nil })
	if err := settled(t, mustRecorder(t, j, "s2"), 0, "x"); err != nil {
		t.Fatal(err)
	}
	if err := j.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	recs, seal := read(t, blocksIn(t, j.JetStream(), c.Shards, "s1"))
	if uint64(len(recs)) != n-1 || seal == nil || seal.End != core.EndJournalLost {
		t.Fatalf("%d records of %d settled, seal %+v", len(recs), n-1, seal)
	}
}

// A full stream refuses; nothing is evicted, and the blocks are published when there is room.
func TestStreamFull(t *testing.T) {
	c := small(t.TempDir())
	c.Shards, c.StreamBytes, c.Log = 1, 1<<20, nil
	c.MaxWAL = 32 << 20
	j := mustOpen(t, c)
	defer mustClose(t, j)
	r := mustRecorder(t, j, "s1")
	const n = 30
	for i := range uint64(n) {
		if err := settled(t, r, i, noise(100<<10, i)); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(200 * time.Millisecond)
	before := len(blocksIn(t, j.JetStream(), 1, "s1"))
	c2 := j.c
	c2.StreamBytes = 64 << 20
	r.Seal(core.EndClosed)
	j.c = c2
	s, err := j.js.Stream(context.Background(), streamName(0))
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.MaxBytes = 64 << 20
	if _, err := j.js.UpdateStream(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := j.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	blocks := blocksIn(t, j.JetStream(), 1, "s1")
	recs, seal := read(t, blocks)
	if len(recs) != n || seal == nil || len(blocks) <= before {
		t.Fatalf("%d records in %d blocks (%d before), seal %v", len(recs), len(blocks), before, seal)
	}
}

func noise(n int, seed uint64) string {
	b := make([]byte, n)
	x := seed*0x9e3779b97f4a7c15 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return string(b)
}

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen within 30 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// stall cuts the packer off from JetStream until release is called.
func stall(j *Journal) (release func()) {
	j.packer.stalled.Store(true)
	return func() { j.packer.stalled.Store(false) }
}

// TestStartWithAFullLog: a process that is killed when its log is full, because JetStream does not take it, leaves
// nothing that the next one could not begin with.
func TestStartWithAFullLog(t *testing.T) {
	c := small(t.TempDir())
	c.MaxWAL = 4 << 20
	j := mustOpen(t, c)
	stall(j)
	id := core.NewID(time.Now())
	r := mustRecorder(t, j, id)
	kept := 0
	var err error
	for ; err == nil; kept++ {
		err = settled(t, r, uint64(kept), noise(200<<10, uint64(kept)))
	}
	kept-- // the last one was refused
	if !errors.Is(err, core.ErrJournalLost) {
		t.Fatal(err)
	}
	if err := j.release(); err != nil { // as a kill would
		t.Fatal(err)
	}
	begin := time.Now()
	j = mustOpen(t, c)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("ready after %v", took)
	}
	again := mustRecorder(t, j, core.NewID(time.Now()))
	if err := settled(t, again, 0, "it goes on"); err != nil {
		t.Fatal(err)
	}
	if err := again.Seal(core.EndClosed); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := j.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	got, seal := read(t, blocksIn(t, j.JetStream(), c.Shards, id))
	if len(got) < kept || seal == nil {
		t.Fatalf("%d records of %d, seal %+v", len(got), kept, seal)
	}
	mustClose(t, j)
}

// TestRestarts: a process that does not stay up while JetStream takes nothing leaves a little with each start, and not a whole
// segment, or a disk would be full before anybody looks; and the one that stays up has all of it.
func TestRestarts(t *testing.T) {
	c := small(t.TempDir())
	c.SegmentSize, c.MaxWAL = 32<<20, 256<<20
	const restarts = 12
	var ids []string
	used := func() (n int64) {
		files, err := filepath.Glob(filepath.Join(c.Dir, "journal", "*"+segmentExt))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if info, err := os.Stat(f); err == nil {
				n += info.Size()
			}
		}
		return n
	}
	for range restarts {
		j := mustOpen(t, c)
		stall(j)
		ids = append(ids, core.NewID(time.Now()))
		if err := settled(t, mustRecorder(t, j, ids[len(ids)-1]), 0, "before a kill"); err != nil {
			t.Fatal(err)
		}
		if err := j.release(); err != nil { // as a kill would
			t.Fatal(err)
		}
	}
	if n := used(); n > 3*c.SegmentSize+restarts*restartSize {
		t.Errorf("%d restarts have left %d MiB", restarts, n>>20)
	}
	j := mustOpen(t, c)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := j.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if got, seal := read(t, blocksIn(t, j.JetStream(), c.Shards, id)); len(got) != 1 || seal == nil || seal.End != core.EndCrash {
			t.Errorf("%d records, seal %+v", len(got), seal)
		}
	}
	mustClose(t, j)
}
