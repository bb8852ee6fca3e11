package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Who reads a recording is on record, and a policy says who may. With the guard off, which is the control, everybody with a
// token and the files reads.
func TestReadingIsJudgedAndRecorded(t *testing.T) {
	p := newPlace(t)
	read := func(detail string) int { return len(p.list("--protocol", "admin", "--grep", detail)) }
	r := p.serve()
	var ids []string
	for _, who := range []string{"ada", "boss"} {
		conn, got := r.talk(t, strings.TrimSpace(p.must("token", "--subject", who, "--group", "staff")), "hello of "+who)
		ids = append(ids, strings.TrimPrefix(got[0], "ok "))
		_ = conn.Close()
	}
	eventually(t, "indexed", func() bool { return len(p.list()) == 2 })
	if out := p.must("show", ids[1]); !strings.Contains(out, "hello of boss") { // the control
		t.Error(out)
	}
	p.must("replay", ids[0])
	p.must("export", ids[0], "-o", filepath.Join(p.dir, "x.weir"))
	eventually(t, "on record", func() bool {
		return read("recordings.read "+ids[1]) >= 1 && read(`"how":"replay"`) >= 1 && read(`"how":"export"`) >= 1
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	p.must("show", ids[0]) // without a gateway: the next one has it
	if b, err := os.ReadFile(filepath.Join(p.dir, "data", "admin.pending")); err != nil || !strings.Contains(string(b), ids[0]) {
		t.Errorf("%s, %v", b, err)
	}

	rego := filepath.Join(p.dir, "readers.rego")
	if err := os.WriteFile(rego, []byte(`package weir.replay
allow if input.event.admin.operator
allow if "auditors" in input.identity.groups
deny contains {"rule": "not-the-boss", "reason": "ask the board"} if {
	some r in input.event.admin.detail.recordings
	r.identity == "boss"
}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	p.write(strings.Replace(p.text(), "policies:\n", fmt.Sprintf("admin: {recordings: [readers]}\npolicies:\n  - {name: readers, path: %q}\n", rego), 1))
	p.must("check")
	r = p.serve()
	eventually(t, "what was read beside the gateway is on record", func() bool { return read(`"beside"`) >= 1 })
	p.must("show", ids[0])
	for _, args := range [][]string{{"show", ids[1]}, {"replay", ids[1]}, {"export", ids[1], "-o", filepath.Join(p.dir, "y.weir")}} {
		if code, out, text := p.weir(args...); code != exitNo || strings.Contains(out, "hello") || !strings.Contains(text, "not-the-boss") || !strings.Contains(text, "ask the board") {
			t.Errorf("%q: exit %d, %s %s", args, code, out, text)
		}
	}
	eventually(t, "the refusal is on record", func() bool {
		return len(p.list("--protocol", "admin", "--denied", "--grep", "recordings.read "+ids[1])) >= 3
	})
	// Somebody with a token and not with the gateway's key.
	key := filepath.Join(p.dir, "data", "keys", "tokens.key")
	staff := strings.TrimSpace(p.must("token", "--subject", "eve", "--group", "staff"))
	auditor := strings.TrimSpace(p.must("token", "--subject", "kim", "--group", "auditors"))
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", t.TempDir())
	for token, want := range map[string]int{staff: exitNo, auditor: 0} {
		t.Setenv(tokenEnv, token)
		if code, _, text := p.weir("show", ids[0]); code != want {
			t.Errorf("exit %d, want %d: %s", code, want, text)
		}
	}
	t.Setenv(tokenEnv, "")
	if code, _, text := p.weir("show", ids[0]); code == 0 || !strings.Contains(text, "takes a token") {
		t.Errorf("nobody: %d %s", code, text)
	}
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	// A copy is somebody else's: nobody is asked.
	if code, _, text := p.weir("show", ids[1], "--archive", filepath.Join(p.dir, "data", "archive")); code != 0 {
		t.Errorf("a copy: %d %s", code, text)
	}
	// A policy in the wrong place does nothing, and is refused.
	p.write(strings.Replace(p.text(), "admin: {recordings: [readers]}\n", "", 1))
	if code, _, text := p.weir("check"); code != exitUse || !strings.Contains(text, "admin.recordings") {
		t.Errorf("%d %s", code, text)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}
