//go:build wasip1

// Shell-guard is a guest that refuses command lines which destroy, give away or hide: over SSH, in containers, by tools of agents,
// in SQL that runs programs.
//
//	config:
//	  actions: [exec, shell]         # of which commands the text is a command line; default: see below
//	  allow: [power]                 # categories that are not refused
//	  programs: [terraform]          # programs that are refused, whatever they do
//	  verdict: deny                  # or hold: ask for an approval, by approvers
//	  approvers: [ops]
//
// What it refuses is in the package shell.
package main

import (
	"strings"

	"github.com/weir-gateway/weir/plugins/shell-guard/shell"
	weir "github.com/weir-gateway/weir/sdk/go"
)

const schema = `{"type":"object","additionalProperties":false,"properties":{"actions":{"type":"array","items":{"type":"string","minLength":1}},` +
	`"allow":{"type":"array","items":{"enum":["destroy","disk","power","permission","download","fork-bomb","reverse-shell","account","kill",` +
	`"protection","traces","secret-files","infrastructure"]}},"programs":{"type":"array","items":{"type":"string","minLength":1}},` +
	`"verdict":{"enum":["deny","hold"]},"approvers":{"type":"array","items":{"type":"string","minLength":1}}}}`

const rule = "shell-guard"

var (
	judge = shell.Judge{Skip: map[string]bool{}, Programs: map[string]bool{}}
	// actions are whose text is a command line. So is that of a command which may run programs, whatever it is called.
	actions   = words("exec", "shell", "run", "command", "spawn", "bash", "sh", "terminal", "process")
	hold      bool
	approvers []string
)

func init() {
	weir.Register(weir.Plugin{
		Name: "shell-guard", Version: "1.0.0", Schema: schema,
		Subscribe: []weir.Subscription{{Kinds: []weir.Kind{weir.Command}}},
		Metrics:   []weir.Metric{{ID: 1, Name: "refused"}},
		Configure: configure,
		OnCommand: command,
	})
}

func main() {}

func words(list ...string) map[string]bool {
	m := map[string]bool{}
	for _, w := range list {
		m[w] = true
	}
	return m
}

func configure(c weir.Value) error {
	for _, name := range c.Names() {
		v := c.Get(name)
		list, isList := v.Texts()
		if name != "verdict" && !isList {
			return weir.Error(name + " is a list of names")
		}
		switch name {
		case "actions":
			actions = words(list...)
		case "allow":
			for _, category := range list {
				known := false
				for _, k := range shell.Categories {
					known = known || k == category
				}
				if !known {
					return weir.Error("allow: there is no category " + category + ": known are " + strings.Join(shell.Categories, ", "))
				}
				judge.Skip[category] = true
			}
		case "programs":
			for _, p := range list {
				judge.Programs[p] = true
			}
		case "approvers":
			approvers = list
		case "verdict":
			s, _ := v.Text()
			if s != "deny" && s != "hold" {
				return weir.Error("verdict is deny or hold")
			}
			hold = s == "hold"
		default:
			return weir.Error("unknown key " + name + ": known are actions, allow, programs, verdict and approvers")
		}
	}
	if len(approvers) > 0 && !hold {
		return weir.Error("approvers are for verdict: hold")
	}
	return nil
}

func command(e *weir.Event) {
	runs := actions[strings.ToLower(e.Action())]
	for _, effect := range e.Effects() {
		runs = runs || effect == "process"
	}
	text, ok := e.Value(0)
	if !runs || !ok {
		return
	}
	f := judge.Line(string(text))
	if f == nil {
		return
	}
	weir.Count(1, 1)
	weir.Found("shell", f.Category)
	if hold && f.Category != shell.Hidden {
		e.Hold(rule, f.Category+": "+f.Why, approvers...)
		return
	}
	e.Deny(rule, f.Category+": "+f.Why, "say what is to be reached, and do it in smaller steps that name what they change")
}
