package saml

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/crewjam/saml"

	"github.com/weir-gateway/weir/core/download"
)

// How long metadata is believed, and how often a provider is asked.
const (
	freshFor   = time.Hour        // then it is fetched again
	staleUntil = 24 * time.Hour   // with the provider down
	fetchEvery = 30 * time.Second // at most, also when a signature is by an unknown key
	fetchTime  = 8 * time.Second
	minRSA     = 2048 // bits
)

// idp is what the metadata says.
type idp struct {
	entity     string
	signOn     string // by redirect
	certs      []*x509.Certificate
	validUntil time.Time // zero: not said
	descriptor *saml.EntityDescriptor
	sum        [sha256.Size]byte
}

// source holds one provider's metadata. The last good one counts until it is too old or, by its own word, over.
type source struct {
	where  string
	issuer string
	client *http.Client
	now    func() time.Time
	log    *slog.Logger

	mu      sync.Mutex
	known   *idp
	fetched time.Time // the last success
	tried   time.Time
	changed time.Time // of a file
	down    bool
}

func (s *source) remote() bool { return strings.Contains(s.where, "://") }

// get returns the metadata that counts now.
func (s *source) get(ctx context.Context) (*idp, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	due := s.known == nil || now.Sub(s.fetched) >= freshFor || s.over(now)
	if !s.remote() {
		info, err := os.Stat(s.where)
		due = due || err == nil && !info.ModTime().Equal(s.changed)
	}
	if due && (s.known == nil && s.tried.IsZero() || now.Sub(s.tried) >= fetchEvery || !s.remote()) {
		s.fetch(ctx, now)
	}
	switch {
	case s.known == nil:
		return nil, refuse("metadata", "the provider's metadata cannot be had; the log says why")
	case s.over(now):
		return nil, refuse("metadata", "the provider's metadata is not valid any more (validUntil)")
	case s.remote() && now.Sub(s.fetched) > staleUntil:
		return nil, refuse("metadata", "the provider's metadata could not be fetched for %s", staleUntil)
	}
	return s.known, nil
}

func (s *source) over(now time.Time) bool {
	return s.known != nil && !s.known.validUntil.IsZero() && !now.Before(s.known.validUntil)
}

// again fetches the metadata because it may have changed since seen, and reports whether it has.
func (s *source) again(ctx context.Context, seen *idp) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.now(); s.known == seen && now.Sub(s.tried) >= fetchEvery {
		s.fetch(ctx, now)
	}
	return s.known != seen
}

func (s *source) fetch(ctx context.Context, now time.Time) {
	s.tried = now
	next, changed, err := s.load(ctx, now)
	if err != nil {
		if !s.down {
			s.log.Error("saml: metadata: what was known last counts", "where", s.where, "error", err)
		}
		s.down = true
		return
	}
	if s.down {
		s.log.Info("saml: metadata can be read again", "where", s.where)
	}
	s.down, s.fetched, s.changed = false, now, changed
	if s.known == nil || s.known.sum != next.sum {
		if s.known != nil {
			s.log.Info("saml: metadata has changed", "where", s.where, "keys", len(next.certs))
		}
		s.known = next
	}
}

func (s *source) load(ctx context.Context, now time.Time) (*idp, time.Time, error) {
	var raw []byte
	var changed time.Time
	if s.remote() {
		ctx, cancel := context.WithTimeout(ctx, fetchTime)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.where, nil)
		if err != nil {
			return nil, changed, err
		}
		if err := download.Safe(r.URL); err != nil {
			return nil, changed, err
		}
		res, err := s.client.Do(r)
		if err != nil {
			return nil, changed, err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return nil, changed, fmt.Errorf("the answer is %s", res.Status)
		}
		if raw, err = download.ReadAll(res.Body, "the metadata", maxMetadata); err != nil {
			return nil, changed, err
		}
	} else {
		f, err := os.Open(s.where)
		if err != nil {
			return nil, changed, err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return nil, changed, err
		}
		changed = info.ModTime()
		if raw, err = download.ReadAll(f, "the metadata", maxMetadata); err != nil {
			return nil, changed, err
		}
	}
	next, err := parseMetadata(raw, s.issuer, now)
	return next, changed, err
}

// parseMetadata finds one provider in a document that describes it, or it and others.
func parseMetadata(raw []byte, issuer string, now time.Time) (*idp, error) {
	if err := guard(raw, maxMetadata); err != nil {
		return nil, err
	}
	var all saml.EntitiesDescriptor
	var list []saml.EntityDescriptor
	if err := xml.Unmarshal(raw, &all); err == nil {
		list = flatten(&all, time.Time{})
	} else {
		list = make([]saml.EntityDescriptor, 1)
		if err := xml.Unmarshal(raw, &list[0]); err != nil {
			return nil, errors.New("it is no SAML 2.0 metadata")
		}
	}
	var found *saml.EntityDescriptor
	for i := range list {
		if e := &list[i]; len(e.IDPSSODescriptors) > 0 && (issuer == "" || e.EntityID == issuer) {
			if found != nil {
				return nil, errors.New("it describes several identity providers: name one as issuer")
			}
			found = e
		}
	}
	if found == nil {
		return nil, errors.New("it does not describe the identity provider")
	}
	d := found.IDPSSODescriptors[0]
	x := &idp{entity: found.EntityID, descriptor: found, validUntil: found.ValidUntil, sum: sha256.Sum256(raw)}
	if len(found.IDPSSODescriptors) > 1 {
		return nil, errors.New("it describes the identity provider in two ways")
	}
	if d.ValidUntil != nil {
		x.validUntil = earlier(x.validUntil, *d.ValidUntil)
	}
	if x.entity == "" || !x.validUntil.IsZero() && !now.Before(x.validUntil) {
		return nil, errors.New("it is not valid any more (validUntil), or has no entityID")
	}
	if d.WantAuthnRequestsSigned != nil && *d.WantAuthnRequestsSigned {
		return nil, errors.New("the provider wants signed requests (WantAuthnRequestsSigned), which Weir does not make")
	}
	for _, at := range d.SingleSignOnServices {
		if at.Binding != saml.HTTPRedirectBinding || x.signOn != "" {
			continue
		}
		u, err := url.Parse(at.Location)
		if err != nil || u.Host == "" || u.User != nil {
			return nil, errors.New("its address for signing in is no URL")
		}
		if err := download.Safe(u); err != nil {
			return nil, fmt.Errorf("its address for signing in: %w", err)
		}
		x.signOn = at.Location
	}
	if x.signOn == "" {
		return nil, errors.New("it has no address for signing in by HTTP-Redirect")
	}
	var err error
	x.certs, err = signing(d.KeyDescriptors, now)
	return x, err
}

// signing lists the certificates that assertions may be signed with.
func signing(keys []saml.KeyDescriptor, now time.Time) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	why := "it has no key for signatures"
	for _, k := range keys {
		if k.Use != "" && k.Use != "signing" {
			continue
		}
		for _, text := range k.KeyInfo.X509Data.X509Certificates {
			der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text.Data), ""))
			if err != nil {
				return nil, errors.New("it has a certificate that is none")
			}
			c, err := x509.ParseCertificate(der)
			if err != nil {
				return nil, errors.New("it has a certificate that is none")
			}
			key, ok := c.PublicKey.(*rsa.PublicKey)
			switch {
			case !ok || key.N.BitLen() < minRSA:
				why = fmt.Sprintf("its key for signatures is not RSA of at least %d bits", minRSA)
			case now.After(c.NotAfter):
				why = "its certificate for signatures has expired"
			default:
				certs = append(certs, c)
			}
		}
	}
	if len(certs) == 0 {
		return nil, errors.New(why)
	}
	if len(certs) > 10 {
		return nil, errors.New("it has more than 10 keys for signatures")
	}
	return certs, nil
}

// flatten lists the entities of nested groups; a group's end is that of all in it.
func flatten(g *saml.EntitiesDescriptor, until time.Time) (out []saml.EntityDescriptor) {
	if g.ValidUntil != nil {
		until = earlier(until, *g.ValidUntil)
	}
	for _, e := range g.EntityDescriptors {
		e.ValidUntil = earlier(e.ValidUntil, until)
		out = append(out, e)
	}
	for i := range g.EntitiesDescriptors {
		out = append(out, flatten(&g.EntitiesDescriptors[i], until)...)
	}
	return out
}

// earlier is the earlier of two times, of which a zero one is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// CheckMetadata reports what is wrong with the metadata of one provider.
func CheckMetadata(raw []byte, issuer string) error {
	_, err := parseMetadata(raw, issuer, time.Now())
	return err
}
