package ssh

import (
	"strings"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/ssh/shell"
)

// What a client can ask for, as commands.

// execCommand reads the text of an exec request.
func execCommand(text string) *core.Command { return shell.Parse(text) }

// shellCommand is a shell that nobody has told yet what to do: what it will do is not known, and that is.
func shellCommand() *core.Command {
	return &core.Command{Action: "shell", Text: "shell", Fingerprint: "shell", Effects: []core.Effect{core.EffectProcess, core.EffectUnknown}, Status: core.StatusKnown}
}

// typedCommand is a line that somebody has typed into a shell, as far as can be told from the keys. It is no wall: what
// the shell makes of it may be something else, so its effects have unknown among them, and it is never refused for being
// incomplete, or nobody could work.
func typedCommand(text string, unsure bool) *core.Command {
	c := execCommand(text)
	typed := &core.Command{
		Action: c.Action, Text: text, Fingerprint: c.Fingerprint, Effects: c.Effects, Resources: c.Resources, Where: c.Where,
		Status: core.StatusKnown, Reason: c.Reason,
	}
	if unsure {
		typed.Reason = "keys were used that bring in what nobody has typed"
	}
	if !typed.HasEffect(core.EffectUnknown) {
		typed.Effects = append(append([]core.Effect(nil), c.Effects...), core.EffectUnknown)
	}
	return typed
}

// unseenCommand stands in the record for a line that the terminal has not shown.
func unseenCommand() *core.Command {
	return &core.Command{
		Action: "unseen", Text: "(a line that the terminal did not show)", Fingerprint: "unseen", Effects: []core.Effect{core.EffectProcess, core.EffectUnknown},
		Status: core.StatusKnown, Secret: true,
	}
}

func subsystemCommand(name string) *core.Command {
	c := &core.Command{
		Action: "subsystem", Text: "subsystem " + name, Fingerprint: "subsystem " + name, Status: core.StatusKnown,
		Effects: []core.Effect{core.EffectProcess, core.EffectUnknown}, Resources: []core.Resource{{Kind: "subsystem", Name: name, Use: []string{"call"}}},
	}
	if name == "sftp" {
		c.Effects = []core.Effect{core.EffectFile}
	}
	return c
}

// networkCommand is something that carries bytes past the target: a forward, an agent, a display.
func networkCommand(action, kind, name, use string) *core.Command {
	c := &core.Command{
		Action: action, Text: strings.TrimSpace(action + " " + name), Fingerprint: action, Effects: []core.Effect{core.EffectNetwork}, Status: core.StatusKnown,
	}
	if name != "" {
		c.Resources = []core.Resource{{Kind: kind, Name: name, Use: []string{use}}}
	}
	return c
}

// unknownCommand is a channel or a request that Weir does not know.
func unknownCommand(action, name string) *core.Command {
	return &core.Command{
		Action: action, Text: action + " " + name, Fingerprint: action, Effects: []core.Effect{core.EffectUnknown},
		Status: core.StatusIncomplete, Reason: "Weir does not know what it is",
	}
}

// refusal is a Frame that refuses an event in words of its own.
type refusal struct{ *core.Denial }

func (r refusal) Wire(*core.Event, *core.Verdict) ([]byte, error) { return nil, r.Denial }

func notAllowed(rule, reason, hint string) *core.Denial {
	return &core.Denial{Step: "weir", Rule: rule, Reason: reason, Hint: hint}
}
