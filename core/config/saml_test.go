package config

import (
	"errors"
	"strings"
	"testing"
	"time"
)

const samlFile = `listen:
  admin: 127.0.0.1:8480
  sign_in: {address: 0.0.0.0:8443, url: "https://weir.example:8443"}
identity:
  saml:
    - {name: sso, metadata: idp.xml, groups: groups}
targets:
  - name: orders
    protocol: wire
    listen: 127.0.0.1:15432
    upstream: {address: db.internal:5432}
    credential: {user: app, password: "${env:X}"}
`

func TestSAML(t *testing.T) {
	c, err := Parse("/etc/weir/weir.yaml", []byte(samlFile))
	if err != nil {
		t.Fatal(err)
	}
	if s := c.Identity.SAML[0]; s.Metadata != "/etc/weir/idp.xml" || s.TTL != time.Hour || s.Kind != "human" {
		t.Errorf("%+v", s)
	}
	for _, tc := range []struct{ name, old, fresh, want string }{
		{"no sign-in address", `  sign_in: {address: 0.0.0.0:8443, url: "https://weir.example:8443"}` + "\n", "", "listen.sign_in: has no address or no url"},
		{"http", "https://weir.example", "http://weir.example", "listen.sign_in.url: http://weir.example:8443 is not https"},
		{"http on loopback for an address that is not", "https://weir.example", "http://127.0.0.1", "says http, but the address is not on loopback"},
		{"a path", "8443\"}", "8443/x\"}", "more than scheme, host and port"},
		{"no host", "https://weir.example", "https://0.0.0.0", "names no host that a browser can reach"},
		{"no port", "0.0.0.0:8443", "0.0.0.0", "is not host:port"},
		{"the admin address", "0.0.0.0:8443", "127.0.0.1:8480", "127.0.0.1:8480 is taken by listen.admin"},
		{"a target's address", "127.0.0.1:15432", "127.0.0.1:8443", "is taken by listen.sign_in.address"},
		{"sign-in address for nobody", "  saml:\n    - {name: sso, metadata: idp.xml, groups: groups}", "  service_tokens: {}", "listen.sign_in: would do nothing"},
		{"no metadata", "metadata: idp.xml, ", "", "identity.saml[0]: has no metadata"},
		{"metadata without TLS", "idp.xml", "\"http://idp.example/m\"", "keys fetched without TLS can be forged"},
		{"no name", "name: sso, ", "", "has no name"},
		{"a kind", "groups: groups", "groups: groups, kind: robot", `"robot" is not human, service or agent`},
		{"too long", "groups: groups", "groups: groups, ttl: 13h", "identity.saml[0].ttl: must be from 1m to 12h0m0s"},
		{"no tokens", "  saml:", "  service_tokens: {enabled: false}\n  saml:", "ends with a token of the gateway's own"},
		{"groups of nothing", "groups: groups", "allowed_groups: [dba]", "would do nothing: no attribute holds the groups"},
		{"unknown key", "groups: groups", "group: groups", "identity.saml[0].group: unknown key (did you mean groups?)"},
	} {
		text := strings.Replace(samlFile, tc.old, tc.fresh, 1)
		_, err := Parse("weir.yaml", []byte(text))
		var problems Problems
		if !errors.As(err, &problems) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
