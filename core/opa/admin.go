package opa

import "slices"

// AdminPackage says who may do what to the gateway itself. It is asked for each act, as an access package is for each
// opening, and sees the act under input.event.admin. A chain of a target cannot have it.
const AdminPackage = "weir.admin"

// adminDetail is the name of what describes an act under input.event.
const adminDetail = "admin"

// Admin reports whether the policy is one about the gateway itself.
func (p *Policy) Admin() bool { return p.open != nil && slices.Contains(p.open.packages, AdminPackage) }

// unallowed is the reason of who is let in by no rule.
func unallowed(pkg string) string {
	if pkg == AdminPackage {
		return "no policy lets this identity do this"
	}
	return "no policy lets this identity open this target"
}
