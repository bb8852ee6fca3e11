package witness

import "github.com/prometheus/client_golang/prometheus"

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

func each(name, help string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"witness"})
}

var (
	configured    = gauge("weir_ledger_witness_configured", "Witnesses that the log's checkpoints are sent to.")
	behindSeconds = gauge("weir_ledger_witness_behind_seconds", "For how long too few witnesses have cosigned the log; 0: enough have.")
	cosignedSize  = each("weir_ledger_witness_cosigned_leaves", "Leaves of the newest checkpoint that the witness has cosigned.")
	cosignedTime  = each("weir_ledger_witness_cosigned_time_seconds", "When it did, by its own clock, in Unix time.")
	failing       = each("weir_ledger_witness_failing", "1 when the witness gave no cosignature when it was last asked.")
	forkedGauge   = each("weir_ledger_witness_forked", "1 when the witness has cosigned what is not of this log: the log was written anew, or is an old copy.")
	errorsTotal   = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_ledger_witness_errors_total", Help: "Times that a witness was asked and gave no cosignature."}, []string{"witness", "reason"})
)

func init() {
	prometheus.MustRegister(configured, behindSeconds, cosignedSize, cosignedTime, failing, forkedGauge, errorsTotal)
}

// announce begins a witness's series at zero.
func announce(name string) {
	for _, v := range []*prometheus.GaugeVec{cosignedSize, cosignedTime, failing, forkedGauge} {
		v.WithLabelValues(name).Set(0)
	}
	for _, why := range []reason{unreachable, refused, forked, answer, local} {
		errorsTotal.WithLabelValues(name, string(why))
	}
}

// forget ends a witness's gauges.
func forget(name string) {
	for _, v := range []*prometheus.GaugeVec{cosignedSize, cosignedTime, failing, forkedGauge} {
		v.DeleteLabelValues(name)
	}
}
