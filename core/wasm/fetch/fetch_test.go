package fetch

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/weir-gateway/weir/core/download"
)

var module = []byte("\x00asm\x01\x00\x00\x00 the one that was meant")

// web serves files over TLS, and counts how often it was asked.
type web struct {
	*httptest.Server
	files map[string][]byte
	asked atomic.Int64
	user  string
}

func newWeb(t *testing.T) *web {
	t.Helper()
	w := &web{files: map[string][]byte{}}
	w.Server = httptest.NewTLSServer(http.HandlerFunc(func(a http.ResponseWriter, r *http.Request) {
		w.asked.Add(1)
		if user, password, _ := r.BasicAuth(); w.user != "" && user+":"+password != w.user {
			a.WriteHeader(http.StatusUnauthorized)
			return
		}
		if to := r.URL.Query().Get("to"); to != "" || r.URL.Path == "/loop" {
			if to == "" {
				to = "/loop"
			}
			http.Redirect(a, r, to, http.StatusFound)
			return
		}
		b, ok := w.files[r.URL.Path]
		if !ok {
			http.NotFound(a, r)
			return
		}
		_, _ = a.Write(b)
	}))
	t.Cleanup(w.Close)
	pool := x509.NewCertPool()
	pool.AddCert(w.Certificate())
	was := download.Client.Transport
	download.Client.Transport = download.Guard(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true})
	t.Cleanup(func() { download.Client.Transport = was })
	return w
}

func fails(t *testing.T, err error, part, want string) {
	t.Helper()
	var e *Error
	if err == nil || !strings.Contains(err.Error(), want) || !errors.As(err, &e) || e.Part != part {
		t.Errorf("got %v (%+v), want %s: %q", err, e, part, want)
	}
}

func TestReferences(t *testing.T) {
	w := newWeb(t)
	w.files["/p.wasm"] = module
	w.files["/big.wasm"] = make([]byte, maxModule+1)
	plain := httptest.NewServer(w.Config.Handler)
	defer plain.Close()
	file := filepath.Join(t.TempDir(), "p.wasm")
	if err := os.WriteFile(file, module, 0o600); err != nil {
		t.Fatal(err)
	}
	f := &Fetcher{Builtin: fstest.MapFS{"pii/pii.wasm": {Data: module}, "pii/main.go": {}, "new/main.go": {}}}
	sum, other := sumOf(module), strings.Repeat("0", 64)
	for _, c := range []struct {
		name string
		s    Source
		part string // empty: it is the module
		want string
	}{
		{"a file", Source{Ref: file}, "", ""},
		{"a file with its digest", Source{Ref: file, SHA256: strings.ToUpper(sum)}, "", ""},
		{"a file with another digest", Source{Ref: file, SHA256: other}, "sha256", "has the SHA-256 " + sum},
		{"a digest cut short", Source{Ref: file, SHA256: sum[:60]}, "sha256", "64 hexadecimal"},
		{"no file", Source{Ref: file + "x"}, "wasm", "no such file"},
		{"a folder", Source{Ref: filepath.Dir(file)}, "wasm", "is not a file"},
		{"builtin", Source{Ref: "builtin:pii"}, "", ""},
		{"builtin that is not built", Source{Ref: "builtin:new"}, "wasm", "no builtin plugin"},
		{"builtin, climbing", Source{Ref: "builtin:../pii"}, "wasm", "no builtin plugin"},
		{"https", Source{Ref: w.URL + "/p.wasm", SHA256: sum}, "", ""},
		{"https, prefixed digest", Source{Ref: w.URL + "/p.wasm", SHA256: "sha256:" + sum}, "", ""},
		{"https without a digest", Source{Ref: w.URL + "/p.wasm"}, "wasm", "needs its sha256"},
		{"https with another digest", Source{Ref: w.URL + "/p.wasm", SHA256: other}, "sha256", "not " + other},
		{"https, not there", Source{Ref: w.URL + "/q.wasm", SHA256: sum}, "wasm", "404"},
		{"https, too large", Source{Ref: w.URL + "/big.wasm", SHA256: sum}, "wasm", "is larger than"},
		{"http on loopback", Source{Ref: plain.URL + "/p.wasm", SHA256: sum}, "", ""},
		{"http elsewhere", Source{Ref: "http://plugins.example/p.wasm", SHA256: sum}, "wasm", "is not https"},
		{"https to http", Source{Ref: w.URL + "/?to=" + plain.URL + "/p.wasm", SHA256: sum}, "wasm", "leads away from https"},
		{"http to elsewhere", Source{Ref: plain.URL + "/?to=http://plugins.example/p.wasm", SHA256: sum}, "wasm", "is not https"},
		{"redirects for ever", Source{Ref: w.URL + "/loop?to=/loop", SHA256: sum}, "wasm", "redirects"},
		{"a password in the URL", Source{Ref: "https://me:" + "c4n4ry@plugins.example/p.wasm", SHA256: sum}, "wasm", "holds no password"},
		{"another scheme", Source{Ref: "ftp://plugins.example/p.wasm", SHA256: sum}, "wasm", "cannot fetch"},
		{"oci without a digest", Source{Ref: "oci://127.0.0.1:1/a/b:v1"}, "wasm", "is not pinned"},
		{"oci with a short digest", Source{Ref: "oci://127.0.0.1:1/a/b@sha256:12"}, "wasm", "no sha256 digest"},
		{"oci with another digest", Source{Ref: "oci://127.0.0.1:1/a/b@md5:d41d8cd98f00b204e9800998ecf8427e"}, "wasm", "no sha256 digest"},
		{"oci without a repository", Source{Ref: "oci://127.0.0.1:1@sha256:" + sum}, "wasm", "is not oci://HOST/REPO"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := f.Get(t.Context(), c.s)
			if err != nil && strings.Contains(err.Error(), "c4n4ry") {
				t.Errorf("it tells the password: %v", err)
			}
			if c.part != "" {
				fails(t, err, c.part, c.want)
				return
			}
			if err != nil || !bytes.Equal(m.Bytes, module) || m.SHA256 != sum {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
	// What is not known yet can be looked at, and is not kept.
	look := &Fetcher{Dir: filepath.Join(t.TempDir(), "plugins"), Unpinned: true}
	if m, err := look.Get(t.Context(), Source{Ref: w.URL + "/p.wasm"}); err != nil || m.SHA256 != sum {
		t.Error(err)
	}
	if _, err := os.Stat(look.Dir); err == nil {
		t.Error("it was kept")
	}
}

// TestCache: what was fetched once is not fetched again, is held to its name at each load, and survives its server.
func TestCache(t *testing.T) {
	w := newWeb(t)
	w.files["/p.wasm"] = module
	s := Source{Ref: w.URL + "/p.wasm", SHA256: sumOf(module)}
	f := &Fetcher{Dir: filepath.Join(t.TempDir(), "data", "plugins")}
	get := func() {
		t.Helper()
		if m, err := f.Get(t.Context(), s); err != nil || !bytes.Equal(m.Bytes, module) {
			t.Fatal(err)
		}
	}
	f.ReadOnly = true
	get()
	if _, err := os.Stat(f.Dir); err == nil {
		t.Fatal("a check has made the cache")
	}
	f.ReadOnly = false
	get()
	get()
	if n := w.asked.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
	if info, err := os.Stat(f.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info.Mode(), err)
	}
	if info, err := os.Stat(f.file(s.SHA256)); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	// Tampered with: it is fetched anew, and without the server nothing loads.
	if err := os.WriteFile(f.file(s.SHA256), append([]byte("x"), module...), 0o600); err != nil {
		t.Fatal(err)
	}
	get()
	if n := w.asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
	w.Close()
	get()
	if err := os.WriteFile(f.file(s.SHA256), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Get(t.Context(), s); err == nil {
		t.Error("a module that was tampered with has been taken")
	}
	_ = os.Chmod(f.Dir, 0o755)
	if err := f.keep(s.SHA256, module); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Error(err)
	}
}

func TestCredential(t *testing.T) {
	w := newWeb(t)
	w.files["/p.wasm"], w.user = module, "me:c4n4ry"
	s := Source{Ref: w.URL + "/p.wasm", SHA256: sumOf(module)}
	f := &Fetcher{}
	_, err := f.Get(t.Context(), s)
	fails(t, err, "wasm", "401")
	s.User, s.Password = "me", "c4n4ry"
	if _, err := f.Get(t.Context(), s); err != nil {
		t.Error(err)
	}
}

// signer makes a key.
func signer(t *testing.T) (ed25519.PrivateKey, ed25519.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

func TestSignatures(t *testing.T) {
	w := newWeb(t)
	key, public := signer(t)
	otherKey, other := signer(t)
	file := filepath.Join(t.TempDir(), "p.wasm")
	put := func(b, signature []byte) {
		w.files["/p.wasm"], w.files["/p.wasm.sig"] = b, signature
		if err := errors.Join(os.WriteFile(file, b, 0o600), os.RemoveAll(file+".sig")); err != nil {
			t.Fatal(err)
		}
		if signature == nil {
			delete(w.files, "/p.wasm.sig")
		} else if err := os.WriteFile(file+".sig", signature, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := ed25519.Sign(key, module)
	changed := append(bytes.Clone(module), 'x')
	for _, c := range []struct {
		name      string
		module    []byte
		signature []byte
		keys      []ed25519.PublicKey
		want      string // empty: it loads
	}{
		{"signed", module, good, []ed25519.PublicKey{public}, ""},
		{"in base64", module, []byte(base64.StdEncoding.EncodeToString(good) + "\n"), []ed25519.PublicKey{public}, ""},
		{"by the second key", module, good, []ed25519.PublicKey{other, public}, ""},
		{"no keys asked for: the guard off", changed, good, nil, ""},
		{"unsigned", module, nil, []ed25519.PublicKey{public}, "ask for a signature"},
		{"by another key", module, ed25519.Sign(otherKey, module), []ed25519.PublicKey{public}, "another key"},
		{"changed after signing", changed, good, []ed25519.PublicKey{public}, "of another module"},
		{"empty signature", module, []byte{}, []ed25519.PublicKey{public}, "of another module"},
		{"zeros", module, make([]byte, 64), []ed25519.PublicKey{public}, "of another module"},
		{"a long signature", module, make([]byte, maxSignature+1), []ed25519.PublicKey{public}, "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			put(c.module, c.signature)
			for _, ref := range []string{file, w.URL + "/p.wasm"} {
				m, err := (&Fetcher{}).Get(t.Context(), Source{Ref: ref, SHA256: sumOf(c.module), Keys: c.keys})
				switch {
				case c.want != "":
					fails(t, err, "public_keys", c.want)
				case err != nil:
					t.Error(err)
				case len(c.keys) > 0 && m.Signer != base64.StdEncoding.EncodeToString(public):
					t.Errorf("signed by %q", m.Signer)
				}
			}
		})
	}
	// From another place, and kept for when the server is away.
	put(module, nil)
	w.files["/elsewhere"] = good
	f := &Fetcher{Dir: filepath.Join(t.TempDir(), "plugins")}
	s := Source{Ref: w.URL + "/p.wasm", SHA256: sumOf(module), Signature: w.URL + "/elsewhere", Keys: []ed25519.PublicKey{public}}
	if _, err := f.Get(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := f.Get(t.Context(), s); err != nil {
		t.Error(err)
	}
	s.Keys = []ed25519.PublicKey{other} // what is kept counts for its key only
	if _, err := f.Get(t.Context(), s); err == nil {
		t.Error("a kept signature by another key was taken")
	}
	// A builtin one is part of the program.
	if _, err := (&Fetcher{Builtin: fstest.MapFS{"a/a.wasm": {Data: module}}}).Get(t.Context(), Source{Ref: "builtin:a", Keys: s.Keys}); err != nil {
		t.Error(err)
	}
}

// TestOpenSSL: the signatures and keys are those of a tool that everybody has.
func TestOpenSSL(t *testing.T) {
	tool, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "p.wasm")
	if err := os.WriteFile(file, module, 0o600); err != nil {
		t.Fatal(err)
	}
	openssl := func(args ...string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), tool, args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
	}
	openssl("genpkey", "-algorithm", "ed25519", "-out", "key.pem")
	openssl("pkey", "-in", "key.pem", "-pubout", "-out", "public.pem")
	openssl("pkeyutl", "-sign", "-rawin", "-inkey", "key.pem", "-in", "p.wasm", "-out", "p.wasm.sig")
	text, err := os.ReadFile(filepath.Join(dir, "public.pem"))
	if err != nil {
		t.Fatal(err)
	}
	path := func(p string) string { return filepath.Join(dir, p) }
	for _, k := range []string{"public.pem", string(text), strings.Split(string(text), "\n")[1]} {
		keys, err := ReadKeys(k, path)
		if err != nil {
			t.Fatalf("%s: %v", k, err)
		}
		if _, err := (&Fetcher{}).Get(t.Context(), Source{Ref: file, Keys: keys}); err != nil {
			t.Errorf("%s: %v", k, err)
		}
	}
	openssl("genpkey", "-algorithm", "RSA", "-out", "rsa.pem")
	openssl("pkey", "-in", "rsa.pem", "-pubout", "-out", "rsa-public.pem")
	for k, want := range map[string]string{"rsa-public.pem": "Ed25519 is needed", "key.pem": "holds a private key", "none.pem": "no file", "AAAA": "no file"} {
		if _, err := ReadKeys(k, path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", k, err, want)
		}
	}
	_, public := signer(t)
	if keys, err := ParseKeys(base64.StdEncoding.EncodeToString(public)); err != nil || !keys[0].Equal(public) {
		t.Error(err)
	}
	two := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: func() []byte { b, _ := x509.MarshalPKIXPublicKey(public); return b }()})
	if keys, err := ParseKeys(string(two) + string(text)); err != nil || len(keys) != 2 {
		t.Error(len(keys), err)
	}
}

func TestLock(t *testing.T) {
	path := LockFile(filepath.Join(t.TempDir(), "weir.yaml"))
	if filepath.Base(path) != "weir.lock" {
		t.Fatal(path)
	}
	if l, err := ReadLock(path); l != nil || err != nil {
		t.Fatal(l, err)
	}
	m := &Module{Ref: "p.wasm", SHA256: sumOf(module), Bytes: module}
	want := &Lock{Version: 1, Plugins: []Locked{m.Lock("p", "p.wasm"), m.Lock("old", "old.wasm")}}
	if err := want.Write(path); err != nil {
		t.Fatal(err)
	}
	l, err := ReadLock(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := &Module{SHA256: sumOf([]byte("x")), Bytes: []byte("x")}
	for _, c := range []struct {
		name, ref string
		m         *Module
		want      string
	}{
		{"p", "p.wasm", m, ""},
		{"p", "p.wasm", changed, "the lock file has " + m.SHA256},
		{"p", "q.wasm", m, "the lock file has p.wasm"},
		{"q", "p.wasm", m, "is not in the lock"},
		{"b", "builtin:pii", changed, ""},
	} {
		if err := l.Check(c.name, c.ref, c.m); c.want == "" && err != nil {
			t.Error(err)
		} else if c.want != "" {
			fails(t, err, "wasm", c.want)
		}
	}
	var none *Lock // the guard off
	if err := none.Check("p", "p.wasm", changed); err != nil {
		t.Error(err)
	}
	if u := l.Unused([]string{"p"}); len(u) != 1 || u[0] != "old" {
		t.Error(u)
	}
	for _, text := range []string{
		``, `{}`, `{"version":2,"plugins":[]}`, `{"version":1,"plugins":[{"name":"p","sha256":"x"}]}`, `{"version":1,"more":1}`, `{"version":1,"plugins":[]}{}`,
		`{"version":1,"plugins":[{"name":"p","sha256":"` + m.SHA256 + `"},{"name":"p","sha256":"` + m.SHA256 + `"}]}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadLock(path); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}
