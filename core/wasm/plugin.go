package wasm

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/weir-gateway/weir/core"
)

// Plugin is a loaded guest. It is safe for use by several goroutines.
type Plugin struct {
	name     string
	host     *Host
	log      *slog.Logger
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	config   []byte
	manifest *Manifest
	sub      core.Subscription
	onError  string
	limits   Limits
	fuel     bool
	digest   [32]byte // of the module
	imports  []string
	begin    int64 // bytes of memory that an instance begins with
	pool     *pool
	circuit  circuit
	store    *store // nil: it needs none
	shared   *store // what plugins of its name have in common
	metrics  *pluginMetrics

	pins   sync.Mutex
	pinned map[string]*pin // by session; nil when the plugin is closed, or its state is not the connection's
}

// Manifest returns what the guest said of itself.
func (p *Plugin) Manifest() Manifest { return *p.manifest }

// Imports are the host's functions that the guest uses, as MODULE.NAME.
func (p *Plugin) Imports() []string { return slices.Clone(p.imports) }

// Limits are those that hold for the guest, with the defaults.
func (p *Plugin) Limits() Limits { return p.limits }

// OnError is what an error of the plugin is meant to mean for its step: "deny" or "pass".
func (p *Plugin) OnError() string { return p.onError }

// Subscription returns the events that the guest asked for.
func (p *Plugin) Subscription() core.Subscription { return p.sub }

// Version names what judges: the version in the manifest, and the digest of the module.
func (p *Plugin) Version() (version, digest string) {
	return p.manifest.Version, "sha256:" + hex.EncodeToString(p.digest[:])
}

// Close waits until no call is under way, for as long as ctx allows, and frees the guest. An Inspect after it fails.
func (p *Plugin) Close(ctx context.Context) error {
	p.unpin()
	if err := p.pool.close(ctx); err != nil {
		return fmt.Errorf("wasm: plugin %q: %w", p.name, err) // what is still in use keeps its memory
	}
	p.unshare()
	return p.runtime.Close(ctx)
}

var _ io.Closer = closer{}

// closer lets a Plugin be closed where a context is not at hand.
type closer struct{ p *Plugin }

func (c closer) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return c.p.Close(ctx)
}

// Closer returns an io.Closer that gives the calls under way ten seconds.
func (p *Plugin) Closer() io.Closer { return closer{p} }

// Inspect asks the guest about one event.
func (p *Plugin) Inspect(ctx context.Context, e *core.Event) (v core.Verdict, err error) {
	kind := frameKinds[e.Kind]
	if kind == 0 || p.sub.Kinds != 0 && !p.sub.Kinds.Has(e.Kind) {
		return core.Verdict{}, nil
	}
	if e.Kind == core.KindRows && (e.Rows == nil || e.Rows.Rows == 0) {
		return core.Verdict{}, nil
	}
	start := time.Now()
	probe, err := p.circuit.allow()
	if err != nil {
		return core.Verdict{}, p.failed(err)
	}
	result := unasked
	defer func() { p.note(result, probe) }()
	in, x, err := p.acquire(ctx, e.Session)
	if err == nil && !probe && x == nil { // it may have waited for its turn
		if probe, err = p.circuit.allow(); err != nil {
			p.pool.put(in)
		}
	}
	if err != nil {
		if costly(err) {
			result = late
		}
		return core.Verdict{}, p.failed(err)
	}
	failure := errUnfinished // a panic of the host's own
	defer func() { p.release(in, x, failure) }()
	v, failure = in.inspect(ctx, kind, e)
	p.metrics.seconds.Observe(time.Since(start).Seconds())
	if result = inTime; costly(failure) {
		result = late
	}
	if in.dropped > 0 {
		p.metrics.dropped.Add(float64(in.dropped))
	}
	if failure != nil {
		return core.Verdict{}, p.failed(failure)
	}
	p.metrics.verdict(e.Kind, &v)
	return v, nil
}

// costly reports whether a failure has taken a whole deadline, or a stack of a hundred megabytes.
func costly(err error) bool { return errors.Is(err, errDeadline) || errors.Is(err, errStack) }

var (
	errUnfinished = errors.New("the host has failed")
	errBusy       = errors.New("it has no instance to spare")
)

// acquire finds an instance for an event: any, or the session's own.
func (p *Plugin) acquire(ctx context.Context, s *core.Session) (*instance, *pin, error) {
	if p.manifest.State == stateConnection {
		return p.own(ctx, s)
	}
	in, err := p.pool.get(ctx)
	if err == nil && in == nil {
		if in, err = p.instantiate(ctx, true); err != nil {
			p.pool.lost()
		}
	}
	return in, nil, err
}

// release gives an instance back. One that has failed is thrown away, and so is one that is worn.
func (p *Plugin) release(in *instance, x *pin, failure error) {
	in.caller, in.findings = nil, nil
	switch {
	case x != nil:
		x.release(failure)
		return
	case failure != nil:
		p.metrics.discards.Inc()
	case in.worn():
		p.metrics.recycled.Inc()
	default:
		p.pool.put(in)
		return
	}
	in.discard()
	p.pool.lost()
}

// note tells the circuit how a call went.
func (p *Plugin) note(o outcome, probe bool) {
	opened, closed := p.circuit.done(o, probe)
	switch {
	case opened:
		p.metrics.circuit.Set(1)
		p.log.Error("wasm: a plugin's circuit is open: what it is asked is refused at once", "after", slowMost, "wait", shortWait)
	case closed:
		p.metrics.circuit.Set(0)
		p.log.Info("wasm: a plugin's circuit is closed again")
	}
}

// Error is why a plugin did not answer.
type Error struct {
	Plugin string
	Err    error
	cause  string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("wasm: plugin %q: %v", e.Plugin, e.Err) }

// Unwrap implements errors.Unwrap.
func (e *Error) Unwrap() error { return e.Err }

// Cause is the error in one word, the same in the metric and in the record: deadline, contract, trap, circuit, busy,
// lost, or plugin.
func (e *Error) Cause() string { return e.cause }

func (p *Plugin) failed(err error) error {
	cause := "plugin"
	var contract *contractError
	var trap *trapError
	var open *openError
	switch {
	case errors.Is(err, errDeadline):
		cause = "deadline"
	case errors.As(err, &contract), errors.Is(err, errPointer):
		cause = "contract"
	case errors.As(err, &open):
		cause = "circuit"
	case errors.Is(err, errLost), errors.Is(err, errGone):
		cause = "lost"
	case errors.Is(err, errClosed), errors.Is(err, errBusy), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		cause = "busy"
	case errors.As(err, &trap):
		cause = "trap"
	}
	p.metrics.failed(cause)
	return &Error{p.name, err, cause}
}
