package wasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
)

// keeper is a recorder that keeps what it is given.
type keeper struct{ records []core.Record }

func (k *keeper) Record(_ context.Context, r *core.Record) (core.Mark, error) {
	c := *r
	c.Facts, c.Decisions = bytes.Clone(r.Facts), slices.Clone(r.Decisions)
	k.records = append(k.records, c)
	return core.Mark(len(k.records)), nil
}
func (k *keeper) Settle(context.Context, core.Mark) error { return nil }
func (k *keeper) Settled(core.Mark, func()) bool          { return true }
func (k *keeper) Seal(core.End) error                     { return nil }

func (k *keeper) last() []core.Decision { return k.records[len(k.records)-1].Decisions }

// chained is a session whose chain has these steps.
func chained(t *testing.T, steps ...chain.Step) (*core.Session, *keeper) {
	t.Helper()
	c, err := chain.Options{Log: slog.New(slog.DiscardHandler)}.New(steps...)
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{}
	s := newSession(core.NewID(time.Now()))
	s.Target.Record = core.LevelFull
	s.Begin(core.SessionConfig{Chain: c, Recorder: k})
	return s, k
}

// answer is the columns and one row of an answer, as a protocol would have them checked.
func answer(s *core.Session) (core.Verdict, *core.Batch) {
	x := &core.Exchange{Command: &core.Command{Action: "select", Text: "select 1", Status: core.StatusKnown}}
	s.Check(context.Background(), &core.Event{Kind: core.KindColumns, Direction: core.FromUpstream, Exchange: x, Columns: threeColumns})
	b := batch(threeColumns, []string{"one", "1", "x"})
	return s.Check(context.Background(), &core.Event{Kind: core.KindRows, Direction: core.FromUpstream, Exchange: x, Rows: b}), b
}

// runtimeFaults are guests that fail while they are asked, and the cause that the record and the metric must name.
func runtimeFaults() []struct {
	name, cause string
	code        []byte
} {
	loop := []byte{0x03, 0x40, 0x0c, 0, 0x0b}
	recursion := []byte{0x20, 0, 0x20, 1, 0x10, 4}
	out := func(text string) (code []byte) {
		for i, c := range []byte(text) {
			code = join(code, []byte{0x20, 0, 0x20, 0, 0x28, 2, 60, 0x6a}, i32const(int32(c)), []byte{0x3a, 0}, appendU32(nil, uint32(i)))
		}
		return code
	}
	le := binary.LittleEndian
	return []struct {
		name, cause string
		code        []byte
	}{
		{"F15 loop", "deadline", join(loop, result(0, 0))},
		{"F16 trap", "trap", []byte{0}},
		{"F16 divides by zero", "trap", join(i32const(1), i32const(0), []byte{0x6d, 0xac})},
		{"F17 recursion", "trap", recursion},
		{"F18 out of memory", "trap", join([]byte{0x03, 0x40}, i32const(16), []byte{0x40, 0}, i32const(-1), []byte{0x46, 0x04, 0x40, 0, 0x0b, 0x0c, 0, 0x0b}, i64const(0))},
		{"F18 grows to 4 GB", "trap", join(i32const(65535), []byte{0x40, 0}, i32const(-1), []byte{0x46, 0x04, 0x40, 0, 0x0b}, result(0, 0))},
		{"F18 grows for ever", "deadline", join([]byte{0x03, 0x40}, i32const(1), []byte{0x40, 0, 0x1a, 0x0c, 0, 0x0b}, i64const(0))},
		{"F19 reads out of bounds", "trap", join(i32const(-4), []byte{0x28, 2, 0, 0xac})},
		{"F19 answer beyond its room", "contract", result(3, 1<<20)},
		{"F19 answer of 2 GB", "contract", result(2, 1<<31)},
		{"F21 slow", "deadline", join([]byte{0x41, 0, 0x21, 2, 0x03, 0x40, 0x20, 2}, i32const(1), []byte{0x6a, 0x22, 2}, i32const(2_000_000_000), []byte{0x49, 0x0d, 0, 0x0b}, result(0, 0))},
		{"F22 patch cut off", "contract", result(2, 5)},
		{"F22 patch longer than the list", "contract", join(out(string(le.AppendUint32(le.AppendUint32(nil, 0), 50))), result(2, 8))},
		{"F22 patch of a cell that is not there", "contract", join(out(string(le.AppendUint32(le.AppendUint32(nil, 99), 0))), result(2, 8))},
		{"F22 unknown verdict", "contract", result(77, 0)},
		{"F22 more changed than there is", "contract", result(1, 1000)},
		{"its own failure", "plugin", result(-7, 0)},
	}
}

// TestFaults: whatever a guest does, its step fails and nothing else: the answer is refused, or with on_error pass goes on
// unchanged; the record names step and cause; the metric counts it; and a session with another plugin goes on meanwhile.
func TestFaults(t *testing.T) {
	h, registry := measured(t)
	well := loadOn(t, h, Config{Name: "well", Module: guestModule, Config: map[string]any{"mode": "upper"}})
	for _, c := range runtimeFaults() {
		t.Run(c.name, func(t *testing.T) {
			name := strings.ReplaceAll(c.name, " ", "-")
			p := loadOn(t, h, Config{Name: name, Module: hand(c.code), noSelfTest: true, Limits: Limits{Rows: 20 * time.Millisecond, MemoryPages: 64}})
			other, _ := chained(t, chain.Step{Name: "well", Plugin: well})
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					if v, b := answer(other); v.Deny != nil || values(b)[0] != "ONE" {
						t.Errorf("another session was hit: %v", v.Deny)
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
			start := time.Now()
			s, record := chained(t, chain.Step{Name: "step", Plugin: p})
			v, _ := answer(s)
			took := time.Since(start)
			close(stop)
			wg.Wait()
			if took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
			if v.Deny == nil || v.Deny.Step != "step" || v.Deny.Rule != "step-error" || strings.Contains(v.Deny.Reason, ":") {
				t.Fatalf("the client is told %+v", v.Deny)
			}
			d := record.last()
			if len(d) != 1 || d[0].Step != "step" || d[0].Action != "deny" || !strings.HasSuffix(d[0].Detail, ": "+c.cause) {
				t.Errorf("recorded: %+v", d)
			}
			m := metricsOf(t, registry)
			if m["weir_plugin_errors_total "+c.cause+" "+name] != 1 || m["weir_plugin_discards_total "+name] != 1 || m["weir_plugin_instances "+name] != 0 {
				t.Errorf("metrics: errors %v, discards %v, instances %v", m["weir_plugin_errors_total "+c.cause+" "+name], m["weir_plugin_discards_total "+name], m["weir_plugin_instances "+name])
			}
			// on_error: pass, which such a guest needs allow_unmasked for
			s, record = chained(t, chain.Step{Name: "step", Plugin: p, OnError: "pass"})
			v, b := answer(s)
			if v.Deny != nil || strings.Join(values(b), " ") != "one 1 x" {
				t.Errorf("on_error pass: %v, %q", v.Deny, values(b))
			}
			if d := record.last(); len(d) != 1 || d[0].Action != "error" || d[0].Detail != c.cause {
				t.Errorf("on_error pass is recorded as %+v", d)
			}
			runtime.GC() // must return
		})
	}
}

// TestLoadFaults: what is found before a session depends on it (F20), quickly and with little memory.
func TestLoadFaults(t *testing.T) {
	leb := func(n uint32) []byte { return appendU32(nil, n) }
	million := func() []byte {
		out := section(append([]byte(nil), magic...), secType, []byte{1, 0x60, 0, 0})
		out = section(out, secFunction, append(leb(1_000_000), make([]byte, 1_000_000)...))
		out = section(out, secMemory, []byte{1, 0, 1})
		out = section(out, secExport, append(appendName([]byte{1}, "memory"), 2, 0))
		return section(out, secCode, append(leb(1_000_000), bytes.Repeat([]byte{2, 0, 0x0b}, 1_000_000)...))
	}
	deep := func() []byte { // compiles in a time that grows with the square of its blocks
		return hand(join(bytes.Repeat([]byte{0x41, 0, 0x04, 0x40}, 40_000), bytes.Repeat([]byte{0x0b}, 40_000), result(0, 0)))
	}
	pass := result(0, 0)
	for _, c := range []struct {
		name   string
		module func() []byte
		want   string
	}{
		{"100 MB", func() []byte { return append(append([]byte(nil), magic...), make([]byte, 100<<20)...) }, "at most 16777216 are taken"},
		{"a million functions", million, "at most 40000 are taken"},
		{"a million blocks", deep, "a body of"},
		{"compiles for ever: blocks", func() []byte {
			return hand(join(bytes.Repeat([]byte{0x41, 0, 0x04, 0x40, 0x0b}, 16_000), pass))
		}, "take too long to compile"},
		{"compiles for ever: blocks by locals", func() []byte {
			return hand(join(bytes.Repeat([]byte{0x41, 0, 0x04, 0x40, 0x0b}, 1_000), pass), func(m *module) { m.funcs[4].locals = leb(4_000) })
		}, "take too long to compile"},
		{"compiles for ever: many functions", func() []byte {
			return hand(pass, func(m *module) {
				for range 20 {
					m.funcs = append(m.funcs, fn{typ: tVoid, code: bytes.Repeat([]byte{0x41, 0, 0x04, 0x40, 0x0b}, 3_000)})
				}
			})
		}, "take too long to compile"},
		{"a million locals", func() []byte { return hand(pass, func(m *module) { m.funcs[4].locals = leb(1_000_000) }) }, "at most 4096 are taken"},
		{"wrong ABI", func() []byte { return hand(pass, func(m *module) { m.funcs[0].export = "weir_abi_v2" }) }, "another version of the contract"},
		{"missing export", func() []byte { return hand(pass, func(m *module) { m.funcs[4].export = "" }) }, "does not export weir_on_batch"},
		{"memory of 4 GB", func() []byte { return hand(pass, func(m *module) { m.pages = 65536 }) }, "pages of memory"},
		{"a table of 50 million", func() []byte {
			return hand(pass, func(m *module) { m.extra = map[byte][]byte{secTable: append([]byte{1, 0x70, 0}, leb(50_000_000)...)} })
		}, "at most 65536 are taken"},
		{"a table that grows", func() []byte { return hand(join([]byte{0xd0, 0x70, 0x41, 1, 0xfc, 15, 0, 0x1a}, pass)) }, "table.grow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			module := c.module()
			start := time.Now()
			_, err := newHost(t).Load(t.Context(), Config{Name: "bad", Module: module})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

// TestStrictestWins: of two plugins that disagree the order does not matter, only who refuses (F25).
func TestStrictestWins(t *testing.T) {
	deny, pass := guest(t, "deny"), guest(t, "upper")
	for _, steps := range [][]chain.Step{
		{{Name: "a", Plugin: deny}, {Name: "b", Plugin: pass}},
		{{Name: "b", Plugin: pass}, {Name: "a", Plugin: deny}},
	} {
		s, record := chained(t, steps...)
		if v, _ := answer(s); v.Deny == nil || v.Deny.Step != "a" || v.Deny.Rule != "no" {
			t.Errorf("%+v", v.Deny)
		}
		if d := record.last(); !slices.ContainsFunc(d, func(d core.Decision) bool { return d.Step == "a" && d.Action == "deny" && d.Rule == "no" }) {
			t.Errorf("recorded: %+v", d)
		}
	}
}
