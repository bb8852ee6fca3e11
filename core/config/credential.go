package config

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/weir-gateway/weir/core/download"
)

// vault checks where secrets are.
func (k *checker) vault() {
	for i := range k.Plugins {
		at := fmt.Sprintf("plugins[%d].credential", i)
		if c := &k.Plugins[i].Credential; len(c.ByGroup) > 0 {
			k.problem(at+".by_group", "", "would do nothing: a plugin is fetched in nobody's name")
		} else if strings.Contains(c.User, "${") {
			k.problem(at+".user", "write the name itself", "${…} is understood only where a secret is")
		}
	}
	if !k.set("vault") {
		return
	}
	v := &k.Vault
	switch u, err := url.Parse(v.Address); {
	case v.Address == "":
		k.problem("vault", "address: https://vault.internal:8200", "has no address")
	case err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "":
		k.problem("vault.address", "", "is not https://host:port")
	case download.Safe(u) != nil:
		k.problem("vault.address", "use https", "the token and every secret would travel in clear")
	}
	switch {
	case v.Token.IsZero():
		k.problem("vault", `token: "${file:/run/vault/token}"`, "has no token")
	case strings.HasPrefix(v.Token.Reference(), "${vault:"):
		k.problem("vault.token", "use ${env:NAME} or ${file:PATH}", "cannot be in Vault itself")
	case v.Token.Clear():
		k.warn("vault.token", "use ${env:NAME} or ${file:PATH}", "the secret stands in the file in clear")
	}
}

// credential checks what a target is signed in at with.
func (k *checker) credential(t *Target) {
	clear := func(path string, s Secret) {
		if s.Clear() {
			k.warn(path, "use ${env:NAME} or ${file:PATH}", "the secret stands in the file in clear")
		}
	}
	at := t.At("credential")
	clear(at+".password", t.Credential.Password)
	seen := map[string]bool{}
	for i, g := range t.Credential.ByGroup {
		at := fmt.Sprintf("%s.by_group[%d]", at, i)
		switch {
		case g.Group == "":
			k.problem(at, "", "names no group")
		case seen[g.Group]:
			k.problem(at+".group", "", "%q stands twice: the second would do nothing", g.Group)
		case g.User == "":
			k.problem(at, "", "has no user")
		}
		seen[g.Group] = true
		clear(at+".password", g.Password)
	}
}
