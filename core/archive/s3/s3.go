// Package s3 keeps blocks in a bucket of any server that speaks S3, as the file store keeps them in a directory: each Put
// makes one object, which is a segment. A copy of the bucket is a file archive, and the other way round.
//
// An object is made once and never written again: it is put on the condition that there is none of its name, so several
// gateways may write to one bucket. In a bucket with object lock it cannot be deleted before its time; what is laid over
// it later is another version, and never read.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/segment"
	"github.com/weir-gateway/weir/core/download"
	"github.com/weir-gateway/weir/core/ledger"
)

const (
	segmentSize = 64 << 20 // bytes after which a Put begins another object
	turns       = 32       // other writers that may be quicker, before a Put gives up
	callTime    = 2 * time.Minute
)

// Options of a store.
type Options struct {
	// Endpoint is the server's URL. Plain http is for this machine's own addresses only: blocks hold what was recorded.
	Endpoint string
	Region   string // empty: us-east-1
	Bucket   string
	Prefix   string // of the objects' names; with its slash, where it is to look like a folder
	// AccessKey and SecretKey sign requests. Without them the environment's are used (AWS_ACCESS_KEY_ID and
	// AWS_SECRET_ACCESS_KEY), and else those of the machine's role.
	AccessKey, SecretKey string
	// Lock is for how long nobody can delete an object, an administrator included. The bucket must have object lock.
	Lock time.Duration
	// ReadOnly opens a bucket to read it. Put fails; what is added later is seen.
	ReadOnly bool
}

// Store keeps blocks in a bucket. Safe for concurrent use.
type Store struct {
	o      Options
	client *minio.Core

	mu       sync.Mutex // of what is known of the bucket
	sessions segment.Directory
	segments map[uint32]object
	current  uint32
	looked   time.Time
	versions bool // the bucket keeps versions

	put sync.Mutex // one object is made at a time
}

// object is a segment in the bucket.
type object struct {
	size    int64
	version string // the first one's, where the bucket keeps versions
	etag    string
}

// Open connects to the bucket, checks that it can do what is asked of it, and reads what it holds.
func Open(ctx context.Context, o Options) (*Store, error) {
	u, err := download.Endpoint(o.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("archive: s3: %w", err)
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	keys := credentials.NewStaticV4(o.AccessKey, o.SecretKey, "")
	if o.AccessKey == "" {
		keys = credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.IAM{}})
	}
	client, err := minio.NewCore(u.Host, &minio.Options{
		Creds: keys, Secure: u.Scheme == "https", Region: o.Region, BucketLookup: lookup(u.Host), MaxRetries: 3,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: time.Minute, IdleConnTimeout: 90 * time.Second,
			MaxIdleConnsPerHost: 8, DisableCompression: true,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("archive: s3: %w", err)
	}
	s := &Store{o: o, client: client, sessions: segment.Directory{}, segments: map[uint32]object{}}
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// lookup says how a bucket is named: in the host's name by those servers that are known to want it.
func lookup(host string) minio.BucketLookupType {
	if strings.HasSuffix(host, ".amazonaws.com") {
		return minio.BucketLookupDNS
	}
	return minio.BucketLookupPath
}

// check asks whether the bucket is there, and whether it locks where that is wanted.
func (s *Store) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	ok, err := s.client.BucketExists(ctx, s.o.Bucket)
	if err != nil {
		return s.failed("asking for the bucket", err)
	}
	if !ok {
		return fmt.Errorf("archive: s3: there is no bucket %s on %s that these keys may see: make it first, with object lock if it is to keep what it is given", s.o.Bucket, s.o.Endpoint)
	}
	state, _, _, _, err := s.client.GetObjectLockConfig(ctx, s.o.Bucket)
	locks := err == nil && state == "Enabled"
	if s.o.Lock > 0 && !locks {
		return fmt.Errorf("archive: s3: bucket %s has no object lock, so object_lock would do nothing: make a bucket that has it, or leave the key out", s.o.Bucket)
	}
	v, err := s.client.GetBucketVersioning(ctx, s.o.Bucket)
	s.versions = locks || err == nil && v.Enabled()
	return nil
}

func (s *Store) failed(what string, err error) error {
	return fmt.Errorf("archive: s3: bucket %s: %s: %w", s.o.Bucket, what, err)
}

func (s *Store) name(n uint32) string      { return s.o.Prefix + segment.Name(n) }
func (s *Store) indexName(n uint32) string { return s.o.Prefix + segment.IndexName(n) }

// Put implements core.Store.
func (s *Store) Put(ctx context.Context, blocks []core.Block) error {
	if s.o.ReadOnly {
		return errors.New("archive: s3: the store is open for reading only")
	}
	for i := range blocks {
		if err := segment.Check(&blocks[i]); err != nil {
			return err
		}
	}
	s.put.Lock()
	defer s.put.Unlock()
	for len(blocks) > 0 {
		n, err := s.write(ctx, blocks)
		if err != nil {
			return err
		}
		blocks = blocks[n:]
	}
	return nil
}

// write makes one object of as many of the blocks as it takes, at least one, but for those that the bucket has.
func (s *Store) write(ctx context.Context, blocks []core.Block) (int, error) {
	for range turns {
		fresh, n, err := s.fresh(ctx, blocks)
		if err != nil || len(fresh) == 0 {
			return n, err
		}
		s.mu.Lock()
		number := s.current + 1
		s.mu.Unlock()
		b := segment.Head(number)
		var frames []segment.Frame
		for _, k := range fresh {
			frames = append(frames, segment.Frame{Session: k.Header.Session, Ref: segment.Ref{
				Number: k.Header.Number, Segment: number, Offset: uint32(len(b) + segment.FrameHead), Size: uint32(len(k.Bytes)),
			}})
			b = segment.AppendFrame(b, k)
		}
		made, err := s.make(ctx, number, b)
		if errors.Is(err, errTaken) { // by another gateway, or by us, and the answer was lost: what it holds is seen
			if err := s.refresh(ctx); err != nil {
				return 0, err
			}
			continue
		}
		if err != nil {
			return 0, err
		}
		s.mu.Lock()
		s.sessions.Add(frames...)
		s.segments[number] = made
		s.current = max(s.current, number)
		index := segment.Index(frames, int64(len(b)))
		s.mu.Unlock()
		s.side(ctx, number, index)
		return n, nil
	}
	return 0, fmt.Errorf("archive: s3: bucket %s: others were quicker %d times", s.o.Bucket, turns)
}

// fresh returns the blocks that have to be written, of the first n.
func (s *Store) fresh(ctx context.Context, blocks []core.Block) (fresh []*core.Block, n int, err error) {
	size := segment.HeadSize
	for i := range blocks {
		b := &blocks[i]
		if i > 0 && size > segmentSize {
			break
		}
		n++
		s.mu.Lock()
		r, known := s.sessions.Find(b.Header.Session, b.Header.Number)
		s.mu.Unlock()
		if known {
			stored, err := s.read(ctx, r, 1)
			if err != nil {
				return nil, 0, err
			}
			if [32]byte(stored) != b.Hash {
				return nil, 0, fmt.Errorf("archive: block %d of %s: %w", b.Header.Number, b.Header.Session, core.ErrFork)
			}
			continue
		}
		twin := slices.IndexFunc(fresh, func(k *core.Block) bool {
			return k.Header.Session == b.Header.Session && k.Header.Number == b.Header.Number
		})
		if twin >= 0 { // twice in one call
			if fresh[twin].Hash != b.Hash {
				return nil, 0, fmt.Errorf("archive: block %d of %s: %w", b.Header.Number, b.Header.Session, core.ErrFork)
			}
			continue
		}
		fresh = append(fresh, b)
		size += segment.FrameHead + len(b.Bytes)
	}
	return fresh, n, nil
}

var errTaken = errors.New("there is an object of the name")

// make makes an object, if there is none of its name.
func (s *Store) make(ctx context.Context, number uint32, b []byte) (object, error) {
	made, err := s.store(ctx, s.name(number), b, func(o *minio.PutObjectOptions) {
		o.SetMatchETagExcept("*")
		if s.o.Lock > 0 {
			o.Mode, o.RetainUntilDate = minio.Compliance, time.Now().Add(s.o.Lock).UTC()
		}
	})
	var refused minio.ErrorResponse
	if errors.As(err, &refused) && (refused.StatusCode == http.StatusPreconditionFailed || refused.StatusCode == http.StatusConflict) {
		return made, errTaken
	}
	return made, err
}

// store stores an object, on the conditions that with sets.
func (s *Store) store(ctx context.Context, name string, b []byte, with func(*minio.PutObjectOptions)) (object, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	o := minio.PutObjectOptions{ContentType: "application/octet-stream", DisableMultipart: true, SendContentMd5: true}
	with(&o)
	info, err := s.client.Client.PutObject(ctx, s.o.Bucket, name, bytes.NewReader(b), int64(len(b)), o)
	if err != nil {
		return object{}, s.failed("storing "+name, err)
	}
	return object{size: int64(len(b)), version: info.VersionID, etag: info.ETag}, nil
}

// side stores a side file. Its loss costs a scan, so a failure is none.
func (s *Store) side(ctx context.Context, number uint32, b []byte) {
	_, _ = s.store(ctx, s.indexName(number), b, func(*minio.PutObjectOptions) {})
}

// Sessions implements core.Store.
func (s *Store) Sessions(ctx context.Context, f func(id string) error) error {
	if err := s.look(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	ids := s.sessions.Names()
	s.mu.Unlock()
	return segment.Each(ctx, ids, f)
}

// Blocks implements core.Store.
func (s *Store) Blocks(ctx context.Context, id string, f func(core.Block) error) error {
	return s.blocks(ctx, id, false, f)
}

// Last returns the block of the highest number of a session, or an error that wraps core.ErrNoSession.
func (s *Store) Last(ctx context.Context, id string) (core.Block, error) {
	var out core.Block
	err := s.blocks(ctx, id, true, func(b core.Block) error { out = b; return nil }) // the buffer is not used again
	return out, err
}

func (s *Store) blocks(ctx context.Context, id string, last bool, f func(core.Block) error) error {
	if err := s.look(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	list := s.sessions.Of(id)
	s.mu.Unlock()
	if len(list) == 0 {
		return fmt.Errorf("archive: session %s: %w", id, core.ErrNoSession)
	}
	if last {
		list = list[len(list)-1:]
	}
	for changes := 0; len(list) > 0; {
		n := run(list)
		stored, err := s.read(ctx, list[0], span(list[:n]))
		if errors.Is(err, errChanged) && changes < turns { // its blocks lie elsewhere, or have been removed
			changes++
			if err := s.reload(ctx); err != nil {
				return err
			}
			s.mu.Lock()
			rest := s.sessions.Of(id)
			s.mu.Unlock()
			at, _ := rest.Find(list[0].Number)
			list = rest[at:]
			continue
		}
		if err != nil {
			return err
		}
		first, _ := list[0].Stored()
		for _, r := range list[:n] {
			at, size := r.Stored()
			if err := f(segment.Block(id, r, stored[at-first:][:size])); err != nil {
				return err
			}
		}
		list = list[n:]
	}
	return nil
}

// Blocks that lie close together are read at once.
const (
	readAtOnce = 8 << 20
	readOver   = 256 << 10 // bytes between two blocks that are read rather than asked for anew
)

// run returns how many of the first blocks are read at once.
func run(list segment.Refs) int {
	first, size := list[0].Stored()
	end := first + int64(size)
	for i, r := range list[1:] {
		at, size := r.Stored()
		if r.Segment != list[0].Segment || at < end || at-end > readOver || at+int64(size)-first > readAtOnce {
			return i + 1
		}
		end = at + int64(size)
	}
	return len(list)
}

// span is how many bytes a run takes.
func span(list segment.Refs) int {
	first, _ := list[0].Stored()
	at, size := list[len(list)-1].Stored()
	return int(at-first) + size
}

// Close implements core.Store.
func (s *Store) Close() error {
	s.put.Lock() // a Put that is under way ends first
	defer s.put.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.o.ReadOnly = true
	return nil
}

var (
	_ core.Store     = (*Store)(nil)
	_ ledger.Checker = (*Store)(nil)
)
