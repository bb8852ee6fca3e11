package cli

import (
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/opa"
)

// bundleAges knows since when nobody has said that a policy from a server is the latest: what an alert is about.
type bundleAges struct {
	desc *prometheus.Desc

	mu   sync.Mutex
	last map[string]time.Time // when the server said so last, by policy
	file map[string]string    // the last good copies of those that it has not said it of yet
}

func newBundleAges() *bundleAges {
	return &bundleAges{
		desc: prometheus.NewDesc("weir_opa_bundle_age_seconds", "Since the server of a policy said last that what is in force is the latest, by policy.", []string{"policy"}, nil),
		last: map[string]time.Time{}, file: map[string]string{},
	}
}

// good notes that what is in force is the latest.
func (b *bundleAges) good(policy string) {
	b.mu.Lock()
	b.last[policy] = time.Now()
	b.mu.Unlock()
}

// watch sets which policies there are.
func (b *bundleAges) watch(c *config.Config, file func(*config.Policy) string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.file)
	for i := range c.Policies {
		if p := &c.Policies[i]; opa.IsURL(p.Path) {
			b.file[p.Name] = file(p)
		}
	}
}

// Describe implements prometheus.Collector.
func (b *bundleAges) Describe(ch chan<- *prometheus.Desc) { ch <- b.desc }

// Collect implements prometheus.Collector.
func (b *bundleAges) Collect(ch chan<- prometheus.Metric) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for policy, file := range b.file {
		at, said := b.last[policy]
		if !said { // since this start the server has not answered: when the copy came is the best that is known
			info, err := os.Stat(file)
			if err != nil {
				continue
			}
			at = info.ModTime()
		}
		ch <- prometheus.MustNewConstMetric(b.desc, prometheus.GaugeValue, time.Since(at).Seconds(), policy)
	}
}
