package wasm

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// Load checks, compiles and tries a guest. Nothing of it is kept when it fails.
func (h *Host) Load(ctx context.Context, c Config) (*Plugin, error) {
	p, err := h.prepare(ctx, c)
	if err == nil {
		if p.config, err = p.manifest.configText(c.Config); err == nil {
			err = p.start(ctx, c)
		}
		if err != nil {
			p.abandon()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("wasm: plugin %q: %w", c.Name, err)
	}
	return p, nil
}

// Prepare is Load without a configuration: the guest can be looked at, and asked with Try, and nothing else.
func (h *Host) Prepare(ctx context.Context, c Config) (*Plugin, error) {
	p, err := h.prepare(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("wasm: plugin %q: %w", c.Name, err)
	}
	p.config, p.pool = []byte("{}"), newPool(0)
	return p, nil
}

var errUnseen = errors.New("columns would do nothing: it sees no columns at all (remove the setting)")

func (p *Plugin) abandon() {
	p.unshare()
	_ = p.runtime.Close(context.Background())
}

// exports are what a guest must have, with their types.
var exports = []struct {
	name            string
	params, results []api.ValueType
}{
	{"weir_abi_v1", nil, []api.ValueType{i32}},
	{"weir_configure", []api.ValueType{i32, i32}, []api.ValueType{i32}},
	{"weir_buffer", []api.ValueType{i32}, []api.ValueType{i32}},
	{"weir_on_batch", []api.ValueType{i32, i32}, []api.ValueType{i64}},
	{"weir_describe", nil, []api.ValueType{i64}},
	{"weir_open", []api.ValueType{i32, i32}, []api.ValueType{i32}},
	{"weir_close", []api.ValueType{i64}, nil},
}

// required are how many of the exports every guest has.
const required = 4

func (h *Host) prepare(ctx context.Context, c Config) (_ *Plugin, err error) {
	module, info, err := instrument(c.Module, !c.noFuel)
	if err != nil {
		return nil, err
	}
	p := &Plugin{name: c.Name, host: h, log: h.log.With("plugin", c.Name), limits: c.Limits.withDefaults(nil), fuel: !c.noFuel}
	p.digest, p.circuit.now = sha256.Sum256(c.Module), time.Now
	for _, f := range info.imports {
		p.imports = append(p.imports, f.module+"."+f.name)
	}
	p.metrics, p.begin = h.metrics.of(c.Name), int64(info.memoryPages)<<16
	if err := p.admissible(info); err != nil {
		return nil, err
	}
	rc := wazero.NewRuntimeConfigCompiler().WithCompilationCache(h.cache).WithMemoryLimitPages(p.limits.MemoryPages).
		WithDebugInfoEnabled(false).WithCoreFeatures(api.CoreFeaturesV2)
	p.runtime = wazero.NewRuntimeWithConfig(ctx, rc) // one each: modules of one runtime could import each other
	defer func() {
		if err != nil {
			p.abandon()
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
	if err := p.exports(); err != nil {
		return nil, err
	}
	if p.manifest, err = p.describe(ctx, info); err != nil {
		return nil, err
	}
	return p, p.adopt(c, info)
}

// start makes the first instance, so that what its configuration is wrong with is said now, and tries it.
func (p *Plugin) start(ctx context.Context, c Config) error {
	p.share()
	in, err := p.instantiate(ctx, true)
	if err != nil {
		return err
	}
	if !c.noSelfTest {
		if err := in.selfTest(ctx); err != nil {
			in.discard()
			return err
		}
	}
	p.pool = newPool(p.limits.Instances)
	if p.pinned != nil { // it has seen the session that was made up
		in.discard()
		return nil
	}
	p.pool.add(in)
	return nil
}

// admissible says whether what the module's head asks for can be given at all.
func (p *Plugin) admissible(info *parsed) error {
	switch {
	case info.memories != 1:
		return fmt.Errorf("it has %d memories of its own: one is needed", info.memories)
	case info.memoryPages > p.limits.MemoryPages:
		return fmt.Errorf("it starts with %d pages of memory: at most %d are given (raise limits.memory)", info.memoryPages, p.limits.MemoryPages)
	}
	for _, f := range info.imports {
		if f.module != wasi_snapshot_preview1.ModuleName && (f.module != hostModule || hostFunctions[f.name] == nil) {
			return fmt.Errorf("it imports %s.%s, which guests are not given", f.module, f.name)
		}
	}
	return nil
}

// exports checks what the guest offers.
func (p *Plugin) exports() error {
	defined := p.compiled.ExportedFunctions()
	if defined["weir_abi_v1"] == nil {
		return errors.New("it does not export weir_abi_v1: it is no Weir plugin, or one for another version of the contract")
	}
	for i, x := range exports {
		d := defined[x.name]
		if d == nil {
			if i < required {
				return fmt.Errorf("it does not export %s", x.name)
			}
			continue
		}
		if !slices.Equal(d.ParamTypes(), x.params) || !slices.Equal(d.ResultTypes(), x.results) {
			return fmt.Errorf("its export %s has the wrong type", x.name)
		}
	}
	if p.compiled.ExportedMemories()["memory"] == nil {
		return errors.New("it does not export its memory")
	}
	return nil
}

// describe finds the manifest: in the module's custom section, or by asking the guest. Where there are both they say
// the same, so that what was looked at is what is run.
func (p *Plugin) describe(ctx context.Context, info *parsed) (*Manifest, error) {
	section, has := info.custom[ManifestSection]
	if has && len(section) > maxManifest {
		return nil, fmt.Errorf("its manifest has %d bytes: at most %d are read", len(section), maxManifest)
	}
	if p.compiled.ExportedFunctions()["weir_describe"] == nil {
		if !has {
			return nil, fmt.Errorf("it has no manifest: neither the export weir_describe nor a custom section %s", ManifestSection)
		}
		return parseManifest(section)
	}
	in, err := p.instantiate(ctx, false)
	if err != nil {
		return nil, err
	}
	defer in.discard()
	said, err := in.describe(ctx)
	if err != nil {
		return nil, err
	}
	if has && !sameJSON(section, said) {
		return nil, fmt.Errorf("weir_describe and the section %s do not say the same", ManifestSection)
	}
	return parseManifest(said)
}

// adopt takes over what the manifest says, as far as the operator allows.
func (p *Plugin) adopt(c Config, info *parsed) (err error) {
	m := p.manifest
	if p.sub, err = m.subscription(); err != nil {
		return err
	}
	if p.sub.Only = c.Columns; len(c.Columns) > 0 && len(p.sub.Columns) == 0 {
		return errUnseen
	}
	for _, need := range m.Needs.Words() {
		if !c.GrantAll && !slices.Contains(c.Grants, need) {
			return fmt.Errorf("it needs %s, which it was not granted (if it may have it, say grants: [%s])", need, strings.Join(m.Needs.Words(), ", "))
		}
	}
	for _, f := range info.imports {
		if f.module == hostModule && strings.HasPrefix(f.name, "kv_") && !m.Needs.KV {
			return fmt.Errorf("it imports %s, and its manifest does not say that it needs kv", f.name)
		}
	}
	if m.Memory > p.limits.MemoryPages {
		return fmt.Errorf("it needs %d pages of memory: at most %d are given (raise limits.memory)", m.Memory, p.limits.MemoryPages)
	}
	if m.State == stateConnection {
		if defined := p.compiled.ExportedFunctions(); defined["weir_open"] == nil || defined["weir_close"] == nil {
			return errors.New("its state is connection, and it does not export weir_open and weir_close")
		}
		p.pinned = map[string]*pin{}
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
