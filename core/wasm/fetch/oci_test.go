package fetch

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/weir-gateway/weir/core/download"
)

// distribution runs Debian's docker-registry on a free port of loopback.
func distribution(t *testing.T) (address, storage string) {
	t.Helper()
	tool, err := exec.LookPath("docker-registry")
	if err != nil && os.Getenv("CI") != "" { // under the lock of whoever else installs something
		c := exec.CommandContext(t.Context(), "flock", filepath.Join(os.TempDir(), "weir-apt-get.lock"), "sh", "-c",
			"apt-get update -q && apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=120 docker-registry")
		c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("docker-registry cannot be installed: %v\n%s", err, out)
		}
		tool, err = exec.LookPath("docker-registry")
	}
	if err != nil {
		t.Skip("there is no registry: as root, apt-get install docker-registry")
	}
	dir := t.TempDir()
	storage = filepath.Join(dir, "storage")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	_ = l.Close()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", storage, address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	c := exec.Command(tool, "serve", config)
	c.Stdout, c.Stderr = &log, &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	for range 500 {
		if a, err := http.Get("http://" + address + "/v2/"); err == nil {
			_ = a.Body.Close()
			return address, storage
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the registry does not start:\n%s", log.String())
	return "", ""
}

type layer struct {
	media string
	b     []byte
}

// push puts an artifact there, as `oras push` does, and returns its manifest's digest.
func push(t *testing.T, repo *remote.Repository, tag string, layers ...layer) string {
	t.Helper()
	blob := func(media string, b []byte) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: media, Digest: digest.FromBytes(b), Size: int64(len(b))}
		if err := repo.Blobs().Push(t.Context(), d, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: blob(ocispec.MediaTypeEmptyJSON, []byte("{}"))}
	for _, l := range layers {
		m.Layers = append(m.Layers, blob(l.media, l.b))
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	d := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if err := repo.Manifests().PushReference(t.Context(), d, bytes.NewReader(b), tag); err != nil {
		t.Fatal(err)
	}
	return d.Digest.String()
}

// TestRegistry pulls from a real registry.
func TestRegistry(t *testing.T) {
	address, storage := distribution(t)
	repo, err := remote.NewRepository(address + "/plugins/mine")
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	repo.Client = &auth.Client{Client: download.Client}
	key, public := signer(t)
	wasm := layer{"application/wasm", module}
	base := "oci://" + address + "/plugins/mine"
	one := push(t, repo, "v1", wasm)
	signed := push(t, repo, "v2", wasm, layer{SignatureType, ed25519.Sign(key, module)})
	wrong := push(t, repo, "v3", wasm, layer{SignatureType, ed25519.Sign(key, []byte("another"))})
	two := push(t, repo, "two", wasm, layer{"application/wasm", []byte("another")})
	large := push(t, repo, "large", layer{"application/wasm", make([]byte, maxModule+1)})
	none := push(t, repo, "none")
	keys := []ed25519.PublicKey{public}
	f := &Fetcher{}
	for _, c := range []struct {
		name string
		s    Source
		part string
		want string
	}{
		{"by digest", Source{Ref: base + "@" + one}, "", ""},
		{"by tag and digest", Source{Ref: base + ":v1@" + one}, "", ""},
		{"the module's digest as well", Source{Ref: base + "@" + one, SHA256: sumOf(module)}, "", ""},
		{"another module's", Source{Ref: base + "@" + one, SHA256: strings.Repeat("0", 64)}, "sha256", "not 000"},
		{"signed", Source{Ref: base + "@" + signed, Keys: keys}, "", ""},
		{"unsigned", Source{Ref: base + "@" + one, Keys: keys}, "public_keys", "is not signed"},
		{"wrongly signed", Source{Ref: base + "@" + wrong, Keys: keys}, "public_keys", "of another module"},
		{"a tag only", Source{Ref: base + ":v1"}, "wasm", "is not pinned"},
		{"not there", Source{Ref: base + "@sha256:" + strings.Repeat("0", 64)}, "wasm", "not found"},
		{"two modules", Source{Ref: base + "@" + two}, "wasm", "more than one layer"},
		{"too large", Source{Ref: base + "@" + large}, "wasm", "at most"},
		{"no module", Source{Ref: base + "@" + none}, "wasm", "no layer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := f.Get(t.Context(), c.s)
			if c.part != "" {
				fails(t, err, c.part, c.want)
			} else if err != nil || !bytes.Equal(m.Bytes, module) {
				t.Error(err)
			}
		})
	}
	look := &Fetcher{Unpinned: true}
	if m, err := look.Get(t.Context(), Source{Ref: base + ":v2"}); err != nil || m.Ref != base+":v2@"+signed {
		t.Errorf("%+v %v", m, err)
	}
	// Kept: the registry may go, and may not lie.
	kept := &Fetcher{Dir: filepath.Join(t.TempDir(), "plugins")}
	s := Source{Ref: base + "@" + signed, Keys: keys}
	if _, err := kept.Get(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(storage, "docker/registry/v2/blobs/sha256", sumOf(module)[:2], sumOf(module), "data")
	if err := os.WriteFile(blob, bytes.Replace(module, []byte("meant"), []byte("MEANT"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Get(t.Context(), s); err == nil {
		t.Error("a layer that was changed in the registry has been taken")
	}
	if m, err := kept.Get(t.Context(), s); err != nil || !bytes.Equal(m.Bytes, module) {
		t.Error(err)
	}
}

// TestRegistrySignIn: a registry's way to a token is followed with the credential, and to https or loopback only.
func TestRegistrySignIn(t *testing.T) {
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:%s","size":2},"layers":[{"mediaType":"application/wasm","digest":"sha256:%s","size":%d}]}`,
		ocispec.MediaTypeImageManifest, sumOf([]byte("{}")), sumOf(module), len(module))
	realm := "/token"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + l.Addr().String()
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			if user, password, _ := r.BasicAuth(); user+":"+password != "weir:c4n4ry" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			fmt.Fprint(w, `{"token":"t0ken"}`)
		case r.Header.Get("Authorization") != "Bearer t0ken":
			to := realm
			if strings.HasPrefix(to, "/") {
				to = base + to
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="r",scope="repository:p:pull"`, to))
			w.WriteHeader(http.StatusUnauthorized)
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			fmt.Fprint(w, manifest)
		default:
			_, _ = w.Write(module)
		}
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Shutdown(context.Background()) })
	s := Source{Ref: "oci://" + l.Addr().String() + "/p@sha256:" + sumOf([]byte(manifest)), User: "weir", Password: "c4n4ry"}
	f := &Fetcher{}
	if m, err := f.Get(t.Context(), s); err != nil || !bytes.Equal(m.Bytes, module) {
		t.Fatal(err)
	}
	anonymous := s
	anonymous.User, anonymous.Password = "", ""
	if _, err := f.Get(t.Context(), anonymous); err == nil {
		t.Error("nobody was let in")
	}
	realm = "http://plugins.example/token"
	_, err = f.Get(t.Context(), s)
	fails(t, err, "wasm", "is not https")
	if strings.Contains(err.Error(), "c4n4ry") {
		t.Errorf("it tells the password: %v", err)
	}
	realm, manifest = "/token", manifest+" "
	if _, err := f.Get(t.Context(), s); err == nil {
		t.Error("a manifest that is not what its digest says has been taken")
	}
}
