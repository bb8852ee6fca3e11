package ssh

import (
	"bytes"
	"context"
	"time"
	"unicode/utf8"

	"github.com/weir-gateway/weir/core"
)

// keys reads what somebody types into a shell, to find the lines. Before the end of a line goes to the target, the line is judged as a
// command. It is best effort: the target's shell and its editor decide what a line is. While a program has the whole screen, and while
// something like a password is typed, there are no lines.
type keys struct {
	ch     *channel
	buffer []byte
	rest   []byte // read, and not yet carried
	err    error  // of the last reading

	line   []byte
	unsure bool // keys were used that bring in what nobody has typed: the history, completion
	escape bool

	until time.Time // when what was read last is not waited for any more
	seen  bool      // some line of it was shown
}

const (
	maxLine    = 4 << 10
	stageTyped = "typed"
	killLine   = 0x15 // takes a line back, in the usual editors
)

// next carries what was typed, up to the end of a line.
func (k *keys) next(s *stream, ctx context.Context) (p piece, denied *core.Denial, err error) {
	if len(k.rest) == 0 {
		if k.err != nil {
			return piece{}, nil, k.err
		}
		if k.buffer == nil {
			k.buffer = make([]byte, 4<<10)
		}
		var n int
		n, k.err = s.from.Read(k.buffer)
		if k.rest = k.buffer[:n]; n == 0 {
			return piece{}, nil, k.err
		}
		k.until, k.seen = time.Now().Add(echoWait), false
	}
	part := k.rest
	if i := bytes.IndexAny(part, "\r\n"); i > 0 { // what is typed goes first, so that the target can show it
		part = part[:i]
	} else if i == 0 {
		part = part[:1]
	}
	k.rest = k.rest[len(part):]
	if text, whole := k.typed(part); whole && !k.judge(ctx, text) {
		part[len(part)-1] = killLine
	}
	buffer := pieces.Get().(*[]byte)
	b := (*buffer)[:dataHead+len(part)]
	putHead(b, k.ch.number, false, len(part))
	copy(b[dataHead:], part)
	p, denied = s.judge(ctx, b, dataHead)
	p.buffer = buffer
	return p, denied, nil
}

// typed adds what was typed to the line. whole reports that its end has come.
func (k *keys) typed(part []byte) (text string, whole bool) {
	if k.ch.prompts.busy() {
		k.line, k.unsure, k.escape = k.line[:0], false, false
		return "", false
	}
	for _, b := range part {
		switch {
		case b == '\r' || b == '\n':
			text, whole = string(bytes.TrimSpace(bytes.ToValidUTF8(k.line, []byte("?")))), true
		case k.escape: // of a key such as an arrow: until its last letter
			k.escape = b == '[' || b == 'O' || b == ';' || b >= '0' && b <= '9'
		case b == 0x1b:
			k.escape, k.unsure = true, true
		case b == 0x7f || b == 0x08:
			_, n := utf8.DecodeLastRune(k.line)
			k.line = k.line[:len(k.line)-n]
		case b == killLine || b == 0x03:
			k.line, k.unsure = k.line[:0], false
		case b == 0x17: // the last word
			k.line = bytes.TrimRight(k.line, " ")
			k.line = k.line[:bytes.LastIndexByte(k.line, ' ')+1]
		case b < ' ':
			k.unsure = true
		case len(k.line) < maxLine:
			k.line = append(k.line, b)
		default:
			k.unsure = true
		}
	}
	return text, whole
}

// judge reports whether the line may be sent.
func (k *keys) judge(ctx context.Context, text string) bool {
	unsure := k.unsure
	k.line, k.unsure, k.escape = k.line[:0], false, false
	if text == "" && !unsure {
		return true
	}
	x := typedCommand(text, unsure)
	e := &core.Event{
		Kind: core.KindCommand, Direction: core.FromClient, Stage: stageTyped, Detail: k.ch.detail(), Waiter: &request{k.ch, x, false},
		Exchange: &core.Exchange{Command: x, Record: k.ch.in.Record},
	}
	if t := k.ch.typist; t != nil {
		shown := t.shown(ctx, k.until)
		if k.seen = k.seen || shown; !k.seen {
			k.unseen(ctx, e)
		}
	}
	v := k.ch.c.session.Check(ctx, e)
	if v.Deny == nil {
		return true
	}
	k.ch.tell(ctx, refused(v.Deny))
	return false
}

// unseen has a line judged that the terminal does not show, and keeps its text from the record: it may be a password.
func (k *keys) unseen(ctx context.Context, e *core.Event) {
	v := k.ch.c.session.Ask(ctx, e)
	if v.Hold != nil && v.Deny == nil { // nobody could be shown what to approve
		v.Deny = &core.Denial{Step: "weir", Rule: v.Hold.Rule}
	}
	if d := v.Deny; d != nil { // its reason may repeat what was typed
		e.Frame = refusal{&core.Denial{Step: d.Step, Rule: d.Rule, Reason: "a rule refuses this line, which the terminal does not show", Hint: "type it where it is shown, to be told more"}}
	}
	e.Exchange.Command = unseenCommand()
	e.Waiter = nil
}
