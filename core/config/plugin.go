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
	native := p.Native != ""
	switch {
	case native && p.WASM != "":
		k.problem(at+".native", "remove one of them", "stands beside wasm: a plugin is one or the other")
		return
	case native:
		k.native(at, p, nothing)
	case p.WASM == "":
		k.problem(at, "wasm: a file, builtin:NAME, https://… or oci://…; or native: NAME", "has neither wasm nor native")
	case builtin:
		for _, key := range []string{"sha256", "signature", "public_keys", "credential"} {
			nothing(key, "a builtin plugin is part of the program")
		}
	case !remote:
		nothing("credential", "it is read from a file")
	}
	if !builtin && !native && len(p.PublicKeys) == 0 && len(k.PluginKeys) == 0 {
		nothing("signature", "there are no public_keys")
	}
	if k.set(at+".public_keys") && len(p.PublicKeys) == 0 && !builtin && !native {
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

// native refuses what a guest is told and a plugin without one has no use for.
func (k *checker) native(at string, p *Plugin, nothing func(key, why string)) {
	for _, key := range []string{"sha256", "signature", "public_keys", "credential"} {
		nothing(key, "a native plugin is part of the program")
	}
	nothing("grants", "a native plugin asks for nothing")
	nothing("limits", "nothing bounds a native plugin (wasm runs it as a guest, with bounds)")
	nothing("allow_unmasked", "an error of a native plugin is a denial")
	if p.OnError != "" && p.OnError != "deny" {
		k.problem(at+".on_error", "say deny, or leave it out", "is %q: an error of a native plugin is a denial", p.OnError)
	}
}
