package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// wellMetrics is what a gateway tells that also keeps the archive, when all is well.
const wellMetrics = `# HELP weir_journal_lost 1 while nothing can be recorded
# TYPE weir_journal_lost gauge
weir_journal_lost 0
weir_journal_jetstream_up 1
weir_journal_spool_bytes 1024
weir_journal_spool_limit_bytes 1.073741824e+09
weir_journal_unsealed_sessions 3
weir_journal_forks_total 0
weir_gateway_sessions{target="orders"} 1
weir_gateway_sessions{target="a } b"} 2 1700000000000
weir_archive_worker 1
weir_archive_lag_messages 0
weir_archive_lag_seconds 0
weir_archive_refused_total{store="file"} 0
weir_verify_ok 1
weir_verify_age_seconds 7200
`

// witnessed is what it tells of two witnesses.
const witnessed = `weir_ledger_witness_configured 2
weir_ledger_witness_behind_seconds 0
weir_ledger_witness_failing{witness="a"} 0
weir_ledger_witness_failing{witness="b"} 0
weir_ledger_witness_forked{witness="a"} 0
weir_ledger_witness_forked{witness="b"} 0
`

// TestHealth: each thing that is lost or behind needs a hand, and says so; what is well does not.
func TestHealth(t *testing.T) {
	for _, tc := range []struct {
		name, from, to string // what is told in place of what
		lines          []string
		hand           string // empty: none
	}{
		{"well", "", "", []string{"recording=yes", "log=1.0 KiB not yet in JetStream, of 1.0 GiB at most", "JetStream=reachable", "archive=has everything", "verified=yes, 2 h ago", "unsealed=0 sessions that ended, not sealed yet"}, ""},
		{"lost", "weir_journal_lost 0", "weir_journal_lost 1", []string{"recording=NO: nothing passes"}, "nothing can be recorded"},
		{"away", "jetstream_up 1", "jetstream_up 0", []string{"JetStream=NOT reachable"}, "JetStream does not answer"},
		{"filling", "spool_bytes 1024", "spool_bytes 6e+08", []string{"log=572.2 MiB not yet in JetStream, of 1.0 GiB at most"}, "more than half full"},
		{"a fork", "forks_total 0", "forks_total 2", nil, "2 sessions given up"},
		{"behind", "lag_messages 0\nweir_archive_lag_seconds 0", "lag_messages 7\nweir_archive_lag_seconds 400", []string{"archive=lacks 7 messages, the oldest 6 min old"}, "behind by 6 min"},
		{"a little behind", "lag_messages 0\nweir_archive_lag_seconds 0", "lag_messages 1\nweir_archive_lag_seconds 2.5", []string{"archive=lacks 1 message, the oldest 2 s old"}, ""},
		{"somebody else's", `refused_total{store="file"} 0`, `refused_total{store="file"} 1`, nil, "1 message refused"},
		{"damaged", "verify_ok 1", "verify_ok 0", []string{"verified=NO, 2 h ago: weir verify --all"}, "something that does not hold"},
		{"never verified", "weir_verify_ok 1\nweir_verify_age_seconds 7200\n", "", []string{"verified=never: weir verify --all"}, ""},
		{"unsealed", "unsealed_sessions 3", "unsealed_sessions 4", []string{"unsealed=1 session that ended, not sealed yet"}, ""},
		{"archived elsewhere", "archive_worker 1", "archive_worker 0", []string{"archive=kept by another process"}, ""},
		{"witnessed", "weir_verify_ok 1", "weir_verify_ok 1\n" + witnessed, []string{"cosigned=by enough witnesses"}, ""},
		{"a witness away", "weir_verify_ok 1", "weir_verify_ok 1\n" + strings.Replace(witnessed, `failing{witness="a"} 0`, `failing{witness="a"} 1`, 1), []string{"cosigned=by enough witnesses; 1 of 2 FAIL"}, ""},
		{"on its way", "weir_verify_ok 1", "weir_verify_ok 1\n" + strings.Replace(witnessed, `behind_seconds 0`, `behind_seconds 12`, 1), []string{"cosigned=by too few witnesses for 12 s"}, ""},
		{"too few", "weir_verify_ok 1", "weir_verify_ok 1\n" + strings.Replace(witnessed, `behind_seconds 0`, `behind_seconds 700`, 1), []string{"cosigned=by too few witnesses for 11 min"}, "too few witnesses have cosigned the log for 11 min"},
		{"forked", "weir_verify_ok 1", "weir_verify_ok 1\n" + strings.Replace(witnessed, `forked{witness="b"} 0`, `forked{witness="b"} 1`, 1), nil, "1 of 2 witnesses have cosigned another log than this"},
		{"standing by", "limit_bytes 1.073741824e+09\n", "limit_bytes 0\nweir_archive_worker -1\n", []string{"archive=stands by for another worker"}, ""},
	} {
		if !strings.Contains(wellMetrics, tc.from) {
			t.Fatalf("%s: %q is not there", tc.name, tc.from)
		}
		m, err := readMetrics(strings.NewReader(strings.Replace(wellMetrics, tc.from, tc.to, 1)))
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		h := healthOf(m)
		var lines []string
		h.lines(func(name, text string) { lines = append(lines, name+"="+text) })
		for _, want := range tc.lines {
			if !slices.Contains(lines, want) {
				t.Errorf("%s: %q lacks %q", tc.name, lines, want)
			}
		}
		if got := strings.Join(h.Hands, "\n"); (tc.hand == "") != (got == "") || !strings.Contains(got, tc.hand) {
			t.Errorf("%s: needs a hand: %q, want %q", tc.name, got, tc.hand)
		}
	}
	for _, bad := range []string{"weir_journal_lost\n", "weir_journal_lost{a=\"b\"} x\n", strings.Repeat("x", 2<<20)} {
		if _, err := readMetrics(strings.NewReader(bad)); err == nil {
			t.Errorf("%.40q is read", bad)
		}
	}
}

// TestStatus: the gateway's status has what verify found last; verify of a damaged archive makes it need a hand.
func TestStatus(t *testing.T) {
	p := newPlace(t)
	r := p.serve()
	conn, _ := r.talk(t, strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff")), "hello")
	conn.Close()
	said := func(code int) (s struct {
		Gateway  string
		Ready    bool
		Evidence health
	},
	) {
		t.Helper()
		got, out, text := p.weir("status", "-o", "json")
		if err := json.Unmarshal([]byte(out), &s); err != nil || got != code {
			t.Fatalf("exit %d, want %d: %v\n%s%s", got, code, err, out, text)
		}
		return s
	}
	if s := said(exitDone); !s.Ready || !s.Evidence.Recording || !s.Evidence.JetStream || s.Evidence.Archive == nil || s.Evidence.Verified != nil || s.Evidence.SpoolLimit != 1<<30 {
		t.Errorf("%+v", s)
	}
	eventually(t, "the session is archived", func() bool { return len(p.list("--identity", "ada")) == 1 })
	p.must("verify", "--all")
	if s := said(exitDone); s.Evidence.Verified == nil || !s.Evidence.Verified.OK || s.Evidence.Verified.Age > 60 {
		t.Errorf("%+v", s.Evidence.Verified)
	}
	if out := p.must("status"); !strings.Contains(out, "verified     yes, ") || !strings.Contains(out, "recording    yes") {
		t.Error(out)
	}
	// One flipped bit in a copy of the segment, which takes the original's place while verify looks.
	segments, err := filepath.Glob(filepath.Join(p.dir, "data", "archive", "*.weir"))
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-5] ^= 1
	copyDir := t.TempDir()
	if err := os.WriteFile(filepath.Join(copyDir, filepath.Base(segments[0])), b, 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, _ := p.weir("verify", "--all", "--archive", copyDir, "--ledger", filepath.Join(p.dir, "data", "ledger"), "--key", filepath.Join(p.dir, "data", "keys", "ledger.pub"))
	if code != exitNo {
		t.Fatalf("the damaged copy: exit %d", code)
	}
	if s := said(exitDone); !s.Evidence.Verified.OK {
		t.Error("what was found in a copy is told of the archive itself")
	}
	if err := os.Rename(segments[0], segments[0]+".kept"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(segments[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := p.weir("verify", "--all"); code != exitNo {
		t.Fatalf("the damaged archive: exit %d %s", code, out)
	}
	if s := said(exitNo); s.Evidence.Verified.OK || len(s.Evidence.Hands) != 1 {
		t.Errorf("%+v", s.Evidence)
	}
	if _, out, _ := p.weir("status"); !strings.Contains(out, "attention    the last weir verify --all found something") {
		t.Error(out)
	}
	if err := os.Rename(segments[0]+".kept", segments[0]); err != nil {
		t.Fatal(err)
	}
	_ = r.stop()
	if code, _, text := p.weir("status"); code != exitUnreachable || !strings.Contains(text, "no gateway answers") {
		t.Errorf("nobody there: exit %d %s", code, text)
	}
}

// TestVerifiedFile: where data cannot be written, verify is as good as elsewhere, and what cannot be read is not made up.
func TestVerifiedFile(t *testing.T) {
	dir := t.TempDir()
	if v, err := lastVerified(dir); v != nil || err != nil {
		t.Errorf("%v %v", v, err)
	}
	if err := os.WriteFile(filepath.Join(dir, verifiedFile), []byte(`{"time":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := lastVerified(dir); v != nil || err == nil {
		t.Errorf("half a file: %v %v", v, err)
	}
	if got := ago((26 * time.Hour).Seconds()); got != "26 h" {
		t.Error(got)
	}
}
