// Package opa asks Rego for a verdict: at Open whether an identity may have a session, at Command and Columns what
// may be done and what has to be hidden. It is asked once for a command or the shape of an answer, never for a row.
//
// Two engines evaluate a policy: OPA's topdown, and OPA's compiler to WebAssembly with a runtime of the gateway's
// (engine.go, guest*.go). Topdown is the reference; the tests in engines*_test.go compare the two.
package opa

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/weir-gateway/weir/core"
)

// Config says which policy to load.
type Config struct {
	Name string // in errors
	// Path is a directory (its _test.rego files are left out), a .rego file, or a bundle .tar.gz.
	Path string
	// FS, when set, is read in place of Path, which then only names it in errors.
	FS fs.FS
	// Key, when set, is what the bundle at Path has to be signed with.
	Key *Key
	// MaxBytes bounds all files together, those of a bundle unpacked. Default 128 MiB, and 64 MiB of a bundle.
	MaxBytes int64
	// Packages are the packages to ask; each must be there. Empty: weir.access and weir.guardrails, of which one
	// must be there. A package whose name ends with "access" is asked at Open, the others at Command and Columns.
	Packages []string
	// Timeout bounds one evaluation; reaching it is an error, which denies. Default 500 ms.
	Timeout time.Duration
	// CacheEntries bounds the verdicts that are kept. Default 8192; negative: none is kept.
	CacheEntries int
	// Engine evaluates it. Default Auto.
	Engine Engine
	Log    *slog.Logger
}

// DefaultPackages are asked when a policy names none.
var DefaultPackages = []string{"weir.access", "weir.guardrails"}

const (
	defaultTimeout = 500 * time.Millisecond // of wall time: a busy machine is no reason to deny
	defaultEntries = 8192
	keptCommands   = 4096
)

// Policy is a loaded policy. It is safe for use by several goroutines, and never changes: a reload loads another.
type Policy struct {
	name, revision, short string
	manifest              manifest
	timeout               time.Duration
	open, guard           *question // nil: not asked
	guest                 *guest    // nil: topdown answers
	why                   string    // it does
	shown                 shown

	reads, identifies fields // what of commands and identities is part of the key
	commands          *lru[*core.Command, *commandPart]
	sessions          sync.Map // *core.Session -> *sessionPart
	verdicts          *lru[key, *core.Verdict]
	hits, misses      atomic.Uint64
}

// key holds everything that a kept verdict may depend on.
type key struct {
	command, columns, identity, target, state digest
	stage                                     string
	kind                                      core.Kind
	direction                                 core.Direction
}

var (
	_ core.Plugin     = (*Policy)(nil)
	_ core.Subscriber = (*Policy)(nil)
	_ core.Closer     = (*Policy)(nil)
)

// Load reads, compiles and checks a policy. Its error holds every problem, each with file:line.
func Load(ctx context.Context, c Config) (*Policy, error) {
	p, err := load(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("opa: policy %q: %w", c.Name, err)
	}
	return p, nil
}

func load(ctx context.Context, c Config) (*Policy, error) {
	src, err := read(ctx, c.Path, c.FS, c.Key, c.MaxBytes)
	if err != nil {
		return nil, err
	}
	packages, err := choose(src, c.Packages)
	if err != nil {
		return nil, err
	}
	compiler, err := compile(src, packages)
	if err != nil {
		return nil, err
	}
	p := &Policy{name: c.Name, manifest: src.manifest, revision: src.revision, short: src.revision[:12], timeout: c.Timeout}
	if p.timeout <= 0 {
		p.timeout = defaultTimeout
	}
	// What was read is JSON already, and nobody else has it: it need not be copied.
	store := inmem.NewFromObjectWithOpts(src.data, inmem.OptReturnASTValuesOnRead(true), inmem.OptRoundTripOnWrite(false))
	data := src.data
	src.data = nil // the store has values of its own, and the compiler would keep this
	var access, guard []string
	for _, pkg := range packages {
		if isAccess(pkg) {
			access = append(access, pkg)
		} else {
			guard = append(guard, pkg)
		}
	}
	if p.open, err = ask(ctx, compiler, store, "open", access); err != nil {
		return nil, err
	}
	if p.guard, err = ask(ctx, compiler, store, "guard", guard); err != nil {
		return nil, err
	}
	p.shown = shownBy(p.open, p.guard)
	if err := p.engine(ctx, c.Engine, src.modules, data, compiler); err != nil {
		return nil, err
	}
	for _, q := range []*question{p.open, p.guard} {
		if q != nil {
			p.reads |= q.footprint.command
			p.identifies |= q.footprint.identity
		}
	}
	p.commands = newLRU[*core.Command, *commandPart](keptCommands, func(c *core.Command) uint64 { return uint64(uintptr(unsafe.Pointer(c))) >> 7 })
	if n := c.CacheEntries; n >= 0 {
		if n == 0 {
			n = defaultEntries
		}
		p.verdicts = newLRU[key, *core.Verdict](n, func(k key) uint64 { return k.command[0] ^ k.columns[0] ^ k.identity[1] })
	}
	if c.Log != nil {
		engine, _ := p.Engine()
		for _, q := range []*question{p.open, p.guard} {
			if q != nil {
				c.Log.Debug("opa: policy loaded", "policy", c.Name, "revision", p.short, "packages", q.packages, "engine", engine, "reads", q.footprint.paths, "uncached", q.footprint.volatile)
			}
		}
	}
	return p, nil
}

// choose returns the packages to ask.
func choose(src *source, named []string) ([]string, error) {
	there := map[string]bool{}
	for _, m := range src.modules {
		there[strings.TrimPrefix(m.Package.Path.String(), "data.")] = true
	}
	if len(named) > 0 {
		for i, n := range named {
			if n == "" || slices.Contains(named[:i], n) {
				return nil, fmt.Errorf("packages: %q is empty or named twice", n)
			}
			for part := range strings.SplitSeq(n, ".") {
				if part == "" {
					return nil, fmt.Errorf("packages: %q is no package name", n)
				}
			}
		}
		return named, nil // one that is missing is told by compile
	}
	var out []string
	for _, n := range DefaultPackages {
		if there[n] {
			out = append(out, n)
		}
	}
	if len(out) > 0 {
		return out, unasked(src, out)
	}
	for _, n := range []string{AdminPackage, ReplayPackage} { // one of them: they are asked by different chains
		if there[n] {
			return []string{n}, unasked(src, []string{n})
		}
	}
	var have []string
	for n := range there {
		have = append(have, n)
	}
	slices.Sort(have)
	return nil, fmt.Errorf("neither %s is in these files, so it would do nothing: they hold %v (name the packages to ask with `packages:`)", strings.Join(DefaultPackages, " nor "), have)
}

// unasked refuses files in which a package under weir gives answers that nobody asks for: such a rule would look like
// a control and do nothing. Packages that hold helpers only may have any name.
func unasked(src *source, asked []string) error {
	var errs []error
	told := map[string]bool{}
	for _, m := range src.modules {
		pkg := strings.TrimPrefix(m.Package.Path.String(), "data.")
		if slices.Contains(asked, pkg) || told[pkg] || !strings.HasPrefix(pkg, "weir.") || strings.HasSuffix(pkg, "_test") {
			continue
		}
		for _, r := range m.Rules {
			if name := strings.Trim(r.Head.Ref()[0].String(), `"`); name != "record" && slices.Contains(askedOf(pkg), name) {
				told[pkg] = true
				errs = append(errs, fmt.Errorf("%s:%d: package %s has a rule %s, but only %s are asked, so it would do nothing (list every package to ask under `packages:`)",
					r.Location.File, r.Location.Row, pkg, name, strings.Join(asked, " and ")))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// Revision is the SHA-256 of the files the policy was loaded from, in hexadecimal. Decisions name its first twelve
// digits.
func (p *Policy) Revision() string { return p.revision }

// Footprint lists the paths of the input that the policy can read, and those of them that keep its verdicts from
// being cached.
func (p *Policy) Footprint() (reads, uncached []string) {
	for _, q := range []*question{p.open, p.guard} {
		if q != nil {
			reads = append(reads, q.footprint.paths...)
			uncached = append(uncached, q.footprint.volatile...)
		}
	}
	return reads, uncached
}

// Stats are counts since the policy was loaded.
type Stats struct {
	Hits, Misses uint64 // of kept verdicts; a verdict that cannot be kept counts as a miss
	Entries      int    // kept now
}

// Stats returns the counts.
func (p *Policy) Stats() Stats {
	s := Stats{Hits: p.hits.Load(), Misses: p.misses.Load()}
	if p.verdicts != nil {
		s.Entries = p.verdicts.len()
	}
	return s
}

// Subscription says at which events the policy is asked.
func (p *Policy) Subscription() core.Subscription {
	var k core.Kinds
	if p.open != nil {
		k |= core.KindSet(core.KindOpen)
	}
	if p.guard != nil {
		k |= core.KindSet(core.KindCommand, core.KindColumns)
	}
	tables := false
	for _, q := range []*question{p.open, p.guard} {
		tables = tables || q != nil && q.footprint.asks&(askTables|askRunTables) != 0
	}
	return core.Subscription{Kinds: k, Tables: tables}
}

// Forget drops what is kept for a session.
func (p *Policy) Forget(s *core.Session) { p.sessions.Delete(s) }

// Inspect asks the policy. The verdict may be shared with other events: it must not be changed.
func (p *Policy) Inspect(ctx context.Context, e *core.Event) (core.Verdict, error) {
	var q *question
	switch e.Kind {
	case core.KindOpen:
		q = p.open
	case core.KindCommand, core.KindColumns:
		q = p.guard
	}
	if q == nil {
		return core.Verdict{}, nil
	}
	part := p.sessionPart(e.Session)
	f := &q.footprint
	keep := p.verdicts != nil && f.cacheable() && !(f.params && len(e.Params) > 0)
	st := part.state(f, e.Session)
	var k key
	if keep {
		k = key{kind: e.Kind, direction: e.Direction, stage: e.Stage, identity: part.identity, state: st.digest}
		if f.target {
			k.target = part.target
		}
		if c := e.Command(); c != nil && f.command != 0 {
			k.command = p.commandPart(c).digest
		} else if c != nil {
			k.command[1] = 1 // there is one
		}
		if f.columns {
			k.columns = columnsDigest(e.Columns)
		}
		if v, ok := p.verdicts.get(k); ok {
			p.hits.Add(1)
			return *v, nil
		}
	}
	p.misses.Add(1)
	v, err := p.eval(ctx, q, e, part, &st)
	if err != nil {
		return core.Verdict{}, fmt.Errorf("opa: policy %q: %w", p.name, err)
	}
	if keep {
		p.verdicts.put(k, &v)
	}
	return v, nil
}
