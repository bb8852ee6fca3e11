package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/file"
	"github.com/weir-gateway/weir/core/archive/s3"
	"github.com/weir-gateway/weir/core/archive/s3/s3test"
	"github.com/weir-gateway/weir/core/archive/segment"
	"github.com/weir-gateway/weir/core/archive/storetest"
)

var server *s3test.Server

func open(t *testing.T, o s3.Options) *s3.Store {
	t.Helper()
	s, err := tryOpen(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryOpen(o s3.Options) (*s3.Store, error) {
	if o.Endpoint == "" {
		o.Endpoint = server.URL
	}
	if o.AccessKey == "" {
		o.AccessKey, o.SecretKey = server.AccessKey, server.SecretKey
	}
	return s3.Open(context.Background(), o)
}

func TestS3(t *testing.T) {
	server = s3test.Start(t)
	t.Run("store", func(t *testing.T) {
		for name, locks := range map[string]bool{"plain": false, "locked": true} {
			t.Run(name, func(t *testing.T) {
				server.Bucket(t, "suite-"+name, locks)
				lock := time.Duration(0)
				if locks {
					lock = time.Hour
				}
				storetest.Run(t, func(t *testing.T, dir string) core.Store {
					return open(t, s3.Options{Bucket: "suite-" + name, Prefix: strings.Trim(dir, "/") + "/", Lock: lock})
				})
			})
		}
	})
	t.Run("refused", refused)
	t.Run("writers", writers)
	t.Run("locked", locked)
	t.Run("damage", damage)
	t.Run("a copy is a file archive", copied)
	t.Run("lost answer", lostAnswer)
	t.Run("removed", removed)
}

func refused(t *testing.T) {
	server.Bucket(t, "unlocked", false)
	for name, tt := range map[string]struct {
		o    s3.Options
		want string
	}{
		"no bucket":       {s3.Options{Bucket: "nowhere"}, "there is no bucket nowhere"},
		"no lock":         {s3.Options{Bucket: "unlocked", Lock: time.Hour}, "object_lock would do nothing"},
		"plain http":      {s3.Options{Bucket: "unlocked", Endpoint: "http://192.0.2.1:9000"}, "is not https"},
		"not a URL":       {s3.Options{Bucket: "unlocked", Endpoint: "192.0.2.1"}, "no https:// URL"},
		"secret in URL":   {s3.Options{Bucket: "unlocked", Endpoint: "https://key:secret@192.0.2.1"}, "a secret in clear"},
		"path in URL":     {s3.Options{Bucket: "unlocked", Endpoint: "https://192.0.2.1/bucket"}, "more than scheme"},
		"wrong secret":    {s3.Options{Bucket: "unlocked", AccessKey: server.AccessKey, SecretKey: "another secret"}, "asking for the bucket"},
		"unknown account": {s3.Options{Bucket: "unlocked", AccessKey: "nobody", SecretKey: "another secret"}, "that these keys may see"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := tryOpen(tt.o)
			if err == nil {
				s.Close()
				t.Fatal("it opened")
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "another secret") || strings.Contains(err.Error(), "key:secret") {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	s := open(t, s3.Options{Bucket: "unlocked", ReadOnly: true})
	if err := s.Put(context.Background(), storetest.Session("a", 1, 1)); err == nil {
		t.Error("a store for reading takes blocks")
	}
}

// Several gateways write to one bucket: nothing is lost, nothing is there twice.
func writers(t *testing.T) {
	server.Bucket(t, "shared", false)
	const each = 8
	var wg sync.WaitGroup
	var failed atomic.Value
	for w := range 3 {
		s := open(t, s3.Options{Bucket: "shared"})
		wg.Go(func() {
			for i := range each {
				if err := s.Put(context.Background(), storetest.Session(fmt.Sprintf("w%d-%d", w, i), 3, uint64(i))); err != nil {
					failed.Store(err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(err)
	}
	s := open(t, s3.Options{Bucket: "shared", ReadOnly: true})
	n := 0
	if err := s.Sessions(context.Background(), func(id string) error {
		n++
		blocks := 0
		err := s.Blocks(context.Background(), id, func(core.Block) error { blocks++; return nil })
		if err == nil && blocks != 3 {
			err = fmt.Errorf("%s has %d blocks", id, blocks)
		}
		return err
	}); err != nil || n != 3*each {
		t.Fatalf("%d sessions, %v", n, err)
	}
	if d, err := s.Damage(context.Background()); err != nil || len(d) > 0 {
		t.Error(d, err)
	}
}

// In a bucket that locks nobody can take a segment away or put another in its place: what is laid over it is not read,
// and is reported. The control is a bucket that does not lock.
func locked(t *testing.T) {
	ctx := context.Background()
	want := storetest.Session("held", 2, 7)
	forged := append(segment.Head(1), []byte("nothing of worth")...)
	for name, locks := range map[string]bool{"kept": true, "lost": false} {
		t.Run(name, func(t *testing.T) {
			bucket := "lock-" + name
			server.Bucket(t, bucket, locks)
			o := s3.Options{Bucket: bucket}
			if locks {
				o.Lock = time.Hour
			}
			s := open(t, o)
			if err := s.Put(ctx, want); err != nil {
				t.Fatal(err)
			}
			key := segment.Name(1)
			info, err := server.Client.StatObject(ctx, bucket, key, minio.StatObjectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			err = server.Client.RemoveObject(ctx, bucket, key, minio.RemoveObjectOptions{VersionID: info.VersionID, GovernanceBypass: true})
			if locks && err == nil {
				t.Fatal("the locked version was removed")
			}
			if _, err := server.Client.PutObject(ctx, bucket, key, bytes.NewReader(forged), int64(len(forged)), minio.PutObjectOptions{}); err != nil {
				t.Fatal(err)
			}
			if locks {
				if err := server.Client.RemoveObject(ctx, bucket, key, minio.RemoveObjectOptions{}); err != nil { // a marker
					t.Fatal(err)
				}
			}
			r := open(t, s3.Options{Bucket: bucket, ReadOnly: true})
			n := 0
			err = r.Blocks(ctx, "held", func(b core.Block) error {
				if b.Hash == want[n].Hash && bytes.Equal(b.Bytes, want[n].Bytes) {
					n++
				}
				return nil
			})
			d, derr := r.Damage(ctx)
			if derr != nil {
				t.Fatal(derr)
			}
			told := strings.Join(d, "\n")
			switch {
			case locks && (err != nil || n != len(want)):
				t.Errorf("%d blocks are read, %v", n, err)
			case locks && (!strings.Contains(told, "deleted") || !strings.Contains(told, "written over")):
				t.Errorf("reported: %s", told)
			case !locks && n == len(want):
				t.Error("the control lost nothing: the test shows nothing")
			case !locks && !strings.Contains(told, "hold no block"):
				t.Errorf("reported: %s", told)
			}
		})
	}
}

// Damage finds what is missing or does not agree with its side file; a side file that is gone costs a scan and no more.
func damage(t *testing.T) {
	ctx := context.Background()
	server.Bucket(t, "damaged", false)
	s := open(t, s3.Options{Bucket: "damaged"})
	for i := range 4 {
		if err := s.Put(ctx, storetest.Session(fmt.Sprintf("s%d", i), 2, uint64(i))); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(key string) {
		t.Helper()
		if err := server.Client.RemoveObject(ctx, "damaged", key, minio.RemoveObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	look := func() (string, int) {
		t.Helper()
		r := open(t, s3.Options{Bucket: "damaged", ReadOnly: true})
		n := 0
		if err := r.Sessions(ctx, func(string) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		d, err := r.Damage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(d, "\n"), n
	}
	if d, n := look(); d != "" || n != 4 {
		t.Fatalf("before: %d sessions, %s", n, d)
	}
	remove(segment.IndexName(3))
	if d, n := look(); d != "" || n != 4 {
		t.Fatalf("without a side file: %d sessions, %s", n, d)
	}
	remove(segment.Name(2))
	if d, n := look(); d != "segment 2 is missing" || n != 3 {
		t.Fatalf("without a segment: %d sessions, %s", n, d)
	}
}

// A copy of the bucket's objects in a directory is read by the file store.
func copied(t *testing.T) {
	ctx := context.Background()
	server.Bucket(t, "copied", false)
	s := open(t, s3.Options{Bucket: "copied", Prefix: "archive/"})
	want := storetest.Session("copy", 5, 3)
	for i := range want {
		if err := s.Put(ctx, want[i:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for info := range server.Client.ListObjects(ctx, "copied", minio.ListObjectsOptions{Prefix: "archive/"}) {
		if info.Err != nil {
			t.Fatal(info.Err)
		}
		if err := server.Client.FGetObject(ctx, "copied", info.Key, filepath.Join(dir, filepath.Base(info.Key)), minio.GetObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 10 {
		t.Fatalf("%d files", len(left))
	}
	f, err := file.Open(dir, file.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := f.Blocks(ctx, "copy", func(b core.Block) error {
		if b.Hash != want[n].Hash {
			return errors.New("another block")
		}
		n++
		return nil
	}); err != nil || n != len(want) {
		t.Fatal(n, err)
	}
	if d, err := f.Damage(ctx); err != nil || len(d) > 0 {
		t.Error(d, err)
	}
}

// A server that has stored an object and whose answer is lost is asked again: the second time changes nothing.
func lostAnswer(t *testing.T) {
	server.Bucket(t, "answers", false)
	s := open(t, s3.Options{Bucket: "answers"})
	blocks := storetest.Session("again", 3, 1)
	other := open(t, s3.Options{Bucket: "answers"})
	if err := other.Put(context.Background(), blocks); err != nil { // as the first try, as far as s can tell
		t.Fatal(err)
	}
	if err := s.Put(context.Background(), blocks); err != nil {
		t.Fatal(err)
	}
	r := open(t, s3.Options{Bucket: "answers", ReadOnly: true})
	if d, err := r.Damage(context.Background()); err != nil || len(d) > 0 {
		t.Error(d, err)
	}
	fork := storetest.Session("again", 3, 2)
	if err := s.Put(context.Background(), fork); !errors.Is(err, core.ErrFork) {
		t.Errorf("another history: %v", err)
	}
	server.Pause()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	err := s.Put(ctx, storetest.Session("late", 1, 1))
	cancel()
	server.Resume()
	if err == nil {
		t.Fatal("a server that stands still has stored something")
	}
	if err := s.Put(context.Background(), storetest.Session("late", 1, 1)); err != nil {
		t.Fatal(err)
	}
}

// What is removed is gone from the bucket, all versions of it; what is locked stays until its time, and only then goes; a
// reader elsewhere goes on.
func removed(t *testing.T) {
	ctx := context.Background()
	for name, locks := range map[string]bool{"plain": false, "locks": true} {
		t.Run(name, func(t *testing.T) {
			bucket := "removed-" + name
			server.Bucket(t, bucket, locks)
			o := s3.Options{Bucket: bucket}
			if locks {
				o.Lock = 2 * time.Second
			}
			s := open(t, o)
			stay, leave := storetest.Session("stay", 6, 1), storetest.Session("leave", 3, 2)
			for i := range stay {
				batch := stay[i : i+1]
				if i < len(leave) {
					batch = []core.Block{leave[i], stay[i]}
				}
				if err := s.Put(ctx, batch); err != nil {
					t.Fatal(err)
				}
			}
			reader := open(t, s3.Options{Bucket: bucket, ReadOnly: true})
			whole := func() error {
				n := 0
				err := reader.Blocks(ctx, "stay", func(b core.Block) error {
					if n++; b.Hash != stay[n-1].Hash || !bytes.Equal(b.Bytes, stay[n-1].Bytes) {
						t.Errorf("block %d is another", n-1)
					}
					if n == 1 && !locks {
						return s.Remove(ctx, []string{"leave"})
					}
					return nil
				})
				if err == nil && n != len(stay) {
					err = fmt.Errorf("%d blocks of %d", n, len(stay))
				}
				return err
			}
			if locks {
				var l *segment.Locked
				if err := s.Remove(ctx, []string{"leave"}); !errors.As(err, &l) || l.Parts != 3 || !l.Until.After(time.Now()) {
					t.Fatalf("before its time: %v", err)
				}
				if err := whole(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Until(l.Until) + 300*time.Millisecond)
				if err := s.Remove(ctx, []string{"leave"}); err != nil {
					t.Fatal(err)
				}
			}
			if err := whole(); err != nil { // with what it knew before
				t.Fatal(err)
			}
			for _, r := range []*s3.Store{s, reader, open(t, s3.Options{Bucket: bucket, ReadOnly: true})} {
				if err := r.Blocks(ctx, "leave", func(core.Block) error { return nil }); !errors.Is(err, core.ErrNoSession) {
					t.Errorf("it is still there: %v", err)
				}
				if d, err := r.Damage(ctx); err != nil || len(d) > 0 {
					t.Errorf("damage: %q, %v", d, err)
				}
			}
			for info := range server.Client.ListObjectsIter(ctx, bucket, minio.ListObjectsOptions{WithVersions: locks}) {
				if info.Err != nil {
					t.Fatal(info.Err)
				}
				body, err := server.Client.GetObject(ctx, bucket, info.Key, minio.GetObjectOptions{VersionID: info.VersionID})
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(body)
				if err != nil {
					t.Fatal(err)
				}
				if strings.HasSuffix(info.Key, ".weir") && bytes.Contains(b, []byte("\x05leave")) {
					t.Errorf("%s (%s) still holds it", info.Key, info.VersionID)
				}
			}
		})
	}
}
