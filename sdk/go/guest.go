//go:build wasip1

package weir

import "unsafe"

// The exports and imports of sdk/ABI.md.

//go:wasmimport weir_v1 log
func hostLog(level int32, ptr unsafe.Pointer, n int32)

//go:wasmimport weir_v1 emit
func hostEmit(ptr unsafe.Pointer, n int32)

//go:wasmimport weir_v1 metric_add
func hostMetricAdd(id int32, delta int64)

//go:wasmimport weir_v1 metric_observe
func hostMetricObserve(id int32, value float64)

//go:wasmimport weir_v1 now_ns
func hostNow() int64

//go:wasmimport weir_v1 kv_get
func hostKVGet(key unsafe.Pointer, n int32, out unsafe.Pointer, room int32) int32

//go:wasmimport weir_v1 kv_put
func hostKVPut(key unsafe.Pointer, n int32, value unsafe.Pointer, m int32, ttl int64) int32

//go:wasmimport weir_v1 kv_incr
func hostKVIncr(key unsafe.Pointer, n int32, delta, ttl int64) int64

var (
	region   []byte // stays reachable: the host writes into it
	describe []byte
	present  Event
	found    [maxFinding]byte
)

//go:wasmexport weir_abi_v1
func abi() int32 { return 0 }

//go:wasmexport weir_describe
func weirDescribe() int64 {
	describe = manifest(&registered)
	return int64(uint64(address(describe))<<32 | uint64(len(describe)))
}

//go:wasmexport weir_buffer
func weirBuffer(least int32) int32 {
	if int(least) > len(region) {
		region = make([]byte, least)
	}
	return int32(address(region))
}

//go:wasmexport weir_configure
func weirConfigure(ptr, n int32) int32 {
	b := view(ptr, n)
	if b == nil {
		return -1
	}
	config, err := Parse(b)
	if err == nil && registered.Configure != nil {
		err = registered.Configure(config)
	}
	if err != nil {
		Log(LogError, err.Error())
		return -1
	}
	return 0
}

//go:wasmexport weir_on_batch
func weirOnBatch(ptr, n int32) int64 {
	b := view(ptr, n)
	if b == nil || !present.parse(b) {
		Log(LogError, "the frame cannot be read")
		return codeFailed & 0xffffffff
	}
	return dispatch(&registered, &present)
}

// begin says that a session begins, with a frame of kind open.
func begin(p *Plugin, e *Event) int32 {
	if p.Begin == nil {
		return 0
	}
	err := p.Begin(e)
	if err == nil && e.failure != "" {
		err = Error(e.failure)
	}
	if err != nil {
		Log(LogError, err.Error())
		return -1
	}
	return 0
}

//go:wasmexport weir_open
func weirOpen(ptr, n int32) int32 {
	b := view(ptr, n)
	if b == nil || !present.parse(b) {
		Log(LogError, "the frame cannot be read")
		return -1
	}
	return begin(&registered, &present)
}

//go:wasmexport weir_close
func weirClose(session int64) {
	if registered.End != nil {
		registered.End(uint64(session))
	}
}

// view returns a part of the region.
func view(ptr, n int32) []byte {
	base := uint32(address(region))
	if uint32(ptr) < base || uint64(uint32(ptr)-base)+uint64(uint32(n)) > uint64(len(region)) {
		return nil
	}
	off := uint32(ptr) - base
	return region[off : off+uint32(n) : off+uint32(n)]
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// LogLevel is how much a line matters.
type LogLevel int32

// The levels.
const (
	LogDebug LogLevel = iota
	LogInfo
	LogWarn
	LogError
)

// Log writes a line to the gateway's log: at most 32 lines and 8 KiB a call. It must not hold values.
func Log(level LogLevel, text string) {
	hostLog(int32(level), unsafe.Pointer(unsafe.StringData(text)), int32(len(text)))
}

// Found adds a finding to the record of the present event: what was found, and more about it in words; 256 bytes
// together, the rest is cut off. It must not hold the value itself.
func Found(what, more string) {
	b := finding(found[:0], what, more)
	hostEmit(unsafe.Pointer(unsafe.SliceData(b)), int32(len(b)))
}

// Count adds to a counter of the plugin's own.
func Count(id uint32, delta int64) { hostMetricAdd(int32(id), delta) }

// Observe adds an observation to a histogram of the plugin's own.
func Observe(id uint32, value float64) { hostMetricObserve(int32(id), value) }

// Now returns the time in nanoseconds since 1970, or 0 where the plugin did not ask for the clock.
func Now() int64 { return hostNow() }

// KVGet returns the value of a key that the plugin's instances share, and false where there is none. The plugin asks for it
// with KV, and the operator grants it.
func KVGet(key string) ([]byte, bool) {
	out := make([]byte, 256)
	for {
		n := hostKVGet(unsafe.Pointer(unsafe.StringData(key)), int32(len(key)), unsafe.Pointer(unsafe.SliceData(out)), int32(len(out)))
		if n < 0 {
			return nil, false
		}
		if int(n) <= len(out) {
			return out[:n], true
		}
		out = make([]byte, n)
	}
}

// KVPut sets a key for ttlMS milliseconds, or for good with 0. It reports whether there was room.
func KVPut(key string, value []byte, ttlMS int64) bool {
	return hostKVPut(unsafe.Pointer(unsafe.StringData(key)), int32(len(key)), unsafe.Pointer(unsafe.SliceData(value)), int32(len(value)), ttlMS) == 0
}

// KVRemove removes a key.
func KVRemove(key string) {
	hostKVPut(unsafe.Pointer(unsafe.StringData(key)), int32(len(key)), nil, -1, 0)
}

// KVIncr adds to a counter, which is made at 0 and lasts ttlMS milliseconds from then, or for good with 0. It returns what the
// counter is now, and false where there is no room, or the value is no counter.
func KVIncr(key string, delta, ttlMS int64) (int64, bool) {
	v := hostKVIncr(unsafe.Pointer(unsafe.StringData(key)), int32(len(key)), delta, ttlMS)
	return v, v != -1<<63
}
