package config

import (
	"fmt"
	"slices"
)

// Admin says who may do what to the gateway itself.
type Admin struct {
	// Chain are policies with the package weir.admin; none: who holds the gateway's own key may do everything, and others
	// nothing but what is their own.
	Chain []string `yaml:"chain"`
}

// admin checks the chain of the admin address. What it names counts as used.
func (k *checker) admin(steps, used map[string]bool) {
	const at = "admin.chain"
	if k.set(at) && len(k.Admin.Chain) == 0 {
		k.problem(at, "leave the key out", "names no policy: it would do nothing")
	}
	k.chain(at, k.Admin.Chain, steps, used)
	for i, name := range k.Admin.Chain {
		path := fmt.Sprintf("%s[%d]", at, i)
		if slices.ContainsFunc(k.Plugins, func(p Plugin) bool { return p.Name == name }) {
			k.problem(path, "name a policy", "%q is a plugin, which is asked about what passes and not about the gateway", name)
		}
		for _, p := range k.Policies {
			if p.Name == name && p.OnError == "pass" {
				k.problem(path, "leave on_error out", "%q has on_error: pass: whoever made it fail could do anything", name)
			}
		}
		shared := slices.Contains(k.Chain, name)
		for j := range k.Targets {
			shared = shared || slices.Contains(k.Targets[j].Steps(), name)
		}
		if shared {
			k.problem(path, "give the package weir.admin a policy of its own", "%q is in a chain of targets, too", name)
		}
	}
}
