package chain

import (
	"slices"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/mask"
)

// bound is a Plan in the form in which it is applied.
type bound struct {
	steps []bool       // which steps want the rows of this answer
	few   [8]bool      // room for steps
	masks []columnFunc // by column, several on one column in the order in which they were named
	buf   []byte       // values that no longer fit in place; valid until the next batch of this answer
	at    []int        // where each mask's column is among the watched ones, for the present batch
}

type columnFunc struct {
	column int
	f      mask.Func
}

// keepMasks remembers the masks of a Command for the columns that will come. What an earlier stage named (where the
// text was prepared) stays, and is not doubled.
func (c *Chain) keepMasks(e *core.Event, v *core.Verdict) {
	x := e.Exchange
	if x == nil {
		return
	}
	for _, m := range v.Masks {
		if !slices.ContainsFunc(x.Masks, func(o core.Mask) bool { return same(&o, &m) }) {
			x.Masks = append(x.Masks, m)
		}
	}
}

// same reports whether two masks do the same to the same column.
func same(a, b *core.Mask) bool {
	if a.Column != b.Column || a.With != b.With || len(a.Args) != len(b.Args) {
		return false
	}
	for k, v := range a.Args {
		if w, ok := b.Args[k]; !ok || w != v {
			return false
		}
	}
	return true
}

// bind decides which columns of an answer are watched and hidden.
func (c *Chain) bind(e *core.Event, v *core.Verdict) {
	x := e.Exchange
	if x == nil {
		if len(v.Masks) > 0 || c.rowsWanted(e) {
			deny(v, &core.Denial{Rule: "unbound-columns", Reason: "an answer that belongs to no command cannot be masked"})
		}
		return
	}
	if x.Columns == nil {
		x.Columns = e.Columns
	}
	b := &bound{}
	if len(c.steps) <= len(b.few) {
		b.steps = b.few[:len(c.steps)]
	} else {
		b.steps = make([]bool, len(c.steps))
	}
	plan := core.Plan{Bound: b}
	var few [64]bool
	watch := few[:]
	if len(e.Columns) > len(few) {
		watch = make([]bool, len(e.Columns))
	}
	for i := range c.steps {
		st := &c.steps[i]
		if !st.kinds.Has(core.KindRows) || !st.sub.WantsProtocol(e.Session.Protocol) {
			continue
		}
		if len(st.sub.Columns) == 0 { // wants the events, not the cells
			b.steps[i], plan.Rows = true, true
			continue
		}
		for j := range e.Columns {
			if st.sub.WantsColumn(&e.Columns[j]) {
				b.steps[i], watch[j] = true, true
			}
		}
	}
	for _, masks := range [...][]core.Mask{x.Masks, v.Masks} {
		for i := range masks {
			m := &masks[i]
			for j := range e.Columns {
				if !e.Columns[j].Matches(m.Column) || doubled(plan.Masks, j, m) {
					continue
				}
				f, err := mask.Compile(*m, e.Columns[j], c.opts...)
				if err != nil {
					c.log.Error("chain: a column cannot be masked", "step", m.Step, "error", err)
					deny(v, unmaskable(*m))
					return
				}
				plan.Masks = append(plan.Masks, core.ColumnMask{Column: j, Mask: *m})
				b.masks = append(b.masks, columnFunc{j, f})
				watch[j] = true
				v.Decisions = append(v.Decisions, core.Decision{Step: m.Step, Action: "mask", Rule: m.Rule, Detail: e.Columns[j].Name})
			}
		}
	}
	slices.SortStableFunc(b.masks, func(p, q columnFunc) int { return p.column - q.column })
	for j, w := range watch {
		if w {
			plan.Watch = append(plan.Watch, j)
		}
	}
	x.Plan = plan
}

func doubled(masks []core.ColumnMask, column int, m *core.Mask) bool {
	return slices.ContainsFunc(masks, func(o core.ColumnMask) bool { return o.Column == column && same(&o.Mask, m) })
}

// rowsWanted reports whether some step wants rows of this protocol.
func (c *Chain) rowsWanted(e *core.Event) bool {
	return slices.ContainsFunc(c.steps, func(s step) bool {
		return s.kinds.Has(core.KindRows) && s.sub.WantsProtocol(e.Session.Protocol)
	})
}

// boundFor returns what was decided for the answer that a batch belongs to. Rows whose columns were never shown to
// the steps are refused, because nobody can say what has to be hidden in them.
func (c *Chain) boundFor(e *core.Event) (*bound, *core.Denial) {
	if !c.asks {
		return nil, nil
	}
	if e.Exchange == nil || e.Rows == nil {
		return nil, &core.Denial{Rule: "unbound-rows", Reason: "rows that belong to no command cannot be judged"}
	}
	b, ok := e.Exchange.Plan.Bound.(*bound)
	if !ok || len(b.steps) != len(c.steps) {
		return nil, &core.Denial{Rule: "unbound-rows", Reason: "rows came before the columns they have"}
	}
	return b, nil
}

// hide applies the column transforms to a batch.
func (c *Chain) hide(e *core.Event, b *bound, v *core.Verdict) {
	if b == nil || len(b.masks) == 0 || e.Rows.Rows == 0 {
		return
	}
	r := e.Rows
	width := len(r.Watch)
	if len(r.Cells) != r.Rows*width {
		deny(v, &core.Denial{Rule: "mask-error", Reason: "the cells of an answer do not add up"})
		return
	}
	b.at = b.at[:0]
	for _, m := range b.masks {
		i := slices.Index(r.Watch, m.column)
		if i < 0 {
			deny(v, &core.Denial{Rule: "mask-error", Reason: "a column that must be hidden was not read"})
			return
		}
		b.at = append(b.at, i)
	}
	b.buf = b.buf[:0]
	for row := range r.Rows {
		for i, m := range b.masks {
			cell := row*width + b.at[i]
			value, ok := r.Value(cell)
			if !ok {
				continue
			}
			start := len(b.buf)
			out, ok := m.f(b.buf, value)
			if !ok {
				r.Set(cell, nil)
				continue
			}
			masked := out[start:len(out):len(out)]
			if masked == nil {
				masked = []byte{} // empty, which is not NULL
			}
			r.Set(cell, masked)
			b.buf = out
			if int(r.Cells[cell].Len) == len(masked) { // it was copied in place, so the room is free again
				b.buf = out[:start]
			}
		}
	}
	v.Changed = true
}
