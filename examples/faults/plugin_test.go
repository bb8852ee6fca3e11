//go:build linux

package faults_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// guest builds a plugin that does what its configuration says, and puts it beside the gateway's file.
func guest(t *testing.T, g *gateway, name string) {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(g.dir, name+".wasm"))
	must(t, err)
	c := command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, "./core/wasm/testdata/guest")
	c.Dir = root
	c.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestSpinningPlugin: a plugin that never returns costs the statement that it was asked about one deadline, and the statement is
// refused. The session goes on, and no other one waits for it.
func TestSpinningPlugin(t *testing.T) {
	const deadline = 50 * time.Millisecond
	g := prepare(t, setup{
		plugins: "plugins:\n  - {name: spinner, wasm: spinner.wasm, config: {mode: spin}, limits: {command: 50ms}}\n",
		chain:   "[guardrails, spinner]",
	})
	guest(t, g, "spinner")
	g.serve()
	ask := func(c *client) time.Duration {
		start := time.Now()
		c.must(t, "select 1")
		return time.Since(start)
	}
	victim, other := g.open("spins"), g.open("other")
	ask(victim)
	ask(other)

	stop, worst := make(chan struct{}), atomic.Int64{}
	var wg sync.WaitGroup
	var alone, meanwhile []time.Duration
	for range 100 {
		alone = append(alone, ask(other))
	}
	wg.Go(func() {
		for {
			d := ask(other)
			meanwhile = append(meanwhile, d)
			worst.Store(max(worst.Load(), int64(d)))
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	var took []time.Duration
	for range 10 {
		start := time.Now()
		a, err := victim.query("select 'spin for ever'")
		took = append(took, time.Since(start))
		if must(t, err); a.err == nil || !strings.Contains(a.err.Error(), "a step of the chain failed") {
			t.Errorf("it was told %v", a.err)
		}
		ask(victim) // the session goes on, and the next statement finds an instance
	}
	close(stop)
	wg.Wait()
	for _, d := range [][]time.Duration{took, alone, meanwhile} {
		slices.Sort(d)
	}
	half := func(d []time.Duration) time.Duration { return d[len(d)/2] }
	t.Logf("a statement that spins took %v (at least %v, at most %v) for a deadline of %v; another session's %v alone, %v (at most %v) meanwhile",
		half(took), took[0], took[len(took)-1], deadline, half(alone), half(meanwhile), time.Duration(worst.Load()))
	if took[0] < deadline || half(took) > 4*deadline {
		t.Errorf("it took %v", took)
	}
	if half(meanwhile) > half(alone)+deadline/2 {
		t.Errorf("the others waited: %v, not %v", half(meanwhile), half(alone))
	}
}

var swapStatements = flag.Int("swap-statements", 1000, "how many statements TestHotSwap asks before a plugin is replaced, and around it")

// TestHotSwap: a plugin is replaced under load by a module that has to be compiled. No statement fails, and every one is asked
// about. What it does to the time of a statement is printed; make bench-plugins has enough of them for a figure.
func TestHotSwap(t *testing.T) {
	for name, module := range map[string]string{"C": "sdk/c/examples/mask/mask.wasm", "Go": "sdk/go/examples/mask/mask.wasm"} {
		t.Run(name, func(t *testing.T) {
			code, err := os.ReadFile(filepath.Join(root, module))
			if err != nil {
				t.Skipf("%v: make sdks builds it", err)
			}
			g := prepare(t, setup{plugins: "plugins:\n  - {name: stars, wasm: stars.wasm, columns: [name]}\n", chain: "[guardrails, stars]"})
			file := filepath.Join(g.dir, "stars.wasm")
			must(t, os.WriteFile(file, code, 0o600))
			g.serve()

			var wg sync.WaitGroup
			stop := make(chan struct{})
			var mu sync.Mutex
			var times []time.Duration
			for range 2 {
				c := g.open("loaded")
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						start := time.Now()
						if a := c.must(t, "select 'Ada' as name"); a.rows[0][0] != "A**" {
							t.Errorf("a row was not masked: %q", a.rows)
							return
						}
						mu.Lock()
						times = append(times, time.Since(start))
						mu.Unlock()
					}
				})
			}
			count := func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(times)
			}
			p99 := func() time.Duration { // of those since it was last asked
				mu.Lock()
				defer mu.Unlock()
				slices.Sort(times)
				d := times[len(times)*99/100]
				times = times[:0]
				return d
			}
			more := func() {
				from := count()
				eventually(t, 5*time.Minute, "traffic", func() bool { return count() >= from+*swapStatements/2 }, nothing)
			}
			more()
			p99()
			more()
			more()
			before := p99()
			more()
			must(t, os.WriteFile(file, append(code, 0, 2, 1, 'a'), 0o600)) // with another custom section
			start := time.Now()
			g.signal(syscall.SIGHUP)
			eventually(t, time.Minute, "reloaded", func() bool { return strings.Contains(g.process.out.String(), "cli: reloaded") }, nothing)
			took := time.Since(start)
			more()
			t.Logf("p99 of %d statements: %v before, %v with one reload, which took %v", *swapStatements, before, p99(), took)
			close(stop)
			wg.Wait()
		})
	}
}
