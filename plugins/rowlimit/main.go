//go:build wasip1

// Rowlimit is a guest that bounds how much an answer may hold, and how much a session may take away in all.
//
//	config:
//	  rows: 10000            # of one answer
//	  bytes: 10000000        # of values of one answer
//	  session_rows: 100000   # of all answers of a session
//	  session_bytes: 0       # 0, or left out: no limit
//
// The batch of rows that passes a limit is refused, and with it the rest of the answer. Counters are kept in what the gateway
// offers to the plugin (kv): it has to be granted.
package main

import (
	"strconv"

	weir "github.com/weir-gateway/weir/sdk/go"
)

const schema = `{"type":"object","additionalProperties":false,"minProperties":1,"properties":{"rows":{"type":"integer","minimum":0},` +
	`"bytes":{"type":"integer","minimum":0},"session_rows":{"type":"integer","minimum":0},"session_bytes":{"type":"integer","minimum":0}}}`

// day is how long a counter is kept, in milliseconds, when the end of its session is not seen.
const day = 24 * 60 * 60 * 1000

// limit is one of the four; 0 is none.
type limit struct {
	key, counter, rule, what, hint string
	bytes, session                 bool
	most                           int64
}

var limits = []limit{
	{key: "rows", counter: "ar", rule: "rowlimit-answer", what: " rows of one answer", hint: "ask for fewer: LIMIT, or a narrower WHERE"},
	{key: "bytes", counter: "ab", rule: "rowlimit-answer", what: " bytes of one answer", hint: "ask for fewer columns or rows", bytes: true},
	{key: "session_rows", counter: "sr", rule: "rowlimit-session", what: " rows of one session", hint: "this session has had its share", session: true},
	{key: "session_bytes", counter: "sb", rule: "rowlimit-session", what: " bytes of one session", hint: "this session has had its share", bytes: true, session: true},
}

func init() {
	weir.Register(weir.Plugin{
		Name: "rowlimit", Version: "1.0.0", Schema: schema, KV: true,
		Subscribe: []weir.Subscription{{Kinds: []weir.Kind{weir.RowData, weir.Result, weir.Close}, Columns: []string{"*"}}},
		Metrics:   []weir.Metric{{ID: 1, Name: "refused"}},
		Configure: configure,
		OnRows:    rows,
		OnResult:  func(e *weir.Event) { forget(e, false) },
		OnClose:   func(e *weir.Event) { forget(e, true) },
	})
}

func main() {}

func configure(c weir.Value) error {
	any := false
	for _, name := range c.Names() {
		known := false
		for i := range limits {
			if l := &limits[i]; l.key == name {
				n, ok := c.Get(name).Int()
				if !ok || n < 0 {
					return weir.Error(name + " is a whole number, and not less than 0")
				}
				l.most, known, any = n, true, any || n > 0
			}
		}
		if !known {
			return weir.Error("unknown key " + name + ": known are rows, bytes, session_rows and session_bytes")
		}
	}
	if !any {
		return weir.Error("it would limit nothing: say rows, bytes, session_rows or session_bytes")
	}
	return nil
}

func rows(r *weir.Rows) {
	size := int64(0)
	for i := range r.Cells() {
		if v, ok := r.Value(i); ok {
			size += int64(len(v))
		}
	}
	for i := range limits {
		l := &limits[i]
		if l.most == 0 {
			continue
		}
		n := int64(r.Len())
		if l.bytes {
			n = size
		}
		total, ok := weir.KVIncr(key(l, r.Session), n, day)
		if !ok {
			r.Fail("there is no room for its counters")
			return
		}
		if total > l.most {
			weir.Count(1, 1)
			r.Deny(l.rule, "the limit is "+strconv.FormatInt(l.most, 10)+l.what, l.hint)
			return
		}
	}
}

// forget removes the counters of an answer, or all of a session.
func forget(e *weir.Event, all bool) {
	if e.Kind == weir.Notice {
		return
	}
	for i := range limits {
		if l := &limits[i]; l.most > 0 && (all || !l.session) {
			weir.KVRemove(key(l, e.Session))
		}
	}
}

func key(l *limit, session uint64) string {
	b := append(make([]byte, 0, 10), l.counter...)
	for i := range 8 {
		b = append(b, byte(session>>(8*i)))
	}
	return string(b)
}
