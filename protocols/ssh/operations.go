package ssh

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/weir-gateway/weir/core"
)

// Packets of the file transfer protocol, version 3 (draft-ietf-secsh-filexfer-02; OpenSSH's PROTOCOL, 4).
const (
	fxInit     = 1
	fxOpen     = 3
	fxClose    = 4
	fxRead     = 5
	fxWrite    = 6
	fxLstat    = 7
	fxFstat    = 8
	fxSetstat  = 9
	fxFsetstat = 10
	fxOpendir  = 11
	fxReaddir  = 12
	fxRemove   = 13
	fxMkdir    = 14
	fxRmdir    = 15
	fxRealpath = 16
	fxStat     = 17
	fxRename   = 18
	fxReadlink = 19
	fxSymlink  = 20
	fxStatus   = 101
	fxHandle   = 102
	fxData     = 103
	fxExtended = 200

	fxVersion          = 3
	fxPermissionDenied = 3

	flagRead  = 1
	flagWrite = 2

	maxFilePacket = 256<<10 + 1024 // OpenSSH's bound, and a head
	maxHandles    = 1024
	maxWaiting    = 4096
)

var errFilePacket = errors.New("ssh: a packet of the file transfer protocol cannot be read")

// files reads the requests of a file transfer, and keeps account of the files that are open.
type files struct {
	mu      sync.Mutex
	waiting map[uint32]awaited // requests by their numbers, whose answers matter
	open    map[string]*file   // by handle
}

// awaited is a request: an opening, or a reading.
type awaited struct {
	opens *file
	reads *file
	at    uint64
}

// file is one that is open.
type file struct {
	path          string
	use           []string // what it was opened for; empty: a folder, to be listed
	read, written extent
}

// request reads a packet of the client, without its length. It returns what is to be judged, if anything, and what is to be
// said of a file that is closed. A packet may be changed.
func (f *files) request(p []byte) (x *core.Command, closed string, err error) {
	if len(p) < 5 {
		return nil, "", errFilePacket
	}
	kind, id, rest := p[0], binary.BigEndian.Uint32(p[1:]), p[5:]
	if kind == fxInit { // whose number is the version: with a later one requests would mean something else
		binary.BigEndian.PutUint32(p[1:], min(id, fxVersion))
		return nil, "", nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	name, rest, ok := cutString(rest)
	if !ok {
		return nil, "", errFilePacket
	}
	switch kind {
	case fxOpen:
		if len(rest) < 4 {
			return nil, "", errFilePacket
		}
		flags := binary.BigEndian.Uint32(rest)
		use := []string{"read"}
		switch {
		case flags&^uint32(flagRead) != 0 && flags&flagRead != 0:
			use = []string{"read", "write"}
		case flags&^uint32(flagRead) != 0:
			use = []string{"write"}
		}
		return fileCommand("open", use, name), "", f.await(id, awaited{opens: &file{path: string(name), use: use}})
	case fxOpendir:
		return fileCommand("list", []string{"read"}, name), "", f.await(id, awaited{opens: &file{path: string(name)}})
	case fxLstat, fxStat, fxReadlink, fxRealpath:
		return fileCommand(map[byte]string{fxLstat: "stat", fxStat: "stat", fxReadlink: "readlink", fxRealpath: "realpath"}[kind], []string{"read"}, name), "", nil
	case fxSetstat, fxMkdir:
		return fileCommand(map[byte]string{fxSetstat: "setstat", fxMkdir: "mkdir"}[kind], []string{"write"}, name), "", nil
	case fxRemove, fxRmdir:
		return fileCommand(map[byte]string{fxRemove: "remove", fxRmdir: "rmdir"}[kind], []string{"write", "delete"}, name), "", nil
	case fxRename, fxSymlink:
		to, _, ok := cutString(rest)
		if !ok {
			return nil, "", errFilePacket
		}
		return fileCommand(map[byte]string{fxRename: "rename", fxSymlink: "symlink"}[kind], []string{"write"}, name, to), "", nil
	case fxExtended:
		return extendedCommand(string(name), rest), "", nil
	case fxFsetstat, fxFstat, fxReaddir, fxRead, fxWrite, fxClose:
		return f.withHandle(kind, id, string(name), rest)
	}
	c := unknownCommand("sftp", fmt.Sprintf("request %d", kind))
	return c, "", nil
}

// withHandle reads a request about a file that is open.
func (f *files) withHandle(kind byte, id uint32, handle string, rest []byte) (x *core.Command, closed string, err error) {
	o := f.open[handle]
	if o == nil { // handles can be guessed: what is written before its HANDLE has come would not be known
		return unknownCommand("sftp", "a request about a handle that was not given"), "", nil
	}
	switch kind {
	case fxFsetstat:
		return fileCommand("setstat", []string{"write"}, []byte(o.path)), "", nil
	case fxRead:
		if len(rest) != 12 {
			return nil, "", errFilePacket
		}
		return nil, "", f.await(id, awaited{reads: o, at: binary.BigEndian.Uint64(rest)})
	case fxWrite:
		if len(rest) < 12 {
			return nil, "", errFilePacket
		}
		data, _, ok := cutString(rest[8:])
		if !ok {
			return nil, "", errFilePacket
		}
		o.written.add(binary.BigEndian.Uint64(rest), data)
	case fxClose:
		delete(f.open, handle)
		closed = o.text("")
	}
	return nil, closed, nil
}

func (f *files) await(id uint32, w awaited) error {
	if len(f.waiting) >= maxWaiting || len(f.open) >= maxHandles {
		return errors.New("ssh: too many files are open, or too much is asked for at once")
	}
	if f.waiting == nil {
		f.waiting, f.open = map[uint32]awaited{}, map[string]*file{}
	}
	if _, twice := f.waiting[id]; twice { // whose answer it is could not be told
		return errFilePacket
	}
	f.waiting[id] = w
	return nil
}

// forget forgets a request that does not go to the server.
func (f *files) forget(id uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiting, id)
}

// left says what was done with the files that nobody has closed.
func (f *files) left() (list []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.open {
		if len(o.use) > 0 {
			list = append(list, o.text(", not closed"))
		}
	}
	slices.Sort(list)
	return list
}

// answer reads a packet of the server.
func (f *files) answer(p []byte) {
	if len(p) < 5 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	id := binary.BigEndian.Uint32(p[1:])
	w, ok := f.waiting[id]
	if !ok {
		return
	}
	delete(f.waiting, id)
	value, _, ok := cutString(p[5:])
	switch {
	case !ok:
	case p[0] == fxHandle && w.opens != nil:
		f.open[string(value)] = w.opens
	case p[0] == fxData && w.reads != nil:
		w.reads.read.add(w.at, value)
	}
}

// fileCommand is something done to files by their paths. A path that is not absolute begins in the account's home.
func fileCommand(action string, use []string, paths ...[]byte) *core.Command {
	c := &core.Command{Action: "sftp " + action, Fingerprint: "sftp " + action, Effects: []core.Effect{core.EffectFile}, Where: true, Status: core.StatusKnown}
	for _, e := range []core.Effect{core.EffectWrite, core.EffectRead} {
		for _, u := range use {
			if string(e) == u {
				c.Effects = append([]core.Effect{e}, c.Effects...)
			}
		}
	}
	words := []string{action}
	for _, p := range paths {
		name := path.Clean(string(p))
		if len(p) == 0 {
			name = "."
		}
		switch {
		case !utf8.Valid(p) || bytes.IndexByte(p, 0) >= 0:
			c.Status, c.Reason = core.StatusIncomplete, "a path is not text"
		case name == ".." || strings.HasPrefix(name, "../"):
			c.Status, c.Reason = core.StatusIncomplete, "where a path leads depends on the account's home"
		}
		words = append(words, line(name))
		c.Resources = append(c.Resources, core.Resource{Kind: "path", Name: name, Use: use})
	}
	c.Text = strings.Join(words, " ")
	return c
}

// extendedCommand reads a request that is OpenSSH's own (PROTOCOL, 4).
func extendedCommand(name string, rest []byte) *core.Command {
	use, paths := []string{"write"}, 1
	switch name {
	case "posix-rename@openssh.com", "hardlink@openssh.com":
		paths = 2
	case "lsetstat@openssh.com":
	case "statvfs@openssh.com", "expand-path@openssh.com":
		use = []string{"read"}
	case "fsync@openssh.com", "fstatvfs@openssh.com", "limits@openssh.com", "users-groups-by-id@openssh.com", "home-directory":
		return nil // about what is open already, or about nothing
	default: // copy-data too: it would write what no hash has seen
		return unknownCommand("sftp", line(name))
	}
	var list [][]byte
	for range paths {
		p, more, ok := cutString(rest)
		if !ok {
			return unknownCommand("sftp", line(name))
		}
		list, rest = append(list, p), more
	}
	return fileCommand(strings.TrimSuffix(name, "@openssh.com"), use, list...)
}

// deniedAnswer is the answer to a request that is refused, with its length.
func deniedAnswer(id uint32, text string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{fxStatus}, id)
	b = binary.BigEndian.AppendUint32(b, fxPermissionDenied)
	b = appendString(appendString(b, text), "en")
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}
