package config

import (
	"fmt"
	"slices"
	"strings"
)

// capabilities are the words of grants.
var capabilities = []string{"clock", "kv"}

// plugin checks what one entry says of where its module is from and what it may do. Whether the module is there, and
// is the one that is meant, is found out when it is loaded.
func (k *checker) plugin(at string, p *Plugin) {
	builtin, remote := strings.HasPrefix(p.WASM, Builtin), strings.Contains(p.WASM, "://")
	nothing := func(key, why string) {
		if k.set(at + "." + key) {
			k.problem(at+"."+key, "", "would do nothing: %s", why)
		}
	}
	switch {
	case p.WASM == "":
		k.problem(at, "a file, builtin:NAME, https://… or oci://…", "has no wasm")
	case builtin:
		for _, key := range []string{"sha256", "signature", "public_keys", "credential"} {
			nothing(key, "a builtin plugin is part of the program")
		}
	case !remote:
		nothing("credential", "it is read from a file")
	}
	if !builtin && len(p.PublicKeys) == 0 && len(k.PluginKeys) == 0 {
		nothing("signature", "there are no public_keys")
	}
	if k.set(at+".public_keys") && len(p.PublicKeys) == 0 && !builtin {
		k.problem(at+".public_keys", "leave it out", "names no key")
	}
	if p.Credential.Password.Clear() {
		k.warn(at+".credential.password", "use ${env:NAME} or ${file:PATH}", "the secret stands in the file in clear")
	}
	for j, g := range p.Grants {
		here := fmt.Sprintf("%s.grants[%d]", at, j)
		switch {
		case !slices.Contains(capabilities, g):
			k.problem(here, hintNearest(g, capabilities), "%q is not clock or kv", g)
		case slices.Contains(p.Grants[:j], g):
			k.problem(here, "", "%q stands twice", g)
		}
	}
	for j, column := range p.Columns {
		if strings.TrimSpace(column) == "" {
			k.problem(fmt.Sprintf("%s.columns[%d]", at, j), "name a column, table.column or schema.table.column", "is empty")
		}
	}
}
