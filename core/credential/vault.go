package credential

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/weir-gateway/weir/core/download"
)

// Bounds of what is asked of a Vault.
const (
	vaultTime  = 5 * time.Second  // of one call
	vaultFresh = time.Second      // for which what was read is not read again
	vaultStale = 5 * time.Minute  // for which a secret without a lease counts while Vault is down
	minRenew   = 10 * time.Second // between renewals of a lease
	maxPaths   = 1000
)

// VaultConfig says where a Vault or an OpenBao is.
type VaultConfig struct {
	Address   string // https://host:port; http only on loopback
	Token     Source // read at each call, so that an agent may renew it
	Namespace string
	CA        string // PEM file; empty: the system's authorities
	Log       *slog.Logger
	Now       func() time.Time // nil: time.Now
}

// Vault reads secrets: of the key-value engines, and dynamic ones with a lease, which it keeps alive. It is safe for
// concurrent use.
type Vault struct {
	c      VaultConfig
	client *http.Client

	mu    sync.Mutex
	paths map[string]*secret
	over  bool
}

// secret is what was read at one path.
type secret struct {
	mu     sync.Mutex // held by who asks Vault for it
	values map[string]string
	read   time.Time // when Vault said so last
	until  time.Time // when it is not to be used any more
	lease  string
	timer  *time.Timer
}

// OpenVault checks the configuration and asks for nothing.
func OpenVault(c VaultConfig) (*Vault, error) {
	u, err := url.Parse(c.Address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "":
		return nil, errors.New("credential: vault: the address is https://host:port, and nothing after it")
	case download.Safe(u) != nil:
		return nil, fmt.Errorf("credential: vault: %w", download.Safe(u))
	case c.Token.kind == "" || c.Token.kind == "vault":
		return nil, errors.New("credential: vault: there is no token: token: \"${file:…}\"")
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	t.MaxIdleConnsPerHost = 4
	t.IdleConnTimeout = 30 * time.Second
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("credential: vault: %w", err)
		}
		if t.TLSClientConfig.RootCAs = x509.NewCertPool(); !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("credential: vault: %s holds no PEM certificate", c.CA)
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Vault{c: c, paths: map[string]*secret{}, client: &http.Client{
		Transport: download.Guard(t), Timeout: vaultTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token goes nowhere else
	}}, nil
}

// Close ends what keeps leases alive. The leases are given back.
func (v *Vault) Close(ctx context.Context) error {
	v.mu.Lock()
	v.over = true
	paths := v.paths
	v.paths = map[string]*secret{}
	v.mu.Unlock()
	var errs []error
	for _, s := range paths {
		s.mu.Lock()
		if s.timer != nil {
			s.timer.Stop()
		}
		if s.lease != "" {
			errs = append(errs, v.call(ctx, http.MethodPut, "sys/leases/revoke", map[string]any{"lease_id": s.lease}, nil))
		}
		s.mu.Unlock()
	}
	v.client.CloseIdleConnections()
	return errors.Join(errs...)
}

// Parse is Parse, and knows ${vault:PATH#KEY}: PATH as in Vault's API, such as secret/data/orders or database/creds/orders.
func (v *Vault) Parse(reference, dir string) (Source, error) {
	inner, ok := strings.CutPrefix(reference, "${vault:")
	if !ok || v == nil {
		return Parse(reference, dir)
	}
	inner, ok = strings.CutSuffix(inner, "}")
	path, key, hash := strings.Cut(inner, "#")
	if !ok || !hash || key == "" || strings.ContainsAny(inner, "{}?%\\ \n\t\x00") || !validPath(path) {
		return Source{}, errors.New("credential: a secret of Vault is ${vault:PATH#KEY}, with the path of its API: ${vault:secret/data/orders#password}")
	}
	return Source{kind: "vault", name: inner, read: func(ctx context.Context) (string, error) { return v.get(ctx, path, key) }}, nil
}

func validPath(path string) bool {
	if !strings.Contains(path, "/") {
		return false
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}

// get returns one value of a path. Whoever asks while somebody else is asking Vault waits for that answer. When Vault does
// not answer, what it said last counts: until the lease is over, or for a bounded time.
func (v *Vault) get(ctx context.Context, path, key string) (string, error) {
	v.mu.Lock()
	s := v.paths[path]
	if s == nil {
		if v.over || len(v.paths) >= maxPaths {
			v.mu.Unlock()
			return "", errors.New("credential: vault: closed, or too many paths")
		}
		s = &secret{}
		v.paths[path] = s
	}
	v.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := v.c.Now()
	good := s.values != nil && now.Sub(s.read) < vaultFresh
	if s.lease != "" {
		good = now.Before(s.until)
	}
	if !good {
		if err := v.fetch(ctx, path, s); err != nil {
			var refused *vaultError
			if errors.As(err, &refused) && refused.status < 500 && refused.status != http.StatusTooManyRequests || s.values == nil || !now.Before(s.until) {
				return "", err // Vault has said no, or there is nothing left to go on with
			}
			v.c.Log.Warn("credential: vault does not answer: what it said last is used", "path", path, "until", s.until, "error", err)
		}
	}
	value := s.values[key]
	if value == "" {
		return "", fmt.Errorf("credential: vault: %s has no text %q", path, key)
	}
	return value, nil
}

// fetch reads a path; s is locked.
func (v *Vault) fetch(ctx context.Context, path string, s *secret) error {
	asked := v.c.Now()
	var answer struct {
		Lease    string                     `json:"lease_id"`
		Duration float64                    `json:"lease_duration"`
		Data     map[string]json.RawMessage `json:"data"`
	}
	if err := v.call(ctx, http.MethodGet, path, nil, &answer); err != nil {
		return err
	}
	data := answer.Data
	if inner, ok := data["data"]; ok && data["metadata"] != nil { // version 2 of the key-value engine
		data = nil
		if err := json.Unmarshal(inner, &data); err != nil {
			return fmt.Errorf("credential: vault: %s cannot be read", path)
		}
	}
	values := make(map[string]string, len(data))
	for k, raw := range data {
		var text string
		if json.Unmarshal(raw, &text) == nil {
			values[k] = text
		}
	}
	if len(values) == 0 {
		return fmt.Errorf("credential: vault: %s holds nothing, or was deleted", path)
	}
	s.values, s.read, s.lease, s.until = values, asked, answer.Lease, asked.Add(vaultStale)
	if s.lease != "" {
		v.keep(path, s, asked, time.Duration(answer.Duration*float64(time.Second)))
	}
	return nil
}

// keep notes how long a lease lasts, and has it renewed when two thirds of that are over; s is locked.
func (v *Vault) keep(path string, s *secret, from time.Time, lasts time.Duration) {
	s.until = from.Add(lasts)
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer = time.AfterFunc(max(lasts*2/3, min(minRenew, lasts/3)), func() { v.renew(path, s, lasts) })
}

// renew prolongs a lease. One that cannot be prolonged any more is replaced: sessions that are open go on with the old one
// until it is over, those that are opened get the new one.
func (v *Vault) renew(path string, s *secret, lasted time.Duration) {
	v.mu.Lock()
	over := v.over
	v.mu.Unlock()
	if over {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*vaultTime)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := v.c.Now()
	var answer struct {
		Duration float64 `json:"lease_duration"`
	}
	err := v.call(ctx, http.MethodPut, "sys/leases/renew", map[string]any{"lease_id": s.lease, "increment": int(lasted.Seconds())}, &answer)
	if lasts := time.Duration(answer.Duration * float64(time.Second)); err == nil && lasts > lasted/2 {
		v.keep(path, s, asked, lasts)
		return
	}
	if err := v.fetch(ctx, path, s); err == nil {
		return
	} else if left := s.until.Sub(asked); left > 0 {
		v.c.Log.Warn("credential: a lease cannot be renewed now", "path", path, "until", s.until, "error", err)
		s.timer = time.AfterFunc(max(left/3, 100*time.Millisecond), func() { v.renew(path, s, lasted) })
	}
}

// vaultError is what Vault refused. Its own words are left out: they may name what is nobody's business.
type vaultError struct {
	path   string
	status int
}

func (e *vaultError) Error() string {
	hint := ""
	switch e.status {
	case http.StatusForbidden:
		hint = ": check the token and its policy"
	case http.StatusNotFound:
		hint = ": there is nothing at this path (for the key-value engine of version 2 it has data after the mount: secret/data/NAME)"
	}
	return fmt.Sprintf("credential: vault answered %d to %s%s", e.status, e.path, hint)
}

func (v *Vault) call(ctx context.Context, method, path string, body, into any) error {
	token, err := v.c.Token.Read(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, vaultTime)
	defer cancel()
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = strings.NewReader(string(b))
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(v.c.Address, "/")+"/v1/"+path, send)
	if err != nil {
		return errors.New("credential: vault: the path cannot be asked for")
	}
	req.Header.Set("X-Vault-Token", token)
	req.Header.Set("X-Vault-Request", "true")
	if v.c.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", v.c.Namespace)
	}
	res, err := v.client.Do(req)
	if err != nil {
		return fmt.Errorf("credential: vault: %w", err)
	}
	defer res.Body.Close()
	b, err := download.ReadAll(res.Body, "the answer of "+path, 1<<20)
	switch {
	case err != nil:
		return fmt.Errorf("credential: vault: %w", err)
	case res.StatusCode/100 != 2:
		return &vaultError{path, res.StatusCode}
	case into == nil:
		return nil
	}
	if json.Unmarshal(b, into) != nil {
		return fmt.Errorf("credential: vault: the answer to %s is not JSON", path)
	}
	return nil
}
