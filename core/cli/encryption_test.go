package cli

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

// whispered is what a session says; in clear it may stand nowhere.
const whispered = "kestrel-7f3a9c"

// holding returns the files under a folder that hold a text.
func holding(t *testing.T, dir, text string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // what is gone by now holds nothing
		}
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(text)) {
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Recordings are encrypted for the local key and an auditor; each reads them, nobody else does, and everybody proves them.
// What a subject did is shredded, and stays proved.
func TestEncryptionAndShredding(t *testing.T) {
	p := newPlace(t)
	auditor, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	p.replace("chain: [small]", "chain: [small]\nencryption: {recipients: [local, "+auditor.Recipient().String()+"]}")
	data := filepath.Join(p.dir, "data")
	r := p.serve()
	var ids []string
	for _, who := range []string{"ada", "eve"} {
		token := strings.TrimSpace(p.must("token", "--subject", who, "--group", "staff"))
		conn, got := r.talk(t, token, whispered+" "+who)
		ids = append(ids, strings.TrimPrefix(got[0], "ok "))
		_ = conn.Close()
	}
	verified := func(want string, args ...string) {
		t.Helper()
		var out string
		eventually(t, "verified: "+want, func() bool {
			_, out, _ = p.weir(append([]string{"verify", "--all"}, args...)...)
			return strings.HasPrefix(out, "verified: ") && strings.Contains(out, want)
		})
	}
	verified(" sessions")
	eventually(t, "indexed", func() bool { return len(p.list()) == 2 })
	if out := p.must("sessions", "--grep", whispered); !strings.Contains(out, ids[0]) {
		t.Errorf("the index does not know what was said:\n%s", out)
	}
	if out := p.must("show", ids[0]); !strings.Contains(out, whispered) {
		t.Error(out)
	}
	for _, where := range []string{"archive", "ledger"} {
		if got := holding(t, filepath.Join(data, where), whispered); len(got) > 0 {
			t.Errorf("in clear: %q", got)
		}
	}

	// A copy, elsewhere: it is proved without a key, and read with the auditor's.
	copied := t.TempDir()
	for _, d := range []string{"archive", "ledger"} {
		if err := os.CopyFS(filepath.Join(copied, d), os.DirFS(filepath.Join(data, d))); err != nil {
			t.Fatal(err)
		}
	}
	public := filepath.Join(data, "keys", "ledger.pub")
	elsewhere := []string{"--archive", filepath.Join(copied, "archive"), "--key", public}
	verified("encrypted, and not opened", elsewhere...)
	key := filepath.Join(copied, "auditor.key")
	if err := os.WriteFile(key, []byte(auditor.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := p.must(append([]string{"verify", "--all", "--identity", key}, elsewhere...)...); strings.Contains(out, "not opened") {
		t.Error(out)
	}
	if out := p.must("show", ids[1], "--archive", filepath.Join(copied, "archive"), "--identity", key); !strings.Contains(out, whispered) {
		t.Error(out)
	}
	if code, out, text := p.weir("show", ids[1], "--archive", filepath.Join(copied, "archive")); code == 0 || strings.Contains(out, whispered) || !strings.Contains(text, "nothing is at hand to open it with") {
		t.Errorf("without a key: %d %s %s", code, out, text)
	}
	if err := os.RemoveAll(filepath.Join(copied, "archive", "keys")); err != nil {
		t.Fatal(err)
	}
	verified("encrypted, and not opened", elsewhere...)

	// A bundle opens its own session.
	file := filepath.Join(copied, "s.weir")
	p.must("export", ids[0], "-o", file)
	if out := p.must("verify", file, "--key", public); strings.Contains(out, "not opened") {
		t.Error(out)
	}
	parts := unzip(t, file)
	if !bytes.Contains(parts["timeline.html"], []byte(whispered)) || bytes.Contains(parts["00000001.weir"], []byte(whispered)) || len(parts["keys.json"]) == 0 {
		t.Errorf("the bundle: %d files", len(parts))
	}

	// Another key, for everything.
	fresh := strings.TrimSpace(p.must("keys", "rotate"))
	if out := p.must("keys", "rewrap"); !strings.HasPrefix(out, "wrapped anew: ") || !strings.HasSuffix(out, "; left as they are: 0\n") {
		t.Error(out)
	}
	local := filepath.Join(data, "keys", "recordings.key")
	ring, err := os.ReadFile(local)
	if err != nil || strings.Count(string(ring), "AGE-SECRET-KEY-1") != 2 || !strings.Contains(string(ring), fresh) {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(ring)[strings.Index(string(ring), "AGE-SECRET-KEY-1"):], "\n")
	if err := os.WriteFile(local, []byte(first+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.must("show", ids[0])

	// Too young, then under hold, then shredded.
	if out := p.must("shred", "--subject", "ada", "--reason", "request 17"); !strings.HasPrefix(out, "shredded: 0 sessions, 0 keys") || !strings.Contains(out, "may be in use until") {
		t.Error(out)
	}
	later(t, 2*time.Hour)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	for _, where := range []string{"archive", "ledger", "journal", "jetstream"} {
		if got := holding(t, filepath.Join(data, where), whispered); len(got) > 0 {
			t.Errorf("after the end, in clear: %q", got)
		}
	}
	r = p.serve()
	p.must("hold", ids[0], "--reason", "case")
	if code, _, text := p.weir("shred", "--subject", "ada", "--reason", "x"); code != exitNo || !strings.Contains(text, "legal hold") {
		t.Errorf("held: %d %s", code, text)
	}
	p.must("release", ids[0], "--reason", "closed")
	if out := p.must("shred", "--subject", "ada", "--dry-run"); !strings.HasPrefix(out, "would be shredded: 1 session, 1 key") {
		t.Error(out)
	}
	var done struct{ Sessions []string }
	if err := json.Unmarshal([]byte(p.must("shred", "--subject", "ada", "--reason", "request 17", "-o", "json")), &done); err != nil || len(done.Sessions) != 1 || done.Sessions[0] != ids[0] {
		t.Fatal(done, err)
	}
	if code, _, text := p.weir("shred", "--subject", "ada", "--reason", "x"); code != exitNo || !strings.Contains(text, "no recording key") {
		t.Errorf("twice: %d %s", code, text)
	}
	verified("1 shredded, with a signed leaf each")
	if code, out, text := p.weir("show", ids[0]); code == 0 || strings.Contains(out, whispered) || !strings.Contains(text, "its key is not here") {
		t.Errorf("shredded: %d %s %s", code, out, text)
	}
	if out := p.must("show", ids[1]); !strings.Contains(out, whispered) { // the other's is left alone
		t.Error(out)
	}
	p.must("index", "rebuild")
	if list := p.list(); len(list) != 2 {
		t.Errorf("listed: %v", list)
	}
	if out := p.must("sessions", "--grep", whispered); strings.Contains(out, ids[0]) || !strings.Contains(out, ids[1]) {
		t.Error(out)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if got := holding(t, data, whispered+" ada"); len(got) > 0 {
		t.Errorf("shredded, and in clear: %q", got)
	}
}
