//go:build wasip1

// Readonly is a guest that refuses every command that may do more than read.
//
//	config:
//	  allow: [session]     # effects that are allowed beside read; default: session
//
// What a command may do is what the protocol says of it. A command whose facts are incomplete is refused, and so is an effect
// that nobody knows.
package main

import weir "github.com/weir-gateway/weir/sdk/go"

const schema = `{"type":"object","additionalProperties":false,"properties":{"allow":{"type":"array","items":{"enum":` +
	`["session","file","network","process"]}}}}`

var allowed = map[string]bool{"read": true, "session": true}

func init() {
	weir.Register(weir.Plugin{
		Name: "readonly", Version: "1.0.0", Schema: schema,
		Subscribe: []weir.Subscription{{Kinds: []weir.Kind{weir.Command}}},
		Metrics:   []weir.Metric{{ID: 1, Name: "refused"}},
		Configure: configure,
		OnCommand: command,
	})
}

func main() {}

func configure(c weir.Value) error {
	for _, name := range c.Names() {
		if name != "allow" {
			return weir.Error("unknown key " + name + ": the only one is allow")
		}
	}
	list := c.Get("allow")
	if list.Null() {
		return nil
	}
	effects, ok := list.Texts()
	if !ok {
		return weir.Error("allow is a list of effects")
	}
	delete(allowed, "session")
	for _, e := range effects {
		switch e {
		case "session", "file", "network", "process":
			allowed[e] = true
		default:
			return weir.Error("allow: session, file, network and process can be allowed, and not " + e)
		}
	}
	return nil
}

func command(e *weir.Event) {
	if !e.Known() {
		refuse(e, "what this command does is not known", "write it in a simpler way")
		return
	}
	for _, effect := range e.Effects() {
		if !allowed[effect] {
			refuse(e, "only reading is allowed here, and this command may "+verb(effect), "leave that part out, or use another target")
			return
		}
	}
}

func refuse(e *weir.Event, reason, hint string) {
	e.Deny("readonly", reason, hint)
	weir.Count(1, 1)
}

// verb says what an effect is in a sentence.
func verb(effect string) string {
	switch effect {
	case "write":
		return "write"
	case "ddl":
		return "change the schema"
	case "privilege":
		return "change who may do what"
	case "session":
		return "change the session"
	case "file":
		return "use files of the server"
	case "process":
		return "run programs on the server"
	case "network":
		return "reach other systems"
	case "admin":
		return "administer the server"
	}
	return "do something that is not known"
}
