package opa

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// What a guest imports: the built-in functions that it has not itself are topdown's. One that fails ends the guest, as
// strict evaluation ends there.

var (
	errAborted  = errors.New("the guest has aborted")
	errTimeOver = errors.New("the time is over")
	errBuiltin  = errors.New("a built-in function has failed")
)

var lower, upper = topdown.GetBuiltin(ast.Lower.Name), topdown.GetBuiltin(ast.Upper.Name)

// provide gives a runtime the module env.
func provide(ctx context.Context, r wazero.Runtime) error {
	const i32 = api.ValueTypeI32
	b := r.NewHostModuleBuilder("env")
	b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(context.Context, api.Module, []uint64) { panic(errAborted) }), []api.ValueType{i32}, nil).Export("opa_abort")
	for n, name := range []string{"opa_builtin0", "opa_builtin1", "opa_builtin2", "opa_builtin3", "opa_builtin4"} {
		params := make([]api.ValueType, 2+n)
		for i := range params {
			params[i] = i32
		}
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, _ api.Module, stack []uint64) {
			in, _ := ctx.Value(instanceKey{}).(*instance)
			if in == nil {
				panic(errAborted)
			}
			switch id := int32(stack[0]); id {
			case tickID:
				in.tick()
			case nextID:
				stack[0] = uint64(in.next(uint32(stack[2]), uint32(stack[3])))
			case lowerID:
				stack[0] = in.call(lower, stack[2:])
			case upperID:
				stack[0] = in.call(upper, stack[2:])
			default:
				stack[0] = in.call(in.of.calls[id], stack[2:2+n])
			}
		}), params, []api.ValueType{i32}).Export(name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

// tick looks at the clock, and lets the guest go on.
func (in *instance) tick() {
	if !in.over.reached {
		in.over.reached = in.over.ctx.Err() != nil || !in.over.at.IsZero() && time.Now().After(in.over.at)
	}
	if in.over.reached {
		panic(errTimeOver)
	}
	in.fuel.Set(slice)
}

// call answers a built-in function: the address of the value, or 0 for undefined.
func (in *instance) call(f topdown.BuiltinFunc, operands []uint64) uint64 {
	if f == nil {
		panic(errAborted)
	}
	mem := in.memory()
	terms := make([]*ast.Term, len(operands))
	for i, at := range operands {
		v, err := readValue(mem, uint32(at))
		if err != nil {
			panic(err)
		}
		terms[i] = ast.NewTerm(v)
	}
	var result *ast.Term
	n := 0
	err := f(in.bctx, terms, func(t *ast.Term) error {
		result = t
		n++
		return nil
	})
	switch {
	case err != nil && in.over.reached:
		panic(errTimeOver)
	case err != nil, n > 1:
		panic(errBuiltin)
	case n == 0:
		return 0
	}
	return in.put(result.Value)
}

// put writes a value into the guest's memory.
func (in *instance) put(v ast.Value) uint64 {
	switch v := v.(type) {
	case ast.Boolean:
		if v {
			return uint64(in.of.yes)
		}
		return uint64(in.of.no)
	case ast.String:
		at := in.alloc(16 + len(v))
		var head [12]byte
		head[0] = guestStringInterned // it is never freed
		binary.LittleEndian.PutUint32(head[4:], uint32(len(v)))
		binary.LittleEndian.PutUint32(head[8:], at+16)
		if !in.mem.Write(at, head[:]) || !in.mem.WriteString(at+16, string(v)) {
			panic(errValue)
		}
		return uint64(at)
	case ast.Number:
		if n, ok := v.Int64(); ok && strconv.FormatInt(n, 10) == string(v) {
			var head [16]byte
			head[0], head[1] = guestNumber, 1
			binary.LittleEndian.PutUint64(head[8:], uint64(n))
			at := in.alloc(len(head))
			if !in.mem.Write(at, head[:]) {
				panic(errValue)
			}
			return uint64(at)
		}
	}
	text, ok := appendValue(nil, v, 0)
	if !ok {
		panic(errValue)
	}
	at := in.alloc(len(text))
	if !in.mem.Write(at, text) {
		panic(errValue)
	}
	in.hostStack[0], in.hostStack[1] = uint64(at), uint64(len(text))
	if err := in.hostParse.CallWithStack(in, in.hostStack[:]); err != nil {
		panic(err)
	}
	if in.hostStack[0] == 0 {
		panic(errValue)
	}
	return in.hostStack[0]
}

func (in *instance) alloc(n int) uint32 {
	in.hostStack[0] = uint64(n)
	if err := in.hostAlloc.CallWithStack(in, in.hostStack[:]); err != nil {
		panic(err)
	}
	return uint32(in.hostStack[0])
}

// next returns what stands behind an element of a set, or a key of an object, in OPA's order; 0 behind the last, and the
// first one for 0. The order is made when it is gone through from the beginning.
func (in *instance) next(of, behind uint32) uint32 {
	if behind == 0 {
		if err := reading(in.memory(), func(r *valueReader) { in.sort(r, of) }); err != nil {
			panic(err)
		}
	}
	at, ok := in.order[step{of, behind}]
	if !ok {
		panic(errValue)
	}
	return at
}

// step is from one element to the next.
type step struct{ of, behind uint32 }

func (in *instance) sort(r *valueReader, of uint32) {
	type element struct {
		at    uint32
		value ast.Value
	}
	var list []element
	next := uint32(8) // of an object's elements
	if r.bytes(of, 1)[0] == guestSet {
		next = 4
	}
	r.buckets(of, func(elem uint32) uint32 {
		at := r.word(elem)
		list = append(list, element{at, r.value(at, 0)})
		return r.word(elem + next)
	})
	slices.SortFunc(list, func(a, b element) int { return a.value.Compare(b.value) })
	if in.order == nil {
		in.order = map[step]uint32{}
	}
	behind := uint32(0)
	for _, e := range list {
		in.order[step{of, behind}] = e.at
		behind = e.at
	}
	in.order[step{of, behind}] = 0
}
