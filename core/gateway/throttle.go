package gateway

import (
	"sync"
	"time"
)

// Failed sign-ins. A token is a signature that nobody guesses, so what has to be bounded is not guessing but what a
// flood of failures costs: log lines, records, and work. Tokens that hold are never delayed; lockout refuses who fails
// too often.
const (
	window         = time.Minute
	freeFailures   = 10 // of one source within the window; further ones are answered slowly and told of together
	maxDelay       = 5 * time.Second
	maxSources     = 10_000
	maxToldOverall = 600 // within the window, of all sources
	maxUserKey     = 128 // bytes of a name that count
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

// failed counts a failed sign-in of source, in the name of a user if it has one. tell says whether to log and record it;
// delay is how long its answer should wait. The name is only claimed, so it makes failures slow, wherever they come
// from, and nothing else: or anybody could keep anybody out.
func (t *throttle) failed(source, user string) (tell bool, delay time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, slow := t.count(source), 0
	if user != "" {
		if len(user) > maxUserKey {
			user = user[:maxUserKey]
		}
		slow = t.count("user " + user)
	}
	slow = max(n, slow)
	if slow > freeFailures {
		delay = min(time.Duration(slow-freeFailures)*time.Second, maxDelay)
	}
	return n <= freeFailures && t.overall(), delay
}

// tell counts something else worth a line for source, and says whether it is among the first of its kind.
func (t *throttle) tell(source, kind string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count(source+" "+kind) <= freeFailures && t.overall()
}

// often counts something that a source may do so many times within the window, and reports whether it has been more.
func (t *throttle) often(key string, most int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count(key) > most
}

// first reports whether nothing of a key was counted within the window.
func (t *throttle) first(key string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count(key) == 1
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
