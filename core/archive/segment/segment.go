// Package segment is the form in which stores keep blocks: one after the other, of any sessions, each in a frame, behind
// a head that says which segment it is. The layout is written down in core/ARCHIVE.md.
package segment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

const (
	magic = "WEIRSEG\x01"
	// HeadSize is the length of a segment's head in bytes.
	HeadSize   = len(magic) + 8
	frameMagic = "WBLK"
	// FrameHead is the length in bytes of what stands before a block: a magic, the block's length and its hash.
	FrameHead = len(frameMagic) + 4 + sha256.Size
	maxBlock  = ledger.MaxHeader + ledger.MaxStored

	extension = ".weir"
	sideFile  = ".index"
)

// Name returns the name of a segment's file or object.
func Name(number uint32) string { return fmt.Sprintf("%08d%s", number, extension) }

// IndexName returns the name of a segment's side file.
func IndexName(number uint32) string { return fmt.Sprintf("%08d%s", number, sideFile) }

// Number returns the number of the segment that has this name.
func Number(name string) (uint32, bool) {
	digits, ok := strings.CutSuffix(path.Base(name), extension)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), err == nil && Name(uint32(n)) == path.Base(name)
}

// Head returns the head of a segment.
func Head(number uint32) []byte { return binary.BigEndian.AppendUint64([]byte(magic), uint64(number)) }

// Check reports what is wrong with a block that is to be stored: header and hash must be those of its bytes.
func Check(b *core.Block) error {
	h, err := ledger.ParseBlock(b.Bytes)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if h.BlockHeader != b.Header || sha256.Sum256(b.Bytes) != b.Hash {
		return fmt.Errorf("archive: block %d of %s: header or hash is not that of its bytes", h.Number, h.Session)
	}
	return nil
}

// AppendFrame appends a block in its frame.
func AppendFrame(dst []byte, b *core.Block) []byte {
	dst = append(dst, frameMagic...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(b.Bytes)))
	dst = append(dst, b.Hash[:]...)
	return append(dst, b.Bytes...)
}

// Block makes a block of what is stored of it: its hash and its bytes, in which the result points. Nothing is verified.
func Block(session string, r Ref, stored []byte) core.Block {
	b := core.Block{
		Header: core.BlockHeader{Session: session, Number: r.Number}, Hash: [32]byte(stored), Bytes: stored[sha256.Size:len(stored):len(stored)],
	}
	if h, err := ledger.ParseBlock(b.Bytes); err == nil {
		b.Header = h.BlockHeader
	}
	return b
}

// Ref says where a block lies.
type Ref struct {
	Number       uint64
	Segment      uint32
	Offset, Size uint32 // of the block itself, behind its frame's head
}

// Stored returns where the block's hash and bytes lie, and how long they are.
func (r Ref) Stored() (offset int64, size int) {
	return int64(r.Offset) - sha256.Size, sha256.Size + int(r.Size)
}

// Frame is a block that was found in a segment.
type Frame struct {
	Session string
	Ref
}

// Refs are where the blocks of one session lie, in the order of their numbers.
type Refs []Ref

// Find returns the position of a number, and whether it is there.
func (r Refs) Find(number uint64) (int, bool) {
	if n := len(r); n == 0 || r[n-1].Number < number { // nearly always
		return n, false
	}
	return slices.BinarySearchFunc(r, number, func(a Ref, n uint64) int {
		switch {
		case a.Number < n:
			return -1
		case a.Number > n:
			return 1
		}
		return 0
	})
}

// Directory knows where the blocks of every session lie. It is not safe for concurrent use.
type Directory map[string]*Refs

// Add takes frames in. One whose number is known changes nothing.
func (d Directory) Add(frames ...Frame) {
	for _, f := range frames {
		list := d[f.Session]
		if list == nil {
			list = &Refs{}
			d[f.Session] = list
		}
		if i, ok := list.Find(f.Number); !ok {
			*list = slices.Insert(*list, i, f.Ref)
		}
	}
}

// Replace forgets what lay in a segment, and takes in what lies there now.
func (d Directory) Replace(number uint32, frames []Frame) {
	d.Drop(number)
	d.Add(frames...)
}

// Holding returns some sessions as a set, and the segments that hold a block of them.
func (d Directory) Holding(sessions []string) (set map[string]bool, segments map[uint32]bool) {
	set, segments = map[string]bool{}, map[uint32]bool{}
	for _, id := range sessions {
		set[id] = true
		for _, r := range d.Of(id) {
			segments[r.Segment] = true
		}
	}
	return set, segments
}

// Drop forgets what lies in a segment.
func (d Directory) Drop(number uint32) {
	for id, list := range d {
		*list = slices.DeleteFunc(*list, func(r Ref) bool { return r.Segment == number })
		if len(*list) == 0 {
			delete(d, id)
		}
	}
}

// Find returns where a block lies.
func (d Directory) Find(session string, number uint64) (Ref, bool) {
	r := d[session]
	if r == nil {
		return Ref{}, false
	}
	i, ok := r.Find(number)
	if !ok {
		return Ref{}, false
	}
	return (*r)[i], true
}

// Of returns a copy of where a session's blocks lie.
func (d Directory) Of(session string) Refs {
	if r := d[session]; r != nil {
		return slices.Clone(*r)
	}
	return nil
}

// Names returns every session's id, in no order.
func (d Directory) Names() []string { return slices.Collect(maps.Keys(d)) }

// Each calls f with each id, until one fails or ctx ends.
func Each(ctx context.Context, ids []string, f func(id string) error) error {
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f(id); err != nil {
			return err
		}
	}
	return nil
}

// Unlisted says what is wrong with frames that were found in a segment, where d, made from side files, does not know
// them, or has them elsewhere.
func (d Directory) Unlisted(frames []Frame) []string {
	var out []string
	for _, f := range frames {
		switch known, ok := d.Find(f.Session, f.Number); {
		case !ok:
			out = append(out, fmt.Sprintf("segment %d holds block %d of session %s, which the side file does not list: remove *.index and look again", f.Segment, f.Number, f.Session))
		case known != f.Ref:
			out = append(out, fmt.Sprintf("segment %d at %d holds block %d of session %s a second time", f.Segment, f.Offset, f.Number, f.Session))
		}
	}
	return out
}

// Missing says which segments are not there, of numbers in ascending order.
func Missing(numbers []uint32) []string {
	var out []string
	next := uint32(1)
	for _, n := range numbers {
		for ; next < n; next++ {
			if next+16 < n {
				out = append(out, fmt.Sprintf("segments %d to %d are missing", next, n-1))
				break
			}
			out = append(out, fmt.Sprintf("segment %d is missing", next))
		}
		next = n + 1
	}
	return out
}

// Scan reads the frames of a segment of a size from an offset on. It returns how far it could read, and what is damaged
// on the way. In the last segment an unfinished frame at the end is not damage, it is where the scan stops.
func Scan(f io.ReaderAt, size int64, number uint32, from int64, last bool) (frames []Frame, end int64, damage []string, err error) {
	at := from
	if at < int64(HeadSize) {
		head := make([]byte, HeadSize)
		if _, err := f.ReadAt(head, 0); err != nil {
			if last {
				return nil, 0, nil, nil
			}
			return nil, size, []string{fmt.Sprintf("segment %d is cut short", number)}, nil
		}
		if !bytes.Equal(head, Head(number)) {
			damage = append(damage, fmt.Sprintf("segment %d does not begin as it should", number))
		}
		at = int64(HeadSize)
	}
	for at < size {
		fr, err := readFrame(f, at, size, number, last)
		if err == nil {
			frames = append(frames, fr)
			at = int64(fr.Offset) + int64(fr.Size)
			continue
		}
		if !errors.Is(err, errFrame) {
			return nil, from, nil, fmt.Errorf("archive: segment %d: %w", number, err)
		}
		next, err := resync(f, at+1, size, number)
		if err != nil {
			return nil, from, nil, fmt.Errorf("archive: segment %d: %w", number, err)
		}
		if next < 0 && last {
			return frames, at, damage, nil
		}
		if next < 0 {
			next = size
		}
		damage = append(damage, fmt.Sprintf("segment %d: bytes %d to %d hold no block", number, at, next))
		at = next
	}
	return frames, at, damage, nil
}

var errFrame = errors.New("not a frame")

// readFrame reads the frame at an offset; whole also checks the block's hash.
func readFrame(f io.ReaderAt, at, size int64, number uint32, whole bool) (Frame, error) {
	var fr Frame
	head := make([]byte, FrameHead+ledger.MaxHeader)
	n, err := f.ReadAt(head, at)
	if err != nil && err != io.EOF {
		return fr, err
	}
	head = head[:n]
	if n < FrameHead || string(head[:len(frameMagic)]) != frameMagic {
		return fr, errFrame
	}
	length := int64(binary.BigEndian.Uint32(head[len(frameMagic):]))
	if length > int64(maxBlock) || at+int64(FrameHead)+length > size {
		return fr, errFrame
	}
	block := head[FrameHead:]
	if int64(len(block)) > length {
		block = block[:length]
	}
	h, err := ledger.ParseHeader(block, int(length))
	if err != nil {
		return fr, errFrame
	}
	if whole {
		b := make([]byte, length)
		if _, err := f.ReadAt(b, at+int64(FrameHead)); err != nil {
			return fr, err
		}
		if sha256.Sum256(b) != [32]byte(head[len(frameMagic)+4:FrameHead]) {
			return fr, errFrame
		}
	}
	fr.Session = h.Session
	fr.Ref = Ref{Number: h.Number, Segment: number, Offset: uint32(at) + uint32(FrameHead), Size: uint32(length)}
	return fr, nil
}

// resync finds the next offset at which a frame begins, or -1.
func resync(f io.ReaderAt, from, size int64, number uint32) (int64, error) {
	buf := make([]byte, 64<<10)
	for from < size {
		n, err := f.ReadAt(buf, from)
		if err != nil && err != io.EOF {
			return 0, err
		}
		for i := 0; ; {
			j := bytes.Index(buf[i:n], []byte(frameMagic))
			if j < 0 {
				break
			}
			i += j
			_, err := readFrame(f, from+int64(i), size, number, false)
			if err == nil {
				return from + int64(i), nil
			}
			if !errors.Is(err, errFrame) {
				return 0, err
			}
			i++
		}
		if n < len(buf) {
			break
		}
		from += int64(n - len(frameMagic) + 1)
	}
	return -1, nil
}
