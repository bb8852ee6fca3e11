package cli

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/identity/saml/samltest"
	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

var startPage = regexp.MustCompile(`weir: open (\S+)`)

// browse runs weir login, and does what the person does in the browser.
func (p *place) browse(roots *x509.CertPool, user string, args ...string) (code int, said, page string) {
	p.t.Helper()
	var out bytes.Buffer
	var log syncBuffer
	done := make(chan int, 1)
	go func() { done <- run(p.t.Context(), testBuild, append([]string{"login"}, args...), &out, &log) }()
	eventually(p.t, "a page to open", func() bool { return startPage.MatchString(log.String()) })
	b := samltest.NewBrowser(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}})
	page, _, err := b.SignIn(startPage.FindStringSubmatch(log.String())[1], user, user)
	if err != nil {
		p.t.Fatal(err)
	}
	if m := regexp.MustCompile(`<code id="code">([^<]+)</code>`).FindStringSubmatch(page); m != nil {
		fmt.Fprintln(p.typed, m[1])
	}
	code = <-done
	if out.Len() > 0 {
		p.t.Errorf("weir login prints %s", out.String())
	}
	return code, log.String(), page
}

// TestLoginSAML: a person signs in at a real SAML provider, and the usual client gets in with what weir login keeps.
func TestLoginSAML(t *testing.T) {
	p := newPlace(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin := os.Stdin
	os.Stdin, p.typed = r, w
	t.Cleanup(func() { os.Stdin = stdin; _ = w.Close(); _ = r.Close() })
	speaksPostgres(t)
	base := fmt.Sprintf("https://localhost:%d", freePort(t))
	idp, err := samltest.Start(t.Context(), t.TempDir(), base+"/saml/sso/metadata", base+"/saml/sso/acs")
	if errors.Is(err, samltest.ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(idp.Close)
	server, err := postgrestest.Start(t.Context(), postgrestest.Options{Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(p.dir, "config"))
	t.Setenv("HOME", p.dir)
	t.Setenv(tokenEnv, "")
	t.Setenv("WEIR_CONFIG", p.config)
	t.Setenv("WEIR_TEST_PASSWORD", server.Password)
	listen := freePort(t)
	p.replace("listen: {admin: ", fmt.Sprintf("listen:\n  sign_in: {address: %q, url: %q}\n  admin: ", strings.TrimPrefix(base, "https://"), base))
	text := strings.Replace(p.text(), "}\npolicies:", fmt.Sprintf("\nidentity:\n  saml:\n    - {name: sso, metadata: %q, groups: groups, ttl: 30m}\npolicies:", idp.Metadata()), 1)
	p.write(text + fmt.Sprintf(`  - name: orders
    protocol: postgres
    listen: 127.0.0.1:%d
    upstream: {address: %q, database: postgres, tls: disable}
    credential: {user: %s, password: "${env:WEIR_TEST_PASSWORD}"}
`, listen, server.Addr(), server.User))
	p.must("check")
	g := p.serve()
	pem, err := os.ReadFile(filepath.Join(p.dir, "data", "tls", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)

	code, said, page := p.browse(roots, "ada")
	if code != 0 || !strings.Contains(said, "signed in as ada at "+idp.Entity) || !strings.Contains(page, "you are signed in") {
		t.Fatalf("%d %s\n%s\n%s", code, said, page, g.log.String())
	}
	if info, err := os.Stat(filepath.Join(p.dir, "config", "weir", "login.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	token := strings.TrimSpace(p.must("whoami", "--token"))
	if out := p.must("whoami"); !strings.Contains(out, "subject  ada\nissuer   "+idp.Entity+"\nkind     human\ngroups   analysts, staff\n") {
		t.Errorf("whoami:\n%s", out)
	}
	psql := func(token string) (string, error) {
		c := exec.CommandContext(t.Context(), server.Program("psql"), "-At", "-c", "SELECT 41 + 1")
		c.Env = append(os.Environ(), "PGHOST=localhost", fmt.Sprint("PGPORT=", listen), "PGDATABASE=orders", "PGUSER=ada", "PGPASSWORD="+token,
			"PGSSLMODE=verify-full", "PGSSLROOTCERT="+filepath.Join(p.dir, "data", "tls", "ca.pem"))
		b, err := c.CombinedOutput()
		return strings.TrimSpace(string(b)), err
	}
	if out, err := psql(token); err != nil || out != "42" {
		t.Fatalf("psql: %s, %v", out, err)
	}
	var id string
	eventually(t, "the session is listed", func() bool {
		for _, s := range p.list("--identity", "ada") {
			id, _ = s["id"].(string)
			return s["target"] == "orders"
		}
		return false
	})
	eventually(t, "its record names the provider", func() bool {
		_, out, _ := p.weir("show", id)
		return strings.Contains(out, "identity  ada (human), groups analysts, staff") && strings.Contains(out, idp.Entity)
	})

	eventually(t, "who got a token is on record", func() bool {
		for _, s := range p.list("--protocol", "admin", "--identity", "ada") {
			id, _ := s["id"].(string)
			if _, out, _ := p.weir("show", id); strings.Contains(out, "tokens.sign-in ada") && strings.Contains(out, "token ") && !strings.Contains(out, token) {
				return true
			}
		}
		return false
	})

	// Who is in no group gets a token, and is told by the policy that it opens nothing. The browser is elsewhere.
	code, said, page = p.browse(roots, "eve", "--saml", "--paste")
	if code != 0 || !strings.Contains(said, "signed in as eve") || strings.Contains(page, "eyJ") {
		t.Fatalf("%d %s\n%s", code, said, page)
	}
	if out, err := psql(strings.TrimSpace(p.must("whoami", "--token"))); err == nil || !strings.Contains(out, "refused") {
		t.Errorf("eve: %s", out)
	}
	p.must("token", "revoke", "--subject", "ada", "--issuer", idp.Entity)
	if out, err := psql(token); err == nil || !strings.Contains(out, "denied") {
		t.Errorf("a revoked subject: %s, %v", out, err)
	}

	// A bad answer is counted with the other failures, and its page and log say nothing of it.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}, Timeout: 10 * time.Second}
	res, err := client.PostForm(base+"/saml/sso/acs", url.Values{"SAMLResponse": {"PFJlc3BvbnNlPmEgc2VjcmV0PC9SZXNwb25zZT4="}})
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	eventually(t, "the metric", func() bool { return strings.Contains(p.metrics(), `weir_gateway_refused_total{reason="saml-shape"} 1`) })
	log := g.log.String()
	for _, secret := range []string{token, "a secret", "PFJlc3BvbnNl", server.Password} {
		if strings.Contains(log, secret) {
			t.Errorf("the log has %q", secret)
		}
	}
	if !strings.Contains(log, "reason=saml-shape") {
		t.Error("the log does not say why")
	}
	for _, args := range [][]string{{"--gateway", "http://weir.example"}, {"--gateway", base, "--ca", "missing.pem"}, {"--saml", "--issuer", "x"}} {
		if code, _, said := p.weir(append([]string{"login"}, args...)...); code != exitUse {
			t.Errorf("%v: %d %s", args, code, said)
		}
	}
	if code, _, said := p.weir("login", "--gateway", base, "--provider", "", "--ca", filepath.Join(p.dir, "weir.yaml")); code != exitUse {
		t.Errorf("a file without a certificate: %d %s", code, said)
	}
	p.must("logout")
}

// TestCheckSAML: bad metadata is found before anything starts, and what needs a restart is not taken by a reload.
func TestCheckSAML(t *testing.T) {
	p := newPlace(t)
	t.Setenv("WEIR_CONFIG", p.config)
	with := func(metadata, url string) {
		t.Helper()
		p.write(fmt.Sprintf("listen:\n  sign_in: {address: 127.0.0.1:0, url: %q}\nidentity:\n  saml:\n    - {name: sso, metadata: %q}\n", url, metadata) +
			"policies:\n  - {name: small, path: \"builtin:small\"}\nchain: [small]\ntargets:\n  - name: one\n    protocol: echo\n    listen: 127.0.0.1:0\n" +
			"    upstream: {address: \"127.0.0.1:1\", tls: disable}\n    credential: {user: app, password: \"${env:WEIR_TEST_PASSWORD}\"}\n")
	}
	with("https://idp.example/metadata", "https://weir.example")
	p.must("check") // nobody is asked
	before, err := config.Load(p.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "idp.xml"), []byte("<!DOCTYPE x><x/>"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"missing.xml": "no such file", "idp.xml": "DTD"} {
		with(file, "https://weir.example")
		if code, _, said := p.weir("check"); code != exitUse || !strings.Contains(said, want) || !strings.Contains(said, "weir.yaml:5") {
			t.Errorf("%s: %d %s", file, code, said)
		}
	}
	with("https://idp.example/metadata", "https://other.example")
	after, err := config.Load(p.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := reloadable(before, after); err == nil || !strings.Contains(err.Error(), "listen.sign_in") {
		t.Errorf("another sign-in address: %v", err)
	}
	if err := reloadable(before, before); err != nil {
		t.Errorf("nothing has changed: %v", err)
	}
}
