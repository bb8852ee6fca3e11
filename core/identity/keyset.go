package identity

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/weir-gateway/weir/core/download"
)

// How long fetched keys are believed, and how often a provider is asked.
const (
	freshFor   = 4 * time.Minute  // then they are fetched again beside
	removedBy  = 5 * time.Minute  // then a token waits for the fetch, so that a removed key is refused
	staleUntil = 24 * time.Hour   // with the provider down
	fetchEvery = 30 * time.Second // at most, also for unknown key ids and after failures
	fetchTime  = 8 * time.Second
	maxAnswer  = 1 << 20 // bytes of a provider's answer
	minRSA     = 2048    // bits
)

// keySet holds one provider's keys. Whoever floods it with unknown key ids causes one fetch in fetchEvery.
type keySet struct {
	issuer string
	client *http.Client
	now    func() time.Time
	log    *slog.Logger

	mu      sync.Mutex
	url     string // of the key set; discovered
	keys    map[string][]jose.JSONWebKey
	fetched time.Time     // the last success
	tried   time.Time     // the last attempt
	running chan struct{} // closed when the present fetch is over; nil: none
	down    bool          // the last attempt failed
}

// verify returns the payload of a token that one of the provider's keys signed.
func (k *keySet) verify(ctx context.Context, jws *jose.JSONWebSignature, kid string, alg jose.SignatureAlgorithm) ([]byte, error) {
	keys, err := k.find(ctx, kid)
	if err != nil {
		return nil, err
	}
	var fit []jose.JSONWebKey
	for _, key := range keys {
		if key.Algorithm == "" || key.Algorithm == string(alg) {
			fit = append(fit, key)
		}
	}
	if len(fit) != 1 { // several keys of one id: nobody could say which one is meant
		return nil, refuse("key", "the token's key is not one of the provider's")
	}
	payload, err := jws.Verify(fit[0])
	if err != nil {
		return nil, refuse("signature", "the token's signature does not hold")
	}
	return payload, nil
}

// find returns the keys of an id, fetching them when that is due.
func (k *keySet) find(ctx context.Context, kid string) ([]jose.JSONWebKey, error) {
	for waited := false; ; waited = true {
		k.mu.Lock()
		now := k.now()
		age := now.Sub(k.fetched)
		if age > staleUntil {
			k.keys = nil
		}
		keys, known := k.keys[kid]
		mayFetch := k.tried.IsZero() || now.Sub(k.tried) >= fetchEvery || now.Before(k.tried)
		if k.running == nil && mayFetch && (!known || age > freshFor) {
			k.running, k.tried = make(chan struct{}), now
			go k.fetch(k.running)
		}
		running, empty, down := k.running, len(k.keys) == 0, k.down
		k.mu.Unlock()

		switch {
		case known && (age <= removedBy || running == nil || waited):
			return keys, nil
		case running != nil && !waited:
			select {
			case <-running:
				continue
			case <-ctx.Done():
			}
		}
		if empty && down {
			return nil, refuse("provider", "the identity provider %s cannot be reached now; try again later", k.issuer)
		}
		return nil, refuse("key", "the token's key is not one of the provider's")
	}
}

// fetch gets the keys. It does not run on a client's time: who waits may go away, the keys are for all.
func (k *keySet) fetch(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTime)
	defer cancel()
	k.mu.Lock()
	from := k.url
	k.mu.Unlock()
	keys, from, err := k.get(ctx, from)

	k.mu.Lock()
	defer k.mu.Unlock()
	defer close(done)
	k.running = nil
	if err != nil {
		k.url = "" // discover again: the provider may have moved it
		k.log.Warn("identity: keys cannot be fetched", "issuer", k.issuer, "error", err, "age", k.age())
		k.down = true
		return
	}
	if k.down {
		k.log.Info("identity: provider is back", "issuer", k.issuer)
	}
	k.keys, k.url, k.fetched, k.down = keys, from, k.now(), false
}

func (k *keySet) age() string {
	if k.fetched.IsZero() {
		return "none"
	}
	return k.now().Sub(k.fetched).Round(time.Second).String()
}

func (k *keySet) get(ctx context.Context, from string) (map[string][]jose.JSONWebKey, string, error) {
	if from == "" {
		p, err := oidc.NewProvider(oidc.ClientContext(ctx, k.client), k.issuer)
		if err != nil {
			return nil, "", err
		}
		var found struct {
			URL string `json:"jwks_uri"`
		}
		if err := p.Claims(&found); err != nil {
			return nil, "", err
		}
		if err := safe(found.URL); err != nil {
			return nil, "", err
		}
		from = found.URL
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, "", err
	}
	res, err := k.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("%s answered %s", from, res.Status)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil || len(body) > maxAnswer {
		return nil, "", errors.Join(fmt.Errorf("%s: the key set cannot be read", from), err)
	}
	keys, err := usable(body)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", from, err)
	}
	return keys, from, nil
}

// usable keeps the keys that may verify a token: public, for signatures, strong enough, with an id.
func usable(body []byte) (map[string][]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, errors.New("not a JSON key set")
	}
	keys := map[string][]jose.JSONWebKey{}
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if err := key.UnmarshalJSON(raw); err != nil { // a kind of key we do not know: others may do
			continue
		}
		if !key.IsPublic() || !key.Valid() || key.KeyID == "" || (key.Use != "" && key.Use != "sig") {
			continue
		}
		if r, ok := key.Key.(*rsa.PublicKey); ok && r.N.BitLen() < minRSA {
			continue
		}
		keys[key.KeyID] = append(keys[key.KeyID], key)
	}
	if len(keys) == 0 {
		return nil, errors.New("the key set holds no key that can be used")
	}
	return keys, nil
}

// safe refuses addresses from which keys could be forged on the way.
func safe(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return fmt.Errorf("the provider's jwks_uri is not a URL")
	}
	if err := download.Safe(u); err != nil {
		return fmt.Errorf("the provider's jwks_uri: %w", err)
	}
	return nil
}

// client reaches providers: no redirect (an issuer is where it says it is), bounded in time and size.
func client() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = fetchTime
	t.MaxResponseHeaderBytes = 64 << 10
	t.IdleConnTimeout = 10 * time.Second
	return &http.Client{
		Timeout:       fetchTime,
		Transport:     bounded{t},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded cuts answers short: what is cut is no JSON any more.
type bounded struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(res.Body, maxAnswer+1), res.Body}
	return res, nil
}
