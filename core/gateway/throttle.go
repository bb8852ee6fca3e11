package gateway

import (
	"sync"
	"time"
)

// Failed sign-ins. A token is a signature that nobody guesses, so what has to be bounded is not guessing but what a
// flood of failures costs: log lines, records, and work. Tokens that hold are never delayed.
const (
	window         = time.Minute
	freeFailures   = 10 // of one source within the window; further ones are answered slowly and told of together
	maxDelay       = 5 * time.Second
	maxSources     = 10_000
	maxToldOverall = 600 // within the window, of all sources
)

type throttle struct {
	now     func() time.Time
	mu      sync.Mutex
	sources map[string]*failures
	told    failures // of all sources
}

type failures struct {
	since time.Time
	count int
}

func newThrottle(now func() time.Time) *throttle {
	return &throttle{now: now, sources: map[string]*failures{}}
}

// failed counts a failed sign-in of source. tell says whether to log and record it; delay is how long its answer
// should wait.
func (t *throttle) failed(source string) (tell bool, delay time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.count(source)
	if n <= freeFailures {
		return t.overall(), 0
	}
	return false, min(time.Duration(n-freeFailures)*time.Second, maxDelay)
}

// tell counts something else worth a line for source, and says whether it is among the first of its kind.
func (t *throttle) tell(source, kind string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count(source+" "+kind) <= freeFailures && t.overall()
}

func (t *throttle) overall() bool {
	return t.told.add(t.now()) <= maxToldOverall
}

func (t *throttle) count(key string) int {
	now := t.now()
	f := t.sources[key]
	if f == nil {
		if len(t.sources) >= maxSources {
			t.forget(now)
		}
		f = &failures{}
		t.sources[key] = f
	}
	return f.add(now)
}

func (f *failures) add(now time.Time) int {
	if age := now.Sub(f.since); age >= window || age < 0 {
		f.since, f.count = now, 0
	}
	f.count++
	return f.count
}

// forget makes room: first what is over, then whatever comes.
func (t *throttle) forget(now time.Time) {
	for k, f := range t.sources {
		if now.Sub(f.since) >= window {
			delete(t.sources, k)
		}
	}
	for k := range t.sources {
		if len(t.sources) < maxSources*9/10 {
			return
		}
		delete(t.sources, k)
	}
}
