package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/credential"
	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/identity"
	"github.com/weir-gateway/weir/core/mask"
	"github.com/weir-gateway/weir/core/opa"
	"github.com/weir-gateway/weir/core/wasm"
)

// wiring makes a gateway's settings out of a configuration. What it holds outlives a reload.
type wiring struct {
	Build
	host   *wasm.Host
	mask   *mask.Key // nil: one for the life of the process
	log    *slog.Logger
	dry    bool // check only: nothing is made, nobody is asked
	caPath string
	ages   *bundleAges
	// engines are what evaluates each policy; only with dry.
	engines []engineOf
}

// newWiring opens what settings share: keys and the plugin host. With dry nothing is written.
func newWiring(ctx context.Context, b Build, c *config.Config, log *slog.Logger, metrics prometheus.Registerer, dry bool) (*wiring, error) {
	w := &wiring{Build: b, log: log, dry: dry, ages: newBundleAges()}
	if metrics != nil {
		if err := metrics.Register(w.ages); err != nil {
			return nil, err
		}
	}
	host := wasm.HostConfig{Log: log, Metrics: metrics, Memory: c.PluginMemory}
	if !dry {
		host.CacheDir = cacheDir(c)
		key, err := maskKey(keysDir(c))
		if err != nil {
			return nil, err
		}
		w.mask = mask.NewKey(key)
	}
	var err error
	w.host, err = wasm.Open(ctx, host)
	return w, err
}

func (w *wiring) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := w.host.Close(ctx); err != nil {
		w.log.Error("cli: plugin host", "error", err)
	}
}

// settings loads everything that c names. On failure the error is a config.Problems with everything that is wrong.
func (w *wiring) settings(ctx context.Context, c *config.Config) (gateway.Settings, error) {
	l := &loader{wiring: w, c: c, steps: map[string]chain.Step{}, chains: map[string]*chain.Chain{}}
	l.openVault()
	l.metadata()
	l.policies(ctx)
	l.plugins(ctx)
	s := gateway.Settings{Targets: l.targets(ctx), Release: l.release}
	s.TLS = l.tls()
	if l.caPath != "" {
		s.CA, _ = filepath.Abs(l.caPath)
	}
	s.Verifier, s.Invite = l.verifier(ctx), l.invite()
	s.Certificates = l.certificates()
	s.Admin, s.Replay, s.Tokens = l.admin("admin.chain", l.c.Admin.Chain), l.admin("admin.recordings", l.c.Admin.Recordings), l.tokens()
	if len(l.problems) > 0 {
		l.release()
		l.problems.Sort()
		return gateway.Settings{}, l.problems
	}
	return s, nil
}

// loader is one run of wiring.settings.
type loader struct {
	*wiring
	c        *config.Config
	problems config.Problems
	steps    map[string]chain.Step
	chains   map[string]*chain.Chain // by the names of their steps
	closers  []func(context.Context) error
	vault    *credential.Vault // nil: there is none
}

func (l *loader) fail(path, hint string, err error) {
	var inner config.Problems
	if errors.As(err, &inner) {
		l.problems = append(l.problems, inner...)
		return
	}
	l.problems = append(l.problems, l.c.Problem(path, err.Error(), hint))
}

func (l *loader) release() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, f := range l.closers {
		if err := f(ctx); err != nil {
			l.log.Error("cli: plugin", "error", err)
		}
	}
}

// failLines makes a problem of each error that was joined: a policy's have file and line of their own.
func (l *loader) failLines(path string, err error) {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		for _, e := range joined.Unwrap() {
			l.failLines(path, e)
		}
		return
	}
	l.fail(path, "", err)
}

func (l *loader) targets(ctx context.Context) []gateway.Target {
	var out []gateway.Target
	for i := range l.c.Targets {
		t := &l.c.Targets[i]
		if t.Protocol != "" && !slices.ContainsFunc(l.Protocols, func(p core.Protocol) bool { return p.Name() == t.Protocol }) {
			l.fail(t.At("protocol"), l.speaks(), fmt.Errorf("this build does not speak %q", t.Protocol))
			continue
		}
		noun, err := t.Core()
		if err != nil {
			l.fail(t.At("upstream"), "", err)
			continue
		}
		logins, ok := l.logins(ctx, t)
		if !ok {
			continue
		}
		noun.Credential = logins.Resolve
		own := gateway.Target{Target: noun, Listen: t.Listen, Where: fmt.Sprintf("%s:%d", l.c.File, l.c.Line(t.At("listen"))), User: logins.User, Proxies: t.Proxies(), ClientCert: t.ClientCert}
		if steps := l.chain(t); steps != nil {
			own.Chain = steps
			own.Notes = l.notes(t)
		}
		out = append(out, own)
	}
	return out
}

func (l *loader) speaks() string {
	var names []string
	for _, p := range l.Protocols {
		names = append(names, p.Name())
	}
	return "it speaks: " + strings.Join(names, ", ")
}

// chain makes the chain of a target, or finds the one of another target with the same steps.
func (l *loader) chain(t *config.Target) *chain.Chain {
	names := t.Steps()
	key := strings.Join(names, "\x00")
	if made, ok := l.chains[key]; ok || len(names) == 0 {
		return made
	}
	var steps []chain.Step
	for _, n := range names {
		s, ok := l.steps[n]
		if !ok {
			return nil // its own problem was told
		}
		steps = append(steps, s)
	}
	made, err := chain.Options{MaskKey: l.mask, Log: l.log}.New(steps...)
	if err != nil {
		l.fail(t.At("chain"), "", err)
	}
	l.chains[key] = made
	return made
}

func (l *loader) tls() *tls.Config {
	t := l.c.Listen.TLS
	if t.Cert != "" {
		c, err := gateway.LoadTLS(t.Cert, t.Key)
		if err != nil {
			l.fail("listen.tls", "", err)
		}
		l.caPath = ""
		return c
	}
	if l.dry {
		return nil
	}
	var hosts []string
	for i := range l.c.Targets {
		if host, _, err := net.SplitHostPort(l.c.Targets[i].Listen); err == nil {
			hosts = append(hosts, host)
		}
	}
	c, ca, err := gateway.LocalTLS(tlsDir(l.c), append(hosts, signInHosts(l.c)...)...)
	if err != nil {
		l.fail("data", "", err)
	}
	l.caPath = ca
	return c
}

// verifier makes what recognises clients. A dry run gets one that recognises nobody: the key is not to be made.
func (l *loader) verifier(ctx context.Context) gateway.Verifier {
	if l.dry {
		return nobody{}
	}
	ic := identity.Config{Log: l.log}
	issuer, err := identity.OpenIssuer(keysDir(l.c), l.c.Identity.ServiceTokens.MaxTTL)
	if err != nil {
		l.fail("identity.service_tokens", "", err)
		return nil
	}
	ic.Operators, ic.RunTTL = issuer, l.c.Identity.ServiceTokens.RunTTL
	if l.c.Identity.ServiceTokens.On() {
		ic.Service = issuer
	}
	for _, o := range l.c.Identity.OIDC {
		p := identity.Provider{
			Name: o.Name, Issuer: o.Issuer, Audience: o.Audience, GroupsClaim: o.GroupsClaim, Clients: o.Clients, Algorithms: o.Algorithms,
			SubjectClaim: o.SubjectClaim, Require: o.Require, RunClaim: o.RunClaim,
		}
		for _, r := range o.Kinds {
			p.Kinds = append(p.Kinds, identity.KindRule{Kind: r.Kind, Claim: r.Claim, Values: r.Values})
		}
		ic.Providers = append(ic.Providers, p)
	}
	v, err := identity.New(ctx, ic)
	if err != nil {
		l.fail("identity", "", err)
		return nil
	}
	return v
}

type nobody struct{}

func (nobody) Verify(context.Context, string) (core.Identity, error) {
	return core.Identity{}, core.ErrUnauthenticated
}

func builtin(f fs.FS, name string) (fs.FS, error) {
	if f == nil || !fs.ValidPath(name) || name == "." {
		return nil, fs.ErrNotExist
	}
	if info, err := fs.Stat(f, name); err != nil || !info.IsDir() {
		return nil, fs.ErrNotExist
	}
	return fs.Sub(f, name)
}

func folders(f fs.FS) (names []string) {
	if f == nil {
		return nil
	}
	entries, err := fs.ReadDir(f, ".")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// notes are what the steps of a target's chain may do, as far as their texts tell it.
func (l *loader) notes(t *config.Target) (out []gateway.Note) {
	for _, name := range t.Steps() {
		if p, ok := l.steps[name].Plugin.(interface{ Manifest() wasm.Manifest }); ok && p.Manifest().Mutates {
			out = append(out, gateway.Note{Step: name, Does: "mask", What: "what it recognises"})
		}
		p, ok := l.steps[name].Plugin.(interface{ Outline() []opa.Outline })
		if !ok {
			continue
		}
		for _, o := range p.Outline() {
			out = append(out, gateway.Note{Step: name, Does: o.Does, What: cmp.Or(o.What, "what the rule works out"), Detail: o.Detail})
		}
	}
	return out
}
