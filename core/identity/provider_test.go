package identity

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/weir-gateway/weir/core"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	rsaKey   = sync.OnceValue(func() *rsa.PrivateKey { k, _ := rsa.GenerateKey(rand.Reader, 2048); return k })
	otherRSA = sync.OnceValue(func() *rsa.PrivateKey { k, _ := rsa.GenerateKey(rand.Reader, 2048); return k })
	weakRSA  = sync.OnceValue(func() *rsa.PrivateKey { k, _ := rsa.GenerateKey(rand.Reader, 1024); return k })
	ecKey    = sync.OnceValue(func() *ecdsa.PrivateKey { k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader); return k })
)

// idp is a real OpenID provider as far as a verifier can see: discovery and keys over HTTP.
type idp struct {
	*httptest.Server
	mux       http.Handler
	mu        sync.Mutex
	keys      []jose.JSONWebKey
	broken    bool
	jwks      string // overrides jwks_uri
	elsewhere string // what is wrong with the discovery document
	hits      atomic.Int64
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	s := &idp{keys: []jose.JSONWebKey{
		{Key: rsaKey().Public(), KeyID: "rsa", Use: "sig", Algorithm: "RS256"},
		{Key: ecKey().Public(), KeyID: "ec", Use: "sig"},
		{Key: weakRSA().Public(), KeyID: "weak"},
		{Key: rsaKey().Public(), KeyID: "enc", Use: "enc"},
		{Key: rsaKey().Public(), KeyID: "twin"},
		{Key: otherRSA().Public(), KeyID: "twin"},
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("/found", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": s.URL, "jwks_uri": s.URL + "/keys"})
	})
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.broken {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		issuer := s.URL
		switch s.elsewhere {
		case "redirect":
			http.Redirect(w, r, "/found", http.StatusFound)
			return
		case "other":
			issuer += "/other"
		case "long":
			_, _ = w.Write(bytes.Repeat([]byte{' '}, maxAnswer+1))
		}
		keys := s.URL + "/keys"
		if s.jwks != "" {
			keys = s.jwks
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": issuer, "jwks_uri": keys, "id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		s.hits.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.broken {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: s.keys})
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/keys", http.StatusFound) })
	s.mux = mux
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// secure serves the same over TLS, with a certificate of nobody, under an issuer of its own.
func (s *idp) secure(t *testing.T) *httptest.Server {
	t.Helper()
	var own *httptest.Server
	mux := http.NewServeMux()
	mux.Handle("/keys", s.mux)
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": own.URL, "jwks_uri": own.URL + "/keys"})
	})
	own = httptest.NewUnstartedServer(mux)
	own.Config.ErrorLog = log.New(io.Discard, "", 0)
	own.StartTLS()
	t.Cleanup(own.Close)
	return own
}

func (s *idp) set(f func()) { s.mu.Lock(); f(); s.mu.Unlock() }

func (s *idp) claims(now time.Time) map[string]any {
	return map[string]any{
		"iss": s.URL, "sub": "ada", "aud": "weir", "groups": []string{"analysts", "a,b"}, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"email": "ada@example.org",
	}
}

func verifier(t *testing.T, s *idp, now func() time.Time) *Verifier {
	t.Helper()
	c := client()
	t.Cleanup(c.CloseIdleConnections)
	t.Cleanup(func() { c.Transport.(bounded).next.(*http.Transport).CloseIdleConnections() })
	v, err := New(t.Context(), Config{Providers: []Provider{{Name: "test", Issuer: s.URL, Audience: "weir"}}, HTTP: c, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func enc(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// forge makes a token out of any header and payload: sign may do as it likes.
func forge(header, payload string, sign func(input []byte) []byte) string {
	in := enc([]byte(header)) + "." + enc([]byte(payload))
	return in + "." + enc(sign([]byte(in)))
}

func rs256(key *rsa.PrivateKey) func([]byte) []byte {
	return func(in []byte) []byte {
		sum := sha256.Sum256(in)
		sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			panic(err)
		}
		return sig
	}
}

func object2(claims map[string]any) string {
	b, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return string(b)
}

const good = `{"alg":"RS256","kid":"rsa","typ":"JWT"}`

func TestProviderAccepts(t *testing.T) {
	s := newIDP(t)
	now := time.Now()
	v := verifier(t, s, nil)
	with := func(more map[string]any) map[string]any {
		c := s.claims(now)
		maps.Copy(c, more)
		return c
	}
	for name, tc := range map[string]struct {
		claims map[string]any
		kind   string
		groups string
	}{
		"plain":           {with(nil), "human", "[analysts a,b]"},
		"audiences":       {with(map[string]any{"aud": []string{"x", "weir"}, "azp": "weir"}), "human", "[analysts a,b]"},
		"one group":       {with(map[string]any{"groups": "dba"}), "human", "[dba]"},
		"no groups":       {with(map[string]any{"groups": nil}), "human", "[]"},
		"client":          {with(map[string]any{"client_id": "ada"}), "service", "[analysts a,b]"},
		"expired by 59 s": {with(map[string]any{"exp": now.Add(-59 * time.Second).Unix()}), "human", "[analysts a,b]"},
		"early by 59 s":   {with(map[string]any{"nbf": now.Add(59 * time.Second).Unix()}), "human", "[analysts a,b]"},
		"large":           {with(map[string]any{"pad": strings.Repeat("x", 40<<10)}), "human", "[analysts a,b]"},
	} {
		t.Run(name, func(t *testing.T) {
			id, err := v.Verify(t.Context(), forge(good, object2(tc.claims), rs256(rsaKey())))
			if err != nil || id.Subject != "ada" || id.Issuer != s.URL || id.Kind != tc.kind || fmt.Sprint(id.Groups) != tc.groups {
				t.Fatalf("got %+v, %v", id, err)
			}
			if id.Claims["email"] != "ada@example.org" || id.Claims["exp"] != nil {
				t.Errorf("claims = %v", id.Claims)
			}
		})
	}
	if n := s.hits.Load(); n != 1 {
		t.Errorf("%d fetches of the keys, want 1", n)
	}
}

func TestProviderRefuses(t *testing.T) {
	s, foreign := newIDP(t), newIDP(t)
	now := time.Now()
	v := verifier(t, s, func() time.Time { return now })
	base := object2(s.claims(now))
	with := func(more map[string]any, without ...string) string {
		c := s.claims(now)
		maps.Copy(c, more)
		for _, k := range without {
			delete(c, k)
		}
		return object2(c)
	}
	signed := func(header, payload string) string { return forge(header, payload, rs256(rsaKey())) }
	public, _ := x509.MarshalPKIXPublicKey(rsaKey().Public())
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	hs256 := func(key []byte) func([]byte) []byte {
		return func(in []byte) []byte { m := hmac.New(sha256.New, key); m.Write(in); return m.Sum(nil) }
	}
	none := func([]byte) []byte { return nil }
	es256 := func(in []byte) []byte {
		sum := sha256.Sum256(in)
		r, s, err := ecdsa.Sign(rand.Reader, ecKey(), sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
	jwk, _ := json.Marshal(jose.JSONWebKey{Key: otherRSA().Public(), KeyID: "mine"})
	many := make([]string, 10_000)
	for i := range many {
		many[i] = "g"
	}
	for _, tc := range []struct{ name, token, reason, twin string }{
		{"empty", "", "no-token", ""},
		{"garbage", "garbage", "malformed", ""},
		{"three dots", "a.b.c.d", "malformed", ""},
		{"not base64", "!.!.!", "malformed", ""},
		{"padded base64", strings.Replace(signed(good, base), ".", "=.", 1), "malformed", ""},
		{"JWE", strings.Repeat("e30.", 4) + "e30", "malformed", ""},
		{"1 MB", strings.Repeat("x", 1<<20), "too-large", ""},
		{"64 KiB and one", strings.Repeat("x", 65537), "too-large", ""},
		{"alg none", forge(`{"alg":"none"}`, base, none), "algorithm", ""},
		{"alg None", forge(`{"alg":"None"}`, base, none), "algorithm", ""},
		{"alg nOnE", forge(`{"alg":"nOnE","kid":"rsa"}`, base, none), "algorithm", ""},
		{"no alg", forge(`{"kid":"rsa"}`, base, none), "algorithm", ""},
		{"unknown alg", signed(`{"alg":"RS257","kid":"rsa"}`, base), "algorithm", ""},
		{"alg of a wrong type", forge(`{"alg":1}`, base, none), "algorithm", ""},
		{"HS256 with the public key, PEM", forge(`{"alg":"HS256","kid":"rsa"}`, base, hs256(publicPEM)), "algorithm", ""},
		{"HS256 with the public key, DER", forge(`{"alg":"HS256","kid":"rsa"}`, base, hs256(public)), "algorithm", ""},
		{"HS256 with an empty key", forge(`{"alg":"HS256","kid":"rsa"}`, base, hs256(nil)), "algorithm", ""},
		{"alg of another key", signed(`{"alg":"PS256","kid":"rsa"}`, base), "key", ""},
		{"alg of another kind of key", signed(`{"alg":"RS256","kid":"ec"}`, base), "signature", forge(`{"alg":"ES256","kid":"ec"}`, base, es256)},
		{"psychic ES256", forge(`{"alg":"ES256","kid":"ec"}`, base, func([]byte) []byte { return make([]byte, 64) }), "signature", forge(`{"alg":"ES256","kid":"ec"}`, base, es256)},
		{"no signature", forge(good, base, none), "signature", ""},
		{"signature of another key", forge(good, base, rs256(otherRSA())), "signature", ""},
		{"signature of another text", swapPayload(signed(good, base), with(map[string]any{"sub": "root"})), "signature", signed(good, with(map[string]any{"sub": "root"}))},
		{"weak key", forge(`{"alg":"RS256","kid":"weak"}`, base, rs256(weakRSA())), "key", ""},
		{"encryption key", signed(`{"alg":"RS256","kid":"enc"}`, base), "key", ""},
		{"two keys of one id", signed(`{"alg":"RS256","kid":"twin"}`, base), "key", ""},
		{"no kid", signed(`{"alg":"RS256"}`, base), "key", ""},
		{"unknown kid", signed(`{"alg":"RS256","kid":"other"}`, base), "key", ""},
		{"kid as a path", signed(`{"alg":"RS256","kid":"../../etc/passwd"}`, base), "key", ""},
		{"kid as SQL", signed(`{"alg":"RS256","kid":"' or 1=1 --"}`, base), "key", ""},
		{"crit", signed(`{"alg":"RS256","kid":"rsa","crit":["x"],"x":1}`, base), "header", ""},
		{"jku", signed(`{"alg":"RS256","kid":"rsa","jku":"https://evil.example/keys"}`, base), "header", ""},
		{"x5u", signed(`{"alg":"RS256","kid":"rsa","x5u":"https://evil.example/cert"}`, base), "header", ""},
		{"x5c", signed(`{"alg":"RS256","kid":"rsa","x5c":["AA"]}`, base), "header", ""},
		{"jwk", forge(`{"alg":"RS256","kid":"mine","jwk":`+string(jwk)+`}`, base, rs256(otherRSA())), "header", ""},
		{"key twice in the header", signed(`{"alg":"RS256","alg":"none","kid":"rsa"}`, base), "malformed", ""},
		{"key twice in the claims", signed(good, strings.Replace(base, `{`, `{"sub":"root",`, 1)), "malformed", ""},
		{"two objects", signed(good, base+base), "malformed", ""},
		{"claims are a list", signed(good, "["+base+"]"), "malformed", ""},
		{"issuer of another", signed(good, with(map[string]any{"iss": foreign.URL})), "issuer", ""},
		{"issuer with a slash", signed(good, with(map[string]any{"iss": s.URL + "/"})), "issuer", ""},
		{"issuer in capitals", signed(good, with(map[string]any{"iss": strings.ToUpper(s.URL)})), "issuer", ""},
		{"issuer https", signed(good, with(map[string]any{"iss": strings.Replace(s.URL, "http", "https", 1)})), "issuer", ""},
		{"no issuer", signed(good, with(nil, "iss")), "issuer", ""},
		{"issuer a list", signed(good, with(map[string]any{"iss": []string{s.URL}})), "issuer", ""},
		{"issuer weir", signed(good, with(map[string]any{"iss": "weir"})), "issuer", ""},
		{"no audience", signed(good, with(nil, "aud")), "audience", ""},
		{"other audience", signed(good, with(map[string]any{"aud": "other"})), "audience", ""},
		{"other audiences", signed(good, with(map[string]any{"aud": []string{"a", "b"}})), "audience", signed(good, with(map[string]any{"aud": []string{"a", "weir"}, "azp": "weir"}))},
		{"audience as part of a text", signed(good, with(map[string]any{"aud": "weir other"})), "audience", signed(good, with(map[string]any{"aud": []string{"weir"}}))},
		{"audience of a wrong type", signed(good, with(map[string]any{"aud": map[string]any{"weir": 1}})), "audience", ""},
		{"other party", signed(good, with(map[string]any{"aud": []string{"a", "weir"}, "azp": "a"})), "party", signed(good, with(map[string]any{"aud": []string{"a", "weir"}, "azp": "weir"}))},
		{"expired by 61 s", signed(good, with(map[string]any{"exp": now.Add(-61 * time.Second).Unix()})), "expired", signed(good, with(map[string]any{"exp": now.Add(-59 * time.Second).Unix()}))},
		{"no expiry", signed(good, with(nil, "exp")), "expiry", ""},
		{"expiry a text", signed(good, with(map[string]any{"exp": "4102444800"})), "expiry", signed(good, with(map[string]any{"exp": 4102444800}))},
		{"expiry in milliseconds", signed(good, with(map[string]any{"exp": now.UnixMilli()})), "expiry", signed(good, with(map[string]any{"exp": now.Unix() + 3600}))},
		{"expiry negative", signed(good, with(map[string]any{"exp": -1})), "expiry", ""},
		{"expiry null", signed(good, with(map[string]any{"exp": nil})), "expiry", ""},
		{"early by 61 s", signed(good, with(map[string]any{"nbf": now.Add(61 * time.Second).Unix()})), "early", signed(good, with(map[string]any{"nbf": now.Add(59 * time.Second).Unix()}))},
		{"issued in the future", signed(good, with(map[string]any{"iat": now.Add(61 * time.Second).Unix()})), "early", signed(good, with(map[string]any{"iat": now.Add(59 * time.Second).Unix()}))},
		{"nbf a text", signed(good, with(map[string]any{"nbf": "now"})), "malformed", signed(good, with(map[string]any{"nbf": now.Unix()}))},
		{"no subject", signed(good, with(nil, "sub")), "subject", ""},
		{"empty subject", signed(good, with(map[string]any{"sub": ""})), "subject", ""},
		{"subject a number", signed(good, with(map[string]any{"sub": 7})), "subject", ""},
		{"long subject", signed(good, with(map[string]any{"sub": strings.Repeat("a", 513)})), "subject", signed(good, with(map[string]any{"sub": strings.Repeat("a", 512)}))},
		{"groups elsewhere", signed(good, with(map[string]any{"_claim_names": map[string]any{"groups": "src1"}, "_claim_sources": map[string]any{"src1": map[string]any{"endpoint": "https://x.example"}}}, "groups")), "groups", signed(good, with(map[string]any{"_claim_names": map[string]any{"address": "src1"}, "_claim_sources": map[string]any{"src1": map[string]any{"endpoint": "https://x.example"}}}))},
		{"too many groups", signed(good, with(map[string]any{"groups": many})), "groups", signed(good, with(map[string]any{"groups": many[:1000]}))},
		{"groups of a wrong type", signed(good, with(map[string]any{"groups": []any{1}})), "groups", signed(good, with(map[string]any{"groups": []any{"1"}}))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id, err := v.Verify(t.Context(), tc.token)
			var r *Refusal
			if !errors.As(err, &r) || !errors.Is(err, core.ErrUnauthenticated) {
				t.Fatalf("got %+v, %v", id, err)
			}
			if r.Reason() != tc.reason {
				t.Errorf("reason %q (%v), want %q", r.Reason(), err, tc.reason)
			}
			if id.Subject != "" || (len(tc.token) > 20 && strings.Contains(err.Error(), tc.token[len(tc.token)-20:])) {
				t.Errorf("shows too much: %+v, %v", id, err)
			}
			// The twin differs only in what is wrong, so that the refusal is for nothing else.
			if _, err := v.Verify(t.Context(), cmp.Or(tc.twin, signed(good, base))); err != nil {
				t.Errorf("the twin is refused as well: %v", err)
			}
		})
	}
	if n := s.hits.Load(); n != 1 {
		t.Errorf("%d fetches of the keys, want 1", n)
	}
}

func swapPayload(token, payload string) string {
	p := strings.Split(token, ".")
	return p[0] + "." + enc([]byte(payload)) + "." + p[2]
}

// clock is a time that tests move.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func TestKeysRotate(t *testing.T) {
	s := newIDP(t)
	var c clock
	c.at.Store(time.Now().UnixNano())
	v := verifier(t, s, c.now)
	claims := s.claims(c.now())
	claims["exp"] = c.now().Add(72 * time.Hour).Unix()
	old := forge(good, object2(claims), rs256(rsaKey()))
	fresh := forge(`{"alg":"RS256","kid":"next"}`, object2(claims), rs256(otherRSA()))
	want := func(step, token string, ok bool, hits int64) {
		t.Helper()
		_, err := v.Verify(t.Context(), token)
		if (err == nil) != ok {
			t.Errorf("%s: %v", step, err)
		}
		if n := s.hits.Load(); n != hits {
			t.Errorf("%s: %d fetches, want %d", step, n, hits)
		}
	}
	want("first", old, true, 1)
	s.set(func() { s.keys = []jose.JSONWebKey{{Key: otherRSA().Public(), KeyID: "next"}} })
	want("new key at once", fresh, false, 1)
	c.advance(31 * time.Second)
	want("new key after 30 s", fresh, true, 2)
	want("removed key, seen to be gone", old, false, 2)

	s.set(func() { s.broken = true })
	c.advance(6 * time.Minute)
	want("provider down", fresh, true, 3)
	c.advance(23 * time.Hour)
	want("provider down for 23 h", fresh, true, 3) // rediscovery fails before the keys are asked
	c.advance(time.Hour)
	want("provider down for 24 h", fresh, false, 3)
	s.set(func() { s.broken = false })
	c.advance(time.Minute)
	want("provider back", fresh, true, 4)
	s.set(func() { s.keys = s.keys[:0] })
	c.advance(removedBy + time.Second)
	want("an empty key set is no key set", fresh, true, 5)
}

func TestUnknownKeyFlood(t *testing.T) {
	s := newIDP(t)
	v := verifier(t, s, nil)
	claims := object2(s.claims(time.Now()))
	var wg sync.WaitGroup
	for w := range 20 {
		wg.Go(func() {
			for i := range 50 {
				token := forge(fmt.Sprintf(`{"alg":"RS256","kid":"k%d-%d"}`, w, i), claims, func([]byte) []byte { return make([]byte, 256) })
				if _, err := v.Verify(t.Context(), token); err == nil {
					t.Error("accepted")
				}
			}
		})
	}
	wg.Wait()
	if n := s.hits.Load(); n != 1 {
		t.Errorf("1000 unknown keys caused %d fetches, want 1", n)
	}
	if _, err := v.Verify(t.Context(), forge(good, claims, rs256(rsaKey()))); err != nil {
		t.Errorf("after the flood: %v", err)
	}
}

func TestProviderUnreachable(t *testing.T) {
	for name, breakIt := range map[string]func(*idp){
		"down":                     func(s *idp) { s.broken = true },
		"redirect":                 func(s *idp) { s.jwks = s.URL + "/moved" },
		"jwks http":                func(s *idp) { s.jwks = "http://keys.example/keys" },
		"jwks file":                func(s *idp) { s.jwks = "file:///etc/passwd" },
		"only unfit":               func(s *idp) { s.keys = s.keys[2:4] },
		"no keys":                  func(s *idp) { s.keys = nil },
		"discovery elsewhere":      func(s *idp) { s.elsewhere = "redirect" },
		"discovery of another":     func(s *idp) { s.elsewhere = "other" },
		"discovery without an end": func(s *idp) { s.elsewhere = "long" },
		"not a proof":              func(s *idp) { s.jwks = s.URL + "/nothing" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newIDP(t)
			s.set(func() { breakIt(s) })
			v := verifier(t, s, nil) // starts all the same
			_, err := v.Verify(t.Context(), forge(good, object2(s.claims(time.Now())), rs256(rsaKey())))
			var r *Refusal
			if !errors.As(err, &r) || r.Reason() != "provider" {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzVerify(f *testing.F) {
	i, err := OpenIssuer(f.TempDir(), 0)
	if err != nil {
		f.Fatal(err)
	}
	made, err := i.Issue(Grant{Subject: "ada"})
	if err != nil {
		f.Fatal(err)
	}
	token := made.Token
	f.Add(token)
	f.Add("e30.e30.")
	f.Add(forge(`{"alg":"EdDSA"}`, `{"iss":"weir"}`, func([]byte) []byte { return make([]byte, ed25519.SignatureSize) }))
	v, err := New(f.Context(), Config{Service: i})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := v.Verify(t.Context(), s)
		if err == nil && s != token {
			t.Fatalf("accepted %q as %+v", s, id)
		}
		if err != nil && !errors.Is(err, core.ErrUnauthenticated) {
			t.Fatal(err)
		}
	})
}
