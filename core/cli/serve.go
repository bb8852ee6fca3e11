package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/approval"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/identity/revocation"
)

func (a *app) serve() *cobra.Command {
	var path, role, format, level, debug string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: "Run the gateway. It prints one line a listener and then \"weir: ready\" on stderr. SIGTERM and SIGINT let open\n" +
			"sessions finish within their limits.drain; a second one ends at once. SIGHUP reloads the configuration: its\n" +
			"policies and plugins hold for open sessions too, everything else is for new ones.\n\n" +
			"With a JetStream of its own (journal.nats.url) the work can be divided: any number of processes with the role\n" +
			"gateway, and one with the role archive; further ones with the same data stand by for it.",
		Example: "  weir serve\n  weir serve -c /etc/weir/weir.yaml --log-format json\n  weir serve --role gateway",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(a.err, format, level)
			if err != nil {
				return use(err)
			}
			stopProfiles, err := profiles(debug)
			if err != nil {
				return use(err)
			}
			defer stopProfiles()
			ctx, stop := untilSignalled(cmd.Context())
			defer stop()
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP)
			defer signal.Stop(hup)
			return coded(a.runGateway(ctx, configPath(path), role, log, hup))
		},
	}
	configFlag(c, &path)
	c.Flags().StringVar(&role, "role", roleAll, "what this process does: `all`, gateway or archive")
	c.Flags().StringVar(&format, "log-format", "text", "`format` of the log on stderr: text or json")
	c.Flags().StringVar(&level, "log-level", "info", "least `level` that is logged: debug, info, warn or error")
	c.Flags().StringVar(&debug, "pprof", "", "serve Go's profiles on this loopback `address`")
	return c
}

func logger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level is debug, info, warn or error, not %q", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("--log-format is text or json, not %q", format)
}

// untilSignalled returns a context that SIGTERM and SIGINT end. A second signal has its usual effect, however soon it comes.
func untilSignalled(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	signals, over := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-over:
				return
			case s := <-signals:
				cancel()
				if sig, ok := s.(syscall.Signal); ok && n > 0 {
					signal.Reset(s)
					_ = syscall.Kill(os.Getpid(), sig)
				}
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(over)
		cancel()
	}
}

// runGateway starts everything in order, runs until ctx ends, and stops everything in the opposite order: what is
// stopped last is what the evidence needs.
func (a *app) runGateway(ctx context.Context, path, role string, log *slog.Logger, hup <-chan os.Signal) (err error) {
	cfg, err := config.Load(path)
	if err != nil {
		if all, more := a.checked(ctx, path); all != nil && more != nil {
			err = more
		}
		return use(err)
	}
	if err := checkRole(cfg, role); err != nil {
		return use(err)
	}
	a.warn(cfg)
	if role == roleArchive {
		return a.runArchive(ctx, cfg, log, hup)
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return unreachable(err)
	}
	registry := prometheus.NewRegistry()
	w, err := newWiring(ctx, a.Build, cfg, log, registry, false)
	if err != nil {
		return unreachable(err)
	}
	defer w.close()
	settings, err := w.settings(ctx, cfg)
	if err != nil {
		return use(err)
	}
	name, _ := os.Hostname()
	boot := core.NewID(time.Now())
	e, err := openEvidence(ctx, cfg, role, name, boot, a.reader, log)
	if err != nil {
		settings.Release()
		return unreachable(err)
	}
	defer func() { err = errors.Join(err, e.close(log)) }()
	if role == roleAll {
		registry.MustRegister(verifiedMetrics{cfg.Data})
	}
	approvals := approval.New(approval.Config{JetStream: e.journal.JetStream(), Replicas: cfg.Journal.NATS.Replicas, Log: log, Metrics: registry})
	defer approvals.Close()
	revoked := revocation.Open(ctx, revocation.Config{
		JetStream: e.journal.JetStream(), Replicas: cfg.Journal.NATS.Replicas, MaxAge: cfg.Identity.Revocations.MaxAge, Log: log, Metrics: registry,
	})
	defer revoked.Close()
	var g *gateway.Gateway
	signIn, err := signInAddress(cfg, e.journal.JetStream(), log, func() *gateway.Gateway { return g })
	if err != nil {
		settings.Release()
		return use(err)
	}
	version, _ := a.release()
	asked := make(chan chan error)
	g, err = gateway.New(gateway.Config{
		Name: name, Boot: boot, Protocols: a.Protocols, Journal: e.journal, Lost: e.journal.Lost, Approvals: approvals, Revocations: revoked, SignIn: signIn,
		Holds: e.holds(cfg), Recordings: e.recordings(), Version: version, Reread: func(ctx context.Context) error { return reread(ctx, asked) },
		Admin: cfg.Listen.Admin, Where: fmt.Sprintf("%s:%d", cfg.File, cfg.Line("listen.admin")),
		Limits: gateway.Limits{
			Connections: cfg.Listen.Connections, PerListener: cfg.Listen.ListenerConnections, UnsignedPerSource: cfg.Listen.UnsignedPerSourceMax,
			SessionsPerIdentity: cfg.Listen.SessionsPerIdentity,
		},
		Lock: cfg.Listen.Lock, Locks: filepath.Join(cfg.Data, "locks.json"),
		Secret: func() ([]byte, error) { return protocolsKey(keysDir(cfg)) },
		Log:    log, Registry: registry,
		Ready: func(listeners []gateway.Listener) { a.ready(g.AdminAddr(), g.SignInAddr(), w.caPath, listeners) },
	}, settings)
	if err != nil {
		settings.Release()
		return use(err)
	}
	reloads, stopReloads := context.WithCancel(ctx)
	defer stopReloads()
	bundles := make(chan struct{}, 1)
	watch := func(c *config.Config) (stop context.CancelFunc) {
		ctx, stop := context.WithCancel(reloads)
		w.watch(ctx, c, func() {
			select {
			case bundles <- struct{}{}:
			default:
			}
		})
		return stop
	}
	recordBeside(ctx, cfg, g, log)
	go func() {
		now, stop := cfg, watch(cfg)
		defer func() { stop() }()
		later := time.NewTicker(besideEvery)
		defer later.Stop()
		again := func() error {
			next, err := a.reload(reloads, g, w, cfg, log)
			if err == nil {
				stop()
				now, stop = next, watch(next)
				e.upkeep.use(next)
			}
			return err
		}
		by := func(who, what string, f func() error) {
			act := gateway.Act{Action: "reload", Object: what, Who: gateway.Local(who), Operator: true, Changes: true, Anyway: true, Unasked: true}
			_ = g.Do(reloads, act, func(context.Context) (string, error) { return "", f() }) // the log has told
		}
		for {
			select {
			case <-reloads.Done():
				return
			case <-hup:
				by("SIGHUP", "", again)
			case answer := <-asked: // and recorded by who asked
				answer <- again()
			case <-bundles:
				by("poll", "bundle", func() error { return a.apply(reloads, g, w, now, log) })
			case <-later.C:
				recordBeside(reloads, now, g, log)
			}
		}
	}()
	return g.Run(ctx)
}

// besideEvery is how often the gateway looks for what was done beside it.
const besideEvery = time.Minute

// reread has the configuration read again, and waits for what came of it.
func reread(ctx context.Context, asked chan<- chan error) error {
	answer := make(chan error, 1)
	select {
	case asked <- answer:
	case <-ctx.Done():
		return errors.New("the gateway is starting, stopping, or busy with another reload")
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return errors.New("it takes long: the gateway's log tells what comes of it")
	}
}

// ready tells where clients go.
func (a *app) ready(admin, signIn net.Addr, caPath string, listeners []gateway.Listener) {
	for _, l := range listeners {
		fmt.Fprintf(a.err, "weir: %s on %s (%s)\n", l.Protocol, l.Address, strings.Join(l.Targets, ", "))
	}
	fmt.Fprintf(a.err, "weir: health, metrics and API on http://%s\n", admin)
	if signIn != nil {
		fmt.Fprintf(a.err, "weir: sign-in with a browser on %s\n", signIn)
	}
	if caPath != "" {
		fmt.Fprintf(a.err, "weir: certificate of the local CA: %s\n", caPath)
	}
	fmt.Fprintln(a.err, "weir: ready")
}

// reload changes to what the file says now, and returns it. When anything is wrong nothing changes, and the log says
// what, as the error does.
func (a *app) reload(ctx context.Context, g *gateway.Gateway, w *wiring, running *config.Config, log *slog.Logger) (*config.Config, error) {
	next, err := config.Load(running.File)
	if err == nil {
		err = reloadable(running, next)
	}
	if err != nil {
		refused(running, err, log)
		return nil, err
	}
	if err := a.apply(ctx, g, w, next, log); err != nil {
		return nil, err
	}
	for _, p := range next.Warnings {
		log.Warn("cli: reload", "warning", p.String())
	}
	return next, nil
}

// apply loads everything that c names, and changes to it.
func (a *app) apply(ctx context.Context, g *gateway.Gateway, w *wiring, c *config.Config, log *slog.Logger) error {
	settings, err := w.settings(ctx, c)
	if err == nil {
		if err = g.Reload(settings); err != nil {
			settings.Release()
		}
	}
	if err != nil {
		refused(c, err, log)
		return err
	}
	log.Info("cli: reloaded", "file", c.File, "targets", len(c.Targets))
	return nil
}

func refused(c *config.Config, err error, log *slog.Logger) {
	for _, p := range problemsOf(err) {
		log.Error("cli: reload refused", "problem", p.String())
	}
	log.Error("cli: reload refused: nothing has changed", "file", c.File)
}

// reloadable refuses a change that only a restart can make.
func reloadable(now, next *config.Config) error {
	var problems config.Problems
	for _, part := range []struct {
		path       string
		was, would any
	}{
		{"data", now.Data, next.Data},
		{"listen.admin", now.Listen.Admin, next.Listen.Admin},
		{"listen.connections", now.Listen.Connections, next.Listen.Connections},
		{"listen.listener_connections", now.Listen.ListenerConnections, next.Listen.ListenerConnections},
		{"listen.unsigned_in_per_source", now.Listen.UnsignedPerSourceMax, next.Listen.UnsignedPerSourceMax},
		{"listen.lock", now.Listen.Lock, next.Listen.Lock},
		{"listen.sessions_per_identity", now.Listen.SessionsPerIdentity, next.Listen.SessionsPerIdentity},
		{"listen.sign_in", now.Listen.SignIn, next.Listen.SignIn},
		{"identity.saml", now.Identity.SAML, next.Identity.SAML},
		{"identity.revocations", now.Identity.Revocations, next.Identity.Revocations},
		{"journal.nats", now.Journal.NATS, next.Journal.NATS},
		{"archive", stores(now), stores(next)},
		{"ledger", now.Ledger, next.Ledger},
		{"plugin_memory", now.PluginMemory, next.PluginMemory},
	} {
		if !reflect.DeepEqual(part.was, part.would) {
			problems = append(problems, next.Problem(part.path, "cannot be changed by a reload", "restart the gateway"))
		}
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

func stores(c *config.Config) []config.Archive {
	out := slices.Clone(c.Archive)
	for i := range out {
		out[i].Rest = nil // which knows the lines that it stood in
	}
	return out
}
