package config

import (
	"time"

	"github.com/weir-gateway/weir/core"
)

// Bounds of what a request for an approval may wait, and of how long an approval may be used.
const (
	minHold = time.Second
	maxHold = 24 * time.Hour
)

// hold checks what a target does with held commands.
func (k *checker) hold(t *Target) {
	if !k.set(t.At("hold")) {
		return
	}
	words := []string{string(core.HoldRefuse), string(core.HoldWait)}
	switch h := t.Hold; {
	case len(t.Steps()) == 0:
		k.problem(t.At("hold"), "add a chain", "would do nothing: the target has no chain, so nothing holds a command")
	case h.Mode != "" && h.Mode != core.HoldRefuse && h.Mode != core.HoldWait:
		k.problem(t.At("hold.mode"), hintNearest(string(h.Mode), words), "%q is not refuse or wait", h.Mode)
	case h.Mode == core.HoldWait && k.set(t.At("hold.valid")):
		k.problem(t.At("hold.valid"), "", "would do nothing: in mode wait an approval is used at once")
	}
	for _, d := range []struct {
		key  string
		time time.Duration
	}{{"hold.wait", t.Hold.Wait}, {"hold.valid", t.Hold.Valid}} {
		if k.set(t.At(d.key)) && (d.time < minHold || d.time > maxHold) {
			k.problem(t.At(d.key), "", "must be from 1s to 24h")
		}
	}
}
