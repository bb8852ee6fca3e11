//go:build wasip1

// Guard leaves the last characters of each value that it sees, and refuses statements that change every row of a table.
//
//	config: {keep: 4}   # how many characters stay
package main

import weir "github.com/weir-gateway/weir/sdk/go"

const masked = 1 // the metric

var keep = 4

func init() {
	weir.Register(weir.Plugin{
		Name: "guard", Version: "1.0.0", Mutates: true,
		Subscribe: []weir.Subscription{
			{Kinds: []weir.Kind{weir.Command}},
			{Kinds: []weir.Kind{weir.RowData}, Columns: []string{"type:text"}},
		},
		Metrics:   []weir.Metric{{ID: masked, Name: "masked"}},
		Schema:    `{"type":"object","additionalProperties":false,"properties":{"keep":{"type":"integer","minimum":0,"maximum":64}}}`,
		Configure: configure,
		OnCommand: onCommand,
		OnRows:    onRows,
	})
}

func main() {}

func configure(config weir.Value) error {
	if !config.Object() {
		return weir.Error("the only setting is keep")
	}
	for _, name := range config.Names() {
		if name != "keep" {
			return weir.Error("the only setting is keep")
		}
	}
	if v := config.Get("keep"); !v.Null() {
		n, ok := v.Int()
		if !ok || n < 0 || n > 64 {
			return weir.Error("keep is a number from 0 to 64")
		}
		keep = int(n)
	}
	return nil
}

func onCommand(e *weir.Event) {
	for _, effect := range e.Effects() {
		if effect == "write" && !e.Where() {
			e.Deny("guard-every-row", "this changes every row of a table", "add a WHERE that names the rows")
			return
		}
	}
}

func onRows(r *weir.Rows) {
	n := 0
	for i := range r.Cells() {
		v, ok := r.Value(i)
		switch {
		case !ok || len(v) == 0:
			continue
		case r.Column(i).Class == weir.ClassText:
			stars(v)
			r.Touch(i)
		default: // JSON, an array: with stars in it nobody could read it
			r.SetNull(i)
		}
		n++
	}
	if n > 0 {
		weir.Count(masked, int64(n))
	}
}

// stars puts stars over all of v but the last characters, and over all of it where there are no more.
func stars(v []byte) {
	at, left := len(v), keep
	for at > 0 && left > 0 {
		at--
		if v[at]&0xc0 != 0x80 { // not within a character of UTF-8
			left--
		}
	}
	if at == 0 {
		at = len(v)
	}
	for i := range v[:at] {
		v[i] = '*'
	}
}
