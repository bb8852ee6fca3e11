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

var (
	region   []byte // stays reachable: the host writes into it
	describe []byte
	present  Event
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

// Found adds a finding to the record of the present event: what was found, and more about it in words. It must not
// hold the value itself.
func Found(what, more string) {
	b := append(append(append(make([]byte, 0, 64), what...), 0), more...)
	hostEmit(unsafe.Pointer(unsafe.SliceData(b)), int32(len(b)))
}

// Count adds to a counter of the plugin's own.
func Count(id uint32, delta int64) { hostMetricAdd(int32(id), delta) }

// Observe adds an observation to a histogram of the plugin's own.
func Observe(id uint32, value float64) { hostMetricObserve(int32(id), value) }

// Now returns the time in nanoseconds since 1970, or 0 where the plugin did not ask for the clock.
func Now() int64 { return hostNow() }
