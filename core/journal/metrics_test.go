package journal

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
)

func told(t *testing.T, name string) float64 {
	t.Helper()
	all, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// TestSpoolMetrics: while JetStream is away, the metrics say so, and how much of the log it has not taken; when it is back
// they say that as well.
func TestSpoolMetrics(t *testing.T) {
	store := t.TempDir()
	s := natsServer(t, store, -1)
	port := s.Addr().(*net.TCPAddr).Port
	c := small(t.TempDir())
	c.NATS.URL = s.ClientURL()
	j := mustOpen(t, c)
	r, err := j.Open(&core.Session{ID: core.NewID(time.Now()), Target: &core.Target{Promise: core.PromiseStrict}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	seq := uint64(0)
	say := func(count int) {
		t.Helper()
		for range count {
			m, err := r.Record(ctx, record(seq, strings.Repeat("x", 1000)))
			if err == nil {
				err = r.Settle(ctx, m)
			}
			if err != nil {
				t.Fatal(err)
			}
			seq++
		}
	}
	until := func(what string, f func() bool) {
		t.Helper()
		for ; !f(); time.Sleep(10 * time.Millisecond) {
			if ctx.Err() != nil {
				t.Fatalf("%s: JetStream up %v, %v bytes", what, told(t, "weir_journal_jetstream_up"), told(t, "weir_journal_spool_bytes"))
			}
		}
	}
	taken := func() bool {
		return told(t, "weir_journal_jetstream_up") == 1 && told(t, "weir_journal_spool_bytes") < 1000
	}
	if got := told(t, "weir_journal_spool_limit_bytes"); got != 8<<20 {
		t.Errorf("the bound is %v", got)
	}
	say(10)
	until("all is taken", taken)
	stopServer(s)
	say(200)
	until("nothing is taken", func() bool {
		return told(t, "weir_journal_jetstream_up") == 0 && told(t, "weir_journal_spool_bytes") > 200_000
	})
	s = natsServer(t, store, port)
	defer func() { stopServer(s) }()
	until("all is taken again", taken)
	if err := r.Seal(core.EndClosed); err != nil {
		t.Fatal(err)
	}
	mustClose(t, j)
}
