package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/weir-gateway/weir/core"
)

// Limits of the encoding. What is over them is refused by encoder and decoder alike.
const (
	MaxRecord    = 256 << 20 // bytes of one encoded record, pieced together
	maxDecisions = 1024      // decisions of one record
	maxWord      = 64 << 10  // bytes of one text inside a decision
)

var (
	errShort   = errors.New("cut short")
	errVarint  = errors.New("varint is not in its shortest form")
	errTooLong = errors.New("length is over the limit")
	errPrior   = errors.New("its facts begin as those of an earlier record that has not so many")
)

// AppendRecord appends the encoding of r to b. The monotonic time since the session's first record goes in beside
// the wall clock, so that a clock that was set shows. Prior is what has been encoded of the session, or nil.
func AppendRecord(b []byte, r *core.Record, elapsed time.Duration, prior *Prior) []byte {
	return append(AppendRecordHead(b, r, elapsed, prior), r.Wire...)
}

// AppendRecordHead appends what AppendRecord does, but for the wire bytes, which are its end.
func AppendRecordHead(b []byte, r *core.Record, elapsed time.Duration, prior *Prior) []byte {
	shared, kind := prior.shared(r.Kind, r.Facts), byte(r.Kind)
	if shared > 0 {
		kind |= flagShared
	}
	b = binary.AppendUvarint(b, r.Seq)
	b = binary.AppendVarint(b, r.Time.UnixNano())
	b = binary.AppendUvarint(b, uint64(max(elapsed, 0)))
	b = append(b, kind, byte(r.Direction))
	b = binary.AppendUvarint(b, uint64(len(r.Decisions)))
	for i := range r.Decisions {
		d := &r.Decisions[i]
		b = appendWord(b, d.Step)
		b = appendWord(b, d.Action)
		b = appendWord(b, d.Rule)
		b = appendWord(b, d.Detail)
	}
	if shared > 0 {
		b = binary.AppendUvarint(b, uint64(shared))
	}
	b = binary.AppendUvarint(b, uint64(len(r.Facts)-shared))
	b = append(b, r.Facts[shared:]...)
	prior.keep(r.Kind, r.Facts, shared)
	return binary.AppendUvarint(b, uint64(len(r.Wire)))
}

// RecordSize returns an upper bound of what AppendRecord appends, and an error when r is over the limits.
func RecordSize(r *core.Record) (int, error) {
	n := 10 + 10 + 10 + 2 + 4*binary.MaxVarintLen32 + len(r.Facts) + len(r.Wire)
	if len(r.Decisions) > maxDecisions {
		return 0, fmt.Errorf("ledger: record %d has %d decisions; at most %d are kept", r.Seq, len(r.Decisions), maxDecisions)
	}
	for i := range r.Decisions {
		d := &r.Decisions[i]
		n += 4*binary.MaxVarintLen32 + min(len(d.Step), maxWord) + min(len(d.Action), maxWord) + min(len(d.Rule), maxWord) + min(len(d.Detail), maxWord)
	}
	if n > MaxRecord {
		return 0, fmt.Errorf("ledger: record %d has %d bytes; at most %d are kept", r.Seq, n, MaxRecord)
	}
	return n, nil
}

// DecodeRecord reads exactly one record from b. Wire points into b, and so do Facts, unless they begin as those of an
// earlier record: then they are new. Prior is what has been decoded of the session, or nil.
func DecodeRecord(b []byte, r *core.Record, prior *Prior) (elapsed time.Duration, err error) {
	d := decoder{b: b}
	r.Seq = d.uvarint()
	r.Time = time.Unix(0, d.varint()).UTC()
	e := d.uvarint()
	kind := d.byte()
	r.Kind, r.Direction = core.Kind(kind&^flagShared), core.Direction(d.byte())
	n := d.uvarint()
	if n > maxDecisions || n*4 > uint64(len(d.b)) { // each takes four bytes at least
		d.fail(errTooLong)
		n = 0
	}
	if prior != nil && prior.passing {
		r.Decisions = r.Decisions[:0]
	} else {
		r.Decisions = nil
	}
	for range n {
		r.Decisions = append(r.Decisions, core.Decision{Step: d.word(prior), Action: d.word(prior), Rule: d.word(prior), Detail: d.word(prior)})
	}
	shared := uint64(0)
	if kind&flagShared != 0 {
		shared = d.uvarint()
	}
	r.Facts = d.bytes(MaxRecord)
	if kind&flagShared != 0 && d.err == nil {
		var ok bool
		if r.Facts, ok = prior.restore(r.Kind, shared, r.Facts); !ok {
			d.fail(errPrior)
		}
	}
	r.Wire = d.bytes(MaxRecord)
	switch {
	case d.err != nil:
		return 0, fmt.Errorf("ledger: record: %w", d.err)
	case len(d.b) != 0:
		return 0, errors.New("ledger: record: bytes left over")
	case r.Kind < core.KindOpen || r.Kind > core.KindOpaque:
		return 0, fmt.Errorf("ledger: record %d: kind %d is unknown", r.Seq, r.Kind)
	case r.Direction < core.FromClient || r.Direction > core.FromGateway:
		return 0, fmt.Errorf("ledger: record %d: direction %d is unknown", r.Seq, r.Direction)
	case e > 1<<62:
		return 0, fmt.Errorf("ledger: record %d: elapsed time is out of range", r.Seq)
	}
	prior.keep(r.Kind, r.Facts, int(shared))
	return time.Duration(e), nil
}

func appendWord(b []byte, s string) []byte {
	if len(s) > maxWord {
		s = s[:maxWord]
	}
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// decoder reads from b and keeps the first error; after an error every read yields zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail(errShort)
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	switch {
	case n == 0:
		d.fail(errShort)
		return 0
	case n < 0:
		d.fail(errTooLong)
		return 0
	case n > 1 && d.b[n-1] == 0: // one meaning, one encoding
		d.fail(errVarint)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) bytes(limit uint64) []byte {
	n := d.uvarint()
	if d.err != nil {
		return nil
	}
	if n > limit {
		d.fail(errTooLong)
		return nil
	}
	if n > uint64(len(d.b)) {
		d.fail(errShort)
		return nil
	}
	if n == 0 {
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// word reads a text, which prior may have already: a session's decisions say the same again and again.
func (d *decoder) word(prior *Prior) string { return prior.word(d.bytes(maxWord)) }
