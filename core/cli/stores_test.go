package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/weir-gateway/weir/core/archive/s3/s3test"
	"github.com/weir-gateway/weir/core/archive/segment"
)

// A gateway that archives into a bucket and into a folder: both can be verified, shown and replayed, the bucket also by
// somebody who has no configuration.
func TestBucket(t *testing.T) {
	s := s3test.Start(t)
	s.Bucket(t, "evidence", true)
	p := newPlace(t)
	t.Setenv("WEIR_TEST_S3", s.SecretKey)
	p.replace("policies:", fmt.Sprintf(`archive:
  - {kind: s3, endpoint: %q, bucket: evidence, prefix: weir/, access_key: %s, secret_key: "${env:WEIR_TEST_S3}", object_lock: 1d}
  - {kind: file, path: ./copy}
policies:`, s.URL, s.AccessKey))
	p.must("check")
	r := p.serve()
	token := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff"))
	conn, got := r.talk(t, token, "hello bucket")
	if len(got) != 2 || got[1] != "hello bucket" {
		t.Fatalf("got %q", got)
	}
	id := strings.TrimPrefix(got[0], "ok ")
	_ = conn.Close()
	if err := r.stop(); err != nil { // what has been gathered is stored
		t.Fatal(err)
	}
	data := filepath.Join(p.dir, "data")
	log, key := filepath.Join(data, "ledger"), filepath.Join(data, "keys", "ledger.pub")
	t.Setenv("AWS_ENDPOINT_URL", s.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", s.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s.SecretKey)
	for name, args := range map[string][]string{
		"configured": {"verify", "--all"},
		"bucket":     {"verify", "--all", "--archive", "s3://evidence/weir/", "--ledger", log, "--key", key},
		"folder":     {"verify", "--all", "--archive", filepath.Join(p.dir, "copy"), "--ledger", log, "--key", key},
	} {
		if out := p.must(args...); !strings.HasPrefix(out, "verified: 2 sessions,") { // and the making of the token
			t.Errorf("%s: %s", name, out)
		}
	}
	for _, args := range [][]string{{"replay", id}, {"show", id, "--archive", "s3://evidence/weir/"}, {"replay", id, "--archive", filepath.Join(p.dir, "copy")}} {
		if out := p.must(args...); !strings.Contains(out, "hello bucket") {
			t.Errorf("%v:\n%s", args, out)
		}
	}
	p.noSecrets(r.log.String(), token)
	// A locked segment cannot be deleted; a marker over it is reported.
	ctx := context.Background()
	if err := s.Client.RemoveObject(ctx, "evidence", "weir/"+segment.Name(1), minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := p.weir("verify", "--all"); code != exitNo || !strings.Contains(out, "segment 1 has been deleted") {
		t.Errorf("exit %d, %s", code, out)
	}
	if out := p.must("verify", id); !strings.HasPrefix(out, "verified: 1 session,") {
		t.Error(out)
	}
	t.Setenv("AWS_ENDPOINT_URL", "")
	if code, _, text := p.weir("verify", "--all", "--archive", "s3://evidence/weir/"); code != exitUse || !strings.Contains(text, "AWS_ENDPOINT_URL") {
		t.Errorf("no endpoint: exit %d, %s", code, text)
	}
	t.Setenv("AWS_ENDPOINT_URL", s.URL)
	if code, _, text := p.weir("verify", "--all", "--archive", "s3://nowhere/"); code != exitUnreachable || !strings.Contains(text, "there is no bucket nowhere") {
		t.Errorf("no bucket: exit %d, %s", code, text)
	}
}
