package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// holdPlace is a place whose policy holds what begins with "big".
func holdPlace(t *testing.T, hold string) *place {
	t.Helper()
	p := newPlace(t)
	if err := os.WriteFile(filepath.Join(p.dir, "hold.rego"), []byte(`package weir.guardrails
hold contains {"rule": "big-say", "reason": "it is big", "approvers": ["dba"]} if startswith(input.event.command.text, "big")
`), 0o600); err != nil {
		t.Fatal(err)
	}
	p.replace("policies:\n", "policies:\n  - {name: holds, path: ./hold.rego}\n")
	p.replace("chain: [small]", "chain: [small, holds]")
	p.replace("    credential:", "    hold: "+hold+"\n    credential:")
	return p
}

// as puts the token of a subject into the environment.
func (p *place) as(subject string, args ...string) string {
	p.t.Helper()
	token := strings.TrimSpace(p.must(append([]string{"token", "--subject", subject}, args...)...))
	p.t.Setenv(tokenEnv, token)
	return token
}

func (p *place) queue(args ...string) (list []core.Approval) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.must(append([]string{"approvals", "list", "-o", "json"}, args...)...)), &list); err != nil {
		p.t.Fatal(err)
	}
	return list
}

func TestApprovals(t *testing.T) {
	p := holdPlace(t, "{mode: refuse, wait: 10m, valid: 5m}")
	p.must("check")
	if code, _, text := p.weir("approvals"); code != exitUse || !strings.Contains(text, "$WEIR_TOKEN") {
		t.Errorf("without a token: %d %s", code, text)
	}
	dana := p.as("dana", "--group", "dba", "--kind", "human")
	if code, _, text := p.weir("approvals"); code != exitUnreachable || !strings.Contains(text, "no gateway answers") {
		t.Errorf("without a gateway: %d %s", code, text)
	}
	r := p.serve()
	ada := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff", "--group", "dba"))
	conn, got := r.talk(t, ada, "hello", "big words")
	if got[1] != "hello" || got[2] != "denied big-say" {
		t.Fatalf("got %q", got)
	}
	session := strings.TrimPrefix(got[0], "ok ")
	list := p.queue()
	if len(list) != 1 || list[0].State != core.ApprovalWaiting || list[0].Identity != "ada" || list[0].Text != "big words" || list[0].Session != session {
		t.Fatalf("%+v", list)
	}
	id := list[0].ID
	if text := p.must("approvals"); !strings.Contains(text, id) || !strings.Contains(text, "big-say") || !strings.Contains(text, "dba") {
		t.Error(text)
	}
	if text := p.must("approvals", "show", id); !strings.Contains(text, "big words") || !strings.Contains(text, "it is big") || !strings.Contains(text, list[0].Digest) {
		t.Error(text)
	}
	for _, c := range []struct {
		name  string
		token string
		args  []string
		code  int
		want  string
	}{
		{"the asker", ada, []string{"approve", id}, exitNo, "another person than the one who asks"},
		{"somebody else sees nothing", strings.TrimSpace(p.must("token", "--subject", "eve", "--group", "staff")), []string{"approve", id}, exitNo, "there is no such request for you to see"},
		{"an agent", strings.TrimSpace(p.must("token", "--subject", "bot", "--group", "dba", "--kind", "agent")), []string{"approve", id}, exitNo, "it takes a person"},
		{"nobody", dana + "x", []string{"list"}, exitNo, "the token is not good here"},
		{"no such request", dana, []string{"show", "aaaa-bbbb-cccc"}, exitNo, "there is no such request for you to see"},
		{"no reason", dana, []string{"deny", id}, exitUse, "reason"},
		{"no id", dana, []string{"approve", "../sessions"}, exitUse, "no id"},
	} {
		t.Setenv(tokenEnv, c.token)
		if code, out, text := p.weir(append([]string{"approvals"}, c.args...)...); code != c.code || !strings.Contains(text, c.want) || out != "" {
			t.Errorf("%s: %d %s%s", c.name, code, out, text)
		}
	}
	file := filepath.Join(p.dir, "token")
	if err := os.WriteFile(file, []byte(dana+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(tokenEnv, "")
	if text := p.must("approvals", "approve", id, "--token-file", file, "--reason", "it is late"); !strings.Contains(text, id+": approved") {
		t.Error(text)
	}
	t.Setenv(tokenEnv, dana)
	say := func(line string) string {
		fmt.Fprintln(conn, line)
		s, _ := bufio.NewReader(conn).ReadString('\n')
		return strings.TrimSpace(s)
	}
	if got := say("big word"); got != "denied big-say" { // another text
		t.Errorf("another text: %q", got)
	}
	if got := say("big words"); got != "big words" {
		t.Errorf("approved: %q", got)
	}
	if got := say("big words"); got != "denied big-say" {
		t.Errorf("a second time: %q", got)
	}
	again := p.queue()
	if len(again) != 2 {
		t.Fatalf("%+v", again)
	}
	for _, a := range again {
		if text := p.must("approvals", "deny", a.ID, "--reason", "not today", "-o", "json"); !strings.Contains(text, `"denied"`) {
			t.Error(text)
		}
	}
	if got := say("big words"); got != "denied big-say" || len(p.queue()) != 0 || len(p.queue("--all")) == 0 {
		t.Errorf("denied: %q", got)
	}
	_ = conn.Close()
	eventually(t, "archived", func() bool { s := p.list("--identity", "ada"); return len(s) == 1 && s[0]["end"] == "closed" })
	text := p.must("show", session)
	for _, want := range []string{"asked " + id, "approved " + id + " by dana (weir)", "it is late", "denied by dana: not today"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) && !strings.Contains(p.must("show", session, "-o", "json"), want) {
			t.Errorf("the record has no %q:\n%s", want, text)
		}
	}
	metrics := p.metrics()
	for _, want := range []string{`weir_approvals_total{result="used"} 1`, `weir_approvals_total{result="denied"} 2`, "weir_approvals_waiting 0"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics have no %s", want)
		}
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	p.noSecrets(r.log.String(), dana)
}

// metrics reads the admin address of the place.
func (p *place) metrics() string {
	p.t.Helper()
	_, rest, _ := strings.Cut(p.text(), `admin: "`)
	at, _, _ := strings.Cut(rest, `"`)
	conn, err := net.Dial("tcp", at)
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(conn, "GET /metrics HTTP/1.0\r\nHost: %s\r\n\r\n", at)
	var b strings.Builder
	_, _ = bufio.NewReader(conn).WriteTo(&b)
	return b.String()
}

// TestApprovalWaits: a parked command goes on in the same session; what waits outlives a restart of the gateway.
func TestApprovalWaits(t *testing.T) {
	p := holdPlace(t, "{mode: wait, wait: 1m}")
	r := p.serve()
	p.as("dana", "--group", "dba")
	ada := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff"))
	conn, _ := r.talk(t, ada, "hello")
	fmt.Fprintln(conn, "big words")
	eventually(t, "it waits", func() bool { return len(p.queue()) == 1 })
	if _, got := r.talk(t, ada, "hello"); got[0] == "" {
		t.Error("another session is held up")
	}
	p.must("approvals", "approve", p.queue()[0].ID)
	if s, _ := bufio.NewReader(conn).ReadString('\n'); s != "big words\n" {
		t.Errorf("approved: %q", s)
	}
}

// TestApprovalsOutliveRestart: the queue is where the journal is.
func TestApprovalsOutliveRestart(t *testing.T) {
	p := holdPlace(t, "{mode: refuse}")
	r := p.serve()
	p.as("dana", "--group", "dba")
	ada := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff"))
	conn, _ := r.talk(t, ada, "big words")
	_ = conn.Close()
	id := p.queue()[0].ID
	p.must("approvals", "approve", id)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = p.serve()
	if _, got := r.talk(t, ada, "big words", "big words"); got[1] != "big words" || got[2] != "denied big-say" {
		t.Errorf("after a restart: %q", got)
	}
}
