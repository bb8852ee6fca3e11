package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-gateway/weir/core"
)

// A session's records come out as they went in, however much their facts share, and whoever reads them in passing sees
// the same.
func TestPriorRoundTrip(t *testing.T) {
	said := []string{"", "{}", `{"rows":1}`}
	for _, n := range []int{31, 32, 33, 400, maxPrior - 1, maxPrior, maxPrior + 1} {
		said = append(said, string(bytes.Repeat([]byte("s"), n)))
	}
	rapid.Check(t, func(t *rapid.T) {
		var records []core.Record
		for i := range rapid.IntRange(1, 40).Draw(t, "records") {
			facts := rapid.SampledFrom(said).Draw(t, "said") + rapid.SampledFrom([]string{"", "a", "b", "another end"}).Draw(t, "end")
			records = append(records, core.Record{
				Seq: uint64(i), Time: time.Unix(0, int64(i)).UTC(), Direction: core.FromClient, Facts: []byte(facts),
				Kind: core.Kind(rapid.IntRange(2, 4).Draw(t, "kind")),
			})
		}
		var enc, alone, passing Prior
		passing.passing = true
		for i := range records {
			r := &records[i]
			var b []byte
			if long := rapid.Bool().Draw(t, "long"); long { // as a record does that is written in pieces
				b = AppendRecord(nil, r, 0, nil)
				enc.Wrote(r)
			} else {
				b = AppendRecord(nil, r, 0, &enc)
			}
			if n, err := RecordSize(r); err != nil || n < len(b) {
				t.Fatalf("size %d for %d bytes, %v", n, len(b), err)
			}
			for name, p := range map[string]*Prior{"kept": &alone, "passing": &passing} {
				var got core.Record
				if _, err := DecodeRecord(b, &got, p); err != nil {
					t.Fatalf("record %d, %s: %v", i, name, err)
				}
				if !bytes.Equal(got.Facts, r.Facts) || got.Kind != r.Kind {
					t.Fatalf("record %d, %s: %q became %q", i, name, r.Facts, got.Facts)
				}
			}
		}
	})
}

// What has been decoded stays as it is, though the next record shares its facts.
func TestPriorKeepsRecords(t *testing.T) {
	var enc, dec Prior
	var got [3]core.Record
	for i := range got {
		r := core.Record{Seq: uint64(i), Kind: core.KindCommand, Direction: core.FromClient, Facts: fmt.Appendf(nil, "%064d-%d", 7, i)}
		b := AppendRecord(nil, &r, 0, &enc)
		if i > 0 && len(b) > 32 {
			t.Errorf("record %d takes %d bytes", i, len(b))
		}
		if _, err := DecodeRecord(b, &got[i], &dec); err != nil {
			t.Fatal(err)
		}
	}
	for i := range got {
		if want := fmt.Sprintf("%064d-%d", 7, i); string(got[i].Facts) != want {
			t.Errorf("record %d: %q, want %q", i, got[i].Facts, want)
		}
	}
}

// A record that refers to what is not there is refused.
func TestPriorRefused(t *testing.T) {
	var enc Prior
	first := core.Record{Kind: core.KindCommand, Direction: core.FromClient, Facts: bytes.Repeat([]byte("x"), 100)}
	second := core.Record{Seq: 1, Kind: core.KindCommand, Direction: core.FromClient, Facts: bytes.Repeat([]byte("x"), 101)}
	AppendRecord(nil, &first, 0, &enc)
	b := AppendRecord(nil, &second, 0, &enc)
	short := core.Record{Kind: core.KindCommand, Direction: core.FromClient, Facts: bytes.Repeat([]byte("x"), 99)}
	other := core.Record{Kind: core.KindRows, Direction: core.FromClient, Facts: bytes.Repeat([]byte("x"), 100)}
	for name, before := range map[string]*core.Record{"nothing": nil, "less": &short, "another kind": &other} {
		var dec Prior
		if before != nil {
			dec.Wrote(before)
		}
		var r core.Record
		if _, err := DecodeRecord(b, &r, &dec); !errors.Is(err, errPrior) {
			t.Errorf("after %s: %v", name, err)
		}
	}
	var r core.Record
	if _, err := DecodeRecord(b, &r, nil); !errors.Is(err, errPrior) {
		t.Errorf("alone: %v", err)
	}
}
