package config

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

func TestHold(t *testing.T) {
	for _, c := range []struct {
		hold, chain string
		want        core.Holding
		problem     string
	}{
		{"", "[p]", core.Holding{Mode: core.HoldRefuse, Wait: time.Hour, Valid: 15 * time.Minute}, ""},
		{"{mode: wait}", "[p]", core.Holding{Mode: core.HoldWait, Wait: 5 * time.Minute, Valid: 15 * time.Minute}, ""},
		{"{mode: refuse, wait: 24h, valid: 1s}", "[p]", core.Holding{Mode: core.HoldRefuse, Wait: 24 * time.Hour, Valid: time.Second}, ""},
		{"{wait: 10m}", "[p]", core.Holding{Mode: core.HoldRefuse, Wait: 10 * time.Minute, Valid: 15 * time.Minute}, ""},
		{"{mode: park}", "[p]", core.Holding{}, `weir.yaml:9: targets[0].hold.mode: "park" is not refuse or wait`},
		{"{mode: wate}", "[p]", core.Holding{}, "did you mean wait?"},
		{"{mode: wait, valid: 5m}", "[p]", core.Holding{}, "targets[0].hold.valid: would do nothing: in mode wait an approval is used at once"},
		{"{wait: 100ms}", "[p]", core.Holding{}, "targets[0].hold.wait: must be from 1s to 24h"},
		{"{wait: 0s}", "[p]", core.Holding{}, "targets[0].hold.wait: must be from 1s to 24h"},
		{"{valid: 2d}", "[p]", core.Holding{}, "targets[0].hold.valid: must be from 1s to 24h"},
		{"{mode: wait}", "[]", core.Holding{}, "targets[0].hold: would do nothing: the target has no chain"},
		{"{hold_mode: wait}", "[p]", core.Holding{}, "targets[0].hold.hold_mode: unknown key"},
	} {
		text := fmt.Sprintf(`policies:
  - {name: p, path: ./p}
targets:
  - name: orders
    protocol: wire
    listen: 127.0.0.1:15432
    upstream: {address: "127.0.0.1:5432", tls: disable}
    credential: {user: app}
    %s
    chain: %s
`, map[bool]string{true: "labels: {a: b}", false: "hold: " + c.hold}[c.hold == ""], c.chain)
		got, err := Parse("weir.yaml", []byte(text))
		if c.problem != "" {
			if err == nil || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("%s: %v, want %q", c.hold, err, c.problem)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.hold, err)
			continue
		}
		noun, err := got.Targets[0].Core()
		if err != nil || noun.Hold != c.want {
			t.Errorf("%s: %+v %v, want %+v", c.hold, noun.Hold, err, c.want)
		}
	}
}
