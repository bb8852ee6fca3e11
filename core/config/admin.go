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
	// Recordings are policies with the package weir.replay: who may read what was recorded. None: who holds the gateway's own
	// key, and can read the archive's files.
	Recordings []string `yaml:"recordings"`
}

// admin checks the chains about the gateway itself. What they name counts as used.
func (k *checker) admin(steps, used map[string]bool) {
	k.adminChain("admin.chain", "weir.admin", k.Admin.Chain, steps, used)
	k.adminChain("admin.recordings", "weir.replay", k.Admin.Recordings, steps, used)
}

func (k *checker) adminChain(at, pkg string, chain []string, steps, used map[string]bool) {
	if k.set(at) && len(chain) == 0 {
		k.problem(at, "leave the key out", "names no policy: it would do nothing")
	}
	k.chain(at, chain, steps, used)
	for i, name := range chain {
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
			k.problem(path, "give the package "+pkg+" a policy of its own", "%q is in a chain of targets, too", name)
		}
	}
}
