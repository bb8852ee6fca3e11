package wasm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/weir-gateway/weir/core"
)

const hostModule = "weir_v1"

// What a guest may say in one call; the rest is dropped and counted.
const (
	maxLogLines   = 32
	maxLogBytes   = 8 << 10
	maxFindings   = 32
	maxFinding    = 256
	maxMetricUses = 1024
)

var (
	errDeadline = errors.New("it did not answer in time")
	errStack    = errors.New("its stack overflowed")
	errPointer  = errors.New("it named memory that it does not have")
)

type hostFunction struct {
	call            func(in *instance, m api.Module, stack []uint64)
	params, results []api.ValueType
}

const (
	i32 = api.ValueTypeI32
	i64 = api.ValueTypeI64
	f64 = api.ValueTypeF64
)

// hostFunctions are what guests may import.
var hostFunctions = map[string]*hostFunction{
	"log":            {hostLog, []api.ValueType{i32, i32, i32}, nil},
	"emit":           {hostEmit, []api.ValueType{i32, i32}, nil},
	"metric_add":     {hostMetricAdd, []api.ValueType{i32, i64}, nil},
	"metric_observe": {hostMetricObserve, []api.ValueType{i32, f64}, nil},
	"now_ns":         {hostNow, nil, []api.ValueType{i64}},
	"kv_get":         {hostKVGet, []api.ValueType{i32, i32, i32, i32}, []api.ValueType{i32}},
	"kv_put":         {hostKVPut, []api.ValueType{i32, i32, i32, i32, i64}, []api.ValueType{i32}},
	"kv_incr":        {hostKVIncr, []api.ValueType{i32, i32, i64, i64}, []api.ValueType{i64}},
}

type instanceKey struct{}

func provide(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder(hostModule)
	for name, f := range hostFunctions {
		call := f.call
		b = b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, m api.Module, stack []uint64) {
			call(ctx.Value(instanceKey{}).(*instance), m, stack)
		}), f.params, f.results).Export(name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return err
	}
	_, err := r.NewHostModuleBuilder(tickModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(tick), nil, nil).Export(tickName).Instantiate(ctx)
	return err
}

// patience is how many times its budget a call may take on a machine that is too busy to run it. Within it, only a
// guest that has also done a budget's worth of work is stopped: a busy machine must not look like a looping guest,
// because the answer to that is a denial.
const patience = 10

// tick is called by the guest's own code whenever a slice of fuel is used up.
func tick(ctx context.Context, m api.Module, _ []uint64) {
	in := ctx.Value(instanceKey{}).(*instance)
	in.spent += slice
	d := time.Since(in.started)
	if d > in.budget && (in.spent > in.budget || d > patience*in.budget) {
		panic(errDeadline)
	}
	if in.caller != nil && in.caller.Err() != nil {
		panic(context.Cause(in.caller))
	}
	if d-in.yielded > time.Millisecond { // a guest is not preempted: other goroutines run here
		in.yielded = d
		runtime.Gosched()
	}
	if in.fuel == nil { // while it starts
		in.fuel, _ = m.ExportedGlobal(fuelExport).(api.MutableGlobal)
	}
	if in.depth == nil {
		in.depth = m.ExportedGlobal(depthExport)
	}
	if uint32(in.depth.Get()) > maxDepth {
		panic(errStack)
	}
	in.fuel.Set(slice)
}

func bytesOf(m api.Module, ptr, n uint64) []byte {
	b, ok := m.Memory().Read(uint32(ptr), uint32(n))
	if !ok {
		panic(errPointer)
	}
	return b
}

func hostLog(in *instance, m api.Module, stack []uint64) {
	b := bytesOf(m, stack[1], stack[2])
	if in.logLines++; in.logLines > maxLogLines || in.logBytes+len(b) > maxLogBytes {
		in.dropped++
		return
	}
	in.logBytes += len(b)
	text := clean(string(b), 1024)
	level := slog.LevelDebug
	switch int32(stack[0]) {
	case 1:
		level = slog.LevelInfo
	case 2:
		level = slog.LevelWarn
	case 3:
		level = slog.LevelError
		in.complaint = text
	}
	in.log(level, "wasm: a plugin says: "+text)
}

// hostEmit takes a finding: what the guest found, as a word and a few more, never the value itself.
func hostEmit(in *instance, m api.Module, stack []uint64) {
	b := bytesOf(m, stack[0], stack[1])
	if len(in.findings) >= maxFindings || len(b) > maxFinding {
		in.dropped++
		return
	}
	t := texts(b, 2, maxFinding)
	in.findings = append(in.findings, core.Decision{Action: "finding", Rule: t[0], Detail: t[1]})
}

func hostMetricAdd(in *instance, _ api.Module, stack []uint64) {
	if in.metricUses++; in.metricUses <= maxMetricUses {
		if delta := int64(stack[1]); delta > 0 {
			in.uses = append(in.uses, use{id: uint32(stack[0]), x: float64(delta)})
		}
	}
}

func hostMetricObserve(in *instance, _ api.Module, stack []uint64) {
	if in.metricUses++; in.metricUses <= maxMetricUses {
		in.uses = append(in.uses, use{id: uint32(stack[0]), observe: true, x: api.DecodeF64(stack[1])})
	}
}

// hostNow is 0 for a guest that did not ask for the clock.
func hostNow(in *instance, _ api.Module, stack []uint64) {
	stack[0] = 0
	if m := in.plugin.manifest; m != nil && m.Needs.Clock {
		stack[0] = uint64(time.Now().UnixNano())
	}
}

// contractError is an answer that the contract does not allow.
type contractError struct{ text string }

func (e *contractError) Error() string { return "its answer is out of contract: " + e.text }

func broken(format string, args ...any) error { return &contractError{fmt.Sprintf(format, args...)} }
