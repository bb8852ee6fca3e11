package cli

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/wasm"
	"github.com/weir-gateway/weir/core/wasm/fetch"
)

func (l *loader) plugins(ctx context.Context) {
	lock, err := fetch.ReadLock(fetch.LockFile(l.c.File))
	if err != nil {
		l.fail("plugins", "weir plugin lock makes a new one", fmt.Errorf("the lock file cannot be used: %w", err))
		return
	}
	for i := range l.c.Plugins {
		l.plugin(ctx, i, lock)
	}
}

func (l *loader) plugin(ctx context.Context, i int, lock *fetch.Lock) {
	p, at := &l.c.Plugins[i], fmt.Sprintf("plugins[%d]", i)
	if p.Native != "" {
		l.native(ctx, p, at)
		return
	}
	module, err := l.module(ctx, i)
	if err == nil {
		err = lock.Check(p.Name, p.Written, module)
	}
	if err != nil {
		l.failModule(at, err)
		return
	}
	guest, err := l.host.Load(ctx, wasm.Config{
		Name: p.Name, Module: module.Bytes, Config: l.settingsOf(ctx, p, at), OnError: p.OnError, AllowUnmasked: p.AllowUnmasked, Columns: p.Columns,
		Grants: p.Grants, GrantAll: strings.HasPrefix(p.WASM, fetch.Builtin) && p.Grants == nil, Limits: limitsOf(p),
	})
	if err != nil {
		l.failPlugin(at, err)
		return
	}
	l.closers = append(l.closers, guest.Close)
	l.steps[p.Name] = chain.Step{Name: p.Name, Plugin: guest, OnError: guest.OnError()}
}

// native makes a step of a plugin that is part of the program.
func (l *loader) native(ctx context.Context, p *config.Plugin, at string) {
	n, err := l.Build.native(p.Native)
	if err != nil {
		l.fail(at+".native", "", err)
		return
	}
	step, err := l.host.Native(n, wasm.Config{Name: p.Name, Config: l.settingsOf(ctx, p, at), Columns: p.Columns})
	if err != nil {
		l.failPlugin(at, err)
		return
	}
	l.steps[p.Name] = chain.Step{Name: p.Name, Plugin: step}
}

// native finds a plugin of the program by its name.
func (b *Build) native(name string) (*core.Native, error) {
	names := []string{}
	for _, n := range b.Natives {
		if n.Name == name {
			return n, nil
		}
		names = append(names, n.Name)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no native plugin %q: this build has none", name)
	}
	return nil, fmt.Errorf("no native plugin %q: this build has %s", name, strings.Join(names, ", "))
}

// settingsOf is what a plugin is configured with, secrets and all.
func (l *loader) settingsOf(ctx context.Context, p *config.Plugin, at string) map[string]any {
	settings, _ := l.secrets(ctx, at+".config", p.Config).(map[string]any)
	return settings
}

// failPlugin tells a problem with a plugin, at its config where it is about that.
func (l *loader) failPlugin(at string, err error) {
	var config *wasm.ConfigError
	if errors.As(err, &config) {
		at += ".config"
	}
	l.fail(at, "", err)
}

func limitsOf(p *config.Plugin) wasm.Limits {
	const page = 64 << 10
	return wasm.Limits{
		MemoryPages: uint32(min((p.Limits.Memory+page-1)/page, 1<<16)), Command: p.Limits.Command, Rows: p.Limits.Rows, Start: p.Limits.Start,
		Instances: p.Limits.Instances, Value: p.Limits.Value,
	}
}

// module gets a plugin's module from where the configuration says it is.
func (l *loader) module(ctx context.Context, i int) (*fetch.Module, error) {
	p, at := &l.c.Plugins[i], fmt.Sprintf("plugins[%d]", i)
	s := fetch.Source{Ref: p.WASM, SHA256: p.SHA256, Signature: p.Signature, User: p.Credential.User}
	key, texts := at+".public_keys", p.PublicKeys
	if len(texts) == 0 {
		key, texts = "plugin_keys", l.c.PluginKeys
	}
	if !strings.HasPrefix(p.WASM, fetch.Builtin) {
		var err error
		if s.Keys, err = l.keys(texts); err != nil {
			return nil, &fetch.Error{Part: strings.TrimPrefix(key, at+"."), Err: err}
		}
	}
	if !p.Credential.Password.IsZero() {
		source, err := l.vault.Parse(p.Credential.Password.Reference(), l.c.Dir)
		if err == nil {
			s.Password, err = source.Read(ctx)
		}
		if err != nil {
			return nil, &fetch.Error{Part: "credential.password", Err: err}
		}
	}
	f := fetch.Fetcher{Builtin: l.Plugins, Dir: pluginsDir(l.c), ReadOnly: l.dry}
	return f.Get(ctx, s)
}

func (l *loader) keys(texts []string) ([]ed25519.PublicKey, error) {
	var all []ed25519.PublicKey
	for i, text := range texts {
		keys, err := fetch.ReadKeys(text, l.c.Path)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		all = append(all, keys...)
	}
	return all, nil
}

// failModule tells a problem with a module at the key that it is about.
func (l *loader) failModule(at string, err error) {
	part, hint := "wasm", ""
	var e *fetch.Error
	if errors.As(err, &e) {
		part, hint = e.Part, e.Hint
	}
	if part != "plugin_keys" {
		part = at + "." + part
	}
	l.fail(part, hint, err)
}

// secrets replaces references in a plugin's settings by the secrets.
func (l *loader) secrets(ctx context.Context, path string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, x := range v {
			m[k] = l.secrets(ctx, path+"."+k, x)
		}
		return m
	case []any:
		s := make([]any, len(v))
		for i, x := range v {
			s[i] = l.secrets(ctx, fmt.Sprintf("%s[%d]", path, i), x)
		}
		return s
	case string:
		if !strings.HasPrefix(v, "${") {
			return v
		}
		source, err := l.vault.Parse(v, l.c.Dir)
		if err == nil {
			v, err = source.Read(ctx)
		}
		if err != nil {
			l.fail(path, "", err)
		}
		return v
	}
	return v
}
