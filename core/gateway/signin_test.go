package gateway

import (
	"crypto/tls"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// becauseOf is a failed sign-in with a word of its own.
type becauseOf string

func (b becauseOf) Error() string  { return "no: " + string(b) }
func (b becauseOf) Reason() string { return string(b) }

// TestSignInAddress: it has the client leg's certificate and no other ways in, and its refusals are counted with the others.
func TestSignInAddress(t *testing.T) {
	leg, ca, err := LocalTLS(filepath.Join(t.TempDir(), "tls"))
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, func(c *Config, s *Settings) {
		s.TLS = leg
		c.SignIn = &SignIn{Address: anyPort, TLS: true, Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			_, _ = w.Write([]byte("here " + q.URL.Path))
		})}
	})
	at := r.SignInAddr().String()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(t, ca)}, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	res, err := client.Get("https://" + at + "/x")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK || res.TLS == nil || res.TLS.Version < tls.VersionTLS12 {
		t.Errorf("%s %+v", res.Status, res.TLS)
	}
	old := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(t, ca), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	if res, err := old.Get("https://" + at); err == nil {
		_ = res.Body.Close()
		t.Error("TLS 1.1 passes")
	}
	if res, err := client.Get("http://" + at); err == nil {
		_ = res.Body.Close()
		if res.StatusCode == http.StatusOK {
			t.Error("it answers in clear")
		}
	}
	request, _ := http.NewRequest(http.MethodPost, "https://"+at, nil)
	request.RemoteAddr = "192.0.2.7:1234"
	for range freeFailures {
		r.SignInRefused(request, becauseOf("saml-test"))
	}
	began := time.Now()
	r.SignInRefused(request, becauseOf("saml-test"))
	if time.Since(began) < 900*time.Millisecond {
		t.Error("many failures are answered as fast as few")
	}
	if _, text := r.get("/metrics"); !strings.Contains(text, `weir_gateway_refused_total{reason="saml-test"} 11`) {
		t.Error("they are not counted")
	}

	for name, x := range map[string]*SignIn{
		"not on loopback, in clear": {Address: "0.0.0.0:0", Where: "weir.yaml:3"},
		"no address":                {Address: "x", TLS: true, Where: "weir.yaml:3"},
	} {
		g := &Gateway{Config: Config{SignIn: x}}
		if _, err := g.serveSignIn(); err == nil || !strings.Contains(err.Error(), "weir.yaml:3") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
