package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Certificates is one authority whose certificates clients may show in the place of a token, at targets with client_cert.
type Certificates struct {
	Name string `yaml:"name"`
	// CA is a PEM file with certificates of authorities, read again when it changes; or WorkloadAPI (unix:///path) is where a
	// SPIFFE agent tells them.
	CA          string `yaml:"ca"`
	WorkloadAPI string `yaml:"workload_api"`
	// TrustDomain is whose SPIFFE ids they vouch for; or Subject is the field that names the client: cn, dns or email.
	TrustDomain string            `yaml:"trust_domain"`
	Subject     string            `yaml:"subject"`
	Kind        string            `yaml:"kind"` // service (default) or agent
	Groups      []string          `yaml:"groups"`
	Rules       []CertificateRule `yaml:"rules"` // the first that fits says more
}

// CertificateRule says what a client is by its name.
type CertificateRule struct {
	Match  string   `yaml:"match"` // the whole name, or with * at its end how it begins
	Kind   string   `yaml:"kind"`
	Groups []string `yaml:"groups"`
}

var certificateKinds = []string{"service", "agent"}

func (k *checker) certificates() {
	seen, domains := map[string]bool{}, map[string]bool{}
	for i, c := range k.Identity.Certificates {
		at := fmt.Sprintf("identity.certificates[%d]", i)
		k.name(at, c.Name, seen)
		switch {
		case (c.CA == "") == (c.WorkloadAPI == ""):
			k.problem(at, "ca: clients.pem, or workload_api: unix:///run/spire/agent.sock", "needs either ca or workload_api")
		case (c.TrustDomain == "") == (c.Subject == ""):
			k.problem(at, "trust_domain: example.org, or subject: cn", "needs either trust_domain or subject")
		case c.Subject != "" && !slices.Contains([]string{"cn", "dns", "email"}, c.Subject):
			k.problem(at+".subject", hintNearest(c.Subject, []string{"cn", "dns", "email"}), "%q is not cn, dns or email", c.Subject)
		case c.WorkloadAPI != "" && c.TrustDomain == "":
			k.problem(at, "add trust_domain", "a Workload API has authorities of trust domains only")
		case c.WorkloadAPI != "" && !strings.HasPrefix(c.WorkloadAPI, "unix:///"):
			k.problem(at+".workload_api", "such as unix:///run/spire/agent.sock", "is not a Unix socket")
		case domains[c.TrustDomain] && c.TrustDomain != "":
			k.problem(at+".trust_domain", "", "stands twice: its authorities belong into one place")
		}
		if c.TrustDomain != "" {
			if d, err := spiffeid.TrustDomainFromString(c.TrustDomain); err != nil || d.Name() != c.TrustDomain {
				k.problem(at+".trust_domain", "such as example.org", "%q is no trust domain", c.TrustDomain)
			}
		}
		domains[c.TrustDomain] = true
		k.certificateKind(at, c.Kind)
		for j, r := range c.Rules {
			at := fmt.Sprintf("%s.rules[%d]", at, j)
			k.certificateKind(at, r.Kind)
			head, _ := strings.CutSuffix(r.Match, "*")
			switch {
			case head == "" || strings.Contains(head, "*"):
				k.problem(at, "a name, with * at its end or nowhere", "has no match that fits some clients and not all")
			case c.TrustDomain != "" && !strings.HasPrefix(head, "spiffe://"+c.TrustDomain+"/"):
				k.problem(at+".match", "spiffe://"+c.TrustDomain+"/…", "fits no id of the trust domain")
			}
		}
	}
	used := false
	for i := range k.Targets {
		t := &k.Targets[i]
		switch words := []string{"accept", "require"}; {
		case t.ClientCert == "":
		case !slices.Contains(words, t.ClientCert):
			k.problem(t.At("client_cert"), hintNearest(t.ClientCert, words), "%q is not accept or require", t.ClientCert)
		case len(k.Identity.Certificates) == 0:
			k.problem(t.At("client_cert"), "add identity.certificates", "would let nobody in: no authority of clients is configured")
		default:
			used = true
		}
	}
	if len(k.Identity.Certificates) > 0 && !used {
		k.problem("identity.certificates", "add client_cert: accept to a target", "would do nothing: no target takes certificates of clients")
	}
}

func (k *checker) certificateKind(at, kind string) {
	if kind != "" && !slices.Contains(certificateKinds, kind) {
		k.problem(at, hintNearest(kind, certificateKinds), "the kind %q is not service or agent: a certificate is no person's", kind)
	}
}
