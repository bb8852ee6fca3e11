package segment

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/weir-gateway/weir/core/ledger"
)

// A side file lists the frames of a closed segment, so that opening a store does not read all of it. It is derived:
// a missing or damaged one means a scan, and proofs never rest on it.
const indexMagic = "WEIRIDX\x01"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// In returns the frames of a segment.
func (d Directory) In(number uint32) []Frame {
	var out []Frame
	for id, list := range d {
		for _, r := range *list {
			if r.Segment == number {
				out = append(out, Frame{id, r})
			}
		}
	}
	return out
}

// Index returns the side file of a segment of a size in bytes.
func Index(frames []Frame, size int64) []byte {
	b := binary.BigEndian.AppendUint64([]byte(indexMagic), uint64(size))
	for _, f := range frames {
		b = append(b, byte(len(f.Session)))
		b = append(b, f.Session...)
		b = binary.AppendUvarint(b, f.Number)
		b = binary.BigEndian.AppendUint32(b, f.Offset)
		b = binary.BigEndian.AppendUint32(b, f.Size)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// ParseIndex returns the frames that a side file lists, when it is whole and speaks of a segment of just this size.
func ParseIndex(b []byte, number uint32, size int64) ([]Frame, bool) {
	head := len(indexMagic) + 8
	if len(b) < head+4 || string(b[:len(indexMagic)]) != indexMagic {
		return nil, false
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum || binary.BigEndian.Uint64(body[len(indexMagic):]) != uint64(size) {
		return nil, false
	}
	var out []Frame
	for body = body[head:]; len(body) > 0; {
		k := int(body[0])
		if len(body) < 1+k {
			return nil, false
		}
		f := Frame{Session: string(body[1 : 1+k])}
		body = body[1+k:]
		n, m := binary.Uvarint(body)
		if m <= 0 || len(body) < m+8 || !ledger.ValidSession(f.Session) {
			return nil, false
		}
		f.Ref = Ref{Number: n, Segment: number, Offset: binary.BigEndian.Uint32(body[m:]), Size: binary.BigEndian.Uint32(body[m+4:])}
		body = body[m+8:]
		if int64(f.Offset) < int64(HeadSize+FrameHead) || int64(f.Offset)+int64(f.Size) > size || int(f.Size) > maxBlock {
			return nil, false
		}
		out = append(out, f)
	}
	return out, true
}
