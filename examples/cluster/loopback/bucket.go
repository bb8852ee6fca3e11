package loopback

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/weir-gateway/weir/core/archive/s3/s3test"
)

// Bucket is the archive's second store: a bucket with object lock, and the server that has it.
type Bucket struct {
	*Process
	Dir string // of the server's data

	address, secret string
	client          *minio.Client
}

const (
	bucketName = "evidence"
	bucketUser = "weir"
	prefix     = "weir/"
)

// bucket starts the server. Where it cannot be built there is none, and that is said.
func (c *Cluster) bucket(ctx context.Context) error {
	if !c.S3 {
		return nil
	}
	program, err := s3test.Install()
	if err != nil {
		said, _, _ := strings.Cut(err.Error(), "\n")
		fmt.Fprintf(c.Log, "there is no second store: an S3 server cannot be built here: %s\n", said)
		return nil
	}
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	b := &Bucket{Dir: filepath.Join(c.Dir, "s3"), address: ports[0], secret: "bucketCanary" + rand.Text()}
	for _, d := range []string{"data", "versions"} {
		if err := os.MkdirAll(filepath.Join(b.Dir, d), 0o700); err != nil {
			return err
		}
	}
	b.Process = &Process{
		Name: "s3", program: program, args: s3test.Arguments(b.address, b.Dir), env: s3test.Environment(bucketUser, b.secret),
		log: filepath.Join(c.Dir, "s3.log"), ready: responds("http://" + b.address),
	}
	if b.client, err = minio.New(b.address, &minio.Options{Creds: credentials.NewStaticV4(bucketUser, b.secret, ""), Region: "us-east-1"}); err != nil {
		return err
	}
	if err := c.up([]*Process{b.Process}, 30*time.Second); err != nil {
		return err
	}
	c.Bucket = b
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return b.client.MakeBucket(ctx, bucketName, minio.MakeBucketOptions{ObjectLocking: true})
}

func (b *Bucket) configuration() string {
	return fmt.Sprintf(`{kind: s3, endpoint: "http://%s", bucket: %s, prefix: %s, access_key: %s, secret_key: "${env:BUCKET_KEY}", object_lock: 1d}`,
		b.address, bucketName, prefix, bucketUser)
}

// Environment is what weir verify --archive takes to read the bucket.
func (b *Bucket) Environment() []string {
	return []string{"AWS_ENDPOINT_URL=http://" + b.address, "AWS_ACCESS_KEY_ID=" + bucketUser, "AWS_SECRET_ACCESS_KEY=" + b.secret}
}

// URL names the store.
func (b *Bucket) URL() string { return "s3://" + bucketName + "/" + prefix }

// Fetch copies the bucket's objects into a folder, as a file store has them.
func (b *Bucket) Fetch(ctx context.Context, dir string) error {
	for info := range b.client.ListObjectsIter(ctx, bucketName, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if info.Err != nil {
			return info.Err
		}
		if err := b.client.FGetObject(ctx, bucketName, info.Key, filepath.Join(dir, strings.TrimPrefix(info.Key, prefix)), minio.GetObjectOptions{}); err != nil {
			return fmt.Errorf("%s: %w", info.Key, err)
		}
	}
	return nil
}

// Remove tries to remove every version of every segment, as somebody with all rights in the bucket might, and returns how many
// the bucket has kept. That it has let one go is an error.
func (b *Bucket) Remove(ctx context.Context) (kept int, err error) {
	for info := range b.client.ListObjectsIter(ctx, bucketName, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, WithVersions: true}) {
		if info.Err != nil {
			return kept, info.Err
		}
		if !strings.HasSuffix(info.Key, ".weir") {
			continue
		}
		err := b.client.RemoveObject(ctx, bucketName, info.Key, minio.RemoveObjectOptions{VersionID: info.VersionID, GovernanceBypass: true})
		if err == nil {
			return kept, fmt.Errorf("the bucket let %s go", info.Key)
		}
		if minio.ToErrorResponse(err).StatusCode != http.StatusForbidden {
			return kept, err
		}
		kept++
	}
	if kept == 0 {
		return 0, errors.New("there is nothing in the bucket")
	}
	return kept, nil
}

// responds is a way to be ready: a URL at which somebody answers.
func responds(url string) func(*Process) bool {
	client := &http.Client{Timeout: time.Second}
	return func(*Process) bool {
		r, err := client.Get(url)
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return true
	}
}
