package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core/ledger"
)

// verifiedFile is where `weir verify --all` notes in data when it ran, and what came of it: for metrics and alerts. It
// proves nothing, and whoever can write data can write it.
const verifiedFile = "verified.json"

// verified is what it holds.
type verified struct {
	Time     time.Time `json:"time"` // when it began: what came later it may not have seen
	OK       bool      `json:"ok"`
	Sessions int       `json:"sessions"`
	Blocks   int       `json:"blocks"`
	Records  int       `json:"records"`
	Problems int       `json:"problems"`
}

// keepVerified notes what came of verifying the archive of a configuration. Where data cannot be written, because it is a
// copy or somebody else's, there is nobody to tell.
func keepVerified(path string, r ledger.Report, began time.Time) error {
	c, err := load(path)
	if err != nil {
		return err
	}
	b, err := json.Marshal(verified{Time: began.UTC(), OK: r.OK(), Sessions: r.Sessions, Blocks: r.Blocks, Records: r.Records, Problems: len(r.Problems)})
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(c.Data, verifiedFile+".*")
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EROFS) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	// The gateway may run as another user than whoever verifies; data itself says who may look.
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(c.Data, verifiedFile))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// lastVerified reads it; nil: it is not known.
func lastVerified(data string) (*verified, error) {
	f, err := os.Open(filepath.Join(data, verifiedFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var v verified
	if err := json.NewDecoder(io.LimitReader(f, 1<<16)).Decode(&v); err != nil {
		return nil, fmt.Errorf("cli: %s: %w", f.Name(), err)
	}
	return &v, nil
}

// verifiedMetrics tells of it; of an archive that was never verified it tells nothing.
type verifiedMetrics struct{ data string }

var (
	descVerifyAge = prometheus.NewDesc("weir_verify_age_seconds", "Time since weir verify --all was last run over this archive.", nil, nil)
	descVerifyOK  = prometheus.NewDesc("weir_verify_ok", "1 when it found nothing wrong.", nil, nil)
)

// Describe implements prometheus.Collector.
func (verifiedMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- descVerifyAge
	ch <- descVerifyOK
}

// Collect implements prometheus.Collector.
func (m verifiedMetrics) Collect(ch chan<- prometheus.Metric) {
	v, err := lastVerified(m.data)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(descVerifyOK, err)
	}
	if v == nil {
		return
	}
	ok := 0.0
	if v.OK {
		ok = 1
	}
	ch <- prometheus.MustNewConstMetric(descVerifyAge, prometheus.GaugeValue, max(0, clock().Sub(v.Time).Seconds()))
	ch <- prometheus.MustNewConstMetric(descVerifyOK, prometheus.GaugeValue, ok)
}
