package scp

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func decode(t *testing.T, stream string, piece int) (files []string, err error) {
	t.Helper()
	s := &Stream{Done: func(f File) { files = append(files, fmt.Sprintf("%s %o %d %x", f.Path, f.Mode, f.Size, f.SHA256[:4])) }}
	for b := []byte(stream); len(b) > 0 && err == nil; {
		n := min(piece, len(b))
		_, err = s.Write(b[:n])
		b = b[n:]
	}
	return files, errors.Join(err, s.Close())
}

func line(path string, mode, size int, data string) string {
	sum := sha256.Sum256([]byte(data))
	return fmt.Sprintf("%s %o %d %x", path, mode, size, sum[:4])
}

func TestStream(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, stream string
		files        []string
		bad          bool
	}{
		{"a file", "C0644 5 a\nhello\x00", []string{line("a", 0o644, 5, "hello")}, false},
		{"an empty file", "C0644 0 a\n\x00", []string{line("a", 0o644, 0, "")}, false},
		{"spaces in a name", "C0600 2 a b \nhi\x00", []string{line("a b ", 0o600, 2, "hi")}, false},
		{"times", "T1 0 2 0\nC0644 2 a\nhi\x00", []string{line("a", 0o644, 2, "hi")}, false},
		{"directories", "D0755 0 d\nC0644 2 a\nhi\x00D0755 0 e\nE\nE\nC0644 1 b\nx\x00", []string{line("d/a", 0o644, 2, "hi"), line("b", 0o644, 1, "x")}, false},
		{"an answer first", "\x00C0644 2 a\nhi\x00", []string{line("a", 0o644, 2, "hi")}, false},
		{"a warning", "\x01scp: x: No such file\nC0644 2 a\nhi\x00", []string{line("a", 0o644, 2, "hi")}, false},
		{"could not read all", "C0644 2 a\nhi\x01scp: a: error\n", nil, false},
		{"a control line in a file", "C0644 12 a\nC0644 9 x\nyz\x00", []string{line("a", 0o644, 12, "C0644 9 x\nyz")}, false},
		{"a name that goes up", "C0644 2 ..\nhi\x00", nil, true},
		{"a name with a slash", "C0644 2 ../../etc/passwd\nhi\x00", nil, true},
		{"a name that is here", "D0777 0 .\n", nil, true},
		{"no name", "C0644 2 \nhi\x00", nil, true},
		{"a size below nothing", "C0644 -2 a\n", nil, true},
		{"a size that is none", "C0644 99999999999999999999 a\n", nil, true},
		{"a mode that is none", "C9999 2 a\n", nil, true},
		{"up without a directory", "E\n", nil, true},
		{"another letter", "X\n", nil, true},
		{"a line without end", "C0644 1 " + strings.Repeat("a", MaxLine), nil, true},
		{"too deep", strings.Repeat("D0755 0 d\n", MaxDepth+1), nil, true},
		{"cut in a file", "C0644 5 a\nhel", nil, true},
		{"cut in a line", "C0644 5", nil, true},
		{"no answer behind a file", "C0644 2 a\nhiC", nil, true},
	} {
		for _, piece := range []int{1, 3, 1 << 20} {
			files, err := decode(t, c.stream, piece)
			if !slices.Equal(files, c.files) || (err != nil) != c.bad {
				t.Errorf("%s by %d: %q, %v", c.name, piece, files, err)
			}
		}
	}
}

func TestBeginRefuses(t *testing.T) {
	t.Parallel()
	no := errors.New("no")
	done := 0
	s := &Stream{Begin: func(path string, _ bool, _ int64) error { return map[bool]error{true: no}[path == "d/secret"] }, Done: func(File) { done++ }}
	if _, err := s.Write([]byte("D0755 0 d\nC0644 1 a\nx\x00C0644 1 secret\nx\x00")); !errors.Is(err, no) || done != 1 {
		t.Errorf("%v, %d files", err, done)
	}
	if _, err := s.Write([]byte("C0644 1 b\nx\x00")); !errors.Is(err, no) {
		t.Errorf("after a refusal: %v", err)
	}
}

// TestRealSCP: what OpenSSH's scp sends of a tree is read as the tree is.
func TestRealSCP(t *testing.T) {
	t.Parallel()
	bin, err := exec.LookPath("scp")
	if err != nil {
		t.Skip("no scp here")
	}
	dir := t.TempDir()
	data := bytes.Repeat([]byte("0123456789\x00\n"), 100_000)
	if err := os.MkdirAll(filepath.Join(dir, "d", "e"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"d/big": data, "d/e/small one": []byte("x"), "d/empty": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.CommandContext(t.Context(), bin, "-r", "-p", "-f", filepath.Join(dir, "d"))
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() { // says yes to all
		_, _ = in.Write(make([]byte, 64))
		_ = in.Close()
	}()
	got := map[string]File{}
	s := &Stream{Done: func(f File) { got[f.Path] = f }}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(s, out); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // it is told yes more often than it asks
	if err := s.Close(); err != nil || len(got) != 3 {
		t.Fatalf("%v: %v", err, got)
	}
	if f := got["d/big"]; f.SHA256 != sha256.Sum256(data) || f.Size != int64(len(data)) || f.Mode != 0o600 {
		t.Errorf("%+v", f)
	}
	if f := got["d/e/small one"]; f.SHA256 != sha256.Sum256([]byte("x")) {
		t.Errorf("%+v", f)
	}
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("T1 0 2 0\nD0755 0 d\nC0644 2 a\nhi\x00E\n"), uint8(1))
	f.Add([]byte("C0644 0 a\n\x00\x01w\n"), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		one, errOne := decode(t, string(b), len(b)+1)
		many, errMany := decode(t, string(b), int(piece)+1)
		if !slices.Equal(one, many) || (errOne == nil) != (errMany == nil) {
			t.Fatalf("at once %q %v, in pieces %q %v", one, errOne, many, errMany)
		}
	})
}
