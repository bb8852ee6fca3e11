package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestCheckTellsEngines: weir check says what evaluates each policy, and why it is the slower engine.
func TestCheckTellsEngines(t *testing.T) {
	p := newPlace(t)
	if out := p.must("check"); !strings.HasPrefix(out, "policy small runs on wasm\n") || !strings.Contains(out, "is good") {
		t.Error(out)
	}
	p.replace(`path: "builtin:small"`, `path: "builtin:small", engine: topdown`)
	if out := p.must("check"); !strings.HasPrefix(out, "policy small runs on topdown: its configuration says so\n") {
		t.Error(out)
	}
	var report struct {
		Policies []struct{ Name, Engine, Why string } `json:"policies"`
	}
	if err := json.Unmarshal([]byte(p.must("check", "-o", "json")), &report); err != nil || len(report.Policies) != 1 || report.Policies[0].Engine != "topdown" || report.Policies[0].Why == "" {
		t.Error(report, err)
	}
	p.replace("engine: topdown", "engine: wams")
	if code, _, stderr := p.weir("check"); code != exitUse || !strings.Contains(stderr, `policies[0].engine: "wams" is not auto, topdown or wasm (did you mean wasm?)`) {
		t.Error(code, stderr)
	}
}
