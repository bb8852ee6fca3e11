package ledger

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core"
)

// LeafKind says what a leaf of the log states.
type LeafKind string

// The kinds of leaf.
const (
	LeafSeal LeafKind = "seal" // the session is over; Hash is its last block's
	LeafHead LeafKind = "head" // the session was open and had at least these blocks; Hash is the last of them
	LeafKey  LeafKind = "key"  // what follows is signed with another key; of no session
	// What follows was done by somebody, for a reason. Blocks, Records, End and Hash are those of the session's last leaf.
	LeafHold    LeafKind = "hold"    // nothing removes the session until it is released
	LeafRelease LeafKind = "release" // the hold is over
	LeafGone    LeafKind = "gone"    // the session was removed: a tombstone, written before the first block goes
	LeafShred   LeafKind = "shred"   // the session's key was destroyed: written before the key goes; the blocks stay
)

// deed reports whether somebody did it, for a reason.
func (k LeafKind) deed() bool {
	return k == LeafHold || k == LeafRelease || k == LeafGone || k == LeafShred
}

// ends reports whether it is of a sealed session only.
func (k LeafKind) ends() bool { return k == LeafSeal || k == LeafGone || k == LeafShred }

// Leaf is one entry of the log. In the log it is a line of text: version, kind, session, blocks, records, end
// ("-" for what has none), hash in hex, time in nanoseconds; of a deed also who did it and why, as in a URL's query.
type Leaf struct {
	Kind    LeafKind
	Session string
	Blocks  uint64 // blocks so far, that of Hash included
	Records uint64 // records begun in them
	End     core.End
	Hash    [32]byte
	Time    time.Time
	By, Why string // of a deed

	OldKey, NewKey string // of a LeafKey: the log's public keys, before and after
	Signature      []byte // of it, by the old one
}

// MaxWhy bounds By and Why, in bytes.
const MaxWhy = 1000

// Done makes the leaf of a deed.
func (l Leaf) Done(k LeafKind, by, why string, now time.Time) Leaf {
	l.Kind, l.By, l.Why, l.Time = k, by, why, now
	return l
}

const leafVersion = "weir1"

// LeafOf makes the leaf that a stored block gives rise to; end is used for a seal only.
func LeafOf(b core.Block, end core.End, now time.Time) Leaf {
	l := Leaf{Kind: LeafHead, Session: b.Header.Session, Blocks: b.Header.Number + 1, Records: b.Header.LastSeq + 1, Hash: b.Hash, Time: now}
	if b.Header.Seal {
		l.Kind, l.End = LeafSeal, end
	}
	return l
}

// appendLine appends the leaf's text without the line's end. Exactly these bytes are hashed.
func (l *Leaf) appendLine(b []byte) []byte {
	if l.Kind == LeafKey {
		return base64.StdEncoding.AppendEncode(append(l.keyMessage(b), ' '), l.Signature)
	}
	end := string(l.End)
	if end == "" {
		end = "-"
	}
	b = append(b, leafVersion+" "...)
	b = append(b, l.Kind...)
	b = append(append(b, ' '), l.Session...)
	b = strconv.AppendUint(append(b, ' '), l.Blocks, 10)
	b = strconv.AppendUint(append(b, ' '), l.Records, 10)
	b = append(append(b, ' '), end...)
	b = hex.AppendEncode(append(b, ' '), l.Hash[:])
	b = strconv.AppendInt(append(b, ' '), l.Time.UnixNano(), 10)
	if l.Kind.deed() {
		for _, s := range []string{l.By, l.Why} {
			if b = append(b, ' '); s == "" {
				b = append(b, '-')
			}
			b = append(b, url.QueryEscape(s)...)
		}
	}
	return b
}

// parseLeaf reads a line; only the text that appendLine would write is accepted.
func parseLeaf(line string) (Leaf, error) {
	var l Leaf
	f := strings.Split(line, " ")
	if len(f) > 1 && f[0] == leafVersion && LeafKind(f[1]) == LeafKey {
		l, err := parseKeyLeaf(f)
		if err == nil && string(l.appendLine(nil)) != line {
			err = errors.New("not in the one form a leaf may have")
		}
		return l, err
	}
	if len(f) < 8 || f[0] != leafVersion {
		return l, errors.New("not a leaf of a version known to this build")
	}
	l.Kind, l.Session = LeafKind(f[1]), f[2]
	if l.Kind != LeafSeal && l.Kind != LeafHead && !l.Kind.deed() {
		return l, fmt.Errorf("leaf kind %q is not known to this build", f[1])
	}
	fields := 8
	if l.Kind.deed() {
		fields = 10
	}
	if len(f) != fields {
		return l, fmt.Errorf("a leaf of kind %s has %d words, not %d", l.Kind, fields, len(f))
	}
	var err1, err2, err3, err4 error
	l.Blocks, err1 = strconv.ParseUint(f[3], 10, 64)
	l.Records, err2 = strconv.ParseUint(f[4], 10, 64)
	if f[5] != "-" {
		l.End = core.End(f[5])
	}
	h, err3 := hex.DecodeString(f[6])
	copy(l.Hash[:], h)
	ns, err4 := strconv.ParseInt(f[7], 10, 64)
	l.Time = time.Unix(0, ns).UTC()
	if l.Kind.deed() {
		for i, to := range []*string{&l.By, &l.Why} {
			if word := f[8+i]; word != "-" {
				s, err := url.QueryUnescape(word)
				if err != nil || len(s) > MaxWhy {
					return l, errors.New("who did it, or why, is malformed")
				}
				*to = s
			}
		}
	}
	switch {
	case errors.Join(err1, err2, err3, err4) != nil || len(h) != 32:
		return l, errors.New("a number or the hash is malformed")
	case !ValidSession(l.Session) || l.Blocks == 0 || l.Kind.ends() != (l.End != "") && l.Kind != LeafHold && l.Kind != LeafRelease:
		return l, errors.New("session or end is malformed")
	case string(l.appendLine(nil)) != line:
		return l, errors.New("not in the one form a leaf may have")
	}
	return l, nil
}
