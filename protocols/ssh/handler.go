// Package ssh carries sessions of the Secure Shell protocol 2.0: see README.md for what it does and how.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// Protocol is SSH. Make it with New.
type Protocol struct {
	pins pins // of all handlers: a reload makes new ones, and forgets no key
}

var _ core.Protocol = (*Protocol)(nil)

// New returns the protocol.
func New() *Protocol { return &Protocol{} }

// Name returns "ssh".
func (*Protocol) Name() string { return "ssh" }

// Handler returns what serves the listener of the targets given.
func (p *Protocol) Handler(targets []*core.Target) (core.Handler, error) {
	h := &handler{protocol: p, settings: map[*core.Target]*settings{}, signIn: defaultSignIn}
	var errs []error
	shown := ""
	for i, t := range targets {
		s, err := settingsOf(t)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		h.settings[t] = s
		if i == 0 || t.Limits.SignIn > h.signIn {
			h.signIn = t.Limits.SignIn
		}
		if s.HostKey == "" || s.HostKey == shown {
			continue
		}
		if shown != "" {
			errs = append(errs, fmt.Errorf("ssh: target %s: its host_key is %s, and another target of the listener has %s: a listener shows one", t.Name, s.HostKey, shown))
			continue
		}
		shown = s.HostKey
		if h.hostKey, err = readHostKey(s.HostKey); err != nil {
			errs = append(errs, fmt.Errorf("ssh: target %s: host_key: %w", t.Name, err))
		}
	}
	if h.signIn <= 0 {
		h.signIn = defaultSignIn
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return h, nil
}

func readHostKey(path string) (ssh.Signer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	k, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s holds no private key that can be used: %w", path, err)
	}
	return modern(k)
}

type handler struct {
	protocol *Protocol
	settings map[*core.Target]*settings
	signIn   time.Duration

	mu      sync.Mutex
	hostKey ssh.Signer // configured, or the gateway's own once somebody has asked
}

const (
	defaultSignIn = 10 * time.Second
	// preAuth bounds what a client may send before it has signed in: a token of 64 KiB, some keys, and the key exchange.
	preAuth = 512 << 10
	// version is what Weir calls itself, on both legs.
	version = "SSH-2.0-Weir"
)

// Serve carries one client.
func (h *handler) Serve(ctx context.Context, conn net.Conn, g core.Gate) (err error) {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(h.signIn)); err != nil {
		return err
	}
	own, err := h.ownKeys(g)
	if err != nil {
		return err
	}
	bounded := &boundedConn{Conn: conn, gone: make(chan struct{})}
	bounded.left.Store(preAuth)
	s := &signIn{handler: h, gate: g, own: own, conn: conn, gone: bounded.gone}
	defer func() {
		if s.session != nil { // unless somebody has said so before
			err = errors.Join(err, s.session.Close(core.EndError, "internal error"))
		}
	}()
	client, channels, requests, err := ssh.NewServerConn(bounded, s.config(ctx))
	if err != nil {
		if s.session != nil {
			err = errors.Join(err, s.session.Close(core.EndError, "the client went away while it signed in"))
		}
		return err
	}
	defer func() { _ = client.Close() }()
	bounded.free()
	c := &connection{
		session: s.session, settings: h.settings[s.session.Target], client: client, own: own, token: s.token, login: s.login,
		listening: map[string]bool{}, over: make(chan struct{}), end: core.EndError, reason: "internal error",
	}
	_ = conn.SetDeadline(time.Now().Add(2 * h.signIn)) // now it is the target that takes time
	up, err := h.dial(ctx, s)
	if err != nil {
		c.turnAway(channels, requests, safeText(err))
		return errors.Join(err, s.session.Close(core.EndError, safeText(err)))
	}
	defer up.close()
	if up.trusted != "" {
		if err := c.note(ctx, "host-key-trusted", "the target's host key was trusted at first sight: "+up.trusted); err != nil {
			return err
		}
	}
	stop() // from here on the end of the context is the connection's affair
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	c.server = up.conn
	err = c.run(ctx, channels, requests, up.channels, up.requests)
	return errors.Join(err, s.session.Close(c.end, c.reason))
}

// upstreamError is why there is no upstream: safe is what a client may be told.
type upstreamError struct {
	safe string
	err  error
}

func (e *upstreamError) Error() string { return "ssh: " + e.safe + ": " + e.err.Error() }

func (e *upstreamError) Unwrap() []error { return []error{core.ErrUpstream, e.err} }

// safeText is what a client may be told of an error.
func safeText(err error) string {
	var up *upstreamError
	var denial *core.Denial
	var help helpError
	switch {
	case errors.As(err, &help):
		return string(help)
	case errors.As(err, &up):
		return up.safe
	case errors.As(err, &denial):
		return refused(denial)
	case errors.Is(err, core.ErrUnauthenticated):
		return "sign-in failed: " + trimmed(err)
	case errors.Is(err, core.ErrJournalLost):
		return "Weir cannot record now, so it opens no session; try again later"
	}
	return "the connection cannot be opened"
}
