package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core/download"
)

const mostLock = 100 * 365 * 24 * time.Hour

var archiveKeys = map[string][]string{
	ArchiveFile: {"kind", "path"},
	ArchiveS3:   {"kind", "endpoint", "bucket", "prefix", "region", "access_key", "secret_key", "object_lock"},
}

// checkArchive checks the stores. Each has the keys of its kind and no others.
func (k *checker) checkArchive() {
	places := map[string]bool{}
	for i := range k.Archive {
		a, at := &k.Archive[i], fmt.Sprintf("archive[%d]", i)
		keys, known := archiveKeys[a.Kind]
		switch {
		case a.Kind == "":
			k.problem(at, "", "has no kind")
			continue
		case !known:
			k.problem(at+".kind", "use file or s3", "this build has no store of kind %q", a.Kind)
			continue
		}
		for _, key := range sortedKeys(a.Rest) {
			k.problem(join(at, key), hintNearest(key, keys), "unknown key")
		}
		for _, key := range slices.Concat(archiveKeys[ArchiveFile], archiveKeys[ArchiveS3]) {
			if k.set(join(at, key)) && !slices.Contains(keys, key) {
				k.problem(join(at, key), "leave it out", "does nothing in a store of kind %s", a.Kind)
			}
		}
		place := a.Path
		if a.Kind == ArchiveS3 {
			place = strings.Join([]string{"s3:", a.Endpoint, a.Bucket, a.Prefix}, "\x00")
			k.checkBucket(a, at)
		} else if a.Path == "" {
			k.problem(at, "", "has no path")
			continue
		}
		if places[place] {
			k.problem(at, "", "stands twice")
		}
		places[place] = true
	}
}

func (k *checker) checkBucket(a *Archive, at string) {
	if _, err := download.Endpoint(a.Endpoint); a.Endpoint == "" {
		k.problem(at, `name the server, such as "https://s3.eu-central-1.amazonaws.com"`, "has no endpoint")
	} else if err != nil {
		k.problem(at+".endpoint", "", "%v", err)
	}
	if a.Bucket == "" {
		k.problem(at, "", "has no bucket")
	}
	if strings.HasPrefix(a.Prefix, "/") || strings.Contains(a.Prefix, "//") {
		k.problem(at+".prefix", `such as "weir/"`, "begins with a slash or has two in a row")
	}
	if a.AccessKey.IsZero() != a.SecretKey.IsZero() {
		k.problem(at, "give both, or neither for the environment's", "has one of access_key and secret_key")
	}
	if a.SecretKey.Clear() {
		k.warn(at+".secret_key", "use ${env:NAME} or ${file:PATH}", "holds a secret in clear")
	}
	if k.set(at+".object_lock") && (a.ObjectLock < 24*time.Hour || a.ObjectLock > mostLock) {
		k.problem(at+".object_lock", "", "must be from 1d to 36500d")
	}
}
