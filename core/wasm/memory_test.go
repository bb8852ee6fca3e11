package wasm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
)

// bounded is a host whose guests may have so many bytes together.
func bounded(t *testing.T, most int64) (*Host, *prometheus.Registry) {
	t.Helper()
	r := prometheus.NewRegistry()
	h, err := Open(t.Context(), HostConfig{CacheDir: cacheDir, Metrics: r, Memory: most})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close(context.Background()) })
	return h, r
}

// TestMemoryOfSessions: a plugin with an instance for each session takes no more than all plugins may have. The session beyond
// that is refused, for as long as it lasts, and nobody else is.
func TestMemoryOfSessions(t *testing.T) {
	const each, sessions = 8 << 16, 300 // hand guests begin with eight pages
	for _, c := range []struct {
		name string
		most int64
		want int // sessions that are taken
	}{
		{"bounded", 100 * each, 100},
		{"unbounded", 0, sessions}, // the guard off: all of them get memory
	} {
		t.Run(c.name, func(t *testing.T) {
			h, r := bounded(t, c.most)
			p := loadOn(t, h, Config{Name: "s", Module: stateful(i32const(0)), Limits: Limits{Instances: 1000}})
			var open []*core.Session
			taken := 0
			for i := range sessions {
				s := newSession(fmt.Sprint(c.name, i))
				open = append(open, s)
				_, err := p.Inspect(t.Context(), inSession(s))
				var e *Error
				switch {
				case err == nil:
					taken++
				case !errors.As(err, &e) || e.Cause() != "busy" || !strings.Contains(err.Error(), "raise plugin_memory"):
					t.Fatalf("session %d: %v", i, err)
				}
			}
			m := metricsOf(t, r)
			if taken != c.want || m["weir_plugin_memory_bytes"] != float64(c.want*each) || m["weir_plugin_instances s"] != float64(c.want) {
				t.Errorf("%d sessions were taken, want %d; %v bytes in %v instances", taken, c.want, m["weir_plugin_memory_bytes"], m["weir_plugin_instances s"])
			}
			if refused := m["weir_plugin_memory_refused_total"]; refused != float64(sessions-c.want) {
				t.Errorf("%v were refused", refused)
			}
			ask(t, p, inSession(open[0])) // who is in stays in
			if c.want < sessions {
				p.Forget(open[0])
				if _, err := p.Inspect(t.Context(), inSession(open[sessions-1])); err == nil || !strings.Contains(err.Error(), "failed in this session") {
					t.Errorf("a session whose first event was refused: %v", err)
				}
				ask(t, p, inSession(newSession(c.name+" next")))
				s, _ := chained(t, chain.Step{Name: "s", Plugin: p})
				if v := s.Check(t.Context(), inSession(s)); v.Deny == nil || v.Deny.Step != "s" || v.Deny.Rule != "step-error" {
					t.Errorf("it was to be refused: %+v", v)
				}
				s, _ = chained(t, chain.Step{Name: "s", Plugin: p, OnError: "pass"})
				if v := s.Check(t.Context(), inSession(s)); v.Deny != nil {
					t.Errorf("on_error pass: %+v", v.Deny)
				}
			}
			if err := p.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := metricsOf(t, r)["weir_plugin_memory_bytes"]; n != 0 {
				t.Errorf("%v bytes are left", n)
			}
		})
	}
}

// TestMemoryGrows: what a guest asks for while it runs counts as well, and comes back when its instance goes.
func TestMemoryGrows(t *testing.T) {
	// grows by 64 pages, and traps when it gets none
	grow := join(i32const(64), []byte{0x40, 0}, i32const(-1), []byte{0x46, 0x04, 0x40, 0, 0x0b}, result(0, 0))
	h, r := bounded(t, 20<<20)
	p := loadOn(t, h, Config{Name: "g", Module: hand(grow), noSelfTest: true, Limits: Limits{MemoryPages: 1000}})
	other := loadOn(t, h, Config{Name: "o", Module: hand(result(0, 0))})
	failed := 0
	for range 12 {
		if _, err := p.Inspect(t.Context(), event(core.KindCommand)); err != nil {
			if failed++; !strings.Contains(err.Error(), "raise plugin_memory") {
				t.Errorf("%v", err)
			}
			if n := metricsOf(t, r)["weir_plugin_memory_bytes"]; n > 2<<20 {
				t.Errorf("%v bytes are held after its instance is gone", n)
			}
		}
		if n := metricsOf(t, r)["weir_plugin_memory_bytes"]; n > 20<<20 {
			t.Errorf("%v bytes", n)
		}
		ask(t, other, event(core.KindCommand))
	}
	if failed < 2 {
		t.Errorf("failed %d times", failed)
	}
	h, _ = bounded(t, 0)
	p = loadOn(t, h, Config{Name: "g", Module: hand(grow), noSelfTest: true, Limits: Limits{MemoryPages: 1000}})
	for range 12 {
		ask(t, p, event(core.KindCommand)) // the guard off
	}
}
