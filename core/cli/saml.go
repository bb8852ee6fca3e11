package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/identity"
	"github.com/weir-gateway/weir/core/identity/saml"
)

// signInAddress makes what serves listen.sign_in; nil when nobody signs in there.
// What it is told of is the gateway's, which is asked for when somebody signs in.
func signInAddress(cfg *config.Config, js jetstream.JetStream, log *slog.Logger, g func() *gateway.Gateway) (*gateway.SignIn, error) {
	if len(cfg.Identity.SAML) == 0 {
		return nil, nil
	}
	issuer, err := identity.OpenIssuer(keysDir(cfg), cfg.Identity.ServiceTokens.MaxTTL)
	if err != nil {
		return nil, err
	}
	in := cfg.Listen.SignIn
	c := saml.Config{
		URL: in.URL, Signer: issuer, Secret: issuer.Secret("saml"), JetStream: js, Replicas: cfg.Journal.NATS.Replicas, Log: log,
		Refused: func(r *http.Request, err error) { g().SignInRefused(r, err) },
		Issue: func(r *http.Request, who core.Identity, make func() (string, error)) error {
			from, _ := net.ResolveTCPAddr("tcp", r.RemoteAddr) // an address, no name: nobody is asked
			act := gateway.Act{Action: "tokens.sign-in", Object: who.Subject, Who: who, Changes: true, Unasked: true}
			if from != nil {
				act.Client = from
			}
			return g().Do(r.Context(), act, func(context.Context) (string, error) { return make() })
		},
	}
	for _, s := range cfg.Identity.SAML {
		c.Providers = append(c.Providers, saml.Provider{
			Name: s.Name, Metadata: s.Metadata, Issuer: s.Issuer, EntityID: s.EntityID, Subject: s.Subject, Groups: s.Groups,
			AllowedGroups: s.AllowedGroups, Kind: s.Kind, TTL: s.TTL,
		})
	}
	service, err := saml.New(c)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(in.URL)
	if err != nil {
		return nil, err
	}
	return &gateway.SignIn{
		Address: in.Address, TLS: u.Scheme == "https", Handler: service, Where: fmt.Sprintf("%s:%d", cfg.File, cfg.Line("listen.sign_in")),
	}, nil
}

// signInHosts are the names that the certificate of the sign-in address has to have.
func signInHosts(c *config.Config) (hosts []string) {
	if host, _, err := net.SplitHostPort(c.Listen.SignIn.Address); err == nil {
		hosts = append(hosts, host)
	}
	if u, err := url.Parse(c.Listen.SignIn.URL); err == nil && u.Hostname() != "" {
		hosts = append(hosts, u.Hostname())
	}
	return hosts
}

// metadata looks at the files that describe identity providers. URLs are not asked for: a provider that is down is no
// mistake in the configuration.
func (l *loader) metadata() {
	for i, s := range l.c.Identity.SAML {
		if s.Metadata == "" || strings.Contains(s.Metadata, "://") {
			continue
		}
		at := fmt.Sprintf("identity.saml[%d].metadata", i)
		b, err := os.ReadFile(s.Metadata)
		if err == nil {
			err = saml.CheckMetadata(b, s.Issuer)
		}
		if err != nil {
			l.fail(at, "", fmt.Errorf("%s cannot be used: %w", s.Metadata, err))
		}
	}
}
