package config

import (
	"errors"
	"strings"
	"testing"
)

const certificateFile = `identity:
  certificates:
    - name: mesh
      ca: clients.pem
      trust_domain: prod.example
      rules: [{match: "spiffe://prod.example/agent/*", kind: agent}]
targets:
  - name: orders
    protocol: wire
    listen: 127.0.0.1:15432
    client_cert: accept
    upstream: {address: db.internal:5432}
    credential: {user: app, password: "${env:X}"}
`

func TestCertificates(t *testing.T) {
	c, err := Parse("/etc/weir/weir.yaml", []byte(certificateFile))
	if err != nil {
		t.Fatal(err)
	}
	if x := c.Identity.Certificates[0]; x.CA != "/etc/weir/clients.pem" || c.Targets[0].ClientCert != "accept" {
		t.Errorf("%+v", x)
	}
	for _, tc := range []struct{ name, old, fresh, want string }{
		{"mode", "client_cert: accept", "client_cert: acept", `"acept" is not accept or require (did you mean accept?)`},
		{"no target", "    client_cert: accept\n", "", "identity.certificates: would do nothing"},
		{"no authority", certificateFile[:strings.Index(certificateFile, "targets:")], "", "targets[0].client_cert: would let nobody in"},
		{"no source", "      ca: clients.pem\n", "", "needs either ca or workload_api"},
		{"two sources", "ca: clients.pem", "ca: clients.pem\n      workload_api: unix:///x", "needs either ca or workload_api"},
		{"a remote Workload API", "ca: clients.pem", "workload_api: tcp://1.2.3.4:5", "is not a Unix socket"},
		{"domain and subject", "trust_domain:", "subject: cn\n      trust_domain:", "needs either trust_domain or subject"},
		{"a field", "trust_domain: prod.example", "subject: ip", `"ip" is not cn, dns or email`},
		{"a domain in capitals", "trust_domain: prod.example", "trust_domain: Prod.example", "is no trust domain"},
		{"a domain that is an id", "trust_domain: prod.example", "trust_domain: spiffe://prod.example/x", "is no trust domain"},
		{"a domain twice", "targets:", "    - {name: again, ca: x.pem, trust_domain: prod.example}\ntargets:", "identity.certificates[1].trust_domain: stands twice"},
		{"a person", "kind: agent", "kind: human", "is not service or agent: a certificate is no person's"},
		{"a rule for all", "spiffe://prod.example/agent/*", "*", "has no match that fits some clients and not all"},
		{"a star in the middle", "agent/*", "*/agent", "has no match that fits some clients and not all"},
		{"a rule for another domain", "spiffe://prod.example/agent/*", "spiffe://prod.example.evil/agent/*", "fits no id of the trust domain"},
	} {
		_, err := Parse("weir.yaml", []byte(strings.Replace(certificateFile, tc.old, tc.fresh, 1)))
		var problems Problems
		if !errors.As(err, &problems) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
