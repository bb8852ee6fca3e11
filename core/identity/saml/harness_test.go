package saml

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core/identity"
)

func newJetStream(t testing.TB) jetstream.JetStream {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("no server")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	conn, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// bench is a sign-in address, a provider that is forged, and a browser between them.
type bench struct {
	t       testing.TB
	key     *pair
	js      jetstream.JetStream
	issuer  *identity.Issuer
	service *Service
	server  *httptest.Server
	file    string // the provider's metadata
	log     bytes.Buffer

	mu      sync.Mutex
	refused []error
}

func newBench(t testing.TB, change ...func(*Config, *Provider)) *bench {
	t.Helper()
	b := &bench{t: t, key: newPair(t, 2048, time.Now().Add(time.Hour)), js: newJetStream(t), file: filepath.Join(t.TempDir(), "idp.xml")}
	b.publish(metadataXML("https://idp.example/sso", time.Time{}, b.key))
	var err error
	if b.issuer, err = identity.OpenIssuer(t.TempDir(), 0); err != nil {
		t.Fatal(err)
	}
	b.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { b.service.ServeHTTP(w, r) }))
	t.Cleanup(b.server.Close)
	b.service = b.gateway(change...)
	return b
}

// gateway is one of those that share the sign-in address.
func (b *bench) gateway(change ...func(*Config, *Provider)) *Service {
	b.t.Helper()
	p := Provider{Name: "sso", Metadata: b.file, Groups: "groups"}
	c := Config{
		URL: b.server.URL, Signer: b.issuer, Secret: b.issuer.Secret("saml"), JetStream: b.js,
		Log: slog.New(slog.NewTextHandler(&b.log, nil)),
		Refused: func(_ *http.Request, err error) {
			b.mu.Lock()
			b.refused = append(b.refused, err)
			b.mu.Unlock()
		},
	}
	for _, f := range change {
		f(&c, &p)
	}
	c.Providers = []Provider{p}
	s, err := New(c)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *bench) publish(text string) {
	b.t.Helper()
	if err := os.WriteFile(b.file, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	when := time.Now().Add(time.Duration(len(b.log.String())) * time.Millisecond) // never the same twice
	_ = os.Chtimes(b.file, when, when)
}

func (b *bench) provider() *provider { return b.service.providers["sso"] }

const verifier = "a-verifier-that-only-the-program-knows-0123456789"

func challengeOf(v string) string {
	sum := sha256.Sum256([]byte(v))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// begin begins a sign-in as weir login does, and returns the ID of the request that reaches the provider.
func (b *bench) begin() string {
	b.t.Helper()
	return b.provider().seal(&request{challenge: sha256.Sum256([]byte(verifier)), port: 0, expires: time.Now().Add(signInTime)})
}

// honest is what the provider answers to a new sign-in.
func (b *bench) honest() *forge {
	p := b.provider()
	return honest(b.key, p.acs.String(), p.EntityID, b.begin())
}

var codeShape = regexp.MustCompile(`<code id="code">([A-Za-z0-9_-]+)</code>`)

// post carries a response to the gateway, and returns the code that the page shows.
func (b *bench) post(form url.Values) (status int, code, page string) {
	b.t.Helper()
	res, err := http.PostForm(b.provider().acs.String(), form)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	if m := codeShape.FindSubmatch(text); m != nil {
		code = string(m[1])
	}
	return res.StatusCode, code, string(text)
}

func formOf(xml string) url.Values {
	return url.Values{"SAMLResponse": {base64.StdEncoding.EncodeToString([]byte(xml))}}
}

// reason is the word by which the last refusal is counted.
func (b *bench) reason() (word, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.refused) == 0 {
		return "", ""
	}
	err := b.refused[len(b.refused)-1]
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason(), err.Error()
	}
	return "error", err.Error()
}

// fetch exchanges a code for its token.
func (b *bench) fetch(code, verifier string) (int, Fetched) {
	b.t.Helper()
	body, _ := json.Marshal(map[string]string{"code": code, "verifier": verifier})
	res, err := http.Post(b.server.URL+"/saml/sso/token", "application/json", bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	var f Fetched
	_ = json.NewDecoder(res.Body).Decode(&f)
	return res.StatusCode, f
}

// accepts signs in with a response, and returns who the gateway takes the token's holder for.
func (b *bench) accepts(xml string) string {
	b.t.Helper()
	status, code, page := b.post(formOf(xml))
	if status != http.StatusOK || code == "" {
		_, why := b.reason()
		b.t.Fatalf("refused: %d %s\n%s", status, why, page)
	}
	status, got := b.fetch(code, verifier)
	if status != http.StatusOK {
		_, why := b.reason()
		b.t.Fatalf("no token: %d %s", status, why)
	}
	v, err := identity.New(context.Background(), identity.Config{Service: b.issuer})
	if err != nil {
		b.t.Fatal(err)
	}
	id, err := v.Verify(context.Background(), got.Token)
	if err != nil {
		b.t.Fatal(err)
	}
	return id.Subject + " of " + id.Issuer + " (" + id.Kind + ") in " + strings.Join(id.Groups, ",")
}

const ada = "ada@example.com of " + idpEntity + " (human) in analysts,dba"
