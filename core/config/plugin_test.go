package config

import (
	"strings"
	"testing"
)

func TestPlugins(t *testing.T) {
	const sum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	parse := func(plugin, more string) (*Config, error) {
		return Parse("/etc/weir/weir.yaml", []byte(more+`
plugins:
  - {name: mine, `+plugin+`}
chain: [mine]
targets:
  - {name: a, protocol: wire, listen: 127.0.0.1:1, upstream: {address: "127.0.0.1:2", tls: disable}, credential: {user: u}}
`))
	}
	for _, c := range []struct{ plugin, more, want string }{
		{`wasm: mine.wasm`, "", ""},
		{`wasm: mine.wasm, sha256: "` + sum + `", signature: sig, public_keys: [key.pem], grants: [clock, kv]`, "", ""},
		{`wasm: "https://h/mine.wasm", sha256: ` + sum + `, credential: {user: u, password: "${env:P}"}`, "", ""},
		{`wasm: "oci://h/mine@sha256:` + sum + `"`, "", ""},
		{`wasm: mine.wasm, signature: mine.sig`, "plugin_keys: [key.pem]", ""},
		{`wasm: builtin:pii, grants: [kv]`, "", ""},
		{`config: {}`, "", "plugins[0]: has neither wasm nor native"},
		{`native: pii`, "", ""},
		{`native: pii, config: {entities: [EMAIL]}, columns: [note], on_error: deny`, "plugin_keys: [k]", ""},
		{`native: pii, wasm: mine.wasm, sha256: ` + sum, "", "plugins[0].native: stands beside wasm: a plugin is one or the other"},
		{`native: pii, sha256: ` + sum, "", "plugins[0].sha256: would do nothing: a native plugin is part of the program"},
		{`native: pii, signature: s`, "", "plugins[0].signature: would do nothing: a native plugin is part of the program"},
		{`native: pii, public_keys: [k]`, "", "plugins[0].public_keys: would do nothing"},
		{`native: pii, public_keys: []`, "", "plugins[0].public_keys: would do nothing"},
		{`native: pii, credential: {user: u}`, "", "plugins[0].credential: would do nothing"},
		{`native: pii, grants: [kv]`, "", "plugins[0].grants: would do nothing: a native plugin asks for nothing"},
		{`native: pii, grants: []`, "", "plugins[0].grants: would do nothing"},
		{`native: pii, limits: {value: 64MiB}`, "", "plugins[0].limits: would do nothing: nothing bounds a native plugin"},
		{`native: pii, on_error: pass`, "", `plugins[0].on_error: is "pass": an error of a native plugin is a denial`},
		{`native: pii, allow_unmasked: true`, "", "plugins[0].allow_unmasked: would do nothing"},
		{`native: pii, columns: [""]`, "", "plugins[0].columns[0]: is empty"},
		{`nativ: pii`, "", "plugins[0].nativ: unknown key (did you mean native?)"},
		{`wasm: builtin:pii, sha256: ` + sum, "", "plugins[0].sha256: would do nothing: a builtin plugin is part of the program"},
		{`wasm: builtin:pii, public_keys: [k]`, "", "plugins[0].public_keys: would do nothing"},
		{`wasm: builtin:pii, signature: s`, "plugin_keys: [k]", "plugins[0].signature: would do nothing"},
		{`wasm: builtin:pii, credential: {user: u}`, "", "plugins[0].credential: would do nothing"},
		{`wasm: mine.wasm, credential: {user: u}`, "", "plugins[0].credential: would do nothing: it is read from a file"},
		{`wasm: mine.wasm, signature: s`, "", "plugins[0].signature: would do nothing: there are no public_keys"},
		{`wasm: mine.wasm, public_keys: []`, "", "plugins[0].public_keys: names no key"},
		{`wasm: mine.wasm, grants: [clok]`, "", `plugins[0].grants[0]: "clok" is not clock or kv (did you mean clock?)`},
		{`wasm: mine.wasm, grants: [kv, kv]`, "", `plugins[0].grants[1]: "kv" stands twice`},
		{`wasm: mine.wasm, sha265: x`, "", "plugins[0].sha265: unknown key (did you mean sha256?)"},
	} {
		_, err := parse(c.plugin, c.more)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %s:\ngot  %v\nwant %s", c.plugin, c.more, err, c.want)
		}
	}
	c, err := parse(`wasm: mine.wasm, signature: sigs/mine.sig, public_keys: [k], credential: {user: u, password: "c4n4ry"}`, "")
	if err == nil || c == nil {
		t.Fatal(err)
	}
	p := c.Plugins[0]
	if p.WASM != "/etc/weir/mine.wasm" || p.Written != "mine.wasm" || p.Signature != "/etc/weir/sigs/mine.sig" {
		t.Errorf("%+v", p)
	}
	if len(c.Warnings) != 1 || c.Warnings[0].Path != "plugins[0].credential.password" || strings.Contains(err.Error(), "c4n4ry") {
		t.Errorf("%v %v", c.Warnings, err)
	}
}
