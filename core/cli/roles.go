package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/journal"
)

// The roles of weir serve. Where JetStream is a cluster of its own, gateways and the archive's worker are processes of
// their own: any number of gateways, one worker that works, and any number that stand by for it.
const (
	roleAll     = "all"
	roleGateway = "gateway"
	roleArchive = "archive"
)

// lockEvery is how often a worker that stands by looks whether it is its turn.
const lockEvery = 250 * time.Millisecond

// checkRole refuses what cannot work. The embedded JetStream is inside one process: nobody else can read from it.
func checkRole(c *config.Config, role string) error {
	switch role {
	case roleAll:
		return nil
	case roleGateway, roleArchive:
		if c.Journal.NATS.URL != "" {
			return nil
		}
		return config.Problems{c.Problem("journal.nats.url", "is not set, and the role "+role+" takes a JetStream that other processes reach",
			"name the cluster's servers, or run everything in one process: --role "+roleAll)}
	}
	return fmt.Errorf("--role is %s, %s or %s, not %q", roleAll, roleGateway, roleArchive, role)
}

// runArchive is a process that keeps the archive and serves nobody but the admin address.
func (a *app) runArchive(ctx context.Context, c *config.Config, log *slog.Logger, hup <-chan os.Signal) (err error) {
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return unreachable(err)
	}
	state := &archiveState{}
	state.why.Store("it starts")
	address, stop, err := state.serve(c, log)
	if err != nil {
		return use(err)
	}
	defer stop()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				log.Warn("cli: an archive worker reads its configuration when it starts; restart it")
			}
		}
	}()
	lock, err := a.turn(ctx, c, state)
	if err != nil || lock == nil {
		return unreachableOr(err)
	}
	defer lock.Close()
	e := &evidence{readers: a.reader}
	defer func() { err = errors.Join(err, e.close(log)) }()
	if err := e.openArchive(ctx, c); err != nil {
		return unreachable(err)
	}
	name, _ := os.Hostname()
	conn, js, err := journal.Dial(ctx, journal.Config{Dir: c.Data, Gateway: name + " archive", Log: log, NATS: natsOf(c)})
	if err != nil {
		return unreachable(err)
	}
	e.conn = conn
	if err := e.work(ctx, c, js, log); err != nil {
		return unreachable(err)
	}
	state.why.Store("")
	fmt.Fprintf(a.err, "weir: health and metrics on http://%s\n", address)
	fmt.Fprintln(a.err, "weir: ready")
	for t := time.NewTicker(time.Second); ; {
		select {
		case <-ctx.Done():
			t.Stop()
			state.why.Store("it is stopping")
			return nil
		case <-t.C:
			if err := e.worker.Err(); err != nil {
				return unreachable(err)
			}
		}
	}
}

func unreachableOr(err error) error {
	if err == nil {
		return nil
	}
	return unreachable(err)
}

// turn returns when this process is the one that keeps the archive in data: stores, index and ledger have one writer.
// The lock is the kernel's: it is free the moment its holder is gone, and never while the holder hangs. Without an error
// and a lock the process is to end.
func (a *app) turn(ctx context.Context, c *config.Config, state *archiveState) (*os.File, error) {
	path := filepath.Join(c.Data, "archive.lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	waits := false
	t := time.NewTicker(lockEvery)
	defer t.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("cli: locking %s: %w", path, err), f.Close())
		}
		if !waits {
			waits = true
			state.why.Store("standing by: another archive worker holds " + path)
			fmt.Fprintf(a.err, "weir: standing by: another archive worker holds %s\n", path)
		}
		select {
		case <-ctx.Done():
			return nil, f.Close()
		case <-t.C:
		}
	}
}

// archiveState answers on the admin address.
type archiveState struct{ why atomic.Value } // why it is not ready; empty: it is

func (s *archiveState) serve(c *config.Config, log *slog.Logger) (address net.Addr, stop func(), err error) {
	host, _, err := net.SplitHostPort(c.Listen.Admin)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, nil, config.Problems{c.Problem("listen.admin", "is not on loopback", "the admin address has no sign-in")}
	}
	l, err := net.Listen("tcp", c.Listen.Admin)
	if err != nil {
		return nil, nil, config.Problems{c.Problem("listen.admin", err.Error(), "each process takes an admin address of its own")}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why, _ := s.why.Load().(string); why != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(why + "\n"))
			return
		}
		_, _ = w.Write([]byte("ready\n"))
	})
	verified := prometheus.NewRegistry()
	verified.MustRegister(verifiedMetrics{c.Data})
	mux.Handle("GET /metrics", promhttp.HandlerFor(prometheus.Gatherers{verified, prometheus.DefaultGatherer}, promhttp.HandlerOpts{MaxRequestsInFlight: 4, ErrorHandling: promhttp.ContinueOnError}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	go func() {
		if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			log.Error("cli: admin server stopped", "error", err)
		}
	}()
	return l.Addr(), func() { _ = server.Close() }, nil
}
