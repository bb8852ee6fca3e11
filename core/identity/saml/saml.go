// Package saml signs people in at a SAML 2.0 identity provider, in a browser. The assertion that comes back is judged
// here and is good once; what a person takes away is a short-lived token of the gateway's own, fetched by the program that
// began the sign-in and by nobody else.
//
// A response passes four gates, in this order: its bytes (guard.go), its shape (shape.go), the signature over its one
// assertion (signature.go), and what the assertion says (assertion.go). From the third gate on only the bytes that the
// signature covered are read; the rest of the document cannot say anything any more.
package saml

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/download"
	"github.com/weir-gateway/weir/core/identity"
)

// Bounds of a sign-in.
const (
	Skew       = identity.Skew    // how far the clocks of provider and gateway may differ
	DefaultTTL = time.Hour        // of the token
	MaxTTL     = 12 * time.Hour   // of the token, whatever the configuration says
	signInTime = 10 * time.Minute // from its beginning to the provider's answer
	codeTime   = 2 * time.Minute  // for which a code can be exchanged for its token
	maxSubject = 512              // bytes
)

// Provider is one identity provider, and what its assertions are worth here.
type Provider struct {
	Name     string
	Metadata string // file or URL of the provider's metadata
	Issuer   string // the provider's entity id; may be empty where the metadata describes one entity
	EntityID string // Weir's own; empty: the address of its metadata
	// Subject and Groups are attributes. No Subject: the NameID; no Groups: nobody is in any.
	Subject       string
	Groups        string
	AllowedGroups []string // the only groups that are taken over; none: all
	Kind          string   // default human
	TTL           time.Duration
}

// Signer makes the gateway's own tokens.
type Signer interface {
	SignedIn(g identity.Grant, issuer string) (identity.Issued, error)
}

// Config is what a Service is made of.
type Config struct {
	Providers []Provider
	URL       string // of the sign-in address as browsers reach it: scheme, host and port
	Signer    Signer
	Secret    []byte // seals what a browser carries; all gateways behind URL have the same
	JetStream jetstream.JetStream
	Replicas  int
	HTTP      *http.Client // to fetch metadata; nil: one that goes to https and loopback only
	Log       *slog.Logger // nil: nothing is logged
	// Refused is told of every sign-in that fails, with an error that is safe to log and has a Reason method for counting.
	// It may wait: the answer does too.
	Refused func(r *http.Request, err error)
	// Issue makes a token by make, which returns what is to be kept of it: so that it is on record who got one. Nil: make is
	// called and nothing is kept.
	Issue func(r *http.Request, who core.Identity, make func() (note string, err error)) error
	Now   func() time.Time // nil: time.Now
}

// Service serves the sign-in address. It is an http.Handler.
type Service struct {
	Config
	base      *url.URL
	providers map[string]*provider
	names     []string
	once      *once
	mux       *http.ServeMux
	busy      chan struct{} // bounds how many responses are judged at a time
}

type provider struct {
	Provider
	acs    url.URL
	source *source
	secret []byte
	now    func() time.Time
}

var nameShape = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// New checks the configuration and reaches for nothing: a provider that is down must not keep the gateway from starting.
func New(c Config) (*Service, error) {
	base, err := download.Endpoint(c.URL)
	if err != nil {
		return nil, fmt.Errorf("saml: the sign-in address: %w", err)
	}
	base.Path = ""
	if len(c.Secret) < 32 || c.Signer == nil || c.JetStream == nil {
		return nil, errors.New("saml: it takes a signer, a secret of 32 bytes and a JetStream")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if c.HTTP == nil {
		c.HTTP = download.Client
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Refused == nil {
		c.Refused = func(*http.Request, error) {}
	}
	if c.Issue == nil {
		c.Issue = func(_ *http.Request, _ core.Identity, make func() (string, error)) error {
			_, err := make()
			return err
		}
	}
	s := &Service{Config: c, base: base, providers: map[string]*provider{}, busy: make(chan struct{}, 4)}
	s.once = &once{js: c.JetStream, replicas: max(c.Replicas, 1), now: c.Now}
	for _, p := range c.Providers {
		if !nameShape.MatchString(p.Name) || s.providers[p.Name] != nil || p.Metadata == "" {
			return nil, fmt.Errorf("saml: provider %q needs a name of its own and metadata", p.Name)
		}
		if p.TTL == 0 {
			p.TTL = DefaultTTL
		}
		if p.TTL < 0 || p.TTL > MaxTTL {
			return nil, fmt.Errorf("saml: provider %q: a token is good for at most %s", p.Name, MaxTTL)
		}
		if p.Kind == "" {
			p.Kind = "human"
		}
		if p.EntityID == "" {
			p.EntityID = base.JoinPath("saml", p.Name, "metadata").String()
		}
		s.providers[p.Name] = &provider{
			Provider: p, acs: *base.JoinPath("saml", p.Name, "acs"), secret: c.Secret, now: c.Now,
			source: &source{where: p.Metadata, issuer: p.Issuer, client: c.HTTP, now: c.Now, log: c.Log.With("provider", p.Name)},
		}
		s.names = append(s.names, p.Name)
	}
	if len(s.names) == 0 {
		return nil, errors.New("saml: there is no provider")
	}
	s.routes()
	return s, nil
}

// person is who a response was about.
type person struct {
	subject string
	groups  []string
	until   time.Time // the provider's own end of it; zero: none
	issuer  string
}

// accepted is a response that holds.
type accepted struct {
	person
	request *request
	once    []string // what must not have been seen before
}

// accept judges a response: who it is about, or a Refusal.
func (p *provider) accept(ctx context.Context, raw []byte) (*accepted, error) {
	if err := guard(raw, maxResponse); err != nil {
		return nil, err
	}
	form, err := shape(raw)
	if err != nil {
		return nil, err
	}
	idp, err := p.source.get(ctx)
	if err != nil {
		return nil, err
	}
	signed, cert, err := verify(form, idp.certs, p.now())
	if err != nil && p.source.again(ctx, idp) { // the provider may have a new key
		if idp, err = p.source.get(ctx); err == nil {
			signed, cert, err = verify(form, idp.certs, p.now())
		}
	}
	if err != nil {
		return nil, err
	}
	a, err := read(signed)
	if err != nil {
		return nil, err
	}
	req, err := p.hold(form, a, idp)
	if err != nil {
		return nil, err
	}
	if err := p.library(raw, a, idp, cert); err != nil {
		return nil, err
	}
	who, err := p.person(a)
	if err != nil {
		return nil, err
	}
	return &accepted{person: who, request: req, once: []string{"assertion." + digest(idp.entity, a.id), "request." + digest(a.inResponseTo)}}, nil
}

// Refusal says why nobody was signed in. It holds nothing of the assertion but names that are quoted and cut.
type Refusal struct{ reason, text string }

func refuse(reason, format string, args ...any) error {
	return &Refusal{"saml-" + reason, fmt.Sprintf(format, args...)}
}

// Error is safe to log.
func (r *Refusal) Error() string { return "saml: " + r.text }

// Reason is one word of a small set, for metrics.
func (r *Refusal) Reason() string { return r.reason }

// Is makes a Refusal a core.ErrUnauthenticated.
func (r *Refusal) Is(target error) bool { return target == core.ErrUnauthenticated }

// quote shows a claimed text with a bound and without control characters.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return fmt.Sprintf("%+q", s)
}
