package shell

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/opa"
)

// TestShippedPolicy puts texts to the policy that is shipped for SSH, by the facts that Parse gives of them.
func TestShippedPolicy(t *testing.T) {
	t.Parallel()
	p, err := opa.Load(context.Background(), opa.Config{Name: "ssh", Path: "../../../policies/ssh"})
	if err != nil {
		t.Fatal(err)
	}
	denied := func(protocol, text string) string {
		e := &core.Event{
			Kind: core.KindCommand, Direction: core.FromClient, Time: time.Unix(1.5e9, 0), Exchange: &core.Exchange{Command: Parse(text)},
			Session: &core.Session{Protocol: protocol, Target: &core.Target{Name: "box"}, Identity: core.Identity{Subject: "loop", Groups: []string{"agents"}, Kind: "agent"}},
		}
		v, err := p.Inspect(context.Background(), e)
		if err != nil {
			t.Fatal(err)
		}
		if v.Deny == nil {
			return ""
		}
		return v.Deny.Rule
	}
	for _, a := range attacks {
		if rule := denied("ssh", a.text); rule == "" {
			t.Errorf("%s passes: %.200q", a.name, a.text)
		}
		if rule := denied("tcp", a.text); rule != "" { // the control: without the rules all of them go to the target
			t.Errorf("%s is refused by %s where no rule asks", a.name, rule)
		}
	}
	refused := "sudo su apt systemctl curl wget ssh ping apt-get docker"
	for _, o := range ordinary {
		rule := denied("ssh", o.text)
		may := strings.Contains(" "+refused+" ", " "+o.action+" ") || strings.Contains(o.resources, "host:") || strings.Contains(o.text, "-C /opt")
		if rule != "" && !may {
			t.Errorf("%q is refused by %s", o.text, rule)
		}
	}
}
