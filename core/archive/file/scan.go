package file

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-gateway/weir/core/ledger"
)

// frame is where a block was found.
type frame struct {
	session string
	ref
}

// list returns the numbers of the segments in the directory, ascending.
func (s *Store) list() ([]uint32, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	var out []uint32
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), extension)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(name, 10, 32)
		if err == nil && filepath.Base(s.path(uint32(n))) == e.Name() {
			out = append(out, uint32(n))
		}
	}
	slices.Sort(out)
	return out, nil
}

// refresh looks at what has been added since the last time.
func (s *Store) refresh() error {
	numbers, err := s.list()
	if err != nil {
		return err
	}
	for i, n := range numbers {
		info, err := os.Stat(s.path(n))
		if err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		seg := s.segments[n]
		if seg == nil {
			seg = &segment{}
			s.segments[n] = seg
			if frames, ok := readSidecar(s, n, info.Size()); ok {
				for _, f := range frames {
					s.add(f.session, f.ref)
				}
				seg.end = info.Size()
			}
		}
		if seg.end >= info.Size() {
			continue
		}
		last := i == len(numbers)-1
		frames, end, damage, err := scan(s.path(n), n, seg.end, last)
		if err != nil {
			return err
		}
		for _, f := range frames {
			s.add(f.session, f.ref)
		}
		seg.end = end
		seg.damage = append(seg.damage, damage...)
	}
	if n := len(numbers); n > 0 {
		s.current = max(s.current, numbers[n-1])
	}
	return nil
}

// resume makes the last segment the active one. A torn last frame, which was never acknowledged, is set aside in a
// file of its own: nothing of an archive is ever thrown away. A damaged segment is left alone and a new one begun.
func (s *Store) resume() error {
	if s.current == 0 {
		return nil
	}
	path := s.path(s.current)
	seg := s.segments[s.current]
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if info.Mode().Perm()&0o200 == 0 || len(seg.damage) > 0 {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if seg.end < int64(segmentHead) { // the process ended while the file was made
		_, err = f.WriteAt(binary.BigEndian.AppendUint64([]byte(segmentMagic), uint64(s.current)), 0)
		seg.end = int64(segmentHead)
	}
	if torn := info.Size() - seg.end; err == nil && torn > 0 {
		tail := make([]byte, torn)
		if _, err = f.ReadAt(tail, seg.end); err == nil {
			name := strings.TrimSuffix(path, extension) + fmt.Sprintf("-%d.torn", seg.end)
			if err = os.WriteFile(name, tail, 0o400); errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrPermission) {
				err = nil
			}
		}
		if err == nil {
			err = f.Truncate(seg.end)
		}
	}
	if err == nil {
		err = s.sync(f)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("archive: segment %d: %w", s.current, err), f.Close())
	}
	s.active = f
	return nil
}

// scan reads the frames of a segment from an offset on. It returns how far it could read; in the last segment an
// unfinished frame at the end is not damage, it is where the scan stops.
func scan(path string, number uint32, from int64, last bool) (frames []frame, end int64, damage []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, from, nil, fmt.Errorf("archive: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, from, nil, fmt.Errorf("archive: %w", err)
	}
	size := info.Size()
	at := from
	if at < int64(segmentHead) {
		head := make([]byte, segmentHead)
		if _, err := f.ReadAt(head, 0); err != nil {
			if last {
				return nil, 0, nil, nil
			}
			return nil, size, []string{fmt.Sprintf("segment %d is cut short", number)}, nil
		}
		if !bytes.Equal(head, binary.BigEndian.AppendUint64([]byte(segmentMagic), uint64(number))) {
			damage = append(damage, fmt.Sprintf("segment %d does not begin as it should", number))
		}
		at = int64(segmentHead)
	}
	for at < size {
		fr, err := readFrame(f, at, size, number, last)
		if err == nil {
			frames = append(frames, fr)
			at = int64(fr.offset) + int64(fr.size)
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
func readFrame(f io.ReaderAt, at, size int64, number uint32, whole bool) (frame, error) {
	var fr frame
	head := make([]byte, frameHead+ledger.MaxHeader)
	n, err := f.ReadAt(head, at)
	if err != nil && err != io.EOF {
		return fr, err
	}
	head = head[:n]
	if n < frameHead || string(head[:len(frameMagic)]) != frameMagic {
		return fr, errFrame
	}
	length := int64(binary.BigEndian.Uint32(head[len(frameMagic):]))
	if length > int64(maxBlock) || at+int64(frameHead)+length > size {
		return fr, errFrame
	}
	block := head[frameHead:]
	if int64(len(block)) > length {
		block = block[:length]
	}
	h, err := ledger.ParseHeader(block, int(length))
	if err != nil {
		return fr, errFrame
	}
	if whole {
		b := make([]byte, length)
		if _, err := f.ReadAt(b, at+int64(frameHead)); err != nil {
			return fr, err
		}
		if sha256.Sum256(b) != [32]byte(head[len(frameMagic)+4:frameHead]) {
			return fr, errFrame
		}
	}
	fr.session = h.Session
	fr.ref = ref{number: h.Number, segment: number, offset: uint32(at) + uint32(frameHead), size: uint32(length)}
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

// Damage implements ledger.Checker: it looks at every segment anew, whatever the side files say.
func (s *Store) Damage(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	numbers, err := s.list()
	if err != nil {
		return nil, err
	}
	var out []string
	next := uint32(1)
	for i, n := range numbers {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		for ; next < n; next++ {
			if next+16 < n {
				out = append(out, fmt.Sprintf("segments %d to %d are missing", next, n-1))
				next = n
				break
			}
			out = append(out, fmt.Sprintf("segment %d is missing", next))
		}
		next = n + 1
		frames, _, damage, err := scan(s.path(n), n, 0, i == len(numbers)-1)
		if err != nil {
			return out, err
		}
		out = append(out, damage...)
		for _, f := range frames {
			var known refs
			if r := s.sessions[f.session]; r != nil {
				known = *r
			}
			switch k, ok := known.find(f.number); {
			case !ok:
				out = append(out, fmt.Sprintf("segment %d holds block %d of session %s, which the side file does not list: remove *.index and look again", n, f.number, f.session))
			case known[k] != f.ref:
				out = append(out, fmt.Sprintf("segment %d at %d holds block %d of session %s a second time", n, f.offset, f.number, f.session))
			}
		}
	}
	return out, nil
}
