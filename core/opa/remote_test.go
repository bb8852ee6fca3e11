package opa

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
)

// bundleOf makes a bundle with one module, signed when there is a key.
func bundleOf(t *testing.T, rego, privateKey string) []byte {
	t.Helper()
	m, err := ast.ParseModuleWithOpts("guard.rego", rego, parserOptions)
	if err != nil {
		t.Fatal(err)
	}
	b := bundle.Bundle{
		Manifest: bundle.Manifest{Revision: "r1"}, Data: map[string]any{},
		Modules: []bundle.ModuleFile{{URL: "/guard.rego", Path: "/guard.rego", Raw: []byte(rego), Parsed: m}},
	}
	b.Manifest.Init()
	if privateKey != "" {
		if err := b.GenerateSignature(bundle.NewSigningConfig(privateKey, "ES256", ""), "", false); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := bundle.NewWriter(&out).UseModulePath(true).Write(b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func keyPair(t *testing.T) (private, public string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: a})), string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b}))
}

const denyAll = head + `deny contains {"rule": "r"} if true`

func TestSignedBundles(t *testing.T) {
	private, public := keyPair(t)
	other, _ := keyPair(t)
	signed, unsigned, foreign := bundleOf(t, denyAll, private), bundleOf(t, denyAll, ""), bundleOf(t, denyAll, other)
	changed := rewritten(t, signed, "if true", "if 1 > 2")
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	for _, c := range []struct {
		name string
		b    []byte
		key  *Key
		want string // of the error; empty: it loads
	}{
		{"signed", signed, &Key{public, "ES256"}, ""},
		{"unsigned, no key", unsigned, nil, ""},
		{"unsigned", unsigned, &Key{public, "ES256"}, "signature"},
		{"by another key", foreign, &Key{public, "ES256"}, "verif"},
		{"changed", changed, &Key{public, "ES256"}, "digest"},
		{"another algorithm", signed, &Key{public, "RS256"}, ""},
		{"signed, no key to check it", signed, nil, "verif"},
	} {
		if err := os.WriteFile(file, c.b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(context.Background(), Config{Name: "x", Path: file, Key: c.key})
		switch {
		case c.name == "another algorithm" && err == nil, c.want == "" && c.name != "another algorithm" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := Load(context.Background(), Config{Name: "x", FS: files("p.rego", denyAll), Key: &Key{public, "ES256"}}); err == nil {
		t.Error("a key for files that cannot be signed does nothing")
	}
}

// rewritten changes a text inside a bundle, as somebody would who has no key.
func rewritten(t *testing.T, b []byte, old, fresh string) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	tw, tr := tar.NewWriter(zw), tar.NewReader(z)
	found := false
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		found = found || bytes.Contains(content, []byte(old))
		content = bytes.ReplaceAll(content, []byte(old), []byte(fresh))
		h.Size = int64(len(content))
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil || !found {
		t.Fatal(err, found)
	}
	return out.Bytes()
}

func TestRemote(t *testing.T) {
	content, mark, status, asked := bundleOf(t, denyAll, ""), `"1"`, http.StatusOK, 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		switch {
		case r.Header.Get("Authorization") != "Bearer secret":
			w.WriteHeader(http.StatusUnauthorized)
		case status != http.StatusOK:
			w.WriteHeader(status)
		case mark != "" && r.Header.Get("If-None-Match") == mark:
			w.WriteHeader(http.StatusNotModified)
		default:
			if mark != "" {
				w.Header().Set("ETag", mark)
			}
			_, _ = w.Write(content)
		}
	}))
	defer server.Close()
	ctx := context.Background()
	r := &Remote{URL: server.URL + "/b.tar.gz", Token: "secret", File: filepath.Join(t.TempDir(), "policies", "b.tar.gz")}
	fetch := func(want bool) {
		t.Helper()
		file, m, err := r.Fetch(ctx)
		if err != nil || (file != "") != want {
			t.Fatal(file, err)
		}
		if want {
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
				t.Error(info, err)
			}
			if err := r.Keep(file, m, guardrails(t, `record := "full"`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, kept := r.Age(); kept {
		t.Error("kept before it came")
	}
	fetch(true)
	fetch(false) // not modified
	mark = `"2"`
	fetch(false) // another mark for the same content
	content = append(bytes.Clone(content), 0)
	fetch(true)
	mark = ""
	content = append(content, 0)
	fetch(true)
	fetch(false) // a server without marks
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(r.File), ".fetched-*")); len(left) > 0 {
		t.Error("left behind:", left)
	}
	status = http.StatusBadGateway
	if _, _, err := r.Fetch(ctx); err == nil || !strings.Contains(err.Error(), "502") {
		t.Error(err)
	}
	status, r.Token = http.StatusOK, "wrong"
	if _, _, err := r.Fetch(ctx); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Error(err)
	}
	if age, kept := r.Age(); !kept || age < 0 {
		t.Error(age, kept)
	}
	for u, want := range map[string]string{
		"http://bundles.example/b.tar.gz": "not https", "https://user:pw@x/b": "no password", "file:///etc/passwd": "no URL", "https://": "no URL", "ftp://x/b": "not https",
	} {
		if err := CheckURL(u); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(fmt.Sprint(err), "pw") {
			t.Errorf("%s: %v", u, err)
		}
	}
}
