package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/weir-gateway/weir/core/archive/segment"
)

// read returns what is stored of a block, and of what lies behind it, n bytes at least of the whole.
func (s *Store) read(ctx context.Context, r segment.Ref, n int) ([]byte, error) {
	at, size := r.Stored()
	b := make([]byte, max(n, size))
	if _, err := s.segment(ctx, r.Segment).ReadAt(b, at); err != nil {
		return nil, fmt.Errorf("archive: s3: segment %d at %d: %w", r.Segment, at, err)
	}
	return b, nil
}

// segment returns a segment as something that can be read at an offset.
func (s *Store) segment(ctx context.Context, number uint32) *remote {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &remote{ctx: ctx, s: s, number: number, object: s.segments[number]}
}

// remote reads an object.
type remote struct {
	ctx    context.Context //nolint:containedctx // lives for one reading
	s      *Store
	number uint32
	object
	ahead int    // bytes to read at a time; 0: what is asked for
	from  int64  // where kept lies
	kept  []byte // what was read ahead
}

// ReadAt implements io.ReaderAt.
func (r *remote) ReadAt(b []byte, at int64) (int, error) {
	if at >= r.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), r.size-at))
	if in := at - r.from; in < 0 || in+int64(n) > int64(len(r.kept)) {
		want := int(min(int64(max(n, r.ahead)), r.size-at))
		if cap(r.kept) < want {
			r.kept = make([]byte, want)
		}
		r.kept, r.from = r.kept[:want], at
		if err := r.fetch(); err != nil {
			r.kept = r.kept[:0]
			return 0, err
		}
	}
	copy(b, r.kept[at-r.from:][:n])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// fetch fills kept.
func (r *remote) fetch() error {
	ctx, cancel := context.WithTimeout(r.ctx, callTime)
	defer cancel()
	o := minio.GetObjectOptions{VersionID: r.version}
	if err := o.SetRange(r.from, r.from+int64(len(r.kept))-1); err != nil {
		return err
	}
	if err := o.SetMatchETag(r.etag); err != nil && r.etag != "" {
		return err
	}
	body, _, _, err := r.s.client.GetObject(ctx, r.s.o.Bucket, r.s.name(r.number), o)
	if code := minio.ToErrorResponse(err); err != nil && (code.StatusCode == http.StatusPreconditionFailed || code.Code == "NoSuchVersion") {
		return fmt.Errorf("%w: %w", errChanged, r.s.failed("reading "+r.s.name(r.number), err))
	}
	if err != nil {
		return r.s.failed("reading "+r.s.name(r.number), err)
	}
	_, err = io.ReadFull(body, r.kept)
	if err := errors.Join(err, body.Close()); err != nil {
		return r.s.failed("reading "+r.s.name(r.number), err)
	}
	return nil
}

// listed is what a listing says of a segment.
type listed struct {
	object
	number  uint32
	deleted bool // a delete marker lies over it
	more    int  // versions that came later
}

// list returns the bucket's segments behind a number, in order. Of several versions the first counts: what was laid over
// it came later.
func (s *Store) list(ctx context.Context, behind uint32) ([]listed, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	o := minio.ListObjectsOptions{Prefix: s.o.Prefix, WithVersions: s.versions}
	if behind > 0 && !s.versions {
		o.StartAfter = s.name(behind)
	}
	found := map[uint32]*listed{}
	for info := range s.client.ListObjectsIter(ctx, s.o.Bucket, o) {
		if info.Err != nil {
			return nil, s.failed("listing it", info.Err)
		}
		number, ok := segment.Number(info.Key)
		if !ok || info.Key != s.name(number) || number <= behind {
			continue
		}
		l := found[number]
		if l == nil {
			l = &listed{number: number}
			found[number] = l
		}
		switch {
		case info.IsDeleteMarker:
			l.deleted = true
		default: // versions come from the newest to the oldest (S3 API, ListObjectVersions)
			if l.version != "" {
				l.more++
			}
			l.object = object{size: info.Size, version: info.VersionID, etag: info.ETag}
		}
	}
	var out []listed
	for _, l := range found {
		if l.size > 0 || l.version != "" { // else only a marker is left
			out = append(out, *l)
		}
	}
	slices.SortFunc(out, func(a, b listed) int { return int(a.number) - int(b.number) })
	return out, nil
}

// look is refresh, for who only reads: what was added a moment ago is seen a moment later.
func (s *Store) look(ctx context.Context) error {
	if !s.o.ReadOnly {
		return nil
	}
	s.mu.Lock()
	young := time.Since(s.looked) < lookEvery
	s.mu.Unlock()
	if young {
		return nil
	}
	return s.refresh(ctx)
}

const lookEvery = 2 * time.Second

// refresh looks at what has been added since the last time.
func (s *Store) refresh(ctx context.Context) error {
	s.mu.Lock()
	current := s.current
	s.mu.Unlock()
	return s.lookBehind(ctx, current)
}

// reload looks at every segment that is not what it was.
func (s *Store) reload(ctx context.Context) error { return s.lookBehind(ctx, 0) }

func (s *Store) lookBehind(ctx context.Context, number uint32) error {
	all, err := s.list(ctx, number)
	if err != nil {
		return err
	}
	for _, l := range all {
		s.mu.Lock()
		was, known := s.segments[l.number]
		s.mu.Unlock()
		if was == l.object {
			continue
		}
		frames, ok := s.index(ctx, l)
		if !ok {
			if frames, _, err = s.scan(ctx, l); err != nil {
				return err
			}
		}
		s.mu.Lock()
		if known {
			s.sessions.Drop(l.number)
		}
		s.sessions.Add(frames...)
		s.segments[l.number] = l.object
		s.current = max(s.current, l.number)
		s.mu.Unlock()
	}
	s.mu.Lock()
	s.looked = time.Now()
	s.mu.Unlock()
	return nil
}

// maxIndex bounds a side file.
const maxIndex = 64 << 20

// index reads a segment's side file.
func (s *Store) index(ctx context.Context, l listed) ([]segment.Frame, bool) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	body, _, _, err := s.client.GetObject(ctx, s.o.Bucket, s.indexName(l.number), minio.GetObjectOptions{})
	if err != nil {
		return nil, false
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxIndex))
	if err != nil {
		return nil, false
	}
	return segment.ParseIndex(b, l.number, l.size)
}

// scan reads a segment's frames, all of it.
func (s *Store) scan(ctx context.Context, l listed) ([]segment.Frame, []string, error) {
	r := &remote{ctx: ctx, s: s, number: l.number, object: l.object, ahead: readAtOnce}
	frames, _, damage, err := segment.Scan(r, l.size, l.number, 0, false)
	return frames, damage, err
}

// Damage implements ledger.Checker: it looks at every segment anew, whatever the side files say.
func (s *Store) Damage(ctx context.Context) ([]string, error) {
	if err := s.reload(ctx); err != nil {
		return nil, err
	}
	all, err := s.list(ctx, 0)
	if err != nil {
		return nil, err
	}
	numbers := make([]uint32, len(all))
	for i, l := range all {
		numbers[i] = l.number
	}
	out := segment.Missing(numbers)
	for _, l := range all {
		if l.deleted {
			out = append(out, fmt.Sprintf("segment %d has been deleted; its first version is still there, and was read", l.number))
		}
		if l.more > 0 {
			out = append(out, fmt.Sprintf("segment %d has been written over; its first version is still there, and was read", l.number))
		}
		frames, damage, err := s.scan(ctx, l)
		if err != nil {
			return out, err
		}
		s.mu.Lock()
		out = append(append(out, damage...), s.sessions.Unlisted(frames)...)
		s.mu.Unlock()
	}
	return out, nil
}

// Location parses the URL of an archive in a bucket, s3://BUCKET/PREFIX.
func Location(raw string) (bucket, prefix string, ok bool) {
	rest, ok := strings.CutPrefix(raw, "s3://")
	if !ok {
		return "", "", false
	}
	bucket, prefix, _ = strings.Cut(rest, "/")
	return bucket, prefix, bucket != ""
}
