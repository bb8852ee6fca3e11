package cli

import (
	"context"

	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/identity/certificate"
)

// certificates makes what recognises clients by their certificates; nil when no target takes them. A dry run reads the
// files as well, and asks no Workload API.
func (l *loader) certificates() gateway.Certificates {
	list := l.c.Identity.Certificates
	if len(list) == 0 {
		return nil
	}
	c := certificate.Config{Log: l.log}
	for _, x := range list {
		if l.dry && x.WorkloadAPI != "" {
			continue
		}
		a := certificate.Authority{
			Name: x.Name, CA: x.CA, WorkloadAPI: x.WorkloadAPI, TrustDomain: x.TrustDomain, Subject: x.Subject, Kind: x.Kind, Groups: x.Groups,
		}
		for _, r := range x.Rules {
			a.Rules = append(a.Rules, certificate.Rule{Match: r.Match, Kind: r.Kind, Groups: r.Groups})
		}
		c.Authorities = append(c.Authorities, a)
	}
	v, err := certificate.New(c)
	if err != nil {
		l.fail("identity.certificates", "", err)
		return nil
	}
	l.closers = append(l.closers, func(context.Context) error { v.Close(); return nil })
	return v
}
