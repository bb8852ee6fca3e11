package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestVaultInConfiguration: secrets named by paths of Vault are found when the gateway starts and at each sign-in; what is
// wrong with them is told with its line, and no secret with it.
func TestVaultInConfiguration(t *testing.T) {
	var password atomic.Value
	password.Store(canary)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("X-Vault-Token") != "vault-t0ken":
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/v1/secret/data/orders":
			fmt.Fprintf(w, `{"data":{"data":{"user":"app","password":%q},"metadata":{"version":3}}}`, password.Load())
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	t.Setenv("WEIR_TEST_VAULT_TOKEN", "vault-t0ken")
	configured := func() *place {
		p := newPlace(t)
		p.replace("policies:", fmt.Sprintf("vault: {address: %q, token: \"${env:WEIR_TEST_VAULT_TOKEN}\"}\npolicies:", s.URL))
		p.replace(`{user: app, password: "${env:WEIR_TEST_PASSWORD}"}`, `{user: "${vault:secret/data/orders#user}", password: "${vault:secret/data/orders#password}"}`)
		return p
	}
	p := configured()
	p.must("check")
	r := p.serve()
	token := strings.TrimSpace(p.must("token", "--subject", "me", "--group", "staff"))
	if _, got := r.talk(t, token, "hello"); !strings.HasPrefix(got[0], "ok") {
		t.Errorf("not let in: %v", got)
	}
	for _, tc := range []struct{ old, fresh, want string }{
		{"orders#password", "order#password", "weir.yaml:12: targets[0].credential.password: credential: vault answered 404"},
		{"orders#user", "orders#usr", "weir.yaml:12: targets[0].credential.user: credential: vault: secret/data/orders has no text"},
		{"VAULT_TOKEN", "PASSWORD", "check the token and its policy"},
		{"VAULT_TOKEN", "NONE", "WEIR_TEST_NONE is not set"},
		{"http://", "ftp://", "the token and every secret would travel in clear"},
		{", token: \"${env:WEIR_TEST_VAULT_TOKEN}\"", "", "vault: has no token"},
		{"${env:WEIR_TEST_VAULT_TOKEN}", "${vault:a/b#c}", "cannot be in Vault itself"},
		{"password: \"${vault:secret/data/orders#password}\"", "password: \"${vault:secret/data/orders#password}\", by_group: [{group: a, user: x, password: \"${env:WEIR_TEST_NONE}\"}]", "targets[0].credential.by_group[0].password"},
		{"password: \"${vault:secret/data/orders#password}\"", "password: \"${vault:secret/data/orders#password}\", by_group: [{group: a, user: x}, {group: a, user: y}]", `"a" stands twice`},
	} {
		p := configured()
		p.replace(tc.old, tc.fresh)
		code, out, said := p.weir("check")
		if code != exitUse || !strings.Contains(said, tc.want) || strings.Contains(out+said, canary) || strings.Contains(out+said, "vault-t0ken") {
			t.Errorf("%s: %d %s", tc.fresh, code, said)
		}
	}
	if strings.Contains(r.log.String(), canary) || strings.Contains(r.log.String(), "vault-t0ken") {
		t.Error("the log has a secret")
	}
}
