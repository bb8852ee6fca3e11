package archive

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core/archive/file"
)

// told is what a metric says, over all its labels; -1: there is none of that name.
func told(t *testing.T, name string) float64 {
	t.Helper()
	all, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() != name {
			continue
		}
		sum := 0.0
		for _, m := range f.GetMetric() {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
		return sum
	}
	return -1
}

// TestLagMetrics: while one of two stores takes nothing, the metrics say how many messages it lacks, and since when; when it
// has taken them they say nothing is lacking. Nobody has to ask the worker for that.
func TestLagMetrics(t *testing.T) {
	other, err := file.Open(t.TempDir(), file.Options{})
	if err != nil {
		t.Fatal(err)
	}
	slow := &flaky{Store: other}
	p := mustStart(t, t.TempDir(), Named{Name: "slow", Store: slow})
	defer other.Close()
	defer p.close(t)
	until := func(what string, f func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: lag %v messages, %v s", what, told(t, "weir_archive_lag_messages"), told(t, "weir_archive_lag_seconds"))
			}
		}
	}
	if told(t, "weir_archive_worker") != 1 || told(t, "weir_archive_store_errors_total") < 0 {
		t.Error("a worker does not say that it is there, or has no errors to count from")
	}
	say(t, p.j, "before", "alice", "select 1")
	until("nothing is lacking", func() bool {
		return told(t, "weir_archive_blocks_total") >= 2 && told(t, "weir_archive_lag_messages") == 0 && told(t, "weir_archive_lag_seconds") == 0
	})
	slow.broken.Store(true)
	for _, id := range []string{"a", "b", "c"} {
		say(t, p.j, id, "alice", "select 1")
	}
	until("three sessions are lacking", func() bool {
		return told(t, "weir_archive_lag_messages") >= 3 && told(t, "weir_archive_lag_seconds") > 0.3
	})
	if got := told(t, "weir_archive_lag_seconds"); got > 30 {
		t.Errorf("the oldest message is %v s old", got)
	}
	slow.broken.Store(false)
	until("all is there again", func() bool {
		return told(t, "weir_archive_lag_messages") == 0 && told(t, "weir_archive_lag_seconds") == 0
	})
}
