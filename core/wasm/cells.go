package wasm

import (
	"encoding/binary"

	"github.com/weir-gateway/weir/core"
)

// What a guest gets of a batch is the cells that it subscribed to, one behind the other, and nothing of what lies between
// them; and what comes back are those cells. Most are short, so that a call of copy each costs more than the bytes: up to
// wide bytes are moved as two words, with the excess put right.

const wide = 16

// keepLow has the bytes that count in a word pair of so many bytes.
var keepLow = func() (t [wide + 1][2]uint64) {
	for n := range t {
		t[n] = [2]uint64{1<<(8*min(n, 8)) - 1, 1<<(8*max(n-8, 0)) - 1}
	}
	return t
}()

// pack writes the cells of from into a frame: their bytes into data, and where these are into table. What is behind the data
// belongs to the frame, too.
func pack(table, data, from []byte, cells []core.Cell) {
	le, at := binary.LittleEndian, 0
	for i, c := range cells {
		entry := uint64(uint32(at))
		if c.Null() {
			le.PutUint64(table[8*i:], entry|nullCell<<32)
			continue
		}
		n, off := int(c.Len), int(c.Off)
		le.PutUint64(table[8*i:], entry|uint64(n)<<32)
		if n <= wide && off+wide <= len(from) && at+wide <= len(data) {
			*(*[wide]byte)(data[at:]) = *(*[wide]byte)(from[off:])
		} else {
			copy(data[at:at+n], from[off:off+n])
		}
		at += n
	}
	clear(data[at:min(at+wide, len(data))]) // the excess of the last ones may be of a column that the guest does not see
}

// unpack takes the cells back out of a frame's data. It reports whether they have changed.
func unpack(from, data []byte, cells []core.Cell) bool {
	le, at, changed := binary.LittleEndian, 0, uint64(0)
	for _, c := range cells {
		if c.Null() {
			continue
		}
		n, off := int(c.Len), int(c.Off)
		if n <= wide && off+wide <= len(from) && at+wide <= len(data) {
			// Not more is read than needed: a word that was just written in part would have to be waited for.
			was, now, keep := (*[wide]byte)(from[off:]), (*[wide]byte)(data[at:]), &keepLow[n]
			a := le.Uint64(was[:])
			x := (a ^ le.Uint64(now[:])) & keep[0]
			le.PutUint64(was[:], a^x)
			if changed |= x; n > 8 {
				b := le.Uint64(was[8:])
				y := (b ^ le.Uint64(now[8:])) & keep[1]
				le.PutUint64(was[8:], b^y)
				changed |= y
			}
		} else if was, now := from[off:off+n], data[at:at+n]; string(was) != string(now) {
			copy(was, now)
			changed = 1
		}
		at += n
	}
	return changed != 0
}
