//go:build wasip1

// Command block refuses commands that may do what the configuration names: {"effects": ["ddl", "privilege"]}. A command
// whose facts cannot be relied on is refused as well.
package main

import weir "github.com/weir-gateway/weir/sdk/go"

var blocked = map[string]bool{} // an effect that is not in it is one that nobody here knows

func init() {
	for _, e := range []string{"read", "write", "ddl", "privilege", "session", "file", "process", "network", "admin", "unknown"} {
		blocked[e] = false
	}
	weir.Register(weir.Plugin{
		Name: "block", Version: "1.0.0",
		Subscribe: []weir.Subscription{{Kinds: []weir.Kind{weir.Command}}},
		Schema:    `{"type":"object","required":["effects"],"properties":{"effects":{"type":"array","minItems":1,"items":{"type":"string"}}}}`,
		Configure: configure,
		OnCommand: onCommand,
	})
}

func configure(config weir.Value) error {
	for _, name := range config.Names() {
		if name != "effects" {
			return weir.Error("the only setting is effects")
		}
	}
	effects, ok := config.Get("effects").Texts()
	if !ok || len(effects) == 0 {
		return weir.Error("effects must be a list of at least one effect")
	}
	for _, e := range effects {
		if _, known := blocked[e]; !known {
			return weir.Error("effects: known are read, write, ddl, privilege, session, file, process, network, admin, unknown")
		}
		blocked[e] = true
	}
	return nil
}

func onCommand(e *weir.Event) {
	if !e.Known() {
		e.Deny("block-effect", "what this command does is not known", "write it in a simpler way")
		return
	}
	for _, effect := range e.Effects() {
		if refused, known := blocked[effect]; refused || !known {
			e.Deny("block-effect", "commands with this effect are refused: "+effect, "leave that part out, or ask who runs this gateway")
			return
		}
	}
}

func main() {}
