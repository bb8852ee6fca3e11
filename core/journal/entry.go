package journal

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// An entry of the log: length of what follows the head (4 bytes), CRC-32C of all that follows the CRC (4), position
// (8), kind (1), shard (1), length of the session's id (1), the id, the body. Integers are big-endian. The position
// is the entry's own place in the log, so that what an earlier use left in a recycled segment is not taken for new.
const entryHead = 4 + 4 + 8 + 1 + 1 + 1

type entryKind byte

const (
	entryRecord entryKind = iota + 1 // an encoded record
	entryFirst                       // the first piece of a record that goes on in the session's next entry
	entryNext                        // a further piece
	entryLast                        // the last piece
	entrySeal                        // the session's end, as text
	entryHeadOf                      // what JetStream has acknowledged of the session
)

type entry struct {
	at, end uint64 // positions
	kind    entryKind
	shard   uint8
	session []byte
	body    []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// beginEntry appends an entry's head and session; endEntry completes it when the body has been appended behind it.
func beginEntry(b []byte, at uint64, kind entryKind, shard uint8, session string) []byte {
	var h [entryHead]byte
	binary.BigEndian.PutUint64(h[8:], at)
	h[16], h[17], h[18] = byte(kind), shard, byte(len(session))
	b = append(b, h[:]...)
	return append(b, session...)
}

func endEntry(b []byte, start int) {
	e := b[start:]
	binary.BigEndian.PutUint32(e, uint32(len(e)-entryHead))
	binary.BigEndian.PutUint32(e[4:], crc32.Checksum(e[8:], castagnoli))
}

// parseEntry reads the entry that lies at position at at the front of b. It returns false for anything else: the end
// of the log, a torn write, an earlier use of the segment, or b being too short (need says how much it takes). What this
// process has made and never let out of memory is not summed again.
func parseEntry(b []byte, at uint64, made bool) (e entry, n int, need int, ok bool) {
	if len(b) < entryHead {
		return e, 0, entryHead, false
	}
	if binary.BigEndian.Uint64(b[8:]) != at {
		return e, 0, 0, false
	}
	n = entryHead + int(binary.BigEndian.Uint32(b))
	if n > maxEntry {
		return e, 0, 0, false
	}
	if len(b) < n {
		return e, 0, n, false
	}
	if !made && crc32.Checksum(b[8:n], castagnoli) != binary.BigEndian.Uint32(b[4:]) {
		return e, 0, 0, false
	}
	id := entryHead + int(b[18])
	if id > n {
		return e, 0, 0, false
	}
	e = entry{at: at, end: at + uint64(n), kind: entryKind(b[16]), shard: b[17], session: b[entryHead:id:id], body: b[id:n:n]}
	return e, n, 0, true
}

// head is what is known to be in JetStream of a session.
type head struct {
	blocks  uint64 // blocks acknowledged
	next    uint64 // the seq of the first record that is not wholly in them
	carry   uint64 // bytes of that record that are
	prev    [32]byte
	subject uint64 // the last block's sequence in the stream; 0: none, or removed since
	sealed  bool
}

func (h *head) append(b []byte) []byte {
	b = binary.AppendUvarint(b, h.blocks)
	b = binary.AppendUvarint(b, h.next)
	b = binary.AppendUvarint(b, h.carry)
	b = binary.AppendUvarint(b, h.subject)
	if h.sealed {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return append(b, h.prev[:]...)
}

func parseHead(b []byte) (h head, ok bool) {
	for _, p := range []*uint64{&h.blocks, &h.next, &h.carry, &h.subject} {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return h, false
		}
		*p, b = v, b[n:]
	}
	if len(b) != 1+len(h.prev) || b[0] > 1 {
		return h, false
	}
	h.sealed = b[0] == 1
	copy(h.prev[:], b[1:])
	return h, true
}

// headOf returns what a block says of its session so far.
func headOf(b core.Block) (head, error) {
	h, err := ledger.ParseBlock(b.Bytes)
	if err != nil {
		return head{}, err
	}
	carry, err := h.Tail()
	if err != nil {
		return head{}, err
	}
	next := h.LastSeq + 1
	if carry > 0 {
		next--
	}
	return head{blocks: h.Number + 1, next: next, carry: carry, prev: b.Hash, sealed: h.Seal}, nil
}
