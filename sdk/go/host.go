//go:build !wasip1

package weir

// Outside of a gateway, in a plugin's own unit tests, there is nobody to tell.

// LogLevel is how much a line matters.
type LogLevel int32

// The levels.
const (
	LogDebug LogLevel = iota
	LogInfo
	LogWarn
	LogError
)

// Log writes a line to the gateway's log.
func Log(LogLevel, string) {}

// Found adds a finding to the record of the present event.
func Found(_, _ string) {}

// Count adds to a counter of the plugin's own.
func Count(uint32, int64) {}

// Observe adds an observation to a histogram of the plugin's own.
func Observe(uint32, float64) {}

// Now returns 0.
func Now() int64 { return 0 }

// The keys of a plugin's own tests.
var keys = map[string][]byte{}

// KVGet returns the value of a key.
func KVGet(key string) ([]byte, bool) {
	v, ok := keys[key]
	return v, ok
}

// KVPut sets a key.
func KVPut(key string, value []byte, _ int64) bool {
	keys[key] = append([]byte(nil), value...)
	return true
}

// KVRemove removes a key.
func KVRemove(key string) { delete(keys, key) }

// KVIncr adds to a counter.
func KVIncr(key string, delta, _ int64) (int64, bool) {
	b := keys[key]
	if b == nil {
		b = make([]byte, 8)
	}
	if len(b) != 8 {
		return 0, false
	}
	v := int64(u32(b)) | int64(u32(b[4:]))<<32
	v += delta
	put32(b, uint32(v))
	put32(b[4:], uint32(v>>32))
	keys[key] = b
	return v, true
}

// Registered returns the plugin of this program, so that its own tests can call its handlers.
func Registered() Plugin { return registered }
