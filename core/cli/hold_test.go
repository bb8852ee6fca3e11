package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// later makes the clock of purges run ahead.
func later(t *testing.T, d time.Duration) {
	t.Helper()
	clock = func() time.Time { return time.Now().Add(d) }
	t.Cleanup(func() { clock = time.Now })
}

// Sessions that are over their time are removed, with a tombstone; a held one is not, whoever asks; and the archive
// verifies all along.
func TestHoldAndPurge(t *testing.T) {
	p := newPlace(t)
	p.replace("chain: [small]", "chain: [small]\nretention: {default: 400d, classes: {short: 30d}}")
	p.replace("protocol: echo", "protocol: echo\n    retention: short")
	later(t, 31*24*time.Hour)
	r := p.serve()
	token := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff"))
	var ids []string
	for _, line := range []string{"read bluebird", "read kestrel", "read magpie"} {
		conn, got := r.talk(t, token, line)
		ids = append(ids, strings.TrimPrefix(got[0], "ok "))
		_ = conn.Close()
	}
	verified := func(want string) {
		t.Helper()
		var out string
		eventually(t, "verified: "+want, func() bool {
			_, out, _ = p.weir("verify", "--all")
			return strings.HasPrefix(out, "verified: "+want)
		})
	}
	verified("4 sessions") // three, and the making of the token, whose time is the default
	eventually(t, "indexed", func() bool { return len(p.list()) == 3 })
	if code, _, text := p.weir("hold", ids[2]); code != exitDone || !strings.Contains(text, "no reason is given") {
		t.Errorf("without a reason: %d %s", code, text)
	}
	p.must("release", ids[2])
	if code, _, text := p.weir("hold", "01aaaaaaaaaaaaaaaaaaaaaaaa", "--reason", "x"); code != exitNo || !strings.Contains(text, "no such session") {
		t.Errorf("unknown: %d %s", code, text)
	}
	p.must("hold", ids[0], "--reason", "case 4711: ä & b", "--by", "counsel")
	if code, _, text := p.weir("hold", ids[0], "--reason", "again"); code != exitNo || !strings.Contains(text, "is held already") {
		t.Errorf("twice: %d %s", code, text)
	}
	var held []map[string]any
	if err := json.Unmarshal([]byte(p.must("hold", "-o", "json")), &held); err != nil || len(held) != 1 || held[0]["session"] != ids[0] || held[0]["by"] != "counsel" || held[0]["why"] != "case 4711: ä & b" {
		t.Fatalf("held: %v, %v", held, err)
	}
	if out := p.must("purge", "--dry-run"); !strings.Contains(out, ids[1]) || strings.Contains(out, ids[0]) || !strings.Contains(out, "would be removed: 2 sessions; kept under legal hold: 1") {
		t.Error(out)
	}
	if len(p.list()) != 3 {
		t.Error("a dry run has removed something")
	}
	if out := p.must("purge", "--by", "ops"); !strings.HasPrefix(out, "removed: 2 sessions; kept under legal hold: 1") {
		t.Error(out)
	}
	verified("2 sessions")
	if list := p.list(); len(list) != 1 || list[0]["id"] != ids[0] {
		t.Errorf("left: %v", list)
	}
	var report struct {
		OK      bool
		Removed []struct{ Session, By, Why string }
	}
	if err := json.Unmarshal([]byte(p.must("verify", "--all", "-o", "json")), &report); err != nil || !report.OK || len(report.Removed) != 2 ||
		report.Removed[0].By != "ops" || report.Removed[0].Why != "retention: class short, kept for 720h0m0s" {
		t.Errorf("%+v, %v", report, err)
	}
	if code, _, _ := p.weir("show", ids[1]); code != exitNo {
		t.Errorf("a removed session is shown: %d", code)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	for _, folder := range []string{"archive", "."} { // nor is a word of it left in the files
		files, _ := filepath.Glob(filepath.Join(p.dir, "data", folder, "*"))
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), "kestrel") {
				t.Errorf("%s still holds what was removed", f)
			}
		}
	}
	// Without a gateway.
	if out := p.must("purge"); !strings.HasPrefix(out, "removed: 0 sessions; kept under legal hold: 1") {
		t.Error(out)
	}
	p.must("release", ids[0], "--reason", "closed")
	if code, _, text := p.weir("release", ids[0], "--reason", "closed"); code != exitNo || !strings.Contains(text, "is not held") {
		t.Errorf("released twice: %d %s", code, text)
	}
	if out := p.must("purge"); !strings.HasPrefix(out, "removed: 1 session; kept under legal hold: 0") {
		t.Error(out)
	}
	if out := p.must("verify", "--all"); !strings.HasPrefix(out, "verified: 2 sessions,") || !strings.Contains(out, "3 removed") {
		t.Error(out)
	}
	if code, _, text := p.weir("hold", ids[0], "--reason", "too late"); code != exitNo {
		t.Errorf("held when gone: %d %s", code, text)
	}
}
