package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// law is a policy for the admin address.
type law struct {
	mu    sync.Mutex
	asked []map[string]any
	say   func(id core.Identity, act map[string]any) (core.Verdict, error)
}

func (l *law) Inspect(_ context.Context, e *core.Event) (core.Verdict, error) {
	l.mu.Lock()
	l.asked = append(l.asked, e.Detail)
	l.mu.Unlock()
	if e.Kind != core.KindOpen || e.Session.Protocol != AdminProtocol {
		return core.Verdict{}, errors.New("not the question")
	}
	return l.say(e.Session.Identity, e.Detail)
}

// acts returns what was recorded of the acts: action, object and outcome of each.
func (r *rig) acts() (out []string) {
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	for _, id := range r.journal.order {
		x := r.journal.kept[id]
		if x.session.Protocol != AdminProtocol {
			continue
		}
		x.mu.Lock()
		line := x.session.Identity.Subject + " " + string(x.end)
		for _, rec := range x.records {
			line += " | " + string(rec.Facts)
		}
		x.mu.Unlock()
		out = append(out, line)
	}
	return out
}

// wantAct demands that an act was recorded with all of these.
func (r *rig) wantAct(what string, parts ...string) {
	r.t.Helper()
	for _, line := range r.acts() {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			return
		}
	}
	r.t.Errorf("%s is not recorded: %q in\n%s", what, parts, strings.Join(r.acts(), "\n"))
}

// TestActs: whoever changes something is in the record, with what, for what reason, from where, and what came of it; what
// was refused, too; and no token.
func TestActs(t *testing.T) {
	r, _ := staffed(t, nil)
	k := r.dial()
	k.want("one good", "ok")
	id := r.Sessions()[0].ID
	for _, tc := range []struct {
		method, path, token, body string
		code                      int
		want                      []string
	}{
		{"POST", "/api/v1/tokens", "key", `{"subject":"nightly","groups":["dba"]}`, 200, []string{"root@host closed", `"client":"127.0.0.1:`, `tokens.issue nightly {\"groups\":[\"dba\"]}`, `"status":"ok"`, "token id-1, until"}},
		{"POST", "/api/v1/tokens", "key", `{"subject":"x","kind":"robot"}`, 400, []string{"tokens.issue x", `"status":"error"`, "not human, service or agent"}},
		{"POST", "/api/v1/tokens", "good-eve", `{"subject":"eve","groups":["root"]}`, 401, []string{"good-eve refused", "tokens.issue eve", `"denied":{"step":"weir","rule":"access"`}},
		{"POST", "/api/v1/revocations/revoke", "key", `{"subject":"ada","reason":"left"}`, 200, []string{"tokens.revoke ada", "left"}},
		{"POST", "/api/v1/revocations/revoke", "key", `{"token":"` + secretToken + `"}`, 400, []string{"tokens.revoke (a token)", `"status":"error"`}},
		{"POST", "/api/v1/revocations/restore", "key", `{"subject":"ada","reason":"it was ` + secretToken + `"}`, 200, []string{"tokens.restore ada", "it was (a token)"}},
		{"POST", "/api/v1/revocations/revoke", "good-eve", `{"subject":"ada"}`, 401, []string{"good-eve refused", "tokens.revoke ada"}},
		{"POST", "/api/v1/approvals/id-1/approve", "good-dba", `{"reason":"change 4711"}`, 200, []string{"good-dba closed", "approvals.approve id-1", "change 4711", "approved: r of eve"}},
		{"POST", "/api/v1/approvals/id-1/approve", "good-eve", "", 403, []string{"good-eve closed", "approvals.approve id-1", `"status":"error"`, "not you"}},
		{"POST", "/api/v1/approvals/id-9/deny", "good-dba", `{"reason":"no"}`, 404, []string{"approvals.deny id-9", `"status":"error"`}},
		{"POST", "/api/v1/holds/hold", "key", `{"sessions":["s1","s2"],"reason":"case 4711"}`, 200, []string{"holds.hold s1 s2", "case 4711", `"status":"ok"`}},
		{"POST", "/api/v1/holds/release", "key", `{"sessions":["s9"]}`, 403, []string{"holds.release s9", "it is not held"}},
		{"POST", "/api/v1/reload", "key", "", 200, []string{`"text":"reload"`, `"status":"ok"`}},
		{"POST", "/api/v1/runs", "good-ada", `{"targets":["one"]}`, 200, []string{"good-ada closed", "runs.start", "run run-1, token"}},
		{"POST", "/api/v1/locks/release", "key", `{"source":"203.0.113.9"}`, 404, []string{"locks.release 203.0.113.9", `"status":"error"`}},
		{"POST", "/api/v1/sessions/" + id + "/end", "good-eve", "", 401, []string{"good-eve refused", "sessions.end " + id}},
		{"POST", "/api/v1/sessions/none/end", "key", "", 404, []string{"sessions.end none", "no such session"}},
		{"POST", "/api/v1/sessions/" + id + "/end", "key", `{"reason":"it runs in circles"}`, 200, []string{"root@host closed", "sessions.end " + id, "it runs in circles", "of good at one"}},
		{"GET", "/api/v1/status", "good-eve", "", 401, []string{"good-eve refused", "status.show"}},
		{"GET", "/api/v1/approvals/id-1", "good-dba", "", 200, []string{"good-dba closed", "approvals.show id-1"}},
		{"POST", "/api/v1/tokens", "key", `{"subject":"` + strings.Repeat("x", maxObject+1) + `"}`, 400, nil},
		{"POST", "/api/v1/tokens", "nobody", `{"subject":"x"}`, 401, nil},
	} {
		code, text := r.ask(tc.method, tc.path, tc.token, tc.body)
		if code != tc.code || tc.token == "good-eve" && strings.Contains(text, "it takes the gateway's own key") {
			t.Errorf("%s %s as %s: %d %s", tc.method, tc.path, tc.token, code, text)
		}
		if tc.want != nil {
			r.wantAct(tc.path, tc.want...)
		}
	}
	if got := k.hear(); got != "gone" {
		t.Errorf("the ended session hears %q", got)
	}
	eventually(t, "it is sealed as killed", func() bool { return strings.Contains(fmt.Sprint(r.journal.ends()), "killed") })
	if all := strings.Join(r.acts(), "\n") + r.log.String(); strings.Contains(all, secretToken) || strings.Contains(all, strings.Split(secretToken, ".")[2]) {
		t.Error("a token was recorded or logged")
	}
	if _, m := r.get("/metrics"); !strings.Contains(m, `weir_gateway_admin_total{action="tokens.issue",outcome="done"} 1`) || !strings.Contains(m, `weir_gateway_admin_total{action="tokens.issue",outcome="refused"} 1`) ||
		!strings.Contains(m, `weir_gateway_admin_total{action="tokens.issue",outcome="failed"} 1`) {
		t.Error("acts are not counted")
	}
}

// TestReadsAreRecordedOnce: who looks is recorded, once a minute, and who is refused again and again, ten times.
func TestReadsAreRecordedOnce(t *testing.T) {
	r, _ := staffed(t, nil)
	for range 5 {
		r.ask("GET", "/api/v1/status", "key", "")
		r.ask("GET", "/api/v1/holds", "key", "")
	}
	if n := len(r.acts()); n != 2 {
		t.Errorf("%d reads are recorded", n)
	}
	for range freeFailures + 5 {
		r.ask("POST", "/api/v1/reload", "good-eve", "")
	}
	if n := len(r.acts()); n != 2+freeFailures {
		t.Errorf("%d are recorded", n)
	}
	for range 5 {
		r.ask("POST", "/api/v1/reload", "key", "")
	}
	if n := len(r.acts()); n != 2+freeFailures+5 {
		t.Errorf("%d are recorded: of what changes something each is to be", n)
	}
	r.dial().want("one good", "ok")
	if code, text := r.ask("GET", "/api/v1/sessions", "", ""); code != 200 || !strings.Contains(text, `"client":""`) { // as long as there is no policy
		t.Errorf("%d %s", code, text)
	}
}

// TestActsUnrecorded: when nothing can be recorded nothing is changed, but for the end of a session, which only takes away,
// and a reload, which may be what helps. With a journal, which is the control, all of it is done.
func TestActsUnrecorded(t *testing.T) {
	for _, lost := range []string{"", "opening", "settling"} {
		r, o := staffed(t, nil)
		k := r.dial()
		k.want("one good", "ok")
		r.journal.fails.Store(lost == "opening")
		r.journal.settle.Store(lost == "settling")
		for path, body := range map[string]string{
			"/api/v1/tokens": `{"subject":"x"}`, "/api/v1/revocations/revoke": `{"subject":"ada"}`, "/api/v1/approvals/id-1/approve": `{}`,
			"/api/v1/holds/hold": `{"sessions":["s1"]}`, "/api/v1/runs": `{}`,
		} {
			token, want := "key", 200
			if strings.Contains(path, "approvals") || strings.Contains(path, "runs") {
				token = "good-dba"
			}
			if lost != "" {
				want = 503
			}
			if code, text := r.ask("POST", path, token, body); code != want || want == 503 && !strings.Contains(text, "nothing can be recorded now, so nothing is changed") {
				t.Errorf("%s: lost %q: %d %s", path, lost, code, text)
			}
		}
		if done := len(o.issued) + len(o.held); (done > 0) != (lost == "") {
			t.Errorf("lost %q: %d were done", lost, done)
		}
		for _, path := range []string{"/api/v1/reload", "/api/v1/sessions/" + r.Sessions()[0].ID + "/end"} {
			if code, text := r.ask("POST", path, "key", ""); code != 200 {
				t.Errorf("%s: lost %q: %d %s", path, lost, code, text)
			}
		}
		if code, _ := r.ask("GET", "/api/v1/status", "key", ""); code != 200 {
			t.Errorf("lost %q: nobody can look: %d", lost, code)
		}
		if got := k.hear(); got != "gone" {
			t.Errorf("lost %q: the session hears %q", lost, got)
		}
		if lost != "" && !strings.Contains(r.log.String(), "an act is not recorded") {
			t.Errorf("lost %q: the log does not tell", lost)
		}
	}
}

// TestAdminPolicy: with a policy all acts but one's own are its to judge, also an operator's; what it does not allow, cannot
// say or fails at is refused.
func TestAdminPolicy(t *testing.T) {
	l := &law{say: func(id core.Identity, act map[string]any) (core.Verdict, error) {
		switch {
		case act["action"] == "reload":
			return core.Verdict{}, errors.New("it fails")
		case act["action"] == "holds.list":
			return core.Verdict{Hold: &core.Hold{Rule: "ask"}}, nil
		case act["action"] == "locks.list":
			return core.Verdict{Record: core.LevelOff}, nil
		case id.Subject == "good-op" && act["object"] != "boss" || act["operator"] == true && act["action"] == "status.show":
			return core.Verdict{Decisions: []core.Decision{{Step: "admins", Action: "version"}}}, nil
		}
		return core.Verdict{Deny: &core.Denial{Step: "admins", Rule: "access", Reason: "no policy lets this identity do this"}}, nil
	}}
	r, o := staffed(t, func(_ *Config, s *Settings) { s.Admin = l })
	for _, tc := range []struct {
		method, path, token, body string
		code                      int
		want                      string
	}{
		{"POST", "/api/v1/tokens", "good-op", `{"subject":"nightly","ttl":"5m"}`, 200, "id-1"},
		{"POST", "/api/v1/tokens", "good-op", `{"subject":"boss"}`, 403, "refused by rule access"},
		{"POST", "/api/v1/tokens", "good-eve", `{"subject":"nightly"}`, 403, "no policy lets this identity do this"},
		{"POST", "/api/v1/tokens", "key", `{"subject":"nightly"}`, 403, "refused by rule access"},
		{"GET", "/api/v1/status", "key", "", 200, `"admin_policy":true`},
		{"POST", "/api/v1/reload", "good-op", "", 403, "refused by rule chain-error"},
		{"GET", "/api/v1/holds", "good-op", "", 403, "an act cannot wait"},
		{"GET", "/api/v1/sessions", "", "", 401, "this takes a token"},
		{"GET", "/api/v1/sessions", "good-eve", "", 403, "access"},
		{"GET", "/api/v1/sessions", "good-op", "", 200, "[]"},
		{"POST", "/api/v1/approvals/id-1/approve", "good-dba", "", 403, "access"},
		{"GET", "/api/v1/identity", "good-eve", "", 200, "good-eve"},
		{"GET", "/api/v1/targets", "good-eve", "", 200, "one"},
		{"POST", "/api/v1/runs", "good-eve", `{}`, 200, "run-1"},
		{"GET", "/api/v1/locks", "good-op", "", 200, "[]"},
		{"POST", "/api/v1/sessions/none/end", "bound", "", 403, "made for a run or for targets"},
	} {
		if code, text := r.ask(tc.method, tc.path, tc.token, tc.body); code != tc.code || !strings.Contains(text, tc.want) {
			t.Errorf("%s %s as %s: %d %s, want %d %s", tc.method, tc.path, tc.token, code, text, tc.code, tc.want)
		}
	}
	if len(o.issued) != 1 {
		t.Errorf("%d tokens were made", len(o.issued))
	}
	r.wantAct("the refusal", "good-eve refused", "tokens.issue nightly", `"step":"admins","rule":"access"`)
	r.wantAct("a read that the policy would not have recorded", "good-op closed", "locks.list", `"status":"ok"`)
	l.mu.Lock()
	first := l.asked[0]
	l.mu.Unlock()
	if detail, _ := first["detail"].(map[string]any); first["action"] != "tokens.issue" || first["object"] != "nightly" || first["operator"] != false || first["changes"] != true || detail["ttl"] != "5m" || !strings.HasPrefix(first["client"].(string), "127.0.0.1:") {
		t.Errorf("the policy sees %v", first)
	}
	// The control: without the policy who holds the key may, and nobody else.
	open, _ := staffed(t, nil)
	if code, _ := open.ask("POST", "/api/v1/tokens", "key", `{"subject":"nightly"}`); code != 200 {
		t.Errorf("an operator without a policy: %d", code)
	}
	if code, _ := open.ask("POST", "/api/v1/tokens", "good-op", `{"subject":"nightly"}`); code != 401 {
		t.Errorf("a client without a policy: %d", code)
	}
}

// TestSessionPlaces: the bounds of sessions by target, identity and run hold, say what is full, and every way that a
// session ends by gives its places back.
func TestSessionPlaces(t *testing.T) {
	one := &core.Target{Name: "one", Limits: core.Limits{Sessions: 4, PerIdentity: 2, PerRun: 1}}
	other := &core.Target{Name: "other", Limits: core.Limits{Sessions: 4}}
	who := func(issuer, subject, run string) *core.Identity {
		return &core.Identity{Issuer: issuer, Subject: subject, Run: run}
	}
	r := newRegistry()
	var open []func()
	for i, tc := range []struct {
		target *core.Target
		id     *core.Identity
		rule   string
	}{
		{one, who("a", "ada", ""), ""},
		{one, who("a", "ada", "r"), ""},
		{one, who("a", "ada", ""), "limit-sessions-identity"},
		{one, who("b", "ada", ""), ""}, // another's ada
		{one, who("b", "bob", "r"), "limit-sessions-run"},
		{other, who("a", "ada", ""), ""}, // the third of ada, who may have three
		{other, who("a", "ada", ""), "limit-sessions-identity"},
		{one, who("b", "bob", "s"), ""},
		{one, who("b", "eve", ""), "limit-sessions"},
	} {
		full, release := r.reserve(tc.target, tc.id, 3)
		switch {
		case tc.rule == "" && full != nil, tc.rule != "" && (full == nil || full.Rule != tc.rule || !strings.Contains(full.Reason, "at this gateway") || full.Hint == ""):
			t.Errorf("%d: %+v, want %q", i, full, tc.rule)
		case full == nil:
			open = append(open, release)
		}
	}
	for _, release := range open {
		release()
		release() // once
	}
	if len(r.places) != 0 || r.targets["one"].open != 0 || r.targets["other"].open != 0 {
		t.Errorf("left behind: %v %+v", r.places, r.targets)
	}
}

// TestSessionPlacesRace: many clients of one identity come and go in every way at once; never are more of them in than may
// be, and in the end all places are free.
func TestSessionPlacesRace(t *testing.T) {
	r := start(t, func(c *Config, s *Settings) {
		s.Targets[0].Target.Limits.PerIdentity, s.Targets[0].Target.Limits.PerRun = 3, 3
		c.Limits.SessionsPerIdentity = 3
	})
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	most := 0
	for n := range 60 {
		wg.Go(func() {
			conn, err := net.Dial("tcp", r.Listeners()[0].Address.String())
			if err != nil {
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			line := []string{"one good", "one good-but-not-here", "one good"}[n%3]
			fmt.Fprintln(conn, line)
			b := make([]byte, 256)
			k, _ := conn.Read(b)
			answer := string(b[:k])
			r.live.mu.Lock()
			in := r.live.places[place{subject: "good"}]
			r.live.mu.Unlock()
			mu.Lock()
			most = max(most, in)
			switch {
			case strings.HasPrefix(answer, "ok"):
				got["in"]++
			case strings.Contains(answer, "limit-sessions-identity"), strings.Contains(answer, "limit-sessions-run"):
				got["full"]++
			case strings.Contains(answer, "not-here"):
				got["refused"]++
			default:
				got[answer]++
			}
			mu.Unlock()
			switch n % 4 { // how it ends
			case 0:
				fmt.Fprintln(conn, "leave")
			case 1:
				fmt.Fprintln(conn, "panic")
			case 2:
				if list := r.Sessions(); len(list) > 0 {
					r.EndSession(list[0].ID, "race")
				}
			}
		})
	}
	wg.Wait()
	if most > 3 || got["in"] == 0 || len(got) > 3 {
		t.Errorf("%d at a time; %v", most, got)
	}
	if _, m := r.get("/metrics"); got["full"] > 0 && !strings.Contains(m, `weir_gateway_refused_total{reason="sessions-identity"}`) {
		t.Error("not counted")
	}
	eventually(t, "all places are free", func() bool {
		r.live.mu.Lock()
		defer r.live.mu.Unlock()
		return len(r.live.places) == 0 && r.live.targets["one"].open == 0
	})
	r.dial().want("one good", "ok")
}

// burst is a chain that panics when somebody opens a session.
type burst struct{}

func (burst) Inspect(_ context.Context, e *core.Event) (core.Verdict, error) {
	if e.Kind == core.KindOpen {
		panic("a bug in a step")
	}
	return core.Verdict{}, nil
}

// TestPlacesAfterPanic: a step that panics while a session is opened gives its place back, and its session has an end.
func TestPlacesAfterPanic(t *testing.T) {
	r := start(t, func(_ *Config, s *Settings) {
		s.Targets[0].Chain = burst{}
		s.Targets[0].Target.Limits.PerIdentity, s.Targets[0].Target.Limits.Sessions = 1, 1
	})
	for range 3 {
		if got := r.dial().say("one good"); got != "gone" {
			t.Errorf("%q", got)
		}
	}
	eventually(t, "all places are free, and all sessions have an end", func() bool {
		r.live.mu.Lock()
		defer r.live.mu.Unlock()
		return len(r.live.places) == 0 && r.live.targets["one"].open == 0 && fmt.Sprint(r.journal.ends()) == "[error error error]"
	})
	if !strings.Contains(r.log.String(), "burst.Inspect") {
		t.Error("the log does not say where it was")
	}
}
