package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/file"
	"github.com/weir-gateway/weir/core/archive/storetest"
	"github.com/weir-gateway/weir/core/ledger"
)

// tree is the files of an archive and a ledger.
type tree map[string][]byte

func readTree(t *testing.T, dir string) tree {
	t.Helper()
	out := tree{}
	for _, pattern := range []string{"archive/*.weir", "archive/*.index", "ledger/leaves", "ledger/hashes", "ledger/checkpoint"} {
		names, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err != nil {
				t.Fatal(err)
			}
			rel, _ := filepath.Rel(dir, n)
			out[rel] = b
		}
	}
	return out
}

func (f tree) clone() tree {
	out := tree{}
	for n, b := range f {
		out[n] = bytes.Clone(b)
	}
	return out
}

// write puts the tree into dir, touching only what differs from what is there.
func (f tree) write(t *testing.T, dir string, there tree) {
	t.Helper()
	for n := range there {
		if _, ok := f[n]; !ok {
			os.Remove(filepath.Join(dir, n))
		}
	}
	for n, b := range f {
		if old, ok := there[n]; ok && bytes.Equal(old, b) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// meaning is what a reader gets out of a tree: the blocks of each session, the leaves, the checkpoint.
func meaning(t *testing.T, dir, key string, f tree) [32]byte {
	t.Helper()
	h := sha256.New()
	s, err := file.Open(filepath.Join(dir, "archive"), file.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var ids []string
	_ = s.Sessions(context.Background(), func(id string) error { ids = append(ids, id); return nil })
	sort.Strings(ids)
	for _, id := range ids {
		fmt.Fprintf(h, "session %s\n", id)
		err := s.Blocks(context.Background(), id, func(b core.Block) error {
			fmt.Fprintf(h, "%x\n", sha256.Sum256(b.Bytes))
			return nil
		})
		if err != nil {
			fmt.Fprintln(h, "unreadable")
		}
	}
	leaves := f["ledger/leaves"]
	h.Write(leaves[:bytes.LastIndexByte(leaves, '\n')+1])
	c, err := ledger.OpenCheckpoint(f["ledger/checkpoint"], key)
	fmt.Fprintf(h, "%+v %v", c, err != nil)
	return [32]byte(h.Sum(nil))
}

// frames splits a segment.
func frames(b []byte) (head []byte, out [][]byte) {
	head, b = b[:16], b[16:]
	for len(b) > 40 {
		n := 40 + int(binary.BigEndian.Uint32(b[4:]))
		if n > len(b) {
			break
		}
		out = append(out, b[:n])
		b = b[n:]
	}
	return head, out
}

func join(head []byte, list [][]byte) []byte {
	return append(bytes.Clone(head), bytes.Join(list, nil)...)
}

func frameOf(b core.Block) []byte {
	f := binary.BigEndian.AppendUint32([]byte("WBLK"), uint32(len(b.Bytes)))
	return append(append(f, b.Hash[:]...), b.Bytes...)
}

type mutation struct {
	name string
	// f returns the file's new bytes; it may change other files of the tree now
	f func(r *rand.Rand, now, old tree, name string, b []byte) (string, []byte)
}

// plain mutations change the bytes of one file, whichever it is.
var plainMutations = []mutation{
	{"flip a bit", func(r *rand.Rand, _, _ tree, n string, b []byte) (string, []byte) {
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		return n, b
	}},
	{"change bytes", func(r *rand.Rand, _, _ tree, n string, b []byte) (string, []byte) {
		at := r.IntN(len(b))
		for i := range min(1+r.IntN(20), len(b)-at) {
			b[at+i] = byte(r.Uint32())
		}
		return n, b
	}},
	{"truncate", func(r *rand.Rand, _, _ tree, n string, b []byte) (string, []byte) { return n, b[:r.IntN(len(b))] }},
	{"remove the file", func(_ *rand.Rand, _, _ tree, n string, _ []byte) (string, []byte) { return n, nil }},
	{"insert", func(r *rand.Rand, _, _ tree, n string, b []byte) (string, []byte) {
		at := r.IntN(len(b) + 1)
		more := make([]byte, 1+r.IntN(50))
		for i := range more {
			more[i] = byte(r.Uint32())
		}
		return n, append(append(bytes.Clone(b[:at]), more...), b[at:]...)
	}},
	{"cut out", func(r *rand.Rand, _, _ tree, n string, b []byte) (string, []byte) {
		at := r.IntN(len(b))
		to := min(len(b), at+1+r.IntN(100))
		return n, append(bytes.Clone(b[:at]), b[to:]...)
	}},
	{"an old copy", func(_ *rand.Rand, _, old tree, n string, _ []byte) (string, []byte) { return n, old[n] }},
	{"another file's bytes", func(r *rand.Rand, now, _ tree, n string, b []byte) (string, []byte) {
		names := segments(now)
		return n, bytes.Clone(now[names[r.IntN(len(names))]])
	}},
}

// frameMutations change a segment as somebody would who knows the format.
var frameMutations = []mutation{
	{"remove a block", func(r *rand.Rand, _, _ tree, n string, b []byte) (string, []byte) {
		h, list := frames(b)
		i := r.IntN(len(list))
		return n, join(h, append(list[:i:i], list[i+1:]...))
	}},
	{"swap blocks", func(r *rand.Rand, _, _ tree, n string, b []byte) (string, []byte) { // their order in the file means nothing
		h, list := frames(b)
		i, k := r.IntN(len(list)), r.IntN(len(list))
		list[i], list[k] = list[k], list[i]
		return n, join(h, list)
	}},
	{"replace a block by another", func(r *rand.Rand, _, _ tree, n string, b []byte) (string, []byte) {
		h, list := frames(b)
		list[r.IntN(len(list))] = list[r.IntN(len(list))]
		return n, join(h, list)
	}},
	{"change a block and its hash", func(r *rand.Rand, _, _ tree, n string, b []byte) (string, []byte) {
		h, list := frames(b)
		i := r.IntN(len(list))
		f := bytes.Clone(list[i])
		f[40+r.IntN(len(f)-40)] ^= 1 << r.IntN(8)
		sum := sha256.Sum256(f[40:])
		copy(f[8:], sum[:])
		list[i] = f
		return n, join(h, list)
	}},
	{"rewrite a session with a valid chain", func(r *rand.Rand, _, _ tree, n string, b []byte) (string, []byte) {
		h, list := frames(b)
		blk, err := ledger.DecodeBlock(list[r.IntN(len(list))][40:])
		if err != nil {
			return n, b
		}
		var out [][]byte
		for _, f := range list {
			if x, err := ledger.DecodeBlock(f[40:]); err != nil || x.Header.Session != blk.Header.Session {
				out = append(out, f)
			}
		}
		for _, x := range storetest.Session(blk.Header.Session, 3, r.Uint64()) {
			out = append(out, frameOf(x))
		}
		return n, join(h, out)
	}},
	{"change a record and chain again", func(r *rand.Rand, _, _ tree, n string, b []byte) (string, []byte) {
		out, _, _, _ := forge(r, b)
		return n, out
	}},
	{"change a record, chain again, and change the leaf", func(r *rand.Rand, now, _ tree, n string, b []byte) (string, []byte) {
		out, before, after, ok := forge(r, b)
		if ok {
			now["ledger/leaves"] = bytes.Replace(now["ledger/leaves"], fmt.Appendf(nil, "%x", before), fmt.Appendf(nil, "%x", after), 1)
		}
		return n, out
	}},
	{"make up a session", func(r *rand.Rand, _, _ tree, n string, b []byte) (string, []byte) {
		h, list := frames(b)
		for _, x := range storetest.Session("made-up", 3, r.Uint64()) {
			list = append(list, frameOf(x))
		}
		return n, join(h, list)
	}},
}

// forge changes one byte of what a session of the segment says, and makes its chain and seal anew, as somebody would
// who has all of the code but not the key. It returns the segment, and the seal's old and new hash.
func forge(r *rand.Rand, b []byte) (out []byte, before, after [32]byte, ok bool) {
	head, list := frames(b)
	pick, err := ledger.DecodeBlock(list[r.IntN(len(list))][40:])
	if err != nil {
		return b, before, after, false
	}
	var at []int // of the session's frames
	for i, f := range list {
		if x, err := ledger.DecodeBlock(f[40:]); err == nil && x.Header.Session == pick.Header.Session {
			at = append(at, i)
			before = x.Hash
		}
	}
	enc := ledger.NewEncoder()
	for range 200 { // until a change leaves something that can be read
		victim := r.IntN(len(at))
		forged := append([][]byte(nil), list...)
		var dec ledger.Decoder
		var prev [32]byte
		good := true
		for k, i := range at {
			h, err := ledger.ParseBlock(list[i][40:])
			if err != nil || h.Number != uint64(k) {
				return b, before, after, false
			}
			p, err := h.Payload(nil)
			if err != nil {
				return b, before, after, false
			}
			p = bytes.Clone(p)
			if h.Seal {
				s, err := h.ReadSeal()
				if err != nil {
					return b, before, after, false
				}
				old := ledger.AppendSeal(nil, s)
				s.Root = prev
				p = append(p[:len(p)-len(old)], ledger.AppendSeal(nil, s)...)
			}
			if k == victim && len(p) > 0 {
				p[r.IntN(len(p))] ^= 1 << r.IntN(8)
			}
			h.Prev = prev
			x, err := enc.Encode(h.BlockHeader, h.Carry, p)
			if err != nil {
				return b, before, after, false
			}
			nh, _ := ledger.ParseBlock(x.Bytes)
			good = good && dec.Decode(&nh, func(*core.Record, time.Duration) error { return nil }) == nil
			forged[i] = frameOf(x)
			prev = x.Hash
		}
		s := dec.Seal()
		if good && s != nil && s.Records == dec.Next() && s.Blocks == uint64(len(at)) && prev != before {
			return join(head, forged), before, prev, true
		}
	}
	return b, before, after, false
}

func segments(f tree) (out []string) {
	for n := range f {
		if filepath.Ext(n) == ".weir" {
			out = append(out, n)
		}
	}
	sort.Strings(out)
	return out
}

// TestMutations changes a real archive and a real ledger in thousands of ways. Whatever changes what a reader gets out
// of them is reported. WEIR_MUTATIONS sets the number.
func TestMutations(t *testing.T) {
	n := 1500
	if s, err := strconv.Atoi(os.Getenv("WEIR_MUTATIONS")); err == nil {
		n = s
	}
	dir := t.TempDir()
	p := mustStart(t, dir)
	for i := range 25 {
		say(t, p.j, fmt.Sprint("early", i), "alice", "select 1", "drop table x", fmt.Sprint("select ", i))
	}
	p.close(t)
	old := readTree(t, dir)
	for k := range 3 { // several segments: each start of this test's store goes on in the last, so make it small
		s, err := file.Open(filepath.Join(dir, "archive"), file.Options{SegmentSize: 4096})
		if err != nil {
			t.Fatal(err)
		}
		l, err := ledger.Open(filepath.Join(dir, "ledger"), filepath.Join(dir, "keys"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 15 {
			blocks := storetest.Session(fmt.Sprintf("late%d-%d", k, i), 1+i%5, uint64(100*k+i))
			if err := s.Put(context.Background(), blocks); err != nil {
				t.Fatal(err)
			}
			if len(blocks) > 1 {
				if err := l.Append(ledger.LeafOf(blocks[len(blocks)-2], "", time.Unix(5, 0))); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Append(ledger.LeafOf(blocks[len(blocks)-1], core.EndClosed, time.Unix(5, 0))); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		l.Close()
	}
	removeSome(t, dir, "late0-4", "late2-4")
	if r := verify(t, dir); !r.OK() || r.Sessions != 68 || len(r.Removed) != 2 {
		t.Fatalf("before any mutation: %+v", r)
	}
	key, _ := os.ReadFile(filepath.Join(dir, "keys", "ledger.pub"))
	now := readTree(t, dir)
	if len(segments(now)) < 4 {
		t.Fatalf("%d segments", len(segments(now)))
	}
	want := meaning(t, dir, string(key), now)
	var names []string
	for f := range now {
		names = append(names, f)
	}
	sort.Strings(names)
	changed := map[string]int{}
	harmless := 0
	last := now
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range n {
		mutated := now.clone()
		var m mutation
		var name string
		if i%2 == 0 {
			m = plainMutations[rnd.IntN(len(plainMutations))]
			name = names[rnd.IntN(len(names))]
		} else {
			m = frameMutations[rnd.IntN(len(frameMutations))]
			name = segments(now)[rnd.IntN(len(segments(now)))]
		}
		to, b := m.f(rnd, mutated, old, name, mutated[name])
		if b == nil {
			delete(mutated, to)
		} else {
			mutated[to] = b
		}
		mutated.write(t, dir, last)
		last = mutated
		differs := meaning(t, dir, string(key), mutated) != want
		if !differs {
			harmless++
			continue
		}
		changed[m.name]++
		if r := verifyOnce(t, dir, string(key)); r.OK() {
			t.Fatalf("mutation %d, %q of %s: not found; open: %v", i, m.name, name, r.Open)
		}
	}
	t.Logf("%d mutations changed what is read, all were reported; %d changed nothing; by kind: %v", n-harmless, harmless, changed)
	if n-harmless < n/3 {
		t.Error("too few mutations changed anything")
	}
	now.write(t, dir, last)

	// All of it rolled back together is found with a checkpoint that was kept elsewhere, and only with it.
	kept := now["ledger/checkpoint"]
	old.write(t, dir, now)
	if r := verifyOnce(t, dir, string(key)); !r.OK() {
		t.Fatalf("an old copy of everything is consistent in itself: %+v", r.Problems)
	}
	s, err := file.Open(filepath.Join(dir, "archive"), file.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := ledger.Verify(context.Background(), ledger.VerifyConfig{Store: s, LedgerDir: filepath.Join(dir, "ledger"), PublicKey: string(key), Checkpoint: kept})
	if err != nil || r.OK() {
		t.Fatalf("the roll-back was not found: %v", err)
	}
}

// removeSome removes sessions as retention does, with a tombstone each, and puts another one under legal hold.
func removeSome(t *testing.T, dir string, ids ...string) {
	t.Helper()
	s, err := file.Open(filepath.Join(dir, "archive"), file.Options{SegmentSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := ledger.Open(filepath.Join(dir, "ledger"), filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var leaves []ledger.Leaf
	deed := func(id string, k ledger.LeafKind) {
		b, err := s.Last(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, ledger.LeafOf(b, core.EndClosed, time.Time{}).Done(k, "ops", "test", time.Unix(9, 0)))
	}
	deed("late1-2", ledger.LeafHold)
	for _, id := range ids {
		deed(id, ledger.LeafGone)
	}
	if err := l.AppendAll(leaves); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(context.Background(), ids); err != nil {
		t.Fatal(err)
	}
}

func verifyOnce(t *testing.T, dir, key string) ledger.Report {
	t.Helper()
	s, err := file.Open(filepath.Join(dir, "archive"), file.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := ledger.Verify(context.Background(), ledger.VerifyConfig{Store: s, LedgerDir: filepath.Join(dir, "ledger"), PublicKey: key, Grace: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	return r
}
