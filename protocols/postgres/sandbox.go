package postgres

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core"
)

// A rehearsal is played by the bytes: the records of a session are its two streams, cut where an event ended. What the client
// was sent is sent again, each part when the client has sent all that was recorded before it.

const (
	sandboxSignIn = 10 * time.Second
	sandboxWrite  = 30 * time.Second
	sandboxFrame  = 64 << 20 // bytes of one message
)

var errNotFull = errors.New("the session was not recorded in full: only what was recorded with its bytes can be played (record: full)")

// Rehearse implements core.Sandbox.
func (p *Protocol) Rehearse(ctx context.Context, conn net.Conn, r core.Rehearsal) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(sandboxSignIn))
	s, err := readStartup(ctx, conn, r.TLS)
	if err != nil {
		return err
	}
	if s.cancel != nil {
		return nil // what was cancelled is in the recording
	}
	_ = s.conn.SetDeadline(time.Time{})
	defer func() { _ = s.conn.Close() }()
	b := &rehearsed{ctx: ctx, conn: s.conn, in: bufio.NewReaderSize(s.conn, 64<<10), out: bufio.NewWriterSize(s.conn, 64<<10)}
	play := b.order
	if r.Match == core.MatchText {
		play = b.text
	}
	err = play(r.Records)
	var d *core.Divergence
	var malformed *frameError
	switch {
	case errors.As(err, &d):
		_ = b.say("FATAL", codeDiverged, "the recording has something else here", fmt.Sprintf("recorded: %s; came: %s", d.Want, d.Got), "")
	case errors.As(err, &malformed):
		_ = b.say("FATAL", malformed.code, malformed.text, "", "")
	case err != nil && !errors.Is(err, errGone):
		_ = b.say("FATAL", codeIOError, "the recording cannot be played: "+err.Error(), "", "")
	}
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

// codeDiverged is of class 58, which says that the fault is not the client's statement.
const codeDiverged = "58W01"

// rehearsed is one client of a rehearsal.
type rehearsed struct {
	ctx      context.Context //nolint:containedctx // lives for one client
	conn     net.Conn
	in       *bufio.Reader
	out      *bufio.Writer
	commands int
	frame    []byte
	slack    bool // messages that may stand behind a secret command are passed over
}

func (b *rehearsed) say(severity, code, message, detail, hint string) error {
	return errors.Join(b.send(appendError(nil, severity, code, message, detail, hint)), b.flush())
}

func (b *rehearsed) send(wire []byte) error {
	_ = b.conn.SetWriteDeadline(time.Now().Add(sandboxWrite))
	if _, err := b.out.Write(wire); err != nil {
		return errGone
	}
	return nil
}

func (b *rehearsed) flush() error {
	_ = b.conn.SetWriteDeadline(time.Now().Add(sandboxWrite))
	if err := b.out.Flush(); err != nil {
		return errGone
	}
	return nil
}

// next reads the client's next message. What is to be sent goes first, if it has to be waited for.
func (b *rehearsed) next() ([]byte, error) {
	if b.in.Buffered() == 0 {
		if err := b.flush(); err != nil {
			return nil, err
		}
	}
	head, err := b.in.Peek(headerSize)
	if err != nil {
		return nil, errGone
	}
	_, need, err := frontend.next(head, sandboxFrame)
	if err != nil {
		return nil, err
	}
	if need == 0 {
		need = headerSize
	}
	if cap(b.frame) < need {
		b.frame = make([]byte, need)
	}
	b.frame = b.frame[:need]
	if _, err := io.ReadFull(b.in, b.frame); err != nil {
		return nil, errGone
	}
	if _, _, err := frontend.next(b.frame, sandboxFrame); err != nil {
		return nil, err
	}
	return b.frame, nil
}

// greet tells the client that it is in, with what the recorded client was told.
func (b *rehearsed) greet(r *core.Record) error {
	if len(r.Wire) < headerSize+1 {
		return errNotFull
	}
	at := len(r.Wire) - headerSize - 1 // behind it: ReadyForQuery
	out := append([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 0}, r.Wire[:at]...)
	out = appendFrame(out, 'K', make([]byte, 8)) // a key that cancels nothing
	return b.send(append(out, r.Wire[at:]...))
}

// isGreeting reports whether a record is what a client is told when it is in.
func isGreeting(r *core.Record) bool {
	return r.Kind == core.KindNotice && r.Direction == core.FromUpstream && bytes.Contains(r.Facts, []byte(`"status":"ready"`))
}

// recorded walks the parts of a recording that were on the wire, behind the greeting, which greeted is told of.
func recorded(records iter.Seq2[*core.Record, error], greeted, f func(r *core.Record) error) error {
	in := false
	for r, err := range records {
		if err == nil && r.Kind == core.KindOpen {
			err = full(r)
		}
		if err != nil {
			return err
		}
		switch {
		case r.Kind == core.KindOpen || r.Kind == core.KindClose:
		case !in && isGreeting(r):
			in = true
			if err := greeted(r); err != nil {
				return err
			}
		case !in: // a client that was never let in
			return errors.New("the recorded client was refused")
		case len(r.Wire) == 0 && r.Direction == core.FromClient && !secret(r):
			return errNotFull
		default:
			if err := f(r); err != nil {
				return err
			}
		}
	}
	if !in {
		return errors.New("the recording ends before its client was let in")
	}
	return nil
}

// full reports a session that was not recorded with its bytes.
func full(r *core.Record) error {
	var open struct {
		Record string `json:"record"`
	}
	if json.Unmarshal(r.Facts, &open) != nil || open.Record != core.LevelFull.String() {
		return errNotFull
	}
	return nil
}

// secret reports whether a command was recorded without its bytes because they hold a secret.
func secret(r *core.Record) bool {
	return r.Kind == core.KindCommand && bytes.Contains(r.Facts, []byte(`"secret":true`))
}

// order plays a recording to a client that asks the same again.
func (b *rehearsed) order(records iter.Seq2[*core.Record, error]) error {
	err := recorded(records, b.greet, func(r *core.Record) error {
		if err := context.Cause(b.ctx); err != nil {
			return errGone
		}
		if r.Direction != core.FromClient {
			return b.send(r.Wire)
		}
		if r.Kind == core.KindCommand {
			defer func() { b.commands++ }()
		}
		if secret(r) {
			return b.passSecret(r)
		}
		return eachMessage(r.Wire, b.expect)
	})
	if err != nil {
		return err
	}
	frame, err := b.next()
	if err != nil || frame[0] == 'X' {
		return err
	}
	return &core.Divergence{Command: b.commands, Want: "its end", Got: describe(frame)}
}

// expect reads the client's next message and compares it with a recorded one.
func (b *rehearsed) expect(want []byte) error {
	for {
		got, err := b.next()
		switch {
		case err != nil:
			return err
		case bytes.Equal(got, want), got[0] == 'd' && want[0] == 'd': // a step may have changed the data on its way
			b.slack = false
			return nil
		case b.slack && strings.IndexByte("DSH", got[0]) >= 0:
			continue
		case got[0] == 'X':
			return &core.Divergence{Command: b.commands, Want: describe(want), Got: "nothing more: it hung up"}
		}
		return &core.Divergence{Command: b.commands, Want: describe(want), Got: describe(got)}
	}
}

// passSecret takes the messages of a command whose text is not in the recording.
func (b *rehearsed) passSecret(r *core.Record) error {
	last := byte('E')
	if bytes.Contains(r.Facts, []byte(`"stage":"prepare"`)) {
		last = 'P'
	}
	for {
		got, err := b.next()
		if err != nil {
			return err
		}
		if got[0] == last || got[0] == 'Q' {
			b.slack = true
			return nil
		}
		if strings.IndexByte("PBDHSC", got[0]) < 0 {
			return &core.Divergence{Command: b.commands, Want: "a statement with a secret", Got: describe(got)}
		}
	}
}

// shownText bounds what a divergence shows of a text, in bytes.
const shownText = 200

// describe says what a message of a client is, for a person.
func describe(frame []byte) string {
	name := frontend.kinds[frame[0]].name
	c := body{b: frame[headerSize:]}
	text := ""
	switch frame[0] {
	case 'Q':
		text = string(c.str())
	case 'P':
		c.str()
		text = string(c.str())
	case 'B':
		c.str()
		text = "of " + quoted(string(c.str()))
	case 'D', 'C':
		kind := c.u8()
		text = string(kind) + " " + quoted(string(c.str()))
	case 'E':
		text = quoted(string(c.str()))
	case 'd':
		text = fmt.Sprintf("of %d bytes", len(frame)-headerSize)
	}
	if len(text) > shownText {
		text = strings.ToValidUTF8(text[:shownText], "") + "…"
	}
	if text = strings.Join(strings.Fields(text), " "); text == "" {
		return name
	}
	return name + " " + text
}

func quoted(name string) string { return `"` + name + `"` }

var _ core.Sandbox = (*Protocol)(nil)
