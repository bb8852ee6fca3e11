package ledger

import (
	"encoding/hex"
	"errors"
	"fmt"
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
)

// Leaf is one entry of the log. In the log it is a line of text: version, kind, session, blocks, records, end
// ("-" for a head), hash in hex, time in nanoseconds.
type Leaf struct {
	Kind    LeafKind
	Session string
	Blocks  uint64 // blocks so far, that of Hash included
	Records uint64 // records begun in them
	End     core.End
	Hash    [32]byte
	Time    time.Time
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
	return strconv.AppendInt(append(b, ' '), l.Time.UnixNano(), 10)
}

// parseLeaf reads a line; only the text that appendLine would write is accepted.
func parseLeaf(line string) (Leaf, error) {
	var l Leaf
	f := strings.Split(line, " ")
	if len(f) != 8 || f[0] != leafVersion {
		return l, errors.New("not a leaf of a version known to this build")
	}
	l.Kind, l.Session = LeafKind(f[1]), f[2]
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
	switch {
	case errors.Join(err1, err2, err3, err4) != nil || len(h) != 32:
		return l, errors.New("a number or the hash is malformed")
	case l.Kind != LeafSeal && l.Kind != LeafHead:
		return l, fmt.Errorf("leaf kind %q is not known to this build", f[1])
	case !ValidSession(l.Session) || l.Blocks == 0 || (l.Kind == LeafSeal) != (l.End != ""):
		return l, errors.New("session or end is malformed")
	case string(l.appendLine(nil)) != line:
		return l, errors.New("not in the one form a leaf may have")
	}
	return l, nil
}
