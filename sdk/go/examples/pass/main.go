//go:build wasip1

// Command pass sees everything and does nothing: what is left is the price of a call.
package main

import weir "github.com/weir-gateway/weir/sdk/go"

func init() {
	weir.Register(weir.Plugin{
		Name: "pass", Version: "1.0.0",
		Subscribe: []weir.Subscription{{
			Kinds:   []weir.Kind{weir.Open, weir.Command, weir.Columns, weir.RowData, weir.Bytes, weir.Result, weir.Notice, weir.Close},
			Columns: []string{"*"},
		}},
	})
}

func main() {}
