// Package scp reads the streams of the old copy protocol, which `scp -t` and `scp -f` speak on an exec channel: control
// lines, each answered by a byte, and the bytes of files. It says which files passed, with their sizes and hashes.
//
// The side that has the files (the client for -t, the target for -f) sends what is read here; the other sends only
// answers: 0 for yes, 1 or 2 and a line for no. A file that was refused by its answer is not known to be: its bytes would then
// not come, and what follows is read as the next control line, as the peers do. Decode both sides with one Stream each.
package scp

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The bounds of what is read.
const (
	MaxLine  = 8 << 10 // bytes of a control line
	MaxDepth = 256     // directories within each other
)

// ErrStream is a stream that is not scp's. Nothing can be said of what follows.
var ErrStream = errors.New("scp: the stream cannot be read")

// File is one that has passed.
type File struct {
	Path   string // below what the command named, with / between directories
	Mode   uint32
	Size   int64
	SHA256 [32]byte
}

// Stream reads what the side with the files sends. It keeps one control line, and no bytes of files.
type Stream struct {
	// Begin is asked when a file or a directory is announced, before any of its bytes; an error ends the stream with it.
	Begin func(path string, directory bool, size int64) error
	// Done is told each file that has passed as a whole.
	Done func(f File)

	line []byte
	dirs []string
	file File
	left int64 // bytes of the present file
	ends bool  // the byte behind a file comes
	sum  hash.Hash
	err  error
}

// Write reads a piece of the stream. It never keeps p. After an error it returns the same one again.
func (s *Stream) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && s.err == nil {
		switch {
		case s.left > 0:
			take := min(int64(len(p)), s.left)
			_, _ = s.sum.Write(p[:take])
			s.left -= take
			p = p[take:]
			s.ends = s.left == 0
		case s.ends:
			s.ends = false
			if p[0] == 0 {
				s.sum.Sum(s.file.SHA256[:0])
				if s.Done != nil {
					s.Done(s.file)
				}
				p = p[1:]
				continue
			}
			// 1 and a line: the sender could not read all of it
			if p[0] != 1 && p[0] != 2 {
				s.err = ErrStream
			}
		case len(s.line) == 0 && p[0] == 0: // an answer among the lines
			p = p[1:]
		default:
			i := 0
			for i < len(p) && p[i] != '\n' {
				i++
			}
			if len(s.line)+i > MaxLine {
				s.err = ErrStream
				break
			}
			s.line = append(s.line, p[:i]...)
			if i == len(p) {
				return n, nil
			}
			p = p[i+1:]
			s.err = s.control(s.line)
			s.line = s.line[:0]
		}
	}
	return n - len(p), s.err
}

// Close reports whether the stream has ended between two files. A file that was cut short is not told to Done.
func (s *Stream) Close() error {
	switch {
	case s.err != nil:
		return s.err
	case s.left > 0 || s.ends || len(s.line) > 0:
		return fmt.Errorf("%w: it ends within a file", ErrStream)
	}
	return nil
}

// control reads one line: C and D announce, E goes back up, T has times, 1 and 2 are warnings and errors.
func (s *Stream) control(line []byte) error {
	if len(line) == 0 {
		return ErrStream
	}
	rest := string(line[1:])
	switch line[0] {
	case 1, 2:
		return nil
	case 'T':
		for field := range strings.FieldsSeq(rest) {
			if _, err := strconv.ParseInt(field, 10, 64); err != nil {
				return ErrStream
			}
		}
		return nil
	case 'E':
		if rest != "" || len(s.dirs) == 0 {
			return ErrStream
		}
		s.dirs = s.dirs[:len(s.dirs)-1]
		return nil
	case 'C', 'D':
		return s.announced(line[0] == 'D', rest)
	}
	return ErrStream
}

func (s *Stream) announced(directory bool, rest string) error {
	modeText, rest, ok1 := strings.Cut(rest, " ")
	sizeText, name, ok2 := strings.Cut(rest, " ")
	mode, err1 := strconv.ParseUint(modeText, 8, 32)
	size, err2 := strconv.ParseInt(sizeText, 10, 64)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || mode > 0o7777 || size < 0 {
		return ErrStream
	}
	// a name that leads elsewhere is how a server once wrote where it was not asked to (CVE-2019-6111, CVE-2018-20685)
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") || strings.IndexByte(name, 0) >= 0 || !utf8.ValidString(name) {
		return fmt.Errorf("%w: a name in it is none", ErrStream)
	}
	path := strings.Join(append(append([]string(nil), s.dirs...), name), "/")
	if s.Begin != nil {
		if err := s.Begin(path, directory, size); err != nil {
			return err
		}
	}
	if directory {
		if len(s.dirs) >= MaxDepth {
			return fmt.Errorf("%w: directories lie too deep within each other", ErrStream)
		}
		s.dirs = append(s.dirs, name)
		return nil
	}
	s.file, s.sum, s.left, s.ends = File{Path: path, Mode: uint32(mode), Size: size}, sha256.New(), size, size == 0
	return nil
}
