package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core/chain"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/credential"
	"github.com/weir-gateway/weir/core/opa"
)

func (l *loader) policies(ctx context.Context) {
	for i := range l.c.Policies {
		p, at := &l.c.Policies[i], fmt.Sprintf("policies[%d].path", i)
		oc := opa.Config{Name: p.Name, Path: p.Path, Packages: p.Packages, Timeout: p.Timeout, MaxBytes: p.MaxSize, Engine: opa.Engine(p.Engine), Log: l.log}
		if name, ok := strings.CutPrefix(p.Path, config.Builtin); ok {
			sub, err := builtin(l.Policies, name)
			if err != nil {
				l.fail(at, "builtin policies are: "+strings.Join(folders(l.Policies), ", "), fmt.Errorf("there is no builtin policy %q", name))
				continue
			}
			oc.FS = sub
		}
		if p.Key != "" {
			pem, err := os.ReadFile(p.Key)
			if err != nil {
				l.fail(fmt.Sprintf("policies[%d].key", i), "", err)
				continue
			}
			oc.Key = &opa.Key{PEM: string(pem), Algorithm: p.Algorithm}
		}
		policy, err := l.bundle(ctx, p, oc)
		if err != nil {
			l.failLines(at, err)
			continue
		}
		for _, x := range []struct {
			at, pkg string
			names   []string
		}{{"admin.chain", opa.AdminPackage, l.c.Admin.Chain}, {"admin.recordings", opa.ReplayPackage, l.c.Admin.Recordings}} {
			if slices.Contains(x.names, p.Name) && policy.Judges() != x.pkg {
				l.fail(at, "such as builtin:"+strings.TrimPrefix(x.pkg, "weir."), fmt.Errorf("policy %q has no package %s, which is what %s asks", p.Name, x.pkg, x.at))
			} else if !slices.Contains(x.names, p.Name) && policy.Judges() == x.pkg {
				l.fail(at, "name it in "+x.at, fmt.Errorf("policy %q has the package %s, which no chain of a target asks", p.Name, x.pkg))
			}
		}
		if l.dry {
			engine, why := policy.Engine()
			l.engines = append(l.engines, engineOf{p.Name, string(engine), why})
		}
		l.steps[p.Name] = chain.Step{Name: p.Name, Plugin: policy, OnError: p.OnError}
	}
}

// bundle loads a policy. One at a URL is fetched before; when what comes is no good, or nothing comes, the last good
// copy is used.
func (l *loader) bundle(ctx context.Context, p *config.Policy, oc opa.Config) (*opa.Policy, error) {
	if !opa.IsURL(p.Path) {
		return opa.Load(ctx, oc)
	}
	dir := policiesDir(l.c)
	if l.dry { // nothing of the gateway's is touched
		temp, err := os.MkdirTemp("", "weir-check-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(temp)
		dir = temp
	}
	r, err := remoteOf(ctx, l.c, p, dir)
	if err != nil {
		return nil, err
	}
	fresh, mark, err := r.Fetch(ctx)
	if err == nil && fresh != "" {
		oc.Path = fresh
		policy, bad := opa.Load(ctx, oc)
		if bad == nil {
			bad = r.Check(policy)
		}
		switch {
		case bad == nil && l.dry:
			return policy, nil
		case bad == nil:
			l.ages.good(p.Name)
			return policy, r.Keep(fresh, mark, policy)
		}
		err = errors.Join(bad, os.Remove(fresh))
	}
	if err == nil {
		l.ages.good(p.Name)
	}
	age, kept := r.Age()
	if !kept {
		return nil, fmt.Errorf("no good bundle has come yet, so there is nothing to judge by: %w", err)
	}
	if err != nil {
		l.log.Error("cli: a bundle cannot be used; the last good one is", "policy", p.Name, "age", age.Round(time.Second), "error", err)
	}
	oc.Path = r.File
	return opa.Load(ctx, oc)
}

// remoteOf is a policy's bundle at its URL.
func remoteOf(ctx context.Context, c *config.Config, p *config.Policy, dir string) (*opa.Remote, error) {
	r := &opa.Remote{
		URL: p.Path, File: filepath.Join(dir, p.Name+".tar.gz"), MaxBytes: p.MaxSize,
		History: filepath.Join(policiesDir(c), p.Name+".history.json"), Back: p.Rollback,
	}
	if p.Token.IsZero() {
		return r, opa.CheckURL(p.Path)
	}
	source, err := credential.Parse(p.Token.Reference(), c.Dir)
	if err != nil {
		return nil, err
	}
	token, err := source.Read(ctx)
	if err != nil {
		return nil, err
	}
	r.Token = token
	return r, opa.CheckURL(p.Path)
}

// watch asks for other bundles from time to time, and calls changed when one has come that was not refused before.
func (w *wiring) watch(ctx context.Context, c *config.Config, changed func()) {
	w.ages.watch(c, func(p *config.Policy) string { return filepath.Join(policiesDir(c), p.Name+".tar.gz") })
	for i := range c.Policies {
		if p := &c.Policies[i]; opa.IsURL(p.Path) {
			go w.poll(ctx, c, p, changed)
		}
	}
}

func (w *wiring) poll(ctx context.Context, c *config.Config, p *config.Policy, changed func()) {
	t := time.NewTicker(p.Poll)
	defer t.Stop()
	var seen [sha256.Size]byte // the digest of the last one that was told of
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		fresh, sum, err := w.newer(ctx, c, p)
		if err == nil && !fresh {
			w.ages.good(p.Name)
		}
		switch {
		case err != nil && ctx.Err() == nil && !failing:
			failing = true
			w.log.Warn("cli: a bundle's server does not answer; the last good one is used", "policy", p.Name, "error", err)
		case err != nil:
		case failing:
			failing = false
			w.log.Info("cli: a bundle's server answers again", "policy", p.Name)
		}
		if err == nil && fresh && sum != seen {
			seen = sum
			changed()
		}
	}
}

// newer reports whether the server has another bundle than the one that is kept, and its digest.
func (w *wiring) newer(ctx context.Context, c *config.Config, p *config.Policy) (fresh bool, sum [sha256.Size]byte, err error) {
	r, err := remoteOf(ctx, c, p, policiesDir(c))
	if err != nil {
		return false, sum, err
	}
	file, _, err := r.Fetch(ctx)
	if err != nil || file == "" {
		return false, sum, err
	}
	b, err := os.ReadFile(file)
	return true, sha256.Sum256(b), errors.Join(err, os.Remove(file))
}
