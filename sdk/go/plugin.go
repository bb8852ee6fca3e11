// Package weir is for writing Weir plugins in Go. A plugin is a program of package main that registers itself:
//
//	func init() {
//		weir.Register(weir.Plugin{
//			Name: "no-secrets", Version: "1.0.0", Mutates: true,
//			Subscribe: []weir.Subscription{{Kinds: []weir.Kind{weir.RowData}, Columns: []string{"type:text"}}},
//			OnRows: func(r *weir.Rows) {
//				for i := range r.Cells() {
//					if v, ok := r.Value(i); ok && bytes.Contains(v, []byte("SECRET")) {
//						r.Set(i, []byte("****"))
//					}
//				}
//			},
//		})
//	}
//
//	func main() {}
//
// and is built with the stock toolchain:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags='-s -w' -o plugin.wasm .
//
// The package imports little, so that guests stay small: so should a plugin (encoding/json and fmt cost 1.5 MB).
// The contract behind it is sdk/ABI.md. The gateway runs several instances of a plugin at a time, each with its own
// memory, and throws one away after a panic: keep nothing in global variables but what Configure made.
package weir

// Kind is what an event is.
type Kind string

// The kinds that a plugin can subscribe to.
const (
	Open    Kind = "open"
	Command Kind = "command"
	Columns Kind = "columns"
	RowData Kind = "rows"
	Bytes   Kind = "bytes"
	Result  Kind = "result"
	Notice  Kind = "notice"
	Close   Kind = "close"
)

// Subscription says which events a plugin wants.
type Subscription struct {
	Protocols []string // none: all
	Kinds     []Kind
	// Columns are the columns whose cells the plugin sees in rows: glob patterns over the column's name, "type:text"
	// for a class of types, "*" for all. None: no cells.
	Columns []string
}

// Metric is a number of the plugin's own, shown among the gateway's metrics.
type Metric struct {
	ID        uint32
	Name      string // lower-case words joined with _
	Histogram bool   // else a counter
}

// Plugin is what a program registers.
type Plugin struct {
	Name    string
	Version string
	// Mutates says that values may be changed. Without it a change is an error.
	Mutates bool
	// OnError is what a failure of the plugin means: "deny" (the default) or "pass".
	OnError   string
	Subscribe []Subscription
	// Schema is a JSON Schema of the configuration, for people; Configure is what checks it.
	Schema  string
	Metrics []Metric
	// Clock asks for the real time in Now.
	Clock bool
	// Connection asks for an instance of its own for each session, so that what the program keeps belongs to it. Begin and End
	// are called when a session begins, before its first event, and when it is over; an error of Begin refuses the session.
	Connection bool
	Begin      func(e *Event) error
	End        func(session uint64)
	// KV asks for KVGet, KVPut and KVIncr.
	KV bool
	// DeadlineMS is the longest that one batch of rows may take, in milliseconds; 0: the gateway's default.
	DeadlineMS int
	// MemoryPages is the most memory of an instance, in pages of 64 KiB; 0: the gateway's default.
	MemoryPages int

	// Configure takes the configuration, once in each instance, before anything else. An error refuses to start.
	Configure func(config Value) error
	// The handlers, one for each kind of event that is subscribed to; OnResult also sees notices.
	OnOpen    func(e *Event)
	OnCommand func(e *Event)
	OnColumns func(e *Event)
	OnResult  func(e *Event)
	OnClose   func(e *Event)
	// OnRows sees batches of rows, OnBytes pieces of streams.
	OnRows  func(r *Rows)
	OnBytes func(e *Event)
}

var registered Plugin

// Register makes p the plugin of this program. Call it once, from init.
func Register(p Plugin) { registered = p }

// Error is a text usable as an error, without importing more.
type Error string

// Error returns the text.
func (e Error) Error() string { return string(e) }

// maxFinding are the bytes of one finding that the gateway reads.
const maxFinding = 256

// finding writes what Found says: what it was, NUL, and more of it, cut to what is read.
func finding(b []byte, what, more string) []byte {
	what = what[:min(len(what), maxFinding/2)]
	b = append(append(b, what...), 0)
	return append(b, more[:min(len(more), maxFinding-len(b))]...)
}

// manifest writes what weir_describe returns.
func manifest(p *Plugin) []byte {
	b := make([]byte, 0, 512)
	field := func(key string) {
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(appendString(b, key), ':')
	}
	list := func(items []string) {
		b = append(b, '[')
		for i, s := range items {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, s)
		}
		b = append(b, ']')
	}
	flag := func(v bool) {
		if v {
			b = append(b, "true"...)
		} else {
			b = append(b, "false"...)
		}
	}
	b = append(b, '{')
	field("name")
	b = appendString(b, p.Name)
	field("version")
	b = appendString(b, p.Version)
	field("abi")
	b = append(b, '1')
	field("mutates")
	flag(p.Mutates)
	if p.OnError != "" {
		field("on_error")
		b = appendString(b, p.OnError)
	}
	if p.Connection {
		field("state")
		b = appendString(b, "connection")
	}
	if p.Clock || p.KV {
		field("needs")
		b = append(b, '{')
		if p.Clock {
			field("clock")
			flag(true)
		}
		if p.KV {
			field("kv")
			flag(true)
		}
		b = append(b, '}')
	}
	if p.DeadlineMS > 0 {
		field("deadline_ms")
		b = appendNumber(b, uint64(p.DeadlineMS))
	}
	if p.MemoryPages > 0 {
		field("memory_pages")
		b = appendNumber(b, uint64(p.MemoryPages))
	}
	if p.Schema != "" {
		field("config_schema")
		b = append(b, p.Schema...)
	}
	field("subscribe")
	b = append(b, '[')
	for i, s := range p.Subscribe {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		field("kinds")
		kinds := make([]string, len(s.Kinds))
		for j, k := range s.Kinds {
			kinds[j] = string(k)
		}
		list(kinds)
		if len(s.Protocols) > 0 {
			field("protocols")
			list(s.Protocols)
		}
		if len(s.Columns) > 0 {
			field("columns")
			list(s.Columns)
		}
		b = append(b, '}')
	}
	b = append(b, ']')
	if len(p.Metrics) > 0 {
		field("metrics")
		b = append(b, '[')
		for i, m := range p.Metrics {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, '{')
			field("id")
			b = appendNumber(b, uint64(m.ID))
			field("name")
			b = appendString(b, m.Name)
			field("kind")
			if m.Histogram {
				b = appendString(b, "histogram")
			} else {
				b = appendString(b, "counter")
			}
			b = append(b, '}')
		}
		b = append(b, ']')
	}
	return append(b, '}')
}
