package wasm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/weir-gateway/weir/core"
)

// The SDKs' examples through the real host: that they do what they say, and what they cost. `make sdks` builds them.

var languages = []string{"native", "c", "rust", "assemblyscript", "go"}

// example loads one of the SDKs' examples, or skips where it was not built.
func example(t testing.TB, language, name string, config map[string]any) *Plugin {
	t.Helper()
	m, err := os.ReadFile(fmt.Sprintf("../../sdk/%s/examples/%s/%s.wasm", language, name, name))
	if err != nil {
		t.Skipf("%v: make sdks builds it, or says what is missing", err)
	}
	return load(t, Config{Name: name, Module: m, Config: config})
}

func TestExamples(t *testing.T) {
	for _, language := range languages[1:] {
		t.Run(language, func(t *testing.T) {
			if v := ask(t, example(t, language, "pass", nil), event(core.KindCommand)); v.Deny != nil || v.Changed || v.Decisions != nil {
				t.Errorf("pass: %+v", v)
			}
			columns := []core.Column{{Name: "mail", Type: "text"}, {Name: "n", Type: "int4"}, {Name: "doc", Type: "jsonb"}, {Name: "name", Type: "varchar"}}
			b := batch(columns, []string{"ada@example.com", "1", `{"a":1}`, "Lovelace"}, []string{null, "2", null, "x"})
			v := ask(t, example(t, language, "mask", nil), rowsEvent(b))
			if got := values(b); !v.Changed || !slices.Equal(got, []string{"a**@example.com", "1", null, "L*******", null, "2", null, "*"}) {
				t.Errorf("mask: %q", got)
			}
			block := example(t, language, "block", map[string]any{"effects": []string{"ddl"}})
			if v := ask(t, block, event(core.KindCommand)); v.Deny != nil {
				t.Errorf("block: %+v", v.Deny)
			}
			e := event(core.KindCommand)
			e.Exchange.Command.Effects = []core.Effect{"read", "ddl"}
			want := core.Denial{Rule: "block-effect", Reason: "commands with this effect are refused: ddl", Hint: "leave that part out, or ask who runs this gateway"}
			if v := ask(t, block, e); v.Deny == nil || *v.Deny != want {
				t.Errorf("block: %+v", v.Deny)
			}
			if v := ask(t, example(t, language, "record", nil), event(core.KindCommand)); fmt.Sprint(v.Decisions) != "[{ finding table s.t: read}]" {
				t.Errorf("record: %v", v.Decisions)
			}
		})
	}
}

// maskNatively is what the mask example does, in Go and with no guest: the yardstick.
func maskNatively(b *core.Batch) {
	for i := range b.Cells {
		v, ok := b.Value(i)
		if !ok || len(v) == 0 {
			continue
		}
		keep, end := 1, len(v)
		if at := bytes.IndexByte(v, '@'); at > 0 && bytes.IndexByte(v[at:], '.') > 1 {
			end = at
		}
		if keep >= end {
			keep = 0
		}
		for j := keep; j < end; j++ {
			v[j] = '*'
		}
	}
	b.Edited = true
}

// BenchmarkMask masks every cell of 1,000 rows of 8 columns.
func BenchmarkMask(b *testing.B) {
	for _, language := range languages {
		for _, width := range []int{8, 2} {
			b.Run(fmt.Sprintf("%s/%dcolumns", language, width), func(b *testing.B) {
				bt := benchBatch(1000)
				for i := width; i < len(bt.Columns); i++ {
					bt.Columns[i].Type = "int4"
				}
				data := bytes.Clone(bt.Data)
				e := rowsEvent(bt)
				ask := func() { maskNatively(bt) }
				if language == "native" {
					if width != 8 {
						b.Skip("the same work a cell")
					}
				} else {
					p := example(b, language, "mask", nil)
					ask = func() {
						if _, err := p.Inspect(context.Background(), e); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.ReportAllocs()
				for b.Loop() {
					copy(bt.Data, data)
					ask()
				}
				ns := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
				b.ReportMetric(ns/1000/float64(width), "ns/cell")
				b.ReportMetric(ns/1000, "ns/row")
			})
		}
	}
}

// BenchmarkRoundTrip asks about one command.
func BenchmarkRoundTrip(b *testing.B) {
	for _, language := range languages[1:] {
		for _, name := range []string{"pass", "block"} {
			b.Run(language+"/"+name, func(b *testing.B) {
				var config map[string]any
				if name == "block" {
					config = map[string]any{"effects": []string{"ddl"}}
				}
				p := example(b, language, name, config)
				e := event(core.KindCommand)
				b.ReportAllocs()
				for b.Loop() {
					if v, err := p.Inspect(context.Background(), e); err != nil || v.Deny != nil {
						b.Fatal(err, v.Deny)
					}
				}
			})
		}
	}
}
