package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/retention"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/ledger"
)

// socketName is the Unix socket in data by which the process that writes the archive is asked. Whoever may open it may
// read and write the archive's own files as well, so it asks for no token.
const socketName = "archive.sock"

// deed is what is asked for.
type deed struct {
	Do       string   `json:"do"` // hold, release, purge, shred, rewrap, rotate-ledger
	Sessions []string `json:"sessions,omitempty"`
	By       string   `json:"by"`
	Why      string   `json:"why,omitempty"`
	DryRun   bool     `json:"dry_run,omitempty"`
	Subject  string   `json:"subject,omitempty"` // whose sessions are shredded
	Issuer   string   `json:"issuer,omitempty"`
}

// done is the answer.
type done struct {
	Error     string               `json:"error,omitempty"`
	PublicKey string               `json:"public_key,omitempty"` // that the log is signed with now
	No        bool                 `json:"no,omitempty"`         // the error is an answer, and nothing is broken
	Report    *retention.Report    `json:"report,omitempty"`
	Shredded  *retention.Shredded  `json:"shredded,omitempty"`
	Rewrapped *retention.Rewrapped `json:"rewrapped,omitempty"`
}

const (
	maxDeed     = 1 << 20
	maxSessions = 10_000
)

// do does it.
func (d *deed) do(ctx context.Context, c *config.Config, k *retention.Keeper, now time.Time) (out done) {
	var err error
	switch {
	case d.By == "" || len(d.Sessions) > maxSessions:
		err = errors.New("cli: it does not say who asks, or names too many sessions")
	case d.Do == "hold":
		err = k.Hold(ctx, d.By, d.Why, d.Sessions...)
	case d.Do == "release":
		err = k.Release(ctx, d.By, d.Why, d.Sessions...)
	case d.Do == "purge":
		var r retention.Report
		r, err = k.Purge(ctx, d.By, now, d.DryRun)
		out.Report = &r
	case d.Do == "shred":
		var s retention.Shredded
		s, err = k.Shred(ctx, d.By, d.Why, d.Subject, d.Issuer, now, shredAfter(c), d.DryRun)
		out.Shredded = &s
	case d.Do == "rotate-ledger":
		out.PublicKey, err = k.RotateLedger()
	case d.Do == "rewrap":
		var r retention.Rewrapped
		r, err = k.Rewrap(ctx)
		out.Rewrapped = &r
	default:
		err = fmt.Errorf("cli: %q is not hold, release, purge, shred, rewrap or rotate-ledger", d.Do)
	}
	if err != nil {
		out.Error, out.No = err.Error(), errors.Is(err, core.ErrNoSession) || errors.Is(err, ledger.ErrStanding) || errors.Is(err, retention.ErrNoSubject)
	}
	return out
}

// serve answers on the socket.
func (u *upkeep) serve(ctx context.Context, data string) error {
	path, release, err := socketPath(data)
	if err != nil {
		return err
	}
	defer release()
	// Whoever writes the archive holds its lock, so a socket that is there belongs to nobody.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cli: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("cli: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // its name may be good no longer
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("cli: %w", err), l.Close())
	}
	u.server = &http.Server{
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(u.log.Handler(), slog.LevelWarn),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var d deed
			in := json.NewDecoder(io.LimitReader(r.Body, maxDeed))
			in.DisallowUnknownFields()
			if err := in.Decode(&d); err != nil {
				http.Error(w, "cli: it is not JSON that can be read", http.StatusBadRequest)
				return
			}
			out := d.do(r.Context(), u.config.Load(), u.keeper, u.now())
			u.log.Info("cli: archive", "do", d.Do, "sessions", d.Sessions, "by", d.By, "why", d.Why, "subject", d.Subject, "dry_run", d.DryRun, "error", out.Error)
			_ = json.NewEncoder(w).Encode(out)
		}),
	}
	u.wg.Go(func() {
		if err := u.server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			u.log.Error("cli: the archive's socket is closed", "error", err)
		}
		_ = os.Remove(filepath.Join(data, socketName))
	})
	return nil
}

// socketPath returns a name of the socket that is short enough for the kernel (unix(7): 108 bytes), good until release.
func socketPath(data string) (path string, release func(), err error) {
	path = filepath.Join(data, socketName)
	if len(path) < 100 {
		return path, func() {}, nil
	}
	dir, err := os.Open(data)
	if err != nil {
		return "", nil, fmt.Errorf("cli: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketName), func() { _ = dir.Close() }, nil
}

// ask asks the process that writes the archive, or does it in this one where there is none.
func (a *app) ask(ctx context.Context, c *config.Config, d deed) (out done, err error) {
	path, release, err := socketPath(c.Data)
	if errors.Is(err, os.ErrNotExist) {
		return out, unreachable(fmt.Errorf("there is no archive in %s", c.Data))
	}
	if err != nil {
		return out, err
	}
	defer release()
	body, err := json.Marshal(d)
	if err != nil {
		return out, err
	}
	direct := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://archive/", bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	res, err := (&http.Client{Transport: direct}).Do(req)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return a.alone(ctx, c, d)
	}
	if err != nil {
		return out, unreachable(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return out, unreachable(fmt.Errorf("the gateway answers %s", res.Status))
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 256<<20)).Decode(&out); err != nil {
		return out, unreachable(fmt.Errorf("the gateway's answer: %w", err))
	}
	return out, nil
}

// alone does it without a gateway.
func (a *app) alone(ctx context.Context, c *config.Config, d deed) (out done, err error) {
	if _, err := os.Stat(ledgerDir(c)); err != nil { // nothing is to be made here
		return out, unreachable(fmt.Errorf("there is no ledger in %s", c.Data))
	}
	e := &evidence{readers: a.reader}
	defer func() { err = errors.Join(err, e.close(slog.New(slog.DiscardHandler))) }()
	if err := e.openArchive(ctx, c); err != nil {
		return out, unreachable(err)
	}
	k := e.keeper(func(target string) retention.Term { return termOf(c, target) })
	return d.do(ctx, c, k, clock()), nil
}
