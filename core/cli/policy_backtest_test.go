package cli

import (
	"encoding/json"
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
