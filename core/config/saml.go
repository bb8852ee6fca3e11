package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core/download"
)

// SignIn is where people sign in with a browser, for identity.saml.
type SignIn struct {
	Address string `yaml:"address"` // host:port to listen on
	URL     string `yaml:"url"`     // scheme, host and port as browsers and weir login reach it
}

// SAML is one SAML 2.0 identity provider. Who signs in there gets a token of the gateway's own.
type SAML struct {
	Name     string `yaml:"name"`
	Metadata string `yaml:"metadata"`  // file, or https:// URL, of the provider's metadata
	Issuer   string `yaml:"issuer"`    // the provider's entity id; default: the only one in the metadata
	EntityID string `yaml:"entity_id"` // Weir's own at the provider; default: URL of listen.sign_in and /saml/NAME/metadata
	Subject  string `yaml:"subject"`   // attribute that names the person; default: the NameID
	Groups   string `yaml:"groups"`    // attribute with the groups; default: nobody is in any
	// AllowedGroups are the only groups that are taken over; none: all.
	AllowedGroups []string      `yaml:"allowed_groups"`
	Kind          string        `yaml:"kind"` // human (default), service or agent
	TTL           time.Duration `yaml:"ttl"`  // of the token; default: 1h
}

const (
	defaultSAMLTTL = time.Hour
	maxSAMLTTL     = 12 * time.Hour
)

// completeIdentity fills in the defaults, and makes paths independent of where the file is.
func (c *Config) completeIdentity() {
	for i := range c.Identity.Certificates {
		x := &c.Identity.Certificates[i]
		x.CA = c.Path(x.CA)
	}
	for i := range c.Identity.SAML {
		s := &c.Identity.SAML[i]
		s.Metadata = c.Path(s.Metadata)
		if s.TTL == 0 {
			s.TTL = min(defaultSAMLTTL, c.Identity.ServiceTokens.MaxTTL)
		}
		if s.Kind == "" {
			s.Kind = "human"
		}
	}
}

func (k *checker) saml() {
	list, in := k.Identity.SAML, k.Listen.SignIn
	switch {
	case len(list) == 0 && k.set("listen.sign_in"):
		k.problem("listen.sign_in", "add identity.saml", "would do nothing: nobody signs in with a browser")
	case len(list) == 0 && k.set("identity.saml"):
		k.problem("identity.saml", "", "names no provider")
	}
	if len(list) == 0 {
		return
	}
	if !k.Identity.ServiceTokens.On() {
		k.problem("identity.saml", "enable service_tokens", "ends with a token of the gateway's own, which is not taken here")
	}
	k.signIn(in)
	seen := map[string]bool{}
	for i, s := range list {
		at := fmt.Sprintf("identity.saml[%d]", i)
		k.name(at, s.Name, seen)
		if s.Metadata == "" {
			k.problem(at, "file or https:// URL of the provider's metadata", "has no metadata")
		} else if strings.Contains(s.Metadata, "://") {
			if u, err := url.Parse(s.Metadata); err != nil || u.Host == "" || u.User != nil || download.Safe(u) != nil {
				k.problem(at+".metadata", "use https", "is not an https URL: keys fetched without TLS can be forged")
			}
		}
		if words := []string{"human", "service", "agent"}; !slices.Contains(words, s.Kind) {
			k.problem(at+".kind", hintNearest(s.Kind, words), "%q is not human, service or agent", s.Kind)
		}
		if most := min(maxSAMLTTL, k.Identity.ServiceTokens.MaxTTL); s.TTL < time.Minute || s.TTL > most {
			k.problem(at+".ttl", "such as 1h", "must be from 1m to %s", most)
		}
		if len(s.AllowedGroups) > 0 && s.Groups == "" {
			k.problem(at+".allowed_groups", "add groups", "would do nothing: no attribute holds the groups")
		}
	}
}

// signIn checks the address where browsers go.
func (k *checker) signIn(in SignIn) {
	if in.Address == "" || in.URL == "" {
		k.problem("listen.sign_in", "sign_in: {address: 0.0.0.0:8443, url: https://weir.example:8443}", "has no address or no url, which identity.saml needs")
		return
	}
	host, ok := k.address("listen.sign_in.address", in.Address)
	u, err := download.Endpoint(in.URL)
	switch {
	case err != nil:
		k.problem("listen.sign_in.url", "such as https://weir.example:8443", "%v", err)
	case ok && u.Scheme == "http" && !loopback(host):
		k.problem("listen.sign_in.url", "use https", "says http, but the address is not on loopback")
	case net.ParseIP(u.Hostname()) != nil && net.ParseIP(u.Hostname()).IsUnspecified():
		k.problem("listen.sign_in.url", "", "names no host that a browser can reach")
	}
}
