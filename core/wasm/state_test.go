package wasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
)

// metricsOf reads the metrics of a registry, by name and label values.
func metricsOf(t testing.TB, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			if m.Histogram != nil {
				got[name] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return got
}

// measured is a host with its metrics.
func measured(t testing.TB) (*Host, *prometheus.Registry) {
	t.Helper()
	r := prometheus.NewRegistry()
	h, err := Open(context.Background(), HostConfig{CacheDir: cacheDir, Metrics: r})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close(context.Background()) })
	return h, r
}

func loadOn(t testing.TB, h *Host, c Config) *Plugin {
	t.Helper()
	p, err := h.Load(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	return p
}

func TestStore(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newStore()
	s.now = func() time.Time { return now }
	get := func(key string) string {
		out := make([]byte, 16)
		n := s.get([]byte(key), out)
		if n < 0 {
			return "none"
		}
		if n > len(out) {
			return fmt.Sprint(n, " bytes")
		}
		return string(out[:n])
	}
	put := func(key, value string, ttl time.Duration) bool { return s.put([]byte(key), []byte(value), ttl, false) }
	if get("a") != "none" || !put("a", "1", 0) || get("a") != "1" || !put("a", "other", time.Second) || get("a") != "other" {
		t.Error(get("a"))
	}
	now = now.Add(time.Second)
	if get("a") != "none" || s.bytes != 0 {
		t.Error("it has not expired", s.bytes)
	}
	if !put("long", strings.Repeat("x", 100), 0) || get("long") != "100 bytes" {
		t.Error(get("long"))
	}
	if !s.put([]byte("long"), nil, 0, true) || get("long") != "none" || !s.put([]byte("long"), nil, 0, true) || s.bytes != 0 {
		t.Error("it was not removed", s.bytes)
	}
	if put(strings.Repeat("k", maxKey+1), "", 0) || put("k", strings.Repeat("v", maxKeyValue+1), 0) {
		t.Error("there are no bounds")
	}
	if n, ok := s.incr([]byte("c"), 2, time.Second); n != 2 || !ok {
		t.Error(n, ok)
	}
	now = now.Add(900 * time.Millisecond)
	if n, ok := s.incr([]byte("c"), -5, time.Second); n != -3 || !ok {
		t.Error(n, ok)
	}
	now = now.Add(100 * time.Millisecond) // it counts from when the counter was made
	if n, ok := s.incr([]byte("c"), 1, 0); n != 1 || !ok {
		t.Error(n, ok)
	}
	put("text", "no counter", 0)
	if _, ok := s.incr([]byte("text"), 1, 0); ok || get("text") != "no counter" {
		t.Error("a text was counted")
	}
	for _, c := range []struct{ start, delta int64 }{{math.MaxInt64, 1}, {math.MinInt64 + 1, -1}, {-2, math.MinInt64}} {
		s.put([]byte("edge"), binary.LittleEndian.AppendUint64(nil, uint64(c.start)), 0, false)
		if n, ok := s.incr([]byte("edge"), c.delta, 0); ok {
			t.Errorf("%d%+d = %d", c.start, c.delta, n)
		}
	}
	// Full, of what expires and of what does not.
	s = newStore()
	s.now = func() time.Time { return now }
	for i := range maxKeys {
		ttl := time.Duration(0)
		if i == 7 {
			ttl = time.Minute
		}
		if !put(fmt.Sprint(i), "", ttl) {
			t.Fatal(i)
		}
	}
	if put("more", "", 0) {
		t.Error("more keys than there is room for")
	}
	now = now.Add(time.Minute)
	if !put("more", "", 0) || get("7") != "none" || put("even more", "", 0) {
		t.Error("what has expired does not make room")
	}
	if !put("8", "x", 0) {
		t.Error("a key that is there cannot change")
	}
	s = newStore()
	big := strings.Repeat("v", maxKeyValue)
	for i := range maxStore/(maxKeyValue+2*keyOverhead) + 2 {
		put(fmt.Sprint(i), big, 0)
	}
	if s.bytes > maxStore {
		t.Error(s.bytes)
	}
	last := get("0")
	if put("0", big+"x", 0) || get("0") != last {
		t.Error("what does not fit took what was there away")
	}
}

// kvManifest is that of a guest that keeps something.
var kvManifest = manifest(`"abi":1`, `"abi":1,"needs":{"kv":true}`)

// counting denies with the rule x when it has been asked n times, whatever the instance.
func counting(n int64) []byte {
	// the rule "x" NUL NUL at 60000; key of 1 byte at 60000
	code := join(i32const(60000), i32const('x'), []byte{0x3a, 0, 0}, // [60000] = 'x'
		i32const(60000), i32const(1), i64const(1), i64const(0), []byte{0x10, 0}, // kv_incr
		i64const(n), []byte{0x53, 0x04, 0x7e}, // < n ?
		result(0, 0), []byte{0x05},
		[]byte{0x20, 0, 0x20, 0, 0x28, 2, 60, 0x6a}, i32const('x'), []byte{0x3a, 0, 0}, result(3, 1), []byte{0x0b})
	return hand(code, described(kvManifest), func(m *module) { m.imports = [][2]string{{hostModule, "kv_incr"}} })
}

// TestShared: what instances share is one for all of them, survives a reload, and is the plugin's alone.
func TestShared(t *testing.T) {
	h, _ := measured(t)
	const n = 40
	p := loadOn(t, h, Config{Name: "a", Module: counting(n), Grants: []string{"kv"}, Limits: Limits{Instances: 4}})
	other := loadOn(t, h, Config{Name: "b", Module: counting(n), Grants: []string{"kv"}})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range (n - 2) / 2 / 4 {
				if v, err := p.Inspect(t.Context(), event(core.KindCommand)); err != nil || v.Deny != nil {
					t.Error(v.Deny, err)
				}
			}
		})
	}
	wg.Wait()
	asked := (n - 2) / 2 / 4 * 4
	again := loadOn(t, h, Config{Name: "a", Module: counting(n), Grants: []string{"kv"}})
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := asked + 1; i <= n; i++ {
		if v := ask(t, again, event(core.KindCommand)); (v.Deny != nil) != (i == n) {
			t.Fatalf("call %d: %v", i, v.Deny)
		}
	}
	if v := ask(t, other, event(core.KindCommand)); v.Deny != nil {
		t.Error("another plugin's store")
	}
	if err := again.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh := loadOn(t, h, Config{Name: "a", Module: counting(2), Grants: []string{"kv"}})
	if v := ask(t, fresh, event(core.KindCommand)); v.Deny != nil {
		t.Error("the store outlives the last plugin of its name, or the self-test counts")
	}
	if v := ask(t, fresh, event(core.KindCommand)); v.Deny == nil || v.Deny.Rule != "x" {
		t.Error(v.Deny)
	}
}

// TestStoreGuest calls get and put with good and bad pointers.
func TestStoreGuest(t *testing.T) {
	call := func(fn string, code []byte) []byte {
		return hand(code, described(kvManifest), func(m *module) { m.imports = [][2]string{{hostModule, fn}} })
	}
	for name, c := range map[string]struct {
		module []byte
		want   string
	}{
		"get out of memory":  {call("kv_get", join(i32const(-8), i32const(4), i32const(0), i32const(0), []byte{0x10, 0, 0xac})), "memory that it does not have"},
		"get to nowhere":     {call("kv_get", join(i32const(0), i32const(4), i32const(0), i32const(-1), []byte{0x10, 0, 0xac})), "memory that it does not have"},
		"put from nowhere":   {call("kv_put", join(i32const(0), i32const(4), i32const(-9), i32const(99), i64const(0), []byte{0x10, 0, 0xac})), "memory that it does not have"},
		"incr out of memory": {call("kv_incr", join(i32const(1<<30), i32const(4), i64const(0), i64const(0), []byte{0x10, 0})), "memory that it does not have"},
		"get none":           {call("kv_get", join(i32const(0), i32const(4), i32const(0), i32const(0), []byte{0x10, 0, 0xac})), "code -1"},
		"put a long key":     {call("kv_put", join(i32const(0), i32const(300), i32const(0), i32const(0), i64const(0), []byte{0x10, 0, 0xac})), "code -1"},
		"put":                {call("kv_put", join(i32const(0), i32const(3), i32const(0), i32const(9), i64const(5), []byte{0x10, 0, 0xac})), ""},
		"remove":             {call("kv_put", join(i32const(0), i32const(3), i32const(0), i32const(-1), i64const(0), []byte{0x10, 0, 0xac})), ""},
		"for ever":           {call("kv_put", join([]byte{0x03, 0x40}, i32const(0), i32const(3), i32const(0), i32const(60000), i64const(5), []byte{0x10, 0, 0x1a, 0x0c, 0, 0x0b}, i64const(0))), "in time"},
	} {
		p := load(t, Config{Module: c.module, Grants: []string{"kv"}, noSelfTest: true, Limits: Limits{Command: 20 * time.Millisecond}})
		start := time.Now()
		_, err := p.Inspect(t.Context(), event(core.KindCommand))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("%s took %v", name, d)
		}
	}
}

// stateful is a guest whose instances belong to sessions: it denies the third command, whatever happens elsewhere. The
// count is in its memory at 60000; open and close count at 60008 and 60016.
func stateful(open []byte, batch ...byte) []byte {
	if batch == nil {
		batch = join(i32const(60000), i32const(60000), []byte{0x28, 2, 0}, i32const(1), []byte{0x6a, 0x36, 2, 0}, // count++
			i32const(60000), []byte{0x28, 2, 0}, i32const(3), []byte{0x49, 0x04, 0x7e}, result(0, 0), []byte{0x05},
			[]byte{0x20, 0, 0x20, 0, 0x28, 2, 60, 0x6a}, i32const('x'), []byte{0x3a, 0, 0}, result(3, 1), []byte{0x0b})
	}
	return hand(batch, described(manifest(`"abi":1`, `"abi":1,"state":"connection"`)), func(m *module) {
		m.funcs = append(m.funcs, fn{typ: tII32, code: open, export: "weir_open"}, fn{typ: tI64Void, code: nil, export: "weir_close"})
	})
}

func inSession(s *core.Session) *core.Event {
	e := event(core.KindCommand)
	e.Session = s
	return e
}

func newSession(id string) *core.Session {
	return &core.Session{ID: id, Protocol: "wire", Target: &core.Target{Name: "orders"}, Identity: core.Identity{Subject: "ada", Kind: "agent"}}
}

func TestConnectionState(t *testing.T) {
	h, r := measured(t)
	p := loadOn(t, h, Config{Name: "c", Module: stateful(i32const(0)), Limits: Limits{Instances: 2}})
	a, b, c := newSession("a"), newSession("b"), newSession("c")
	for i := range 5 {
		for _, s := range []*core.Session{a, b} {
			if v := ask(t, p, inSession(s)); (v.Deny != nil) != (i >= 2) {
				t.Errorf("%s: command %d: %v", s.ID, i+1, v.Deny)
			}
		}
	}
	_, err := p.Inspect(t.Context(), inSession(c))
	var e *Error
	if !errors.As(err, &e) || e.Cause() != "busy" || !strings.Contains(err.Error(), "raise limits.instances") {
		t.Errorf("a third session: %v", err)
	}
	p.Forget(a)
	p.Forget(a)
	if v := ask(t, p, inSession(c)); v.Deny != nil {
		t.Error("a new session found an old state")
	}
	if n := metricsOf(t, r)["weir_plugin_instances c"]; n != 2 {
		t.Errorf("%v instances", n)
	}
	runtime.KeepAlive(b)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Inspect(t.Context(), inSession(b)); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("after Close: %v", err)
	}

	// A session that is not taken, and one whose instance fails: neither gets another instance.
	for name, c := range map[string]struct {
		module []byte
		want   string
	}{
		"refuses":  {stateful(i32const(-4)), "does not take the session: code -4"},
		"traps":    {stateful([]byte{0}), "weir_open: wasm error: unreachable"},
		"loops":    {stateful([]byte{0x03, 0x40, 0x0c, 0, 0x0b, 0x41, 0}), "weir_open: it did not answer in time"},
		"in batch": {stateful(i32const(0), 0), "unreachable"},
	} {
		p := load(t, Config{Module: c.module, noSelfTest: true, Limits: Limits{Command: 10 * time.Millisecond}})
		for i := range 3 {
			_, err := p.Inspect(t.Context(), inSession(a))
			if err == nil || !strings.Contains(err.Error(), c.want) || (i > 0) != strings.Contains(err.Error(), "has failed in this session") {
				t.Errorf("%s: %v", name, err)
			}
			if errors.As(err, &e); (i > 0) != (e.Cause() == "lost") {
				t.Errorf("%s: call %d: cause %s", name, i+1, e.Cause())
			}
		}
		if name == "in batch" {
			continue
		}
		if _, err := newHost(t).Load(t.Context(), Config{Name: "x", Module: c.module}); err == nil || !strings.Contains(err.Error(), "self-test") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"weir_open", "weir_close"} {
		_, err := newHost(t).Load(t.Context(), Config{Name: "x", Module: hand(result(0, 0), described(manifest(`"abi":1`, `"abi":1,"state":"connection"`)), func(m *module) {
			if name == "weir_open" {
				m.funcs = append(m.funcs, fn{typ: tII32, code: i32const(0), export: name})
			} else {
				m.funcs = append(m.funcs, fn{typ: tI64Void, export: name})
			}
		})})
		if err == nil || !strings.Contains(err.Error(), "does not export weir_open and weir_close") {
			t.Errorf("%s only: %v", name, err)
		}
	}
}

// TestLateEvent: an event that comes when its session has been forgotten does not keep an instance for good.
func TestLateEvent(t *testing.T) {
	p := load(t, Config{Module: stateful(i32const(0))})
	func() {
		s := newSession("late" + fmt.Sprint(time.Now().UnixNano()))
		ask(t, p, inSession(s))
		p.Forget(s)
		ask(t, p, inSession(s))
	}()
	for range 100 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
		p.pins.Lock()
		n := len(p.pinned)
		p.pins.Unlock()
		if n == 0 {
			return
		}
	}
	t.Error("it is kept for ever")
}

// TestBothDirections: two goroutines of one session share its instance, one after the other.
func TestBothDirections(t *testing.T) {
	p := load(t, Config{Module: stateful(i32const(0), join(i32const(60000), i32const(60000), []byte{0x28, 2, 0}, i32const(1), []byte{0x6a, 0x36, 2, 0}, result(0, 0))...)})
	s := newSession("both")
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 500 {
				if _, err := p.Inspect(t.Context(), inSession(s)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b, _ := p.pinned["both"].in.mod.Memory().Read(60000, 4)
	if n := binary.LittleEndian.Uint32(b); n != 1000 {
		t.Errorf("counted %d", n)
	}
	p.Forget(s)
}

func TestCircuit(t *testing.T) {
	now := time.Unix(1000, 0)
	c := &circuit{now: func() time.Time { return now }}
	fail := func(n int) (opened bool) {
		for range n {
			if _, err := c.allow(); err != nil {
				t.Fatal(err)
			}
			opened, _ = c.done(late, false)
		}
		return opened
	}
	if fail(slowMost - 1) {
		t.Error("open too early")
	}
	c.done(inTime, false)
	if fail(slowMost - 1) {
		t.Error("they were not in a row")
	}
	if !fail(1) {
		t.Fatal("not open")
	}
	refused := func() bool { _, err := c.allow(); return err != nil }
	if !refused() {
		t.Error("asked")
	}
	c.done(inTime, false) // one that was under way
	if !refused() {
		t.Error("one that was under way has closed it")
	}
	for wait := shortWait; wait < 2*longWait; wait *= 2 {
		now = now.Add(min(wait, longWait) - 1)
		if !refused() {
			t.Errorf("asked before %v", wait)
		}
		now = now.Add(1)
		probe, err := c.allow()
		if !probe || err != nil {
			t.Fatalf("not tried after %v", wait)
		}
		if !refused() {
			t.Error("two tries at a time")
		}
		c.done(late, true)
	}
	now = now.Add(longWait)
	probe, _ := c.allow()
	c.done(unasked, probe) // its session went away
	if probe, err := c.allow(); !probe || err != nil {
		t.Fatal("a try that was none has used up the turn")
	}
	if _, closed := c.done(inTime, true); !closed || refused() {
		t.Error("it does not close")
	}
}

// TestCircuitOfPlugin: a guest that spins costs a few deadlines, and then nothing but refusals until it is well again.
func TestCircuitOfPlugin(t *testing.T) {
	h, r := measured(t)
	spins := join([]byte{0x20, 0, 0x28, 2, 48, 0x04, 0x40, 0x03, 0x40, 0x0c, 0, 0x0b, 0x0b}, result(0, 0)) // if there are cells
	p := loadOn(t, h, Config{Name: "s", Module: hand(spins), noSelfTest: true, Limits: Limits{Command: 5 * time.Millisecond}})
	now := time.Now()
	p.circuit.now = func() time.Time { return now }
	slow, quick := event(core.KindCommand), event(core.KindCommand)
	quick.Exchange = nil // no text, no cells
	causes := map[string]int{}
	start := time.Now()
	for range 100 {
		_, err := p.Inspect(t.Context(), slow)
		var e *Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		causes[e.Cause()]++
	}
	if causes["deadline"] != slowMost || causes["circuit"] != 100-slowMost {
		t.Error(causes)
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("100 events took %v", d)
	}
	m := metricsOf(t, r)
	if m["weir_plugin_circuit_open s"] != 1 || m["weir_plugin_errors_total circuit s"] != 100-slowMost {
		t.Error(m)
	}
	if _, err := p.Inspect(t.Context(), quick); err == nil {
		t.Error("it was asked while its circuit was open")
	}
	now = now.Add(shortWait)
	ask(t, p, quick)
	ask(t, p, quick)
	if m := metricsOf(t, r); m["weir_plugin_circuit_open s"] != 0 {
		t.Error("the metric says that it is open")
	}
	// Others' successes in between: one session's bad commands do not open it for everybody.
	for range 3 * slowMost {
		_, _ = p.Inspect(t.Context(), slow)
		ask(t, p, quick)
	}
}

// TestCircuitOfStack: a guest that recurses without end takes much memory each time, so it is soon not asked any more.
func TestCircuitOfStack(t *testing.T) {
	h, _ := measured(t)
	p := loadOn(t, h, Config{Name: "s", Module: hand([]byte{0x20, 0, 0x20, 1, 0x10, 4}), noSelfTest: true})
	causes := map[string]int{}
	for range slowMost + 5 {
		_, err := p.Inspect(t.Context(), event(core.KindCommand))
		var e *Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		causes[e.Cause()]++
	}
	if causes["circuit"] != 5 {
		t.Error(causes)
	}
}

// TestRecycled: an instance that leaks is replaced before it fails (F24).
func TestRecycled(t *testing.T) {
	h, r := measured(t)
	leaks := join(i32const(1), []byte{0x40, 0}, i32const(-1), []byte{0x46, 0x04, 0x40, 0, 0x0b}, result(0, 0)) // grow a page, or trap
	p := loadOn(t, h, Config{Name: "l", Module: hand(leaks), Limits: Limits{MemoryPages: 256}})
	const calls = 20_000
	for range calls {
		ask(t, p, event(core.KindCommand))
	}
	m := metricsOf(t, r)
	if n := m["weir_plugin_recycled_total l"]; n < calls/256 || n > calls/100 {
		t.Errorf("recycled %v times", n)
	}
	if m["weir_plugin_errors_total trap l"] != 0 || m["weir_plugin_instances l"] > 1 {
		t.Error(m)
	}
	p.pool.free[0].calls = mostCalls - 1
	before := m["weir_plugin_recycled_total l"]
	ask(t, p, event(core.KindCommand))
	if n := metricsOf(t, r)["weir_plugin_recycled_total l"]; n != before+1 {
		t.Error("it does not grow old")
	}
}

// TestMoreRoomCountsOnce: a call that asks for more room is made again, and counts once.
func TestMoreRoomCountsOnce(t *testing.T) {
	h, r := measured(t)
	text := manifest(`"abi":1`, `"abi":1,"metrics":[{"id":1,"name":"seen","kind":"counter"}]`)
	code := join(i32const(1), i64const(3), []byte{0x10, 0}, // metric_add(1, 3)
		[]byte{0x20, 0, 0x28, 2, 64}, i32const(outLen), []byte{0x4d, 0x04, 0x7e}, result(-2, 0), []byte{0x05}, result(0, 0), []byte{0x0b})
	p := loadOn(t, h, Config{Name: "r", Module: hand(code, described(text), func(m *module) { m.imports = [][2]string{{hostModule, "metric_add"}} })})
	if n := metricsOf(t, r)["weir_plugin_own_total seen r"]; n != 0 {
		t.Errorf("the self-test counts: %v", n)
	}
	p.pool.free[0].outCap = outLen
	ask(t, p, event(core.KindCommand))
	ask(t, p, event(core.KindCommand)) // there is room now
	if n := metricsOf(t, r)["weir_plugin_own_total seen r"]; n != 6 {
		t.Errorf("counted %v, want 6", n)
	}
}

func TestTrial(t *testing.T) {
	p := load(t, Config{Module: guestModule})
	trial, err := p.Try(t.Context(), []byte(`{"mode":"deny"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer trial.Close()
	f := &frame{kind: kindCommand, rows: 1, cols: 1, cells: 1, dataLen: 8}
	f.layout(0, 256)
	b := make([]byte, f.total)
	f.header(b)
	binary.LittleEndian.PutUint32(b[f.cellsOff+4:], 8)
	copy(b[f.dataOff:], "select 1")
	for range 2 {
		a, err := trial.Ask(t.Context(), b)
		if err != nil || a.Verdict != verdictDeny || !bytes.HasPrefix(a.Frame[f.outOff:], []byte("no\x00because\x00instead")) || a.Counters[1] != 1 {
			t.Errorf("%+v %v", a, err)
		}
	}
	c, err := newHost(t).Prepare(t.Context(), Config{Name: "c", Module: stateful(i32const(0))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	counts, err := c.Try(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer counts.Close()
	for i := range 4 {
		if a, err := counts.Ask(t.Context(), b); err != nil || (a.Verdict == verdictDeny) != (i >= 2) {
			t.Errorf("call %d: %+v %v", i, a, err)
		}
	}
	if _, err := p.Try(t.Context(), []byte(`{"mode":"refuse"}`)); err == nil || !strings.Contains(err.Error(), "mode cannot be refuse") {
		t.Error(err)
	}
}
