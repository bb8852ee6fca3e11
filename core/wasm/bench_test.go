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
		if v, ok := b.Value(i); ok && len(v) > 0 {
			keep, end := 1, len(v)
			if bytes.IndexByte(v, '@') > 0 {
				end = atSign(v)
			}
			if v[0] >= 0xc0 {
				for keep < end && v[keep]&0xc0 == 0x80 {
					keep++
				}
			}
			if keep >= end {
				keep = 0
			}
			for j := range v[keep:end] {
				v[keep+j] = '*'
			}
		}
	}
	b.Edited = true
}

// atSign returns where the '@' of an e-mail address is, which is somewhere, or how long the value is.
func atSign(v []byte) int {
	at, point := 0, 0
	for ; v[at] != '@'; at++ {
		if v[at] <= ' ' {
			return len(v)
		}
	}
	for i := at + 1; i < len(v); i++ {
		switch c := v[i]; {
		case c == '.':
			point = i
		case (c|0x20)-'a' >= 26 && c-'0' >= 10 && c != '-':
			return len(v)
		}
	}
	if point > at+1 && point+1 < len(v) {
		return at
	}
	return len(v)
}

// TestNativeMask: the yardstick does the same work, to the byte.
func TestNativeMask(t *testing.T) {
	for _, language := range languages[1:] {
		t.Run(language, func(t *testing.T) {
			native, guest := benchBatch(300), benchBatch(300)
			for _, b := range []*core.Batch{native, guest} { // what an address is not
				copy(b.Data[b.Cells[1].Off:], "us er0@example.com")
				copy(b.Data[b.Cells[9].Off:], "user1@example@com")
				copy(b.Data[b.Cells[17].Off:], "@ser2.example.com")
				copy(b.Data[b.Cells[25].Off:], "\xc3\xbcer3@example.com")
				copy(b.Data[b.Cells[33].Off:], "user4@examplexcom")
			}
			maskNatively(native)
			p := example(t, language, "mask", nil)
			if v := ask(t, p, rowsEvent(guest)); !v.Changed || !bytes.Equal(native.Data, guest.Data) {
				t.Error("the guest's answer is another one")
			}
		})
	}
}

// BenchmarkFloor is what the host takes for a batch, with a guest that does nothing and one that says it changed every cell.
func BenchmarkFloor(b *testing.B) {
	for name, code := range map[string][]byte{"pass": result(0, 0), "modified": result(1, 0)} {
		b.Run(name, func(b *testing.B) {
			p := load(b, Config{Module: hand(code), noSelfTest: true})
			e := rowsEvent(benchBatch(1000))
			for b.Loop() {
				if _, err := p.Inspect(context.Background(), e); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/8000, "ns/cell")
		})
	}
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
