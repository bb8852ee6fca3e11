package cli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core/identity/saml/samltest"
	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// TestSamePsqlLine: one line of psql works with a person's token of the device flow, a service account's of client credentials,
// one that a SAML sign-in gave, and one of the gateway's own; each session has its owner, and who vouches for them.
func TestSamePsqlLine(t *testing.T) {
	p, idp := provided(t, time.Hour)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin := os.Stdin
	os.Stdin, p.typed = r, w
	t.Cleanup(func() { os.Stdin = stdin; _ = w.Close(); _ = r.Close() })
	speaksPostgres(t)
	base := fmt.Sprintf("https://localhost:%d", freePort(t))
	sso, err := samltest.Start(t.Context(), t.TempDir(), base+"/saml/sso/metadata", base+"/saml/sso/acs")
	if errors.Is(err, samltest.ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sso.Close)
	server, err := postgrestest.Start(t.Context(), postgrestest.Options{Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	t.Setenv("WEIR_CONFIG", p.config)
	t.Setenv("WEIR_TEST_PASSWORD", server.Password)
	listen := freePort(t)
	p.replace("chain: [small]\n", "chain: []\n")
	p.replace("policies:\n  - {name: small, path: \"builtin:small\"}\n", "")
	p.replace("listen: {admin: ", fmt.Sprintf("listen:\n  sign_in: {address: %q, url: %q}\n  admin: ", strings.TrimPrefix(base, "https://"), base))
	p.replace("identity:\n", fmt.Sprintf("identity:\n  saml:\n    - {name: sso, metadata: %q, groups: groups, ttl: 30m}\n", sso.Metadata()))
	text := strings.Replace(p.text(), "}\nidentity:", "\nidentity:", 1) // of the listen that is a block now
	p.write(text + fmt.Sprintf(`  - name: orders
    protocol: postgres
    listen: 127.0.0.1:%d
    upstream: {address: %q, database: postgres, tls: disable}
    credential: {user: %s, password: "${env:WEIR_TEST_PASSWORD}"}
`, listen, server.Addr(), server.User))
	p.must("check")
	p.serve()
	ca := filepath.Join(p.dir, "data", "tls", "ca.pem")
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)

	tokens := map[string]string{} // by whose it is, and who says so
	if code, said := p.signIn(idp, "ada", "--issuer", idp.URL); code != 0 {
		t.Fatal(said)
	}
	tokens["ada "+idp.URL] = strings.TrimSpace(p.must("whoami", "--token"))
	p.must("logout")
	loop, err := idp.ClientToken("weir")
	if err != nil {
		t.Fatal(err)
	}
	tokens["loop "+idp.URL] = loop
	if code, said, _ := p.browse(roots, "eve", "--saml"); code != 0 {
		t.Fatal(said)
	}
	tokens["eve "+sso.Entity] = strings.TrimSpace(p.must("whoami", "--token"))
	tokens["nightly weir"] = strings.TrimSpace(p.must("token", "--subject", "nightly"))

	for who, token := range tokens {
		c := exec.CommandContext(t.Context(), server.Program("psql"), "-At", "-c", "SELECT 41 + 1")
		c.Env = append(os.Environ(), "PGHOST=localhost", fmt.Sprint("PGPORT=", listen), "PGDATABASE=orders", "PGUSER=me", "PGPASSWORD="+token, "PGSSLMODE=verify-full", "PGSSLROOTCERT="+ca)
		if out, err := c.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "42" {
			t.Errorf("%s: %s, %v", who, out, err)
		}
	}
	found := map[string]string{}
	eventually(t, "four owners", func() bool {
		for _, s := range p.list("--target", "orders") {
			_, out, _ := p.weir("show", fmt.Sprint(s["id"]))
			for who := range tokens {
				subject, issuer, _ := strings.Cut(who, " ")
				if s["identity"] == subject && strings.Contains(out, issuer) {
					found[who] = fmt.Sprint(s["id"])
				}
			}
		}
		return len(found) == 4
	})
}
