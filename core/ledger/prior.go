package ledger

import (
	"encoding/binary"
	"slices"

	"github.com/weir-gateway/weir/core"
)

const (
	flagShared = 0x80 // of a record's kind: its facts begin as those of the session's last record of that kind
	minShared  = 32   // bytes that are worth naming
	maxPrior   = 4 << 10
)

// Prior is what the facts of a session's next record may share with the last ones: by kind, those of the last record. A
// loop says the same thing with other parameters, so most of a command's facts has been said. The zero value is the
// beginning of a session. It is kept by whoever encodes or decodes a session, record by record, in order.
type Prior struct {
	passing bool // what is decoded is of no use once the next is
	facts   [core.KindOpaque + 1][]byte
	words   map[string]string // texts that decisions were made of
}

// Bounds of the texts that are kept, and of one of them in bytes.
const (
	maxWords  = 256
	shortWord = 128
)

func (p *Prior) word(b []byte) string {
	if p == nil || len(b) > shortWord {
		return string(b)
	}
	if s, ok := p.words[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(p.words) < maxWords {
		if p.words == nil {
			p.words = map[string]string{}
		}
		p.words[s] = s
	}
	return s
}

// shared returns how many bytes of facts need not be written.
func (p *Prior) shared(k core.Kind, facts []byte) int {
	if p == nil || int(k) >= len(p.facts) {
		return 0
	}
	was := p.facts[k]
	n, most := 0, min(len(was), len(facts))
	for n+8 <= most && binary.NativeEndian.Uint64(was[n:]) == binary.NativeEndian.Uint64(facts[n:]) {
		n += 8
	}
	for n < most && was[n] == facts[n] {
		n++
	}
	if n < minShared {
		return 0
	}
	return n
}

// keep notes a record's facts, of which the first shared bytes are those of the one before. It copies.
func (p *Prior) keep(k core.Kind, facts []byte, shared int) {
	switch {
	case p == nil || int(k) >= len(p.facts):
	case len(facts) > maxPrior:
		p.facts[k] = nil
	default:
		p.facts[k] = append(p.facts[k][:shared], facts[shared:]...)
	}
}

// Wrote notes a record that was encoded without a Prior.
func (p *Prior) Wrote(r *core.Record) { p.keep(r.Kind, r.Facts, 0) }

// restore returns what begins with the first n bytes of the last record's facts, and goes on with rest.
func (p *Prior) restore(k core.Kind, n uint64, rest []byte) ([]byte, bool) {
	if p == nil || int(k) >= len(p.facts) || n < minShared || n > uint64(len(p.facts[k])) {
		return nil, false
	}
	if was := p.facts[k][:n]; !p.passing {
		return slices.Concat(was, rest), true
	}
	p.facts[k] = append(p.facts[k][:n], rest...)
	return p.facts[k], true
}
