package wasm

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
)

// metrics are the weir_plugin_ metrics of all plugins.
type metrics struct {
	calls     *prometheus.CounterVec // plugin, kind, verdict
	errors    *prometheus.CounterVec // plugin, cause
	seconds   *prometheus.HistogramVec
	rows      *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	discards  *prometheus.CounterVec
	recycled  *prometheus.CounterVec
	circuit   *prometheus.GaugeVec
	dropped   *prometheus.CounterVec
	instances *prometheus.GaugeVec
	own       *prometheus.CounterVec   // plugin, metric
	observed  *prometheus.HistogramVec // plugin, metric
}

func newMetrics(r prometheus.Registerer, b *budget) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_plugin_" + name, Help: help}, append([]string{"plugin"}, labels...))
	}
	m := &metrics{
		calls:  counter("calls_total", "Events that a plugin was asked about.", "kind", "verdict"),
		errors: counter("errors_total", "Events on which a plugin failed, by cause: contract, deadline, trap, circuit, busy, lost, plugin.", "cause"),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weir_plugin_seconds", Help: "How long a plugin took for an event.",
			Buckets: []float64{1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 5e-2, 0.1, 1},
		}, []string{"plugin"}),
		rows:      counter("rows_total", "Rows passed to a plugin."),
		bytes:     counter("bytes_total", "Bytes of values passed to a plugin."),
		discards:  counter("discards_total", "Instances thrown away after a failure."),
		recycled:  counter("recycled_total", "Instances replaced because of their age, or of what memory they had taken."),
		circuit:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weir_plugin_circuit_open", Help: "1 while a plugin is not asked because it kept running out of time or of stack."}, []string{"plugin"}),
		dropped:   counter("dropped_total", "Log lines and findings of a plugin beyond what one call may say."),
		instances: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weir_plugin_instances", Help: "Instances of a plugin in memory."}, []string{"plugin"}),
		own:       counter("own_total", "Counters of the plugins' own.", "metric"),
		observed:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "weir_plugin_own", Help: "Histograms of the plugins' own."}, []string{"plugin", "metric"}),
	}
	b.refused = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "weir_plugin_memory_refused_total", Help: "Requests of guests for memory beyond what all of them may have.",
	})
	if r == nil {
		return m, nil
	}
	used := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "weir_plugin_memory_bytes", Help: "Memory of all guests."}, func() float64 { return float64(b.used.Load()) })
	for _, c := range []prometheus.Collector{
		used, b.refused,
		m.calls, m.errors, m.seconds, m.rows, m.bytes, m.discards, m.recycled, m.circuit, m.dropped, m.instances, m.own, m.observed,
	} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// pluginMetrics are those of one plugin, found once.
type pluginMetrics struct {
	m         *metrics
	plugin    string
	seconds   prometheus.Observer
	rows      prometheus.Counter
	bytes     prometheus.Counter
	discards  prometheus.Counter
	recycled  prometheus.Counter
	circuit   prometheus.Gauge
	dropped   prometheus.Counter
	instances prometheus.Gauge
	passes    map[core.Kind]prometheus.Counter

	mu       sync.RWMutex
	counters map[uint32]prometheus.Counter
	observed map[uint32]prometheus.Observer
}

func (m *metrics) of(plugin string) *pluginMetrics {
	p := &pluginMetrics{
		m: m, plugin: plugin,
		seconds: m.seconds.WithLabelValues(plugin), rows: m.rows.WithLabelValues(plugin), bytes: m.bytes.WithLabelValues(plugin),
		discards: m.discards.WithLabelValues(plugin), recycled: m.recycled.WithLabelValues(plugin), circuit: m.circuit.WithLabelValues(plugin), dropped: m.dropped.WithLabelValues(plugin), instances: m.instances.WithLabelValues(plugin),
		passes: map[core.Kind]prometheus.Counter{}, counters: map[uint32]prometheus.Counter{}, observed: map[uint32]prometheus.Observer{},
	}
	for k := range frameKinds {
		p.passes[k] = m.calls.WithLabelValues(plugin, k.String(), "pass")
	}
	return p
}

func (p *pluginMetrics) verdict(k core.Kind, v *core.Verdict) {
	switch {
	case v.Deny != nil:
		p.m.calls.WithLabelValues(p.plugin, k.String(), "deny").Inc()
	case v.Hold != nil:
		p.m.calls.WithLabelValues(p.plugin, k.String(), "hold").Inc()
	case v.Changed:
		p.m.calls.WithLabelValues(p.plugin, k.String(), "changed").Inc()
	default:
		p.passes[k].Inc()
	}
}

func (p *pluginMetrics) failed(cause string) { p.m.errors.WithLabelValues(p.plugin, cause).Inc() }

// declare takes a metric of the guest's own; what it did not declare is dropped.
func (p *pluginMetrics) declare(x Metric) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x.Kind == "counter" {
		p.counters[x.ID] = p.m.own.WithLabelValues(p.plugin, x.Name)
	} else {
		p.observed[x.ID] = p.m.observed.WithLabelValues(p.plugin, x.Name)
	}
}

func (p *pluginMetrics) add(id uint32, delta float64) {
	p.mu.RLock()
	c := p.counters[id]
	p.mu.RUnlock()
	if c != nil {
		c.Add(delta)
	}
}

func (p *pluginMetrics) observe(id uint32, x float64) {
	p.mu.RLock()
	o := p.observed[id]
	p.mu.RUnlock()
	if o != nil {
		o.Observe(x)
	}
}

// forget takes the plugin's gauges away; counters stay, as counters do.
func (p *pluginMetrics) forget() {
	p.m.instances.DeleteLabelValues(p.plugin)
	p.m.circuit.DeleteLabelValues(p.plugin)
}
