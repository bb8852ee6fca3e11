package ssh

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// extent is what has been read or written of a file: which bytes, and their hash where they came in order.
type extent struct {
	bytes  uint64
	ranges []span
	more   bool      // there were more ranges than are kept
	sum    hash.Hash // of all of it, while each piece begins where the one before has ended
	mixed  bool
	next   uint64
}

// span is from its first byte to the one behind its last.
type span struct{ from, to uint64 }

const maxRanges = 16

func (x *extent) add(at uint64, data []byte) {
	if len(data) == 0 {
		return
	}
	if x.sum == nil {
		x.sum, x.next = sha256.New(), at
	}
	x.mixed = x.mixed || at != x.next || at+uint64(len(data)) < at
	x.bytes += uint64(len(data))
	if x.next = at + uint64(len(data)); !x.mixed {
		_, _ = x.sum.Write(data)
	}
	x.cover(span{at, x.next})
}

// cover adds a range to those that are kept, and joins it with its neighbours.
func (x *extent) cover(s span) {
	if n := len(x.ranges); n > 0 && s.from >= x.ranges[n-1].from && s.from <= x.ranges[n-1].to { // it goes on
		x.ranges[n-1].to = max(x.ranges[n-1].to, s.to)
		return
	}
	kept := x.ranges[:0:0]
	for _, r := range x.ranges {
		if r.to < s.from || r.from > s.to {
			kept = append(kept, r)
			continue
		}
		s.from, s.to = min(s.from, r.from), max(s.to, r.to)
	}
	if len(kept) >= maxRanges {
		x.more = true
		return
	}
	i, _ := slices.BinarySearchFunc(kept, s, func(a, b span) int {
		if a.from < b.from {
			return -1
		}
		return 1
	})
	x.ranges = slices.Insert(kept, i, s)
}

// text says what was done: "written 8192 bytes (0-8191), sha256 …".
func (x *extent) text(what string) string {
	sum := sha256.New()
	if x.sum != nil {
		sum = x.sum
	}
	return x.said(what, hex.EncodeToString(sum.Sum(nil)))
}

func (x *extent) said(what, sum string) string {
	list := make([]string, 0, len(x.ranges)+1)
	for _, r := range x.ranges {
		list = append(list, fmt.Sprintf("%d-%d", r.from, r.to-1))
	}
	if x.more {
		list = append(list, "and more")
	}
	how := "sha256 " + sum
	if x.mixed {
		how = "not in order"
	}
	return fmt.Sprintf("%s %d bytes (%s), %s", what, x.bytes, strings.Join(list, " "), how)
}

// text says what was done with a file that is closed, or how it ended instead. The path is the last, so that it cannot be taken for
// something else.
func (o *file) text(end string) string {
	var list []string
	for _, way := range []struct {
		use, what string
		x         *extent
	}{{"read", "read", &o.read}, {"write", "written", &o.written}} {
		if way.x.bytes > 0 || slices.Contains(o.use, way.use) && (len(o.use) == 1 || o.read.bytes+o.written.bytes == 0) {
			list = append(list, way.x.text(way.what))
		}
	}
	if len(list) == 0 {
		list = append(list, "closed")
	}
	return strings.Join(list, "; ") + end + ": " + line(o.path)
}

// carried is a line of the list of files in a recording.
type carried struct {
	what, ranges, sum, path string
	bytes                   uint64
	cut                     bool // nobody has closed it
}

var (
	saidOfFile = regexp.MustCompile(`^((?:(?:read|written) \d+ bytes \([-0-9a-z ]*\), (?:sha256 [0-9a-f]{64}|not in order)(?:; )?)+)(, not closed)?: `)
	saidOfWay  = regexp.MustCompile(`(read|written) (\d+) bytes \(([-0-9a-z ]*)\), (?:sha256 ([0-9a-f]{64})|not in order)`)
)

// readCarried reads what text has said of a file.
func readCarried(said string) (list []carried) {
	m := saidOfFile.FindStringSubmatch(said)
	if m == nil {
		return nil
	}
	for _, w := range saidOfWay.FindAllStringSubmatch(m[1], 2) {
		n, err := strconv.ParseUint(w[2], 10, 64)
		if err != nil {
			return nil
		}
		list = append(list, carried{w[1], w[3], w[4], said[len(m[0]):], n, m[2] != ""})
	}
	return list
}
