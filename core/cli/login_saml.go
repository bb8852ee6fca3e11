package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/download"
	"github.com/weir-gateway/weir/core/identity/saml"
)

// signInTime is how long weir login waits for the browser.
const signInTime = 10 * time.Minute

// samlLogin is a sign-in at the gateway's own sign-in address.
type samlLogin struct {
	on       bool
	gateway  string // the URL of the sign-in address
	provider string
	ca       string
	paste    bool
}

func (s *samlLogin) flags(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&s.on, "saml", false, "sign in by SAML, at the gateway's sign-in address (the default where the configuration has no other provider)")
	f.StringVar(&s.gateway, "gateway", "", "the `URL` of the sign-in address (default: listen.sign_in.url of the configuration)")
	f.StringVar(&s.provider, "provider", "", "the `name` of the SAML provider (default: the only one there)")
	f.StringVar(&s.ca, "ca", "", "`file` of the authority that the gateway's certificate is from (default: the configuration's, then the system's)")
	f.BoolVar(&s.paste, "paste", false, "the browser is on another machine: it shows a code to paste here")
}

// wanted reports whether the sign-in is one by SAML, and completes it by the configuration.
func (s *samlLogin) wanted(path string, demanded bool, issuer string) (bool, error) {
	explicit := s.on || s.gateway != "" || s.provider != ""
	if issuer != "" {
		if explicit {
			return true, errors.New("--issuer is for OpenID Connect: leave it out for a sign-in by SAML")
		}
		return false, nil
	}
	cfg, err := config.Load(configPath(path))
	if err != nil {
		if !demanded && s.gateway != "" {
			return true, nil // all that is needed is said
		}
		return explicit, err
	}
	if !explicit && (len(cfg.Identity.SAML) == 0 || len(cfg.Identity.OIDC) > 0) {
		return false, nil
	}
	if s.gateway == "" {
		s.gateway = cfg.Listen.SignIn.URL
		names := make([]string, 0, len(cfg.Identity.SAML))
		for _, p := range cfg.Identity.SAML {
			names = append(names, p.Name)
		}
		switch {
		case len(names) == 0:
			return true, fmt.Errorf("%s has no identity.saml: name the sign-in address by --gateway", cfg.File)
		case s.provider == "" && len(names) == 1:
			s.provider = names[0]
		}
	}
	if ca := filepath.Join(tlsDir(cfg), "ca.pem"); s.ca == "" && cfg.Listen.TLS.Cert == "" {
		if _, err := os.Stat(ca); err == nil {
			s.ca = ca
		}
	}
	return true, nil
}

// client reaches the sign-in address, and nothing else.
func (s *samlLogin) client() (*http.Client, *url.URL, error) {
	at, err := download.Endpoint(s.gateway)
	if err != nil {
		return nil, nil, fmt.Errorf("--gateway: %w", err)
	}
	at.Path = ""
	t := &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, ResponseHeaderTimeout: 30 * time.Second}
	if s.ca != "" {
		b, err := os.ReadFile(s.ca)
		if err != nil {
			return nil, nil, fmt.Errorf("--ca: %w", err)
		}
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		if !roots.AppendCertsFromPEM(b) {
			return nil, nil, fmt.Errorf("--ca: %s holds no PEM certificate", s.ca)
		}
		t.TLSClientConfig.RootCAs = roots
	}
	return &http.Client{
		Timeout: 40 * time.Second, Transport: download.Guard(t),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, at, nil
}

// loginSAML signs in, and returns what is to be kept. The token comes to this program alone: the browser carries a code
// that is worth nothing without the verifier, which never leaves this function but to the gateway.
func (a *app) loginSAML(ctx context.Context, s *samlLogin, in io.Reader) (*login, string, error) {
	client, at, err := s.client()
	if err != nil {
		return nil, "", use(err)
	}
	if s.provider == "" {
		if s.provider, err = onlyProvider(ctx, client, at); err != nil {
			return nil, "", err
		}
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	verifier := base64.RawURLEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(verifier))
	x := &exchange{client: client, token: at.JoinPath("saml", s.provider, "token").String(), verifier: verifier, done: make(chan saml.Fetched, 1), failed: make(chan error, 1)}
	ctx, cancel := context.WithTimeout(ctx, signInTime)
	defer cancel()
	x.ctx = ctx
	port := 0
	if !s.paste {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, "", unreachable(fmt.Errorf("nothing can be listened on for the browser (--paste does without): %w", err))
		}
		port = ln.Addr().(*net.TCPAddr).Port
		server := &http.Server{Handler: x, ReadTimeout: 5 * time.Second, WriteTimeout: time.Minute, MaxHeaderBytes: 8 << 10}
		go func() { _ = server.Serve(ln) }()
		defer func() { // the browser is to get its page
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = server.Shutdown(ctx)
		}()
	}
	start := at.JoinPath("saml", s.provider, "start")
	start.RawQuery = url.Values{"challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "port": {fmt.Sprint(port)}}.Encode()
	fmt.Fprintf(a.err, "weir: open %s\n", start)
	if s.paste {
		fmt.Fprintln(a.err, "weir: and paste the code that it shows here:")
		go x.read(bufio.NewScanner(in))
	}
	select {
	case got := <-x.done:
		return &login{Issuer: got.Issuer, Token: got.Token, Expires: got.Expires}, got.Subject, nil
	case err := <-x.failed:
		return nil, "", err
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, "", no(errors.New("nobody signed in in time"))
		}
		return nil, "", no(ctx.Err())
	}
}

// onlyProvider asks the gateway which providers it has.
func onlyProvider(ctx context.Context, client *http.Client, at *url.URL) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.JoinPath("saml").String(), nil)
	if err != nil {
		return "", use(err)
	}
	res, err := client.Do(r)
	if err != nil {
		return "", unreachable(err)
	}
	defer res.Body.Close()
	var list struct{ Providers []string }
	if b, err := download.ReadAll(res.Body, "the answer", 64<<10); err != nil || res.StatusCode != http.StatusOK || json.Unmarshal(b, &list) != nil {
		return "", unreachable(fmt.Errorf("%s is no sign-in address of a gateway", at))
	}
	if len(list.Providers) != 1 {
		slices.Sort(list.Providers)
		return "", use(fmt.Errorf("the gateway has several providers: name one by --provider: %s", printable(strings.Join(list.Providers, ", "))))
	}
	return list.Providers[0], nil
}

// exchange takes codes, from the browser or from a person, until one of them is worth a token.
type exchange struct {
	ctx      context.Context
	client   *http.Client
	token    string // where
	verifier string
	done     chan saml.Fetched
	failed   chan error
}

// ServeHTTP takes a code from the browser. A wrong one changes nothing: any page could send it.
func (x *exchange) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	code := r.URL.Query().Get("code")
	if r.Method != http.MethodGet || r.URL.Path != "/" || code == "" || len(code) > 128 {
		http.NotFound(w, r)
		return
	}
	got, err := x.fetch(code)
	if err != nil {
		http.Error(w, "weir: not signed in: the code is not good", http.StatusForbidden)
		return
	}
	fmt.Fprintln(w, "weir: you are signed in, and can close this page.")
	x.finish(got)
}

// finish ends the wait; a second token, of somebody who was as fast, is for nobody.
func (x *exchange) finish(got saml.Fetched) {
	select {
	case x.done <- got:
	default:
	}
}

// read takes a code from a person.
func (x *exchange) read(lines *bufio.Scanner) {
	for range 3 {
		if !lines.Scan() {
			break
		}
		got, err := x.fetch(strings.TrimSpace(lines.Text()))
		if err == nil {
			x.finish(got)
			return
		}
		if x.ctx.Err() != nil {
			return
		}
	}
	x.failed <- no(errors.New("no code was pasted that is good"))
}

// fetch exchanges a code for the token.
func (x *exchange) fetch(code string) (got saml.Fetched, err error) {
	body, err := json.Marshal(map[string]string{"code": code, "verifier": x.verifier})
	if err != nil {
		return got, err
	}
	r, err := http.NewRequestWithContext(x.ctx, http.MethodPost, x.token, bytes.NewReader(body))
	if err != nil {
		return got, err
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := x.client.Do(r)
	if err != nil {
		return got, err
	}
	defer res.Body.Close()
	b, err := download.ReadAll(res.Body, "the answer", 256<<10)
	if err != nil {
		return got, err
	}
	if res.StatusCode != http.StatusOK || json.Unmarshal(b, &got) != nil || got.Token == "" {
		return got, errors.New(cmp.Or(res.Status, "no token"))
	}
	return got, nil
}
