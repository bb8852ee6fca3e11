package signin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core/identity/idptest"
)

func provider(t *testing.T) *idptest.IDP {
	t.Helper()
	p, err := idptest.Start(t.Context(), time.Hour)
	if errors.Is(err, idptest.ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// TestRealProvider: the whole life of a sign-in with a provider that is not ours.
func TestRealProvider(t *testing.T) {
	p := provider(t)
	c := &Client{Issuer: p.URL, ClientID: "weir", Scopes: []string{"openid", "email", "offline_access"}, Pause: 50 * time.Millisecond}
	d, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		time.Sleep(200 * time.Millisecond) // so that it has to be asked more than once
		if err := p.Approve(d.Shorter, "ada"); err != nil {
			t.Error(err)
		}
	}()
	tokens, err := d.Wait(t.Context())
	if err != nil || tokens.Refresh == "" {
		t.Fatal(err)
	}
	token, expires, err := tokens.For("weir")
	if err != nil || time.Until(expires) < 50*time.Minute {
		t.Fatal(expires, err)
	}
	if claims, err := Claims(token); err != nil || claims["sub"] != "ada" || fmt.Sprint(claims["groups"]) != "[analysts dba]" {
		t.Errorf("%v, %v", claims, err)
	}
	if _, _, err := tokens.For("elsewhere"); err == nil {
		t.Error("a token for somebody else is taken")
	}
	next, err := c.Renew(t.Context(), tokens.Refresh)
	if err != nil || next.ID == "" || next.Refresh == tokens.Refresh {
		t.Fatalf("renewed: %v, with an ID token: %v", err, next.ID != "")
	}
	if err := c.End(t.Context(), next.Refresh); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Renew(t.Context(), next.Refresh); !errors.Is(err, ErrAgain) {
		t.Errorf("a sign-in that was ended goes on: %v", err)
	}
	if d, err = c.Begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Refuse(d.Shorter, "ada"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "was refused") {
		t.Errorf("refused: %v", err)
	}
	if _, err := (&Client{Issuer: p.URL, ClientID: "nobody"}).Begin(t.Context()); err == nil || !strings.Contains(err.Error(), "invalid_client") {
		t.Errorf("an unknown client: %v", err)
	}
}

// stub is a provider that says what a test wants.
type stub struct {
	*httptest.Server
	document map[string]any
	device   map[string]any
	answers  []func(w http.ResponseWriter)
	asked    atomic.Int64
}

func newStub(t *testing.T) *stub {
	s := &stub{}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(s.document) })
	mux.HandleFunc("/device", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(s.device) })
	mux.HandleFunc("/token", func(w http.ResponseWriter, _ *http.Request) {
		n := int(s.asked.Add(1)) - 1
		s.answers[min(n, len(s.answers)-1)](w)
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	s.document = map[string]any{"issuer": s.URL, "device_authorization_endpoint": s.URL + "/device", "token_endpoint": s.URL + "/token"}
	s.device = map[string]any{"device_code": "secret-code", "user_code": "AB-CD", "verification_uri": s.URL + "/page", "expires_in": 60}
	return s
}

func says(status int, code string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.WriteHeader(status); fmt.Fprintf(w, `{"error":%q}`, code) }
}

func gives(w http.ResponseWriter) { fmt.Fprint(w, `{"id_token":"a.b.c","refresh_token":"r"}`) }

// TestPolling: what a provider may answer while it is asked.
func TestPolling(t *testing.T) {
	pending, broken := says(400, "authorization_pending"), says(502, "")
	for name, tc := range map[string]struct {
		answers []func(http.ResponseWriter)
		want    string
		asked   int64
	}{
		"pending":         {[]func(http.ResponseWriter){pending, pending, gives}, "", 3},
		"breaks down":     {[]func(http.ResponseWriter){pending, broken, gives}, "", 3},
		"refused":         {[]func(http.ResponseWriter){pending, says(400, "access_denied")}, "was refused", 2},
		"expired":         {[]func(http.ResponseWriter){says(400, "expired_token")}, "in time", 1},
		"not its client":  {[]func(http.ResponseWriter){says(401, "invalid_client")}, "refused: invalid_client", 1},
		"no JSON":         {[]func(http.ResponseWriter){func(w http.ResponseWriter) { w.WriteHeader(404) }}, "404", 1},
		"strange words":   {[]func(http.ResponseWriter){says(400, "\x1b[31m")}, "answered 400", 1},
		"nobody comes":    {[]func(http.ResponseWriter){pending}, "in time", 0},
		"asks to go slow": {[]func(http.ResponseWriter){says(400, "slow_down")}, "in time", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStub(t)
			s.answers = tc.answers
			if strings.HasPrefix(name, "nobody") || strings.HasPrefix(name, "asks") {
				s.device["expires_in"] = 0.4
			}
			d, err := (&Client{Issuer: s.URL, ClientID: "c", Pause: 10 * time.Millisecond}).Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.Wait(t.Context())
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret-code") {
				t.Error("the code is shown")
			}
			if n := s.asked.Load(); tc.asked != 0 && n != tc.asked {
				t.Errorf("asked %d times, want %d", n, tc.asked)
			}
		})
	}
}

// TestBegin: what a provider must not be able to have a person do, or a token be sent to.
func TestBegin(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*stub)
		want   string
	}{
		"another issuer":          {func(s *stub) { s.document["issuer"] = "https://other.example" }, "says that it is the issuer"},
		"tokens without TLS":      {func(s *stub) { s.document["token_endpoint"] = "http://idp.example/token" }, "not https"},
		"no token endpoint":       {func(s *stub) { delete(s.document, "token_endpoint") }, "not a URL"},
		"no device sign-in":       {func(s *stub) { delete(s.document, "device_authorization_endpoint") }, "has no device sign-in"},
		"page without TLS":        {func(s *stub) { s.device["verification_uri"] = "http://idp.example/page" }, "not to be opened"},
		"page of another kind":    {func(s *stub) { s.device["verification_uri_complete"] = "javascript:alert(1)" }, "not to be opened"},
		"page with a password":    {func(s *stub) { s.device["verification_uri"] = "https://a:b@idp.example/" }, "not to be opened"},
		"code for the terminal":   {func(s *stub) { s.device["user_code"] = "\x1b]0;x\x07" }, "cannot be shown"},
		"no code":                 {func(s *stub) { delete(s.device, "device_code") }, "gave no code"},
		"no time":                 {func(s *stub) { delete(s.device, "expires_in") }, "gave no code"},
		"nothing wrong (control)": {func(*stub) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t)
			tc.change(s)
			_, err := (&Client{Issuer: s.URL, ClientID: "c"}).Begin(t.Context())
			if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
	for _, issuer := range []string{"http://idp.example", "idp.example", "ftp://127.0.0.1", ""} {
		if _, err := (&Client{Issuer: issuer, ClientID: "c"}).Begin(t.Context()); err == nil {
			t.Errorf("%q is asked", issuer)
		}
	}
}

func TestTokensAreNotShown(t *testing.T) {
	v := Tokens{"s3cret-a", "s3cret-b", "s3cret-c"}
	if s := fmt.Sprintf("%v %+v %#v %s", v, v, v, v); strings.Contains(s, "s3cret") {
		t.Error(s)
	}
}
