// Package signin signs a person in at an OpenID Connect provider from a terminal: the device authorization grant (RFC 8628),
// renewal, and the end of it (RFC 7009). No token, code or refresh token is part of an error.
package signin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/weir-gateway/weir/core/download"
)

// Bounds of a conversation with a provider.
const (
	callTime    = 15 * time.Second
	maxAnswer   = 1 << 20
	usualPause  = 5 * time.Second // between questions: RFC 8628 section 3.5
	longestWait = 30 * time.Minute
)

// How a sign-in ends that nobody has finished.
var (
	ErrRefused = errors.New("signin: the sign-in was refused")
	ErrLate    = errors.New("signin: nobody signed in in time")
)

// ErrAgain says that the sign-in is over, for whatever reason: the person has to sign in anew.
var ErrAgain = errors.New("signin: the provider does not take the sign-in any more: sign in again")

// Client is this command at one provider. It has no secret: what is on a person's machine cannot keep one.
type Client struct {
	Issuer   string
	ClientID string
	Scopes   []string
	HTTP     *http.Client  // nil: one that follows no redirect
	Pause    time.Duration // between questions, when the provider names none; 0: five seconds
	found    *document
}

// document is what discovery says.
type document struct {
	Issuer     string `json:"issuer"`
	Device     string `json:"device_authorization_endpoint"`
	Token      string `json:"token_endpoint"`
	Revocation string `json:"revocation_endpoint"`
}

// Tokens are what a provider gives. They are secrets.
type Tokens struct {
	ID, Access, Refresh string
}

// String shows nothing.
func (Tokens) String() string { return "tokens" }

// GoString shows nothing.
func (Tokens) GoString() string { return "tokens" }

// For picks the token whose audience is the one given: the ID token, or an access token that is a JWT.
func (t Tokens) For(audience string) (token string, expires time.Time, err error) {
	for _, candidate := range []string{t.ID, t.Access} {
		c, err := Claims(candidate)
		if err != nil {
			continue
		}
		var list []string
		switch aud := c["aud"].(type) {
		case string:
			list = []string{aud}
		case []any:
			for _, a := range aud {
				if s, ok := a.(string); ok {
					list = append(list, s)
				}
			}
		}
		exp, ok := c["exp"].(float64)
		if ok && slices.Contains(list, audience) {
			return candidate, time.Unix(int64(exp), 0), nil
		}
	}
	return "", time.Time{}, fmt.Errorf("signin: the provider gave no token for the audience %q: check the client id and the scopes", audience)
}

// Claims reads what a token says. Nothing is verified: it is for showing, and the gateway does that.
func Claims(token string) (map[string]any, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("signin: that is not a signed token (JWT)")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	var c map[string]any
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || c == nil {
		return nil, errors.New("signin: the token's claims cannot be read")
	}
	return c, nil
}

// Device is a sign-in that waits for the person.
type Device struct {
	c       *Client
	code    string
	pause   time.Duration
	until   time.Time
	User    string    // what the person types in
	Where   string    // the page to open
	Shorter string    // the page with the code in it; may be empty
	next    time.Time // when the provider may be asked
}

// Until is when nobody can sign in by the code any more.
func (d *Device) Until() time.Time { return d.until }

// Begin asks the provider for a code.
func (c *Client) Begin(ctx context.Context) (*Device, error) {
	d, err := c.discover(ctx)
	if err != nil {
		return nil, err
	}
	if d.Device == "" {
		return nil, fmt.Errorf("signin: %s has no device sign-in (device_authorization_endpoint)", c.Issuer)
	}
	var answer struct {
		DeviceCode string  `json:"device_code"`
		UserCode   string  `json:"user_code"`
		URI        string  `json:"verification_uri"`
		Complete   string  `json:"verification_uri_complete"`
		Expires    float64 `json:"expires_in"`
		Interval   float64 `json:"interval"`
	}
	if err := c.post(ctx, d.Device, url.Values{"client_id": {c.ClientID}, "scope": {strings.Join(c.Scopes, " ")}}, &answer); err != nil {
		return nil, err
	}
	if answer.DeviceCode == "" || answer.UserCode == "" || answer.Expires <= 0 {
		return nil, fmt.Errorf("signin: %s gave no code", c.Issuer)
	}
	for _, page := range []string{answer.URI, answer.Complete} {
		if page == "" && page != answer.URI {
			continue
		}
		if _, err := safe(page); err != nil || strings.ContainsFunc(page, unprintable) {
			return nil, fmt.Errorf("signin: %s names a page that is not to be opened: %w", c.Issuer, errors.Join(err))
		}
	}
	if len(answer.UserCode) > 100 || strings.ContainsFunc(answer.UserCode, unprintable) {
		return nil, fmt.Errorf("signin: %s gave a code that cannot be shown", c.Issuer)
	}
	pause := c.Pause
	switch {
	case answer.Interval > 0:
		pause = time.Duration(min(answer.Interval, 60) * float64(time.Second))
	case pause == 0:
		pause = usualPause
	}
	until := time.Now().Add(min(time.Duration(min(answer.Expires, 1e6)*float64(time.Second)), longestWait))
	return &Device{c, answer.DeviceCode, pause, until, answer.UserCode, answer.URI, answer.Complete, time.Now().Add(pause)}, nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// Wait waits until the person has signed in, has refused, or is out of time.
func (d *Device) Wait(ctx context.Context) (Tokens, error) {
	ctx, cancel := context.WithDeadline(ctx, d.until)
	defer cancel()
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {d.code}, "client_id": {d.c.ClientID}}
	for {
		t := time.NewTimer(time.Until(d.next))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			if time.Now().After(d.until) {
				return Tokens{}, ErrLate
			}
			return Tokens{}, ctx.Err()
		}
		tokens, err := d.c.tokens(ctx, form)
		var said *Error
		switch {
		case err == nil:
			return tokens, nil
		case errors.As(err, &said) && said.Code == "authorization_pending":
		case errors.As(err, &said) && said.Code == "slow_down":
			d.pause += usualPause
		case errors.As(err, &said) && said.Code == "access_denied":
			return Tokens{}, ErrRefused
		case errors.As(err, &said) && said.Code == "expired_token":
			return Tokens{}, ErrLate
		case errors.As(err, &said) && said.status < 500:
			return Tokens{}, err
		case ctx.Err() == nil: // it may come back: RFC 8628 section 3.5 asks to slow down
			d.pause = min(2*d.pause, time.Minute)
		}
		d.next = time.Now().Add(d.pause)
	}
}

// Renew gets new tokens for a refresh token. Without a new refresh token the old one goes on.
func (c *Client) Renew(ctx context.Context, refresh string) (Tokens, error) {
	t, err := c.tokens(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "client_id": {c.ClientID}})
	var said *Error
	if errors.As(err, &said) && said.status < 500 && said.status != http.StatusTooManyRequests {
		return Tokens{}, fmt.Errorf("%w (%s)", ErrAgain, said.Code)
	}
	if err == nil && t.Refresh == "" {
		t.Refresh = refresh
	}
	return t, err
}

// End tells the provider that a refresh token is not needed any more. A provider that cannot be told so is none of an error.
func (c *Client) End(ctx context.Context, refresh string) error {
	d, err := c.discover(ctx)
	if err != nil || d.Revocation == "" {
		return err
	}
	return c.post(ctx, d.Revocation, url.Values{"token": {refresh}, "token_type_hint": {"refresh_token"}, "client_id": {c.ClientID}}, nil)
}

func (c *Client) tokens(ctx context.Context, form url.Values) (Tokens, error) {
	d, err := c.discover(ctx)
	if err != nil {
		return Tokens{}, err
	}
	var answer struct {
		ID      string `json:"id_token"`
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if err := c.post(ctx, d.Token, form, &answer); err != nil {
		return Tokens{}, err
	}
	return Tokens(answer), nil
}

// discover finds the provider's endpoints (OpenID Connect Discovery section 4). All must be where nobody listens in.
func (c *Client) discover(ctx context.Context) (*document, error) {
	if c.found != nil {
		return c.found, nil
	}
	at, err := safe(strings.TrimSuffix(c.Issuer, "/") + "/.well-known/openid-configuration")
	if err != nil {
		return nil, fmt.Errorf("signin: the issuer %q: %w", c.Issuer, err)
	}
	var d document
	if err := c.call(ctx, http.MethodGet, at, nil, &d); err != nil {
		return nil, err
	}
	if d.Issuer != c.Issuer {
		return nil, fmt.Errorf("signin: %s says that it is the issuer %q", c.Issuer, d.Issuer)
	}
	for _, endpoint := range []string{d.Device, d.Token, d.Revocation} {
		if endpoint == "" && endpoint != d.Token {
			continue
		}
		if _, err := safe(endpoint); err != nil {
			return nil, fmt.Errorf("signin: %s: %w", c.Issuer, err)
		}
	}
	c.found = &d
	return c.found, nil
}

func safe(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil {
		return "", errors.New("that is not a URL of a provider")
	}
	return address, download.Safe(u)
}

// Error is a provider's refusal (RFC 6749 section 5.2).
type Error struct {
	Code   string
	issuer string
	status int
}

func (e *Error) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("signin: %s answered %d %s", e.issuer, e.status, http.StatusText(e.status))
	}
	return fmt.Sprintf("signin: %s refused: %s", e.issuer, e.Code)
}

func (c *Client) post(ctx context.Context, to string, form url.Values, into any) error {
	return c.call(ctx, http.MethodPost, to, form, into)
}

var direct = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func (c *Client) call(ctx context.Context, method, to string, form url.Values, into any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(form.Encode()))
	if err != nil {
		return fmt.Errorf("signin: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	client := c.HTTP
	if client == nil {
		client = direct
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("signin: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil || len(b) > maxAnswer {
		return fmt.Errorf("signin: the answer of %s cannot be read: %w", c.Issuer, errors.Join(err))
	}
	if res.StatusCode != http.StatusOK {
		said := &Error{issuer: c.Issuer, status: res.StatusCode}
		var body struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(b, &body) == nil && len(body.Error) <= 64 && !strings.ContainsFunc(body.Error, unprintable) {
			said.Code = body.Error
		}
		return said
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("signin: the answer of %s is no JSON", c.Issuer)
	}
	return nil
}
