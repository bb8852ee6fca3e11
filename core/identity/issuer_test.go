package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

func issuer(t *testing.T, maxTTL time.Duration) *Issuer {
	t.Helper()
	i, err := OpenIssuer(filepath.Join(t.TempDir(), "keys"), maxTTL)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestServiceTokens(t *testing.T) {
	i := issuer(t, 0)
	v, err := New(t.Context(), Config{Service: i})
	if err != nil {
		t.Fatal(err)
	}
	made, err := i.Issue(Grant{Subject: "loop-7", Groups: []string{"agents"}, Kind: "agent", Run: "run-1", Targets: []string{"orders"}, TTL: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	id, err := v.Verify(t.Context(), made.Token)
	if err != nil {
		t.Fatal(err)
	}
	if id.Token != made.ID || id.Subject != "loop-7" || id.Issuer != "weir" || fmt.Sprint(id.Groups) != "[agents]" || id.Kind != "agent" || id.Run != "run-1" || fmt.Sprint(id.Targets) != "[orders]" || !id.Expires.Equal(made.Expires) {
		t.Errorf("got %+v", id)
	}
}

func TestServiceTokensRefused(t *testing.T) {
	dir := t.TempDir()
	i, err := OpenIssuer(dir, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	patient, err := OpenIssuer(dir, 48*time.Hour) // the same key, before max_ttl was lowered
	if err != nil {
		t.Fatal(err)
	}
	other := issuer(t, 0)
	now := time.Now()
	v, _ := New(t.Context(), Config{Service: i, Now: func() time.Time { return now }})
	issue := func(i *Issuer, g Grant, at time.Time) string {
		made, err := i.issue(g, at)
		if err != nil {
			t.Fatal(err)
		}
		return made.Token
	}
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	payload := fmt.Sprintf(`{"iss":"weir","aud":"weir","sub":"root","kind":"human","jti":"1","iat":%d,"exp":%d}`, now.Unix(), now.Unix()+60)
	own := func(payload string) string {
		return forge(`{"alg":"EdDSA","kid":"`+i.kid+`"}`, payload, func(in []byte) []byte { return ed25519.Sign(i.key, in) })
	}
	for _, tc := range []struct{ name, token, reason string }{
		{"of another gateway", issue(other, Grant{Subject: "a"}, now), "key"},
		{"another key under our id", forge(`{"alg":"EdDSA","kid":"`+i.kid+`"}`, payload, func(in []byte) []byte { return ed25519.Sign(stranger, in) }), "signature"},
		{"expired", issue(i, Grant{Subject: "a", TTL: time.Minute}, now.Add(-3*time.Minute)), "expired"},
		{"of the future", issue(i, Grant{Subject: "a"}, now.Add(2*time.Minute)), "early"},
		{"longer than max_ttl", issue(patient, Grant{Subject: "a", TTL: 2 * time.Hour}, now), "ttl"},
		{"changed", swapPayload(issue(i, Grant{Subject: "a"}, now), payload), "signature"},
		{"other audience", own(strings.Replace(payload, `"aud":"weir"`, `"aud":"x"`, 1)), "audience"},
		{"no id", own(strings.Replace(payload, `"jti":"1",`, "", 1)), "ttl"},
		{"no kind", own(strings.Replace(payload, `"kind":"human",`, "", 1)), "malformed"},
		{"targets no list", own(strings.Replace(payload, `"jti"`, `"targets":{},"jti"`, 1)), "malformed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id, err := v.Verify(t.Context(), tc.token)
			var r *Refusal
			if !errors.As(err, &r) || !errors.Is(err, core.ErrUnauthenticated) || r.Reason() != tc.reason {
				t.Fatalf("got %+v, %v, want %s", id, err, tc.reason)
			}
		})
	}
	if _, err := v.Verify(t.Context(), own(payload)); err != nil {
		t.Errorf("the forger's tools make no good token either: %v", err)
	}
	off, err := New(t.Context(), Config{Providers: []Provider{{Name: "x", Issuer: "https://x.example", Audience: "weir"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := off.Verify(t.Context(), own(payload)); err == nil {
		t.Error("accepted with service tokens off")
	}
}

func TestIssueRefuses(t *testing.T) {
	i := issuer(t, time.Hour)
	for want, g := range map[string]Grant{
		"needs a subject":                 {},
		"identity.service_tokens.max_ttl": {Subject: "a", TTL: 2 * time.Hour},
		"cannot expire before":            {Subject: "a", TTL: -time.Second},
		"is not human":                    {Subject: "a", Kind: "robot"},
		"a run is":                        {Subject: "a", Run: "a b"},
		"at most 1000 groups":             {Subject: "a", Groups: make([]string, 1001)},
		"larger than 64 KiB":              {Subject: "a", Groups: []string{strings.Repeat("g", 64<<10)}},
	} {
		if made, err := i.Issue(g); err == nil || made.Token != "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", g, err, want)
		}
	}
}

func TestKeyFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for n := range ids {
		wg.Go(func() {
			i, err := OpenIssuer(dir, 0)
			if err != nil {
				t.Error(err)
				return
			}
			ids[n] = i.kid
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("keys differ: %v", ids)
		}
	}
	path := filepath.Join(dir, keyFile)
	for p, want := range map[string]os.FileMode{dir: 0o700, path: 0o600} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v", p, info.Mode().Perm(), err)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenIssuer(dir, 0); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenIssuer(dir, 0); err == nil || !strings.Contains(err.Error(), "not a PEM private key") {
		t.Errorf("a broken key must not be replaced: %v", err)
	}
}

func TestNew(t *testing.T) {
	for want, c := range map[string]Config{
		"there is no issuer":         {},
		"needs an issuer and an aud": {Providers: []Provider{{Name: "a", Issuer: "https://a"}}},
		"stands twice":               {Providers: []Provider{{Issuer: "https://a", Audience: "x"}, {Issuer: "https://a", Audience: "y"}}},
		`issuer "weir" stands twice`: {Providers: []Provider{{Issuer: "weir", Audience: "x"}}},
	} {
		if _, err := New(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	var _ error = &Refusal{}
	if !errors.Is(refuse("x", "y"), core.ErrUnauthenticated) {
		t.Error("a refusal is not ErrUnauthenticated")
	}
}
