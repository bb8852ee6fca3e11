package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/ssh/terminal"
)

// played is one channel of a session that is shown.
type played struct {
	p             *playback
	number        uint32
	request, text string
	hasPTY, files bool
	term          string
	columns, rows int
	over          bool

	screen     *terminal.Screen
	transcript *terminal.Transcript
	out, errs  lines // without a terminal
	in         lines
	carried    [2]uint64 // bytes that are not shown: from the client, to it
}

// output is what the program has said.
func (x *played) output(data []byte, extended bool) (err error) {
	p := x.p
	switch {
	case p.how.Format == formatFiles:
		return nil
	case p.how.Format == formatRaw:
		if x != p.chosen {
			return nil
		}
		p.shown = true
		_, err = p.out.Write(data)
		return err
	case p.how.Format == formatCast:
		if x != p.chosen {
			return nil
		}
		p.shown = true
		if !x.hasPTY {
			data = bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
		}
		return p.cast.Output(p.last, data)
	case !p.wants(x):
		return nil
	case x.request == "" || x.files && !extended: // a forward, or files
		x.carried[1] += uint64(len(data))
		return nil
	case !x.hasPTY && extended:
		return x.errs.write(x, "", data)
	case !x.hasPTY:
		return x.out.write(x, "", data)
	}
	if x.screen == nil && x.transcript == nil {
		if p.drawing() && p.drawn() == nil {
			x.screen = terminal.NewScreen(p.out)
		} else {
			x.transcript = terminal.NewTranscript(p.out, x.columns)
		}
	}
	if x.screen != nil {
		_, err = x.screen.Write(data)
		return err
	}
	_, err = x.transcript.Write(data)
	return err
}

// wants reports whether a channel is to be shown.
func (p *playback) wants(x *played) bool {
	return p.how.Channel < 0 || uint32(p.how.Channel) == x.number
}

// input is what the client has said. What was typed at a terminal is on it.
func (x *played) input(data []byte) error {
	p := x.p
	switch {
	case p.how.Format == formatCast && x == p.chosen && !x.hasPTY && x.request == "exec":
		return p.cast.Input(p.last, data)
	case p.how.Format != "text" || x.hasPTY || !p.wants(x):
		return nil
	case x.request == "" || x.files:
		x.carried[0] += uint64(len(data))
		return nil
	}
	return x.in.write(x, "< ", data)
}

func (x *played) resize(columns, rows int) error {
	x.columns, x.rows = columns, rows
	if x.transcript != nil {
		x.transcript.Resize(columns)
	}
	if x.p.cast != nil && x == x.p.chosen {
		return x.p.cast.Resize(x.p.last, columns, rows)
	}
	return nil
}

// end writes what has no end of its own.
func (x *played) end() (err error) {
	if x.screen != nil {
		err = x.screen.Close()
		x.screen = nil
	}
	if x.transcript != nil {
		err = x.transcript.Close()
		x.transcript = nil
	}
	for _, l := range []struct {
		lines  *lines
		prefix string
	}{{&x.in, "< "}, {&x.out, ""}, {&x.errs, ""}} {
		if e := l.lines.end(x, l.prefix); err == nil {
			err = e
		}
	}
	if in, out := x.carried[0], x.carried[1]; err == nil && x.p.how.Format == "text" && in+out > 0 && !x.files {
		_, err = fmt.Fprintf(x.p.out, "(channel %d: %d bytes from the client, %d to it)\n", x.number, in, out)
		x.carried = [2]uint64{}
	}
	return err
}

// lines writes a stream as safe lines. A line that has no end yet waits, up to maxShownLine bytes.
type lines struct {
	rest   []byte
	binary uint64 // bytes that are no text, and were not written yet
}

const maxShownLine = 64 << 10

func (l *lines) write(x *played, prefix string, data []byte) error {
	for len(data) > 0 {
		i := bytes.IndexByte(data, '\n')
		part := data[:max(i, 0)]
		if i < 0 {
			part = data
		}
		l.rest = append(l.rest, part...)
		if i < 0 && len(l.rest) <= maxShownLine {
			return nil
		}
		data = data[min(len(part)+1, len(data)):]
		n := len(l.rest)
		if i < 0 { // a line that is too long: up to a character's end
			for n = maxShownLine; n > maxShownLine-utf8.UTFMax && !utf8.RuneStart(l.rest[n]); n-- {
			}
		}
		if err := l.line(x, prefix, l.rest[:n], i >= 0); err != nil {
			return err
		}
		l.rest = append(l.rest[:0], l.rest[n:]...)
	}
	return nil
}

// line writes one. Those with a NUL in them, of a file or of a protocol of the program's own, are counted.
func (l *lines) line(x *played, prefix string, text []byte, ends bool) error {
	if bytes.IndexByte(text, 0) >= 0 {
		if l.binary += uint64(len(text)); ends {
			l.binary++
		}
		return nil
	}
	if err := l.counted(x, prefix); err != nil {
		return err
	}
	return x.line(prefix, text)
}

func (l *lines) counted(x *played, prefix string) error {
	if l.binary == 0 {
		return nil
	}
	_, err := fmt.Fprintf(x.p.out, "%s(%d bytes that are no text)\n", prefix, l.binary)
	l.binary = 0
	return err
}

func (l *lines) end(x *played, prefix string) (err error) {
	if len(l.rest) > 0 {
		err = l.line(x, prefix, l.rest, false)
		l.rest = l.rest[:0]
	}
	return errors.Join(err, l.counted(x, prefix))
}

// line writes one, with the channel's number where others run beside it.
func (x *played) line(prefix string, text []byte) error {
	beside := ""
	for _, n := range x.p.order {
		if o := x.p.programs[n]; o != x && o.request != "" && !o.over && !x.over {
			beside = fmt.Sprintf("[%d] ", x.number)
			break
		}
	}
	_, err := fmt.Fprintf(x.p.out, "%s%s%s\n", beside, prefix, terminal.Safe(string(bytes.TrimSuffix(text, []byte("\r")))))
	return err
}

// statusKeys is the status of a notice that says what was typed, as far as it was shown.
const statusKeys = "typed"

var _ core.Playback = (*playback)(nil)
