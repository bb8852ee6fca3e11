package approval

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
)

// metrics are the queue's own; nil where nobody reads them.
type metrics struct{ results *prometheus.CounterVec }

func newMetrics(reg prometheus.Registerer, q *Queue) *metrics {
	if reg == nil {
		return nil
	}
	m := &metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "weir_approvals_total",
		Help: "Requests for approvals, by what this gateway saw become of them: asked, approved, denied, used, expired, withdrawn; refused: there was no room; forbidden: an answer was not taken; error: the queue could not be reached.",
	}, []string{"result"})}
	for _, r := range []string{"asked", "approved", "denied", "used", "expired", "withdrawn", "refused", "forbidden", "error"} {
		m.results.WithLabelValues(r)
	}
	reg.MustRegister(m.results, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "weir_approvals_waiting", Help: "Commands that wait for an approval now, in all gateways that share the queue.",
	}, q.waiting))
	return m
}

func (m *metrics) count(result string) {
	if m != nil {
		m.results.WithLabelValues(result).Inc()
	}
}

// waiting counts what waits for an answer.
func (q *Queue) waiting() float64 {
	now := q.c.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, e := range q.all {
		if e.StateAt(now) == core.ApprovalWaiting {
			n++
		}
	}
	return float64(n)
}
