// Package download gets what a configuration names at other servers: by https, or from this machine.
package download

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Safe refuses a URL whose answer somebody on the way could change or read along. It says nothing of a password in it.
func Safe(u *url.URL) error {
	if u.Scheme == "https" || u.Scheme == "http" && Loopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("%s is not https: only a server on loopback may do without", u.Redacted())
}

// Loopback reports whether a host is this machine.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Client goes only to where Safe lets it, redirects and a registry's sign-in included. Its requests bring their own
// deadline.
var Client = &http.Client{
	Transport: Guard(func() http.RoundTripper {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		t.ResponseHeaderTimeout = 30 * time.Second
		t.DisableKeepAlives = true // it is used a few times in a minute at the most
		return t
	}()),
	CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) >= 5 {
			return errors.New("more than five redirects")
		}
		if via[0].URL.Scheme == "https" && r.URL.Scheme != "https" {
			return errors.New("it leads away from https")
		}
		return nil
	},
}

// Guard holds each request of a transport to Safe.
func Guard(t http.RoundTripper) http.RoundTripper { return guarded{t} }

type guarded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := Safe(r.URL); err != nil {
		return nil, err
	}
	return g.RoundTripper.RoundTrip(r)
}

// ReadAll reads at most so many bytes, and fails when there are more. what names them in errors.
func ReadAll(r io.Reader, what string, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%s is larger than %d KiB", what, most>>10)
	}
	return b, nil
}

// Endpoint checks the URL of a server that is asked for more than one thing: scheme, host and port, and nothing else.
func Endpoint(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("the endpoint is no https:// URL")
	case u.User != nil:
		return nil, errors.New("the endpoint holds a secret in clear")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the endpoint is more than scheme, host and port")
	}
	return u, Safe(u)
}
