package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/weir-gateway/weir/core"
)

// generation is one state of the settings, as long as somebody is served by it.
type generation struct {
	Settings
	number  uint64             // of its reload: a later one is higher
	served  map[string]*served // by configured address
	targets map[string]*Target // by name
	tables  bool               // some chain asks what sessions have touched, maybe in others of their run
	refs    atomic.Int64       // its clients, the sessions that follow it, and one for being the present one
}

// served is what one listener offers.
type served struct {
	*generation
	protocol  string
	handler   core.Handler
	targets   map[string]*Target
	only      *Target // the only target, if there is only one
	signIn    time.Duration
	clientLeg *tls.Config    // nil: the listener has none
	proxies   []netip.Prefix // whose PROXY headers count
	where     string         // for errors: "file:line: ", or empty
}

func (s *served) names() []string {
	names := make([]string, 0, len(s.targets))
	for n := range s.targets {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// release gives up one reference; the last one lets go of what the settings hold.
func (g *generation) release() {
	if g.refs.Add(-1) == 0 && g.Release != nil {
		g.Release()
	}
}

// generation makes the handlers of s and checks that they fit together.
func (g *Gateway) generation(s Settings) (*generation, error) {
	gen := &generation{Settings: s, served: map[string]*served{}, targets: map[string]*Target{}}
	gen.refs.Store(1)
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("gateway: "+format, args...)) }
	if s.Verifier == nil {
		fail("there is no verifier: nobody could sign in")
	}
	protocols := map[string]core.Protocol{}
	for _, p := range g.Protocols {
		protocols[p.Name()] = p
	}
	seen := map[string]bool{}
	targets := make([]*Target, 0, len(s.Targets))
	for _, t := range s.Targets {
		own := *t.Target
		own.Limits = fill(own.Limits)
		t.Target = &own
		switch {
		case protocols[t.Protocol] == nil:
			fail("target %s: this build does not speak %q", t.Name, t.Protocol)
			continue
		case seen[t.Name]:
			fail("target %s stands twice", t.Name)
			continue
		}
		if t.ClientCert != "" && s.Certificates == nil {
			fail("target %s takes certificates of clients, and nobody can verify them", t.Name)
			continue
		}
		seen[t.Name] = true
		targets = append(targets, &t)
		gen.targets[t.Name] = &t
		if sub, ok := t.Chain.(core.Subscriber); ok && sub.Subscription().Tables {
			gen.tables = true
		}
		if t.Listen == "" {
			continue
		}
		at := gen.served[t.Listen]
		if at == nil {
			at = &served{generation: gen, protocol: t.Protocol, targets: map[string]*Target{}}
			if t.Where != "" {
				at.where = t.Where + ": "
			}
			gen.served[t.Listen] = at
		}
		if len(t.Proxies) > 0 {
			if at.proxies != nil && !slices.Equal(at.proxies, t.Proxies) {
				fail("%slistener %s: its targets list different proxies", at.where, t.Listen)
			}
			at.proxies = t.Proxies
		}
		if at.protocol != t.Protocol {
			fail("%slistener %s cannot speak both %s and %s", at.where, t.Listen, at.protocol, t.Protocol)
		}
	}
	for _, t := range targets {
		reached := false
		for address, at := range gen.served {
			if at.protocol == t.Protocol && (t.Listen == "" || t.Listen == address) {
				at.targets[t.Name] = t
				at.signIn = max(at.signIn, t.Limits.SignIn)
				reached = true
			}
		}
		if !reached {
			fail("target %s: no listener speaks %s", t.Name, t.Protocol)
		}
	}
	for address, at := range gen.served {
		list := make([]*core.Target, 0, len(at.targets))
		for _, name := range at.names() {
			list = append(list, at.targets[name].Target)
			at.only = at.targets[name]
		}
		if len(list) != 1 {
			at.only = nil
		}
		at.clientLeg = certifying(s.TLS, at.targets)
		var err error
		if at.handler, err = protocols[at.protocol].Handler(list); err != nil {
			errs = append(errs, fmt.Errorf("gateway: listener %s: %w", address, err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return gen, nil
}
