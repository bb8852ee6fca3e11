package wasm

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// inspect turns an event into frames and what the guest says of them into a verdict.
func (in *instance) inspect(ctx context.Context, kind uint16, e *core.Event) (v core.Verdict, err error) {
	f := &frame{kind: kind, mayEdit: in.plugin.manifest.Mutates}
	f.conn = numberOf(e.Session.ID)
	in.attrs.reset()
	in.attrs.describe(e)
	in.cells = in.cells[:0]
	if e.Kind == core.KindRows {
		return in.rows(ctx, f, e)
	}
	f.rows = 1
	switch e.Kind {
	case core.KindCommand:
		if c := e.Command(); c != nil {
			in.cells = append(in.cells, value{b: []byte(c.Text)})
		}
		for _, p := range e.Params {
			in.cells = append(in.cells, value{p.Value, p.Value == nil})
		}
		f.mayEdit = false
	case core.KindBytes:
		in.cells = append(in.cells, value{b: e.Bytes})
	case core.KindResult, core.KindNotice:
		if e.Result != nil {
			for i := range e.Result.Texts {
				in.cells = append(in.cells, value{b: []byte(e.Result.Texts[i].Value)})
			}
		}
	case core.KindColumns:
		f.rows, f.cols = 0, len(e.Columns)
		f.mayEdit = false
	default:
		f.mayEdit = false
	}
	if e.Kind != core.KindColumns {
		f.cols = len(in.cells)
	}
	if err := in.fits(f); err != nil {
		return v, err
	}
	view, a, err := in.ask(ctx, f, in.plugin.limits.Command)
	if err != nil {
		return v, err
	}
	err = in.answer(&v, e, f, view, a, func(cell int, b []byte) {
		switch e.Kind {
		case core.KindBytes:
			if len(b) == len(e.Bytes) {
				copy(e.Bytes, b)
			} else {
				e.Bytes = bytes.Clone(b)
			}
		case core.KindResult, core.KindNotice:
			e.Result.Texts[cell].Value = string(b)
		}
	})
	return v, err
}

// fits reports values that are too large to be passed to a guest.
func (in *instance) fits(f *frame) error {
	total := len(in.attrs.b)
	for i := range in.cells {
		total += len(in.cells[i].b)
	}
	if total > in.plugin.limits.Value || f.cols > 1<<16-1 {
		return fmt.Errorf("an event of %d bytes in %d parts is too large for it: at most %d bytes are passed in", total, f.cols, in.plugin.limits.Value)
	}
	return nil
}

// rows passes a batch, in as many frames as its size needs. Only the columns that the guest subscribed to are in
// them, so that it sees nothing else.
func (in *instance) rows(ctx context.Context, f *frame, e *core.Event) (v core.Verdict, err error) {
	b := e.Rows
	width := len(b.Watch)
	if len(b.Cells) != b.Rows*width {
		return v, fmt.Errorf("a batch of %d rows by %d columns has %d cells", b.Rows, width, len(b.Cells))
	}
	in.columns = in.columns[:0]
	for i, w := range b.Watch {
		if c := &b.Columns[w]; in.plugin.sub.WantsColumn(c) {
			in.columns = append(in.columns, i)
			in.attrs.column(c)
		}
	}
	if len(in.columns) == 0 {
		if len(in.plugin.sub.Columns) > 0 {
			return v, nil
		}
	}
	f.cols = len(in.columns)
	for next := 0; next < b.Rows; {
		first, size := next, 0
		in.cells = in.cells[:0]
		for ; next < b.Rows && next-first < maxRows; next++ {
			before := len(in.cells)
			row := 0
			for _, c := range in.columns {
				x, ok := b.Value(next*width + c)
				in.cells = append(in.cells, value{x, !ok})
				row += len(x) + 8
			}
			if next > first && size+row > 2*frameBatch {
				in.cells = in.cells[:before]
				break
			}
			size += row
		}
		f.rows = next - first
		if err := in.fits(f); err != nil {
			return v, err
		}
		view, a, err := in.ask(ctx, f, in.plugin.limits.Rows)
		if err != nil {
			return v, err
		}
		at := func(cell int) int { return (first+cell/f.cols)*width + in.columns[cell%f.cols] }
		err = in.answer(&v, e, f, view, a, func(cell int, x []byte) {
			i := at(cell)
			if len(x) != int(b.Cells[i].Len) { // the batch keeps it
				x = bytes.Clone(x)
				if x == nil {
					x = []byte{}
				}
			}
			b.Set(i, x)
		}, func(cell int) { b.Set(at(cell), nil) })
		if err != nil || v.Deny != nil {
			return v, err
		}
		if !in.trial {
			in.plugin.metrics.rows.Add(float64(f.rows))
		}
	}
	return v, nil
}

// answer folds what a guest said of one frame into the verdict, and writes the cells it changed back.
func (in *instance) answer(v *core.Verdict, e *core.Event, f *frame, view []byte, a verdict, set func(int, []byte), null ...func(int)) error {
	for _, d := range in.findings {
		v.Decisions = add(v.Decisions, d)
	}
	if !in.trial {
		in.plugin.metrics.bytes.Add(float64(f.dataLen))
	}
	switch a.code {
	case verdictModified, verdictPatch:
		if !f.mayEdit {
			return broken("it changed a %s event, which it may not", e.Kind)
		}
		// Only cells are copied back: the guest cannot touch what is between them.
		off := f.dataOff
		for i := range in.cells {
			c := &in.cells[i]
			n := len(c.b)
			if now := view[off : off+n]; !bytes.Equal(now, c.b) {
				set(i, now)
				v.Changed = true
			}
			off += n
		}
		if a.code == verdictModified {
			return nil
		}
		var err error
		if in.patches, err = parsePatches(a.out, f.cells, in.patches[:0]); err != nil {
			return broken("%v", err)
		}
		for _, p := range in.patches {
			switch {
			case p.value != nil:
				set(p.cell, p.value)
			case len(null) > 0:
				null[0](p.cell)
			default:
				return broken("it made a text NULL")
			}
			v.Changed = true
		}
	case verdictDeny:
		t := texts(a.out, 3, 1024)
		if t[0] == "" {
			return broken("it denies without a rule")
		}
		v.Deny = &core.Denial{Rule: t[0], Reason: t[1], Hint: t[2]}
	case verdictReview:
		if e.Kind != core.KindCommand {
			return broken("it holds a %s event: only commands can wait", e.Kind)
		}
		t := texts(a.out, 3, 1024)
		if t[0] == "" {
			return broken("it holds without a rule")
		}
		v.Hold = &core.Hold{Rule: t[0], Reason: t[1]}
		for s := range strings.SplitSeq(t[2], ",") {
			if s != "" {
				v.Hold.Approvers = append(v.Hold.Approvers, s)
			}
		}
	}
	return nil
}

// add appends a finding, once.
func add(list []core.Decision, d core.Decision) []core.Decision {
	for _, o := range list {
		if o == d {
			return list
		}
	}
	if len(list) >= maxFindings {
		return list
	}
	return append(list, d)
}
