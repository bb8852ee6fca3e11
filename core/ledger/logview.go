package ledger

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// logView is what a reader sees of a ledger directory.
type logView struct {
	seals    map[string]sealLeaf
	heads    map[string][]Leaf // ascending by Blocks
	tombs    map[string]sealLeaf
	shreds   map[string]sealLeaf
	order    []string // sessions in the log's order, once each
	turns    []Leaf   // changes of its key
	problems []Problem

	leaves    int64
	witnessed []Witnessed
}

type sealLeaf struct {
	Leaf
	covered bool // by the signed checkpoint
}

// rotations returns the changes of the log's key, and goes back to the file's beginning. A line that is none is told by who
// reads them all.
func rotations(f io.ReadSeeker) (out []Leaf, err error) {
	begin := []byte(leafVersion + " " + string(LeafKey) + " ")
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := r.ReadSlice('\n')
		if err == io.EOF {
			_, err := f.Seek(0, io.SeekStart)
			return out, err
		}
		if err != nil {
			return nil, err
		}
		if !bytes.HasPrefix(line, begin) {
			continue
		}
		if l, err := parseLeaf(string(line[:len(line)-1])); err == nil {
			out = append(out, l)
		}
	}
}

func (v *verifier) readLog() error {
	l := &logView{seals: map[string]sealLeaf{}, heads: map[string][]Leaf{}, tombs: map[string]sealLeaf{}, shreds: map[string]sealLeaf{}}
	v.log = l
	note := func(id, format string, args ...any) {
		l.problems = append(l.problems, Problem{Session: id, Block: -1, Seq: -1, Text: fmt.Sprintf(format, args...)})
	}
	// The checkpoint first: by the time the leaves are read there are at least as many as it covers.
	signed, err := os.ReadFile(filepath.Join(v.c.LedgerDir, checkpointFile))
	if err != nil {
		note("", "the log's checkpoint cannot be read: %v", err)
	}
	cosigned := v.readCosigned()
	f, oerr := os.Open(filepath.Join(v.c.LedgerDir, leavesFile))
	if oerr != nil {
		note("", "the log's leaves cannot be read: %v", oerr)
		return nil
	}
	defer f.Close()
	if l.turns, oerr = rotations(f); oerr != nil {
		note("", "the log's leaves cannot be read: %v", oerr)
		return nil
	}
	keys := keysOf(v.c.PublicKey, l.turns)
	cp, cpErr := OpenCheckpoint(signed, keys...)
	if err == nil && cpErr != nil {
		note("", "%v", cpErr)
	}
	var tree memory
	size := int64(0)
	known, deeds := map[string]bool{}, map[string]standing{}
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := r.ReadSlice('\n')
		if err == io.EOF {
			break // a torn line is a leaf that is being written
		}
		if err != nil {
			note("", "the log's leaves cannot be read after leaf %d: %v", size, err)
			break
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		if err := tree.add(size, line); err != nil {
			return err
		}
		leaf, err := parseLeaf(string(line))
		size++
		if err != nil {
			note("", "leaf %d of the log: %v", size-1, err)
			continue
		}
		if leaf.Kind == LeafKey {
			continue
		}
		if !known[leaf.Session] {
			known[leaf.Session] = true
			l.order = append(l.order, leaf.Session)
		}
		if leaf.Kind.deed() {
			next, err := deeds[leaf.Session].after(&leaf)
			if err != nil { // Weir writes no such leaf
				note(leaf.Session, "leaf %d of the log: %s", size-1, strings.TrimPrefix(err.Error(), "ledger: "))
				continue
			}
			deeds[leaf.Session] = next
			switch leaf.Kind {
			case LeafHold: // it says as much of the blocks as a head does
				l.heads[leaf.Session] = append(l.heads[leaf.Session], leaf)
			case LeafGone:
				l.tombs[leaf.Session] = sealLeaf{Leaf: leaf, covered: cpErr == nil && size <= cp.Size}
			case LeafShred:
				l.shreds[leaf.Session] = sealLeaf{Leaf: leaf, covered: cpErr == nil && size <= cp.Size}
			}
			continue
		}
		if leaf.Kind == LeafHead {
			l.heads[leaf.Session] = append(l.heads[leaf.Session], leaf)
			continue
		}
		if old, ok := l.seals[leaf.Session]; ok && old.Hash != leaf.Hash {
			note(leaf.Session, "the log has two different seals of the session (leaf %d)", size-1)
		}
		l.seals[leaf.Session] = sealLeaf{Leaf: leaf, covered: cpErr == nil && size <= cp.Size}
	}
	for _, h := range l.heads {
		slices.SortStableFunc(h, func(a, b Leaf) int { return int(min(max(int64(a.Blocks)-int64(b.Blocks), -1), 1)) })
	}
	l.leaves = size
	check := func(cp Checkpoint, what string) error {
		if cp.Size > size {
			note("", "the log has %d leaves, %s was signed for %d: leaves were cut off", size, what, cp.Size)
			return nil
		}
		root, err := tree.root(cp.Size)
		if err != nil {
			return err
		}
		if root != cp.Root {
			note("", "the log's leaves are not those that %s was signed for", what)
		}
		return nil
	}
	if cpErr == nil {
		if err := check(cp, "its checkpoint"); err != nil {
			return err
		}
	}
	for _, t := range l.turns { // the log, which is signed, says which keys came before
		keys = append(keys, t.OldKey)
	}
	if err := v.checkCosigned(cosigned, keys, size, &tree); err != nil {
		return err
	}
	if v.c.Checkpoint != nil {
		kept, err := OpenCheckpoint(v.c.Checkpoint, keys...)
		if err != nil {
			note("", "the checkpoint kept elsewhere: %v", err)
			return nil
		}
		return check(kept, "the checkpoint kept elsewhere")
	}
	return nil
}
