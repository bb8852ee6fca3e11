package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive"
	"github.com/weir-gateway/weir/core/archive/file"
	"github.com/weir-gateway/weir/core/archive/s3"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/credential"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
)

// stored is an archive store: what it holds can be read, looked for damage, and followed.
type stored interface {
	core.Store
	ledger.Checker
	keyring.Store
	Last(ctx context.Context, id string) (core.Block, error)
}

// openStores opens the configured stores to write them, and names each for its consumers.
func openStores(ctx context.Context, c *config.Config) (out []archive.Named, err error) {
	kinds := map[string]int{}
	for i := range c.Archive {
		a := &c.Archive[i]
		s, err := openConfigured(ctx, c, a, false)
		if err != nil {
			for _, n := range out {
				err = errors.Join(err, n.Close())
			}
			return nil, err
		}
		kinds[a.Kind]++
		n := archive.Named{Name: a.Kind, Store: s}
		if k := kinds[a.Kind]; k > 1 {
			n.Name = fmt.Sprintf("%s-%d", a.Kind, k)
		}
		if a.Kind == config.ArchiveS3 {
			n.Gather = archive.GatherObjects
		}
		out = append(out, n)
	}
	return out, nil
}

// openConfigured opens one configured store.
func openConfigured(ctx context.Context, c *config.Config, a *config.Archive, readOnly bool) (stored, error) {
	if a.Kind != config.ArchiveS3 {
		if readOnly {
			return openFolder(a.Path)
		}
		return file.Open(a.Path, file.Options{})
	}
	o := s3.Options{Endpoint: a.Endpoint, Region: a.Region, Bucket: a.Bucket, Prefix: a.Prefix, Lock: a.ObjectLock, ReadOnly: readOnly}
	for _, k := range []struct {
		from config.Secret
		to   *string
	}{{a.AccessKey, &o.AccessKey}, {a.SecretKey, &o.SecretKey}} {
		if k.from.IsZero() {
			continue
		}
		source, err := credential.Parse(k.from.Reference(), c.Dir)
		if err == nil {
			*k.to, err = source.Read(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("archive: s3: %w", err)
		}
	}
	return openBucket(ctx, o)
}

// openStore opens an archive to read it, beside a gateway or without one: where is a folder, or s3://BUCKET/PREFIX.
func openStore(ctx context.Context, where string) (stored, error) {
	bucket, prefix, ok := s3.Location(where)
	if !ok {
		return openFolder(where)
	}
	endpoint := os.Getenv("AWS_ENDPOINT_URL")
	region := os.Getenv("AWS_REGION")
	if endpoint == "" && region != "" {
		endpoint = "https://s3." + region + ".amazonaws.com"
	}
	if endpoint == "" {
		return nil, use(errors.New("the environment does not say where the bucket is: set AWS_ENDPOINT_URL, or AWS_REGION"))
	}
	return openBucket(ctx, s3.Options{Endpoint: endpoint, Region: region, Bucket: bucket, Prefix: prefix, ReadOnly: true})
}

func openBucket(ctx context.Context, o s3.Options) (stored, error) {
	s, err := s3.Open(ctx, o)
	if err != nil {
		return nil, unreachable(err)
	}
	return s, nil
}

func openFolder(dir string) (stored, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, unreachable(fmt.Errorf("there is no archive: %w", err))
	}
	s, err := file.Open(dir, file.Options{ReadOnly: true})
	if err != nil {
		return nil, unreachable(err)
	}
	return s, nil
}
