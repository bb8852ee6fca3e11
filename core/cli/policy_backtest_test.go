package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// TestBacktestEverySession: no session is left out, however many there are; what is newly denied is counted, and bounded.
func TestBacktestEverySession(t *testing.T) {
	const many = 1010 // more than what a list of sessions shows
	p := newPlace(t)
	r := p.serve()
	token := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff"))
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < many; i += 8 {
				word := "take"
				if i == many/2 {
					word = "drop"
				}
				conn, _ := r.talk(t, token, word)
				_ = conn.Close()
			}
		})
	}
	wg.Wait()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	candidate := p.file("guard.rego", []byte("package weir.guardrails\ndeny contains {\"rule\": \"no-take\"} if input.event.command.text == \"take\""))
	code, out, errs := p.weir("policy", "backtest", candidate, "--max-new-denials", "1008", "-o", "json")
	var got backtested
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err, out, errs)
	}
	if code != exitNo || got.Count.Sessions != many || got.Count.Changes["newly denied"] != many-1 || got.Count.Changes["newly allowed"] != 1 {
		t.Errorf("%d %s: %+v", code, errs, got.Count)
	}
	if code, _, errs := p.weir("policy", "backtest", candidate, "--max-new-denials", "1009"); code != exitDone {
		t.Errorf("%d %s", code, errs)
	}
}

// TestRunFacts: what a policy knows of a run while it goes on is what backtest and explain find in the recordings.
func TestRunFacts(t *testing.T) {
	p := newPlace(t)
	rules := `package weir.guardrails
deny contains {"rule": "many"} if input.run.commands >= 4
deny contains {"rule": "read-before"} if {
	input.event.command.text == "give"
	some t in input.run.tables_read
	t == {"target": "one", "name": "secrets"}
}
deny contains {"rule": "in-doubt"} if { input.event.command.text == "give"; not input.run.tables_complete }`
	guard := p.file("guard.rego", []byte(rules))
	p.replace("builtin:small", guard)
	r := p.serve()
	token := strings.TrimSpace(p.must("token", "--subject", "ada", "--run", "r1"))
	other := strings.TrimSpace(p.must("token", "--subject", "ada", "--run", "r2"))
	talk := func(token, want string, words ...string) (id string) {
		t.Helper()
		conn, got := r.talk(t, append([]string{token}, words...)...)
		_ = conn.Close()
		if fmt.Sprint(got[1:]) != want {
			t.Errorf("%v: %v, not %s", words, got[1:], want)
		}
		return strings.TrimPrefix(got[0], "ok ")
	}
	talk(token, "[give]", "give")
	talk(token, "[read secrets]", "read secrets")
	talk(other, "[give give]", "give", "give")
	id := talk(token, "[denied read-before take denied many]", "give", "take", "take")
	talk(other, "[give]", "give")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	changes := func(rules string) string {
		t.Helper()
		candidate := p.file("candidate.rego", []byte(rules))
		var got backtested
		if err := json.Unmarshal([]byte(p.must("policy", "backtest", candidate, "-o", "json")), &got); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(got.Count.Commands, got.Count.Denied, got.Count.Changes)
	}
	if got := changes(rules); got != "8 2 map[]" {
		t.Errorf("the same rules: %s", got)
	}
	if got := changes(strings.ReplaceAll(rules, "input.run.commands", "input.session.commands")); got != "8 2 map[newly allowed:1]" {
		t.Errorf("a count of sessions: %s", got)
	}
	if got := changes(strings.ReplaceAll(rules, "input.run", "input.nothing")); got != "8 2 map[denied by another rule:1 newly allowed:1 newly denied:4]" {
		t.Errorf("no facts: %s", got) // not tables_complete holds where nothing is known
	}
	if out := p.must("policy", "explain", "--session", id, "--seq", "4"); !strings.Contains(out, "input.run.commands = 4") || !strings.Contains(out, `"name":"secrets"`) {
		t.Error(out)
	}
}
