package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
)

// metrics are the gateway's own. What the registry knows is read from it when somebody asks.
type metrics struct {
	refused      *prometheus.CounterVec
	connections  *prometheus.CounterVec
	acceptErrors prometheus.Counter
	panics       prometheus.Counter
	reloads      *prometheus.CounterVec
	revoked      prometheus.Counter
	locks        prometheus.Counter
	acts         *prometheus.CounterVec
	signIn       prometheus.Histogram
}

func newMetrics(reg *prometheus.Registry, g *Gateway) *metrics {
	m := &metrics{
		refused:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_gateway_refused_total", Help: "Clients and sessions that were not let in, by reason."}, []string{"reason"}),
		connections:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_gateway_connections_total", Help: "Connections accepted, by protocol."}, []string{"protocol"}),
		acceptErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_gateway_accept_errors_total", Help: "Times that accepting a connection failed."}),
		panics:       prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_gateway_panics_total", Help: "Clients lost to a panic of their protocol."}),
		reloads:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_gateway_reloads_total", Help: "Reloads, by result: done or failed."}, []string{"result"}),
		revoked:      prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_gateway_revoked_total", Help: "Open sessions that were ended because their token was revoked."}),
		locks:        prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_gateway_locks_total", Help: "Addresses that were locked out because too many of their sign-ins had failed."}),
		acts:         prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_gateway_admin_total", Help: "What was asked of the admin address, by action and outcome: done, failed, refused or unrecorded."}, []string{"action", "outcome"}),
		signIn: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "weir_gateway_sign_in_seconds", Help: "From accepting a connection to its open session.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	reg.MustRegister(m.refused, m.connections, m.acceptErrors, m.panics, m.reloads, m.revoked, m.locks, m.acts, m.signIn, &collector{g})
	return m
}

// collector reads the registry.
type collector struct{ g *Gateway }

var (
	descConnections = prometheus.NewDesc("weir_gateway_connections", "Connections open now.", nil, nil)
	descOpen        = prometheus.NewDesc("weir_gateway_sessions", "Sessions open now, by target.", []string{"target"}, nil)
	descEnded       = prometheus.NewDesc("weir_gateway_sessions_total", "Sessions that are over, by target and how they ended.", []string{"target", "end"}, nil)
	descUp          = prometheus.NewDesc("weir_gateway_ready", "1 when the gateway takes clients.", nil, nil)
	descCommands    = prometheus.NewDesc("weir_session_commands_total", "Commands asked for, by target.", []string{"target"}, nil)
	descRows        = prometheus.NewDesc("weir_session_rows_total", "Rows delivered, by target.", []string{"target"}, nil)
	descBytes       = prometheus.NewDesc("weir_session_bytes_total", "Bytes sent to clients, by target.", []string{"target"}, nil)
	descDenied      = prometheus.NewDesc("weir_session_denied_total", "Events refused, by target.", []string{"target"}, nil)
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descConnections, descOpen, descEnded, descUp, descCommands, descRows, descBytes, descDenied} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	ready := 1.0
	if len(c.g.notReady()) > 0 {
		ready = 0
	}
	gauge(descUp, ready)
	r := c.g.live
	r.mu.Lock()
	defer r.mu.Unlock()
	gauge(descConnections, float64(len(r.clients)))
	now := map[string]core.Totals{}
	for _, l := range r.sessions {
		now[l.Target.Name] = now[l.Target.Name].Plus(l.Totals())
	}
	for target, t := range r.targets {
		gauge(descOpen, float64(t.open), target)
		for end, n := range t.ended {
			counter(descEnded, n, target, string(end))
		}
		sum := t.done.Plus(now[target])
		counter(descCommands, sum.Commands, target)
		counter(descRows, sum.Rows, target)
		counter(descBytes, sum.Bytes, target)
		counter(descDenied, sum.Denied, target)
	}
}
