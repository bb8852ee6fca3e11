package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/replay"
)

// served is how sessions are played to clients.
type served struct {
	address, match string
	once           bool
}

// rehearse plays sessions to clients until ctx ends.
func (a *app) rehearse(ctx context.Context, path, dir string, ids []string, s served) error {
	host, _, err := net.SplitHostPort(s.address)
	if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return use(fmt.Errorf("--serve %s: give a host:port of this machine, such as 127.0.0.1:15433: nobody is asked who they are", s.address))
	}
	store, err := a.openReading(ctx, path, dir, gateway.Reading{Sessions: ids, How: "replay --serve"})
	if err != nil {
		return err
	}
	defer store.Close()
	speaks := make([]core.Sandbox, len(ids))
	for i, id := range ids {
		if speaks[i], err = a.sandboxOf(ctx, store, id); err != nil {
			return err
		}
	}
	var secure *tls.Config
	if c, err := load(path); err == nil && dir == "" { // as the gateway does, so that a client need not be changed
		if secure, _, err = gateway.LocalTLS(tlsDir(c), host); err != nil {
			return unreachable(err)
		}
	}
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		return unreachable(err)
	}
	ctx, stop := untilSignalled(ctx)
	defer stop()
	context.AfterFunc(ctx, func() { _ = l.Close() })
	fmt.Fprintf(a.err, "weir: playing %s on %s\n", plural(len(ids), "session"), l.Addr())
	var wg sync.WaitGroup
	var bad atomic.Int64
	for n := 0; !s.once || n < len(ids); n++ {
		conn, err := l.Accept()
		if err != nil {
			break
		}
		i := n % len(ids)
		wg.Go(func() {
			r := core.Rehearsal{Records: replay.Records(ctx, store, ids[i]), Match: core.Match(s.match), TLS: secure}
			if !a.rehearsed(n+1, ids[i], speaks[i].Rehearse(ctx, conn, r)) {
				bad.Add(1)
			}
		})
	}
	_ = l.Close()
	wg.Wait()
	if bad.Load() > 0 && s.once {
		return &exit{exitNo, nil}
	}
	return nil
}

// rehearsed tells how one client got on.
func (a *app) rehearsed(n int, id string, err error) bool {
	var d *core.Divergence
	switch {
	case err == nil:
		fmt.Fprintf(a.out, "client %d, session %s: as recorded\n", n, id)
	case errors.As(err, &d):
		fmt.Fprintf(a.out, "client %d, session %s: after %s the recording goes on with\n  %s\nand the client asked\n  %s\n", n, id, plural(d.Command, "command"), printable(d.Want), printable(d.Got))
	default:
		fmt.Fprintf(a.out, "client %d, session %s: %s\n", n, id, printable(err.Error()))
	}
	return err == nil
}

// sandboxOf finds what speaks a session's protocol to a client.
func (a *app) sandboxOf(ctx context.Context, store keyring.Reader, id string) (core.Sandbox, error) {
	for r, err := range replay.Records(ctx, store, id) {
		if err != nil {
			return nil, missing(err, id)
		}
		name := protocolOf(r)
		for _, p := range a.Protocols {
			if s, ok := p.(core.Sandbox); ok && p.Name() == name {
				return s, nil
			}
		}
		return nil, no(fmt.Errorf("session %s is of protocol %s, which this build cannot play to a client", printable(id), printable(name)))
	}
	return nil, no(fmt.Errorf("session %s holds nothing", printable(id)))
}
