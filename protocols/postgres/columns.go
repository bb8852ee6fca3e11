package postgres

import (
	"encoding/binary"
	"strconv"

	"github.com/weir-gateway/weir/core"
)

// field is one column of a RowDescription.
type field struct {
	name   string
	table  uint32
	attr   uint16
	typ    uint32
	format int16
}

// readFields reads the body of a RowDescription that has passed checkRowDescription.
func readFields(b []byte) []field {
	c := body{b: b}
	fields := make([]field, c.u16())
	for i := range fields {
		f := &fields[i]
		f.name = string(c.str())
		f.table = uint32(c.i32())
		f.attr = uint16(c.u16())
		f.typ = uint32(c.i32())
		c.take(6) // size, modifier
		f.format = int16(c.u16())
	}
	return fields
}

// columnsOf turns fields into columns; formats, when given, are those of a Bind (manual, "Bind").
func columnsOf(fields []field, formats []int16) []core.Column {
	columns := make([]core.Column, len(fields))
	for i, f := range fields {
		format := f.format
		switch {
		case len(formats) == 1:
			format = formats[0]
		case len(formats) == len(fields):
			format = formats[i]
		case len(formats) == 0:
		}
		columns[i] = core.Column{Name: f.name, Type: typeName(f.typ), Binary: format == 1}
	}
	return columns
}

// cells appends the cells of the watched columns of one DataRow that starts at off in data. ok is false when the row
// has another number of columns than announced.
func cells(dst []core.Cell, data []byte, off int, watch []int, columns int) (_ []core.Cell, ok bool) {
	p := off + headerSize
	n := int(binary.BigEndian.Uint16(data[p:]))
	if n != columns {
		return dst, false
	}
	p += 2
	w := 0
	for i := 0; i < n && w < len(watch); i++ {
		l := int(int32(binary.BigEndian.Uint32(data[p:])))
		p += 4
		if watch[w] == i {
			dst = append(dst, core.Cell{Off: int32(p), Len: int32(l)})
			w++
		}
		if l > 0 {
			p += l
		}
	}
	return dst, true
}

// rebuild appends the DataRows of data with the batch's patches applied.
func rebuild(dst []byte, b *core.Batch) []byte {
	data, next, cell := b.Data, 0, 0
	for p := 0; p < len(data); {
		end := p + 1 + int(binary.BigEndian.Uint32(data[p+1:]))
		if next >= len(b.Patches) || b.Patches[next].Cell >= cell+len(b.Watch) { // nothing to change in this row
			dst = append(dst, data[p:end]...)
			p, cell = end, cell+len(b.Watch)
			continue
		}
		var at int
		dst, at = beginFrame(dst, 'D')
		q := p + headerSize
		n := int(binary.BigEndian.Uint16(data[q:]))
		dst = append(dst, data[q:q+2]...)
		q += 2
		for i, w := 0, 0; i < n; i++ {
			l := int(int32(binary.BigEndian.Uint32(data[q:])))
			size := 4 + max(l, 0)
			patched := false
			if w < len(b.Watch) && b.Watch[w] == i {
				if next < len(b.Patches) && b.Patches[next].Cell == cell+w {
					v := b.Patches[next].Value
					if v == nil {
						dst = append(dst, 0xff, 0xff, 0xff, 0xff)
					} else {
						dst = binary.BigEndian.AppendUint32(dst, uint32(len(v)))
						dst = append(dst, v...)
					}
					next++
					patched = true
				}
				w++
			}
			if !patched {
				dst = append(dst, data[q:q+size]...)
			}
			q += size
		}
		dst = endFrame(dst, at)
		p, cell = end, cell+len(b.Watch)
	}
	return dst
}

// typeName returns the server's name of a built-in type; others are "oid:NNN", which no policy takes for text.
func typeName(oid uint32) string {
	if n, ok := typeNames[oid]; ok {
		return n
	}
	return "oid:" + strconv.FormatUint(uint64(oid), 10)
}
