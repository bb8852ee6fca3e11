//go:build linux

package faults_test

import (
	"fmt"
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
// refused. The session goes on, and no other one waits for it, while the plugin is replaced again and again as well.
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

	// Replaced under load: no statement fails, and none is asked of nobody.
	stop = make(chan struct{})
	var asked atomic.Int64
	for range 2 {
		c := g.open("loaded")
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c.must(t, "select 1")
				asked.Add(1)
			}
		})
	}
	text := g.yaml()
	for i := range 4 {
		before := asked.Load()
		eventually(t, 10*time.Second, "traffic", func() bool { return asked.Load() > before+50 }, nothing)
		g.write("weir.yaml", strings.Replace(text, "command: 50ms", fmt.Sprintf("command: %dms", 51+i), 1))
		g.signal(syscall.SIGHUP)
		eventually(t, 20*time.Second, "reloaded", func() bool { return strings.Count(g.process.out.String(), "cli: reloaded") == i+1 }, nothing)
	}
	close(stop)
	wg.Wait()
	a, err := other.query("select 'spin for ever'") // an old session, by the new plugin
	if must(t, err); a.err == nil {
		t.Error("it passed")
	}
}
