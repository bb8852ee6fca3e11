// Package gateway accepts clients, finds out who they are, asks whether they may open what they ask for, and hands
// them to their protocol. It keeps the limits, drains when it stops, and changes targets without dropping sessions.
// It knows no protocol, no policy language and no journal: it is given the nouns.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sort"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
)

// Verifier says who a token belongs to. Its errors wrap core.ErrUnauthenticated and are safe to show; one with a
// method Reason() string is counted under that word.
type Verifier interface {
	Verify(ctx context.Context, token string) (core.Identity, error)
}

// Config is what stays for the life of a gateway.
type Config struct {
	Name      string // of this gateway, on every record
	Boot      string // of this start, on every record
	Protocols []core.Protocol
	Journal   core.Journal
	Approvals Approvals // nil: what a rule holds is refused, and the API has no queue
	// Revocations knows which tokens are good no longer; nil: none are ever revoked.
	Revocations Revocations
	// Recordings tells of what was recorded; nil: this process keeps no archive.
	Recordings Recordings
	Holds      Holds  // nil: this process keeps no archive
	Version    string // of the program
	// Reread reads the configuration again and changes to it; nil: the API cannot ask for that.
	Reread func(context.Context) error
	Lost   func() error // says why nothing can be recorded; nil: it always can
	// Secret reads the key, of 32 bytes or more, that the keys of protocols are made from; nil: they have none.
	Secret func() ([]byte, error)
	Admin  string  // host:port on loopback for health, metrics and the API; empty: none
	Where  string  // of the admin address in the configuration, for errors: file:line
	SignIn *SignIn // where people sign in with a browser; nil: nowhere
	Limits Limits
	// Lock is for how long an address is locked out after ten failed sign-ins within a minute; 0: not at all. Locks is the
	// file that keeps the account for the next start; empty: it is forgotten.
	Lock     time.Duration
	Locks    string
	Log      *slog.Logger               // nil: nothing is logged
	Registry *prometheus.Registry       // nil: one of its own
	Ready    func(listeners []Listener) // called by Run once every listener is up
}

// Settings are what a reload may change.
type Settings struct {
	Targets      []Target
	Verifier     Verifier
	Certificates Certificates // of clients; nil: no target takes them
	Invite       Invite       // nil: nobody signs in but with a token
	// Admin judges what is asked of the admin address, at an opening with the detail {action, object, operator, changes,
	// client, detail}; nil: operators may do all, and clients what is their own.
	Admin core.Plugin
	// Replay judges who may read what was recorded, in the same way; nil: who holds the gateway's own key.
	Replay core.Plugin
	Tokens Tokens      // nil: this gateway makes none
	TLS    *tls.Config // of the client leg; nil: listeners speak no TLS
	CA     string      // file of the authority that TLS's certificate is from; empty: one that clients know
	// Release is called once when these settings have been replaced and the last client that uses them is gone.
	Release func()
}

// Target is an upstream and how it is reached here.
type Target struct {
	*core.Target
	Listen string // host:port; empty: by name, on every listener of the protocol
	// Proxies are the addresses that have to say, by the PROXY protocol, whose connections they hand on to Listen; others
	// may connect, and may not. The targets of one listener have the same.
	Proxies []netip.Prefix
	// ClientCert is CertAccept or CertRequire; empty: certificates of clients say nothing.
	ClientCert string
	Chain      core.Plugin // nil: everybody who can sign in may do anything
	Where      string      // of the listen address in the configuration, for errors: file:line
	// User is the name by which Weir signs in at the target for an identity; empty: the same for all. Nil: the same.
	User  func(ctx context.Context, id core.Identity) string
	Notes []Note // what its chain may do, for those who want to know before
}

// Listener is an address that clients can reach.
type Listener struct {
	Address  net.Addr
	Protocol string
	Targets  []string
}

// Gateway is one running gateway. Make it with New.
type Gateway struct {
	Config
	start    time.Time
	metrics  *metrics
	live     *registry
	runs     *runs
	throttle *throttle
	lockout  *lockout
	invited  invited

	reload   sync.Mutex   // one reload at a time
	mu       sync.RWMutex // guards what follows
	now      *generation  // new clients are served by this one
	up       map[string]*listener
	admin    net.Listener
	signInAt net.Addr
	ready    bool

	draining chan struct{}
	leaving  context.Context // ends when draining closes
	leave    context.CancelFunc
	clients  sync.WaitGroup
	killing  context.Context // ends when the drain is over
	kill     context.CancelCauseFunc
}

// New checks everything and starts nothing: handlers are made, no port is opened. The error holds every problem.
func New(c Config, s Settings) (*Gateway, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	if c.Journal == nil {
		return nil, errors.New("gateway: there is no journal: nothing could be recorded")
	}
	c.Limits = c.Limits.withDefaults()
	g := &Gateway{
		Config: c, start: time.Now(), live: newRegistry(), runs: newRuns(), throttle: newThrottle(time.Now),
		lockout: newLockout(time.Now, c.Lock, c.Locks),
		up:      map[string]*listener{}, draining: make(chan struct{}),
	}
	g.killing, g.kill = context.WithCancelCause(context.Background())
	g.leaving, g.leave = context.WithCancel(context.Background())
	g.metrics = newMetrics(c.Registry, g)
	var err error
	if g.now, err = g.generation(s); err != nil {
		return nil, err
	}
	return g, nil
}

// Errors that end a client's context; context.Cause tells them.
var (
	// ErrStopping is the cause when the gateway stops; it is wrapped when the session's time to drain is over.
	ErrStopping = errors.New("the gateway is stopping")
	errDrained  = fmt.Errorf("%w, and the time of limits.drain is over", ErrStopping)
	// ErrSignInTime is the cause when a client did not sign in within its time.
	ErrSignInTime = errors.New("the client did not sign in within limits.sign_in")
	errGone       = errors.New("the client is gone")
)

// Run opens the listeners, serves until ctx ends, then drains: no new clients, open sessions may finish within their
// limits.drain, the rest is ended. It fails at once when an address cannot be had.
func (g *Gateway) Run(ctx context.Context) error {
	g.mu.Lock()
	opened, err := g.listenAll(g.now)
	for _, l := range opened {
		g.up[l.address] = l
	}
	g.mu.Unlock()
	stopAdmin := func() {}
	if err == nil && g.Admin != "" {
		stopAdmin, err = g.serveAdmin()
	}
	if err == nil {
		var stopSignIn func()
		if stopSignIn, err = g.serveSignIn(); err == nil {
			defer stopSignIn()
		} else {
			stopAdmin()
		}
	}
	if err != nil {
		for _, l := range opened {
			_ = l.Close()
		}
		return err
	}
	defer stopAdmin()
	for _, p := range g.Protocols {
		if w, ok := p.(core.Warmer); ok && g.speaks(p.Name()) {
			go g.warm(ctx, p.Name(), w)
		}
	}
	if err := g.lockout.load(); err != nil {
		g.Log.Warn(err.Error())
	}
	var keeping sync.WaitGroup
	kept, stopKeeping := context.WithCancel(context.Background())
	defer func() { stopKeeping(); keeping.Wait() }()
	keeping.Go(func() {
		g.lockout.keep(kept, func(err error) {
			if g.throttle.tell("gateway", "locks") {
				g.Log.Error(err.Error())
			}
		})
	})
	if g.Revocations != nil {
		watching, stop := context.WithCancel(context.Background()) // as long as there are sessions, drain included
		defer stop()
		go g.watchRevocations(watching)
	}
	for _, l := range opened {
		go l.accept()
	}
	g.mu.Lock()
	g.ready = true
	g.mu.Unlock()
	if g.Ready != nil {
		g.Ready(g.Listeners())
	}
	<-ctx.Done()
	return g.drain()
}

func (g *Gateway) warm(ctx context.Context, name string, w core.Warmer) {
	start := time.Now()
	if err := w.Warm(ctx); err != nil && ctx.Err() == nil {
		g.Log.Error("gateway: protocol could not warm up", "protocol", name, "error", err)
		return
	}
	debug.FreeOSMemory() // a grammar that is compiled leaves hundreds of megabytes behind, and little else brings them back
	g.Log.Debug("gateway: protocol is warm", "protocol", name, "took", time.Since(start).Round(time.Millisecond))
}

func (g *Gateway) speaks(protocol string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	for _, s := range g.now.served {
		if s.protocol == protocol {
			return true
		}
	}
	return false
}

// Listeners lists the open listeners, in the order of their addresses.
func (g *Gateway) Listeners() []Listener {
	g.mu.RLock()
	defer g.mu.RUnlock()
	var out []Listener
	for address, l := range g.up {
		s := g.now.served[address]
		if s == nil {
			continue
		}
		out = append(out, Listener{Address: l.Addr(), Protocol: s.protocol, Targets: s.names()})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Address.String() < out[j].Address.String() })
	return out
}

// AdminAddr is where the admin server listens, or nil.
func (g *Gateway) AdminAddr() net.Addr {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.admin == nil {
		return nil
	}
	return g.admin.Addr()
}

// Reload changes to s. The rules hold for open sessions from their next event on; everything else of s is for new
// clients. When it fails nothing has changed, and s was not used (its Release is not called).
func (g *Gateway) Reload(s Settings) error {
	g.reload.Lock()
	defer g.reload.Unlock()
	next, err := g.generation(s)
	if err == nil && g.stopping() {
		err = errors.New("gateway: it is stopping")
	}
	if err != nil {
		g.metrics.reloads.WithLabelValues("failed").Inc()
		return err
	}
	g.mu.Lock()
	opened, err := g.listenAll(next)
	if err == nil && g.stopping() {
		err = errors.New("gateway: it is stopping")
	}
	if err != nil {
		g.mu.Unlock()
		for _, l := range opened {
			_ = l.Close()
		}
		g.metrics.reloads.WithLabelValues("failed").Inc()
		return err
	}
	last := g.now
	next.number = last.number + 1
	g.now = next
	for _, l := range opened {
		g.up[l.address] = l
	}
	for address, l := range g.up {
		if next.served[address] == nil {
			delete(g.up, address)
			_ = l.Close()
		}
	}
	g.mu.Unlock()
	for _, c := range g.live.clientList() {
		c.follow()
	}
	for _, l := range opened {
		go l.accept()
	}
	last.release()
	g.metrics.reloads.WithLabelValues("done").Inc()
	return nil
}

// listenAll opens the addresses of gen that are not open yet, or none of them. g.mu is held.
func (g *Gateway) listenAll(gen *generation) ([]*listener, error) {
	var opened []*listener
	var errs []error
	for address, s := range gen.served {
		if g.up[address] != nil {
			continue
		}
		l, err := g.listen(address)
		if err != nil {
			errs = append(errs, fmt.Errorf("gateway: %s%w", s.where, err))
			continue
		}
		opened = append(opened, l)
	}
	if len(errs) > 0 {
		for _, l := range opened {
			_ = l.Close()
		}
		return nil, errors.Join(errs...)
	}
	return opened, nil
}

func (g *Gateway) stopping() bool {
	select {
	case <-g.draining:
		return true
	default:
		return false
	}
}

// drain ends everything, politely first.
func (g *Gateway) drain() error {
	g.mu.Lock()
	close(g.draining)
	g.leave()
	for address, l := range g.up {
		_ = l.Close()
		delete(g.up, address)
	}
	g.mu.Unlock()
	waiting := g.live.clientList()
	g.Log.Info("gateway: draining", "clients", len(waiting))
	longest := time.Duration(0)
	var timers []*time.Timer
	for _, c := range waiting {
		d := c.drainTime()
		longest = max(longest, d)
		timers = append(timers, time.AfterFunc(d, func() { c.stop(errDrained) }))
	}
	done := make(chan struct{})
	go func() { g.clients.Wait(); close(done) }()
	last := time.NewTimer(longest + killGrace + loiterGrace)
	defer last.Stop()
	var err error
	select {
	case <-done:
	case <-last.C:
		err = fmt.Errorf("gateway: %d clients did not end", len(g.live.clientList()))
	}
	for _, t := range timers {
		t.Stop()
	}
	g.kill(ErrStopping)
	g.mu.RLock()
	now := g.now
	g.mu.RUnlock()
	now.release()
	return err
}
