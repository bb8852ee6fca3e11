package certificate

import (
	"crypto/x509"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"

	"github.com/weir-gateway/weir/core/identity/certificate/certtest"
)

// agent is a SPIFFE agent's Workload API, as far as bundles go.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	mu      sync.Mutex
	bundles map[string][]byte
	changed chan struct{}
}

func (a *agent) set(bundles map[string][]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bundles = bundles
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *agent) FetchX509Bundles(_ *workload.X509BundlesRequest, stream grpc.ServerStreamingServer[workload.X509BundlesResponse]) error {
	for {
		a.mu.Lock()
		bundles, changed := a.bundles, a.changed
		a.mu.Unlock()
		if err := stream.Send(&workload.X509BundlesResponse{Bundles: bundles}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (a *agent) serve(t *testing.T, socket string) *grpc.Server {
	t.Helper()
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(s, a)
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(s.Stop)
	return s
}

// TestWorkloadAPI: the agent says whose certificates count, of which domain, and from when on; while it is gone its last
// word does.
func TestWorkloadAPI(t *testing.T) {
	one, two, foreign := certtest.New(t), certtest.New(t), certtest.New(t)
	socket := filepath.Join(t.TempDir(), "agent.sock")
	v, err := New(Config{Authorities: []Authority{{Name: "spire", WorkloadAPI: "unix://" + socket, TrustDomain: "prod.example"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	show := func(by *certtest.Authority) error {
		_, err := v.VerifyCertificate([]*x509.Certificate{by.Client([]string{"spiffe://prod.example/web"}).Leaf})
		return err
	}
	refused(t, "before the agent is there", show(one), "unknown")
	a := &agent{changed: make(chan struct{}), bundles: map[string][]byte{"spiffe://prod.example": one.Cert.Raw, "spiffe://other.example": foreign.Cert.Raw}}
	s := a.serve(t, socket)
	until := func(what string, f func() bool) {
		t.Helper()
		for range 1500 {
			if f() {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatal("never: " + what)
	}
	until("its authority counts", func() bool { return show(one) == nil })
	refused(t, "of another domain's authority", show(foreign), "authority")
	refused(t, "of nobody's", show(two), "authority")
	a.set(map[string][]byte{"spiffe://prod.example": append(append([]byte{}, one.Cert.Raw...), two.Cert.Raw...)})
	until("the second one counts", func() bool { return show(two) == nil })
	a.set(map[string][]byte{"spiffe://prod.example": two.Cert.Raw})
	until("the first one counts no more", func() bool { return show(one) != nil })
	s.Stop()
	if err := show(two); err != nil {
		t.Errorf("without the agent: %v", err)
	}
	refused(t, "without the agent, the old one", show(one), "authority")
}
