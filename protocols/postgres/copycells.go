package postgres

import (
	"bytes"
	"encoding/binary"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// copyFormat says how values stand in the rows of a COPY.
type copyFormat struct {
	kind                 byte // t(ext), c(sv), b(inary)
	delim, quote, escape byte
	null                 string
	// ambiguous reports that in the text format a value may be written as NULL is: what reads as NULL may be the value that
	// somebody guesses, so it is taken for one.
	ambiguous bool
	force     []bool // csv: the columns whose values always stand in quotes
	columns   int
}

// A span is where a cell stands in the messages of a batch, with all that belongs to it: quotes, escapes, length.
type span struct{ from, to int32 }

// newCopyFormat returns the format of a COPY and what finds its rows. ok is false where its data cannot be taken apart.
func newCopyFormat(c *sql.Copy, binary bool, columns []core.Column) (f copyFormat, s copyScanner, ok bool) {
	if c == nil || c.From || c.Unclear != "" || binary != (c.Format == "binary") || c.Format == "" {
		return f, s, false
	}
	f = copyFormat{kind: c.Format[0], delim: c.Delimiter, quote: c.Quote, escape: c.Escape, null: c.Null, columns: len(columns)}
	f.ambiguous = f.kind == 't' && string(f.escapes(nil, unescape(nil, []byte(f.null)))) == f.null
	for _, name := range c.ForceQuote {
		if f.force == nil {
			f.force = make([]bool, len(columns))
		}
		for i := range columns {
			f.force[i] = f.force[i] || name == "*" || columns[i].Name == name
		}
	}
	return f, copyScanner{
		kind: f.kind, quote: f.quote, escape: f.escape, fields: len(columns), header: c.Header && f.kind != 'b',
	}, true
}

// cells appends the cells of the watched columns of one whole row: their values, without quotes and escapes, to values,
// and where each stands to spans. base is where the row begins. ok is false when the row has another number of columns.
func (f *copyFormat) cells(row []byte, base int, watch []int, values []byte, cells []core.Cell, spans []span) ([]byte, []core.Cell, []span, bool) {
	if f.kind == 'b' { // the scanner has counted and measured them
		p, w := 2, 0
		for i := 0; i < f.columns && w < len(watch); i++ {
			l := int(int32(binary.BigEndian.Uint32(row[p:])))
			end := p + 4 + max(l, 0)
			if watch[w] == i {
				cells = append(cells, core.Cell{Off: int32(len(values)), Len: int32(l)})
				values = append(values, row[p+4:end]...)
				spans = append(spans, span{int32(base + p), int32(base + end)})
				w++
			}
			p = end
		}
		return values, cells, spans, true
	}
	if n := len(row); n > 0 && row[n-1] == '\n' {
		row = row[:n-1]
	}
	if f.columns == 0 {
		return values, cells, spans, len(row) == 0
	}
	p, w := 0, 0
	for i := 0; ; i++ {
		end, plain := f.field(row, p)
		if w < len(watch) && watch[w] == i {
			at := len(values)
			length := int32(-1)
			var null bool
			if values, null = f.decode(values, row[p:end], plain); !null {
				length = int32(len(values) - at)
			}
			cells = append(cells, core.Cell{Off: int32(at), Len: length})
			spans = append(spans, span{int32(base + p), int32(base + end)})
			w++
		}
		if end == len(row) {
			return values, cells, spans, i+1 == f.columns
		}
		if p = end + 1; i+1 >= f.columns {
			return values, cells, spans, false
		}
	}
}

// field returns where the field of a line that begins at p ends, and whether its bytes are its value.
func (f *copyFormat) field(line []byte, p int) (end int, plain bool) {
	plain = true
	if f.kind == 't' {
		for ; p < len(line); p++ {
			switch line[p] {
			case f.delim:
				return p, plain
			case '\\':
				plain = false
				p++
			}
		}
		return len(line), plain
	}
	quoted := false
	for ; p < len(line); p++ {
		switch c := line[p]; {
		case quoted && c == f.escape && f.escape != f.quote:
			p++
		case c == f.quote:
			quoted, plain = !quoted, false
		case c == f.delim && !quoted:
			return p, plain
		}
	}
	return len(line), plain
}

// decode appends the value of a field.
func (f *copyFormat) decode(dst, raw []byte, plain bool) (_ []byte, null bool) {
	switch {
	case f.kind == 'b':
		return append(dst, raw[4:]...), int32(binary.BigEndian.Uint32(raw)) < 0
	case (plain || f.kind == 't') && !f.ambiguous && string(raw) == f.null:
		return dst, true
	case plain:
		return append(dst, raw...), false
	case f.kind == 't':
		return unescape(dst, raw), false
	}
	quoted := false
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case quoted && c == f.escape && i+1 < len(raw) && (raw[i+1] == f.quote || raw[i+1] == f.escape):
			i++
			dst = append(dst, raw[i])
		case c == f.quote:
			quoted = !quoted
		default:
			dst = append(dst, c)
		}
	}
	return dst, false
}

// unescape reads the text format's backslashes (manual, "COPY", "Text Format").
func unescape(dst, raw []byte) []byte {
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c != '\\' || i+1 == len(raw) {
			dst = append(dst, c)
			continue
		}
		i++
		switch c = raw[i]; c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'v':
			c = '\v'
		case '0', '1', '2', '3', '4', '5', '6', '7':
			v := int(c - '0')
			for n := 0; n < 2 && i+1 < len(raw) && raw[i+1] >= '0' && raw[i+1] <= '7'; n++ {
				i++
				v = v*8 + int(raw[i]-'0')
			}
			c = byte(v)
		case 'x':
			v, n := 0, 0
			for n < 2 && i+1 < len(raw) {
				d, ok := hexDigit(raw[i+1])
				if !ok {
					break
				}
				v, n = v*16+d, n+1
				i++
			}
			if n > 0 {
				c = byte(v)
			}
		}
		dst = append(dst, c)
	}
	return dst
}

func hexDigit(c byte) (int, bool) {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0'), true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10, true
	}
	return 0, false
}

// encode appends a value as a field of a column, as the server writes it (CopyAttributeOutText, CopyAttributeOutCSV).
func (f *copyFormat) encode(dst, value []byte, null bool, column int) []byte {
	switch {
	case f.kind == 'b' && null:
		return append(dst, 0xff, 0xff, 0xff, 0xff)
	case f.kind == 'b':
		return append(binary.BigEndian.AppendUint32(dst, uint32(len(value))), value...)
	case null:
		return append(dst, f.null...)
	case f.kind == 't':
		return f.escapes(dst, value)
	}
	if !f.quotes(value, column) {
		return append(dst, value...)
	}
	dst = append(dst, f.quote)
	for _, c := range value {
		if c == f.quote || c == f.escape {
			dst = append(dst, f.escape)
		}
		dst = append(dst, c)
	}
	return append(dst, f.quote)
}

// quotes reports whether a value must stand in quotes: it would be taken for NULL, for the end of the data, or apart.
func (f *copyFormat) quotes(value []byte, column int) bool {
	if f.force != nil && f.force[column] || string(value) == f.null || string(value) == `\.` {
		return true
	}
	for _, c := range value {
		if c == f.delim || c == f.quote || c == '\n' || c == '\r' {
			return true
		}
	}
	return false
}

func (f *copyFormat) escapes(dst, value []byte) []byte {
	for _, c := range value {
		switch c {
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\v':
			dst = append(dst, '\\', 'v')
		case '\\', f.delim:
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// rebuild appends the messages of region with what the steps changed in the cells of b. tmp is room to read cells into.
func (f *copyFormat) rebuild(dst, region []byte, b *core.Batch, spans []span, tmp []byte) (out, room []byte) {
	cell, next := 0, 0
	for p := 0; p < len(region); {
		end := p + 1 + int(binary.BigEndian.Uint32(region[p+1:]))
		var at int
		dst, at = beginFrame(dst, 'd')
		q := p + headerSize
		for ; cell < len(spans) && int(spans[cell].from) < end; cell++ {
			s := spans[cell]
			var value []byte
			null := false
			switch {
			case next < len(b.Patches) && b.Patches[next].Cell == cell:
				value = b.Patches[next].Value
				null = value == nil
				next++
			case b.Edited && b.Cells[cell].Len > 0: // in place: is it another value than the one that came?
				value = b.Data[b.Cells[cell].Off:][:b.Cells[cell].Len]
				raw := region[s.from:s.to]
				if tmp, _ = f.decode(tmp[:0], raw, f.plain(raw)); bytes.Equal(tmp, value) {
					continue
				}
			default:
				continue
			}
			dst = append(dst, region[q:s.from]...)
			dst = f.encode(dst, value, null, b.Watch[cell%len(b.Watch)])
			q = int(s.to)
		}
		dst = endFrame(append(dst, region[q:end]...), at)
		p = end
	}
	return dst, tmp
}

// plain reports whether a field's bytes are its value.
func (f *copyFormat) plain(raw []byte) bool {
	switch f.kind {
	case 't':
		return bytes.IndexByte(raw, '\\') < 0
	case 'c':
		return bytes.IndexByte(raw, f.quote) < 0
	}
	return false
}

// names reads a line of names.
func (f *copyFormat) names(line []byte) (names []string, ok bool) {
	watch := make([]int, f.columns)
	for i := range watch {
		watch[i] = i
	}
	values, cells, _, ok := f.cells(line, 0, watch, nil, nil, nil)
	for _, c := range cells {
		name := f.null
		if !c.Null() {
			name = string(values[c.Off:][:c.Len])
		}
		names = append(names, name)
	}
	return names, ok
}
