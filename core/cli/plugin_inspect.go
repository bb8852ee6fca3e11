package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/wasm"
	"github.com/weir-gateway/weir/core/wasm/fetch"
)

// guest is a module that a command works on, outside of any configuration; or a plugin of the program that needs none.
type guest struct {
	host   *wasm.Host
	native *core.Native
	module *fetch.Module // of a guest
	plugin *wasm.Plugin  // compiled, not configured
	close  func()
}

// loaded is a plugin with a configuration.
type loaded interface {
	core.Plugin
	core.Subscriber
	core.Closer
	Manifest() wasm.Manifest
	Close(ctx context.Context) error
}

// nativePrefix is how commands tell a plugin of the program from a module.
const nativePrefix = "native:"

// open gets a module by its reference and compiles it. It may have whatever it needs: nothing depends on it.
func (a *app) open(ctx context.Context, s fetch.Source) (*guest, error) {
	if name, ok := strings.CutPrefix(s.Ref, nativePrefix); ok {
		return a.openNative(ctx, name, s)
	}
	f := fetch.Fetcher{Builtin: a.Plugins, Unpinned: true}
	m, err := f.Get(ctx, s)
	if err != nil {
		return nil, use(fmt.Errorf("plugin: %w", err))
	}
	host, err := wasm.Open(ctx, wasm.HostConfig{})
	if err != nil {
		return nil, unreachable(err)
	}
	p, err := host.Prepare(ctx, wasm.Config{Name: s.Ref, Module: m.Bytes, GrantAll: true})
	if err != nil {
		_ = host.Close(context.WithoutCancel(ctx))
		return nil, no(err)
	}
	return &guest{host: host, module: m, plugin: p, close: func() {
		ctx := context.WithoutCancel(ctx)
		_ = p.Close(ctx)
		_ = host.Close(ctx)
	}}, nil
}

func (a *app) openNative(ctx context.Context, name string, s fetch.Source) (*guest, error) {
	if s.SHA256 != "" || s.User != "" || s.Password != "" {
		return nil, use(errors.New("plugin: a native plugin is part of the program: there is nothing to fetch or to compare"))
	}
	n, err := a.Build.native(name)
	if err != nil {
		return nil, use(fmt.Errorf("plugin: %w", err))
	}
	host, err := wasm.Open(ctx, wasm.HostConfig{})
	if err != nil {
		return nil, unreachable(err)
	}
	return &guest{host: host, native: n, close: func() { _ = host.Close(context.WithoutCancel(ctx)) }}, nil
}

// load makes it work with a configuration, as a gateway would.
func (g *guest) load(ctx context.Context, config map[string]any) (loaded, error) {
	if g.native != nil {
		p, err := g.host.Native(g.native, wasm.Config{Name: g.native.Name, Config: config})
		if err != nil {
			return nil, no(err)
		}
		return p, nil
	}
	p, err := g.host.Load(ctx, wasm.Config{Name: g.plugin.Manifest().Name, Module: g.module.Bytes, Config: config, GrantAll: true})
	if err != nil {
		return nil, no(err)
	}
	return p, nil
}

// inspected is what inspect tells.
type inspected struct {
	Ref      string          `json:"ref"`
	SHA256   string          `json:"sha256,omitempty"` // this and what has omitzero is of guests only
	Size     int64           `json:"size,omitzero"`
	Manifest *wasm.Manifest  `json:"manifest"`
	Grants   []string        `json:"grants"` // that it needs
	Imports  []string        `json:"imports"`
	Limits   inspectedLimits `json:"limits,omitzero"`
}

type inspectedLimits struct {
	Memory    int64  `json:"memory"` // bytes
	Command   string `json:"command"`
	Rows      string `json:"rows"`
	Start     string `json:"start"`
	Instances int    `json:"instances"`
	Value     int    `json:"value"`
}

func (a *app) pluginInspect() *cobra.Command {
	var output, env string
	var s fetch.Source
	c := &cobra.Command{
		Use:   "inspect FILE|REF",
		Short: "Show what a plugin is, what it asks for and what it may use",
		Long: "Show a plugin's manifest, the host's functions that it uses, the grants that it needs, and the limits that hold by default.\n" +
			"REF is builtin:NAME, an https:// URL, or oci://HOST/REPO[:TAG]; what is not pinned yet is fetched, and its digest printed.\n" +
			"Of the plugin only weir_describe is run. native:NAME is a plugin of the program that runs without a guest.",
		Example: "  weir plugin inspect mask.wasm\n  weir plugin inspect builtin:pii -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s.Ref = args[0]
			if env != "" {
				if s.Password = os.Getenv(env); s.Password == "" {
					return use(fmt.Errorf("--password-env: %s is not set", env))
				}
			}
			g, err := a.open(cmd.Context(), s)
			if err != nil {
				return err
			}
			defer g.close()
			x, err := g.inspect()
			if err != nil {
				return no(err)
			}
			if output == "json" {
				return a.printJSON(x)
			}
			a.inspected(x)
			return nil
		},
	}
	c.Flags().StringVar(&s.SHA256, "sha256", "", "the `digest` that the module must have")
	c.Flags().StringVar(&s.User, "user", "", "`name` for the server that the module is on")
	c.Flags().StringVar(&env, "password-env", "", "`variable` of the environment that has the password for it")
	outputFlag(c, &output)
	return c
}

func (g *guest) inspect() (*inspected, error) {
	if g.native != nil {
		m, err := wasm.NativeManifest(g.native)
		return &inspected{Ref: nativePrefix + g.native.Name, Manifest: m, Grants: []string{}, Imports: []string{}}, err
	}
	m, l := g.plugin.Manifest(), g.plugin.Limits()
	x := &inspected{
		Ref: g.module.Ref, SHA256: g.module.SHA256, Size: int64(len(g.module.Bytes)), Manifest: &m, Grants: m.Needs.Words(), Imports: g.plugin.Imports(),
		Limits: inspectedLimits{int64(l.MemoryPages) << 16, l.Command.String(), l.Rows.String(), l.Start.String(), l.Instances, l.Value},
	}
	if x.Grants == nil {
		x.Grants = []string{}
	}
	return x, nil
}

func (a *app) inspected(x *inspected) {
	m := x.Manifest
	line := func(name, format string, args ...any) {
		if s := fmt.Sprintf(format, args...); s != "" {
			fmt.Fprintf(a.out, "%-9s %s\n", name, printable(s))
		}
	}
	line("name", "%s %s", m.Name, m.Version)
	line("ref", "%s", x.Ref)
	if x.SHA256 == "" {
		line("runs", "as part of the program: nothing bounds its memory or its time")
	} else {
		line("sha256", "%s", x.SHA256)
		line("size", "%s", size(x.Size))
		state := "instances are shared by all sessions"
		if m.State == "connection" {
			state = "an instance for each session"
		}
		line("abi", "%d, %s", m.ABI, state)
	}
	for _, s := range m.Subscribe {
		text := strings.Join(s.Kinds, ", ")
		if len(s.Columns) > 0 {
			text += "; columns " + strings.Join(s.Columns, ", ")
		}
		if len(s.Protocols) > 0 {
			text += "; of " + strings.Join(s.Protocols, ", ")
		}
		line("sees", "%s", text)
	}
	changes := "nothing"
	if m.Mutates {
		changes = "values"
	}
	line("changes", "%s", changes)
	onError := m.OnError
	if onError == "" {
		onError = "deny"
	}
	line("on_error", "%s", onError)
	if len(x.Grants) > 0 {
		line("needs", "grants: [%s]", strings.Join(x.Grants, ", "))
	}
	if m.Needs.KV {
		line("kv", "of this gateway's process: several gateways do not share it, and a restart begins anew")
	}
	line("imports", "%s", strings.Join(x.Imports, " "))
	if x.SHA256 != "" {
		line("limits", "memory %s, command %s, rows %s, start %s, %d instances", size(x.Limits.Memory), x.Limits.Command, x.Limits.Rows, x.Limits.Start, x.Limits.Instances)
	}
	var metrics []string
	for _, k := range m.Metrics {
		metrics = append(metrics, k.Name+" ("+k.Kind+")")
	}
	line("metrics", "%s", strings.Join(metrics, ", "))
	line("config", "%s", settings(m.Schema))
}

// settings names the keys of a config_schema.
func settings(schema json.RawMessage) string {
	if len(schema) == 0 {
		return "no schema: anything is passed on"
	}
	var s struct {
		Properties map[string]json.RawMessage `json:"properties"`
		Required   []string                   `json:"required"`
	}
	if json.Unmarshal(schema, &s) != nil || len(s.Properties) == 0 {
		return "by its schema: see -o json"
	}
	needed := map[string]bool{}
	for _, k := range s.Required {
		needed[k] = true
	}
	var keys []string
	for k := range s.Properties {
		if needed[k] {
			k += " (required)"
		}
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return strings.Join(keys, ", ")
}
