package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/weir-gateway/weir/core"
)

// Limits of a block.
const (
	MaxStored  = 8 << 20  // bytes of an encoded block's payload as stored
	MaxPayload = 64 << 20 // bytes of a payload once decompressed
	MaxSession = 64       // bytes of a session's id
	MaxHeader  = 4 + 2 + 1 + MaxSession + 6*binary.MaxVarintLen64 + 32
)

const (
	magic      = "WRB\x01" // the last byte is the version
	flagSeal   = 1
	flagSecret = 2 // the payload is encrypted

	codecRaw  = 0
	codecZstd = 1

	compressFrom = 256 // payloads below this many bytes are stored as they are
)

// ValidSession reports whether id may name a session: 1 to 64 letters, digits, '-' and '_'. So it is a subject
// token, a file name and a leaf's word without escaping.
func ValidSession(id string) bool {
	if id == "" || len(id) > MaxSession {
		return false
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// Encoder makes blocks. It keeps its buffers from one block to the next; it is not safe for concurrent use.
type Encoder struct {
	zw  *zstd.Encoder
	buf []byte
}

// NewEncoder returns an Encoder.
func NewEncoder() *Encoder {
	zw, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("ledger: the compressor's options are wrong: " + err.Error()) // constants only
	}
	return &Encoder{zw: zw}
}

// Encode makes a block of h and a payload. Carry is the number of bytes of a record that earlier blocks hold when the
// payload begins in the middle of one, else 0. The block's bytes are new and belong to the caller.
func (e *Encoder) Encode(h core.BlockHeader, carry uint64, payload []byte) (core.Block, error) {
	return e.encode(h, carry, payload, nil, 0)
}

// encode makes a block. Encrypt, unless it is nil, appends the payload in another form, which is longer by more.
func (e *Encoder) encode(h core.BlockHeader, carry uint64, payload []byte, encrypt func(b, plain []byte) []byte, more int) (core.Block, error) {
	if !ValidSession(h.Session) {
		return core.Block{}, fmt.Errorf("ledger: %q cannot name a session", h.Session)
	}
	if len(payload) > MaxPayload {
		return core.Block{}, fmt.Errorf("ledger: block %d of %s: payload has %d bytes; at most %d", h.Number, h.Session, len(payload), MaxPayload)
	}
	codec, stored := byte(codecRaw), payload
	if len(payload) >= compressFrom {
		e.buf = e.zw.EncodeAll(payload, e.buf[:0])
		if len(e.buf) < len(payload)-len(payload)/16 {
			codec, stored = codecZstd, e.buf
		}
		if cap(e.buf) > 4<<20 {
			defer func() { e.buf = nil }()
		}
	}
	size := len(stored) + more
	if size > MaxStored {
		return core.Block{}, fmt.Errorf("ledger: block %d of %s: %d bytes to store; at most %d", h.Number, h.Session, size, MaxStored)
	}
	flags := byte(0)
	if encrypt != nil {
		flags = flagSecret
	}
	b := appendHeader(make([]byte, 0, MaxHeader+size), &h, flags, codec, carry, uint64(len(payload)), size)
	if encrypt != nil {
		b = encrypt(b, stored)
	} else {
		b = append(b, stored...)
	}
	return core.Block{Header: h, Hash: sha256.Sum256(b), Bytes: b}, nil
}

func appendHeader(b []byte, h *core.BlockHeader, flags, codec byte, carry, raw uint64, stored int) []byte {
	b = append(b, magic...)
	if h.Seal {
		flags |= flagSeal
	}
	b = append(b, flags, codec, byte(len(h.Session)))
	b = append(b, h.Session...)
	b = binary.AppendUvarint(b, h.Number)
	b = binary.AppendUvarint(b, h.FirstSeq)
	b = binary.AppendUvarint(b, h.LastSeq+1-h.FirstSeq)
	b = binary.AppendUvarint(b, carry)
	b = append(b, h.Prev[:]...)
	b = binary.AppendUvarint(b, raw)
	return binary.AppendUvarint(b, uint64(stored))
}

// Header is what an encoded block says of itself, and where its payload lies.
type Header struct {
	core.BlockHeader
	Carry  uint64 // bytes of a record that goes on in this block and that earlier blocks hold
	Codec  byte   // 0 raw, 1 zstd
	Raw    uint64 // bytes of the payload once decompressed
	Stored []byte // the payload as stored; points into the block
	Secret bool   // it is encrypted; see Decrypt
	Key    KeyID  // with a key that is derived from this one

	clearTail uint64
	bound     []byte // what the ciphertext is bound to
}

// ParseBlock reads the header of an encoded block and checks its shape; the payload is not decompressed.
func ParseBlock(b []byte) (Header, error) {
	h, rest, err := parseHeader(b, len(b))
	h.Stored = rest
	if err == nil && h.Secret {
		err = h.parseSecret(b)
	}
	return h, err
}

// ParseHeader reads the header of a block of which only the first bytes are at hand (MaxHeader are enough); size is
// the length of the whole block. Stored is left nil.
func ParseHeader(b []byte, size int) (Header, error) {
	h, _, err := parseHeader(b, size)
	return h, err
}

func parseHeader(b []byte, size int) (h Header, rest []byte, err error) {
	if len(b) < len(magic) || !bytes.Equal(b[:3], []byte(magic[:3])) {
		return h, nil, errors.New("ledger: not a block")
	}
	if b[3] != magic[3] {
		return h, nil, fmt.Errorf("ledger: block version %d is not known to this build", b[3])
	}
	d := decoder{b: b[4:]}
	flags, codec := d.byte(), d.byte()
	id := d.take(int(d.byte()))
	h.Session = string(id)
	h.Number = d.uvarint()
	h.FirstSeq = d.uvarint()
	count := d.uvarint()
	h.Carry = d.uvarint()
	copy(h.Prev[:], d.take(32))
	h.Raw = d.uvarint()
	stored := d.uvarint()
	if d.err != nil {
		return h, nil, fmt.Errorf("ledger: block header: %w", d.err)
	}
	switch {
	case flags&^(flagSeal|flagSecret) != 0 || flags == flagSeal|flagSecret:
		return h, nil, fmt.Errorf("ledger: block header: flags %#x are not known to this build", flags)
	case codec != codecRaw && codec != codecZstd:
		return h, nil, fmt.Errorf("ledger: block header: codec %d is not known to this build", codec)
	case !ValidSession(h.Session):
		return h, nil, errors.New("ledger: block header: session id is malformed")
	case count > MaxPayload || h.Carry > MaxRecord || h.FirstSeq > 1<<62 || h.Number > 1<<62:
		return h, nil, errors.New("ledger: block header: number out of range")
	case h.Raw > MaxPayload || stored > MaxStored || (codec == codecRaw && flags&flagSecret == 0 && h.Raw != stored):
		return h, nil, errors.New("ledger: block header: payload length out of range")
	case stored != uint64(size-len(b)+len(d.b)):
		return h, nil, fmt.Errorf("ledger: block has %d payload bytes, its header says %d", size-len(b)+len(d.b), stored)
	}
	h.Seal, h.Secret = flags&flagSeal != 0, flags&flagSecret != 0
	h.LastSeq = h.FirstSeq + count - 1
	h.Codec = codec
	return h, d.b, nil
}

// DecodeBlock parses an encoded block and computes its hash. Bytes of the result is b itself.
func DecodeBlock(b []byte) (core.Block, error) {
	h, err := ParseBlock(b)
	if err != nil {
		return core.Block{}, err
	}
	return core.Block{Header: h.BlockHeader, Hash: sha256.Sum256(b), Bytes: b}, nil
}

var decompressors = sync.Pool{New: func() any {
	zr, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxPayload), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic("ledger: the decompressor's options are wrong: " + err.Error()) // constants only
	}
	return zr
}}

// Payload returns the block's payload. A raw payload points into the block; a compressed one is put into room, which
// may be nil.
func (h *Header) Payload(room []byte) ([]byte, error) {
	if h.Secret {
		return nil, fmt.Errorf("ledger: block %d of %s: %w", h.Number, h.Session, ErrNoKey)
	}
	if h.Codec == codecRaw {
		return h.Stored, nil
	}
	zr := decompressors.Get().(*zstd.Decoder)
	defer decompressors.Put(zr)
	// The announced length sizes the buffer only as far as the stored bytes make it plausible.
	hint := min(h.Raw, uint64(len(h.Stored))*32+1024)
	if uint64(cap(room)) < hint {
		room = make([]byte, 0, hint)
	}
	p, err := zr.DecodeAll(h.Stored, room[:0])
	if err != nil {
		return nil, fmt.Errorf("ledger: block %d of %s: payload: %w", h.Number, h.Session, err)
	}
	if uint64(len(p)) != h.Raw {
		return nil, fmt.Errorf("ledger: block %d of %s: payload has %d bytes, its header says %d", h.Number, h.Session, len(p), h.Raw)
	}
	return p, nil
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail(errShort)
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}
