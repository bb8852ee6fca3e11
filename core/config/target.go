package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"

	"github.com/weir-gateway/weir/core"
)

var typeOfTarget = reflect.TypeFor[Target]()

// Core makes the noun of the target. Its Credential is left to the caller. What is wrong with the files that the
// target names comes back as a Problems.
func (t *Target) Core() (*core.Target, error) {
	c := &core.Target{
		Name: t.Name, Protocol: t.Protocol, Labels: t.Labels,
		Upstream: core.Upstream{Address: t.Upstream.Address, Database: t.Upstream.Database, TLSMode: t.Upstream.TLS},
		Record:   core.ParseLevel(t.Record), Promise: t.Promise, AllowIncomplete: t.AllowIncomplete,
		Limits: core.Limits{
			MaxFrame: t.Limits.MaxFrame, StatementTimeout: t.Limits.StatementTimeout, Idle: t.Limits.Idle, Rows: t.Limits.Rows,
			Sessions: t.Limits.Sessions, PerIdentity: t.Limits.PerIdentity, PerRun: t.Limits.PerRun, SignIn: t.Limits.SignIn, Drain: t.Limits.Drain,
		},
		Hold:   core.Holding{Mode: t.Hold.Mode, Wait: t.Hold.Wait, Valid: t.Hold.Valid}.WithDefaults(),
		Decode: t.decode, OnExpiry: t.OnExpiry,
	}
	var problems Problems
	c.Upstream.TLS, problems = t.tls()
	if len(problems) > 0 {
		return nil, problems
	}
	return c, nil
}

// decode decodes the protocol's own settings strictly into v.
func (t *Target) decode(v any) error {
	node, ok := t.Rest[t.Protocol]
	if !ok {
		return nil
	}
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("config: settings of %s cannot be decoded into %T", t.Protocol, v)
	}
	d := &decoder{file: t.from.File}
	d.value(&node, p.Elem(), t.At(t.Protocol), 0, "")
	if len(d.problems) > 0 {
		return d.problems
	}
	return nil
}

// tls makes the client side of the upstream leg, in the sense of libpq's sslmode.
func (t *Target) tls() (*tls.Config, Problems) {
	var problems Problems
	c := t.Upstream.client(func(key, text string) { problems = append(problems, t.from.Problem(t.At("upstream."+key), text, "")) })
	return c, problems
}

// client makes the client's side, nil where there is no TLS, and tells what is wrong with one of the keys.
func (u *Upstream) client(fail func(key, text string)) *tls.Config {
	if u.TLS == core.TLSDisable {
		return nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.ServerName}
	if c.ServerName == "" {
		c.ServerName, _, _ = net.SplitHostPort(u.Address)
	}
	if u.CA != "" {
		pem, err := os.ReadFile(u.CA)
		if err != nil {
			fail("ca", "cannot be read: "+err.Error())
		} else if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(pem) {
			fail("ca", u.CA+" holds no PEM certificate")
		}
	}
	if u.Cert != "" && u.Key != "" {
		pair, err := tls.LoadX509KeyPair(u.Cert, u.Key)
		if err != nil {
			fail("cert", "cannot be used: "+err.Error())
		}
		c.Certificates = []tls.Certificate{pair}
	}
	switch u.TLS {
	case core.TLSRequire:
		c.InsecureSkipVerify = true // what require means; check warns of it
	case core.TLSVerifyCA:
		roots := c.RootCAs
		c.InsecureSkipVerify = true // the chain is verified below, the name is not
		c.VerifyConnection = func(s tls.ConnectionState) error { return verifyChain(s, roots) }
	}
	return c
}

func verifyChain(s tls.ConnectionState, roots *x509.CertPool) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the upstream shows no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
	return err
}
