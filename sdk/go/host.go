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

// Registered returns the plugin of this program, so that its own tests can call its handlers.
func Registered() Plugin { return registered }
