package weir

import "unsafe"

// Frame constants, as sdk/ABI.md has them.
const (
	magic     = 0x31494557
	headerLen = 72
	nullCell  = 0xffffffff
)

const (
	codePass     = 0
	codeModified = 1
	codePatch    = 2
	codeDeny     = 3
	codeReview   = 4
	codeFailed   = -1
	codeMoreRoom = -2
)

var kinds = map[uint16]Kind{1: Open, 2: Command, 3: RowData, 4: Bytes, 7: Columns, 8: Result, 10: Notice, 11: Close}

func u16(b []byte) uint16 { return uint16(b[0]) | uint16(b[1])<<8 }

func u32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func put32(b []byte, v uint32) {
	b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
}

// Event is one event as a plugin sees it. It is valid until the handler returns.
type Event struct {
	Kind     Kind
	Session  uint64 // the same number for every event of one session
	b        []byte
	attrs    []byte
	cells    []byte
	data     []byte
	out      []byte
	ncells   int
	mayEdit  bool
	columns  []ColumnInfo
	changed  int
	patches  []patch
	code     int32
	used     int
	overflow bool
	failure  string
}

type patch struct {
	cell  int
	value []byte
	null  bool
}

// parse reads a frame in place.
func (e *Event) parse(b []byte) bool {
	if len(b) < headerLen || u32(b) != magic || int(u16(b[4:])) < headerLen || int(u32(b[8:])) != len(b) {
		return false
	}
	part := func(off uint32, n uint64) []byte {
		if uint64(off)+n > uint64(len(b)) {
			return nil
		}
		return b[off : uint64(off)+n : uint64(off)+n]
	}
	kind, known := kinds[u16(b[6:])]
	if !known {
		return false
	}
	attrsOff, cellsOff := u32(b[40:]), u32(b[44:])
	if attrsOff > cellsOff || attrsOff < headerLen {
		return false
	}
	*e = Event{
		Kind: kind, Session: uint64(u32(b[16:])) | uint64(u32(b[20:]))<<32, b: b,
		mayEdit: u32(b[12:])&1 != 0, ncells: int(u32(b[48:])),
		attrs: part(attrsOff, uint64(cellsOff-attrsOff)), cells: part(cellsOff, 8*uint64(u32(b[48:]))),
		data: part(u32(b[52:]), uint64(u32(b[56:]))), out: part(u32(b[60:]), uint64(u32(b[64:]))),
		columns: e.columns[:0], patches: e.patches[:0],
	}
	if kind == RowData && uint64(u32(b[32:]))*uint64(u16(b[36:])) != uint64(e.ncells) {
		return false
	}
	return e.attrs != nil && e.cells != nil && e.data != nil && e.out != nil
}

// attribute calls f with each value of an attribute until f returns false.
func (e *Event) attribute(id uint16, f func(v []byte) bool) {
	b := e.attrs
	for range int(u16(e.b[38:])) {
		if len(b) < 4 || len(b) < 4+int(u16(b[2:])) {
			e.Fail("the attributes are cut off")
			return
		}
		at, n := u16(b), int(u16(b[2:]))
		if at == id && !f(b[4:4+n]) {
			return
		}
		b = b[min(len(b), (4+n+3)&^3):]
	}
}

func (e *Event) text(id uint16) (s string) {
	e.attribute(id, func(v []byte) bool { s = string(v); return false })
	return s
}

func (e *Event) texts(id uint16) (out []string) {
	e.attribute(id, func(v []byte) bool { out = append(out, string(v)); return true })
	return out
}

// Editable reports whether the event's values may be changed. To change them where they may not be is an error.
func (e *Event) Editable() bool { return e.mayEdit }

// Protocol returns the session's protocol.
func (e *Event) Protocol() string { return e.text(1) }

// Target returns the target's name.
func (e *Event) Target() string { return e.text(2) }

// Subject returns who the session belongs to.
func (e *Event) Subject() string { return e.text(3) }

// Groups returns the groups of whom the session belongs to.
func (e *Event) Groups() []string { return e.texts(4) }

// IdentityKind returns human, service or agent.
func (e *Event) IdentityKind() string { return e.text(5) }

// Direction returns client, upstream or gateway.
func (e *Event) Direction() string { return e.text(6) }

// Stage returns prepare or execute.
func (e *Event) Stage() string { return e.text(7) }

// Action returns what a command does, in the protocol's word.
func (e *Event) Action() string { return e.text(16) }

// Fingerprint returns the command's, which is the same for commands that differ in their literals only.
func (e *Event) Fingerprint() string { return e.text(17) }

// Effects returns what a command may do to the target.
func (e *Event) Effects() []string { return e.texts(18) }

// Where reports whether every part of a command that changes or removes rows says which.
func (e *Event) Where() bool { return e.text(20) == "1" }

// Known reports whether the command's facts can be relied on.
func (e *Event) Known() bool { return e.text(21) == "known" }

// Resource is something that a command touches.
type Resource struct {
	Kind, Name   string
	Use, Columns []string
}

// Resources returns what a command touches.
func (e *Event) Resources() (out []Resource) {
	e.attribute(19, func(v []byte) bool {
		p := split(v, 0, 4)
		out = append(out, Resource{Kind: string(p[0]), Name: string(p[1]), Use: words(p[2]), Columns: words(p[3])})
		return true
	})
	return out
}

// Class is what a column's type means to a plugin.
type Class uint8

// The classes. ClassUnknown is an enum, a domain, a type of an extension.
const (
	ClassUnknown Class = iota
	ClassText
	ClassJSON
	ClassNumber
	ClassBool
	ClassTime
	ClassUUID
	ClassBytes
	ClassArray
	ClassOther
)

// ColumnInfo describes one column.
type ColumnInfo struct {
	Name, Type    string
	Class         Class  // what its type means
	Table, Column string // where the values come from, as far as the target tells
	Binary        bool   // the cells are in the type's binary format
	Text          bool   // the cells may hold free text
}

// Columns returns the columns of an answer, or of the cells of a batch.
func (e *Event) Columns() []ColumnInfo {
	if len(e.columns) > 0 {
		return e.columns
	}
	e.attribute(32, func(v []byte) bool {
		if len(v) < 2 {
			return false
		}
		p := split(v[2:], 0, 4)
		e.columns = append(e.columns, ColumnInfo{
			Name: string(p[0]), Type: string(p[1]), Class: Class(v[0]), Table: string(p[2]), Column: string(p[3]),
			Binary: v[1]&1 != 0, Text: v[1]&2 != 0,
		})
		return true
	})
	return e.columns
}

// Cells returns how many values the event has: the text and the parameters of a command, the texts of a result, the
// piece of a stream, the cells of a batch row by row.
func (e *Event) Cells() int { return e.ncells }

// Value returns a value, and false for NULL. The bytes may be changed in place where the plugin mutates; say so with
// Touch.
func (e *Event) Value(i int) ([]byte, bool) {
	if uint(i) >= uint(e.ncells) {
		return nil, false
	}
	if len(e.patches) > 0 {
		if j, ok := e.find(i); ok {
			return e.patches[j].value, !e.patches[j].null
		}
	}
	c := load64(unsafe.Pointer(unsafe.SliceData(e.cells)), 8*i) // of which there are ncells
	off, n := c&nullCell, c>>32
	if off+n > uint64(len(e.data)) {
		if n != nullCell {
			e.Fail("a cell lies outside of the data")
		}
		return nil, false
	}
	return e.data[off : off+n : off+n], true
}

// Touch says that the bytes of a value were changed in place.
func (e *Event) Touch(int) { e.changed++ }

// Set gives a value other bytes. Where the length stays they are written in place.
func (e *Event) Set(i int, value []byte) {
	if j, ok := e.find(i); ok {
		e.patches[j] = patch{cell: i, value: append([]byte(nil), value...)}
		return
	}
	if old, ok := e.Value(i); ok && len(old) == len(value) {
		copy(old, value)
		e.changed++
		return
	}
	e.patch(patch{cell: i, value: append([]byte(nil), value...)})
}

// SetNull makes a value NULL. Only the cells of rows can be.
func (e *Event) SetNull(i int) {
	e.patch(patch{cell: i, null: true})
}

// find returns where the patch of a cell is, or would have to be: they are in the order of the cells.
func (e *Event) find(cell int) (at int, found bool) {
	low, high := 0, len(e.patches)
	if high == 0 || e.patches[high-1].cell < cell {
		return high, false
	}
	for low < high {
		if mid := (low + high) / 2; e.patches[mid].cell < cell {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, e.patches[low].cell == cell
}

func (e *Event) patch(p patch) {
	at, found := e.find(p.cell)
	if !found {
		e.patches = append(e.patches, patch{})
		copy(e.patches[at+1:], e.patches[at:])
	}
	e.patches[at] = p
}

// Fail says that the plugin cannot judge the event: it is refused, unless the operator said on_error: pass.
func (e *Event) Fail(why string) {
	if e.failure == "" {
		e.failure = why
	}
}

// Deny refuses the event. The texts go to the client: rule is short, reason says why, hint what to do instead. None
// may hold what has to be hidden.
func (e *Event) Deny(rule, reason, hint string) { e.say(codeDeny, rule, reason, hint) }

// Hold asks for an approval of a command, by one of approvers.
func (e *Event) Hold(rule, reason string, approvers ...string) {
	list := ""
	for i, a := range approvers {
		if i > 0 {
			list += ","
		}
		list += a
	}
	e.say(codeReview, rule, reason, list)
}

func (e *Event) say(code int32, a, b, c string) {
	if e.code == codeDeny {
		return
	}
	out := append(e.out[:0:len(e.out)], a...)
	out = append(append(append(append(out, 0), b...), 0), c...)
	if len(out) > len(e.out) {
		e.overflow = true
	}
	e.code, e.used = code, len(out)
}

// answer packs the verdict.
func (e *Event) answer() int64 {
	pack := func(code int32, aux int) int64 { return int64(uint64(uint32(aux))<<32 | uint64(uint32(code))) }
	switch {
	case e.failure != "":
		Log(LogError, e.failure)
		return pack(codeFailed, 0)
	case e.overflow:
		return pack(codeMoreRoom, 0)
	case e.code != 0:
		return pack(e.code, e.used)
	case len(e.patches) > 0:
		at := 0
		for _, p := range e.patches {
			n := (len(p.value) + 3) &^ 3
			if at+8+n > len(e.out) {
				return pack(codeMoreRoom, 0)
			}
			put32(e.out[at:], uint32(p.cell))
			if p.null {
				put32(e.out[at+4:], nullCell)
			} else {
				put32(e.out[at+4:], uint32(len(p.value)))
			}
			copy(e.out[at+8:], p.value)
			at += 8 + n
		}
		return pack(codePatch, at)
	case e.changed > 0:
		return pack(codeModified, min(e.changed, e.ncells))
	}
	return pack(codePass, 0)
}

// Rows is a batch of rows. Its cells are those of the columns subscribed to, row by row.
type Rows struct{ *Event }

// Len returns how many rows there are.
func (r *Rows) Len() int { return int(u32(r.b[32:])) }

// Width returns how many columns the cells have.
func (r *Rows) Width() int { return int(u16(r.b[36:])) }

// Column returns the column of a cell.
func (r *Rows) Column(cell int) ColumnInfo { return r.Columns()[cell%r.Width()] }

func split(b []byte, sep byte, n int) [][]byte {
	out := make([][]byte, n)
	for i := range n {
		end := len(b)
		if i < n-1 {
			for j, c := range b {
				if c == sep {
					end = j
					break
				}
			}
		}
		out[i] = b[:end]
		b = b[min(len(b), end+1):]
	}
	return out
}

func words(b []byte) (out []string) {
	for len(b) > 0 {
		p := split(b, ',', 2)
		out = append(out, string(p[0]))
		b = p[1]
	}
	return out
}

// dispatch gives an event to its handler.
func dispatch(p *Plugin, e *Event) int64 {
	var f func(*Event)
	switch e.Kind {
	case RowData:
		if p.OnRows != nil {
			p.OnRows(&Rows{e})
		}
		return e.answer()
	case Command:
		f = p.OnCommand
	case Columns:
		f = p.OnColumns
	case Open:
		f = p.OnOpen
	case Result, Notice:
		f = p.OnResult
	case Close:
		f = p.OnClose
	case Bytes:
		f = p.OnBytes
	}
	if f != nil {
		f(e)
	}
	return e.answer()
}
