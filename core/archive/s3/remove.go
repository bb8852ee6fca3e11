package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/weir-gateway/weir/core/archive/segment"
)

// Remove removes sessions for good, but for those in objects that the bucket has locked: for them the error wraps a
// *segment.Locked. An object that holds a block of them is written anew without it, under the same name, in one step;
// then its earlier versions are deleted. A crash in between leaves the earlier one, which counts, and calling Remove
// again ends it.
func (s *Store) Remove(ctx context.Context, sessions []string) error {
	if s.o.ReadOnly {
		return errors.New("archive: s3: the store is open for reading only")
	}
	s.put.Lock() // one object is made at a time
	defer s.put.Unlock()
	if err := s.reload(ctx); err != nil { // what another gateway has written anew
		return err
	}
	s.mu.Lock()
	gone, hit := s.sessions.Holding(sessions)
	s.mu.Unlock()
	all, err := s.list(ctx, 0)
	if err != nil {
		return err
	}
	var locked segment.Locked
	for _, l := range all {
		if !hit[l.number] {
			continue
		}
		if l.deleted {
			return fmt.Errorf("archive: s3: segment %d has been deleted by somebody, though its first version is there: take the marker away first", l.number)
		}
		until, is, err := s.lockedUntil(ctx, l)
		if err != nil {
			return err
		}
		if is {
			if locked.Parts++; until.After(locked.Until) {
				locked.Until = until
			}
			continue
		}
		if err := s.rewrite(ctx, l, gone); err != nil {
			return err
		}
	}
	if locked.Parts > 0 {
		return &locked
	}
	return nil
}

// lockedUntil reports whether the bucket would refuse to delete a segment, and until when.
func (s *Store) lockedUntil(ctx context.Context, l listed) (until time.Time, is bool, err error) {
	if !s.versions {
		return until, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	info, err := s.client.StatObject(ctx, s.o.Bucket, s.name(l.number), minio.StatObjectOptions{VersionID: l.version})
	if err != nil {
		return until, false, s.failed("asking for the lock of "+s.name(l.number), err)
	}
	if date := info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"); date != "" {
		if until, err = time.Parse(time.RFC3339, date); err != nil {
			return until, false, s.failed("the lock of "+s.name(l.number), err)
		}
	}
	held := strings.EqualFold(info.Metadata.Get("X-Amz-Object-Lock-Legal-Hold"), "ON")
	return until, held || until.After(time.Now()), nil
}

// rewrite writes a segment anew without some sessions.
func (s *Store) rewrite(ctx context.Context, l listed, gone map[string]bool) error {
	whole := make([]byte, l.size)
	if _, err := (&remote{ctx: ctx, s: s, number: l.number, object: l.object}).ReadAt(whole, 0); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := segment.Without(&b, bytes.NewReader(whole), l.size, l.number, gone); err != nil {
		return err
	}
	frames, _, _, err := segment.Scan(bytes.NewReader(b.Bytes()), int64(b.Len()), l.number, 0, false)
	if err != nil {
		return err
	}
	fresh, err := s.store(ctx, s.name(l.number), b.Bytes(), func(o *minio.PutObjectOptions) {
		if !s.versions {
			o.SetMatchETag(l.etag) // else another gateway was quicker
		}
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.sessions.Replace(l.number, frames)
	s.segments[l.number] = fresh
	index := segment.Index(frames, fresh.size)
	s.mu.Unlock()
	if err := s.deleteBut(ctx, s.name(l.number), fresh.version); err != nil {
		if s.versions { // the earlier version stays and counts: not one more with each attempt
			_ = s.client.RemoveObject(ctx, s.o.Bucket, s.name(l.number), minio.RemoveObjectOptions{VersionID: fresh.version})
		}
		return errors.Join(err, s.reload(ctx))
	}
	s.side(ctx, l.number, index)
	return nil
}

// deleteBut deletes every version of an object but one.
func (s *Store) deleteBut(ctx context.Context, name, version string) error {
	if !s.versions {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	for info := range s.client.ListObjectsIter(ctx, s.o.Bucket, minio.ListObjectsOptions{Prefix: name, WithVersions: true}) {
		if info.Err != nil {
			return s.failed("listing the versions of "+name, info.Err)
		}
		if info.Key != name || info.VersionID == version {
			continue
		}
		if err := s.client.RemoveObject(ctx, s.o.Bucket, name, minio.RemoveObjectOptions{VersionID: info.VersionID}); err != nil {
			return s.failed(fmt.Sprintf("deleting version %s of %s", info.VersionID, name), err)
		}
	}
	return nil
}

// errChanged says that a segment was written anew by another process.
var errChanged = errors.New("archive: s3: a segment was written anew")
