package certificate

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const (
	maxFile   = 1 << 20     // bytes of a file of authorities
	lookEvery = time.Second // at it, at most
)

// file has the authorities of a file, and reads it again when it changes. While it cannot be read what was read last counts.
type file struct {
	path string
	now  func() time.Time
	log  *slog.Logger

	mu      sync.Mutex
	roots   *x509.CertPool
	looked  time.Time
	changed time.Time
	size    int64
	down    bool
}

func openFile(path string, now func() time.Time, log *slog.Logger) (*file, error) {
	f := &file{path: path, now: now, log: log}
	return f, f.look(now())
}

func (f *file) close() {}

func (f *file) pool() (*x509.CertPool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.now(); now.Sub(f.looked) >= lookEvery || now.Before(f.looked) {
		if err := f.look(now); err != nil && !f.down {
			f.down = true
			f.log.Error("certificate: what was known last of the authorities counts", "file", f.path, "error", err)
		}
	}
	return f.roots, nil
}

// look reads the file if it has changed.
func (f *file) look(now time.Time) error {
	f.looked = now
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if f.roots != nil && info.ModTime().Equal(f.changed) && info.Size() == f.size && !f.down {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return err
	}
	if len(b) > maxFile {
		return fmt.Errorf("%s is larger than %d KiB", f.path, maxFile>>10)
	}
	list, err := authorities(b)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	roots := x509.NewCertPool()
	for _, c := range list {
		roots.AddCert(c)
	}
	if f.roots != nil {
		f.log.Info("certificate: the authorities have changed", "file", f.path, "authorities", len(list))
	}
	f.roots, f.changed, f.size, f.down = roots, info.ModTime(), info.Size(), false
	return nil
}

// authorities reads PEM, strictly: what is no authority's certificate would be trusted as if it were.
func authorities(b []byte) (list []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s, where only certificates of authorities should be", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if !c.IsCA {
			return nil, fmt.Errorf("the certificate of %q is not an authority's", c.Subject)
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("holds no PEM certificate")
	}
	return list, nil
}

// workloadAPI has the authorities of a trust domain that a SPIFFE agent keeps telling. While it does not answer what it has
// told last counts; before it has told anything, nobody is recognised.
type workloadAPI struct {
	domain spiffeid.TrustDomain
	log    *slog.Logger
	known  atomic.Pointer[x509.CertPool]
	down   atomic.Bool
	stop   context.CancelFunc
	done   chan struct{}
}

func openWorkloadAPI(address string, domain spiffeid.TrustDomain, log *slog.Logger) (*workloadAPI, error) {
	if err := workloadapi.ValidateAddress(address); err != nil {
		return nil, fmt.Errorf("the address of the Workload API: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(address)) // connects when it is used
	if err != nil {
		stop()
		return nil, err
	}
	w := &workloadAPI{domain: domain, log: log.With("workload_api", address), stop: stop, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		defer func() { _ = client.Close() }()
		_ = client.WatchX509Bundles(ctx, w) // goes on until ctx ends
	}()
	return w, nil
}

func (w *workloadAPI) close() {
	w.stop()
	<-w.done
}

func (w *workloadAPI) pool() (*x509.CertPool, error) {
	roots := w.known.Load()
	if roots == nil {
		return nil, refuse("unknown", "the authorities of the trust domain %s are not known at present", w.domain.Name())
	}
	return roots, nil
}

// OnX509BundlesUpdate implements workloadapi.X509BundleWatcher.
func (w *workloadAPI) OnX509BundlesUpdate(set *x509bundle.Set) {
	if w.down.Swap(false) {
		w.log.Info("certificate: the Workload API answers again")
	}
	b, err := set.GetX509BundleForTrustDomain(w.domain)
	if err != nil { // it does not vouch for it any more
		if w.known.Swap(nil) != nil {
			w.log.Error("certificate: the Workload API has no authorities of the trust domain any more", "domain", w.domain.Name())
		}
		return
	}
	roots := x509.NewCertPool()
	for _, c := range b.X509Authorities() {
		roots.AddCert(c)
	}
	w.known.Store(roots)
}

// OnX509BundlesWatchError implements workloadapi.X509BundleWatcher.
func (w *workloadAPI) OnX509BundlesWatchError(err error) {
	if !w.down.Swap(true) {
		w.log.Error("certificate: the Workload API does not answer: what it has told last counts", "error", err)
	}
}
