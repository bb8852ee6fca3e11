package ssh

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// TestTransferRefused: a refused request has its own answer, in its turn, and the others go on. Without the rule it does its harm.
func TestTransferRefused(t *testing.T) {
	for name, guarded := range map[string]bool{"guarded": true, "not guarded": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			secret, other := filepath.Join(dir, "secret"), filepath.Join(dir, "other")
			for _, p := range []string{secret, other} {
				if err := os.WriteFile(p, []byte("content"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var options []option
			if guarded {
				options = append(options, withChain(deny(secret)))
			}
			g := startGate(t, options...)
			c, err := sftp.NewClient(g.client())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			for what, do := range map[string]func(p string) error{
				"open":  func(p string) error { f, err := c.Open(p); return errors.Join(err, closed(f, err)) },
				"stat":  func(p string) error { _, err := c.Stat(p); return err },
				"chmod": func(p string) error { return c.Chmod(p, 0o600) },
				"append": func(p string) error {
					f, err := c.OpenFile(p, os.O_APPEND|os.O_WRONLY)
					return errors.Join(err, closed(f, err))
				},
				"link":   func(p string) error { return errors.Join(c.Link(p, p+".l"), c.Remove(p+".l")) },
				"around": func(p string) error { _, err := c.Stat(filepath.Dir(p) + "/.//" + filepath.Base(p)); return err },
				"rename": func(p string) error { return errors.Join(c.PosixRename(p, p+".r"), c.Rename(p+".r", p)) },
			} {
				if err := do(other); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				err := do(secret)
				if (err != nil) != guarded {
					t.Errorf("%s of the secret: %v", what, err)
				}
				if guarded && !strings.Contains(err.Error(), "the test says so") && !errors.Is(err, os.ErrPermission) {
					t.Errorf("%s of the secret: %v", what, err)
				}
			}
			if err := c.Remove(secret); (err != nil) != guarded {
				t.Error(err)
			}
			if _, err := os.Stat(secret); (err == nil) != guarded {
				t.Error("the file:", err)
			}
		})
	}
}

func closed(f *sftp.File, err error) error {
	if err != nil {
		return nil
	}
	return f.Close()
}

// TestTransferIsKept: each operation, and what was read and written of each file.
func TestTransferIsKept(t *testing.T) {
	g := startGate(t)
	c, err := sftp.NewClient(g.client())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "f")
	content := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	f, err := c.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	f, err = c.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, content) {
		t.Fatal(len(b), err)
	}
	_ = f.Close()
	_ = c.Close()
	text := g.journal.text()
	hash := fmt.Sprintf("%x", sha256.Sum256(content))
	for _, want := range []string{
		`"action":"sftp open"`, fmt.Sprintf("written %d bytes (0-%d), sha256 %s: %s", len(content), len(content)-1, hash, path), fmt.Sprintf("read %d bytes (0-%d), sha256 %s: %s", len(content), len(content)-1, hash, path),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the record has no %s", want)
		}
	}
}

func request3(kind byte, id uint32, parts ...string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, id)
	for _, p := range parts {
		b = appendString(b, p)
	}
	return append(b, 0, 0, 0, 2, 0, 0, 0, 0)
}

func TestOperations(t *testing.T) {
	for _, c := range []struct {
		packet []byte
		want   string // text, effects, status
	}{
		{request3(fxOpen, 1, "/a/../b"), "open /b [write file] known"},
		{request3(fxOpen, 1, "../b"), "open ../b [write file] incomplete"},
		{request3(fxOpen, 1, "b\x00c"), "open b c [write file] incomplete"},
		{request3(fxOpendir, 1, ""), "list . [read file] known"},
		{request3(fxRemove, 1, "a"), "remove a [write file] known"},
		{request3(fxRename, 1, "a", "/b"), "rename a /b [write file] known"},
		{request3(fxSymlink, 1, "a", "b"), "symlink a b [write file] known"},
		{request3(fxExtended, 1, "posix-rename@openssh.com", "a", "b"), "posix-rename a b [write file] known"},
		{request3(fxExtended, 1, "statvfs@openssh.com", "/"), "statvfs / [read file] known"},
		{request3(fxExtended, 1, "copy-data"), "sftp copy-data [unknown] incomplete"},
		{request3(99, 1, "a"), "sftp request 99 [unknown] incomplete"},
	} {
		x, _, err := (&files{}).request(bytes.Clone(c.packet))
		if err != nil || x == nil {
			t.Errorf("%s: %v", c.want, err)
			continue
		}
		if got := fmt.Sprint(x.Text, " ", x.Effects, " ", x.Status); got != c.want {
			t.Errorf("%s: it is %s", c.want, got)
		}
	}
	init := []byte{fxInit, 0, 0, 0, 6}
	if _, _, err := (&files{}).request(init); err != nil || init[4] != fxVersion {
		t.Error("a later version passes:", init, err)
	}
	if _, _, err := (&files{}).request([]byte{fxOpen, 0, 0, 0, 1, 0, 0, 0, 9, 'a'}); err == nil {
		t.Error("a string that is cut off passes")
	}
}

// TestTransferGarbage: what is not the protocol ends the channel, and only that.
func TestTransferGarbage(t *testing.T) {
	g := startGate(t)
	c := g.client()
	for name, bytes := range map[string]string{"too long": "\xff\xff\xff\xff", "empty": "\x00\x00\x00\x00", "cut": "\x00\x00\x00\x09\x03\x00\x00\x00\x01\x00\x00\x00\x09", "text": "hello, who is there?"} {
		ch, requests, err := c.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(textPayload{"sftp"})); !ok || err != nil {
			t.Fatal(ok, err)
		}
		_, _ = io.WriteString(ch, bytes)
		_ = ch.CloseWrite()
		var status exitPayload
		for r := range requests {
			if r.Type == "exit-status" {
				parse(r.Payload, &status)
			}
		}
		if status.Status != statusRefused {
			t.Errorf("%s: exit status %d", name, status.Status)
		}
	}
	if out, _, err := g.run(c, "echo on", ""); out != "on\n" || err != nil {
		t.Error(out, err)
	}
}

func FuzzOperations(f *testing.F) {
	f.Add(request3(fxOpen, 1, "/a"), request3(fxHandle, 1, "h"))
	f.Add(request3(fxWrite, 1, "h"), request3(fxData, 1, "h"))
	f.Add(request3(fxExtended, 1, "hardlink@openssh.com", "a", "b"), []byte{})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var x files
		for _, p := range [][]byte{a, b, a} {
			c, _, err := x.request(bytes.Clone(p))
			if err == nil && c != nil && (c.Status == "" || c.Text == "" || len(c.Effects) == 0) {
				t.Errorf("%q: %+v", p, c.Text)
			}
			x.answer(p)
		}
	})
}
