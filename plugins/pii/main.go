//go:build wasip1

// Pii is a guest that finds personal data and secrets in the text columns of an answer and masks them in place: the
// length of a value never changes.
//
//	config:
//	  entities: [EMAIL, CARD, IBAN, SSN]   # default: all of them
//
// What it looks for is in the package detect.
package main

import (
	"strconv"

	"github.com/weir-gateway/weir/plugins/pii/detect"
	weir "github.com/weir-gateway/weir/sdk/go"
)

var detector = detect.New(detect.All)

func init() {
	weir.Register(weir.Plugin{
		Name: "pii", Version: detect.Version, Mutates: true, Schema: detect.Schema,
		Subscribe: []weir.Subscription{{Kinds: []weir.Kind{weir.RowData}, Columns: []string{"type:text"}}},
		Metrics:   []weir.Metric{{ID: 1, Name: detect.Metric}},
		Configure: configure,
		OnRows:    rows,
	})
}

func main() {}

func configure(c weir.Value) error {
	for _, name := range c.Names() {
		if name != "entities" {
			return weir.Error("unknown key " + name + ": the only one is entities")
		}
	}
	list := c.Get("entities")
	if list.Null() {
		return nil
	}
	names, ok := list.Texts()
	if !ok || len(names) == 0 {
		return weir.Error("entities is a list of names, and not empty")
	}
	set, unknown := detect.Choose(names, detect.All)
	if set == 0 {
		return weir.Error("no entity " + unknown + ": known are " + detect.All.String() + ", PERSONAL and SECRET")
	}
	detector = detect.New(set)
	return nil
}

func rows(r *weir.Rows) {
	var counts detect.Counts
	for i := range r.Cells() {
		if v, ok := r.Value(i); ok && detector.Mask(v, &counts) {
			r.Touch(i)
		}
	}
	total := 0
	for i, n := range counts {
		if n > 0 {
			weir.Found(detect.Name(i), strconv.Itoa(n))
			total += n
		}
	}
	if total > 0 {
		weir.Count(1, int64(total))
	}
}
