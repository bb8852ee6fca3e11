package wasm

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/weir-gateway/weir/core"
)

// The binary contract with guests, as sdk/ABI.md tells it. All numbers are little-endian.
const (
	frameMagic  = 0x31494557 // "WEI1"
	headerLen   = 72
	frameBatch  = 64 << 10  // bytes of values that a frame is aimed at
	regionLen   = 192 << 10 // of the guest's region at first
	outLen      = 16 << 10
	nullCell    = 0xffffffff
	maxRows     = 4096 // in a frame
	maxManifest = 64 << 10
)

// The kinds of frame.
const (
	kindOpen    uint16 = 1
	kindCommand uint16 = 2
	kindRows    uint16 = 3
	kindBytes   uint16 = 4
	kindColumns uint16 = 7
	kindResult  uint16 = 8
	kindNotice  uint16 = 10
	kindClose   uint16 = 11
)

var frameKinds = map[core.Kind]uint16{
	core.KindOpen: kindOpen, core.KindCommand: kindCommand, core.KindRows: kindRows, core.KindBytes: kindBytes,
	core.KindColumns: kindColumns, core.KindResult: kindResult, core.KindNotice: kindNotice, core.KindClose: kindClose,
}

// The attributes of a frame.
const (
	attrProtocol    uint16 = 1
	attrTarget      uint16 = 2
	attrSubject     uint16 = 3
	attrGroup       uint16 = 4 // one each
	attrIdentity    uint16 = 5 // human, service or agent
	attrDirection   uint16 = 6
	attrStage       uint16 = 7
	attrSession     uint16 = 8
	attrAction      uint16 = 16
	attrFingerprint uint16 = 17
	attrEffect      uint16 = 18 // one each
	attrResource    uint16 = 19 // one each: kind NUL name NUL use,use NUL column,column
	attrWhere       uint16 = 20 // "1" or "0"
	attrStatus      uint16 = 21
	attrReason      uint16 = 22
	attrColumn      uint16 = 32 // one each: class, flags, name NUL type NUL table NUL column
	attrResult      uint16 = 48
	attrTag         uint16 = 49
	attrCode        uint16 = 50
	attrField       uint16 = 51 // one a cell of a result
)

// The verdicts in the low half of a result.
const (
	verdictPass     = 0
	verdictModified = 1
	verdictPatch    = 2
	verdictDeny     = 3
	verdictReview   = 4
	verdictNeedMore = 5
	// Negative ones are errors of the plugin; this one asks for more room for the answer.
	verdictMoreRoom = -2
)

// attrs builds the attributes of a frame.
type attrs struct {
	b   []byte
	n   int
	err error
}

func (a *attrs) reset() { a.b, a.n, a.err = a.b[:0], 0, nil }

func (a *attrs) add(id uint16, value string) {
	if value == "" {
		return
	}
	at := a.begin(id)
	a.b = append(a.b, value...)
	a.end(at)
}

func (a *attrs) begin(id uint16) int {
	a.b = binary.LittleEndian.AppendUint16(a.b, id)
	a.b = append(a.b, 0, 0)
	return len(a.b)
}

func (a *attrs) end(at int) {
	n := len(a.b) - at
	if n > 1<<16-1 || a.n == 1<<16-1 {
		a.err = fmt.Errorf("the event has an attribute of %d bytes or more than %d of them", n, a.n)
		a.b = a.b[:at]
		return
	}
	binary.LittleEndian.PutUint16(a.b[at-2:], uint16(n))
	for len(a.b)%4 != 0 {
		a.b = append(a.b, 0)
	}
	a.n++
}

// column describes one column of the cells, or of an answer.
func (a *attrs) column(c *core.Column) {
	at := a.begin(attrColumn)
	flags := byte(0)
	if c.Binary {
		flags |= 1
	}
	if c.Scannable() {
		flags |= 2
	}
	a.b = append(a.b, byte(core.ClassOf(c.Type)), flags)
	a.b = append(append(a.b, c.Name...), 0)
	a.b = append(append(a.b, c.Type...), 0)
	if c.Origin != nil {
		a.b = append(append(a.b, c.Origin.Table...), 0)
		a.b = append(a.b, c.Origin.Column...)
	} else {
		a.b = append(a.b, 0)
	}
	a.end(at)
}

// describe adds what a plugin may know of an event besides its cells.
func (a *attrs) describe(e *core.Event) {
	a.add(attrDirection, e.Direction.String())
	switch e.Kind {
	case core.KindRows, core.KindBytes, core.KindColumns:
		a.add(attrProtocol, e.Session.Protocol)
	default:
		s := e.Session
		a.add(attrProtocol, s.Protocol)
		a.add(attrSession, s.ID)
		a.add(attrTarget, s.Target.Name)
		a.add(attrSubject, s.Identity.Subject)
		for _, g := range s.Identity.Groups {
			a.add(attrGroup, g)
		}
		a.add(attrIdentity, s.Identity.Kind)
	}
	switch e.Kind {
	case core.KindCommand:
		a.add(attrStage, e.Stage)
		if c := e.Command(); c != nil {
			a.command(c)
		}
	case core.KindColumns:
		for i := range e.Columns {
			a.column(&e.Columns[i])
		}
	case core.KindResult, core.KindNotice:
		if r := e.Result; r != nil {
			a.add(attrResult, r.Status)
			a.add(attrTag, r.Tag)
			a.add(attrCode, r.Code)
			for i := range r.Texts {
				at := a.begin(attrField) // even an empty one: there is one a cell
				a.b = append(a.b, r.Texts[i].Field...)
				a.end(at)
			}
		}
	case core.KindClose:
		a.add(attrReason, e.Reason)
	}
}

func (a *attrs) command(c *core.Command) {
	a.add(attrAction, c.Action)
	a.add(attrFingerprint, c.Fingerprint)
	for _, e := range c.Effects {
		a.add(attrEffect, string(e))
	}
	for i := range c.Resources {
		r := &c.Resources[i]
		a.add(attrResource, r.Kind+"\x00"+r.Name+"\x00"+strings.Join(r.Use, ",")+"\x00"+strings.Join(r.Columns, ","))
	}
	where := "0"
	if c.Where {
		where = "1"
	}
	a.add(attrWhere, where)
	a.add(attrStatus, string(c.Status))
	a.add(attrReason, c.Reason)
}

// frame is where the parts of a frame are, relative to its begin.
type frame struct {
	kind                  uint16
	rows, cols, cells     int
	attrsOff, cellsOff    int
	dataOff, dataLen      int
	outOff, outCap, total int
	nattrs                int
	conn, seq             uint64
	mayEdit               bool
}

// layout sets the offsets, each at a multiple of eight.
func (f *frame) layout(attrsLen, outCap int) {
	align := func(n int) int { return (n + 7) &^ 7 }
	f.attrsOff = headerLen
	f.cellsOff = align(f.attrsOff + attrsLen)
	f.dataOff = align(f.cellsOff + 8*f.cells)
	f.outOff = align(f.dataOff + f.dataLen)
	f.outCap = outCap
	f.total = f.outOff + f.outCap
}

// header writes the frame's head.
func (f *frame) header(b []byte) {
	le := binary.LittleEndian
	flags := uint32(0)
	if f.mayEdit {
		flags |= 1
	}
	le.PutUint32(b[0:], frameMagic)
	le.PutUint16(b[4:], headerLen)
	le.PutUint16(b[6:], f.kind)
	le.PutUint32(b[8:], uint32(f.total))
	le.PutUint32(b[12:], flags)
	le.PutUint64(b[16:], f.conn)
	le.PutUint64(b[24:], f.seq)
	le.PutUint32(b[32:], uint32(f.rows))
	le.PutUint16(b[36:], uint16(f.cols))
	le.PutUint16(b[38:], uint16(f.nattrs))
	le.PutUint32(b[40:], uint32(f.attrsOff))
	le.PutUint32(b[44:], uint32(f.cellsOff))
	le.PutUint32(b[48:], uint32(f.cells))
	le.PutUint32(b[52:], uint32(f.dataOff))
	le.PutUint32(b[56:], uint32(f.dataLen))
	le.PutUint32(b[60:], uint32(f.outOff))
	le.PutUint32(b[64:], uint32(f.outCap))
	le.PutUint32(b[68:], 0) // stream id: one answer a frame, until plugins keep state
}

// patch is one replaced cell as a guest wrote it.
type patch struct {
	cell  int
	value []byte // nil: NULL
}

// parsePatches reads a guest's patch list. It is strict: cells in ascending order, nothing left over.
func parsePatches(b []byte, cells int, out []patch) ([]patch, error) {
	last := -1
	for len(b) > 0 {
		if len(b) < 8 {
			return nil, fmt.Errorf("a patch is cut off")
		}
		cell, n := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		b = b[8:]
		if int64(cell) <= int64(last) || int64(cell) >= int64(cells) {
			return nil, fmt.Errorf("a patch names cell %d of %d, after %d", cell, cells, last)
		}
		last = int(cell)
		if n == nullCell {
			out = append(out, patch{last, nil})
			continue
		}
		padded := (uint64(n) + 3) &^ 3
		if padded > uint64(len(b)) {
			return nil, fmt.Errorf("a patch of %d bytes is longer than the list", n)
		}
		out = append(out, patch{last, append(make([]byte, 0, n), b[:n]...)})
		b = b[padded:]
	}
	return out, nil
}

// texts splits a guest's words at NUL and cleans each: valid UTF-8, one line, at most limit bytes.
func texts(b []byte, n, limit int) []string {
	out := make([]string, n)
	for i, part := range strings.SplitN(string(b), "\x00", n) {
		out[i] = clean(part, limit)
	}
	return out
}

func clean(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
		for len(s) > 0 && !utf8.RuneStart(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
		if len(s) > 0 && s[len(s)-1] >= utf8.RuneSelf {
			s = s[:len(s)-1]
		}
	}
	s = strings.ToValidUTF8(s, "\ufffd")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
