package postgres

import (
	"bytes"
	"context"
	"slices"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// told are the last shapes of answers that the upstream has told, with the columns that they stood for: a loop asks the
// same again and again.
type told struct {
	kept [4]*shape
	next int
}

type shape struct {
	message []byte
	fields  []field
	columns []core.Column // nil: not known, or not for sure
	// What the columns were worked out from, beside the fields. A changed catalog has other facts.
	facts   *facts
	command *core.Command // its shape
	at      int
}

// keptMessage bounds what is kept of one RowDescription, in bytes.
const keptMessage = 4 << 10

// shape reads a RowDescription's body.
func (t *told) shape(b []byte) *shape {
	for _, s := range t.kept {
		if s != nil && bytes.Equal(s.message, b) {
			return s
		}
	}
	s := &shape{fields: readFields(b)}
	if len(b) <= keptMessage {
		s.message = bytes.Clone(b)
		t.kept[t.next] = s
		t.next = (t.next + 1) % len(t.kept)
	}
	return s
}

// columnsOf is columns, for a shape that may have been told before.
func (c *connection) columnsOf(ctx context.Context, s *shape, head reply) []core.Column {
	if c.catalog == nil {
		if s.columns == nil {
			s.columns = columnsOf(s.fields, nil)
		}
		return s.columns
	}
	command, at := c.answered(head)
	command = command.Shape()
	f := c.catalog.now()
	if s.columns != nil && s.facts == f && s.command == command && s.at == at && !c.catalog.changing.Load() {
		return s.columns
	}
	columns := c.columns(ctx, s.fields, nil, head)
	s.columns, s.facts, s.command, s.at = columns, f, command, at
	if slices.ContainsFunc(columns, func(c core.Column) bool { return slices.Contains(c.Lineage, sql.Anything) }) {
		s.columns = nil // it could not be worked out, which may be different the next time
	}
	return columns
}
