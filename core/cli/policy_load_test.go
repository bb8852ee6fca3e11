package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// bundleOf makes a bundle of one module.
func bundleOf(t *testing.T, rego string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	err := w.WriteHeader(&tar.Header{Name: "/guard.rego", Mode: 0o600, Size: int64(len(rego))})
	if err == nil {
		_, err = w.Write([]byte(rego))
	}
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func digestOf(t *testing.T, b []byte) string {
	t.Helper()
	return fmt.Sprintf("%x", sha256.Sum256(b))[:12]
}

// TestBundleAtURL: rules come from a server and change with it; what is no good, and a server that is away, change
// nothing; without any there is no start.
func TestBundleAtURL(t *testing.T) {
	deny := func(word string) string {
		return fmt.Sprintf("package weir.guardrails\ndeny contains {\"rule\": \"no-%s\"} if input.event.command.text == %q", word, word)
	}
	var mu sync.Mutex
	content, down := bundleOf(t, deny("drop")), false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.Header.Get("Authorization") != "Bearer "+canary:
			w.WriteHeader(http.StatusUnauthorized)
		case down:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			_, _ = w.Write(content)
		}
	}))
	defer server.Close()
	set := func(f func()) { mu.Lock(); f(); mu.Unlock() }
	p := newPlace(t)
	p.replace(`{name: small, path: "builtin:small"}`, fmt.Sprintf(`{name: small, path: "%s/b.tar.gz", poll: 1s, token: "${env:WEIR_TEST_PASSWORD}"}`, server.URL))

	set(func() { down = true })
	if code, _, errs := p.weir("check"); code != exitUse || !strings.Contains(errs, "no good bundle has come yet") || !strings.Contains(errs, "503") || strings.Contains(errs, canary) {
		t.Errorf("check without a bundle: %d %s", code, errs)
	}
	if code, _, errs := p.weir("serve"); code != exitUse || !strings.Contains(errs, "no good bundle has come yet") || strings.Contains(errs, "weir: ready") {
		t.Errorf("serve without a bundle: %d %s", code, errs)
	}
	set(func() { down = false })
	p.must("check")

	r := p.serve()
	token := strings.TrimSpace(p.must("token", "--subject", "ada"))
	says := func(word, want string) {
		t.Helper()
		eventually(t, word+" gets "+want, func() bool {
			c, got := r.talk(t, token, word)
			_ = c.Close() // an open session holds up the end
			return got[1] == want
		})
	}
	says("drop", "denied no-drop")
	says("take", "take")
	set(func() { content = bundleOf(t, deny("take")) })
	says("take", "denied no-take")
	says("drop", "drop")

	set(func() { content = bundleOf(t, "package weir.guardrails\ndeny contains x if") })
	r.log.wait(t, "the last good one is")
	says("take", "denied no-take")
	set(func() { down = true })
	r.log.wait(t, "server does not answer")
	says("take", "denied no-take")
	age := func() string {
		_, rest, _ := strings.Cut(p.metrics(), `weir_opa_bundle_age_seconds{policy="small"} `)
		n, _, _ := strings.Cut(rest, "\n")
		return n
	}
	if first := age(); first == "" {
		t.Error("nobody can tell that the bundle is old")
	} else {
		eventually(t, "the age grows", func() bool { return age() != first && !strings.HasPrefix(age(), "0.") })
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	r = p.serve() // from the last good copy
	r.log.wait(t, "the last good one is")
	says("take", "denied no-take")
	set(func() { down, content = false, bundleOf(t, deny("give")) })
	says("give", "denied no-give")
	set(func() { content = bundleOf(t, deny("drop")) }) // the first of all: the server was taken back
	r.log.wait(t, "it does not come back")
	says("give", "denied no-give")
	says("drop", "drop")
	p.replace(`poll: 1s`, `poll: 1s, rollback: "`+digestOf(t, bundleOf(t, deny("drop")))+`"`)
	r.hup <- syscall.SIGHUP
	says("drop", "denied no-drop")
	p.noSecrets(r.log.String(), token)
}
