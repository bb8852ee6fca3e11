package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core"
)

// With match: text a recording is cut into requests, each with its answer: what a client sends up to where it waits for one.
// Requests are compared by what they ask: the names that a client gives to statements and portals do not count.

const (
	sandboxKept  = 256 << 20              // bytes of answers in memory
	sandboxPause = 200 * time.Millisecond // after which a client that sends nothing more waits for an answer
)

// request is a recorded request.
type request struct {
	key   string
	shown string
	parts [][]byte // of the answer; behind a CopyInResponse, which ends one, the client sends its data
}

// asking makes the key of a request out of its messages.
type asking struct {
	statements, portals map[string]string // what names stand for
	key                 strings.Builder
	shown               string
	syncs               int // messages that ReadyForQuery answers
}

func newAsking() *asking {
	return &asking{statements: map[string]string{}, portals: map[string]string{}}
}

// add takes a message in, and reports whether the client may wait for an answer behind it.
func (a *asking) add(frame []byte) bool {
	if a.shown == "" || strings.IndexByte("QPF", frame[0]) >= 0 && !strings.HasPrefix(a.shown, "Query") && !strings.HasPrefix(a.shown, "Parse") {
		a.shown = describe(frame)
	}
	c := body{b: frame[headerSize:]}
	field := func(s string) { fmt.Fprintf(&a.key, "%d:%s", len(s), s) }
	a.key.WriteByte(frame[0])
	switch frame[0] {
	case 'Q':
		field(strings.TrimSpace(string(c.str())))
	case 'P':
		name := string(c.str())
		a.statements[name] = string(c.b)
		field(string(c.b))
	case 'B':
		portal, statement := string(c.str()), c.str()
		a.portals[portal] = a.statements[string(statement)] + "\x00" + string(c.b)
		field(a.portals[portal])
	case 'D', 'C':
		kind, name := c.u8(), c.str()
		a.key.WriteByte(kind)
		if kind == 'S' {
			field(a.statements[string(name)])
		} else {
			field(a.portals[string(name)])
		}
	case 'E':
		field(a.portals[string(c.str())])
		field(string(c.b))
	default:
		field(string(c.b))
	}
	switch frame[0] {
	case 'Q', 'S', 'F':
		a.syncs++
		return true
	}
	return frame[0] == 'H'
}

// take returns the key so far and begins another request.
func (a *asking) take() (key, shown string) {
	key, shown = a.key.String(), a.shown
	a.key.Reset()
	a.shown, a.syncs = "", 0
	return key, shown
}

// requests cuts a recording.
func requestsOf(records iter.Seq2[*core.Record, error], greeted func(*core.Record) error) (map[string][]*request, error) {
	all := map[string][]*request{}
	a := newAsking()
	var now *request
	var ready, size int
	waits := false // a request is whole
	end := func() {
		if now != nil && waits {
			now.key, now.shown = a.take()
			all[now.key] = append(all[now.key], now)
		}
		now, waits, ready = nil, false, 0
	}
	err := recorded(records, greeted, func(r *core.Record) error {
		if size += len(r.Wire); size > sandboxKept {
			return fmt.Errorf("the recording has more than %d MiB, which is too much to look up: play it in order", sandboxKept>>20)
		}
		if r.Direction != core.FromClient {
			if now == nil {
				return nil // what nobody asked for
			}
			return eachMessage(r.Wire, func(frame []byte) error {
				last := len(now.parts) - 1
				now.parts[last] = append(now.parts[last], frame...)
				switch frame[0] {
				case 'Z':
					ready++
				case 'G':
					now.parts = append(now.parts, nil)
				}
				return nil
			})
		}
		if secret(r) {
			return errors.New("a statement with a secret was recorded without its text: play the recording in order")
		}
		return eachMessage(r.Wire, func(frame []byte) error {
			switch frame[0] {
			case 'X', 'd', 'c', 'f':
				return nil
			}
			if waits && ready >= a.syncs {
				end()
			}
			if now == nil {
				now = &request{parts: make([][]byte, 1)}
			}
			waits = a.add(frame)
			return nil
		})
	})
	end()
	return all, err
}

// eachMessage calls f with each message.
func eachMessage(wire []byte, f func(frame []byte) error) error {
	for len(wire) > 0 {
		if len(wire) < headerSize {
			return errors.New("the recording holds half a message")
		}
		n := 1 + int(binary.BigEndian.Uint32(wire[1:]))
		if n < headerSize || n > len(wire) {
			return errors.New("the recording holds half a message")
		}
		if err := f(wire[:n]); err != nil {
			return err
		}
		wire = wire[n:]
	}
	return nil
}

// text plays a recording to a client that asks some of it, in any order.
func (b *rehearsed) text(records iter.Seq2[*core.Record, error]) error {
	all, err := requestsOf(records, b.greet)
	if err != nil {
		return err
	}
	a := newAsking()
	for {
		frame, err := b.next()
		if err != nil || frame[0] == 'X' {
			return err
		}
		if !a.add(frame) {
			continue
		}
		found := all[a.key.String()]
		if len(found) == 0 {
			if b.comes() { // the recorded client may have sent more before it waited
				continue
			}
			return &core.Divergence{Command: b.commands, Want: "no request like it", Got: a.shown}
		}
		if len(found) > 1 { // the last one is given again
			all[a.key.String()] = found[1:]
		}
		a.take()
		b.commands++
		if err := b.answer(found[0]); err != nil {
			return err
		}
	}
}

// comes reports whether the client sends more although it has no answer yet.
func (b *rehearsed) comes() bool {
	if b.in.Buffered() > 0 {
		return true
	}
	_ = b.conn.SetReadDeadline(time.Now().Add(sandboxPause))
	_, err := b.in.Peek(1)
	_ = b.conn.SetReadDeadline(time.Time{})
	return err == nil
}

// answer sends what was recorded, and takes the data of a COPY between.
func (b *rehearsed) answer(q *request) error {
	for i, part := range q.parts {
		if err := b.send(part); err != nil {
			return err
		}
		for i < len(q.parts)-1 {
			frame, err := b.next()
			if err != nil {
				return err
			}
			if frame[0] == 'c' || frame[0] == 'f' {
				break
			}
			if frame[0] != 'd' {
				return &core.Divergence{Command: b.commands, Want: "the data of a COPY", Got: describe(bytes.Clone(frame))}
			}
		}
	}
	return nil
}
