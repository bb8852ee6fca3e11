// Package wasm runs guests as plugins. A guest is a WebAssembly module that speaks the contract of sdk/ABI.md: one
// call for a command or a batch of rows, over one region of its own memory. It sees the events it subscribed to and
// nothing else: no files, no network, no environment, no clock unless it asks.
//
// A guest is trusted with nothing but its verdict. It is checked and given fuel before it is compiled, its memory is
// bounded, each call has a deadline, and after any trap, overrun or answer out of contract its instance is thrown
// away and the error is the step's: by default a denial.
package wasm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/weir-gateway/weir/core"
)

// HostConfig says where compiled guests are kept.
type HostConfig struct {
	// CacheDir keeps compiled guests between starts; made with mode 0700, because what is in it is run. Empty: in
	// memory only. A Go guest takes about a second to compile and 50 ms to load.
	CacheDir string
	Log      *slog.Logger
	// Metrics gets the weir_plugin_ metrics; nil: they are counted but not shown.
	Metrics prometheus.Registerer
}

// Host holds what plugins share: the compilation cache and the metrics.
type Host struct {
	cache   wazero.CompilationCache
	log     *slog.Logger
	metrics *metrics
}

// Open makes a Host.
func Open(_ context.Context, c HostConfig) (*Host, error) {
	h := &Host{log: c.Log}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if c.CacheDir == "" {
		h.cache = wazero.NewCompilationCache()
	} else {
		if err := os.MkdirAll(c.CacheDir, 0o700); err != nil {
			return nil, fmt.Errorf("wasm: cache: %w", err)
		}
		info, err := os.Stat(c.CacheDir)
		if err != nil {
			return nil, fmt.Errorf("wasm: cache: %w", err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			return nil, fmt.Errorf("wasm: cache: %s has mode %v, and what is in it is run: chmod 700 it", c.CacheDir, info.Mode().Perm())
		}
		if h.cache, err = wazero.NewCompilationCacheWithDir(c.CacheDir); err != nil {
			return nil, fmt.Errorf("wasm: cache: %w", err)
		}
	}
	var err error
	if h.metrics, err = newMetrics(c.Metrics); err != nil {
		_ = h.cache.Close(context.Background())
		return nil, fmt.Errorf("wasm: metrics: %w", err)
	}
	return h, nil
}

// Close frees the cache. The plugins must be closed before.
func (h *Host) Close(ctx context.Context) error { return h.cache.Close(ctx) }

// Limits bound one plugin. Zero values mean the defaults.
type Limits struct {
	MemoryPages uint32        // of 64 KiB for one instance; default 1024 (64 MiB), or less if the manifest says so
	Command     time.Duration // one call for anything but rows; default 50 ms
	Rows        time.Duration // one call for a batch of rows; default the manifest's deadline_ms, or 100 ms
	Start       time.Duration // making and configuring an instance; default 5 s
	Instances   int           // at a time; default twice the processors, at least 4
	Value       int           // bytes of the largest row, text or piece that is passed in; default 8 MiB
}

func (l Limits) withDefaults(m *Manifest) Limits {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	rows := 100 * time.Millisecond
	if m != nil && m.Deadline > 0 {
		rows = time.Duration(m.Deadline) * time.Millisecond
	}
	set(&l.Command, 50*time.Millisecond)
	set(&l.Rows, rows)
	set(&l.Start, 5*time.Second)
	if l.MemoryPages == 0 || l.MemoryPages > 65536 {
		l.MemoryPages = 1024
	}
	if l.Instances <= 0 {
		l.Instances = max(4, 2*runtime.GOMAXPROCS(0))
	}
	if l.Value <= 0 {
		l.Value = 8 << 20
	}
	return l
}

// Config says which guest to load, and how.
type Config struct {
	Name   string // the plugin's, in errors, logs and metrics
	Module []byte
	Config map[string]any // passed to the guest as JSON
	// OnError overrides the manifest's: "deny" or "pass".
	OnError string
	// AllowUnmasked lets OnError be "pass" for a guest that changes values: when it fails, they pass unchanged.
	AllowUnmasked bool
	// Columns are the only ones that the guest may see, by the patterns of a mask; none: all that it subscribes to.
	Columns []string
	Limits  Limits

	noFuel bool // for measurements
}

// Load checks, compiles and tries a guest. Nothing of it is kept when it fails.
func (h *Host) Load(ctx context.Context, c Config) (*Plugin, error) {
	p, err := h.load(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("wasm: plugin %q: %w", c.Name, err)
	}
	return p, nil
}

// exports are what a guest must have, with their types.
var exports = []struct {
	name            string
	params, results []api.ValueType
}{
	{"weir_abi_v1", nil, []api.ValueType{api.ValueTypeI32}},
	{"weir_describe", nil, []api.ValueType{api.ValueTypeI64}},
	{"weir_configure", []api.ValueType{api.ValueTypeI32, api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}},
	{"weir_buffer", []api.ValueType{api.ValueTypeI32}, []api.ValueType{api.ValueTypeI32}},
	{"weir_on_batch", []api.ValueType{api.ValueTypeI32, api.ValueTypeI32}, []api.ValueType{api.ValueTypeI64}},
}

func (h *Host) load(ctx context.Context, c Config) (_ *Plugin, err error) {
	module, info, err := instrument(c.Module, !c.noFuel)
	if err != nil {
		return nil, err
	}
	limits := c.Limits.withDefaults(nil)
	switch {
	case info.memories != 1:
		return nil, fmt.Errorf("it has %d memories of its own: one is needed", info.memories)
	case info.memoryPages > limits.MemoryPages:
		return nil, fmt.Errorf("it starts with %d pages of memory: at most %d are given (raise limits.memory_pages)", info.memoryPages, limits.MemoryPages)
	}
	for _, f := range info.imports {
		if f.module != wasi_snapshot_preview1.ModuleName && (f.module != hostModule || hostFunctions[f.name] == nil) {
			return nil, fmt.Errorf("it imports %s.%s, which guests are not given", f.module, f.name)
		}
	}
	raw, err := json.Marshal(c.Config)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if c.Config == nil {
		raw = []byte("{}")
	}
	p := &Plugin{name: c.Name, host: h, log: h.log.With("plugin", c.Name), config: raw, limits: limits, fuel: !c.noFuel}
	p.metrics = h.metrics.of(c.Name)
	rc := wazero.NewRuntimeConfigCompiler().WithCompilationCache(h.cache).WithMemoryLimitPages(limits.MemoryPages).
		WithDebugInfoEnabled(false).WithCoreFeatures(api.CoreFeaturesV2)
	p.runtime = wazero.NewRuntimeWithConfig(ctx, rc) // one each: modules of one runtime could import each other
	defer func() {
		if err != nil {
			_ = p.runtime.Close(context.Background())
		}
	}()
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, p.runtime); err != nil {
		return nil, err
	}
	if err := provide(ctx, p.runtime); err != nil {
		return nil, err
	}
	p.compiled, err = p.runtime.CompileModule(experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0)), module)
	if err != nil {
		return nil, fmt.Errorf("it does not compile: %w", err)
	}
	defined := p.compiled.ExportedFunctions()
	if defined["weir_abi_v1"] == nil {
		return nil, errors.New("it does not export weir_abi_v1: it is no Weir plugin, or one for another version of the contract")
	}
	for _, x := range exports {
		d := defined[x.name]
		if d == nil {
			return nil, fmt.Errorf("it does not export %s", x.name)
		}
		if !sameTypes(d.ParamTypes(), x.params) || !sameTypes(d.ResultTypes(), x.results) {
			return nil, fmt.Errorf("its export %s has the wrong type", x.name)
		}
	}
	if p.compiled.ExportedMemories()["memory"] == nil {
		return nil, errors.New("it does not export its memory")
	}
	in, err := p.instantiate(ctx, false)
	if err != nil {
		return nil, err
	}
	p.manifest, err = in.describe(ctx)
	in.discard()
	if err != nil {
		return nil, err
	}
	if err := p.adopt(c); err != nil {
		return nil, err
	}
	// One instance is made now, so that what its configuration is wrong with is said at start.
	if in, err = p.instantiate(ctx, true); err != nil {
		return nil, err
	}
	p.pool = newPool(p.limits.Instances)
	p.pool.add(in)
	return p, nil
}

// adopt takes over what the manifest says, as far as the operator allows.
func (p *Plugin) adopt(c Config) (err error) {
	m := p.manifest
	if p.sub, err = m.subscription(); err != nil {
		return err
	}
	if p.sub.Only = c.Columns; len(c.Columns) > 0 && len(p.sub.Columns) == 0 {
		return errors.New("columns would do nothing: it sees no columns at all (remove the setting)")
	}
	if m.Memory > p.limits.MemoryPages {
		return fmt.Errorf("it needs %d pages of memory: at most %d are given (raise limits.memory_pages)", m.Memory, p.limits.MemoryPages)
	}
	p.limits = c.Limits.withDefaults(m)
	p.onError = m.OnError
	if c.OnError != "" {
		p.onError = c.OnError
	}
	switch p.onError {
	case "":
		p.onError = "deny"
	case "deny":
	case "pass":
		if m.Mutates && !c.AllowUnmasked {
			return errors.New("on_error is pass, but it changes values: when it fails they would pass unchanged (say allow_unmasked: true if that is meant)")
		}
	default:
		return fmt.Errorf("on_error is %q: say deny or pass", p.onError)
	}
	for _, k := range m.Metrics {
		p.metrics.declare(k)
	}
	return nil
}

func sameTypes(a, b []api.ValueType) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

var (
	_ core.Plugin     = (*Plugin)(nil)
	_ core.Subscriber = (*Plugin)(nil)
	_ core.Closer     = (*Plugin)(nil)
)
