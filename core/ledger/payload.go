package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/weir-gateway/weir/core"
)

// A payload is a row of elements: a uvarint of length<<2|type, then that many bytes.
const (
	elementLast = 0 // a whole record, or the last piece of one
	elementPart = 1 // a piece of a record that goes on in the next element, of this block or the next
	elementSeal = 2 // the seal: the last element of the last block
)

// ElementOverhead is the most that an element adds to its bytes.
const ElementOverhead = binary.MaxVarintLen32 + 1

// AppendPiece appends a piece of an encoded record to a payload; more says that the record goes on.
func AppendPiece(payload, piece []byte, more bool) []byte {
	t := uint64(elementLast)
	if more {
		t = elementPart
	}
	payload = binary.AppendUvarint(payload, uint64(len(piece))<<2|t)
	return append(payload, piece...)
}

// Seal is the end of a session: the last element of its last block.
type Seal struct {
	End     core.End
	Records uint64   // records of the session
	Blocks  uint64   // blocks of the session, the seal's own included
	Root    [32]byte // the hash of the block before, which commits to all that came before it
	Time    time.Time
}

// AppendSeal appends the seal to a payload.
func AppendSeal(payload []byte, s Seal) []byte {
	b := make([]byte, 0, 96)
	b = appendWord(b, string(s.End))
	b = binary.AppendUvarint(b, s.Records)
	b = binary.AppendUvarint(b, s.Blocks)
	b = append(b, s.Root[:]...)
	b = binary.AppendVarint(b, s.Time.UnixNano())
	payload = binary.AppendUvarint(payload, uint64(len(b))<<2|elementSeal)
	return append(payload, b...)
}

func decodeSeal(b []byte) (Seal, error) {
	var s Seal
	d := decoder{b: b}
	s.End = core.End(d.word(nil))
	s.Records = d.uvarint()
	s.Blocks = d.uvarint()
	copy(s.Root[:], d.take(32))
	s.Time = time.Unix(0, d.varint()).UTC()
	if d.err != nil {
		return s, fmt.Errorf("ledger: seal: %w", d.err)
	}
	if len(d.b) != 0 {
		return s, errors.New("ledger: seal: bytes left over")
	}
	if len(s.End) > 32 || !ValidSession(string(s.End)) {
		return s, errors.New("ledger: seal: the end's word is malformed")
	}
	return s, nil
}

// Decoder turns the blocks of one session, given in order, back into its records. Its zero value is ready.
type Decoder struct {
	// Passing says that a record, and what it points to, is of no use once it has been shown: the next may take its room.
	Passing bool
	// Skips says that a block has been skipped.
	Skips bool

	record core.Record
	prior  Prior
	// skipped is how many bytes of an unfinished record were in blocks that could not be read.
	skipped uint64
	part    []byte // the pieces so far of a record that goes on
	begun   bool
	next    uint64 // the seq expected of the next record
	seal    *Seal
}

var rooms = sync.Pool{New: func() any { return new([]byte) }}

// Partial reports whether a record has begun and not ended with the blocks so far.
func (d *Decoder) Partial() bool { return d.begun }

// Seal returns the session's seal once its block has been decoded, or nil.
func (d *Decoder) Seal() *Seal { return d.seal }

// Decode calls f with each record that ends in the block b. Numbering is checked against the block's header:
// FirstSeq and LastSeq count the records that begin in it. The record and what it points to stay valid, unless d is
// Passing.
// What f returns ends the decoding and is returned as it is.
func (d *Decoder) Decode(h *Header, f func(r *core.Record, elapsed time.Duration) error) error {
	if err := d.follows(h); err != nil {
		return err
	}
	if d.Skips {
		return fmt.Errorf("ledger: block %d of %s follows one that could not be read: %w", h.Number, h.Session, ErrNoKey)
	}
	var room *[]byte
	if d.Passing && h.Codec != codecRaw {
		room = rooms.Get().(*[]byte)
		defer rooms.Put(room)
	} else {
		room = new([]byte)
	}
	payload, err := h.Payload(*room)
	if err != nil {
		return err
	}
	*room = payload
	in := decoder{b: payload}
	begins := uint64(0) // records that begin in this block
	for len(in.b) > 0 {
		head := in.uvarint()
		n := head >> 2
		if in.err == nil && n > uint64(len(in.b)) {
			in.fail(errShort)
		}
		if in.err != nil {
			return fmt.Errorf("ledger: block %d of %s: element: %w", h.Number, h.Session, in.err)
		}
		body := in.take(int(n))
		switch t := head & 3; t {
		case elementPart, elementLast:
			if !d.begun {
				begins++
				d.begun = true
			}
			if n == 0 {
				return fmt.Errorf("ledger: block %d of %s: empty element", h.Number, h.Session)
			}
			if len(d.part)+len(body) > MaxRecord {
				return fmt.Errorf("ledger: block %d of %s: record %d: %w", h.Number, h.Session, d.next, errTooLong)
			}
			if t == elementPart {
				d.part = append(d.part, body...)
				continue
			}
			if len(d.part) > 0 {
				body = append(d.part, body...)
				d.part = nil
			}
			d.begun = false
			r := &d.record
			d.prior.passing = d.Passing
			if !d.Passing {
				r = new(core.Record)
			}
			elapsed, err := DecodeRecord(body, r, &d.prior)
			if err != nil {
				return fmt.Errorf("block %d of %s: %w", h.Number, h.Session, err)
			}
			if r.Seq != d.next {
				return fmt.Errorf("ledger: block %d of %s: record %d stands where %d should", h.Number, h.Session, r.Seq, d.next)
			}
			d.next++
			if err := f(r, elapsed); err != nil {
				return err
			}
		case elementSeal:
			if !h.Seal || len(in.b) != 0 || d.begun {
				return fmt.Errorf("ledger: block %d of %s: a seal where none may be", h.Number, h.Session)
			}
			s, err := decodeSeal(body)
			if err != nil {
				return fmt.Errorf("block %d of %s: %w", h.Number, h.Session, err)
			}
			d.seal = &s
		default:
			return fmt.Errorf("ledger: block %d of %s: element type %d is not known to this build", h.Number, h.Session, t)
		}
	}
	if h.Seal != (d.seal != nil) {
		return fmt.Errorf("ledger: block %d of %s is flagged as the seal and holds none", h.Number, h.Session)
	}
	if count := h.LastSeq + 1 - h.FirstSeq; count != begins {
		return fmt.Errorf("ledger: block %d of %s: %d records begin in it, its header says %d", h.Number, h.Session, begins, count)
	}
	return nil
}

// follows reports whether a block goes on where the one before it ended.
func (d *Decoder) follows(h *Header) error {
	if d.seal != nil {
		return errors.New("ledger: a block follows the seal")
	}
	if first := d.next + uint64(btoi(d.begun)); h.FirstSeq != first {
		return fmt.Errorf("ledger: block %d of %s begins with record %d, it should be %d", h.Number, h.Session, h.FirstSeq, first)
	}
	if at := uint64(len(d.part)) + d.skipped; h.Carry != at {
		return fmt.Errorf("ledger: block %d of %s goes on at byte %d of a record, it should at %d", h.Number, h.Session, h.Carry, at)
	}
	return nil
}

// Next returns the seq that the next whole record must have.
func (d *Decoder) Next() uint64 { return d.next }

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Tail returns how many bytes of an unfinished record are stored with the block and those before it: what the next
// block's Carry has to be.
func (h *Header) Tail() (uint64, error) {
	if h.Secret {
		return h.clearTail, nil
	}
	payload, err := h.Payload(nil)
	if err != nil {
		return 0, err
	}
	carry := h.Carry
	for in := (decoder{b: payload}); len(in.b) > 0; {
		head := in.uvarint()
		if in.err != nil || head>>2 > uint64(len(in.b)) {
			return 0, fmt.Errorf("ledger: block %d of %s: element: %w", h.Number, h.Session, errShort)
		}
		n := len(in.take(int(head >> 2)))
		if head&3 == elementPart {
			carry += uint64(n)
		} else {
			carry = 0
		}
	}
	return carry, nil
}

// ReadSeal returns the seal that a seal block holds.
func (h *Header) ReadSeal() (Seal, error) {
	payload, err := h.Payload(nil)
	if err != nil {
		return Seal{}, err
	}
	for in := (decoder{b: payload}); len(in.b) > 0; {
		head := in.uvarint()
		if in.err != nil || head>>2 > uint64(len(in.b)) {
			break
		}
		body := in.take(int(head >> 2))
		if head&3 == elementSeal {
			return decodeSeal(body)
		}
	}
	return Seal{}, fmt.Errorf("ledger: block %d of %s holds no seal", h.Number, h.Session)
}
