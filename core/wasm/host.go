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
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tetratelabs/wazero"

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
	// Memory bounds the memory of all guests together, in bytes; 0: 1 GiB. Who would go beyond it is refused.
	Memory int64
}

// Host holds what plugins share: the compilation cache and the metrics.
type Host struct {
	cache   wazero.CompilationCache
	log     *slog.Logger
	metrics *metrics
	memory  budget

	mu     sync.Mutex
	stores map[string]*store // by the plugins' names
}

// Open makes a Host.
func Open(_ context.Context, c HostConfig) (*Host, error) {
	h := &Host{log: c.Log, stores: map[string]*store{}}
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
	if c.Memory <= 0 {
		c.Memory = defaultMemory
	}
	h.memory.most.Store(c.Memory)
	var err error
	if h.metrics, err = newMetrics(c.Metrics, &h.memory); err != nil {
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
	Instances   int           // at a time; default twice the processors, at least 4; with state connection the sessions, default 256
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
		if m != nil && m.State == stateConnection {
			l.Instances = 256
		}
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
	// Grants are the capabilities that the guest may have: clock, kv. One that needs more does not load.
	Grants []string
	// GrantAll gives it whatever it needs: for guests that are part of the program, and to try one out.
	GrantAll bool
	Limits   Limits

	noFuel     bool // for measurements
	noSelfTest bool // for guests that are to fail later
}

var (
	_ core.Plugin     = (*Plugin)(nil)
	_ core.Subscriber = (*Plugin)(nil)
	_ core.Closer     = (*Plugin)(nil)
)
