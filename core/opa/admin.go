package opa

import "slices"

// The packages that are about the gateway itself. They are asked for each act, as an access package is for each opening, and
// see the act under input.event.admin. A chain of a target cannot have them.
const (
	AdminPackage  = "weir.admin"  // who may do what to the gateway
	ReplayPackage = "weir.replay" // who may read what was recorded
)

// adminDetail is the name of what describes an act under input.event.
const adminDetail = "admin"

// Judges returns the package about the gateway itself that the policy has; empty: it is one for targets.
func (p *Policy) Judges() string {
	for _, pkg := range []string{AdminPackage, ReplayPackage} {
		if p.open != nil && slices.Contains(p.open.packages, pkg) {
			return pkg
		}
	}
	return ""
}

// unallowed is the reason of who is let in by no rule.
func unallowed(pkg string) string {
	switch pkg {
	case AdminPackage:
		return "no policy lets this identity do this"
	case ReplayPackage:
		return "no policy lets this identity read this recording"
	}
	return "no policy lets this identity open this target"
}
