package gateway

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// runner makes tokens for runs: the token is the subject.
type runner struct{ names }

func (runner) Run(who core.Identity, run string, targets []string, _ time.Duration) (string, time.Time, error) {
	if run == "no" {
		return "", time.Time{}, core.Refusal("no")
	}
	return who.Subject + "-run", time.Now().Add(time.Minute), nil
}

func (*lines) Connect(t *core.Target, c core.Contact) (string, map[string]string) {
	return "lines " + c.Address, map[string]string{"LINES": t.Name + " " + c.User + " " + c.Token + " " + c.CA}
}

// TestTargetsAPI: everybody is told of what they may open and how, and of what not, why; asking opens and records nothing.
func TestTargetsAPI(t *testing.T) {
	r := start(t, func(_ *Config, s *Settings) {
		s.Verifier, s.CA = runner{}, "/ca.pem"
		s.Targets[0].Notes = []Note{{Step: "access", Does: "mask", What: "email"}}
		two := target("two", "", nil)
		two.Labels = map[string]string{"tier": "1"}
		s.Targets = append(s.Targets, two)
	})
	ask := func(method, path, token, body string, into any) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.AdminAddr().String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer http.DefaultClient.CloseIdleConnections()
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		if into != nil && res.StatusCode == http.StatusOK {
			if err := json.Unmarshal(b, into); err != nil {
				t.Fatalf("%s: %v", b, err)
			}
		}
		return res.StatusCode
	}
	at := r.Listeners()[0].Address.String()
	for _, tc := range []struct {
		token, access, rule string
	}{
		{"good-ada", "open", ""}, {"good-but-not-here", "denied", "not-here"}, {"good-with-approval", "approval", "ask"}, {"bound", "denied", "token-target"},
	} {
		var list []Reachable
		if code := ask("GET", "/api/v1/targets", tc.token, "", &list); code != 200 || len(list) != 2 || list[0].Name != "one" || list[0].Access != tc.access || list[0].Rule != tc.rule {
			t.Errorf("%s: %d %+v", tc.token, code, list)
			continue
		}
		if open := tc.access != "denied"; open != (list[0].Connect == "lines "+at) || open != (len(list[0].Notes) == 1) || len(list[0].Env) > 0 {
			t.Errorf("%s: %+v", tc.token, list[0])
		}
	}
	if code := ask("GET", "/api/v1/targets", "nobody", "", nil); code != http.StatusUnauthorized {
		t.Errorf("nobody is told %d", code)
	}
	var who core.Identity
	if code := ask("GET", "/api/v1/identity", "good-ada", "", &who); code != 200 || who.Subject != "good-ada" {
		t.Errorf("%d %+v", code, who)
	}
	var made NewRun
	if code := ask("POST", "/api/v1/runs", "good-ada", `{"targets":["one"]}`, &made); code != 200 || made.Run != "run-1" || len(made.Targets) != 1 || made.Targets[0].Env["LINES"] != "one good-ada-run good-ada-run /ca.pem" {
		t.Errorf("%d %+v", code, made)
	}
	for body, want := range map[string]int{
		`{"targets":["none"]}`: 403, `{"ttl":"x"}`: 400, `{"ttl":"-1s"}`: 400, `{"run":"no"}`: 403, `{"tagrets":[]}`: 400, `{}`: 200,
	} {
		if code := ask("POST", "/api/v1/runs", "good-ada", body, nil); code != want {
			t.Errorf("%s: %d, want %d", body, code, want)
		}
	}
	if code := ask("POST", "/api/v1/runs", "good-but-not-here", `{"targets":["one"]}`, nil); code != 403 {
		t.Errorf("a run at a target that is denied: %d", code)
	}
	kept := r.journal.sessions()
	runs := slices.DeleteFunc(slices.Clone(kept), func(s *core.Session) bool { return s.Protocol != AdminProtocol })
	if len(runs) != len(kept) || len(runs) != 7 || r.chain.forgot.Load() == 0 { // a body that cannot be read asks for nothing
		t.Errorf("asking has recorded %d sessions, of which %d are of runs, or is not forgotten", len(kept), len(runs))
	}
}
