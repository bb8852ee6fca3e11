package wasm

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/weir-gateway/weir/core"
)

// TestCells: a frame has the cells and nothing of what lies around them, and what a guest writes comes back into the cells and
// nowhere else.
func TestCells(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var from []byte
		var cells []core.Cell
		gap := func() {
			for range r.IntN(7) {
				from = append(from, 0xee) // of a column that is not shown
			}
		}
		var want []byte
		for range r.IntN(12) {
			gap()
			n := r.IntN(8)
			switch r.IntN(3) {
			case 0:
				n = r.IntN(40)
			case 1:
				n = -1
			}
			cells = append(cells, core.Cell{Off: int32(len(from)), Len: int32(n)})
			for range n {
				c := byte(r.IntN(200))
				from, want = append(from, c), append(want, c)
			}
		}
		gap()
		table, data := make([]byte, 8*len(cells)), make([]byte, len(want)+r.IntN(40))
		pack(table, data, from, cells)
		if !bytes.Equal(data[:len(want)], want) || bytes.Contains(data[len(want):], []byte{0xee}) {
			t.Fatalf("%v of %x became %x", cells, from, data)
		}
		at := uint32(0)
		for i, c := range cells {
			off, n := binary.LittleEndian.Uint32(table[8*i:]), binary.LittleEndian.Uint32(table[8*i+4:])
			if c.Null() != (n == nullCell) || off != at || !c.Null() && n != uint32(c.Len) {
				t.Fatalf("cell %d of %v is at %d, %d", i, cells, off, n)
			}
			at += uint32(max(c.Len, 0))
		}
		before := bytes.Clone(from)
		if unpack(from, data, cells) || !bytes.Equal(from, before) {
			t.Fatalf("%v: nothing was changed", cells)
		}
		for i := range data { // the guest writes over everything
			data[i] = 0xdd
		}
		if unpack(from, data, cells) != (len(want) > 0) {
			t.Fatalf("%v: not told that it changed", cells)
		}
		for _, c := range cells {
			for i := c.Off; i < c.Off+c.Len; i++ {
				if from[i] != 0xdd {
					t.Fatalf("%v: %x", cells, from)
				}
				from[i] = before[i]
			}
		}
		if !bytes.Equal(from, before) {
			t.Fatalf("%v: a byte outside of the cells was changed: %x, not %x", cells, from, before)
		}
	}
}
