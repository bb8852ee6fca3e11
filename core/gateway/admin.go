package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core"
)

// Live is an open session as the API lists it: the fields of the index, as far as there is something to say yet.
type Live struct {
	ID       string    `json:"id"`
	Identity string    `json:"identity"`
	Target   string    `json:"target"`
	Protocol string    `json:"protocol"`
	Run      string    `json:"run"`
	Started  time.Time `json:"started"`
	Commands int64     `json:"commands"`
	Rows     int64     `json:"rows"`
	Denied   int64     `json:"denied"`
	Issuer   string    `json:"issuer"`
	Kind     string    `json:"kind"`
	Client   string    `json:"client"` // where it comes from
	Bytes    int64     `json:"bytes"`  // sent to the client
}

// Sessions lists the open sessions, the oldest first.
func (g *Gateway) Sessions() []Live {
	list := g.live.list()
	out := make([]Live, len(list))
	for i, s := range list {
		out[i] = liveOf(s)
	}
	return out
}

func liveOf(s *core.Session) Live {
	t := s.Totals()
	return Live{
		ID: s.ID, Identity: s.Identity.Subject, Target: s.Target.Name, Protocol: s.Protocol, Run: s.Run, Started: s.Started.UTC(),
		Commands: t.Commands, Rows: t.Rows, Denied: t.Denied, Issuer: s.Identity.Issuer, Kind: s.Identity.Kind, Client: addrText(s.Hello.Client), Bytes: t.Bytes,
	}
}

func addrText(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

// notReady says why the gateway takes no clients; empty: it does.
func (g *Gateway) notReady() []string {
	var why []string
	g.mu.RLock()
	if !g.ready {
		why = append(why, "the listeners are not up")
	}
	g.mu.RUnlock()
	if g.stopping() {
		why = append(why, "the gateway is stopping")
	}
	if g.Lost != nil {
		if err := g.Lost(); err != nil {
			why = append(why, "nothing can be recorded: "+err.Error())
		}
	}
	return why
}

// serveAdmin starts the admin server. Some of it has no sign-in, so it is for this machine only.
func (g *Gateway) serveAdmin() (stop func(), err error) {
	host, _, err := net.SplitHostPort(g.Admin)
	if err != nil || !loopbackHost(host) {
		return nil, fmt.Errorf("gateway: the admin address %s is not on loopback", g.Admin)
	}
	l, err := g.listen(g.Admin)
	if err != nil {
		where := g.Where
		if where != "" {
			where += ": "
		}
		return nil, fmt.Errorf("gateway: %sadmin: %w", where, err)
	}
	g.mu.Lock()
	g.admin = l.Listener
	g.mu.Unlock()
	s := &http.Server{
		Handler: g.AdminHandler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	go func() {
		if err := s.Serve(l.Listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			g.Log.Error("gateway: admin server stopped", "error", err)
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

// AdminHandler serves health, metrics and the API.
func (g *Gateway) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	a := &api{g: g}
	for _, r := range a.routes() {
		mux.HandleFunc(r.method+" "+r.path, a.serve(&r))
	}
	return guard(mux)
}

// guard refuses requests that a web page could have made in the name of somebody on this machine: a name that was
// made to point here (DNS rebinding) is not loopback's own, and a page's requests say where they come from.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if site := r.Header.Get("Sec-Fetch-Site"); !loopbackHost(strings.Trim(host, "[]")) || (site != "" && site != "none" && site != "same-origin") {
			http.Error(w, "gateway: this address is for this machine only", http.StatusForbidden)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func loopbackHost(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
