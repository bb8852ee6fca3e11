package config

import (
	"strings"
	"testing"
	"time"
)

// TestAdmission: what is written about who gets in is read, and what would do nothing, or the wrong thing, is refused.
func TestAdmission(t *testing.T) {
	const file = `data: ./data
listen: {admin: "127.0.0.1:1", lock: LOCK, sessions_per_identity: 7}
policies: [{name: a, path: builtin:a}, {name: b, path: builtin:b, on_error: pass}]
plugins: [{name: p, wasm: builtin:pii}]
chain: [a, p]
ADMIN
targets:
  - name: one
    protocol: wire
    listen: 127.0.0.1:2
    proxy_protocol: LIST
    upstream: {address: "127.0.0.1:3", tls: disable}
    credential: {user: u, password: "${env:X}"}
    limits: {sessions: 5, sessions_per_identity: 3, sessions_per_run: 2}
  - name: two
    protocol: wire
    MORE
    upstream: {address: "127.0.0.1:3", tls: disable}
    credential: {user: u, password: "${env:X}"}
`
	for _, tc := range []struct{ lock, admin, list, more, want string }{
		{"5m", "", "[127.0.0.1, 10.0.0.0/8, \"2001:db8::/32\", \"::1\"]", "labels: {}", ""},
		{"0s", "", "[127.0.0.1]", "listen: 127.0.0.1:2", ""},
		{"48h", "", "[127.0.0.1]", "labels: {}", "listen.lock"},
		{"5m", "", "[]", "labels: {}", "lists no proxy"},
		{"5m", "", "[proxy.example]", "labels: {}", `"proxy.example" is not an address`},
		{"5m", "", "[10.0.0.1/8]", "labels: {}", "has bits beside the network: 10.0.0.0/8"},
		{"5m", "", "[10.0.0.0/33]", "labels: {}", "is not a network"},
		{"5m", "", "[\"fe80::1%eth0\"]", "labels: {}", "is not an address"},
		{"5m", "", "[127.0.0.1]", "proxy_protocol: [127.0.0.1]", "would do nothing: the target has no listen of its own"},
		{"5m", "", "[127.0.0.1]", "listen: 127.0.0.1:2\n    proxy_protocol: [127.0.0.2]", "has another list for the same listener"},
		{"5m", "admin: {chain: []}", "[127.0.0.1]", "labels: {}", "names no policy"},
		{"5m", "admin: {chain: [none]}", "[127.0.0.1]", "labels: {}", `no policy or plugin "none"`},
		{"5m", "admin: {chain: [p]}", "[127.0.0.1]", "labels: {}", `"p" is a plugin`},
		{"5m", "admin: {chain: [a]}", "[127.0.0.1]", "labels: {}", `"a" is in a chain of targets, too`},
		{"5m", "admin: {chain: [b]}", "[127.0.0.1]", "labels: {}", `"b" has on_error: pass`},
		{"5m", "admin: {chian: [b]}", "[127.0.0.1]", "labels: {}", "unknown key"},
	} {
		text := strings.NewReplacer("LOCK", tc.lock, "ADMIN", tc.admin, "LIST", tc.list, "MORE", tc.more).Replace(file)
		if !strings.Contains(tc.admin, "[b]") { // which is in no chain otherwise
			text = strings.Replace(text, ", {name: b, path: builtin:b, on_error: pass}", "", 1)
		}
		c, err := Parse("weir.yaml", []byte(text))
		if tc.want == "" {
			if err != nil {
				t.Errorf("%+v: %v", tc, err)
				continue
			}
			core, err := c.Targets[0].Core()
			if err != nil || core.Limits.PerIdentity != 3 || core.Limits.PerRun != 2 || c.Listen.SessionsPerIdentity != 7 || len(c.Targets[0].Proxies()) != len(c.Targets[0].ProxyProtocol) {
				t.Errorf("%v %+v %v", err, core.Limits, c.Targets[0].Proxies())
			}
			if want := map[string]time.Duration{"5m": 5 * time.Minute, "0s": 0}[tc.lock]; c.Listen.Lock != want {
				t.Errorf("lock %s is %v", tc.lock, c.Listen.Lock)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
	text := strings.NewReplacer("LOCK", "5m", "ADMIN", "", "LIST", "[0.0.0.0/0]", "MORE", "labels: {}", ", {name: b, path: builtin:b, on_error: pass}", "").Replace(file)
	c, err := Parse("weir.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	warned := false
	for _, w := range c.Warnings {
		warned = warned || strings.Contains(w.Text, "everybody who can connect")
	}
	if !warned {
		t.Errorf("a list of everybody: %v", c.Warnings)
	}
	if c, err := Parse("weir.yaml", []byte(strings.Replace(strings.Replace(text, "lock: 5m, ", "", 1), "[0.0.0.0/0]", "[127.0.0.1]", 1))); err != nil || c.Listen.Lock != DefaultLock {
		t.Errorf("by default: %v", err)
	}
}
