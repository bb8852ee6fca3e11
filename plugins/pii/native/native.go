// Package native is the plugin pii as a step of the gateway itself: what the guest of the folder above does, without its bounds and
// at the speed of the machine.
package native

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/plugins/pii/detect"
)

// New returns the plugin, for a build to bring along.
func New() *core.Native {
	return &core.Native{
		Name: "pii", Version: detect.Version, Schema: detect.Schema, Mutates: true, Counters: []string{detect.Metric},
		Subscription: core.Subscription{Kinds: core.KindSet(core.KindRows), Columns: []string{"type:text"}},
		New:          configure,
	}
}

// step is one of a chain. It has no state, so that any number of sessions may ask it at a time.
type step struct {
	core.NativeConfig
	detector *detect.Detector
}

func configure(c core.NativeConfig) (core.Plugin, error) {
	var settings struct {
		Entities []string `json:"entities"`
	}
	d := json.NewDecoder(bytes.NewReader(c.Settings))
	d.DisallowUnknownFields()
	if err := d.Decode(&settings); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	set := detect.All
	if settings.Entities != nil {
		var unknown string
		if set, unknown = detect.Choose(settings.Entities, detect.All); set == 0 {
			return nil, fmt.Errorf("no entity %q: known are %v, PERSONAL and SECRET", unknown, detect.All)
		}
	}
	return &step{c, detect.New(set)}, nil
}

// interval is after how many bytes the caller is asked whether it still waits.
const interval = 1 << 20

// Inspect masks what it finds in a batch of rows: in place, so that whatever the length of a value, there is no second one. What a
// step before has put there is copied first, for it may be shared.
func (s *step) Inspect(ctx context.Context, e *core.Event) (v core.Verdict, err error) {
	b := e.Rows
	if e.Kind != core.KindRows || b == nil || b.Rows == 0 {
		return v, nil
	}
	width := len(b.Watch)
	if len(b.Cells) != b.Rows*width {
		return v, fmt.Errorf("a batch of %d rows by %d columns has %d cells", b.Rows, width, len(b.Cells))
	}
	var few [64]int
	columns := few[:0]
	for i, w := range b.Watch {
		if s.Subscription.WantsColumn(&b.Columns[w]) {
			columns = append(columns, i)
		}
	}
	if len(columns) == 0 {
		return v, nil
	}
	var (
		counts             detect.Counts
		scratch            []byte
		patch, size, asked int // patch is the first of the patches that are not behind us
	)
	for first := 0; first < len(b.Cells); first += width {
		if size-asked >= interval {
			if asked = size; ctx.Err() != nil {
				return core.Verdict{}, ctx.Err()
			}
		}
		for _, c := range columns {
			i := first + c
			for patch < len(b.Patches) && b.Patches[patch].Cell < i {
				patch++
			}
			if patch < len(b.Patches) && b.Patches[patch].Cell == i {
				was := b.Patches[patch].Value
				size += len(was)
				if scratch = append(scratch[:0], was...); s.detector.Mask(scratch, &counts) && !bytes.Equal(scratch, was) {
					b.Set(i, bytes.Clone(scratch))
					v.Changed = true
				}
				continue
			}
			at := b.Cells[i]
			if at.Null() {
				continue
			}
			value := b.Data[at.Off : at.Off+at.Len]
			size += len(value)
			if masked(s.detector, value, &counts) {
				b.Edited, v.Changed = true, true
			}
		}
	}
	total := 0
	for i, n := range counts {
		if n > 0 {
			v.Decisions = append(v.Decisions, core.Decision{Action: "finding", Rule: detect.Name(i), Detail: strconv.Itoa(n)})
			total += n
		}
	}
	s.Passed(b.Rows, size)
	s.Count(detect.Metric, total)
	return v, nil
}

var star = []byte("*")

// masked masks a value and reports whether it is another now. A finding may be masked already; what is masked has more stars.
func masked(d *detect.Detector, value []byte, counts *detect.Counts) bool {
	before := bytes.Count(value, star)
	return d.Mask(value, counts) && bytes.Count(value, star) > before
}
