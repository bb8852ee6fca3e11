package ledger

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/weir-gateway/weir/core"
)

// Proof shows, with the log's public key, that a session's seal is in the log, or, of a session that is open, its last
// signed head: the leaf, its place, and the hashes that lead from it to the root of the signed checkpoint (RFC 6962,
// section 2.1.1).
type Proof struct {
	Session    string      `json:"session"`
	Leaf       string      `json:"leaf"`  // as it stands in the log
	Index      int64       `json:"index"` // from 0
	Path       []tlog.Hash `json:"path"`  // each in base64
	Checkpoint string      `json:"checkpoint"`
	Keys       []string    `json:"keys,omitempty"` // the leaves that say that the log's key has changed
}

// ErrNoLeaf says that the log has nothing of a session that its checkpoint covers: it is too young, or not of this log.
var ErrNoLeaf = errors.New("the log has no signed leaf of the session yet")

// Prove makes the proof of a session from the log in dir. A gateway may be writing it.
func Prove(dir, publicKey, session string) (Proof, error) {
	p := Proof{Session: session, Index: -1}
	signed, err := os.ReadFile(filepath.Join(dir, checkpointFile)) // before the leaves: there are as many as it covers
	if err != nil {
		return p, fmt.Errorf("ledger: checkpoint: %w", err)
	}
	f, err := os.Open(filepath.Join(dir, leavesFile))
	if err != nil {
		return p, fmt.Errorf("ledger: leaves: %w", err)
	}
	defer f.Close()
	turns, err := rotations(f)
	if err != nil {
		return p, fmt.Errorf("ledger: leaves: %w", err)
	}
	c, err := OpenCheckpoint(signed, keysOf(publicKey, turns)...)
	if err != nil {
		return p, err
	}
	p.Checkpoint = string(signed)
	for i := range turns {
		p.Keys = append(p.Keys, string(turns[i].appendLine(nil)))
	}
	var tree memory
	var best Leaf
	r := bufio.NewReaderSize(f, 1<<20)
	for i := int64(0); i < c.Size; i++ {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return p, fmt.Errorf("ledger: the log has fewer leaves than its checkpoint was signed for: %w", err)
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		if err := tree.add(i, line); err != nil {
			return p, err
		}
		if !bytes.Contains(line, []byte(" "+session+" ")) {
			continue
		}
		l, err := parseLeaf(string(line))
		if err != nil || l.Session != session || l.Kind.deed() {
			continue
		}
		if l.Kind == LeafSeal || best.Kind != LeafSeal && l.Blocks >= best.Blocks {
			best, p.Leaf, p.Index = l, string(line), i
		}
	}
	if p.Index < 0 {
		return p, fmt.Errorf("ledger: session %s: %w", session, ErrNoLeaf)
	}
	if p.Path, err = tlog.ProveRecord(c.Size, p.Index, &tree); err != nil {
		return p, fmt.Errorf("ledger: %w", err)
	}
	return p, nil
}

// Check returns what the proof shows, or why it shows nothing.
func (p *Proof) Check(publicKey string) (Leaf, Checkpoint, error) {
	var turns []Leaf
	for _, line := range p.Keys {
		l, err := parseLeaf(line)
		if err != nil || l.Kind != LeafKey {
			return Leaf{}, Checkpoint{}, errors.New("ledger: proof: what is to say that the log's key has changed is malformed")
		}
		turns = append(turns, l)
	}
	c, err := OpenCheckpoint([]byte(p.Checkpoint), keysOf(publicKey, turns)...)
	if err != nil {
		return Leaf{}, c, err
	}
	l, err := parseLeaf(p.Leaf)
	if err != nil {
		return l, c, fmt.Errorf("ledger: proof: %w", err)
	}
	if l.Kind.deed() {
		return l, c, fmt.Errorf("ledger: proof: a leaf of kind %s says nothing of the session's blocks", l.Kind)
	}
	if l.Session != p.Session {
		return l, c, fmt.Errorf("ledger: proof: the leaf is of session %s", l.Session)
	}
	if p.Index < 0 || p.Index >= c.Size {
		return l, c, errors.New("ledger: proof: the leaf lies outside of what the checkpoint was signed for")
	}
	if err := tlog.CheckRecord(p.Path, c.Size, c.Root, p.Index, tlog.RecordHash([]byte(p.Leaf))); err != nil {
		return l, c, errors.New("ledger: proof: the leaf is not in the log that the checkpoint was signed for")
	}
	return l, c, nil
}

// VerifyProof is Verify for one session and its proof, without the log. Keys may be nil.
func VerifyProof(ctx context.Context, store core.Store, p Proof, publicKey string, keys Keys) (Report, error) {
	l := &logView{seals: map[string]sealLeaf{}, heads: map[string][]Leaf{}}
	v := &verifier{c: VerifyConfig{Store: store, Keys: keys}, log: l}
	leaf, _, err := p.Check(publicKey)
	switch {
	case err != nil:
		v.problem(p.Session, -1, -1, "%s", strings.TrimPrefix(err.Error(), "ledger: "))
	case leaf.Kind == LeafSeal:
		l.seals[leaf.Session] = sealLeaf{Leaf: leaf, covered: true}
	default:
		l.heads[leaf.Session] = []Leaf{leaf}
	}
	if err != nil {
		return v.r, nil
	}
	ids := 0
	if err := store.Sessions(ctx, func(id string) error {
		if ids++; id != p.Session {
			v.problem(id, -1, -1, "the proof is not of this session")
		}
		return nil
	}); err != nil {
		return v.r, err
	}
	v.session(ctx, p.Session)
	if len(v.seals) > 0 && leaf.Kind == LeafHead {
		v.problem(p.Session, -1, -1, "the session is sealed, and the proof is of a head only")
		return v.r, ctx.Err()
	}
	if s, ok := store.(Checker); ok {
		damage, err := s.Damage(ctx)
		if err != nil {
			return v.r, err
		}
		for _, d := range damage {
			v.problem("", -1, -1, "%s", d)
		}
	}
	if err := v.matchSeals(ctx); err != nil {
		return v.r, err
	}
	return v.r, ctx.Err()
}

// KeyName returns the name and the hash that tell a public key from others, as "name+hash".
func KeyName(publicKey string) (string, error) {
	v, err := note.NewVerifier(strings.TrimSpace(publicKey))
	if err != nil {
		return "", errors.New("ledger: the public key is malformed: give the text of ledger.pub")
	}
	return fmt.Sprintf("%s+%08x", v.Name(), v.KeyHash()), nil
}
