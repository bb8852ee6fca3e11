package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/weir-gateway/weir/core/archive/segment"
)

const (
	keysPrefix = "keys/" // behind the store's own prefix
	maxKey     = 64 << 10
)

func (s *Store) keyName(name string) (string, error) {
	if !segment.ValidKey(name) {
		return "", fmt.Errorf("archive: s3: %q names no recording key", name)
	}
	return s.o.Prefix + keysPrefix + segment.KeyName(name), nil
}

// PutKey keeps the record of a recording key. It is never locked, so that it can be destroyed, unless the bucket locks
// whatever it is given.
func (s *Store) PutKey(ctx context.Context, name string, record []byte) error {
	object, err := s.keyName(name)
	if err != nil {
		return err
	}
	if s.o.ReadOnly {
		return errors.New("archive: s3: the store is open for reading only")
	}
	_, err = s.store(ctx, object, record, func(*minio.PutObjectOptions) {})
	return err
}

// Key returns the record of a recording key, or an error that wraps fs.ErrNotExist.
func (s *Store) Key(ctx context.Context, name string) ([]byte, error) {
	object, err := s.keyName(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	body, _, _, err := s.client.GetObject(ctx, s.o.Bucket, object, minio.GetObjectOptions{})
	if code := minio.ToErrorResponse(err); err != nil && (code.StatusCode == http.StatusNotFound || code.Code == "NoSuchKey") {
		return nil, fmt.Errorf("archive: s3: key %s: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, s.failed("reading "+object, err)
	}
	b, err := io.ReadAll(io.LimitReader(body, maxKey+1))
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, s.failed("reading "+object, err)
	}
	return b, nil
}

// Keys calls f with the name of each recording key that has a record.
func (s *Store) Keys(ctx context.Context, f func(name string) error) error {
	var names []string
	listing, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	for info := range s.client.ListObjectsIter(listing, s.o.Bucket, minio.ListObjectsOptions{Prefix: s.o.Prefix + keysPrefix}) {
		if info.Err != nil {
			return s.failed("listing the keys", info.Err)
		}
		if name, ok := segment.Key(info.Key); ok && strings.HasPrefix(info.Key, s.o.Prefix+keysPrefix) {
			names = append(names, name)
		}
	}
	return segment.Each(ctx, names, f)
}

// DropKey removes the record of a recording key for good, with all its versions. Where the bucket has locked it the error
// wraps a *segment.Locked.
func (s *Store) DropKey(ctx context.Context, name string) error {
	object, err := s.keyName(name)
	if err != nil {
		return err
	}
	if s.o.ReadOnly {
		return errors.New("archive: s3: the store is open for reading only")
	}
	if !s.versions {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		if err := s.client.RemoveObject(ctx, s.o.Bucket, object, minio.RemoveObjectOptions{}); err != nil {
			return s.failed("deleting "+object, err)
		}
		return nil
	}
	err = s.deleteBut(ctx, object, "")
	var refused minio.ErrorResponse
	if errors.As(err, &refused) && (refused.StatusCode == http.StatusForbidden || strings.Contains(refused.Code, "Lock")) {
		return fmt.Errorf("%w: %w", &segment.Locked{Parts: 1}, err)
	}
	return err
}
