package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"github.com/weir-gateway/weir/core"
)

const (
	maxLockFile = 4 << 20     // bytes
	saveEvery   = time.Second // at most
)

// lockout keeps account of failed sign-ins by source. A source with freeFailures of them within the window is locked
// out: until its time is over it is refused whatever token it shows, which is not even looked at, so that nothing is
// learnt from trying. Loopback is not locked: everybody on this machine would be, by any one of them.
type lockout struct {
	now  func() time.Time
	hold time.Duration // 0: nobody is locked
	path string        // where the account outlives the process; empty: nowhere

	mu      sync.Mutex
	sources map[string]*attempts
	changed chan struct{}
}

// attempts is the account of one source.
type attempts struct {
	Since time.Time `json:"since"`
	Count int       `json:"count"`
	Until time.Time `json:"until,omitzero"` // it is locked
}

// Locked is a source that is locked out.
type Locked struct {
	Source string    `json:"source"` // an IPv4 address, or the /64 of an IPv6 one
	Until  time.Time `json:"until"`
}

// errLocked is what a source that is locked out is told, whatever it shows.
type errLocked struct{ hold time.Duration }

func (e *errLocked) Error() string {
	return fmt.Sprintf("gateway: too many sign-ins have failed from this address: wait %s, or ask the operator", e.hold)
}

// Reason is the word that it is counted under.
func (*errLocked) Reason() string { return "locked" }

// Is makes it a core.ErrUnauthenticated.
func (*errLocked) Is(target error) bool { return target == core.ErrUnauthenticated }

func newLockout(now func() time.Time, hold time.Duration, path string) *lockout {
	return &lockout{now: now, hold: max(hold, 0), path: path, sources: map[string]*attempts{}, changed: make(chan struct{}, 1)}
}

// failed counts a failed sign-in, and reports whether the source is locked from now on.
func (l *lockout) failed(source string) (locked bool) {
	if l.hold == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	a := l.sources[source]
	if a == nil {
		if len(l.sources) >= maxSources {
			l.forget(now)
		}
		a = &attempts{}
		l.sources[source] = a
	}
	if age := now.Sub(a.Since); age >= window || age < 0 {
		a.Since, a.Count = now, 0
	}
	if a.Count++; a.Count >= freeFailures && !a.Until.After(now) {
		a.Until, locked = now.Add(l.hold), true
	}
	l.touch()
	return locked
}

// locked reports whether a source is locked out.
func (l *lockout) locked(source string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.sources[source]
	return a != nil && a.Until.After(l.now())
}

// release ends the lock of a source, and forgets its failures.
func (l *lockout) release(source string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.sources[source]
	if a == nil || !a.Until.After(l.now()) {
		return false
	}
	delete(l.sources, source)
	l.touch()
	return true
}

// list returns who is locked out.
func (l *lockout) list() []Locked {
	l.mu.Lock()
	defer l.mu.Unlock()
	out, now := []Locked{}, l.now()
	for source, a := range l.sources {
		if a.Until.After(now) {
			out = append(out, Locked{source, a.Until.UTC()})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Source < out[j].Source })
	return out
}

// forget makes room: first what is over, then who is not locked, then whoever comes.
func (l *lockout) forget(now time.Time) {
	over := func(a *attempts) bool { return !a.Until.After(now) }
	for _, goes := range []func(*attempts) bool{
		func(a *attempts) bool { return over(a) && now.Sub(a.Since) >= window },
		over,
		func(*attempts) bool { return true },
	} {
		for source, a := range l.sources {
			if len(l.sources) < maxSources*9/10 {
				return
			}
			if goes(a) {
				delete(l.sources, source)
			}
		}
	}
}

func (l *lockout) touch() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// load takes up the account of an earlier process. One that cannot be read is no reason not to start.
func (l *lockout) load() error {
	if l.path == "" {
		return nil
	}
	info, err := os.Stat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Size() > maxLockFile {
		err = fmt.Errorf("it has %d bytes", info.Size())
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(l.path)
	}
	kept := map[string]*attempts{}
	if err == nil {
		err = json.Unmarshal(b, &kept)
	}
	if err != nil {
		return fmt.Errorf("gateway: failed sign-ins of an earlier start are forgotten: %s: %w", l.path, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for source, a := range kept {
		if a == nil || len(l.sources) >= maxSources || a.Since.After(now) || a.Until.After(now.Add(l.hold)) {
			continue
		}
		l.sources[source] = a
	}
	return nil
}

// save writes the account.
func (l *lockout) save() error {
	if l.path == "" {
		return nil
	}
	l.mu.Lock()
	now := l.now()
	for source, a := range l.sources {
		if !a.Until.After(now) && now.Sub(a.Since) >= window {
			delete(l.sources, source)
		}
	}
	b, err := json.Marshal(l.sources)
	l.mu.Unlock()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(l.path), ".locks-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), l.path)
}

// keep saves what has changed, soon, until ctx ends, and then for the last time.
func (l *lockout) keep(ctx context.Context, failed func(error)) {
	tell := func(err error) {
		if err != nil {
			failed(fmt.Errorf("gateway: failed sign-ins cannot be kept for the next start: %w", err))
		}
	}
	for {
		select {
		case <-ctx.Done():
			tell(l.save())
			return
		case <-l.changed:
			tell(l.save())
		}
		select {
		case <-ctx.Done():
		case <-time.After(saveEvery):
		}
	}
}
