package credential

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// vaultServer answers as Vault's and OpenBao's API does, for a key-value engine of each version, and one with leases.
type vaultServer struct {
	*httptest.Server
	mu       sync.Mutex
	password string
	lasts    float64 // seconds of a lease
	renews   bool
	down     bool
	token    string
	made     int
	reads    atomic.Int64
	renewed  atomic.Int64
	revoked  []string
}

func (s *vaultServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	switch {
	case s.down:
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.Header.Get("X-Vault-Token") != s.token:
		w.WriteHeader(http.StatusForbidden)
		answer(map[string]any{"errors": []string{"permission denied " + r.Header.Get("X-Vault-Token")}})
	case r.URL.Path == "/v1/secret/data/orders":
		s.reads.Add(1)
		answer(map[string]any{"data": map[string]any{"data": map[string]any{"password": s.password, "n": 7}, "metadata": map[string]any{"version": 1}}})
	case r.URL.Path == "/v1/secret/data/gone":
		answer(map[string]any{"data": map[string]any{"data": nil, "metadata": map[string]any{"deletion_time": "now"}}})
	case r.URL.Path == "/v1/kv/orders":
		answer(map[string]any{"lease_duration": 2764800, "data": map[string]any{"password": s.password}})
	case r.URL.Path == "/v1/database/creds/orders":
		s.made++
		answer(map[string]any{"lease_id": fmt.Sprintf("lease-%d", s.made), "lease_duration": s.lasts, "renewable": true, "data": map[string]any{"username": fmt.Sprintf("v-%d", s.made), "password": s.password}})
	case r.URL.Path == "/v1/transit/keys/log":
		answer(map[string]any{"data": map[string]any{"type": "ed25519", "latest_version": 2, "keys": map[string]any{
			"1": map[string]any{"public_key": "short"}, "2": map[string]any{"public_key": base64.StdEncoding.EncodeToString(signs.Public().(ed25519.PublicKey))},
		}}})
	case r.URL.Path == "/v1/transit/keys/weir":
		answer(map[string]any{"data": map[string]any{"type": "aes256-gcm96", "latest_version": 1, "keys": map[string]any{"1": map[string]any{}}}})
	case r.URL.Path == "/v1/transit/sign/log" && body["key_version"] == 2.0:
		message, _ := base64.StdEncoding.DecodeString(fmt.Sprint(body["input"]))
		answer(map[string]any{"data": map[string]any{"signature": "vault:v2:" + base64.StdEncoding.EncodeToString(ed25519.Sign(signs, message))}})
	case r.Method == http.MethodPost && (r.URL.Path == "/v1/transit/encrypt/weir" || r.URL.Path == "/v1/transit/encrypt/other"):
		plain, _ := base64.StdEncoding.DecodeString(fmt.Sprint(body["plaintext"]))
		answer(map[string]any{"data": map[string]any{"ciphertext": "vault:v1:" + base64.StdEncoding.EncodeToString(turned(plain, path.Base(r.URL.Path)))}})
	case r.Method == http.MethodPost && (r.URL.Path == "/v1/transit/decrypt/weir" || r.URL.Path == "/v1/transit/decrypt/other"):
		sealed, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(fmt.Sprint(body["ciphertext"]), "vault:v1:"))
		plain := turned(sealed, path.Base(r.URL.Path))
		if err != nil || !bytes.HasSuffix(plain, []byte(path.Base(r.URL.Path))) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		answer(map[string]any{"data": map[string]any{"plaintext": base64.StdEncoding.EncodeToString(bytes.TrimSuffix(plain, []byte(path.Base(r.URL.Path))))}})
	case r.URL.Path == "/v1/sys/leases/renew" && s.renews:
		s.renewed.Add(1)
		answer(map[string]any{"lease_id": body["lease_id"], "lease_duration": s.lasts})
	case r.URL.Path == "/v1/sys/leases/renew":
		w.WriteHeader(http.StatusBadRequest)
	case r.URL.Path == "/v1/sys/leases/revoke":
		s.revoked = append(s.revoked, fmt.Sprint(body["lease_id"]))
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusNotFound)
		answer(map[string]any{"errors": []string{}})
	}
}

// signs is the key that the Vault signs with.
var signs = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// turned is a cipher for tests: it can be told whose key was used.
func turned(b []byte, key string) []byte {
	if !bytes.HasSuffix(xor(b, key), []byte(key)) { // in clear
		b = append(bytes.Clone(b), key...)
	}
	return xor(b, key)
}

func xor(b []byte, key string) []byte {
	b = bytes.Clone(b)
	for i := range b {
		b[i] ^= 0x80 | key[i%len(key)]
	}
	return b
}

func (s *vaultServer) set(f func()) { s.mu.Lock(); f(); s.mu.Unlock() }

type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

func vault(t *testing.T) (*vaultServer, *Vault, *clock) {
	t.Helper()
	s := &vaultServer{password: canary, token: "vault-t0ken", lasts: 3600, renews: true}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("vault-t0ken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	token, err := Parse("${file:"+path+"}", "")
	if err != nil {
		t.Fatal(err)
	}
	var c clock
	v, err := OpenVault(VaultConfig{Address: s.URL, Token: token, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close(context.Background()) })
	return s, v, &c
}

func source(t *testing.T, v *Vault, reference string) Source {
	t.Helper()
	s, err := v.Parse(reference, "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVaultReads(t *testing.T) {
	s, v, _ := vault(t)
	for reference, want := range map[string]string{
		"${vault:secret/data/orders#password}":   canary,
		"${vault:kv/orders#password}":            canary,
		"${vault:database/creds/orders#username": "a secret of Vault is",
		"${vault:secret/data/orders#n}":          "has no text",
		"${vault:secret/data/orders#other}":      "has no text",
		"${vault:secret/data/gone#password}":     "holds nothing, or was deleted",
		"${vault:secret/orders#password}":        "secret/data/NAME",
		"${vault:secret#password}":               "a secret of Vault is",
		"${vault:secret/data/orders}":            "a secret of Vault is",
		"${vault:secret/../sys/raw/x#password}":  "a secret of Vault is",
		"${vault:secret/data/x?version=1#p}":     "a secret of Vault is",
		"${vault:/sys/raw#p}":                    "a secret of Vault is",
	} {
		x, err := v.Parse(reference, "")
		got := ""
		if err == nil {
			got, err = x.Read(t.Context())
		}
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || err != nil && strings.Contains(got, canary) {
			t.Errorf("%s: %s", reference, got)
		}
		if x.kind != "" && strings.Contains(fmt.Sprintf("%v %+v %#v", x, x, x), canary) {
			t.Error("it is shown")
		}
	}
	var none *Vault
	if _, err := none.Parse("${vault:a/b#c}", ""); err == nil || !strings.Contains(err.Error(), "there is no Vault here") {
		t.Error(err)
	}
	if x := source(t, v, "${env:HOME}"); x.kind != "env" {
		t.Error("other references are lost")
	}
	s.set(func() { s.token = "another" })
	x := source(t, v, "${vault:kv/other#p}")
	if _, err := x.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "check the token") || strings.Contains(err.Error(), "vault-t0ken") {
		t.Error(err)
	}
}

// TestVaultRotates: under load, every reader gets a password that counts, a new one within a second, and Vault is not asked
// for each of them. With Vault down the last one counts for a bounded time; a no from Vault counts at once.
func TestVaultRotates(t *testing.T) {
	s, v, c := vault(t)
	x := source(t, v, "${vault:secret/data/orders#password}")
	var wg sync.WaitGroup
	var failed atomic.Int64
	stop := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if p, err := x.Read(t.Context()); err != nil || p != canary && p != "second" {
					failed.Add(1)
				}
				time.Sleep(100 * time.Microsecond)
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	s.set(func() { s.password = "second" })
	c.forward(vaultFresh)
	if p, err := x.Read(t.Context()); err != nil || p != "second" {
		t.Errorf("a second later: %q, %v", p, err)
	}
	close(stop)
	wg.Wait()
	if failed.Load() > 0 || s.reads.Load() > 4 {
		t.Errorf("%d reads failed; Vault was asked %d times", failed.Load(), s.reads.Load())
	}
	s.set(func() { s.down = true })
	c.forward(vaultStale - 2*time.Second)
	if p, err := x.Read(t.Context()); err != nil || p != "second" {
		t.Errorf("Vault is down: %q, %v", p, err)
	}
	c.forward(3 * time.Second)
	if _, err := x.Read(t.Context()); err == nil {
		t.Error("what Vault said long ago counts still")
	}
	s.set(func() { s.down = false })
	if _, err := x.Read(t.Context()); err != nil {
		t.Error(err)
	}
	s.set(func() { s.token = "taken back" })
	c.forward(vaultFresh)
	if _, err := x.Read(t.Context()); err == nil {
		t.Error("Vault's no does not count")
	}
}

// TestVaultLeases: user and password are of one lease; it is renewed, replaced when it cannot be, and given back.
func TestVaultLeases(t *testing.T) {
	s, v, _ := vault(t)
	s.set(func() { s.lasts = 0.6 })
	r := ByGroup(Login{source(t, v, "${vault:database/creds/orders#username}"), source(t, v, "${vault:database/creds/orders#password}")}, nil)
	first, err := r.Resolve(t.Context(), core.Identity{})
	if err != nil || first.User != "v-1" || first.Password != canary || !first.Rotates {
		t.Fatal(first.User, err)
	}
	time.Sleep(1500 * time.Millisecond) // more than twice its time
	if now, err := r.Resolve(t.Context(), core.Identity{}); err != nil || now.User != "v-1" || s.renewed.Load() < 2 {
		t.Errorf("%s, %v, renewed %d times", now.User, err, s.renewed.Load())
	}
	s.set(func() { s.renews = false }) // its longest time is over
	time.Sleep(700 * time.Millisecond)
	if now, err := r.Resolve(t.Context(), core.Identity{}); err != nil || now.User == "v-1" || r.User(t.Context(), core.Identity{}) != now.User {
		t.Errorf("not replaced: %s, %v", now.User, err)
	}
	s.set(func() { s.down = true })
	if _, err := r.Resolve(t.Context(), core.Identity{}); err != nil {
		t.Errorf("a lease that lasts does not count: %v", err)
	}
	time.Sleep(700 * time.Millisecond)
	if _, err := r.Resolve(t.Context(), core.Identity{}); err == nil {
		t.Error("a lease that is over counts")
	}
	s.set(func() { s.down, s.lasts = false, 3600 })
	now, err := r.Resolve(t.Context(), core.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if s.revoked[len(s.revoked)-1] != "lease-"+strings.TrimPrefix(now.User, "v-") {
		t.Errorf("given back: %v, of %s", s.revoked, now.User)
	}
}

// TestVaultIsVerified: not a byte of the token leaves before Vault has shown who it is. The control is the same server,
// trusted.
func TestVaultIsVerified(t *testing.T) {
	s := &vaultServer{password: canary, token: "vault-t0ken"}
	server := httptest.NewUnstartedServer(s)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		ca string
		ok bool
	}{"nobody vouches for it": {"", false}, "trusted (control)": {ca, true}} {
		v, err := OpenVault(VaultConfig{Address: server.URL, CA: tc.ca, Token: Plain("vault-t0ken")})
		if err != nil {
			t.Fatal(err)
		}
		before := s.reads.Load()
		p, err := source(t, v, "${vault:secret/data/orders#password}").Read(t.Context())
		if (err == nil) != tc.ok || tc.ok && p != canary {
			t.Errorf("%s: %v", name, err)
		}
		if !tc.ok && s.reads.Load() > before {
			t.Error("the token was sent")
		}
		_ = v.Close(t.Context())
	}
	for _, address := range []string{"http://vault.example:8200", "https://u:p@vault.example", "https://vault.example/v1", "vault.example", ""} {
		if _, err := OpenVault(VaultConfig{Address: address, Token: Plain("x")}); err == nil {
			t.Errorf("%q is taken", address)
		}
	}
	if _, err := OpenVault(VaultConfig{Address: "https://vault.example"}); err == nil {
		t.Error("no token is needed")
	}
}

// TestByGroup: the first group of the list that somebody is in decides; nobody of them gets the others' login.
func TestByGroup(t *testing.T) {
	r := ByGroup(Login{Plain("app"), Plain("p0")}, []GroupLogin{{"dba", Login{Plain("admin"), Plain("p1")}}, {"analysts", Login{Plain("reader"), Plain("p2")}}})
	for groups, want := range map[string]string{"": "app p0", "dba": "admin p1", "analysts": "reader p2", "analysts dba": "admin p1", "DBA": "app p0", "db": "app p0"} {
		id := core.Identity{Groups: strings.Fields(groups)}
		c, err := r.Resolve(t.Context(), id)
		if err != nil || c.User+" "+c.Password != want || r.User(t.Context(), id) != c.User {
			t.Errorf("%q: %s, %v", groups, c.User, err)
		}
	}
	if New("app", Plain("x")).User(t.Context(), core.Identity{}) != "" {
		t.Error("one login for all is no news")
	}
}
