package main

import (
	"context"
	"fmt"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// startGateway starts a gateway that does all its work and refuses nothing: the grammar, full strict recording, a policy
// that is asked, and a plugin that looks at values and finds none. It returns the address and a token.
func startGateway(ctx context.Context, binary string, server *postgrestest.Server, database string) (g *postgrestest.Gateway, address, token string, err error) {
	address = postgrestest.FreePort()
	g, err = postgrestest.StartGateway(ctx, postgrestest.GatewayOptions{
		Binary: binary,
		Config: fmt.Sprintf(`policies: [{name: observe, path: policies, timeout: 5s}]
plugins: [{name: noop, wasm: "builtin:pii", config: {entities: [PRIVATE_KEY]}}]
chain: [observe, noop]
targets:
  - name: regression
    protocol: postgres
    listen: %q
    upstream: {address: %q, database: %q, tls: disable}
    credential: {user: %s, password: "${env:UPSTREAM_PASSWORD}"}
    record: full
    allow_incomplete: true
`, address, server.Addr(), database, server.User),
		Files: map[string]string{
			"policies/access.rego":  "package weir.access\nimport rego.v1\nallow if true\n",
			"policies/observe.rego": "package weir.guardrails\nimport rego.v1\ndeny contains {\"rule\": \"never\"} if input.event.command.action == \"no such action\"\n",
		},
		Env: []string{"UPSTREAM_PASSWORD=" + server.Password},
	})
	if err != nil {
		return nil, "", "", err
	}
	if token, err = g.Token(ctx, "regress"); err != nil {
		_ = g.Stop()
		return nil, "", "", err
	}
	return g, address, token, nil
}
