package wasm

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// inspect turns an event into frames and what the guest says of them into a verdict.
func (in *instance) inspect(ctx context.Context, kind uint16, e *core.Event) (v core.Verdict, err error) {
	f := &frame{kind: kind, mayEdit: in.plugin.manifest.Mutates}
	f.conn = numberOf(e.Session.ID)
	in.attrs.reset()
	in.attrs.describe(e)
	in.reset()
	if e.Kind == core.KindRows {
		return in.rows(ctx, f, e)
	}
	f.rows = 1
	switch e.Kind {
	case core.KindCommand:
		if c := e.Command(); c != nil {
			gather(in, c.Text, false)
		}
		for _, p := range e.Params {
			gather(in, p.Value, p.Value == nil)
		}
		f.mayEdit = false
	case core.KindBytes:
		in.size, in.from, in.inPlace = in.size+len(e.Bytes), e.Bytes, true
		in.cells = append(in.cells, core.Cell{Len: int32(len(e.Bytes))})
	case core.KindResult, core.KindNotice:
		if e.Result != nil {
			for i := range e.Result.Texts {
				gather(in, e.Result.Texts[i].Value, false)
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

// reset forgets the values of the last frame.
func (in *instance) reset() {
	if cap(in.texts) > 2*frameBatch {
		in.texts = nil
	}
	in.cells, in.texts, in.from, in.inPlace, in.size = in.cells[:0], in.texts[:0], nil, false, len(in.attrs.b)
}

// gather adds a value that does not lie beside the others. What would be too large for a frame is only counted.
func gather[T string | []byte](in *instance, v T, null bool) {
	if in.size += len(v); in.size > in.plugin.limits.Value {
		return
	}
	c := core.Cell{Off: int32(len(in.texts)), Len: int32(len(v))}
	if null {
		c.Len = -1
	}
	in.cells, in.texts = append(in.cells, c), append(in.texts, v...)
	in.from = in.texts
}

// fits reports values that are too large to be passed to a guest.
func (in *instance) fits(f *frame) error {
	if in.size > in.plugin.limits.Value || f.cols > 1<<16-1 {
		return fmt.Errorf("an event of %d bytes in %d parts is too large for it: at most %d bytes are passed in", in.size, f.cols, in.plugin.limits.Value)
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
		first := next
		next = in.gatherRows(b, first)
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

// gatherRows takes as many rows as are to be in a frame, from the first, and returns the next. They stay where they are in
// the batch, unless a step before has changed the lengths of some.
func (in *instance) gatherRows(b *core.Batch, first int) int {
	in.reset()
	width, most := len(b.Watch), min(b.Rows-first, maxRows)
	if len(b.Patches) > 0 {
		return in.gatherPatched(b, first, most)
	}
	in.from, in.inPlace = b.Data, true
	cells, n, size := slices.Grow(in.cells, most*len(in.columns)), 0, 0
	cells = cells[:most*len(in.columns)]
	next := first
	for ; next < first+most; next++ {
		row, at := 0, b.Cells[next*width:(next+1)*width]
		for i, c := range in.columns {
			cells[n+i] = at[c]
			row += int(max(at[c].Len, 0))
		}
		if next > first && size+row+8*(n+len(in.columns)) > 2*frameBatch {
			break
		}
		size, n = size+row, n+len(in.columns)
	}
	in.cells, in.size = cells[:n], in.size+size
	return next
}

// gatherPatched does so where the values do not lie in one piece.
func (in *instance) gatherPatched(b *core.Batch, first, most int) int {
	start, next := in.size, first
	for ; next < first+most; next++ {
		cells, values, size := len(in.cells), len(in.texts), in.size
		for _, c := range in.columns {
			x, ok := b.Value(next*len(b.Watch) + c)
			gather(in, x, !ok)
		}
		if next > first && in.size-start+8*len(in.cells) > 2*frameBatch {
			in.cells, in.texts, in.size = in.cells[:cells], in.texts[:values], size
			break
		}
	}
	return next
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
		in.patches = in.patches[:0]
		if a.code == verdictPatch {
			var err error
			if in.patches, err = parsePatches(a.out, f.cells, in.patches); err != nil {
				return broken("%v", err)
			}
		}
		for _, p := range in.patches {
			if p.value == nil && len(null) == 0 {
				return broken("it made a text NULL")
			}
		}
		in.edits(v, e, view[f.dataOff:f.outOff], set)
		for _, p := range in.patches {
			if p.value != nil {
				set(p.cell, p.value)
			} else {
				null[0](p.cell)
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

// edits takes over what was changed in place. Only cells are copied back: the guest cannot touch what is between them.
func (in *instance) edits(v *core.Verdict, e *core.Event, data []byte, set func(int, []byte)) {
	if in.inPlace {
		if unpack(in.from, data, in.cells) {
			if v.Changed = true; e.Kind == core.KindRows {
				e.Rows.Edited = true
			}
		}
		return
	}
	at := 0
	for i, c := range in.cells {
		if n := int(c.Len); n > 0 {
			if now := data[at : at+n]; !bytes.Equal(now, in.from[c.Off:c.Off+c.Len]) {
				set(i, now)
				v.Changed = true
			}
			at += n
		}
	}
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
