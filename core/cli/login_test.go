package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/identity/idptest"
)

// provided is a place whose gateway takes tokens of a real provider.
func provided(t *testing.T, ttl time.Duration) (*place, *idptest.IDP) {
	t.Helper()
	idp, err := idptest.Start(t.Context(), ttl)
	if errors.Is(err, idptest.ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(idp.Close)
	p := newPlace(t)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(p.dir, "config"))
	t.Setenv("HOME", p.dir)
	t.Setenv(tokenEnv, "")
	p.replace("policies:", "identity:\n  oidc:\n    - {name: corp, issuer: \""+idp.URL+"\", audience: weir, login: {client_id: weir}}\npolicies:")
	loginPause = 50 * time.Millisecond
	t.Cleanup(func() { loginPause = 0 })
	return p, idp
}

var page = regexp.MustCompile(`weir: or open (\S+)`)

// signIn runs weir login, and does what the person does in the browser.
func (p *place) signIn(idp *idptest.IDP, name string, args ...string) (code int, messages string) {
	p.t.Helper()
	p.t.Setenv("WEIR_CONFIG", p.config)
	var out bytes.Buffer
	var said syncBuffer
	done := make(chan int, 1)
	go func() { done <- run(p.t.Context(), testBuild, append([]string{"login"}, args...), &out, &said) }()
	eventually(p.t, "a page to open", func() bool { return page.MatchString(said.String()) })
	answer := idp.Approve
	if name == "" {
		answer = idp.Refuse
	}
	if err := answer(page.FindStringSubmatch(said.String())[1], name); err != nil {
		p.t.Fatal(err)
	}
	code = <-done
	if out.Len() > 0 {
		p.t.Errorf("weir login prints %s", out.String())
	}
	return code, said.String()
}

// TestLogin: a person signs in at a real provider, is known to the gateway, asks it, is renewed, and signs out.
func TestLogin(t *testing.T) {
	p, idp := provided(t, 90*time.Second)
	r := p.serve()
	if code, _, said := p.weir("whoami"); code != exitUse || !strings.Contains(said, "weir login") {
		t.Errorf("nobody: %d %s", code, said)
	}
	if code, said := p.signIn(idp, ""); code != exitNo || !strings.Contains(said, "was refused") {
		t.Fatalf("refused: %d %s", code, said)
	}
	code, said := p.signIn(idp, "ada")
	if code != 0 || !strings.Contains(said, "signed in as ada at "+idp.URL) {
		t.Fatalf("%d %s", code, said)
	}
	file := filepath.Join(p.dir, "config", "weir", "login.json")
	for at, want := range map[string]fs.FileMode{file: 0o600, filepath.Dir(file): 0o700} {
		if info, err := os.Stat(at); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", at, info.Mode(), err)
		}
	}
	if out := p.must("whoami"); !strings.Contains(out, "subject  ada\nissuer   "+idp.URL+"\nkind     human\ngroups   analysts, dba\n") {
		t.Errorf("whoami:\n%s", out)
	}
	token := strings.TrimSpace(p.must("whoami", "--token"))
	if strings.Contains(said, token) {
		t.Error("weir login shows the token")
	}
	p.must("approvals") // takes it as well

	// The policy lets nobody of hers in; the target says so, with its reason, and nothing is recorded of the question.
	var list []gateway.Reachable
	if err := json.Unmarshal([]byte(p.must("targets", "-o", "json")), &list); err != nil || len(list) != 1 || list[0].Access != "denied" {
		t.Errorf("targets: %+v, %v", list, err)
	}
	if _, got := r.talk(t, token); strings.HasPrefix(got[0], "ok") {
		t.Errorf("let in: %s", got)
	}
	p.must("token", "revoke", "--subject", "ada", "--issuer", idp.URL)
	if code, _, said := p.weir("whoami"); code != exitNo || !strings.Contains(said, "not good here") {
		t.Errorf("a denied subject: %d %s", code, said)
	}
	p.must("token", "restore", "--subject", "ada", "--issuer", idp.URL)

	// When its time runs out the token is renewed, once, whoever asks.
	kept, err := readLogin(file)
	if err != nil {
		t.Fatal(err)
	}
	before := kept.Refresh
	kept.Expires = time.Now().Add(renewBefore / 2)
	if err := kept.write(file); err != nil {
		t.Fatal(err)
	}
	p.must("whoami")
	if kept, _ = readLogin(file); kept.Refresh == before || time.Until(kept.Expires) < renewBefore {
		t.Errorf("not renewed: until %v", kept.Expires)
	}
	p.must("whoami")
	if again, _ := readLogin(file); again.Refresh != kept.Refresh {
		t.Error("renewed twice")
	}
	// A provider that is down is not the end of a sign-in; one that says no is.
	kept.Expires = time.Now()
	if err := kept.write(file); err != nil {
		t.Fatal(err)
	}
	if err := idp.Down(); err != nil {
		t.Fatal(err)
	}
	if code, _, said := p.weir("whoami", "--token"); code != exitUnreachable {
		t.Errorf("the provider is down: %d %s", code, said)
	}
	if err := idp.Up(); err != nil {
		t.Fatal(err)
	}
	p.must("whoami", "--token")
	kept, _ = readLogin(file)
	kept.Expires, kept.Refresh = time.Now(), before // used already: the provider takes it for stolen
	if err := kept.write(file); err != nil {
		t.Fatal(err)
	}
	if code, _, said := p.weir("whoami", "--token"); code != exitUse || !strings.Contains(said, "sign in again") || strings.Contains(said, before) {
		t.Errorf("a refresh token used twice: %d %s", code, said)
	}

	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, said := p.weir("whoami", "--token"); code != exitUse || !strings.Contains(said, "can be read by others") {
		t.Errorf("a file that others can read: %d %s", code, said)
	}
	if code, said := p.signIn(idp, "ada", "--issuer", "corp"); code != 0 {
		t.Fatalf("signing in anew over it: %s", said)
	}
	kept, _ = readLogin(file)
	p.must("logout")
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it is kept still")
	}
	if _, err := kept.client().Renew(t.Context(), kept.Refresh); err == nil {
		t.Error("the provider was not told")
	}
	p.must("logout") // nobody: fine
	for name, args := range map[string][]string{
		"unknown issuer":   {"login", "--issuer", "https://other.example"},
		"clear text":       {"login", "--issuer", "http://other.example", "--client-id", "x"},
		"no configuration": {"login", "-c", filepath.Join(p.dir, "none.yaml")},
	} {
		if code, _, _ := p.weir(args...); code != exitUse && code != exitUnreachable {
			t.Errorf("%s: %d", name, code)
		}
	}
	if text := r.log.String(); strings.Contains(text, token[strings.LastIndexByte(token, '.')+1:]) {
		t.Error("the log has the token")
	}
}

// TestOwners: a person, a service and the gateway's own token open the same target, and each session has its owner.
func TestOwners(t *testing.T) {
	p, idp := provided(t, time.Hour)
	p.replace("chain: [small]\n", "chain: []\n")
	p.replace("policies:\n  - {name: small, path: \"builtin:small\"}\n", "")
	r := p.serve()
	if code, said := p.signIn(idp, "ada"); code != 0 {
		t.Fatal(said)
	}
	service, err := idp.ClientToken("weir")
	if err != nil {
		t.Fatal(err)
	}
	person := strings.TrimSpace(p.must("whoami", "--token"))
	for who, token := range map[string]string{"ada": person, "loop": service, "nightly": strings.TrimSpace(p.must("token", "--subject", "nightly"))} {
		conn, got := r.talk(t, token, "hello")
		if !strings.HasPrefix(got[0], "ok") || got[1] != "hello" {
			t.Fatalf("%s: %v", who, got)
		}
		_ = conn.Close()
	}
	var list []struct{ Identity string }
	eventually(t, "three sessions", func() bool {
		return json.Unmarshal([]byte(p.must("sessions", "-o", "json")), &list) == nil && len(list) == 3
	})
	var owners []string
	for _, s := range list {
		owners = append(owners, s.Identity)
	}
	if slices.Sort(owners); !slices.Equal(owners, []string{"ada", "loop", "nightly"}) {
		t.Errorf("owners: %v", owners)
	}
}

func TestRunEnvironment(t *testing.T) {
	made := &gateway.NewRun{Run: "r-1", Targets: []gateway.Reachable{{Name: "a", Protocol: "x", Env: map[string]string{"PGHOST": "h", "PGHOSTADDR": "", "PGPASSWORD": "t"}}}}
	env, err := environment([]string{"HOME=/h", "PGHOST=old", "PGHOSTADDR=10.0.0.1", tokenEnv + "=mine", runEnv + "=other"}, made)
	if err != nil || !slices.Equal(env, []string{"HOME=/h", "PGHOST=h", "PGPASSWORD=t", "WEIR_RUN=r-1"}) {
		t.Errorf("%v, %v", env, err)
	}
	made.Targets = append(made.Targets, gateway.Reachable{Name: "b", Env: map[string]string{"PGHOST": "other"}})
	if _, err := environment(nil, made); err == nil || !strings.Contains(err.Error(), "name one by --target") {
		t.Error(err)
	}
	made.Targets = []gateway.Reachable{{Name: "c", Protocol: "echo"}}
	if _, err := environment(nil, made); err == nil {
		t.Error("a target without variables passes")
	}
	if _, err := environment(nil, &gateway.NewRun{}); err == nil {
		t.Error("a run of nothing passes")
	}
}
