package file

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"strings"

	"github.com/weir-gateway/weir/core/ledger"
)

// A side file lists the frames of a closed segment, so that opening a store does not read all of it. It is derived:
// a missing or damaged one means a scan, and proofs never rest on it.
const sidecarMagic = "WEIRIDX\x01"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s *Store) sidecar(n uint32) string {
	return strings.TrimSuffix(s.path(n), extension) + ".index"
}

// writeSidecar writes the side file of a segment. Its loss costs a scan, so it is not fsynced, and a failure to
// write it is none.
func writeSidecar(s *Store, n uint32) error {
	b := []byte(sidecarMagic)
	b = binary.BigEndian.AppendUint64(b, uint64(s.segments[n].end))
	for id, list := range s.sessions {
		for _, r := range *list {
			if r.segment != n {
				continue
			}
			b = append(b, byte(len(id)))
			b = append(b, id...)
			b = binary.AppendUvarint(b, r.number)
			b = binary.BigEndian.AppendUint32(b, r.offset)
			b = binary.BigEndian.AppendUint32(b, r.size)
		}
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	tmp := s.sidecar(n) + ".new"
	if os.WriteFile(tmp, b, 0o400) == nil {
		_ = os.Rename(tmp, s.sidecar(n))
	}
	return nil
}

// readSidecar returns the frames of a segment when its side file is whole and speaks of just these bytes.
func readSidecar(s *Store, n uint32, size int64) ([]frame, bool) {
	b, err := os.ReadFile(s.sidecar(n))
	head := len(sidecarMagic) + 8
	if err != nil || len(b) < head+4 || string(b[:len(sidecarMagic)]) != sidecarMagic {
		return nil, false
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum || binary.BigEndian.Uint64(body[len(sidecarMagic):]) != uint64(size) {
		return nil, false
	}
	var out []frame
	for body = body[head:]; len(body) > 0; {
		k := int(body[0])
		if len(body) < 1+k {
			return nil, false
		}
		fr := frame{session: string(body[1 : 1+k])}
		body = body[1+k:]
		number, m := binary.Uvarint(body)
		if m <= 0 || len(body) < m+8 || !ledger.ValidSession(fr.session) {
			return nil, false
		}
		fr.ref = ref{number: number, segment: n, offset: binary.BigEndian.Uint32(body[m:]), size: binary.BigEndian.Uint32(body[m+4:])}
		body = body[m+8:]
		if int64(fr.offset) < int64(segmentHead+frameHead) || int64(fr.offset)+int64(fr.size) > size || int(fr.size) > maxBlock {
			return nil, false
		}
		out = append(out, fr)
	}
	return out, true
}
