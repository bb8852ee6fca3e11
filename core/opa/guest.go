package opa

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// A guest is a policy that OPA has compiled to WebAssembly, run by wazero. Its instances are made when they are needed,
// as many as there are processors; each answers one question after another. Before a question the heap is put back to
// where it begins behind the data; after a trap all of its memory is.

const (
	guestPages    = 1024    // of 64 KiB: the memory of an instance
	maxGuestInput = 1 << 20 // bytes; larger inputs are topdown's
	keptMemory    = 8 << 20 // beyond the data: an instance that has grown by more is dropped
	tries         = 1000    // a guest that has no answer to more than a quarter of its questions is given up after so many
)

// errStumbled says that the guest has no answer, and topdown is to be asked.
var errStumbled = errors.New("the compiled policy has no answer")

// guest runs a policy. It is safe for use by several goroutines.
type guest struct {
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	entries  map[string]uint32
	calls    map[int32]topdown.BuiltinFunc

	image    []byte // the memory of an instance that has its data
	heap     uint32 // where it ends
	stackTop uint64
	data     uint32
	yes, no  uint32 // booleans
	idle     chan *instance
	live     atomic.Int32
	asked    atomic.Uint64
	stumbles atomic.Uint64
	off      atomic.Bool // it stumbles too often to be of use
}

// instance answers one question at a time.
type instance struct {
	context.Context // of the question; the instance is the context of the calls
	of              *guest
	mod             api.Module
	mem             api.Memory
	fuel, stackTop  api.MutableGlobal
	setHeap         api.Function
	parse, eval     api.Function
	// while eval runs
	hostParse, hostAlloc api.Function
	stack                [2]uint64
	hostStack            [2]uint64

	over *deadline
	bctx topdown.BuiltinContext
	text []byte
	head [16]byte
	// order is of the sets and objects that were gone through in order.
	order map[step]uint32
}

type instanceKey struct{}

// Value implements context.Context.
func (in *instance) Value(key any) any {
	if _, ok := key.(instanceKey); ok {
		return in
	}
	return in.Context.Value(key)
}

// newGuest makes a module ready, with its first instance. data is the text of the documents.
func newGuest(ctx context.Context, module, data []byte) (_ *guest, err error) {
	g := &guest{calls: map[int32]topdown.BuiltinFunc{}, entries: map[string]uint32{}, idle: make(chan *instance, runtime.GOMAXPROCS(0))}
	g.runtime = wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithMemoryLimitPages(guestPages).
		WithDebugInfoEnabled(false).WithCoreFeatures(api.CoreFeaturesV2))
	defer func() {
		if err != nil {
			_ = g.runtime.Close(context.Background())
		}
	}()
	if err := provide(ctx, g.runtime); err != nil {
		return nil, err
	}
	g.compiled, err = g.runtime.CompileModule(experimental.WithCompilationWorkers(ctx, runtime.GOMAXPROCS(0)), module)
	if err != nil {
		return nil, err
	}
	in, err := g.instantiate(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.prepare(ctx, in, data); err != nil {
		return nil, fmt.Errorf("its data cannot be loaded: %w", err)
	}
	g.live.Add(1)
	g.idle <- in
	return g, nil
}

func (g *guest) instantiate(ctx context.Context) (*instance, error) {
	in := &instance{Context: context.Background(), of: g, over: &deadline{ctx: context.Background()}}
	mod, err := g.runtime.InstantiateModule(in, g.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return nil, err
	}
	in.mod, in.mem = mod, mod.Memory()
	in.fuel, _ = mod.ExportedGlobal(fuelExport).(api.MutableGlobal)
	in.stackTop, _ = mod.ExportedGlobal(stackExport).(api.MutableGlobal)
	in.setHeap, in.parse, in.eval = mod.ExportedFunction("opa_heap_ptr_set"), mod.ExportedFunction("opa_value_parse"), mod.ExportedFunction("eval")
	in.hostParse, in.hostAlloc = mod.ExportedFunction("opa_value_parse"), mod.ExportedFunction("opa_malloc")
	in.bctx = topdown.BuiltinContext{Context: in, Cancel: in.over, Capabilities: capabilities}
	if in.mem == nil || in.fuel == nil || in.stackTop == nil || in.setHeap == nil || in.parse == nil || in.eval == nil || in.hostAlloc == nil {
		return nil, errors.New("it lacks an export")
	}
	if g.image == nil {
		return in, nil
	}
	if !in.reset() {
		_ = mod.Close(ctx)
		return nil, errors.New("no memory for the data")
	}
	return in, nil
}

// prepare loads the data into the first instance, and notes what all have in common.
func (g *guest) prepare(ctx context.Context, in *instance, data []byte) (err error) {
	if g.data, err = in.parsed(data); err != nil {
		return err
	}
	if g.yes, err = in.parsed([]byte("true")); err != nil {
		return err
	}
	if g.no, err = in.parsed([]byte("false")); err != nil {
		return err
	}
	for _, list := range []string{"builtins", "entrypoints"} {
		r, err := in.mod.ExportedFunction(list).Call(in)
		if err != nil {
			return err
		}
		v, err := readValue(in.memory(), uint32(r[0]))
		if err != nil {
			return err
		}
		o, ok := v.(ast.Object)
		if !ok {
			return errValue
		}
		if err := o.Iter(func(k, v *ast.Term) error {
			name, _ := k.Value.(ast.String)
			number, _ := v.Value.(ast.Number)
			id, ok := number.Int()
			if list == "entrypoints" {
				g.entries[strings.TrimPrefix(string(name), asking+"/")] = uint32(id)
				return nil
			}
			f := topdown.GetBuiltin(strings.TrimPrefix(string(name), hostPrefix))
			if f == nil || !ok || !builtinNames[strings.TrimPrefix(string(name), hostPrefix)] {
				return fmt.Errorf("it calls %s, which is not there", name)
			}
			g.calls[int32(id)] = f
			return nil
		}); err != nil {
			return err
		}
	}
	r, err := in.mod.ExportedFunction("opa_heap_ptr_get").Call(in)
	if err != nil {
		return err
	}
	g.heap = (uint32(r[0]) + 15) &^ 15
	if !in.room(g.heap) {
		return errors.New("no memory")
	}
	g.image, g.stackTop = append([]byte(nil), in.memory()[:g.heap]...), in.stackTop.Get()
	return nil
}

// parsed has a text parsed, outside of a question.
func (in *instance) parsed(text []byte) (uint32, error) {
	r, err := in.hostAlloc.Call(in, uint64(len(text)))
	if err != nil {
		return 0, err
	}
	if !in.mem.Write(uint32(r[0]), text) {
		return 0, errors.New("no memory")
	}
	r, err = in.hostParse.Call(in, r[0], uint64(len(text)))
	if err != nil {
		return 0, err
	}
	if r[0] == 0 {
		return 0, errors.New("it is not read")
	}
	return uint32(r[0]), nil
}

func (in *instance) memory() []byte {
	b, _ := in.mem.Read(0, in.mem.Size())
	return b
}

// room makes the memory that large.
func (in *instance) room(end uint32) bool {
	if have := in.mem.Size(); end > have {
		_, ok := in.mem.Grow((end-have)>>16 + 1)
		return ok
	}
	return true
}

// take returns an instance for one question; nil when as many are in use as there are processors.
func (g *guest) take(ctx context.Context) *instance {
	select {
	case in := <-g.idle:
		return in
	default:
	}
	if int(g.live.Add(1)) <= cap(g.idle) {
		if in, err := g.instantiate(ctx); err == nil {
			return in
		}
	}
	g.live.Add(-1)
	return nil
}

// reset puts an instance into the state of a new one: its memory, and where its stack begins.
func (in *instance) reset() bool {
	in.stackTop.Set(in.of.stackTop)
	return in.room(in.of.heap) && in.mem.Write(0, in.of.image)
}

// back takes an instance back. One that trapped is as new then; one that has grown too much is dropped.
func (g *guest) back(in *instance, sound bool) {
	in.Context, in.over.ctx = context.Background(), context.Background()
	if in.mem.Size() <= g.heap+keptMemory && (sound || in.reset()) {
		g.idle <- in // there is a place for each that lives
		return
	}
	_ = in.mod.Close(context.Background())
	g.live.Add(-1)
}

// ask evaluates one of the questions about an input, and has the answer read. Its error is errStumbled when topdown is to
// be asked, or that the time is over.
func (g *guest) ask(ctx context.Context, entry string, over deadline, write func([]byte) ([]byte, bool), read func(*valueReader, uint32)) (err error) {
	if g.off.Load() {
		return errStumbled
	}
	in := g.take(ctx)
	if in == nil {
		return errStumbled
	}
	g.asked.Add(1)
	sound := false
	defer func() { g.back(in, sound) }()
	*in.over, in.Context = over, ctx
	var ok bool
	if in.text, ok = write(in.text[:0]); !ok || len(in.text) > maxGuestInput {
		sound = true
		return errStumbled
	}
	err = in.run(g.entries[entry], read)
	switch {
	case in.over.reached && ctx.Err() != nil:
		return ctx.Err()
	case in.over.reached:
		return context.DeadlineExceeded
	case err != nil:
		if n := g.stumbles.Add(1); n >= tries && n*4 > g.asked.Load() {
			g.off.Store(true)
		}
		return errStumbled
	}
	sound = true
	return nil
}

// run evaluates an entry point about in.text.
func (in *instance) run(entry uint32, read func(*valueReader, uint32)) error {
	g := in.of
	at := g.heap + 16 // the context of the evaluation lies before
	end := at + uint32(len(in.text))
	if !in.room(end) {
		return errStumbled
	}
	in.mem.Write(at, in.text)
	in.fuel.Set(slice)
	clear(in.order)
	in.stack[0] = uint64((end + 15) &^ 15)
	if err := in.setHeap.CallWithStack(in, in.stack[:]); err != nil {
		return err
	}
	in.stack[0], in.stack[1] = uint64(at), uint64(len(in.text))
	if err := in.parse.CallWithStack(in, in.stack[:]); err != nil {
		return err
	}
	if in.stack[0] == 0 {
		return errStumbled
	}
	head := binary.LittleEndian.AppendUint32(in.head[:0], uint32(in.stack[0]))
	head = binary.LittleEndian.AppendUint32(head, g.data)
	head = binary.LittleEndian.AppendUint32(head, 0) // the answer
	in.mem.Write(g.heap, binary.LittleEndian.AppendUint32(head, entry))
	in.stack[0] = uint64(g.heap)
	if err := in.eval.CallWithStack(in, in.stack[:]); err != nil {
		return err
	}
	results, _ := in.mem.ReadUint32Le(g.heap + 8)
	return reading(in.memory(), func(r *valueReader) {
		if r.word(results+12) == 0 {
			return // undefined
		}
		r.buckets(results, func(elem uint32) uint32 {
			r.buckets(r.word(elem), func(pair uint32) uint32 {
				read(r, r.word(pair+4)) // {"result": …}
				return 0
			})
			return 0
		})
	})
}
