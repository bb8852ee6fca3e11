package journal

import "github.com/prometheus/client_golang/prometheus"

var (
	commitSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "weir_journal_commit_seconds", Help: "Time of one durable write of the log.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, .5, 2},
	})
	lagBytes        = gauge("weir_journal_durable_lag_bytes", "Bytes of the log that are not durable yet.")
	pendingBytes    = gauge("weir_journal_pending_bytes", "Bytes of records and blocks in memory that JetStream has not acknowledged.")
	spoolBytes      = gauge("weir_journal_spool_bytes", "Bytes of the write-ahead log that JetStream has not acknowledged.")
	spoolLimit      = gauge("weir_journal_spool_limit_bytes", "Bytes of the write-ahead log at which nothing more is recorded, and so nothing passes.")
	jetStreamUp     = gauge("weir_journal_jetstream_up", "1 while JetStream is connected and takes blocks.")
	walSegments     = gauge("weir_journal_wal_segments", "Segments of the write-ahead log in use.")
	unsealed        = gauge("weir_journal_unsealed_sessions", "Sessions that are open or whose seal JetStream has not acknowledged.")
	lostGauge       = gauge("weir_journal_lost", "1 while nothing can be recorded, and so nothing passes.")
	blocksTotal     = counter("weir_journal_blocks_total", "Blocks that JetStream has acknowledged.")
	blockBytesTotal = counter("weir_journal_block_bytes_total", "Bytes of blocks that JetStream has acknowledged.")
	recordsTotal    = counter("weir_journal_records_total", "Records taken.")
	publishErrors   = counter("weir_journal_publish_errors_total", "Blocks that JetStream did not acknowledge at the first try.")
	batchesTotal    = counter("weir_journal_batches_total", "Batches of blocks that JetStream has acknowledged as one.")
	batchErrors     = counter("weir_journal_batch_errors_total", "Batches that were not stored, so that their blocks were sent one by one.")
	forksTotal      = counter("weir_journal_forks_total", "Sessions given up because JetStream holds another history of them.")
)

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func init() {
	prometheus.MustRegister(commitSeconds, lagBytes, pendingBytes, spoolBytes, spoolLimit, jetStreamUp, walSegments, unsealed, lostGauge, blocksTotal, blockBytesTotal, recordsTotal, publishErrors, batchesTotal, batchErrors, forksTotal)
}
