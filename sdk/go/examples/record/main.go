//go:build wasip1

// Command record adds a finding to the record for each thing that a command touches, and counts the rows that come back.
package main

import (
	"strings"

	weir "github.com/weir-gateway/weir/sdk/go"
)

const (
	resources = 1
	batchRows = 2
)

func init() {
	weir.Register(weir.Plugin{
		Name: "record", Version: "1.0.0",
		Subscribe: []weir.Subscription{{Kinds: []weir.Kind{weir.Command, weir.RowData}}},
		Metrics:   []weir.Metric{{ID: resources, Name: "resources"}, {ID: batchRows, Name: "batch_rows", Histogram: true}},
		OnCommand: func(e *weir.Event) {
			all := e.Resources()
			for _, r := range all {
				weir.Found(r.Kind, r.Name+": "+strings.Join(r.Use, ","))
			}
			if len(all) > 0 {
				weir.Count(resources, int64(len(all)))
			}
		},
		OnRows: func(r *weir.Rows) { weir.Observe(batchRows, float64(r.Len())) },
	})
}

func main() {}
