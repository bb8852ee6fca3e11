package ssh

import (
	"encoding/binary"
	"testing"

	"github.com/weir-gateway/weir/core"
)

func fxPacket(kind byte, id uint32, parts ...[]byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, id)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func fxText(s string) []byte { return appendString(nil, s) }

// Nothing is written to a file that nobody was seen to open, and no answer is booked on another request.
func TestGuessedHandles(t *testing.T) {
	open := func(f *files, id uint32, path string) error {
		_, _, err := f.request(fxPacket(fxOpen, id, fxText(path), []byte{0, 0, 0, 2}, make([]byte, 4)))
		return err
	}
	write := func(handle string) []byte {
		return fxPacket(fxWrite, 9, fxText(handle), make([]byte, 8), fxText("data"))
	}
	for name, p := range map[string][]byte{
		"write": write("h1"), "setstat": fxPacket(fxFsetstat, 9, fxText("h1"), make([]byte, 4)), "read": fxPacket(fxRead, 9, fxText("h1"), make([]byte, 12)),
		"list": fxPacket(fxReaddir, 9, fxText("h1")),
	} {
		f := &files{}
		if err := open(f, 1, "/srv/a"); err != nil {
			t.Fatal(err)
		}
		if c, _, err := f.request(p); err != nil || c == nil || c.Status == core.StatusKnown {
			t.Errorf("%s on a handle that was not given: %+v, %v", name, c, err)
		}
		f.answer(fxPacket(fxHandle, 1, fxText("h1"))) // the control
		if c, _, err := f.request(p); err != nil || c != nil && c.Status != core.StatusKnown {
			t.Errorf("%s on one that was: %+v, %v", name, c, err)
		}
	}
	f := &files{}
	if err := open(f, 1, "/srv/a"); err != nil {
		t.Fatal(err)
	}
	if open(f, 1, "/srv/b") == nil {
		t.Error("two requests of one number")
	}
	f.answer(fxPacket(fxHandle, 1, fxText("h1")))
	if err := open(f, 1, "/srv/b"); err != nil { // a number may be used again when it was answered
		t.Error(err)
	}
}
