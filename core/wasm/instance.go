package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"github.com/weir-gateway/weir/core"
)

// instance is one running copy of a guest. It is used by one goroutine at a time.
type instance struct {
	plugin  *Plugin
	ctx     context.Context // names the instance to the host functions
	mod     api.Module
	memory  *memory
	batch   api.Function
	grow    api.Function
	fuel    api.MutableGlobal
	depth   api.Global // found when it is first asked for
	stack   [4]uint64
	ptr     uint32 // the region
	room    uint32
	seq     uint64
	outCap  int
	attrs   attrs
	from    []byte      // where the values of the next frame are
	cells   []core.Cell // which of them it has
	texts   []byte      // room for values that do not lie in one piece
	inPlace bool        // they are the event's own bytes
	size    int         // of the values and the attributes
	patches []patch
	columns []int
	store   *store // nil: it was not granted
	trial   bool   // what it says and counts goes nowhere
	calls   int    // since it was made
	pages   uint32 // of memory, when it was configured

	// of the present call
	started    time.Time
	yielded    time.Duration // after started, when it last let others run
	budget     time.Duration
	spent      time.Duration // units of fuel, of which a guest burns one a nanosecond or more
	caller     context.Context
	findings   []core.Decision
	complaint  string // the last error that the guest logged
	logLines   int
	logBytes   int
	uses       []use
	metricUses int
	dropped    int
}

// use is one metric that a guest counted or observed. It counts when the call has ended, and not when the call is to
// be made again with more room.
type use struct {
	id      uint32
	observe bool
	x       float64
}

// flush counts what the last call has counted.
func (in *instance) flush() {
	if !in.trial {
		for _, u := range in.uses {
			if u.observe {
				in.plugin.metrics.observe(u.id, u.x)
			} else {
				in.plugin.metrics.add(u.id, u.x)
			}
		}
	}
	in.uses = in.uses[:0]
}

// An instance is replaced after so many calls, or when its memory has grown close to its bound: what leaks is then
// given back before it fails.
const (
	mostCalls  = 1 << 20
	leastCalls = 64 // between two replacements for memory
)

// worn reports whether the instance is to be replaced.
func (in *instance) worn() bool {
	if in.calls >= mostCalls {
		return true
	}
	if in.calls < leastCalls || in.calls%16 != 0 {
		return false
	}
	pages, most := in.mod.Memory().Size()>>16, in.plugin.limits.MemoryPages
	return pages > most-most/4 && pages-in.pages > most/8
}

// why is a guest's reason for a code below zero.
func (in *instance) why(code int32) string {
	if in.complaint != "" {
		return in.complaint
	}
	return fmt.Sprintf("code %d", code)
}

// begin sets what one call into the guest may use.
func (in *instance) begin(ctx context.Context, budget time.Duration) {
	in.started, in.budget, in.spent, in.yielded = time.Now(), budget, 0, 0
	in.caller = ctx
	if in.memory != nil {
		in.memory.short = false
	}
	in.findings, in.complaint = nil, ""
	in.logLines, in.logBytes, in.metricUses, in.dropped, in.uses = 0, 0, 0, 0, in.uses[:0]
	if in.fuel != nil {
		in.fuel.Set(slice)
	}
}

func (in *instance) call(f api.Function) error {
	if err := f.CallWithStack(in.ctx, in.stack[:]); err != nil {
		return in.explain(err)
	}
	return nil
}

// explain shortens wazero's errors: the stack trace of a guest is of no use to an operator.
func (in *instance) explain(err error) error {
	var exit *sys.ExitError
	switch {
	case errors.Is(err, errDeadline):
		err = errDeadline
	case errors.Is(err, errPointer):
		err = errPointer
	case errors.Is(err, errStack):
		err = errStack
	case in.memory.short: // what it does without the memory that it asked for is its own affair
		err = in.plugin.host.memory.errMemory()
	case errors.As(err, &exit):
		err = fmt.Errorf("it ended itself with code %d", exit.ExitCode())
	default:
		text, _, _ := strings.Cut(err.Error(), "\n")
		if err = errors.New(strings.TrimSuffix(text, " (recovered by wazero)")); strings.Contains(text, "stack overflow") {
			err = errStack
		}
	}
	return &trapError{err}
}

// trapError says that a guest did not return.
type trapError struct{ error }

func (e *trapError) Unwrap() error { return e.error }

// instantiate makes an instance and, with configure, gives it its configuration and its region.
func (p *Plugin) instantiate(ctx context.Context, configure bool) (*instance, error) {
	in := &instance{plugin: p, outCap: outLen}
	in.ctx = context.WithValue(context.Background(), instanceKey{}, in)
	in.begin(ctx, p.limits.Start)
	if in.memory = newMemory(&p.host.memory, p.begin); in.memory == nil {
		return nil, p.host.memory.errMemory()
	}
	mc := wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize").WithStderr(&tail{in: in})
	mod, err := p.runtime.InstantiateModule(experimental.WithMemoryAllocator(in.ctx, in.memory), p.compiled, mc)
	if err != nil {
		in.memory.Free()
		return nil, fmt.Errorf("it does not start: %w", in.explain(err))
	}
	in.mod = mod
	in.batch, in.grow = mod.ExportedFunction("weir_on_batch"), mod.ExportedFunction("weir_buffer")
	if p.fuel {
		in.fuel, _ = mod.ExportedGlobal(fuelExport).(api.MutableGlobal)
	}
	p.metrics.instances.Inc()
	if configure {
		in.store = p.store
		if err := in.configure(ctx, p.config); err != nil {
			in.discard()
			return nil, err
		}
		in.pages = in.mod.Memory().Size() >> 16
	}
	return in, nil
}

// tail turns what a guest writes to its standard error (a panic, say) into log lines.
type tail struct {
	in   *instance
	line []byte
}

func (t *tail) Write(b []byte) (int, error) {
	in := t.in
	for _, c := range b {
		if c != '\n' && len(t.line) < 1024 {
			t.line = append(t.line, c)
			continue
		}
		if in.logLines++; in.logLines <= maxLogLines && in.logBytes+len(t.line) <= maxLogBytes && len(t.line) > 0 {
			in.logBytes += len(t.line)
			in.log(slog.LevelDebug, "wasm: a plugin wrote: "+clean(string(t.line), 1024))
		}
		t.line = t.line[:0]
	}
	return len(b), nil
}

// log passes on what a guest says, unless it is only tried.
func (in *instance) log(level slog.Level, text string) {
	if !in.trial {
		in.plugin.log.Log(context.Background(), level, text)
	}
}

func (in *instance) discard() {
	in.plugin.metrics.instances.Dec()
	_ = in.mod.Close(context.Background())
}

// describe asks for the manifest.
func (in *instance) describe(ctx context.Context) ([]byte, error) {
	in.begin(ctx, in.plugin.limits.Start)
	if err := in.call(in.mod.ExportedFunction("weir_describe")); err != nil {
		return nil, fmt.Errorf("weir_describe: %w", err)
	}
	ptr, n := uint32(in.stack[0]>>32), uint32(in.stack[0])
	if n > maxManifest {
		return nil, fmt.Errorf("its manifest has %d bytes: at most %d are read", n, maxManifest)
	}
	b, ok := in.mod.Memory().Read(ptr, n)
	if !ok {
		return nil, fmt.Errorf("weir_describe: %w", errPointer)
	}
	return bytes.Clone(b), nil
}

// configure gives the instance its region and its configuration.
func (in *instance) configure(ctx context.Context, config []byte) error {
	if err := in.region(ctx, max(regionLen, len(config))); err != nil {
		return err
	}
	view, ok := in.mod.Memory().Read(in.ptr, in.room)
	if !ok {
		return errPointer
	}
	copy(view, config)
	in.begin(ctx, in.plugin.limits.Start)
	in.stack[0], in.stack[1] = uint64(in.ptr), uint64(len(config))
	err := in.call(in.mod.ExportedFunction("weir_configure"))
	in.flush()
	if err != nil {
		return fmt.Errorf("weir_configure: %w", err)
	}
	if code := int32(uint32(in.stack[0])); code != 0 {
		return fmt.Errorf("it refuses its config: %s", in.why(code))
	}
	return nil
}

// region makes the guest's region at least so large.
func (in *instance) region(ctx context.Context, size int) error {
	if uint32(size) <= in.room {
		return nil
	}
	size = (size + 0xffff) &^ 0xffff
	in.begin(ctx, in.plugin.limits.Start)
	in.stack[0] = uint64(size)
	if err := in.call(in.grow); err != nil {
		return fmt.Errorf("weir_buffer: %w", err)
	}
	ptr := uint32(in.stack[0])
	if _, ok := in.mod.Memory().Read(ptr, uint32(size)); !ok || ptr == 0 || ptr%8 != 0 {
		return broken("weir_buffer gave no room of %d bytes at a multiple of 8", size)
	}
	in.ptr, in.room = ptr, uint32(size)
	return nil
}

// verdict is a guest's answer to one frame.
type verdict struct {
	code int32
	out  []byte // in the guest's memory: valid until the next call
}

// ask writes a frame of in.attrs and of in.cells in in.from, and calls the guest. The view it returns is the frame after the
// call.
func (in *instance) ask(ctx context.Context, f *frame, budget time.Duration) (view []byte, v verdict, err error) {
	if in.attrs.err != nil {
		return nil, v, in.attrs.err
	}
	f.cells, f.dataLen, f.nattrs = len(in.cells), in.size-len(in.attrs.b), in.attrs.n
	for attempt := 0; ; attempt++ {
		f.layout(len(in.attrs.b), in.outCap)
		if err := in.region(ctx, f.total); err != nil {
			return nil, v, err
		}
		view, ok := in.mod.Memory().Read(in.ptr, uint32(f.total))
		if !ok {
			return nil, v, errPointer
		}
		in.seq++
		f.seq = in.seq
		f.header(view)
		copy(view[f.attrsOff:], in.attrs.b)
		pack(view[f.cellsOff:], view[f.dataOff:], in.from, in.cells)
		in.begin(ctx, budget)
		in.stack[0], in.stack[1] = uint64(in.ptr), uint64(f.total)
		in.calls++
		if err := in.call(in.batch); err != nil {
			in.flush()
			return nil, v, err
		}
		v.code = int32(uint32(in.stack[0]))
		aux := in.stack[0] >> 32
		if v.code == verdictMoreRoom && attempt < 4 {
			in.outCap *= 4 // 16 KiB to 4 MiB
			continue
		}
		in.flush()
		if view, ok = in.mod.Memory().Read(in.ptr, uint32(f.total)); !ok { // it may have grown
			return nil, v, errPointer
		}
		switch {
		case v.code < 0:
			return nil, v, fmt.Errorf("it failed: %s", in.why(v.code))
		case v.code == verdictPass:
			if aux != 0 {
				return nil, v, broken("pass with %d", aux)
			}
		case v.code == verdictModified:
			if aux > uint64(f.cells) {
				return nil, v, broken("%d of %d cells changed", aux, f.cells)
			}
		case v.code == verdictPatch, v.code == verdictDeny, v.code == verdictReview:
			if aux > uint64(f.outCap) {
				return nil, v, broken("%d bytes of answer in a room of %d", aux, f.outCap)
			}
			v.out = view[f.outOff : f.outOff+int(aux)]
		default:
			return nil, v, broken("verdict %d", v.code)
		}
		return view, v, nil
	}
}
