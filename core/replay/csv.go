package replay

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// CSV writes the rows that came back (RFC 4180): a table for each answer, its columns' names first, an empty line between two of
// them. NULL is an empty field. A text that a spreadsheet would take for a formula gets an apostrophe before it.
func CSV(ctx context.Context, out io.Writer, store core.Store, id string, o Options) error {
	w := csv.NewWriter(out)
	walk := walker{store: store, id: id}
	var columns []core.Column
	tables, head := 0, false
	err := walk.all(ctx, o.Follow, func(r *core.Record) error {
		f := parse(r)
		switch {
		case r.Kind == core.KindColumns:
			columns, head = f.Columns, false
			return nil
		case r.Kind != core.KindRows || f.Denied != nil:
			return nil
		case o.Reader == nil || len(r.Wire) == 0:
			return fmt.Errorf("replay: record %d: its rows were not recorded, or this build cannot read them", r.Seq)
		}
		rows, err := o.Reader.ReadRows(columns, r.Wire)
		if err != nil {
			return fmt.Errorf("replay: record %d: %w", r.Seq, err)
		}
		if !head {
			if head = true; tables > 0 {
				w.Flush()
				if _, err := io.WriteString(out, "\n"); err != nil {
					return err
				}
			}
			tables++
			names := make([]string, len(columns))
			for i, c := range columns {
				names[i] = cell(c.Name)
			}
			if err := w.Write(names); err != nil {
				return err
			}
		}
		for _, row := range rows {
			cells := make([]string, len(row))
			for i, v := range row {
				if v != nil {
					cells[i] = cell(*v)
				}
			}
			if err := w.Write(cells); err != nil {
				return err
			}
		}
		if o.Follow {
			w.Flush()
		}
		return nil
	})
	w.Flush()
	return errors.Join(err, w.Error())
}

// cell is a value as a spreadsheet may read it.
func cell(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if s == "" || !strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return s
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return s
	}
	return "'" + s
}
