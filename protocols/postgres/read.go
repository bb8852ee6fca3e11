package postgres

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/weir-gateway/weir/core"
)

// ReadRows reads the rows among the recorded bytes of a Rows event. The options of a COPY are not in the record, so its
// lines are taken apart by the usual delimiters; a line that no delimiter fits is one value.
func (*Protocol) ReadRows(columns []core.Column, wire []byte) (rows [][]*string, err error) {
	for len(wire) > 0 {
		size, _, err := backend.next(wire, math.MaxInt32)
		if err != nil {
			return rows, fmt.Errorf("postgres: %w", err)
		}
		if size == 0 {
			return rows, fmt.Errorf("postgres: the recorded bytes end inside a message")
		}
		switch wire[0] {
		case 'd':
			rows = append(rows, copyTexts(columns, wire[headerSize:size])...)
		case 'D':
			c := body{b: wire[headerSize:size]}
			row := make([]*string, c.u16())
			for i := range row {
				if v, null := c.value(); !null {
					var col core.Column
					if i < len(columns) {
						col = columns[i]
					}
					text := valueText(col, v)
					row[i] = &text
				}
			}
			rows = append(rows, row)
		}
		wire = wire[size:]
	}
	return rows, nil
}

// copyTexts reads one message of COPY data.
func copyTexts(columns []core.Column, b []byte) (rows [][]*string) {
	all := make([]int, len(columns))
	for i := range all {
		all[i] = i
	}
	row := func(f *copyFormat, line []byte) bool {
		values, cells, _, ok := f.cells(line, 0, all, nil, nil, nil)
		if !ok || len(columns) == 0 {
			return false
		}
		texts := make([]*string, len(cells))
		for i, c := range cells {
			if !c.Null() {
				text := valueText(columns[i], values[c.Off:][:c.Len])
				texts[i] = &text
			}
		}
		rows = append(rows, texts)
		return true
	}
	formats := copyFormats(len(columns))
	if len(columns) > 0 && columns[0].Binary {
		formats = []copyFormat{{kind: 'b', columns: len(columns)}}
	}
	for len(b) > 0 {
		read := false
		for i := range formats {
			f := &formats[i]
			s := copyScanner{kind: f.kind, quote: f.quote, escape: f.escape, fields: f.columns}
			if f.kind == 'b' && !bytes.HasPrefix(b, []byte(copyMagic)) {
				s.phase = copyAtRow
			}
			n, item, err := s.next(b)
			if err != nil || item == copyNothing && f.kind == 'b' {
				return rows
			}
			if read = item != copyRow || row(f, b[:n]); read {
				b = b[n:]
				break
			}
		}
		if !read {
			line, rest, _ := bytes.Cut(b, []byte{'\n'})
			text := printable(string(line))
			rows = append(rows, []*string{&text})
			b = rest
		}
	}
	return rows
}

// copyFormats are the usual ways to write a row of n columns.
func copyFormats(n int) (formats []copyFormat) {
	formats = append(formats, copyFormat{kind: 't', delim: '\t', null: `\N`, columns: n})
	for _, delim := range []byte(",;|\t") {
		formats = append(formats, copyFormat{kind: 'c', delim: delim, quote: '"', escape: '"', columns: n})
	}
	return formats
}

// ReadText renders recorded COPY data, errors and notices.
func (*Protocol) ReadText(wire []byte) string {
	var b strings.Builder
	for len(wire) >= headerSize {
		size, _, err := backend.next(wire, math.MaxInt32)
		if err != nil || size == 0 {
			fmt.Fprintf(&b, "(%d bytes that cannot be read)", len(wire))
			break
		}
		switch content := wire[headerSize:size]; wire[0] {
		case 'd':
			b.WriteString(printable(string(content)))
		case 'E', 'N':
			fields(content, func(t byte, v []byte) {
				switch label := map[byte]string{'S': "", 'M': ":  ", 'D': "\nDETAIL:  ", 'H': "\nHINT:  "}[t]; {
				case t == 'S', t == 'M', label != "":
					b.WriteString(label + printable(string(v)))
				}
			})
			b.WriteByte('\n')
		}
		wire = wire[size:]
	}
	return b.String()
}

// printable neutralises control characters, so that a recording cannot drive the terminal that shows it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r != utf8.RuneError && unicode.IsPrint(r) {
			return r
		}
		return '·'
	}, s)
}

var pgEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// valueText renders one value. Binary forms that it does not know are shown in hex.
func valueText(c core.Column, v []byte) string {
	if !c.Binary {
		return printable(string(v))
	}
	switch {
	case c.Type == "bool" && len(v) == 1:
		return map[bool]string{true: "t", false: "f"}[v[0] != 0]
	case c.Type == "int2" && len(v) == 2:
		return strconv.Itoa(int(int16(binary.BigEndian.Uint16(v))))
	case c.Type == "int4" && len(v) == 4:
		return strconv.Itoa(int(int32(binary.BigEndian.Uint32(v))))
	case c.Type == "oid" && len(v) == 4:
		return strconv.FormatUint(uint64(binary.BigEndian.Uint32(v)), 10)
	case c.Type == "int8" && len(v) == 8:
		return strconv.FormatInt(int64(binary.BigEndian.Uint64(v)), 10)
	case c.Type == "float4" && len(v) == 4:
		return strconv.FormatFloat(float64(math.Float32frombits(binary.BigEndian.Uint32(v))), 'g', -1, 32)
	case c.Type == "float8" && len(v) == 8:
		return strconv.FormatFloat(math.Float64frombits(binary.BigEndian.Uint64(v)), 'g', -1, 64)
	case c.Type == "uuid" && len(v) == 16:
		return fmt.Sprintf("%x-%x-%x-%x-%x", v[:4], v[4:6], v[6:8], v[8:10], v[10:])
	case (c.Type == "timestamptz" || c.Type == "timestamp") && len(v) == 8:
		t := pgEpoch.Add(time.Duration(int64(binary.BigEndian.Uint64(v))/1e6) * time.Second)
		return t.Add(time.Duration(int64(binary.BigEndian.Uint64(v))%1e6) * time.Microsecond).Format("2006-01-02 15:04:05.999999")
	case c.Type == "date" && len(v) == 4:
		return pgEpoch.AddDate(0, 0, int(int32(binary.BigEndian.Uint32(v)))).Format("2006-01-02")
	case c.Type == "numeric":
		if s, ok := numericText(v); ok {
			return s
		}
	case c.Type == "jsonb" && len(v) > 0 && v[0] == 1:
		return printable(string(v[1:]))
	case core.ClassOf(c.Type) == core.ClassText, core.ClassOf(c.Type) == core.ClassUnknown && utf8.Valid(v):
		return printable(string(v))
	}
	return `\x` + hex.EncodeToString(v)
}

// numericText reads the binary form of numeric: base-10,000 digits with a weight and a display scale.
func numericText(v []byte) (string, bool) {
	c := body{b: v}
	n, weight, sign, scale := c.u16(), int(int16(c.u16())), c.u16(), c.u16()
	if sign == 0xc000 {
		return "NaN", c.err == nil
	}
	if c.err != nil || n > 1000 || len(c.b) != 2*n || scale > 0x3fff || weight > 5000 || weight < -5000 {
		return "", false
	}
	digits := make([]int, n)
	for i := range digits {
		digits[i] = c.u16()
	}
	at := func(i int) int {
		if i < 0 || i >= n {
			return 0
		}
		return digits[i]
	}
	var b strings.Builder
	if sign == 0x4000 {
		b.WriteByte('-')
	}
	if weight < 0 {
		b.WriteByte('0')
	}
	for i := 0; i <= weight; i++ {
		if i == 0 {
			b.WriteString(strconv.Itoa(at(0)))
		} else {
			fmt.Fprintf(&b, "%04d", at(i))
		}
	}
	if scale > 0 {
		var f strings.Builder
		for i := weight + 1; f.Len() < scale; i++ {
			fmt.Fprintf(&f, "%04d", at(i))
		}
		b.WriteString("." + f.String()[:scale])
	}
	return b.String(), true
}
