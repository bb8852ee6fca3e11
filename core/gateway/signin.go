package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"github.com/weir-gateway/weir/core"
)

// maxSignIns bounds the connections of the sign-in address; further ones wait in the kernel's queue.
const maxSignIns = 256

// SignIn is an address where people sign in with a browser. Unlike the admin address it is for everybody.
type SignIn struct {
	Address string // host:port
	TLS     bool   // with the certificate of the client leg; an address that is not on loopback has to
	Where   string // of the address in the configuration, for errors: file:line
	Handler http.Handler
}

// serveSignIn starts the server of the sign-in address, if there is one.
func (g *Gateway) serveSignIn() (stop func(), err error) {
	x := g.SignIn
	if x == nil {
		return func() {}, nil
	}
	host, _, err := net.SplitHostPort(x.Address)
	if err != nil || !x.TLS && !loopbackHost(host) {
		return nil, fmt.Errorf("gateway: %s: the sign-in address %s is not on loopback, and without TLS", x.Where, x.Address)
	}
	l, err := g.listen(x.Address)
	if err != nil {
		return nil, fmt.Errorf("gateway: %s: sign-in: %w", x.Where, err)
	}
	ln := l.Listener
	if x.TLS {
		ln = tls.NewListener(ln, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			g.mu.RLock()
			now := g.now.TLS
			g.mu.RUnlock()
			if now == nil {
				return nil, errors.New("there is no certificate")
			}
			c := now.Clone()
			c.NextProtos = []string{"http/1.1"}
			return c, nil
		}})
	}
	g.mu.Lock()
	g.signInAt = l.Addr()
	g.mu.Unlock()
	s := &http.Server{
		Handler: x.Handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 40 * time.Second,
		IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: log.New(io.Discard, "", 0), // clients that break off
	}
	go func() {
		if err := s.Serve(netutil.LimitListener(ln, maxSignIns)); err != nil && !errors.Is(err, http.ErrServerClosed) {
			g.Log.Error("gateway: the server of the sign-in address stopped", "error", err)
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			_ = s.Close()
		}
	}, nil
}

// SignInAddr is where people sign in with a browser, or nil.
func (g *Gateway) SignInAddr() net.Addr {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.signInAt
}

// SignInRefused counts and logs a failed sign-in with a browser, as it does those with a token, and waits where a token
// would.
func (g *Gateway) SignInRefused(r *http.Request, err error) {
	reason := "identity"
	var known interface{ Reason() string }
	if errors.As(err, &known) {
		reason = known.Reason()
	}
	g.metrics.refused.WithLabelValues(reason).Inc()
	source := r.RemoteAddr
	if a, e := net.ResolveTCPAddr("tcp", r.RemoteAddr); e == nil { // an address, no name: nobody is asked
		source, _ = sourceOf(a)
	}
	tell, delay := g.throttle.failed(source, "")
	switch {
	case !errors.Is(err, core.ErrUnauthenticated):
		if g.throttle.tell("gateway", "sign-in") {
			g.Log.Error("gateway: sign-in with a browser failed", "error", err)
		}
	case tell:
		g.Log.Warn("gateway: sign-in with a browser refused", "client", r.RemoteAddr, "reason", reason, "error", err)
	}
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.Context().Done():
		}
	}
}
