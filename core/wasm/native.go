package wasm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
)

// Native is a plugin without a guest. It has what operators know of guests: settings that are held against a schema, columns that it is
// narrowed to, a version on the record, the weir_plugin_ metrics. It has no memory, no deadline and no instances of its own.
type Native struct {
	name     string
	kind     *core.Native
	manifest *Manifest
	sub      core.Subscription
	plugin   core.Plugin
	metrics  *pluginMetrics
}

var (
	_ core.Plugin     = (*Native)(nil)
	_ core.Subscriber = (*Native)(nil)
	_ core.Closer     = (*Native)(nil)
)

// NativeManifest is what a native plugin would say of itself if it were a guest.
func NativeManifest(n *core.Native) (*Manifest, error) {
	s := Subscribe{Protocols: n.Subscription.Protocols, Columns: n.Subscription.Columns}
	for kind := range core.KindOpaque {
		if n.Subscription.Kinds.Has(kind) {
			s.Kinds = append(s.Kinds, kind.String())
		}
	}
	m := &Manifest{Name: n.Name, Version: n.Version, Mutates: n.Mutates, Subscribe: []Subscribe{s}, Schema: []byte(n.Schema)}
	for i, name := range n.Counters {
		m.Metrics = append(m.Metrics, Metric{ID: uint32(i), Name: name, Kind: "counter"})
	}
	if err := m.compileSchema(); err != nil {
		return nil, fmt.Errorf("config_schema: %w", err)
	}
	return m, nil
}

// Native makes a step of a native plugin. Of c it takes Name, Config and Columns.
func (h *Host) Native(n *core.Native, c Config) (*Native, error) {
	p, err := h.native(n, c)
	if err != nil {
		return nil, fmt.Errorf("native: plugin %q: %w", c.Name, err)
	}
	return p, nil
}

func (h *Host) native(n *core.Native, c Config) (*Native, error) {
	m, err := NativeManifest(n)
	if err != nil {
		return nil, err
	}
	p := &Native{name: c.Name, kind: n, manifest: m, sub: n.Subscription}
	if p.sub.Only = slices.Clone(c.Columns); len(c.Columns) > 0 && len(p.sub.Columns) == 0 {
		return nil, errUnseen
	}
	settings, err := m.configText(c.Config)
	if err != nil {
		return nil, err
	}
	p.metrics = h.metrics.of(c.Name)
	counters := map[string]prometheus.Counter{}
	for _, name := range n.Counters {
		counters[name] = h.metrics.own.WithLabelValues(c.Name, name)
	}
	p.plugin, err = n.New(core.NativeConfig{
		Settings: settings, Subscription: p.sub,
		Passed: func(rows, bytes int) {
			p.metrics.rows.Add(float64(rows))
			p.metrics.bytes.Add(float64(bytes))
		},
		Count: func(counter string, n int) {
			if c := counters[counter]; c != nil && n > 0 {
				c.Add(float64(n))
			}
		},
	})
	return p, err
}

// Inspect asks the plugin about an event that it subscribed to.
func (p *Native) Inspect(ctx context.Context, e *core.Event) (v core.Verdict, err error) {
	if frameKinds[e.Kind] == 0 || p.sub.Kinds != 0 && !p.sub.Kinds.Has(e.Kind) {
		return v, nil
	}
	if e.Kind == core.KindRows && (e.Rows == nil || e.Rows.Rows == 0) {
		return v, nil
	}
	start, answered := time.Now(), false
	defer func() {
		if !answered { // it panics, which is the chain's to tell
			p.metrics.failed("plugin")
		}
	}()
	v, err = p.plugin.Inspect(ctx, e)
	answered = true
	p.metrics.seconds.Observe(time.Since(start).Seconds())
	if err != nil {
		cause := "plugin"
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			cause = "busy"
		}
		p.metrics.failed(cause)
		return core.Verdict{}, &nativeError{p.name, err, cause}
	}
	p.metrics.verdict(e.Kind, &v)
	return v, nil
}

// nativeError is an Error of a plugin without a guest.
type nativeError struct {
	plugin string
	err    error
	cause  string
}

func (e *nativeError) Error() string { return fmt.Sprintf("native: plugin %q: %v", e.plugin, e.err) }
func (e *nativeError) Unwrap() error { return e.err }

// Cause is the error in one word, as an Error's.
func (e *nativeError) Cause() string { return e.cause }

// Manifest is NativeManifest of its kind.
func (p *Native) Manifest() Manifest { return *p.manifest }

// Subscription returns the events that it wants.
func (p *Native) Subscription() core.Subscription { return p.sub }

// Version names what judges: there is no module, so that it is told by its name.
func (p *Native) Version() (version, digest string) { return p.kind.Version, "native:" + p.kind.Name }

// Forget tells the plugin that a session is over, if it wants to know.
func (p *Native) Forget(s *core.Session) {
	if f, ok := p.plugin.(core.Closer); ok {
		f.Forget(s)
	}
}

// Close does nothing: there is nothing to free.
func (p *Native) Close(context.Context) error { return nil }
