// Package certificate answers "who is this?" for clients that show a TLS certificate in the place of a token: a SPIFFE id
// (X.509-SVID), or a name that a certificate authority of the operator's vouches for.
package certificate

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weir-gateway/weir/core"
)

// The fields of a plain certificate that can be its subject.
const (
	SubjectCN    = "cn"
	SubjectDNS   = "dns"
	SubjectEmail = "email"
)

// Authority is whose certificates count, and what for.
type Authority struct {
	Name string
	// CA is a file with certificates of authorities, which is read again when it changes; or WorkloadAPI is the address of a
	// SPIFFE Workload API that has them.
	CA          string
	WorkloadAPI string
	TrustDomain string // whose SPIFFE ids these authorities may vouch for; empty: none, they vouch for Subject
	Subject     string // cn, dns or email
	Kind        string // default service
	Groups      []string
	Rules       []Rule // the first that fits says more
}

// Rule says what somebody is by the subject.
type Rule struct {
	Match  string // the subject; with a * at its end, how it begins
	Kind   string // empty: the authority's
	Groups []string
}

func (r *Rule) fits(subject string) bool {
	head, open := strings.CutSuffix(r.Match, "*")
	return open && strings.HasPrefix(subject, head) || r.Match == subject
}

// Config is whose word counts.
type Config struct {
	Authorities []Authority
	Log         *slog.Logger     // nil: nothing is logged
	Now         func() time.Time // nil: time.Now
}

// Verifier recognises clients by their certificates. It is safe for concurrent use.
type Verifier struct {
	list []*authority
	now  func() time.Time
}

type authority struct {
	Authority
	domain spiffeid.TrustDomain
	roots  source
}

// source has the certificates of authorities that count now.
type source interface {
	pool() (*x509.CertPool, error)
	close()
}

// New checks the configuration and reads the files that it names. A Workload API is asked in the background.
func New(c Config) (*Verifier, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	v := &Verifier{now: c.Now}
	if v.now == nil {
		v.now = time.Now
	}
	for _, a := range c.Authorities {
		x := &authority{Authority: a}
		var err error
		switch {
		case (a.CA == "") == (a.WorkloadAPI == ""):
			err = errors.New("it takes a file of authorities, or a Workload API")
		case (a.TrustDomain == "") == (a.Subject == ""):
			err = errors.New("it takes a trust domain, or the field that is the subject")
		case a.WorkloadAPI != "" && a.TrustDomain == "":
			err = errors.New("a Workload API has authorities of trust domains only")
		case a.Subject != "" && !slices.Contains([]string{SubjectCN, SubjectDNS, SubjectEmail}, a.Subject):
			err = fmt.Errorf("%q is not cn, dns or email", a.Subject)
		case a.TrustDomain != "":
			x.domain, err = spiffeid.TrustDomainFromString(a.TrustDomain)
			if err == nil && v.of(x.domain) != nil {
				err = fmt.Errorf("the trust domain %s stands twice", a.TrustDomain)
			}
		}
		if err == nil {
			if x.Kind == "" {
				x.Kind = "service"
			}
			if a.CA != "" {
				x.roots, err = openFile(a.CA, v.now, c.Log)
			} else {
				x.roots, err = openWorkloadAPI(a.WorkloadAPI, x.domain, c.Log)
			}
		}
		if err != nil {
			v.Close()
			return nil, fmt.Errorf("certificate: %s: %w", a.Name, err)
		}
		v.list = append(v.list, x)
	}
	return v, nil
}

// Close ends what runs in the background.
func (v *Verifier) Close() {
	for _, a := range v.list {
		a.roots.close()
	}
}

func (v *Verifier) of(domain spiffeid.TrustDomain) *authority {
	for _, a := range v.list {
		if a.TrustDomain != "" && a.domain == domain {
			return a
		}
	}
	return nil
}

// VerifyCertificate returns who a certificate was issued to. The first of the chain is the client's own; that the client has
// its key was shown in the TLS handshake. Every error wraps core.ErrUnauthenticated, is safe to show to the client, and
// has a Reason method with a word for counting.
func (v *Verifier) VerifyCertificate(chain []*x509.Certificate) (core.Identity, error) {
	if len(chain) == 0 {
		return core.Identity{}, refuse("missing", "a client certificate is needed here")
	}
	if len(chain) > maxChain {
		return core.Identity{}, refuse("chain", "more than %d certificates were shown", maxChain)
	}
	leaf := chain[0]
	if err := fit(chain); err != nil {
		return core.Identity{}, err
	}
	var a *authority
	var subject string
	if slices.ContainsFunc(leaf.URIs, func(u *url.URL) bool { return strings.EqualFold(u.Scheme, "spiffe") }) {
		id, err := svid(leaf)
		if err != nil {
			return core.Identity{}, err
		}
		if a = v.of(id.TrustDomain()); a == nil {
			return core.Identity{}, refuse("domain", "the trust domain %s is not configured", quote(id.TrustDomain().Name()))
		}
		if err := v.verify(a, chain); err != nil {
			return core.Identity{}, err
		}
		subject = id.String()
	} else {
		last := refuse("authority", "the client certificate is of no configured authority")
		for _, x := range v.list {
			if x.TrustDomain != "" {
				continue
			}
			if err := v.verify(x, chain); err != nil {
				last = err
				continue
			}
			a = x
			break
		}
		if a == nil {
			return core.Identity{}, last
		}
		var err error
		if subject, err = named(leaf, a.Subject); err != nil {
			return core.Identity{}, err
		}
	}
	return a.identity(leaf, subject), nil
}
